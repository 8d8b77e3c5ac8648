"""The float16 stage: a float or an INT8 graph written in float16, with as few operators in float32 as the budget needs.

The reference is the float graph. What the float16 graph says is taken from ONNX Runtime on the CPU without
optimisation, made to round every tensor to float16 (:func:`rounding`); inside of an operator it computes in float32.
Whether an engine that also sums in float16 stays as near is measured on the device (``edgehem compile``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, shape_inference

from edgehem.backends import Options
from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.durable import write_whole
from edgehem.errors import BudgetError, UsageError
from edgehem.export.deviation import sqnr_db
from edgehem.export.graph import finished, record_of
from edgehem.export.half import TOP, forced, halved, made_by, prepared
from edgehem.export.int8.judge import Budget, Figures, Judge
from edgehem.export.int8.ranges import Inputs, parts_of, with_outputs
from edgehem.export.int8.search import SCREENED, growing, plain, spoken
from edgehem.export.parity import Draw, across_batches, as_record
from edgehem.export.readiness import require_ready

Outputs = dict[str, npt.NDArray[np.float32]]
Say = Callable[[str], None]

HALF_BUDGET = Budget(auc_drop=0.005, flips=0.01, shift=0.01, sqnr_db=40.0)
"""float16 against float32: a tenth of the shift that INT8 may cause. Every output is held to the noise, too: one
that only shows where the answer came from moves no probability."""
LESS_DB = 3.0
"""What a float16 variant of an INT8 graph may have less than that, both compared with the float graph: no more noise
than is there already. They are not compared with each other: a value on the edge between two steps of INT8 falls to
either side, and the two are about as far apart as each is from the float graph (26 dB of attention, where INT8 has 23
and its variant 22)."""
WATCHED = 4
"""Inputs on which the range of every tensor is looked at."""
HEADROOM = 2.0
"""A tensor that was seen above 65504 over this is not trusted to stay below 65504 on other studies."""
RANKED = 2
"""Inputs that operators are ranked on."""
MOST_WIDE = 0.5
"""Of the operators: a graph that needs more of them in float32 is no float16 graph."""
BATCH = 3
"""Inputs at once, where a batch is compared with its members: no divisor of anything."""
DRAWN = 4
"""Inputs that are drawn where there are no studies."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search came to.

    Parameters
    ----------
    model : onnx.ModelProto
    figures : Figures
        Against the judge's reference.
    record : dict
        The search, step by step, as plain values.
    """

    model: onnx.ModelProto
    figures: Figures
    record: dict[str, Any]


class HalfSearch:
    """One graph, and its judge.

    Parameters
    ----------
    model : onnx.ModelProto
        Written in float32, plain or with Q/DQ pairs.
    inputs : collection of str
        Inputs that become float16.
    feed : sequence of dict
        Float32 inputs by the graph's names, of which `judge` holds the reference's answers, in its order.
    judge : Judge
        Of the float graph.
    say : callable
        Told one line for every step.

    Raises
    ------
    UsageError
        If the graph cannot be written in float16, or there is nothing to run it on.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        inputs: Collection[str],
        feed: Sequence[Inputs],
        judge: Judge,
        say: Say = lambda line: None,
    ) -> None:
        self.model, self.inputs, self.feed, self.judge, self.say = prepared(model), inputs, feed, judge, say
        self.wide = {**self._beyond(), **forced(self.model)}
        """Nodes that stay float32 whatever is measured, and why."""
        self.nodes = tuple(
            name for name in dict.fromkeys(node.name for node, _ in made_by(self.model)) if name not in self.wide
        )
        """Nodes that compute in float16 unless they are put back."""

    def _beyond(self) -> dict[str, str]:
        """Nodes that make or read a tensor too large for float16: masks, sums, squares."""
        seen = largest(self.model, self.feed[:WATCHED], [name for _, name in made_by(self.model)])
        large = {name: value for name, value in seen.items() if value > TOP / HEADROOM}
        found = {}
        for node in self.model.graph.node:
            for name in (*node.input, *node.output):
                if name in large:
                    found[node.name] = f"{name} was seen at {large[name]:.3g}"
        return found

    def run(self, budget: Budget = HALF_BUDGET) -> Found:
        """Search.

        Raises
        ------
        BudgetError
            If half of the operators in float32 do not bring the budget back.
        """
        put_back: tuple[str, ...] = ()
        ranking: list[tuple[str, float]] = []
        figures = self.measure()
        steps = [_step(put_back, figures, budget)]
        self.say(f"float16: {spoken(figures)}")
        if over(figures, budget):
            ranking = self.ranking()
            for count in growing(int(len(self.nodes) * MOST_WIDE)):
                put_back = tuple(name for name, _ in ranking[:count])
                figures = self.measure(put_back, SCREENED)
                if not over(figures, budget):
                    figures = self.measure(put_back)  # few of them may say yes where all say no
                steps.append(_step(put_back, figures, budget))
                self.say(f"{count} of {len(self.nodes)} operators back in float32: {spoken(figures)}")
                if not over(figures, budget):
                    break
            else:
                raise BudgetError(
                    f"float16 leaves its budget even with {len(put_back)} of {len(self.nodes)} operators in float32: "
                    + "; ".join(over(figures, budget))
                )
        record = {
            "budget": asdict(budget),
            "studies": len(self.feed),
            "operators": len(self.nodes) - len(put_back),
            "wide": dict(sorted(self.wide.items())),
            "put_back": list(put_back),
            "ranking": [{"operator": name, "sqnr_db": round(level, 2)} for name, level in ranking],
            "steps": steps,
            "figures": plain(figures),
        }
        return Found(model=self.build(put_back), figures=figures, record=record)

    def build(self, put_back: Collection[str] = ()) -> onnx.ModelProto:
        """The float16 graph with some operators put back into float32."""
        return halved(self.model, inputs=self.inputs, wide={*self.wide, *put_back})

    def measure(self, put_back: Collection[str] = (), most: int | None = None) -> Figures:
        """Run a float16 graph over all inputs, or over the first, and judge it."""
        return self.judge.figures(run_exactly(self.build(put_back), self.feed[:most]))

    def ranking(self) -> list[tuple[str, float]]:
        """Operators by the noise, dB of the worst output, that each alone in float16 leaves; the worst first.

        Noise from small roundings adds up, so what each brings is what is gained when it goes. Where two large numbers
        are subtracted, the operators that round them come before the one that shows it.
        """
        feed = self.feed[:RANKED]
        exact = run_exactly(self.model, feed)
        found = []
        for name in self.nodes:
            others = {node.name for node in self.model.graph.node} - {name}
            alone = run_exactly(halved(self.model, wide=others), feed)
            found.append((name, min(
                sqnr_db([one[output] for one in exact], [one[output] for one in alone]) for output in exact[0]
            )))  # fmt: skip
        return sorted(found, key=lambda entry: entry[1])


def run_exactly(model: onnx.ModelProto, feed: Sequence[Inputs]) -> list[Outputs]:
    """What a graph says as it is written, for every input; inputs are cast to the types that it declares."""
    session = OnnxRuntimeSession(rounding(model).SerializeToString(), Options(optimise=False))
    return [session.run(as_declared(model, inputs)) for inputs in feed]


def rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which ONNX Runtime rounds every float16 tensor.

    It runs most float16 operators as casts around a float32 one, and then drops the casts between two of them, also
    with optimisation off: sums that overflow float16 and differences that lose their digits come out right. It does not
    look through Identity, and takes a lone one into float32, too; of two in a row it leaves both in float16.
    """
    copy = shape_inference.infer_shapes(model)
    half = {value.name for value in copy.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = []
    for node in copy.graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in half:
                node.output[index], between = f"{name}/not rounded", f"{name}/rounded"
                nodes.append(helper.make_node("Identity", [node.output[index]], [between]))
                nodes.append(helper.make_node("Identity", [between], [name]))
    rounded = helper.make_graph(nodes, copy.graph.name, copy.graph.input, copy.graph.output, copy.graph.initializer)
    copy.graph.CopyFrom(rounded)
    return copy


def largest(model: onnx.ModelProto, feed: Sequence[Inputs], tensors: Sequence[str]) -> dict[str, float]:
    """The largest magnitude of each tensor over some inputs; what is infinite, as masks are, is left out.

    Raises
    ------
    UsageError
        If there are no inputs.
    """
    if not len(feed):
        raise UsageError("a float16 graph is chosen by measurement, and there is nothing to measure it on")
    seen = dict.fromkeys(tensors, 0.0)
    for part in parts_of(model, tensors, feed[0]):
        session = OnnxRuntimeSession(with_outputs(model, part).SerializeToString())
        for inputs in feed:
            values = session.run(inputs)
            for name in part:
                size = np.abs(values[name])
                seen[name] = max(seen[name], float(size.max(initial=0.0, where=np.isfinite(size))))
    return seen


def as_declared(model: onnx.ModelProto, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
    """Inputs in the float type that a graph declares for them."""
    narrow = {value.name for value in model.graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return {name: array.astype(np.float16) if name in narrow else array for name, array in inputs.items()}


def over(figures: Figures, budget: Budget) -> list[str]:
    """Which parts of a budget are left, in words; every output's noise counts, also where there is a head."""
    found = figures.over(budget)
    if figures.worst_shift is not None and not figures.worst_sqnr_db >= budget.sqnr_db:
        found.append(f"an output has {figures.worst_sqnr_db:.1f} dB, less than {budget.sqnr_db:.1f}")
    return found


def budget_beside(figures: Figures, budget: Budget) -> Budget:
    """The budget of a float16 variant: that of the INT8 graph, and not twice its noise."""
    return replace(budget, sqnr_db=round(figures.worst_sqnr_db - LESS_DB, 2))


def write_half(
    source: Path,
    out: Path,
    *,
    form: str,
    inputs: Collection[str],
    feed: Sequence[Inputs],
    judge: Judge,
    draw: Draw,
    budget: Budget = HALF_BUDGET,
    system: str = "",
    ready: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """The stage: search, hold a batch against its members, and write the graph.

    It is not held against what ONNX Runtime's optimisation makes of it, which no engine serves: of one INT8 graph with
    float16 scales and 59 dB that left 19.

    Parameters
    ----------
    source, out : Path
        ``.onnx``.
    form : str
        ``float16`` or ``qdq-s8-f16``.
    inputs, feed, judge, say
        See :class:`HalfSearch`.
    draw : callable
        Float32 inputs for the comparison of batches.
    budget : Budget
    system : str
        For the graph's metadata.
    ready : bool
        Refuse a graph that TensorRT would.

    Returns
    -------
    dict
        The stage's record.

    Raises
    ------
    UsageError
        If the graph cannot be written in float16.
    BudgetError
        If it leaves its budget whatever is tried, or is not ready; nothing is written then.
    """
    found = HalfSearch(onnx.load(source), inputs=inputs, feed=feed, judge=judge, say=say).run(budget)
    model, data = finished(found.model, system=system)
    if ready:
        require_ready(model)
    agreed = across_batches(data, lambda rng, batch: as_declared(model, draw(rng, batch)), batch=BATCH, optimised=False)
    write_whole(out, data)
    return {
        "source": source.name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "form": form,
        **record_of(model, data),
        **found.record,
        "batches": as_record(agreed),
        "versions": {"onnx": onnx.__version__},
    }


def _step(put_back: Sequence[str], figures: Figures, budget: Budget) -> dict[str, Any]:
    return {"put_back": list(put_back), **plain(figures), "over_budget": over(figures, budget)}
