"""Vital signs that a hidden state leads one to expect, and how much they scatter. All figures are ours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import sigmoid
from edgehem.export.cohorts.dynamics_body import Body

Float = npt.NDArray[np.float64]
Flag = npt.NDArray[np.bool_]

PRESSOR_MMHG = 50.0
"""What a tear adds to the cuff pressure for a unit of the drive. Ours: pain and the body's answer to pressure. It is a
sign of the tear and feeds no growth."""
PRESSOR_BPM = 27.0
"""Likewise to the heart rate. Ours."""
PRESSOR_H = 1.0
"""Time constant with which both fade. Ours."""
WANDER_MMHG = 7.0
"""Standard deviation of what comes to the systolic pressure's wandering in ten minutes. Ours."""
WANDER_KEPT = 0.7
"""Share of it that is left after ten minutes. Ours."""
NOISE = {"dbp": 6.0, "hr": 7.0, "rr": 2.0, "spo2": 1.2, "temp": 0.25, "pupil_left": 0.2, "pupil_right": 0.2}
"""Standard deviations of the other signs, in their units. Ours."""
BREATH_ON_TUBE = 0.3
"""Factor on that of the respiratory rate when a ventilator sets it. Ours."""
RATING_ERROR = 0.3
"""Of an examiner, in points of a part of the coma scale. Ours."""
STROKE_ERROR = 1.5
"""Of an examiner, in points of the NIHSS. Ours."""
DENSITY_HU, PER_FRAILTY_HU, DENSITY_ERROR_HU = 9.0, 2.2, 1.2
"""Spread of density in a hemorrhage, what a unit of log frailty adds, and the reader's error. Ours: blood that still
flows has not clotted evenly, which is why swirl and black-hole signs foretell growth."""


LEAK_SHARE, LEAK_LEFT = 0.02, 0.65
"""Share of cuff readings that are too low, and what is left of the pressure in them. Ours."""
SMALL_CUFF_FROM, SMALL_CUFF_MMHG = 0.985, 35.0
"""From here on the toss makes a cuff reading too high, and by how much. Ours."""
SLIP_SHARE, SLIP = 0.015, 22.0
"""Share of saturations from a probe that slipped, and how much too low they are. Ours."""


def cuff_spoilt(shown: Float, toss: Float) -> Float:
    """Systolic pressures with the artefacts that uniform tosses decide."""
    low, high = toss < LEAK_SHARE, toss > SMALL_CUFF_FROM
    return np.select([low, high], [LEAK_LEFT * shown, shown + SMALL_CUFF_MMHG], shown)


def cuff_repaired(shown: Float, toss: Float) -> Float:
    """The inverse of :func:`cuff_spoilt`, but for what was rounded."""
    low, high = toss < LEAK_SHARE, toss > SMALL_CUFF_FROM
    return np.select([low, high], [shown / LEAK_LEFT, shown - SMALL_CUFF_MMHG], shown)


def probe_spoilt(oxygen: Float, toss: Float) -> Float:
    """Saturations with the artefacts that uniform tosses decide."""
    return np.where(toss < SLIP_SHARE, oxygen - SLIP, oxygen)


def probe_repaired(oxygen: Float, toss: Float) -> Float:
    """The inverse of :func:`probe_spoilt`."""
    return np.where(toss < SLIP_SHARE, oxygen + SLIP, oxygen)


def density_spread(vessels: Float) -> Float:
    """Expected standard deviation of density on CT, HU, by the logarithm of the vessels' frailty."""
    return np.asarray(DENSITY_HU + PER_FRAILTY_HU * vessels, np.float64)


def mixed_chance(vessels: Float) -> Float:
    """Chance of a swirl or black-hole sign on CT, by the logarithm of the vessels' frailty. Ours."""
    return sigmoid(-1.1 + 1.1 * vessels)


def signs(
    state: Body,
    *,
    pressure: Float,
    sedation: Float,
    alarm: Float,
    tube: Flag,
    treated: Flag,
    drink: Flag,
    hours: float,
) -> dict[str, Float]:
    """Expected signs, by channel; all arrays of one shape or fitting it.

    Parameters
    ----------
    state : Body
    pressure : float64
        Systolic pressure without what raised pressure in the skull, tears and sedation do, as the cuff shows it, mmHg.
    sedation : float64
        Depth that it adds.
    alarm : float64
        What is left of the body's answer to tears, in units of the drive.
    tube, treated, drink : bool
        Intubated, on an antihypertensive, had alcohol.
    hours : float
        Since admission.
    """
    tight = np.maximum(state.icp - 22, 0)
    wide = np.clip(2.5 * (state.icp - 26) / 8, 0, 3)
    pupil = 3.6 - 1.0 * (sedation > 0)
    return {
        "sbp": pressure + tight + PRESSOR_MMHG * alarm - 4 * sedation,
        "hr": 80 + 9 * drink - 7 * treated - 5 * sedation - 0.5 * tight + PRESSOR_BPM * alarm,
        "rr": np.where(tube, 15.0, 16 + 1.6 * state.severity),
        "spo2": 97.5 - 0.9 * state.severity * ~tube,
        "temp": 36.7 + 0.03 * hours * (state.ventricles > 2),
        "pupil_left": pupil + wide * (state.left > state.right),
        "pupil_right": pupil + wide * (state.right > state.left),
    }
