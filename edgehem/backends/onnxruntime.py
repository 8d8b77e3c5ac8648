"""ONNX Runtime on the CPU: the engine that is always there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends import DEFAULT, F32, OPEN_S, Options
from edgehem.errors import BackendError
from edgehem.machine import usable_cpus

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
"""Packages that install the module ``onnxruntime``, each over the others."""

_NUMBERS = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
"""ONNX Runtime's names of types that arrays have too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input as a graph declares it; a free dimension is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class OnnxRuntime:
    """The backend; see :class:`edgehem.backends.Backend`."""

    name = "onnxruntime"
    forms = ("float", "qdq-u8", "qdq-s8")
    patience_s = OPEN_S
    on_request = False
    needs_plan = False

    def missing(self) -> str:
        """Empty when onnxruntime can be imported."""
        try:
            import onnxruntime  # noqa: F401
        except (ImportError, OSError) as error:
            return f"cannot be imported ({type(error).__name__})"
        return ""

    def version(self) -> str:
        """Of every package that installs the module, or empty."""
        found = []
        for name in DISTRIBUTIONS:
            try:
                found.append((name, metadata.version(name)))
            except metadata.PackageNotFoundError:
                continue
        return ", ".join(version if name == self.name else f"{name} {version}" for name, version in found)

    def arithmetics(self) -> tuple[str, ...]:
        """Float32 alone."""
        return (F32,)

    def open(self, graph: bytes, options: Options = DEFAULT) -> OnnxRuntimeSession:
        """Load a graph.

        Raises
        ------
        BackendError
            If ONNX Runtime refuses it, or is asked for another arithmetic than float32.
        """
        return OnnxRuntimeSession(graph, options)


class OnnxRuntimeSession:
    """A loaded graph on the CPU provider, with as many threads as the process may use."""

    def __init__(self, graph: bytes, options: Options = DEFAULT) -> None:
        import onnxruntime

        if options.arithmetic != F32:
            raise BackendError(f"ONNX Runtime computes in {F32} on a CPU, not in {options.arithmetic}")
        level = onnxruntime.GraphOptimizationLevel
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads or usable_cpus()
        settings.inter_op_num_threads = 1
        settings.graph_optimization_level = level.ORT_ENABLE_ALL if options.optimise else level.ORT_DISABLE_ALL
        settings.log_severity_level = 3
        # Its threads go on spinning for tens of milliseconds after a run, on the processors that read the next study.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime refuses the graph ({type(error).__name__})") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the graph declares to read.

        Raises
        ------
        BackendError
            If an input is no array of numbers.
        """
        return ports(self._session)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph.

        Raises
        ------
        BackendError
            If the run fails, with the engine's exception as cause.
        """
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # as above
            raise BackendError(f"ONNX Runtime failed while running the graph ({type(error).__name__})") from error
        return dict(zip(self._outputs, values, strict=True))


def ports(session: Any) -> tuple[Port, ...]:
    """What the graph of an InferenceSession declares to read.

    Raises
    ------
    BackendError
        If an input is no array of numbers.
    """
    found = []
    for port in session.get_inputs():
        if port.type not in _NUMBERS:
            raise BackendError(f"the graph's input {port.name!r} is a {port.type}, not an array of numbers")
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in port.shape)
        found.append(Port(name=port.name, shape=shape, dtype=_NUMBERS[port.type]))
    return tuple(found)
