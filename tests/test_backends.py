"""Engines: one is chosen or refused by name, and ONNX Runtime runs a graph or says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import pytest

from edgehem import backends
from edgehem.backends import choose
from edgehem.backends.onnxruntime import OnnxRuntime
from edgehem.errors import BackendError

FLOAT = 1


class Engine:
    """A pretended engine."""

    def __init__(self, name: str, missing: str = "") -> None:
        self.name, self._missing = name, missing

    def missing(self) -> str:
        return self._missing

    def open(self, graph: bytes) -> backends.Session:
        raise NotImplementedError


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Two engines, of which the one that is preferred is absent."""
    engines = [Engine("fast", "library not found"), Engine("slow")]
    monkeypatch.setattr(backends, "engines", lambda: engines)
    return engines


def test_auto_takes_the_first_engine_that_is_there(pretended: list[Engine]) -> None:
    assert choose() is choose("auto") is pretended[1]


def test_a_named_engine_is_taken_by_name(pretended: list[Engine]) -> None:
    assert choose("slow") is pretended[1]


def test_a_named_engine_that_is_absent_is_an_error_and_never_another_one(pretended: list[Engine]) -> None:
    with pytest.raises(BackendError, match="fast: library not found") as refused:
        choose("fast")
    assert "slow" not in str(refused.value)


def test_an_unknown_engine_is_answered_with_the_known_ones(pretended: list[Engine]) -> None:
    with pytest.raises(BackendError, match="auto, fast, slow"):
        choose("tpu")


def test_without_any_engine_every_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = [Engine("fast", "library not found"), Engine("slow", "not installed")]
    monkeypatch.setattr(backends, "engines", lambda: engines)
    with pytest.raises(BackendError, match="fast: library not found; slow: not installed"):
        choose()


def test_onnx_runtime_is_there() -> None:
    assert choose("onnxruntime").missing() == ""


# A graph by hand: ONNX is protocol buffers, and the test environment has no onnx package to write them with.


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


def model(operator: str) -> bytes:
    """A graph with inputs a, b [N, 3]: total = operator(a, b), copy = a."""
    binary = field(1, "a") + field(1, "b") + field(2, "total") + field(4, operator)
    copy = field(1, "a") + field(2, "copy") + field(4, "Identity")
    graph = field(1, binary) + field(1, copy) + field(2, "sum")
    graph += b"".join(field(11, tensor(name, ("N", 3))) for name in "ab")
    graph += b"".join(field(12, tensor(name, ("N", 3))) for name in ("total", "copy"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)


def test_a_graph_is_run_from_its_bytes() -> None:
    """Inputs and outputs go by name, for any batch; what was given is not written to."""
    session = OnnxRuntime().open(model("Add"))
    for rows in (1, 2):
        outputs = session.run({"b": B[:rows], "a": A[:rows]})
        assert set(outputs) == {"total", "copy"}
        np.testing.assert_array_equal(outputs["total"], A[:rows] + B[:rows])
        np.testing.assert_array_equal(outputs["copy"], A[:rows])
    assert A.max() == 5


@pytest.mark.parametrize("graph", [b"", b"not a graph", model("NoSuchOperator"), model("Add")[:-10]])
def test_what_is_no_graph_is_refused(graph: bytes) -> None:
    """With the engine's own exception as the cause."""
    with pytest.raises(BackendError, match="refuses") as refused:
        OnnxRuntime().open(graph)
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize(
    "inputs",
    [{"a": A}, {"a": A, "b": B, "c": B}, {"a": A, "b": B[:, :2]}, {"a": A, "b": B.astype(np.float64)}],
    ids=["one missing", "one too many", "wrong shape", "wrong type"],
)
def test_inputs_that_do_not_fit_are_an_error_of_the_backend(inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(BackendError, match="failed") as failed:
        OnnxRuntime().open(model("Add")).run(inputs)
    assert failed.value.__cause__ is not None


def test_an_engine_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absent or broken: a reason, no traceback."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "cannot be imported" in OnnxRuntime().missing()
    with pytest.raises(BackendError, match="cannot be imported"):
        choose("onnxruntime")
