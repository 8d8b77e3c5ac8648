"""How well somebody could do who reads the chart as well as can be: ``python -m`` this module prints it.

The cohort's own ceiling knows every tear. This reader knows the patient at admission and all treatment, but of the
tears since then only what the chart shows: many courses of tears are drawn, and weighed by the likelihood of what was
charted. No reader of the table, the chart and the note knows more, so that its concordance is a nearer ceiling, up to
the error of finitely many courses.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.dynamics_admission import MOMENTS, OTHER, USUAL, Admission, Place, admit, draw_tosses
from edgehem.export.cohorts.dynamics_body import (
    Body,
    body,
    coma_line,
    disturbance,
    load,
    stroke_line,
    weights,
)
from edgehem.export.cohorts.dynamics_course import STEP_H, Course, follow
from edgehem.export.cohorts.dynamics_outcome import LABEL_H, conclude, levels
from edgehem.export.cohorts.dynamics_signs import (
    BREATH_ON_TUBE,
    NOISE,
    PRESSOR_H,
    RATING_ERROR,
    STROKE_ERROR,
    WANDER_KEPT,
    WANDER_MMHG,
    signs,
)
from edgehem.export.cohorts.dynamics_spread import JUMP, Spread, jumps_at_least

Float = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_] | bool

COURSES = 400
"""Courses of tears drawn for each patient, the first being the one without any. Ours: twice as many change nothing."""
MOST_TEARS = 8
"""In one of them."""
AT_ONCE = 32
"""Patients weighed together, to keep memory small."""
_GRID = np.linspace(-9, 9, 3601)
_NORMAL = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in _GRID])


def foreseen(
    people: Admission, place: Place, spread: Spread, course: Course, rng: np.random.Generator
) -> dict[str, Float]:
    """Chance of the labels of 24 h given the admission, all treatment, and the chart: [N] by label.

    Parameters
    ----------
    people, place, spread, course
        As :func:`edgehem.export.cohorts.dynamics_course.follow` took and gave them.
    rng : numpy.random.Generator
        Of the courses of tears.
    """
    drift, hazard = course.growth.drift[:, :MOMENTS], course.growth.hazard[:, :MOMENTS]
    share, tears, jumps = _courses(rng, hazard[:, -1])
    torn = ((tears[:, :, None] <= hazard[:, None, :, None]) * jumps[:, :, None]).sum(-1)  # [N, M, T]
    weight = np.log(share) + _likelihood(people, place, spread, course, drift, torn)
    weight = np.exp(weight - weight.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    now = drift[:, -1:] + torn[:, :, -1]
    drift_then, hazard_then, _ = course.growth[LABEL_H]
    creep, to_come = (drift_then - drift[:, -1])[:, None], (hazard_then - hazard[:, -1])[:, None]
    needed = levels(spread.summed(weights()))
    return {
        name: (weight * jumps_at_least(least[:, None] - now - creep, to_come)).sum(1) for name, least in needed.items()
    }


def _courses(rng: np.random.Generator, hazard: Float) -> tuple[Float, Float, Float]:
    """Prior shares [N, M] of courses, and their tears in units of the summed hazard, with jumps: [N, M, K].

    The first course has no tear; the others are drawn given that there is one at least.
    """
    none = np.exp(-hazard)
    share = np.repeat((-np.expm1(-hazard) / (COURSES - 1))[:, None], COURSES, axis=1)
    share[:, 0] = none
    # The number of tears by inversion of Poisson's law above nought.
    level = none[:, None] + (1 - none[:, None]) * rng.random((len(hazard), COURSES))
    number = np.zeros(level.shape, np.int64)
    term = total = none[:, None]
    for count in range(MOST_TEARS):
        number += level > total
        term = term * hazard[:, None] / (count + 1)
        total = total + term
    number[:, 0] = 0
    real = np.arange(MOST_TEARS) < number[:, :, None]
    at = hazard[:, None, None] * rng.random((*level.shape, MOST_TEARS))
    return share, np.where(real, at, np.inf), rng.exponential(JUMP, at.shape)


def _likelihood(
    people: Admission, place: Place, spread: Spread, course: Course, drift: Float, torn: Float
) -> Float:  # fmt: skip
    """Log likelihood of the chart under every course of tears: [N, M]."""
    sums = spread.summed(weights())
    chart = course.chart
    total, alarm = np.zeros(torn.shape[:2]), np.zeros(torn.shape[:2])
    last, gap = np.full(torn.shape[:2], np.nan), np.full((len(people), 1), np.inf)
    for moment in range(MOMENTS):
        hours = moment * STEP_H
        jump = torn[:, :, moment] - (torn[:, :, moment - 1] if moment else 0.0)
        alarm = alarm * np.exp(-STEP_H / PRESSOR_H) + jump
        state = body(people, sums.at(drift[:, moment, None] + torn[:, :, moment]), hours)
        now = {name: values[:, moment, None] for name, values in chart.items()}
        asleep = course.asleep[:, moment, None]
        tube, treated = now["intubated"] == 1, now["antihypertensive"] == 1
        pressure = (load(people, hours, course.treated_h) + place.cuff_mmhg)[:, None]
        told = signs(
            state, pressure=pressure, sedation=asleep, alarm=alarm, tube=tube, treated=treated,
            drink=people.alcohol[:, None], hours=hours,
        )  # fmt: skip
        noise = NOISE | {"rr": np.where(tube, BREATH_ON_TUBE, 1.0) * NOISE["rr"]}
        for name in ("hr", "rr", "spo2", "temp"):
            total += _gaussian(now[name] - told[name], noise[name], 0.1 if name == "temp" else 1.0)
        for name in ("pupil_left", "pupil_right"):
            total += _within(now[name] - told[name], 0.25, NOISE[name])
        off = now["sbp"] - told["sbp"]
        # A cuff that errs by so much is known to err.
        off = np.where(np.abs(off[:, :1]) > 4.5 * WANDER_MMHG / math.sqrt(1 - WANDER_KEPT**2), np.nan, off)
        total += _wandering(off, last, gap)
        read = np.isfinite(off)
        last, gap = np.where(read, off, last), np.where(read[:, :1], 1.0, gap + 1)
        total += _scores(people, state, asleep, now, tube, hours)
    return total


def _scores(
    people: Admission, state: Body, asleep: Float, now: dict[str, Float], tube: npt.NDArray[np.bool_], hours: float
) -> Float:  # fmt: skip
    disturbed = disturbance(people, hours, asleep)
    line = coma_line(state.severity + disturbed, state.language)
    total = np.zeros(state.severity.shape)
    for place, (name, most) in enumerate((("gcs_eye", 4), ("gcs_verbal", 5), ("gcs_motor", 6))):
        seen = np.where(tube & (name == "gcs_verbal"), np.nan, now[name])
        total += _within(seen - line[:, :, place], 0.5, RATING_ERROR, low=seen <= 1, high=seen >= most)
    seen = now["nihss"]
    return total + _within(seen - stroke_line(state, disturbed), 0.5, STROKE_ERROR, low=seen <= 0, high=seen >= 42)


def _gaussian(off: Float, sd: Float | float, step: float) -> Float:
    """Log likelihood of a value that was rounded to a step; 0 where there is none or the sensor had slipped."""
    spread = np.sqrt(np.square(sd) + step**2 / 12)
    value = -0.5 * np.square(off / spread) - np.log(spread)
    return np.where(np.isfinite(off) & (np.abs(off) < 15 * spread).any(1, keepdims=True), value, 0.0)


def _wandering(off: Float, last: Float, gap: Float) -> Float:
    """Log likelihood of the cuff's distance, given that at the last charted row."""
    kept = WANDER_KEPT ** np.where(np.isfinite(gap), gap, 0)
    fresh = WANDER_MMHG**2 * (1 - kept**2) / (1 - WANDER_KEPT**2)
    first = ~np.isfinite(last)
    spread = np.sqrt(np.where(first, WANDER_MMHG**2 / (1 - WANDER_KEPT**2), fresh) + 1 / 12)
    value = -0.5 * np.square((off - np.where(first, 0.0, kept * last)) / spread) - np.log(spread)
    return np.where(np.isfinite(off), value, 0.0)


def _within(off: Float, half: float, sd: float, low: Flags = False, high: Flags = False) -> Float:
    """Log chance to round to a value: off is the value less the line; at the ends of a scale all beyond counts."""
    known = np.isfinite(off)
    safe = np.where(known, off, 0.0)
    upper = np.where(high, 1.0, np.interp((safe + half) / sd, _GRID, _NORMAL))
    lower = np.where(low, 0.0, np.interp((safe - half) / sd, _GRID, _NORMAL))
    return np.where(known, np.log(np.maximum(upper - lower, 1e-12)), 0.0)


def measure(count: int = 2048, *, seed: int = 0, shifted: bool = False) -> dict[str, tuple[float, float]]:
    """Concordance of the cohort's ceiling, and of this reader, by label.

    Parameters
    ----------
    count : int
        Patients.
    seed : int
    shifted : bool

    Raises
    ------
    UsageError
        If there is no patient.
    """
    if count < 1:
        raise UsageError("a concordance needs patients")
    place = OTHER if shifted else USUAL
    parts: dict[str, list[list[Float]]] = {}
    for number in range(-(-count // AT_ONCE)):
        rng = np.random.default_rng([seed, number, 402])
        people = admit(rng, AT_ONCE, place)
        tosses = draw_tosses(rng, AT_ONCE)
        spread = Spread.of(people.blood)
        course = follow(people, place, tosses, spread)
        ended = conclude(people, spread, course, tosses.person["outcome"])
        for name, chance in foreseen(people, place, spread, course, rng).items():
            label = np.asarray(ended.labels[name], np.float64)
            parts.setdefault(name, []).append([label, ended.chance[name], chance])
    out = {}
    for name, blocks in parts.items():
        label, ceiling, nearer = (np.concatenate(some)[:count] for some in zip(*blocks, strict=True))
        whole = label.astype(np.int64)
        out[name] = (concordance(whole, ceiling), concordance(whole, nearer))
    return out


def main() -> None:
    """Print both for both places."""
    for place, shifted in (("usual place", False), ("other place", True)):
        for name, (ceiling, nearer) in measure(shifted=shifted).items():
            sys.stdout.write(f"{place}  {name:22s} ceiling {ceiling:.3f}  best reader of the chart {nearer:.3f}\n")


if __name__ == "__main__":
    main()
