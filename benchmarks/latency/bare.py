"""The bare call of an engine's own library, as its documentation has it: what a backend's overhead is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends import F32
from edgehem.machine import usable_cpus

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]


def opened(engine: str, graph: bytes, *, arithmetic: str = F32) -> Callable[[Mapping[str, Array]], Outputs] | None:
    """A graph on an engine's library, with as many threads; None for engines that have no such call here."""
    if engine == "openvino":
        return _openvino(graph, arithmetic)
    return _onnxruntime(graph) if (engine, arithmetic) == ("onnxruntime", F32) else None


def agree(ours: Outputs, bare: Outputs) -> None:
    """Make sure that both computed the same.

    Raises
    ------
    ValueError
    """
    for name, value in ours.items():
        np.testing.assert_allclose(value, bare[name], rtol=1e-3, atol=1e-3)


def _onnxruntime(graph: bytes) -> Callable[[Mapping[str, Array]], Outputs]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = usable_cpus()
    session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _openvino(graph: bytes, arithmetic: str) -> Callable[[Mapping[str, Array]], Outputs]:
    from edgehem.backends.openvino import core

    model = core().read_model(graph)
    model.reshape({port.any_name: [1 if size.is_dynamic else size.get_length() for size in port.partial_shape]
                   for port in model.inputs})  # fmt: skip
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(usable_cpus()),
        "INFERENCE_PRECISION_HINT": arithmetic,
        "ENABLE_CPU_PINNING": "NO",
    }
    compiled = core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    names = [port.any_name for port in model.outputs]

    def run(inputs: Mapping[str, Array]) -> Outputs:
        results = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: results[name] for name in names}

    return run
