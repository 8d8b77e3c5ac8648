"""How much INT8 changes: against FP32 on the same studies, for decisions where there are labels, for numbers anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.bundle import Head
from edgehem.decide import probabilities
from edgehem.export.deviation import sqnr_db
from edgehem.export.evaluate import auc

Float = npt.NDArray[np.float64]
Outputs = Mapping[str, npt.NDArray[np.float32]]

RESAMPLES = 1000
"""Bootstrap resamples of a paired interval."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What INT8 may cost against FP32.

    Parameters
    ----------
    auc_drop : float
        Of the first label.
    flips : float
        Share of studies whose decision on the first label may change.
    shift : float
        Largest change of any calibrated probability.
    sqnr_db : float
        Least signal-to-noise ratio of any output, where there is no head to judge by.
    """

    auc_drop: float = 0.005
    flips: float = 0.01
    shift: float = 0.1
    sqnr_db: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One quantised graph against FP32.

    Parameters
    ----------
    studies : int
    worst_sqnr_db : float
        Of the outputs, over all studies.
    sqnr_db : dict of output to float
    worst_study_db : float
        Of the study that fares worst, over its main output: a mean hides it.
    auc, auc_fp32 : float or None
        None without labels, or where one class is missing.
    auc_drop : tuple of float or None
        With its paired 95 % interval.
    sensitivity, sensitivity_fp32 : float or None
        At the operating point.
    sensitivity_drop : tuple of float or None
    flips : int
    flip_rate : float
    worst_shift : float
    """

    studies: int
    worst_sqnr_db: float
    sqnr_db: dict[str, float]
    worst_study_db: float
    auc: float | None = None
    auc_fp32: float | None = None
    auc_drop: tuple[float, float, float] | None = None
    sensitivity: float | None = None
    sensitivity_fp32: float | None = None
    sensitivity_drop: tuple[float, float, float] | None = None
    flips: int | None = None
    flip_rate: float | None = None
    worst_shift: float | None = None

    def over(self, budget: Budget) -> list[str]:
        """Which parts of a budget are left, in words; empty where it holds."""
        found = []
        if self.worst_shift is None or self.flip_rate is None:
            if self.worst_sqnr_db < budget.sqnr_db:
                found.append(f"an output has {self.worst_sqnr_db:.1f} dB, less than {budget.sqnr_db:.1f}")
            return found
        if self.auc_drop is not None and self.auc_drop[0] > budget.auc_drop:
            found.append(f"AUC falls by {self.auc_drop[0]:.4f}, more than {budget.auc_drop}")
        if self.flip_rate > budget.flips:
            found.append(f"{self.flip_rate:.1%} of decisions flip, more than {budget.flips:.1%}")
        if self.worst_shift > budget.shift:
            found.append(f"a probability shifts by {self.worst_shift:.3f}, more than {budget.shift}")
        return found


class Judge:
    """Holds the float outputs that quantised ones are judged against.

    Parameters
    ----------
    reference : sequence of dict of output name to float32 array [1, ...]
        One for every study.
    head : Head, optional
        Decisions are compared where there is one, numbers otherwise.
    labels : int array [studies], optional
        Of the head's first label: 1, 0, or anything else where it is not known.
    seed : int
        Of the bootstrap.
    """

    def __init__(
        self,
        reference: Sequence[Outputs],
        *,
        head: Head | None = None,
        labels: npt.NDArray[Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.reference, self.head, self.labels, self.seed = reference, head, labels, seed
        self.main = head.output if head else next(iter(reference[0]))

    def figures(self, outputs: Sequence[Outputs]) -> Figures:
        """Compare.

        Parameters
        ----------
        outputs : sequence of dict
            Of the first studies of the reference, in its order; all or fewer.
        """
        count = len(outputs)
        reference = self.reference[:count]
        ratios = {
            name: sqnr_db([one[name] for one in reference], [one[name] for one in outputs]) for name in reference[0]
        }
        worst = min(sqnr_db([a[self.main]], [b[self.main]]) for a, b in zip(reference, outputs, strict=True))
        plain: dict[str, Any] = {
            "studies": count,
            "worst_sqnr_db": round(min(ratios.values()), 2),
            "sqnr_db": {name: round(value, 2) for name, value in ratios.items()},
            "worst_study_db": round(worst, 2),
        }
        if self.head is None:
            return Figures(**plain)
        before, after = (self._probabilities(some) for some in (reference, outputs))
        at = self.head.rules[0].threshold
        yes_before, yes_after = before[:, 0] >= at, after[:, 0] >= at
        flipped = yes_before != yes_after
        plain |= {
            "flips": int(flipped.sum()),
            "flip_rate": float(flipped.mean()),
            "worst_shift": float(np.abs(before - after).max()),
        }
        if self.labels is None:
            return Figures(**plain)
        truth = self.labels[:count]
        rng = np.random.default_rng(self.seed)
        ill, well = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
        if len(ill):
            plain |= {
                "sensitivity": float(yes_after[ill].mean()),
                "sensitivity_fp32": float(yes_before[ill].mean()),
                "sensitivity_drop": _paired(
                    lambda picks: float(yes_before[picks[0]].mean() - yes_after[picks[0]].mean()), (ill,), rng
                ),
            }
        if len(ill) and len(well):

            def drop(picks: Sequence[npt.NDArray[np.intp]]) -> float:
                pick = np.concatenate(picks)
                return auc(truth[pick], before[pick, 0]) - auc(truth[pick], after[pick, 0])

            plain |= {
                "auc": auc(truth, after[:, 0]),
                "auc_fp32": auc(truth, before[:, 0]),
                "auc_drop": _paired(drop, (ill, well), rng),
            }
        return Figures(**plain)

    def _probabilities(self, outputs: Sequence[Outputs]) -> Float:
        assert self.head is not None
        return probabilities(np.concatenate([one[self.main] for one in outputs]), self.head)


def _paired(
    difference: Any, groups: Sequence[npt.NDArray[np.intp]], rng: np.random.Generator
) -> tuple[float, float, float]:
    """A difference with its 95 % interval, resampling studies within each group, the same for both graphs."""
    drawn = [difference([rng.choice(group, len(group)) for group in groups]) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference(groups)), float(low), float(high)
