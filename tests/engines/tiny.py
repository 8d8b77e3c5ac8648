"""A graph by hand: ONNX is protocol buffers, and the test environment has no onnx package to write them with."""

from __future__ import annotations

from collections.abc import Iterable

FLOAT, INT8, FLOAT16, BFLOAT16 = 1, 3, 10, 16
"""TensorProto.DataType."""


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: a number, or something with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def tensor(name: str, shape: Iterable[int | str], kind: int = FLOAT) -> bytes:
    """ValueInfoProto of a tensor; a text is a free dimension."""
    sizes = b"".join(field(1, field(1, n) if isinstance(n, int) else field(2, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def model(operator: str, *, total: str = "total", columns: int = 3) -> bytes:
    """A graph with inputs a, b [N, 3]: total = operator(a, b), copy = a."""
    binary = field(1, "a") + field(1, "b") + field(2, total) + field(4, operator)
    copy = field(1, "a") + field(2, "copy") + field(4, "Identity")
    graph = field(1, binary) + field(1, copy) + field(2, "sum")
    graph += b"".join(field(11, tensor(name, ("N", columns))) for name in "ab")
    graph += b"".join(field(12, tensor(name, ("N", columns))) for name in (total, "copy"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def node(operator: str, reads: str, makes: str) -> bytes:
    """Field of a graph: a NodeProto without attributes; names are apart by blanks."""
    return field(1, b"".join(field(1, name) for name in reads.split()) + field(2, makes) + field(4, operator))


def study(shape: tuple[int, int, int], kind: int = FLOAT, *, batch: int | str = 1) -> bytes:
    """What a network of studies looks like from outside: image [1, Z, 3, Y, X] and valid [1, Z].

    It gives the image as it was read (seen), and of float ones the mean of each valid plane (logits).
    """
    planes, height, width = shape
    image, valid = (batch, planes, 3, height, width), (batch, planes)
    graph = node("Identity", "image", "seen")
    if kind == FLOAT:
        graph += node("GlobalAveragePool", "image", "pooled") + node("Flatten", "pooled", "means")
        graph += node("Mul", "means valid", "logits")
    else:
        graph += node("Identity", "valid", "logits")
    graph += field(2, "study") + field(11, tensor("image", image, kind)) + field(11, tensor("valid", valid))
    graph += field(12, tensor("seen", image, kind)) + field(12, tensor("logits", valid))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
