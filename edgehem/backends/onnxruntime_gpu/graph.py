"""What decides how a graph is given to a GPU's provider, read from its bytes: the runtime has no onnx package.

References
----------
Protocol Buffers, "Encoding"; onnx/onnx.proto (IR version 13); ONNX Runtime, contrib operator com.microsoft.EPContext.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from edgehem.onnx_wire import MalformedError, fields

_MODEL, _FUNCTION, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _VALUE, _TYPE, _TENSOR_TYPE = range(9)
_INSIDE = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _FUNCTION: {7: _NODE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 11: _VALUE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH},
    _VALUE: {2: _TYPE},
    _TYPE: {1: _TENSOR_TYPE},
}
"""Field number to the message it holds, by message. Those of a node are told apart in :func:`_node`."""
_OPERATOR, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_NUMBER = 1, 3
_DATA_TYPE = {_TENSOR: 2, _TENSOR_TYPE: 1}
_EVERY = range(1, 2**29)
"""Field numbers there can be."""
_FLOAT16 = 10
"""onnx.TensorProto.FLOAT16."""

QUANTISERS = (b"QuantizeLinear", b"DequantizeLinear")
CONTEXT = b"EPContext"
"""The operator that holds what a provider compiled."""


@dataclass(kw_only=True, slots=True)
class Facts:
    """What a graph is, its subgraphs included.

    Parameters
    ----------
    quantised : bool
        It has Q/DQ pairs.
    float16 : bool
        It is written in float16: some tensor, input or Cast is.
    engines : int
        Nodes that hold an engine.
    outside : int
        Those of them whose engine lies in a file beside the graph, which no hash covers.
    """

    quantised: bool = False
    float16: bool = False
    engines: int = 0
    outside: int = 0


def facts(graph: bytes) -> Facts:
    """Read a serialised ModelProto. Of one that is damaged, what comes before the damage: an engine refuses it."""
    found = Facts()
    open_messages = [(_MODEL, 0, len(graph))]
    with contextlib.suppress(MalformedError):
        while open_messages:
            kind, start, stop = open_messages.pop()
            if kind == _NODE:
                open_messages += _node(graph, start, stop, found)
                continue
            inside, type_field = _INSIDE.get(kind, {}), _DATA_TYPE.get(kind)
            for number, value, end in _fields(graph, start, stop):
                found.float16 |= number == type_field and value == _FLOAT16
                if number in inside:
                    open_messages.append((inside[number], value, end))
    return found


def _node(graph: bytes, start: int, stop: int, found: Facts) -> list[tuple[int, int, int]]:
    """Note what a node is; what is inside of it and has to be looked at."""
    operator, numbers, inside = b"", {}, []
    for field, value, end in _fields(graph, start, stop):
        if field == _OPERATOR:
            operator = graph[value:end]
        elif field == _NODE_ATTRIBUTE:
            inside.append((_ATTRIBUTE, value, end))
            name, number = b"", 0
            for part, content, last in _fields(graph, value, end):
                if part == _ATTRIBUTE_NAME:
                    name = graph[content:last]
                elif part == _ATTRIBUTE_NUMBER:
                    number = content
            numbers[name] = number
    found.quantised |= operator in QUANTISERS
    found.float16 |= operator == b"Cast" and numbers.get(b"to") == _FLOAT16
    if operator == CONTEXT:
        found.engines += 1
        found.outside += numbers.get(b"embed_mode", 1) == 0
    return inside


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, value or first byte, and end of each field. Raises MalformedError."""
    return ((number, value, end) for number, _, value, end in fields(data, at, stop, _EVERY, count(1)))
