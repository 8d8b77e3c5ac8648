"""Discrimination: the area under the ROC curve, its likeness for ordered classes, and how far chance moves them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float

RESAMPLED = 1000
"""Test cohorts that an interval is taken from."""
MIDDLE = (0.025, 0.975)
PAIRED = 50
"""Resamples for the standard error of a difference."""
OUTSIDE, SURE = 1e-4, 3.89
"""What lies outside a 99.99 % interval, and its normal deviate: an exam makes some ninety comparisons, and must not
fail by luck."""
NOT_SO_LIKELY = 1e-4
"""Chances that deviate from frequencies with less probability than this are called wrong."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and where it may lie."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value lies inside."""
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether chances are true: the probability of a deviation as large, and the largest one of ten groups."""

    p: float
    largest_gap: float


def ranks(score: Float) -> Float:
    """Ranks from 1, ties sharing their mean, float64 [N]."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def concordance(outcome: npt.NDArray[np.int64], score: Float) -> float:
    """Share of pairs of different outcome that the score puts in the right order; a tie counts half.

    With two classes it is the area under the ROC curve; with more, (1 + Somers' D) / 2.

    Parameters
    ----------
    outcome : int64 array [N]
        0 to K - 1, a higher class being one that a higher score should name.
    score : float64 array [N]

    Returns
    -------
    float
        NaN where all outcomes are the same.

    References
    ----------
    Somers RH. A new asymmetric measure of association for ordinal variables. Am Sociol Rev 1962;27:799-811.
    """
    held = [score[outcome == value] for value in range(int(outcome.max(initial=0)) + 1)]
    right = pairs = 0.0
    for high in range(1, len(held)):
        for low in range(high):
            ordered = len(held[high]) * len(held[low])
            if ordered:
                ranked = ranks(np.concatenate([held[high], held[low]]))
                right += float(ranked[: len(held[high])].sum()) - len(held[high]) * (len(held[high]) + 1) / 2
                pairs += ordered
    return right / pairs if pairs else float("nan")


def by_resampling(outcome: npt.NDArray[np.int64], score: Float, size: int, seed: int) -> Interval:
    """Concordance of all, and the middle 95 % of what test cohorts of a size would show.

    Parameters
    ----------
    outcome, score : arrays [N]
        A large draw; test cohorts are drawn from it with replacement.
    size : int
    seed : int
    """
    rng = np.random.default_rng([seed, 71])
    drawn = []
    for _ in range(RESAMPLED if size <= 1000 else RESAMPLED // 5):
        rows = rng.integers(len(score), size=size)
        drawn.append(concordance(outcome[rows], score[rows]))
    low, high = np.nanquantile(drawn, MIDDLE)
    return Interval(value=concordance(outcome, score), low=float(low), high=float(high))


def under_chance(outcome: npt.NDArray[np.int64]) -> float:
    """Standard error of the concordance of a score that says nothing, without ties.

    References
    ----------
    Jonckheere AR. A distribution-free k-sample test against ordered alternatives. Biometrika 1954;41:133-145. With two
    classes it is the variance of Mann and Whitney's statistic.
    """
    sizes = np.bincount(outcome).astype(np.float64)
    total = float(len(outcome))
    pairs = (total**2 - float((sizes**2).sum())) / 2
    variance = (total**2 * (2 * total + 3) - float((sizes**2 * (2 * sizes + 3)).sum())) / 72
    return float(np.sqrt(variance) / pairs) if pairs else float("inf")


def of_mean(values: Sequence[float]) -> Interval:
    """Mean of repetitions with its 99.99 % interval by Student's t; those that are NaN are left out."""
    from scipy.stats import t

    known = np.array([value for value in values if not math.isnan(value)])
    mean = float(known.mean())
    margin = float(known.std(ddof=1) / np.sqrt(len(known)) * t.ppf(1 - OUTSIDE / 2, len(known) - 1))
    return Interval(value=mean, low=mean - margin, high=mean + margin)


def difference(outcome: npt.NDArray[np.int64], score: Float, ceiling: Float, seed: int) -> Interval:
    """By how much a score's concordance exceeds another's on the same patients, with its 99.99 % interval."""
    rng = np.random.default_rng([seed, 72])
    drawn = []
    for _ in range(PAIRED):
        rows = rng.integers(len(score), size=len(score))
        drawn.append(concordance(outcome[rows], score[rows]) - concordance(outcome[rows], ceiling[rows]))
    value = concordance(outcome, score) - concordance(outcome, ceiling)
    margin = SURE * float(np.std(drawn, ddof=1))
    return Interval(value=value, low=value - margin, high=value + margin)


def calibration(outcome: npt.NDArray[np.int64], chance: Float) -> Calibration:
    """Hold outcomes of two classes to the chances that they were tossed with, in ten groups of equal size.

    With known chances the sum of the ten squared deviates has ten degrees of freedom.
    """
    from scipy.stats import chi2

    groups = np.array_split(np.argsort(chance, kind="stable"), 10)
    expected = np.array([chance[rows].sum() for rows in groups])
    seen = np.array([outcome[rows].sum() for rows in groups])
    variance = np.maximum([(chance[rows] * (1 - chance[rows])).sum() for rows in groups], 1e-9)
    sizes = np.array([len(rows) for rows in groups])
    return Calibration(
        p=float(chi2.sf(float(((seen - expected) ** 2 / variance).sum()), len(groups))),
        largest_gap=float(np.abs((seen - expected) / sizes).max()),
    )
