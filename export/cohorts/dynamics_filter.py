"""How well somebody could do who reads the CT and the chart as well as can be.

The cohort's own ceiling knows the vessels' frailty and every tear. This reader knows the patient at admission and all
treatment, but of the frailty only what the first tear left and what the density of the clot shows, and of the tears
since then only what the chart shows: many pairs of a frailty and a course of tears are drawn, and weighed by the
likelihood of what was seen. No reader of the table, the chart and the note knows more, so that its concordance is a
nearer ceiling, up to the error of finitely many pairs. ``edgehem exam dynamics`` prints it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import Nearer
from edgehem.export.cohorts.dynamics_admission import (
    FIRST_BY_FRAILTY,
    FIRST_SPREAD,
    FRAILTY,
    MOMENTS,
    OTHER,
    USUAL,
    Admission,
    Place,
    Tosses,
    admit,
    draw_tosses,
    first_median,
)
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
    DENSITY_ERROR_HU,
    DENSITY_HU,
    NOISE,
    PER_FRAILTY_HU,
    PRESSOR_H,
    RATING_ERROR,
    STROKE_ERROR,
    WANDER_KEPT,
    WANDER_MMHG,
    cuff_repaired,
    density_spread,
    mixed_chance,
    probe_repaired,
    signs,
)
from edgehem.export.cohorts.dynamics_spread import JUMP, Spread, jumps_at_least

Float = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_] | bool

COURSES, TORN = 400, 320
"""Pairs of a frailty and a course drawn for each patient, and how many of the courses have a tear. Ours: with three
times as many, concordances of 1,024 patients moved by 0.001."""
READER = "nearer bound: CT and chart, read as well as can be"
"""Who knows so much, in the exam."""
MOST_TEARS = 8
"""In one of them."""
AT_ONCE = 32
"""Patients weighed together, to keep memory small."""
_GRID = np.linspace(-9, 9, 3601)
_NORMAL = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in _GRID])


@dataclass(frozen=True, kw_only=True)
class Texture:
    """What CT shows of the frailty.

    Parameters
    ----------
    density_sd_hu : float64 [N]
    mixed : float64 [N]
        1 with a swirl or black-hole sign, 0 without.
    """

    density_sd_hu: Float
    mixed: Float

    @classmethod
    def draw(cls, rng: np.random.Generator, frailty: Float) -> Texture:
        """As the cohort draws it; nobody's slices are too thick to show a sign."""
        vessels = np.log(frailty)
        noise = DENSITY_ERROR_HU * rng.standard_normal(len(frailty))
        mixed = np.where(rng.random(len(frailty)) < mixed_chance(vessels), 1.0, 0.0)
        return cls(density_sd_hu=density_spread(vessels) + noise, mixed=mixed)


def foreseen(
    people: Admission,
    place: Place,
    spread: Spread,
    chart: Mapping[str, Float],
    course: Course,
    texture: Texture,
    rng: np.random.Generator,
) -> dict[str, Float]:
    """Chance of the labels of 24 h given the admission, the CT, all treatment, and the chart: [N] by label.

    Parameters
    ----------
    people, place, spread, course
        As :func:`edgehem.export.cohorts.dynamics_course.follow` took and gave them. The frailty is not looked at but to
        undo it.
    chart : mapping of channel to float64 [N, MOMENTS]
        Without artefacts: :func:`repaired`.
    texture : Texture
    rng : numpy.random.Generator
        Of the pairs.
    """
    frailty, weight = _frailties(rng, people, texture)
    by = (frailty / people.frailty[:, None])[:, :, None]  # [N, M, 1]: drift and hazard are proportional to the frailty
    drift, hazard = (by * known[:, None, :MOMENTS] for known in (course.growth.drift, course.growth.hazard))
    share, tears, jumps = _courses(rng, hazard[:, :, -1])
    torn = ((tears[:, :, None] <= hazard[:, :, :, None]) * jumps[:, :, None]).sum(-1)  # [N, M, T]
    weight = weight + np.log(share) + _likelihood(people, place, spread, chart, course, drift, torn)
    weight = np.exp(weight - weight.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    drift_then, hazard_then, _ = (by[:, :, 0] * known[:, None] for known in course.growth[LABEL_H])
    to_come = hazard_then - hazard[:, :, -1]
    needed = levels(spread.summed(weights()))
    return {
        name: (weight * jumps_at_least(least[:, None] - drift_then - torn[:, :, -1], to_come)).sum(1)
        for name, least in needed.items()
    }


def repaired(course: Course, tosses: Tosses) -> dict[str, Float]:
    """The chart without artefacts, which a reader is told of: to know them is to know more than the chart."""
    return {
        **course.chart,
        "sbp": cuff_repaired(course.chart["sbp"], tosses.uniform["cuff"]),
        "spo2": probe_repaired(course.chart["spo2"], tosses.uniform["probe"]),
    }


def _frailties(rng: np.random.Generator, people: Admission, texture: Texture) -> tuple[Float, Float]:
    """Frailties [N, M] drawn given the first tear and the density, and their log weights by the sign.

    The logarithm is normal before, and both are normal about a line in it: so it is normal after, too.
    """
    first = np.log(people.first_ml / first_median()[people.origin])
    precision = FRAILTY**-2 + (FIRST_BY_FRAILTY / FIRST_SPREAD) ** 2 + (PER_FRAILTY_HU / DENSITY_ERROR_HU) ** 2
    mean = FIRST_BY_FRAILTY / FIRST_SPREAD**2 * first
    mean = mean + PER_FRAILTY_HU / DENSITY_ERROR_HU**2 * (texture.density_sd_hu - DENSITY_HU)
    vessels = (mean / precision)[:, None] + rng.standard_normal((len(mean), COURSES)) / math.sqrt(precision)
    sign = mixed_chance(vessels)
    return np.exp(vessels), np.log(np.where(texture.mixed[:, None] == 1, sign, 1 - sign))


def _courses(rng: np.random.Generator, hazard: Float) -> tuple[Float, Float, Float]:
    """Prior shares [N, M] of courses, and their tears in units of the summed hazard [N, M], with jumps: [N, M, K].

    The last :data:`TORN` courses are drawn given that there is a tear at least; the others have none.
    """
    none = np.exp(-hazard)
    torn = np.arange(COURSES) >= COURSES - TORN
    share = np.where(torn, -np.expm1(-hazard) / TORN, none / (COURSES - TORN))
    # The number of tears by inversion of Poisson's law above nought.
    level = none + (1 - none) * rng.random(hazard.shape)
    number = np.zeros(hazard.shape, np.int64)
    term = total = none
    for count in range(MOST_TEARS):
        number += level > total
        term = term * hazard / (count + 1)
        total = total + term
    real = np.arange(MOST_TEARS) < np.where(torn, number, 0)[:, :, None]
    at = hazard[:, :, None] * rng.random((*hazard.shape, MOST_TEARS))
    return share, np.where(real, at, np.inf), rng.exponential(JUMP, at.shape)


def _likelihood(
    people: Admission,
    place: Place,
    spread: Spread,
    chart: Mapping[str, Float],
    course: Course,
    drift: Float,
    torn: Float,
) -> Float:
    """Log likelihood of the chart under every course of tears: [N, M]."""
    sums = spread.summed(weights())
    total, alarm = np.zeros(torn.shape[:2]), np.zeros(torn.shape[:2])
    last, gap = np.full(torn.shape[:2], np.nan), np.full((len(people), 1), np.inf)
    for moment in range(MOMENTS):
        hours = moment * STEP_H
        jump = torn[:, :, moment] - (torn[:, :, moment - 1] if moment else 0.0)
        alarm = alarm * np.exp(-STEP_H / PRESSOR_H) + jump
        state = body(people, sums.at(drift[:, :, moment] + torn[:, :, moment]), hours)
        now = {name: values[:, moment, None] for name, values in chart.items()}
        asleep = course.asleep[:, moment, None]
        tube, treated = now["intubated"] == 1, now["antihypertensive"] == 1
        pressure = (load(people, hours, course.treated_h) + place.cuff_mmhg)[:, None]
        told = signs(
            state, pressure=pressure, sedation=asleep, alarm=alarm, tube=tube, treated=treated,
            drink=people.alcohol[:, None], hours=hours,
        )  # fmt: skip
        noise = NOISE | {"rr": np.where(tube, BREATH_ON_TUBE, 1.0) * NOISE["rr"]}
        for name in ("hr", "rr", "temp"):
            total += _gaussian(now[name] - told[name], noise[name], 0.1 if name == "temp" else 1.0)
        total += _within(now["spo2"] - told["spo2"], 0.5, NOISE["spo2"], high=now["spo2"] >= 100)
        for name in ("pupil_left", "pupil_right"):
            total += _within(now[name] - told[name], 0.25, NOISE[name])
        off = now["sbp"] - told["sbp"]
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
    """Log likelihood of a value that was rounded to a step; 0 where there is none."""
    spread = np.sqrt(np.square(sd) + step**2 / 12)
    value = -0.5 * np.square(off / spread) - np.log(spread)
    return np.where(np.isfinite(off), value, 0.0)


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


def nearer(count: int, *, seed: int = 0, shifted: bool = False) -> list[Nearer]:
    """Labels of some patients, and this reader's chances of them.

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
    parts: dict[str, list[tuple[npt.NDArray[np.int64], Float]]] = {}
    for number in range(-(-count // AT_ONCE)):
        rng = np.random.default_rng([seed, number, 402])
        people = admit(rng, AT_ONCE, place)
        tosses = draw_tosses(rng, AT_ONCE)
        spread = Spread.of(people.blood)
        course = follow(people, place, tosses, spread)
        labels = conclude(people, spread, course, tosses.person["outcome"]).labels
        texture = Texture.draw(rng, people.frailty)
        chart = repaired(course, tosses)
        for name, chance in foreseen(people, place, spread, chart, course, texture, rng).items():
            parts.setdefault(name, []).append((labels[name], chance))
    return [
        Nearer(label=name, what=READER, outcome=np.concatenate(labels)[:count], chance=np.concatenate(chances)[:count])
        for name, (labels, chances) in ((name, zip(*blocks, strict=True)) for name, blocks in parts.items())
    ]
