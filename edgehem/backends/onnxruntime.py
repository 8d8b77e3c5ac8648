"""ONNX Runtime on the CPU: the engine that is always there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import BackendError
from edgehem.machine import usable_cpus


class OnnxRuntime:
    """The backend; see :class:`edgehem.backends.Backend`."""

    name = "onnxruntime"

    def missing(self) -> str:
        """Empty when onnxruntime can be imported."""
        try:
            import onnxruntime  # noqa: F401
        except (ImportError, OSError) as error:
            return f"cannot be imported ({type(error).__name__})"
        return ""

    def open(self, graph: bytes) -> OnnxRuntimeSession:
        """Load a graph.

        Raises
        ------
        BackendError
            If ONNX Runtime refuses it.
        """
        return OnnxRuntimeSession(graph)


class OnnxRuntimeSession:
    """A loaded graph on the CPU provider, with as many threads as the process may use."""

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cpus()
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime refuses the graph ({type(error).__name__})") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

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
