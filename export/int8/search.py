"""Choosing an INT8 graph by measurement: the best recipe, then as few layers back in float as the budget needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.errors import BudgetError, UsageError
from edgehem.export.deviation import sqnr_db
from edgehem.export.graph import named
from edgehem.export.int8.adjust import bias_corrections, equalised, picked_first
from edgehem.export.int8.judge import Budget, Figures, Judge
from edgehem.export.int8.places import Wiring
from edgehem.export.int8.qdq import plan, quantised, watched
from edgehem.export.int8.ranges import PERCENTILE, Inputs, Seen, observe, with_outputs

Outputs = dict[str, npt.NDArray[np.float32]]
Say = Callable[[str], None]

SCREENED = 16
"""Studies that recipes and layers are ranked on; the budget is judged on all."""
MOST_REVERTED = 0.5
"""Of the layers: a graph that needs more of them in float is no INT8 graph."""
SMALL = 0.0002
"""Layers that do less than this share of the work stay float: squeeze-excite, attention and heads gain nothing in int8,
and lose most."""
HEAD = 0.005
"""So do layers that make the graph's outputs, up to this share: a network without its head ends in a large layer."""
ONE_BY_ONE = 48
"""With more layers, they are ranked by their own noise in one run instead of by leaving out each."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How scales and weights are found; see :mod:`edgehem.export.int8.ranges` and its neighbours."""

    method: str
    percentile: float = PERCENTILE
    equalise: bool = False
    correct_biases: bool = True
    through: bool = True
    joins: bool = True

    @property
    def words(self) -> str:
        """For people."""
        cut = f" {self.percentile:g}" if self.method == "percentile" else ""
        also = [
            words
            for wanted, words in (
                (self.equalise, "equalised"),
                (self.correct_biases, "biases corrected"),
                (not self.through, "layer by layer"),
                (not self.joins, "float joins"),
            )
            if wanted
        ]
        return ", ".join([f"{self.method}{cut}", *also])


PLAIN = Recipe(method="minmax", correct_biases=False)
"""What most tools do by default."""
RECIPES = (
    PLAIN,
    Recipe(method="minmax"),
    Recipe(method="minmax", equalise=True, correct_biases=False),
    Recipe(method="minmax", equalise=True),
    Recipe(method="percentile", percentile=99.999),
    Recipe(method="percentile", percentile=99.99),
    Recipe(method="percentile", percentile=99.99, equalise=True),
    Recipe(method="entropy"),
    Recipe(method="mse"),
    Recipe(method="mse", equalise=True),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search came to.

    Parameters
    ----------
    model : onnx.ModelProto
        Symmetric int8 Q/DQ, for TensorRT and OpenVINO.
    unsigned : onnx.ModelProto
        The same with uint8 activations, for ONNX Runtime on the CPU.
    figures : Figures
        Of `model`.
    record : dict
        The search, step by step, as plain values.
    """

    model: onnx.ModelProto
    unsigned: onnx.ModelProto
    figures: Figures
    record: dict[str, Any]


class Search:
    """One float graph, its calibration data and its judge.

    Parameters
    ----------
    model : onnx.ModelProto
        Float. BatchNorms should be folded already.
    calibration : sequence of dict of input name to array
        For ranges.
    selection : sequence of dict
        For the choice: other studies than those of `calibration`.
    judge : Judge
        Of the selection.
    kinds : tuple of str
        Operators to quantise.
    keep_float : sequence of str, optional
        Layers never quantised: by default the first ones, those that do less than :data:`SMALL` of the work, and those
        that make the graph's outputs and do less than :data:`HEAD`.
    say : callable
        Told one line for every step.

    Raises
    ------
    UsageError
        If there is nothing to quantise, or no data.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        calibration: Sequence[Inputs],
        selection: Sequence[Inputs],
        judge: Judge,
        kinds: Sequence[str] = ("Conv",),
        keep_float: Sequence[str] | None = None,
        say: Say = lambda line: None,
    ) -> None:
        self.model = picked_first(model)
        named(self.model)
        self.wiring = Wiring(self.model)
        self.calibration, self.selection, self.judge, self.say = calibration, selection, judge, say
        every = self.wiring.layers(kinds)
        left = self._cheap() if keep_float is None else set(keep_float)
        self.layers = tuple(name for name in every if name not in left)
        self.left = tuple(name for name in every if name in left)
        if not self.layers:
            raise UsageError(f"the graph has no {' or '.join(kinds)} to quantise")
        if not len(selection):
            raise UsageError("choosing an INT8 graph needs studies beside those it is calibrated on")
        self._graphs: dict[bool, tuple[Wiring, dict[str, Seen], list[str]]] = {}

    def _cheap(self) -> set[str]:
        """Layers that cost little and would lose most."""
        work = self.wiring.work()
        small = {name for name, share in work.items() if share < SMALL} if any(work.values()) else set()
        return self.wiring.first() | {name for name in self.wiring.last() if work[name] < HEAD} | small

    def run(self, recipes: Sequence[Recipe] = RECIPES, budget: Budget | None = None) -> Found:
        """Search.

        Raises
        ------
        BudgetError
            If half of the layers in float do not bring the budget back.
        """
        budget = budget or Budget()
        screened = []
        for recipe in recipes:
            figures = self.measure(recipe, self.layers, SCREENED)
            screened.append((recipe, figures))
            self.say(f"{recipe.words}: {spoken(figures)}")
        recipe = max(screened, key=lambda entry: self._rank(entry[1]))[0]
        figures = self.measure(recipe, self.layers)
        steps: list[dict[str, Any]] = [_step((), figures, budget)]
        self.say(f"chosen: {recipe.words}; on all {figures.studies} studies {spoken(figures)}")
        reverted: tuple[str, ...] = ()
        ranking: list[tuple[str, float]] = []
        if figures.over(budget):
            ranking = self.ranking(recipe)
            for count in growing(int(len(self.layers) * MOST_REVERTED)):
                reverted = tuple(name for name, _ in ranking[:count])
                figures = self.measure(recipe, self._without(reverted))
                steps.append(_step(reverted, figures, budget))
                self.say(f"{count} of {len(self.layers)} layers back in float: {spoken(figures)}")
                if not figures.over(budget):
                    break
            else:
                raise BudgetError(
                    f"INT8 leaves its budget even with {len(reverted)} of {len(self.layers)} layers in float: "
                    + "; ".join(figures.over(budget))
                )
        layers = self._without(reverted)
        model, unsigned = self.build(recipe, layers), self.build(recipe, layers, unsigned=True)
        record = {
            "recipe": asdict(recipe),
            "budget": asdict(budget),
            "calibration_studies": len(self.calibration),
            "selection_studies": len(self.selection),
            "layers": {"quantised": list(layers), "kept_float": list(self.left), "reverted": list(reverted)},
            "equalised": self._graphs[True][2] if recipe.equalise else [],
            "screened": [{"recipe": asdict(one), **plain(found)} for one, found in screened],
            "ranking": [{"layer": name, "gain_db": round(gain, 2)} for name, gain in ranking],
            "steps": steps,
            "figures": plain(figures),
            "layer_sqnr_db": self.layer_noise(recipe, layers),
        }
        return Found(model=model, unsigned=unsigned, figures=figures, record=record)

    def build(self, recipe: Recipe, layers: Sequence[str], *, unsigned: bool = False) -> onnx.ModelProto:
        """The quantised graph of a recipe with some layers."""
        wiring, seen, _ = self._prepared(equalise=recipe.equalise)
        chosen = plan(
            wiring,
            seen,
            layers,
            method=recipe.method,
            percentile=recipe.percentile,
            through=recipe.through,
            joins=recipe.joins,
            biases=bias_corrections(wiring, seen, layers) if recipe.correct_biases else None,
        )
        return quantised(wiring, chosen, unsigned=unsigned)

    def measure(self, recipe: Recipe, layers: Sequence[str], most: int | None = None) -> Figures:
        """Run a quantised graph over the selection, or over its first studies, and judge it."""
        return self.judge.figures(run_all(self.build(recipe, layers), self.selection[:most]))

    def ranking(self, recipe: Recipe) -> list[tuple[str, float]]:
        """Layers by what is gained when they go back to float, dB of the worst output, most first."""
        if len(self.layers) > ONE_BY_ONE:
            noise = self.layer_noise(recipe, self.layers)
            return sorted(((name, -noise[name]) for name in self.layers), key=lambda entry: -entry[1])
        whole = self.measure(recipe, self.layers, SCREENED)
        gains = []
        for number, name in enumerate(self.layers, start=1):
            figures = self.measure(recipe, self._without((name,)), SCREENED)
            gains.append((name, _level(figures) - _level(whole)))
            self.say(f"layer {number} of {len(self.layers)}: {name} {gains[-1][1]:+.2f} dB in float")
        return sorted(gains, key=lambda entry: -entry[1])

    def layer_noise(self, recipe: Recipe, layers: Sequence[str], studies: int = 4) -> dict[str, float]:
        """SQNR of every quantised layer's output in the quantised graph, dB, over a few studies."""
        wiring, _, _ = self._prepared(equalise=recipe.equalise)
        outputs = {name: wiring.node(name).output[0] for name in layers}
        feed = self.selection[:studies]
        parts = [run_all(with_outputs(m, outputs.values()), feed) for m in (wiring.model, self.build(recipe, layers))]
        return {
            name: round(sqnr_db([one[tensor] for one in parts[0]], [one[tensor] for one in parts[1]]), 2)
            for name, tensor in outputs.items()
        }

    def _prepared(self, *, equalise: bool) -> tuple[Wiring, dict[str, Seen], list[str]]:
        """The float graph (equalised or not), with what was seen of it."""
        if equalise not in self._graphs:
            changed: list[str] = []
            wiring = self.wiring
            if equalise:
                model, changed = equalised(self.wiring, self._prepared(equalise=False)[1], self.layers)
                wiring = Wiring(model)
            if equalise and not changed:
                self._graphs[True] = self._graphs[False]
            else:
                seen = observe(wiring.model, self.calibration, watched(wiring, self.layers))
                self._graphs[equalise] = (wiring, seen, changed)
        return self._graphs[equalise]

    def _without(self, reverted: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in self.layers if name not in reverted)

    def _rank(self, figures: Figures) -> tuple[float, ...]:
        """Fewer flips, then a smaller shift, then less noise."""
        return (-(figures.flips or 0), -round(figures.worst_shift or 0.0, 3), _level(figures))


def run_all(model: onnx.ModelProto, feed: Sequence[Inputs]) -> list[Outputs]:
    """A graph's outputs for every study."""
    session = OnnxRuntimeSession(model.SerializeToString())
    return [session.run(inputs) for inputs in feed]


def _level(figures: Figures) -> float:
    """What layers are ranked by: the noise of the study that fares worst, dB."""
    return figures.worst_study_db


def growing(most: int) -> list[int]:
    """1, 2, 3, 4, 5, 7, 9, 12, 16, ... up to a number, and that number."""
    counts, count = [], 1
    while count < most:
        counts.append(count)
        count = max(count + 1, int(count * 4 / 3 + 0.5))
    return [*counts, most] if most else []


def _step(reverted: Sequence[str], figures: Figures, budget: Budget) -> dict[str, Any]:
    return {"reverted": list(reverted), **plain(figures), "over_budget": figures.over(budget)}


def plain(figures: Figures) -> dict[str, Any]:
    """Figures as plain values, rounded for people; what is not known is left out."""
    found: Mapping[str, Any] = asdict(figures)

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 5)
        return [rounded(item) for item in value] if isinstance(value, tuple) else value

    return {name: rounded(value) for name, value in found.items() if value is not None}


def spoken(figures: Figures) -> str:
    """Figures in a few words."""
    words = [f"{figures.worst_sqnr_db:.1f} dB, worst study {figures.worst_study_db:.1f} dB"]
    if figures.flips is not None:
        words.append(f"{figures.flips} decisions flipped, worst shift {figures.worst_shift:.3f}")
    if figures.auc_drop is not None:
        words.append(f"AUC {-figures.auc_drop[0]:+.4f}")
    return ", ".join(words)
