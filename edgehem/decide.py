"""From logits to decisions: calibration, the hierarchy of labels, operating points, conformal sets, doubts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.bundle import Head, LabelRule
from edgehem.errors import BundleError, Code
from edgehem.result import Finding, Note

PRESENT, ABSENT = "present", "absent"


def probabilities(logits: npt.NDArray[np.float32], head: Head) -> npt.NDArray[np.float64]:
    """Calibrated probabilities of a hierarchical head.

    Parameters
    ----------
    logits : float32 array [..., labels]
    head : Head

    Returns
    -------
    float64 array [..., labels]
        The first label's own probability; the others multiplied by it: P(subtype) = P(any) · P(subtype | any).

    Raises
    ------
    BundleError
        If the head has another number of labels, or is of a kind this edgehem does not know.
    """
    if head.kind != "hierarchical-binary":
        raise BundleError(f"head {head.name!r} is of unknown kind {head.kind!r}")
    if logits.shape[-1] != len(head.rules):
        raise BundleError(f"head {head.name!r} has {len(head.rules)} labels, its output {logits.shape[-1]}")
    scale = np.array([rule.scale for rule in head.rules])
    offset = np.array([rule.offset for rule in head.rules])
    p = 1 / (1 + np.exp(-np.clip(scale * logits.astype(np.float64) + offset, -60, 60)))
    return np.concatenate([p[..., :1], p[..., 1:] * p[..., :1]], axis=-1)


def prediction_set(probability: float, rule: LabelRule) -> tuple[str, ...]:
    """The answers that cannot be ruled out at the bundle's error rate: one, both, or none."""
    answers = []
    if probability >= rule.present_from:
        answers.append(PRESENT)
    if probability <= rule.absent_until:
        answers.append(ABSENT)
    return tuple(answers)


def decide(logits: npt.NDArray[np.float32], head: Head) -> tuple[tuple[Finding, ...], tuple[Note, ...]]:
    """Decide one study.

    Parameters
    ----------
    logits : float32 array [labels]
    head : Head

    Returns
    -------
    findings : tuple of Finding
        In the head's order. A label below the first is positive only if the first is.
    notes : tuple of Note
        UNCERTAIN when the first label's prediction set is not a single answer, or contradicts the operating point.

    Raises
    ------
    BundleError
        As :func:`probabilities`; also when the logits are not numbers.
    """
    if not np.isfinite(logits).all():
        raise BundleError(f"head {head.name!r} gave a value that is not a number")
    p = probabilities(logits, head)
    findings: list[Finding] = []
    for rule, value in zip(head.rules, p, strict=True):
        positive = bool(value >= rule.threshold) and (not findings or findings[0].positive)
        findings.append(
            Finding(
                label=rule.label,
                probability=round(float(value), 6),
                positive=positive,
                prediction_set=prediction_set(float(value), rule),
            )
        )
    first = findings[0]
    if first.prediction_set == ((PRESENT,) if first.positive else (ABSENT,)):
        return tuple(findings), ()
    reason = "The model cannot tell whether there is a hemorrhage: a person must decide."
    return tuple(findings), (Note(code=Code.UNCERTAIN, reason=reason),)
