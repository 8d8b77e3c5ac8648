"""Whether two ways of running the same network agree: torch and ONNX, optimised or not, one by one or in a batch.

Each check draws fresh inputs from a seed, at several batch sizes, and raises where an output leaves its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from edgehem.errors import BudgetError, UsageError
from edgehem.machine import usable_cpus

BATCHES = (1, 2, 5)
"""Batch sizes tried: the runtime's, the exporter's example, and one that divides nothing. A batch that was baked into a
Reshape as a constant passes at its own size only."""

Arrays = Mapping[str, npt.NDArray[Any]]
Draw = Callable[[np.random.Generator, int], dict[str, npt.NDArray[Any]]]
"""Makes named inputs for a batch of so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What two runs may differ by, per output.

    Attributes
    ----------
    worst : float
        Largest difference, relative to the largest value of the reference.
    sqnr_db : float
        Least signal-to-noise ratio, 10·log10(Σ reference² / Σ difference²).
    """

    worst: float
    sqnr_db: float


FLOAT = Budget(worst=1e-4, sqnr_db=90.0)
"""float32 in another order of summation: real networks of up to 249 convolutions stay within 1e-6 and above 110 dB. A
hundred times more is already a different computation, not rounding."""
HALF = Budget(worst=1e-2, sqnr_db=50.0)
"""float16 keeps 11 bits, 5e-4 of a value, and is rounded at other places once operators are fused."""
INT8 = Budget(worst=0.15, sqnr_db=20.0)
"""The same Q/DQ graph with its pairs fused into integer kernels or computed in float: a sum on the edge between two
steps falls to either side, and the step is 1/127 of a range. The shipped graph was seen at 29 dB and 4 % (attention, on
noise; logits 58 dB and 0.2 %); a graph whose attention was fused wrongly gave 6 dB, and ran without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near one output came to its reference, over all batches; see :class:`Budget`."""

    worst: float
    sqnr_db: float

    def within(self, budget: Budget) -> bool:
        """Whether both figures keep the budget; what is not a number does not."""
        return self.worst <= budget.worst and self.sqnr_db >= budget.sqnr_db


def like(examples: Mapping[str, torch.Tensor | npt.NDArray[Any]]) -> Draw:
    """Inputs of the kind of some examples: of their shape but for the batch, and evenly drawn from their range."""
    arrays = {
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in examples.items()
    }
    for name, array in arrays.items():
        if not array.ndim or not array.size:
            raise UsageError(f"the example of {name!r} has no batch axis, or no values")

    def draw(rng: np.random.Generator, batch: int) -> dict[str, npt.NDArray[Any]]:
        found = {}
        for name, array in arrays.items():
            shape, low, high = (batch, *array.shape[1:]), array.min(), array.max()
            if array.dtype.kind == "f":
                found[name] = (low + (high - low) * rng.random(shape)).astype(array.dtype)
            else:
                found[name] = rng.integers(int(low), int(high), shape, endpoint=True).astype(array.dtype)
        return found

    return draw


def declared(graph: onnx.ModelProto) -> Draw:
    """Inputs as a graph declares them: floats from 0 to 1, integers 0 or 1.

    Raises
    ------
    UsageError
        If an axis other than the first has no size: nothing is known to draw then.
    """
    stored = {tensor.name for tensor in graph.graph.initializer}
    examples = {}
    for value in graph.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        sizes = [axis.dim_value for axis in tensor.shape.dim][1:]
        if not tensor.HasField("shape") or not tensor.shape.dim or not all(size > 0 for size in sizes):
            raise UsageError(f"the graph's input {value.name!r} has axes of unknown size besides the batch")
        if tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise UsageError(f"the graph's input {value.name!r} holds no numbers")
        examples[value.name] = np.zeros((2, *sizes), helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        examples[value.name][0] = 1
    return like(examples)


def against_torch(
    model: nn.Module,
    graph: bytes,
    draw: Draw,
    *,
    outputs: Sequence[str],
    batches: Sequence[int] = BATCHES,
    seed: int = 0,
    budget: Budget = FLOAT,
) -> dict[str, Agreement]:
    """Hold a graph against the module it came from.

    Parameters
    ----------
    model : Module
        In evaluation mode; takes the inputs by position, in the order of `draw`.
    graph : bytes
    draw : callable
    outputs : sequence of str
        Names of what the module returns, in order.
    batches, seed, budget

    Raises
    ------
    BudgetError
        If an output leaves its budget at any batch size, or the graph cannot run at one.
    """

    def reference(inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        with torch.inference_mode():
            values = flat(model(*(torch.from_numpy(array) for array in inputs.values())))
        return {name: value.numpy() for name, value in zip(outputs, values, strict=True)}

    session = _session(graph, optimised=True)
    return _compare(reference, lambda inputs: _run(session, inputs), draw, batches, seed, budget, "ONNX and torch")


def between_optimisations(
    graph: bytes,
    draw: Draw | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    seed: int = 0,
    budget: Budget | None = None,
) -> dict[str, Agreement]:
    """Hold ONNX Runtime's optimised form of a graph against the graph as it is written.

    A graph can be sound and its fused form wrong: this finds it before anything is served.

    Parameters
    ----------
    graph : bytes
    draw : callable, optional
        :func:`declared` by default. Give real samples for a quantised graph: outside the calibrated range the figures
        say little.
    batches, seed
    budget : Budget, optional
        :func:`budget_of` the graph by default.

    Raises
    ------
    BudgetError
        If an output leaves its budget.
    """
    proto = onnx.load_from_string(graph)
    plain, fused = _session(graph, optimised=False), _session(graph, optimised=True)
    return _compare(
        lambda inputs: _run(plain, inputs),
        lambda inputs: _run(fused, inputs),
        draw or declared(proto),
        batches,
        seed,
        budget or budget_of(proto),
        "ONNX Runtime with and without optimisation",
    )


def across_batches(
    graph: bytes,
    draw: Draw | None = None,
    *,
    batch: int = 5,
    seed: int = 0,
    budget: Budget | None = None,
    optimised: bool = True,
) -> dict[str, Agreement]:
    """Hold a batch against its members one by one: none may depend on its neighbours, or on how many there are.

    Parameters
    ----------
    graph, draw, batch, seed, budget
        As for :func:`between_optimisations`.
    optimised : bool
        False for a graph that ONNX Runtime's CPU provider is never to serve.

    Raises
    ------
    BudgetError
        If an output leaves its budget, or the graph cannot run at a size.
    """
    proto = onnx.load_from_string(graph)
    session = _session(graph, optimised=optimised)

    def singly(inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        parts = [_run(session, {name: array[i : i + 1] for name, array in inputs.items()}) for i in range(batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return _compare(
        singly,
        lambda inputs: _run(session, inputs),
        draw or declared(proto),
        (batch,),
        seed,
        budget or budget_of(proto),
        "A batch and its members one by one",
    )


def budget_of(graph: onnx.ModelProto) -> Budget:
    """The budget of a graph's kind: quantised, float16 somewhere, or float32."""
    if any(node.op_type in ("QuantizeLinear", "QLinearConv", "ConvInteger") for node in graph.graph.node):
        return INT8
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.graph.initializer)
    return HALF if half else FLOAT


def as_record(found: Mapping[str, Agreement]) -> dict[str, dict[str, float]]:
    """For JSON, in four digits; equal outputs have no noise, written as 999 dB."""
    return {
        name: {key: float(f"{min(value, 999.0):.4g}") for key, value in asdict(agreement).items()}
        for name, agreement in found.items()
    }


def flat(value: Any) -> list[torch.Tensor]:
    """The tensors a module returned, in order.

    Raises
    ------
    UsageError
        If there is anything else in it.
    """
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, (tuple, list)):
        raise UsageError(f"the network returns a {type(value).__name__}; tensors, or a tuple or dict of them, can be")
    return [tensor for item in value for tensor in flat(item)]


def _compare(
    reference: Callable[[Arrays], Arrays],
    other: Callable[[Arrays], Arrays],
    draw: Draw,
    batches: Sequence[int],
    seed: int,
    budget: Budget,
    what: str,
) -> dict[str, Agreement]:
    rng = np.random.default_rng(seed)
    worst: dict[str, float] = {}
    noise: dict[str, float] = {}
    for batch in batches:
        inputs = draw(rng, batch)
        try:
            expected, got = reference(inputs), other(inputs)
        except RuntimeError as error:  # ONNX Runtime's errors and torch's are RuntimeErrors
            raise BudgetError(f"{what}: cannot run a batch of {batch} ({_first_line(error)})") from error
        for name, value in expected.items():
            if value.shape != got[name].shape:
                raise BudgetError(
                    f"{what} disagree at a batch of {batch}: {name} has shape {got[name].shape}, not {value.shape}"
                )
            difference, ratio = _measured(value, got[name])
            worst[name] = float(np.maximum(worst.get(name, 0.0), difference))  # NumPy's keep what is not a number
            noise[name] = float(np.minimum(noise.get(name, np.inf), ratio))
    found = {name: Agreement(worst=worst[name], sqnr_db=noise[name]) for name in worst}
    bad = {name: agreement for name, agreement in found.items() if not agreement.within(budget)}
    if bad:
        figures = "; ".join(f"{name} by {a.worst:.1e} of its range, {a.sqnr_db:.1f} dB" for name, a in bad.items())
        raise BudgetError(f"{what} disagree: {figures} (at most {budget.worst:g}, at least {budget.sqnr_db:g} dB)")
    return found


def _measured(reference: npt.NDArray[Any], got: npt.NDArray[Any]) -> tuple[float, float]:
    """Worst relative difference, SQNR in dB; not-a-number where either holds what is not finite."""
    a, b = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan"), float("nan")
    difference = a - b
    if not difference.any():
        return 0.0, float("inf")
    span, power = float(np.abs(a).max()) or 1.0, float((a**2).sum())
    ratio = 10 * np.log10(power / float((difference**2).sum())) if power else float("-inf")
    return float(np.abs(difference).max()) / span, float(ratio)


def _session(graph: bytes, *, optimised: bool) -> Any:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = usable_cpus()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise BudgetError(f"ONNX Runtime refuses the graph ({_first_line(error)})") from error


def _run(session: Any, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:  # as above
        raise RuntimeError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
