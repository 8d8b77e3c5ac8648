"""A graph by hand that joins two inputs and convolves them in int8, spelled in several ways that mean the same.

OpenVINO 2026.4 takes one of them for something else (docs/engines.md).
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

TINY = runpy.run_path(str(Path(__file__).parent / "tiny.py"))
field: Callable[[int, int | bytes | str], bytes] = TINY["field"]
tensor: Callable[[str, Iterable[int | str]], bytes] = TINY["tensor"]

TYPES = {"float32": 1, "uint8": 2, "int8": 3}
"""TensorProto.DataType."""
JOINED = ("float", "pair", "pair twice", "joined int8", "unsigned")
"""Spellings of :func:`joined`."""


def stored(name: str, value: Any) -> bytes:
    """TensorProto of an array."""
    sizes = b"".join(field(1, size) for size in value.shape)
    return sizes + field(2, TYPES[value.dtype.name]) + field(8, name) + field(9, value.tobytes())


def node_field(operator: str, reads: str, makes: str, *attributes: bytes) -> bytes:
    """Field of a graph: a NodeProto; names are apart by blanks."""
    names = b"".join(field(1, name) for name in reads.split()) + field(2, makes)
    return field(1, names + field(4, operator) + b"".join(field(5, attribute) for attribute in attributes))


def pair(reads: str, makes: str) -> bytes:
    """Fields of a graph: QuantizeLinear and DequantizeLinear."""
    whole = f"{makes}_int"
    return node_field("QuantizeLinear", f"{reads} scale zero", whole) + node_field(
        "DequantizeLinear", f"{whole} scale zero", makes
    )


def joined(spelling: str, weight: Any, *, scale: Any, weight_scale: Any) -> bytes:
    """A graph that joins a and b [1, C, 1, 1], quantises them, and convolves: logits [1, O].

    Parameters
    ----------
    spelling : str
        ``float``: nothing is quantised but the weight. ``pair``: QuantizeLinear and DequantizeLinear (int8) behind the
        Concat, as edgehem writes it. ``pair twice``: the same two a second time, which changes no number. ``joined
        int8``: each is quantised, and the Concat joins int8. ``unsigned``: a pair in uint8 with zero point 128.
    weight : int8 array [O, 2 C, 1, 1]
    scale, weight_scale : float32 array []
    """
    graph = node_field("DequantizeLinear", "weight weight_scale", "kernel")
    axis = field(1, "axis") + field(3, 1) + field(20, 2)
    if spelling == "float":
        graph += node_field("Concat", "a b", "read", axis)
    elif spelling == "joined int8":
        graph += node_field("QuantizeLinear", "a scale zero", "qa") + node_field("QuantizeLinear", "b scale zero", "qb")
        graph += node_field("Concat", "qa qb", "q", axis) + node_field("DequantizeLinear", "q scale zero", "read")
    elif spelling == "pair twice":
        graph += node_field("Concat", "a b", "both", axis) + pair("both", "again") + pair("again", "read")
    else:
        graph += node_field("Concat", "a b", "both", axis) + pair("both", "read")
    graph += node_field("Conv", "read kernel", "y") + node_field("Flatten", "y", "logits") + field(2, "joined")
    zero = np.array(128, np.uint8) if spelling == "unsigned" else np.array(0, np.int8)
    kept = {"weight": weight, "weight_scale": weight_scale, "scale": scale, "zero": zero}
    graph += b"".join(field(5, stored(name, value)) for name, value in kept.items())
    outputs, channels = weight.shape[:2]
    graph += b"".join(field(11, tensor(name, (1, channels // 2, 1, 1))) for name in "ab")
    graph += field(12, tensor("logits", (1, outputs)))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
