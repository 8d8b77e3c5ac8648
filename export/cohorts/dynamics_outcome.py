"""What becomes of patients, and the chance of it given everything that had happened when the window closed.

When the window closes, the drive, the hazard still to come and all treatment of the bleeding are fixed; only tears are
left to chance, and the last toss of the outcome. Chances are exact for a threshold of the drive, and an integral over
the law of the jumps for the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import sigmoid
from edgehem.export.cohorts.dynamics_admission import Admission
from edgehem.export.cohorts.dynamics_body import SUMS, body, weights
from edgehem.export.cohorts.dynamics_course import WINDOW_H, Course
from edgehem.export.cohorts.dynamics_spread import JUMP, Spread, jumps_at_least

Float = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

EXPANSION_ML, EXPANSION_SHARE = 6.0, 0.33
"""Expansion of the blood in the tissue by 24 h, the usual definition: either is enough."""
EXTENSION_ML = 1.0
"""New ventricular blood by 24 h that counts as extension. Ours."""
LABEL_H, LAST_H = 24.0, 48.0
"""Of the repeat CT; of the state that the outcome comes from."""
INTERCEPT = -1.8
"""Log odds of a poor outcome at 68 years, without limits before, with severity 0. Ours."""
PER_SEVERITY = 1.1
"""Added for a unit of the severity at 48 h. Ours."""
PER_DECADE = 0.5
"""Added for ten years of age. Ours."""
PER_RANKIN = 0.5
"""Added for a point of the modified Rankin scale before. Ours."""
PER_LOG_VENTRICLES = 0.4
"""Added for a unit of log(1 + mL) of ventricular blood at 48 h. Ours."""
NODES = 48
"""Of the integral over what jumps may add."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What becomes of patients.

    Parameters
    ----------
    labels : mapping of label to int64 [N]
    chance : mapping of label to float64 [N]
        Given everything up to the end of the window, seen or hidden.
    untorn : float64 [N]
        Chance of expansion given the admission, and treatment as it came, without the tears since admission: how much
        of the ceiling is owed to knowing them.
    """

    labels: dict[str, Whole]
    chance: dict[str, Float]
    untorn: Float


def conclude(people: Admission, spread: Spread, course: Course, toss: Float) -> Outcome:
    """Labels and chances.

    Parameters
    ----------
    toss : float64 array [N]
        Uniform: decides the outcome at 90 days.
    """
    sums = spread.summed(weights())
    needed = levels(sums)
    drift, hazard, now = course.growth[WINDOW_H]
    drift_then, hazard_then, then = course.growth[LABEL_H]
    labels = {name: np.asarray(then >= least, np.int64) for name, least in needed.items()}
    chance = {
        name: jumps_at_least(least - now - (drift_then - drift), hazard_then - hazard) for name, least in needed.items()
    }
    drift_last, hazard_last, last = course.growth[LAST_H]
    labels["poor_outcome_90d"] = np.asarray(toss < poor_outcome(people, sums, last), np.int64)
    chance["poor_outcome_90d"] = _expected(people, sums, now + drift_last - drift, hazard_last - hazard)
    untorn = jumps_at_least(needed["expansion"] - drift_then, hazard_then)
    return Outcome(labels=labels, chance=chance, untorn=untorn)


def levels(sums: Spread) -> dict[str, Float]:
    """The drive at which each label of 24 h becomes 1: [N] by label, infinite where none does.

    Parameters
    ----------
    sums : Spread
        The sums :data:`edgehem.export.cohorts.dynamics_body.SUMS` of the blood at admission.
    """
    start = sums.series[:, 0]
    tissue, ventricles = start[:, SUMS.index("tissue")], start[:, SUMS.index("ventricles")]
    grown = tissue + np.minimum(EXPANSION_ML, EXPANSION_SHARE * tissue)
    return {
        "expansion": sums.threshold(SUMS.index("tissue"), grown),
        "ventricular_extension": sums.threshold(SUMS.index("ventricles"), ventricles + EXTENSION_ML),
    }


def poor_outcome(people: Admission, sums: Spread, drive: Float) -> Float:
    """Chance of mRS 4-6 at 90 days, by the state at 48 h: drives [N] or [N, K] to chances of that shape.

    Neither treatment nor sedation is in it: they matter by what they did to the blood.
    """
    state = body(people, sums.at(drive), LAST_H)
    shape = (len(people), *(1,) * (drive.ndim - 1))
    before = INTERCEPT + PER_DECADE * (people.age - 68) / 10 + PER_RANKIN * people.premorbid
    return sigmoid(
        before.reshape(shape) + PER_SEVERITY * state.severity + PER_LOG_VENTRICLES * np.log1p(state.ventricles)
    )


def _expected(people: Admission, sums: Spread, drive: Float, hazard: Float) -> Float:
    """Mean of the chance over the jumps to come: no tear exactly, the rest by the trapezoidal rule over their law."""
    rise = JUMP * np.concatenate([[0.0], np.geomspace(0.02, 25.0, NODES - 1)])[None]
    beyond = jumps_at_least(np.where(rise > 0, rise, -1.0), hazard[:, None])
    beyond[:, 0] = -np.expm1(-hazard)
    poor = poor_outcome(people, sums, drive[:, None] + rise)
    between = (poor[:, 1:] + poor[:, :-1]) / 2
    return np.asarray(
        np.exp(-hazard) * poor[:, 0]
        + ((beyond[:, :-1] - beyond[:, 1:]) * between).sum(1)
        + beyond[:, -1] * poor[:, -1],
        np.float64,
    )
