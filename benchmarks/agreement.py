"""Whether a contender does the job at all: its answer beside the oracle's, before anything is timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.case import INT8_SCALE, Case
from edgehem.benchmarks.contender import Contender


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an answer is from the oracle's. All voxels count.

    Parameters
    ----------
    agrees : bool
    mean, largest : float or None
        Absolute differences in window units: 1 is the width of the window. None where there are none to compare.
    tolerance : float
        What the largest may be.
    why_not : str
    """

    agrees: bool
    mean: float | None
    largest: float | None
    tolerance: float
    why_not: str = ""


def compare(contender: Contender, answer: npt.NDArray[Any], truth: npt.NDArray[Any], case: Case) -> Agreement:
    """Compare one answer with the oracle's for the same stack.

    Parameters
    ----------
    contender : Contender
    answer, truth : array [Z, C, Y, X]
    case : Case
    """
    narrowest = min(width for _, width in case.windows().level_width)
    tolerance = contender.tolerance_hu / narrowest
    why_not = ""
    if answer.shape != truth.shape or answer.dtype != truth.dtype:
        why_not = f"its answer is {answer.dtype} {list(answer.shape)}, not {truth.dtype} {list(truth.shape)}"
    elif not np.isfinite(answer).all():
        why_not = "its answer holds values that are not numbers"
    if why_not:
        return Agreement(agrees=False, mean=None, largest=None, tolerance=tolerance, why_not=why_not)
    unit = INT8_SCALE if answer.dtype == np.int8 else 1.0
    difference = np.abs(answer.astype(np.float64) - truth.astype(np.float64)) * unit
    mean, largest = float(difference.mean()), float(difference.max())
    same_bits = tolerance > 0 or answer.tobytes() == truth.tobytes()
    agrees = largest <= tolerance and same_bits
    why_not = "" if agrees else f"off by {largest:.3g} of a window, and {mean:.3g} on average"
    return Agreement(agrees=agrees, mean=mean, largest=largest, tolerance=tolerance, why_not=why_not)


def worst(agreements: list[Agreement]) -> Agreement:
    """The one to report of several stacks: the first that disagrees, else the largest difference."""
    for agreement in agreements:
        if not agreement.agrees:
            return agreement
    return max(agreements, key=lambda agreement: agreement.largest or 0.0)
