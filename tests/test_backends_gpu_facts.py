"""What ONNX Runtime's GPU engines read off: an exception's text, and a graph's bytes."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from edgehem.backends.onnxruntime_gpu.failures import LOST, failure
from edgehem.backends.onnxruntime_gpu.graph import Facts, facts
from edgehem.bundle import find
from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError

TINY = runpy.run_path(str(Path(__file__).parent / "engines" / "tiny.py"))
model: Callable[..., bytes] = TINY["model"]
field: Callable[..., bytes] = TINY["field"]

SECRET = "/home/somebody/patient-4711.onnx with value 0.123"
HALF = field(1, 8) + field(
    7,
    field(1, field(1, "x") + field(2, "y") + field(4, "Identity"))
    + field(2, "half")
    + field(11, field(1, "x") + field(2, field(1, field(1, 10) + field(2, field(1, field(1, 1))))))
    + field(12, field(1, "y") + field(2, field(1, field(1, 10) + field(2, field(1, field(1, 1)))))),
) + field(8, field(1, "") + field(2, 13))  # fmt: skip
"""y = Identity(x), one float16."""


class EPFail(Exception):  # noqa: N818 - ONNX Runtime's name
    """What ONNX Runtime raises where a provider failed."""


# Exceptions


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; expr=f()", DeviceLostError),
        ("CUDA failure 719 ; GPU=0", DeviceLostError),
        ("CUDA error 710", DeviceLostError),
        ("CUDA runtime error (716)", DeviceLostError),
        ("CUDA error cudaErrorLaunchFailure:unspecified launch failure", DeviceLostError),
        ("[TensorRT] Cuda Runtime (the launch timed out and was terminated)", DeviceLostError),
        ("device-side assert triggered", DeviceLostError),
        ("CUDA_ERROR_ECC_UNCORRECTABLE", DeviceLostError),
        ("CUDA failure 999: unknown error", DeviceLostError),
        ("Failed to allocate memory for requested buffer: CUDA failure 700", DeviceLostError),
        ("CUDA failure 2: out of memory ; GPU=0", BackendMemoryError),
        ("BFCArena Failed to allocate memory for requested buffer of size 4", BackendMemoryError),
        ("Available memory of 1 is smaller than requested bytes of 2", BackendMemoryError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", BackendMemoryError),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", BackendMemoryError),
        ("[TensorRT] Error Code 2: OutOfMemory (Requested size was 1 bytes)", BackendMemoryError),
        ("std::bad_alloc", BackendMemoryError),
        ("CUDA failure 1: invalid argument", BackendError),
        ("CUDA failure 7000: no such number", BackendError),
        ("node 700 failed", BackendError),
        ("cudaErrorAssertive", BackendError),
        ("CUDNN_STATUS_EXECUTION_FAILED", BackendError),
        ("unknown error", BackendError),
        ("Non-zero status code returned while running Conv node", BackendError),
    ],
)
def test_exceptions_are_told_apart_by_the_names_of_cuda(text: str, kind: type[BackendError]) -> None:
    said = failure(EPFail(f"{text} {SECRET}"), "it failed")
    assert type(said) is kind
    assert str(said).startswith("it failed")
    assert "somebody" not in str(said) and "0.123" not in str(said)


def test_every_error_that_ends_a_process_is_known_by_number_and_by_name() -> None:
    for number, (name, driver, words) in LOST.items():
        for text in (f"CUDA failure {number}: x", f"({name})", f"{driver}:", words):
            assert not text or type(failure(EPFail(text), "")) is DeviceLostError, text
        assert name in str(failure(EPFail(driver), ""))


def test_a_memory_error_of_python_is_one_too() -> None:
    assert type(failure(MemoryError(), "")) is BackendMemoryError


# What a graph is, by its bytes


def node(operator: str, *attributes: bytes) -> bytes:
    return field(4, operator) + b"".join(field(5, each) for each in attributes)


def graph_of(*nodes: bytes, more: bytes = b"") -> bytes:
    return b"".join(field(1, each) for each in nodes) + more


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (model("Add"), Facts()),
        (HALF, Facts(float16=True)),
        (field(7, graph_of(node("QuantizeLinear"))), Facts(quantised=True)),
        (field(7, graph_of(node("DequantizeLinear"))), Facts(quantised=True)),
        (field(7, graph_of(node("Cast", field(1, "to") + field(3, 10)))), Facts(float16=True)),
        (field(7, graph_of(node("Cast", field(1, "to") + field(3, 1)))), Facts()),
        (field(7, graph_of(more=field(5, field(1, 3) + field(2, 10)))), Facts(float16=True)),
        (field(7, graph_of(more=field(5, field(1, 10) + field(2, 1)))), Facts()),
        (field(7, graph_of(node("Constant", field(1, "value") + field(5, field(2, 10))))), Facts(float16=True)),
        (field(7, graph_of(node("If", field(6, graph_of(node("QuantizeLinear")))))), Facts(quantised=True)),
        (field(25, field(7, node("QuantizeLinear"))), Facts(quantised=True)),
        (field(7, graph_of(node("EPContext"))), Facts(engines=1)),
        (field(7, graph_of(node("EPContext", field(1, "embed_mode") + field(3, 1)))), Facts(engines=1)),
        (
            field(7, graph_of(node("EPContext", field(1, "embed_mode") + field(3, 0)), node("EPContext"))),
            Facts(engines=2, outside=1),
        ),
        (b"", Facts()),
        (b"\xff" * 40, Facts()),
        (bytes([7 << 3 | 3, 1]), Facts()),
        (field(7, b"")[:-1] + b"\x7f", Facts()),
        # Fields of fixed width are stepped over.
        (bytes([9 << 3 | 1]) + bytes(8) + bytes([9 << 3 | 5]) + bytes(4) + HALF, Facts(float16=True)),
    ],
)
def test_a_graph_is_known_by_its_bytes(content: bytes, wanted: Facts) -> None:
    assert facts(content) == wanted


def test_a_graph_that_is_cut_off_anywhere_raises_nothing() -> None:
    bundle = find("hemorrhagenet")
    whole = bundle.read(bundle.graph("int8", ("qdq-s8",)))
    assert facts(whole) == Facts(quantised=True)
    for size in range(0, len(whole), 997):
        facts(whole[:size])
