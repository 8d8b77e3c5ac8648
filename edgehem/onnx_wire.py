"""Whether an ONNX graph is whole: one well-formed model that names no other file for its weights.

A bundle's hash covers the graph's own bytes. A tensor may lie elsewhere, though (``TensorProto.external_data``), and
OpenVINO 2026.4 fetches it from the working directory unasked, where ONNX Runtime 1.31 refuses a graph without a path.
So a graph is looked through before any engine gets it: its protocol buffer's framing alone, since the runtime has no
onnx package. What holds tensors is walked; everything else is stepped over by its length, weights too.

References
----------
Protocol Buffers, "Encoding"; onnx/onnx.proto (IR version 14).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import count
from typing import Any

from edgehem.errors import BundleError

MAX_DEPTH = 100
"""Messages inside of messages: as deep as protobuf's own parsers go, so whatever an engine reads was looked at."""
MAX_FIELDS = 2**22
"""Of the messages that are walked; the largest of our networks has 2^15. It bounds the time, to a few seconds."""

ORT_FORMAT = b"ORTM"
"""At byte 4: ONNX Runtime takes such bytes for a flatbuffer of its own format, whatever they are to other readers."""

_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire types, those of a fixed size with their bytes. Groups (3 and 4) are in no ONNX schema."""
_MAX_NUMBER = 2**29 - 1
_MAX_VARINT_BYTES = 10
_MOST_TEXT = 80
"""Bytes of a name or a place that messages repeat."""

_Fields = dict[int, Any]
"""What is understood of a message: field number to the message it holds, or to one of the marks below."""
_EXTERNAL, _LOCATION, _OPERATOR = "external data", "data location", "operator"
_COMPILED = b"EPContext"
"""ONNX Runtime's operator that holds or names what a provider compiled: code, which no bundle ships."""

_TENSOR_NAME, _TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 8, 13, 1, 2
_TENSOR: _Fields = {_TENSOR_EXTERNAL: _EXTERNAL, 14: _LOCATION}
_SPARSE: _Fields = {1: _TENSOR, 2: _TENSOR}
_GRAPH: _Fields = {5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE: _Fields = {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE}
_NODE: _Fields = {4: _OPERATOR, 5: _ATTRIBUTE}
_GRAPH[1] = _NODE  # the one circle: graph, node, attribute, graph
_FUNCTION: _Fields = {7: _NODE, 11: _ATTRIBUTE}
_TRAINING: _Fields = {1: _GRAPH, 2: _GRAPH}
_MODEL_GRAPH = 7
_MODEL: _Fields = {_MODEL_GRAPH: _GRAPH, 20: _TRAINING, 25: _FUNCTION}


def check_whole(graph: bytes, where: str) -> None:
    """Make sure that a graph is one model in itself.

    The bytes are neither copied nor changed. It takes time in proportion to the number of nodes, attributes and
    tensors, not to the tensors' size.

    Parameters
    ----------
    graph : bytes
        A serialised ModelProto.
    where : str
        What messages call it.

    Raises
    ------
    BundleError
        If a tensor's data lies outside: an initialiser, dense or sparse, or one in a node's attribute, in whatever
        subgraph, function or training graph. Or if the bytes are no well-formed ModelProto with a graph, nested
        deeper than :data:`MAX_DEPTH` or with more than :data:`MAX_FIELDS` fields; or if they hold a compiled engine,
        or begin like another format of ONNX Runtime's.
    """
    if graph[4:8] == ORT_FORMAT:
        raise BundleError(f"{where} is in ONNX Runtime's own format; an ONNX graph is expected")
    try:
        outside = _first_outside(graph)
    except MalformedError as error:
        raise BundleError(f"{where} is not a well-formed ONNX graph: {error}") from error
    if outside is not None:
        name, location = outside
        raise BundleError(
            f"{where} is not whole: its tensor {name!r} has its data elsewhere ({location!r}), where no hash covers "
            "it; save the graph with its weights inside"
        )


class MalformedError(ValueError):
    """Bytes that no ModelProto is written as."""


def _first_outside(graph: bytes) -> tuple[str, str] | None:
    """Name of the first tensor whose data lies outside, and where; None if there is none. Raises MalformedError."""
    seen = count(1)
    has_graph = False
    # A stack of our own: nesting must not become Python's recursion.
    open_messages = [(_MODEL, 0, len(graph), fields(graph, 0, len(graph), _MODEL, seen))]
    while open_messages:
        understood, start, stop, rest = open_messages[-1]
        for number, wire, value, end in rest:
            inside = understood[number]
            if wire != (_VARINT if inside is _LOCATION else _LENGTH):
                # Parsers pass such a field over; who reads it otherwise is not known, and nobody writes it.
                raise MalformedError(f"field {number} ends at byte {end} and has wire type {wire}")
            if inside is _EXTERNAL or (inside is _LOCATION and value):
                return _described(graph, start, stop)
            if inside is _OPERATOR and graph[value:end] == _COMPILED:
                raise MalformedError("it holds a compiled engine (EPContext), which is made where it runs")
            if inside is _LOCATION or inside is _OPERATOR:
                continue
            if len(open_messages) > MAX_DEPTH:
                raise MalformedError(f"more than {MAX_DEPTH} messages are inside of each other at byte {value}")
            has_graph = has_graph or (understood is _MODEL and number == _MODEL_GRAPH)
            open_messages.append((inside, value, end, fields(graph, value, end, inside, seen)))
            break
        else:
            open_messages.pop()
    if not has_graph:
        raise MalformedError("it holds no graph")
    return None


def fields(
    data: bytes, at: int, stop: int, wanted: Container[int], seen: Iterator[int]
) -> Iterator[tuple[int, int, int, int]]:
    """The wanted fields of a message; the others are stepped over.

    Parameters
    ----------
    data : bytes
    at, stop : int
        Where the message begins and ends.
    wanted : container of int
        Field numbers.
    seen : iterator of int
        Counts the fields of all messages that share it, from 1.

    Yields
    ------
    number, wire : int
    value : int
        Of a varint; of others, where their bytes begin.
    end : int

    Raises
    ------
    MalformedError
        For a field that is wanted, and for one that is not.

    Notes
    -----
    Parsers differ in what they make of a number in more bytes than it needs, or with bits above those it has; so it is
    read as a whole, and must be in range.
    """
    while at < stop:
        if next(seen) > MAX_FIELDS:
            raise MalformedError(f"it has more than {MAX_FIELDS} fields")
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, at - 1, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise MalformedError(f"the field before byte {at} has a number out of range")
        if wire == _LENGTH:
            if at < stop and (size := data[at]) < 128:
                value = at + 1
            else:
                size, value = _varint(data, at, stop)
            at = value + size
        elif wire == _VARINT:
            value, at = _varint(data, at, stop)
        elif wire in _FIXED:
            value, at = at, at + _FIXED[wire]
        else:
            raise MalformedError(f"the field before byte {at} has wire type {wire}, which ONNX does not use")
        if at > stop:
            raise MalformedError(f"the field that ends at byte {at} leaves what it lies in, which ends at {stop}")
        if number in wanted:
            yield number, wire, value, at


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and where it ends. Raises MalformedError."""
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        if at >= stop:
            raise MalformedError(f"a number is cut off at byte {stop}")
        byte = data[at]
        at += 1
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at
    raise MalformedError(f"the number before byte {at} does not end")


def _described(data: bytes, start: int, stop: int) -> tuple[str, str]:
    """A tensor's name, and the location it gives. Raises MalformedError."""
    name, location = "", "not said where"
    for number, wire, value, end in fields(data, start, stop, (_TENSOR_NAME, _TENSOR_EXTERNAL), count(1)):
        if wire == _LENGTH and number == _TENSOR_NAME:
            name = _text(data, value, end)
        elif wire == _LENGTH:
            parts = fields(data, value, end, (_ENTRY_KEY, _ENTRY_VALUE), count(1))
            entry = {key: _text(data, first, last) for key, kind, first, last in parts if kind == _LENGTH}
            if entry.get(_ENTRY_KEY) == "location":
                location = entry.get(_ENTRY_VALUE, location)
    return name, location


def _text(data: bytes, start: int, stop: int) -> str:
    return data[start : min(stop, start + _MOST_TEXT)].decode("utf-8", "replace")
