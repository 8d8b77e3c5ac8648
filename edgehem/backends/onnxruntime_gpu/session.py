"""A graph on providers of ONNX Runtime that must be the ones asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends import Options
from edgehem.backends.onnxruntime import Port, ports
from edgehem.backends.onnxruntime_gpu.failures import failure
from edgehem.backends.onnxruntime_gpu.runtime import ASSIGNMENT, Providers
from edgehem.errors import BackendError, DeviceLostError
from edgehem.machine import usable_cpus

FATAL = 4
"""ONNX Runtime writes nothing below this to standard error: its messages may quote values and paths."""

SHAPE_OPERATORS = frozenset({
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather", "Greater",
    "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Range",
    "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze",
    "Sub", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that compute with shapes. ONNX Runtime puts those of them that read no more than a shape on the CPU, where
shapes are, whatever provider was asked for (GetCpuPreferredNodes). ``session.disable_cpu_ep_fallback`` would refuse
such a graph as a whole: measured by others, and the shipped network has four such operators."""


def settings_for(module: Any, options: Options, level: Any) -> Any:
    """SessionOptions for one graph, at an optimisation level of ONNX Runtime's."""
    settings = module.SessionOptions()
    settings.intra_op_num_threads = options.threads or usable_cpus()
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = level
    # Where an operator has a kernel that adds up in a fixed order, it is taken.
    settings.use_deterministic_compute = True
    settings.log_severity_level = FATAL
    # As in edgehem.backends.onnxruntime: threads of what runs on the CPU give it back when a run has ended.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def start(module: Any, content: bytes, settings: Any, providers: Providers, what: str) -> Any:
    """An InferenceSession on these providers.

    Raises
    ------
    BackendError, BackendMemoryError, DeviceLostError
        With a message that begins with `what`; also if ONNX Runtime took other providers instead.
    """
    # Without these two, ONNX Runtime would fall back to the CPU on its own, here and at a run, and print the error;
    # and would take settings out of the graph where a variable of the environment says so.
    fixed = {"enable_fallback": 0, "read_config_from_model": 0}
    raised = None
    try:
        if providers.devices:
            settings.add_provider_for_devices(list(providers.devices), providers.options[0])
            session = module.InferenceSession(content, settings, **fixed)
        else:
            names, chosen = list(providers.names), list(providers.options)
            session = module.InferenceSession(content, settings, providers=names, provider_options=chosen, **fixed)
        got = tuple(session.get_providers())
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raised = failure(error, what)
    if raised is not None:  # raised here, so that it has no context: see failures
        raise raised
    if got[: len(providers.names)] != providers.names:
        lacking = " and ".join(name for name in providers.names if name not in got)
        raise BackendError(
            f"{what}: {lacking or providers.names[0]} did not start (a library of CUDA, cuDNN or TensorRT, or the "
            "driver, is missing or of another version)"
        )
    return session


def taken(session: Any, providers: Providers, who: str) -> dict[str, int]:
    """How many operators each provider computes.

    Raises
    ------
    BackendError
        If the first provider has none, or another one than those asked for has any but arithmetic on shapes.
    """
    count: Counter[str] = Counter()
    strays: set[str] = set()
    for part in getattr(session, ASSIGNMENT)():
        operators = [str(node.op_type) for node in part.get_nodes()]
        count[str(part.ep_name)] += len(operators)
        if part.ep_name not in providers.names:
            strays.update(operator for operator in operators if operator not in SHAPE_OPERATORS)
    if not count[providers.names[0]]:
        raise BackendError(f"{who} takes none of the graph's operators")
    if strays:
        raise BackendError(f"{who} would leave {', '.join(sorted(strays))} to the CPU")
    return dict(count)


class OnnxRuntimeGpuSession:
    """A graph that is ready to run. ``plan`` names the plan it was opened from, if that has to be qualified.

    Parameters
    ----------
    module
        onnxruntime.
    content : bytes
        A graph, or one with an engine inside.
    settings
        SessionOptions.
    providers : Providers
    who : str
        What messages call the engine.
    fixed : bool
        Free dimensions are 1 and cannot be anything else.

    Raises
    ------
    BackendError, BackendMemoryError, DeviceLostError
    """

    def __init__(
        self, module: Any, content: bytes, settings: Any, providers: Providers, *, who: str, fixed: bool = False
    ) -> None:
        self.plan = ""
        self._who = who
        self._lost = ""
        self._session = start(module, content, settings, providers, f"{who} refuses the graph")
        self.operators = taken(self._session, providers, who)
        self._inputs = {port.name: _settled(port) if fixed else port for port in ports(self._session)}
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the graph reads."""
        return tuple(self._inputs.values())

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it answers."""
        return tuple(self._outputs)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph.

        Raises
        ------
        BackendError
            If the inputs are not what the graph declares, or the run fails.
        BackendMemoryError
            If the device or the host has too little memory.
        DeviceLostError
            If the device failed in a way that this process cannot recover from; every later run fails like it.
        """
        if self._lost:
            raise DeviceLostError(self._lost)
        self._check(inputs)
        raised = None
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # as in start
            raised = failure(error, f"{self._who} failed while running the graph")
        if raised is not None:
            if isinstance(raised, DeviceLostError):
                self._lost = str(raised)
            raise raised
        return dict(zip(self._outputs, values, strict=True))

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Before the device is touched: ONNX Runtime's own message would be all there is to go by."""
        if inputs.keys() != self._inputs.keys():
            raise BackendError(
                f"{self._who} failed: the graph reads {', '.join(self._inputs)}, and was given {', '.join(inputs)}"
            )
        for name, array in inputs.items():
            port = self._inputs[name]
            fits = len(port.shape) == array.ndim and all(
                want in (None, have) for want, have in zip(port.shape, array.shape, strict=True)
            )
            if not fits or array.dtype != np.dtype(port.dtype):
                raise BackendError(
                    f"{self._who} failed: the graph reads {name} as {port.dtype} {_said(port.shape)}, "
                    f"and was given {array.dtype} {_said(array.shape)}"
                )


def _settled(port: Port) -> Port:
    return replace(port, shape=tuple(1 if size is None else size for size in port.shape))


def _said(shape: Iterable[int | None]) -> str:
    return "×".join("any" if size is None else str(size) for size in shape) or "single value"
