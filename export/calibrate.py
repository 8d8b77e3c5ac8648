"""Decision rules from labelled studies: Platt scaling, the operating point, conformal bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.bundle import Head, LabelRule
from edgehem.decide import probabilities
from edgehem.errors import UsageError
from edgehem.export.samples import UNKNOWN
from edgehem.phantom.cases import LABELS

Float = npt.NDArray[np.float64]

FALSE_POSITIVES = 0.02
"""The operating point of "any" lets at most this share of the studies without hemorrhage through (98th percentile)."""
THRESHOLD_RANGE = (0.5, 0.98)
"""A calibrated probability below one half is never called positive, and one above 0.98 always is."""
CONFORMAL_ERROR = 0.05
LEAST_STUDIES = 50
"""Per class: with fewer than 49, the largest value of a sample cannot promise the share of false positives."""


def platt(logits: Float, labels: npt.NDArray[Any]) -> tuple[float, float]:
    """Scale and offset of a logistic recalibration.

    Targets are smoothed as Platt (1999) does; Newton's method with a weak prior on scale 1, offset 0 keeps perfectly
    separated data finite.

    Parameters
    ----------
    logits : float64 array [N]
    labels : array [N] of 0 and 1
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    w = prior = np.array([1.0, 0.0])
    penalty = np.diag([0.5, 0.05])

    def cost(w: Float) -> float:
        z = design @ w
        return float(np.logaddexp(0, z).sum() - target @ z + (w - prior) @ penalty @ (w - prior) / 2)

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ w, -40, 40)))
        gradient = design.T @ (p - target) + penalty @ (w - prior)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty
        step = np.linalg.solve(hessian, gradient)
        while cost(w - step) > cost(w) and np.abs(step).max() > 1e-9:
            step = step / 2  # a full step overshoots where the curve is flat
        w = w - step
        if np.abs(step).max() < 1e-9:
            break
    return max(float(w[0]), 1e-3), float(w[1])


def fit_rules(logits: Float, labels: npt.NDArray[Any], *, name: str = "hemorrhage", output: str = "logits") -> Head:
    """Fit a hierarchical head's rules.

    Parameters
    ----------
    logits : float64 array [N, 6]
    labels : int array [N, 6]
        1, 0 or UNKNOWN.
    name, output : str

    Returns
    -------
    Head
        Subtypes are calibrated on bleeding studies only, as they are conditional on "any".

    Raises
    ------
    UsageError
        With fewer than :data:`LEAST_STUDIES` studies of "any" in a class.
    """
    first = labels[:, 0]
    counts = [int((first == value).sum()) for value in (0, 1)]
    if min(counts) < LEAST_STUDIES:
        raise UsageError(
            f"decision rules need at least {LEAST_STUDIES} studies with and without hemorrhage; "
            f"got {counts[1]} and {counts[0]}"
        )
    scaled = []
    for column, label in enumerate(LABELS):
        use = labels[:, column] != UNKNOWN
        if column:
            use &= first == 1
        both = len(np.unique(labels[use, column])) == 2
        scale, offset = platt(logits[use, column], labels[use, column]) if both else (1.0, 0.0)
        scaled.append(LabelRule(label=label, scale=scale, offset=offset))
    draft = Head(name=name, kind="hierarchical-binary", output=output, rules=tuple(scaled))
    p = probabilities(logits.astype(np.float32), draft)
    rules = []
    for column, rule in enumerate(scaled):
        truth = labels[:, column]
        without, with_it = p[truth == 0, column], p[truth == 1, column]
        if not len(without) or not len(with_it):
            rules.append(rule)
            continue
        threshold = float(np.clip(_quantile(without, 1 - FALSE_POSITIVES), *THRESHOLD_RANGE)) if column == 0 else 0.5
        rules.append(
            LabelRule(
                label=rule.label,
                scale=round(rule.scale, 6),
                offset=round(rule.offset, 6),
                threshold=round(threshold, 6),
                present_from=round(_lower(with_it, CONFORMAL_ERROR), 6),
                absent_until=round(_quantile(without, 1 - CONFORMAL_ERROR), 6),
            )
        )
    return Head(name=name, kind=draft.kind, output=output, rules=tuple(rules), conformal_error=CONFORMAL_ERROR)


def _quantile(values: Float, level: float) -> float:
    """The finite-sample quantile: the ceil((n + 1) · level)-th smallest value; the largest if that is beyond it."""
    ordered = np.sort(values)
    return float(ordered[min(len(ordered), int(np.ceil((len(ordered) + 1) * level))) - 1])


def _lower(values: Float, error: float) -> float:
    """The mirrored quantile: the floor((n + 1) · error)-th smallest value; 0 if that is before the first."""
    ordered = np.sort(values)
    rank = int(np.floor((len(ordered) + 1) * error))
    return float(ordered[rank - 1]) if rank else 0.0
