"""A graph by hand: ONNX is protocol buffers, and the test environment has no onnx package to write them with."""

from __future__ import annotations

from collections.abc import Iterable

FLOAT = 1


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: a number, or something with a length (both below 2^14)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def tensor(name: str, shape: Iterable[int | str]) -> bytes:
    """ValueInfoProto of a float tensor; a text is a free dimension."""
    sizes = b"".join(field(1, field(1, n) if isinstance(n, int) else field(2, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, sizes)))


def model(operator: str, *, total: str = "total", columns: int = 3) -> bytes:
    """A graph with inputs a, b [N, 3]: total = operator(a, b), copy = a."""
    binary = field(1, "a") + field(1, "b") + field(2, total) + field(4, operator)
    copy = field(1, "a") + field(2, "copy") + field(4, "Identity")
    graph = field(1, binary) + field(1, copy) + field(2, "sum")
    graph += b"".join(field(11, tensor(name, ("N", columns))) for name in "ab")
    graph += b"".join(field(12, tensor(name, ("N", columns))) for name in (total, "copy"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
