"""Two days of patients: what happens in them, what is seen of it, and what is done because of what is seen.

For three hours the loop is closed, ten minutes at a time: scores and cuff pressures are charted, treatment is ordered
by what is charted, treatment lowers the pressure, and pressure feeds the growth. After that no treatment of the
bleeding is begun (ours), so that to 48 h only tears are left to chance, and chances have a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import sigmoid
from edgehem.export.cohorts.dynamics_admission import HOURS, MOMENTS, Admission, Place, Tosses
from edgehem.export.cohorts.dynamics_body import (
    Body,
    body,
    clotting,
    coma_scale,
    disturbance,
    load,
    night,
    strain,
    stroke_scale,
    weights,
)  # fmt: skip
from edgehem.export.cohorts.dynamics_signs import (
    BREATH_ON_TUBE,
    NOISE,
    PRESSOR_H,
    RATING_ERROR,
    STROKE_ERROR,
    WANDER_KEPT,
    WANDER_MMHG,
    cuff_spoilt,
    probe_spoilt,
    signs,
)
from edgehem.export.cohorts.dynamics_spread import Spread

Float = npt.NDArray[np.float64]

STEPS_AN_HOUR = 6
STEP_H = 1 / STEPS_AN_HOUR
"""Of the loop."""
WINDOW_H = (MOMENTS - 1) * STEP_H
"""What a system sees: the first three hours. Labels are of what comes by 24 h and 90 days."""
DRIFT = 0.006
"""Creep of the drive at admission without anything that slows or speeds it, 1/h. Ours."""
HAZARD = 0.1
"""Further tears an hour at onset, likewise. Ours."""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What is done whatever is seen: the do-operator. None leaves it to the doctors.

    Parameters
    ----------
    treatment : bool, optional
        Antihypertensive treatment for everybody from admission, or for nobody.
    sedation : bool, optional
        Sedation of everybody throughout, or of nobody.
    """

    treatment: bool | None = None
    sedation: bool | None = None


DOCTORS = Intervention()


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The drive, and what feeds it: float64 [N, 289] at every ten minutes to 48 h.

    Parameters
    ----------
    drift : float64
        Of the drive, without its jumps.
    hazard : float64
        Tears expected since admission.
    drive : float64
        Drift and jumps.
    """

    drift: Float
    hazard: Float
    drive: Float

    def __getitem__(self, hours: float) -> tuple[Float, Float, Float]:
        """All three at a time: [N] each."""
        step = round(hours * STEPS_AN_HOUR)
        return self.drift[:, step], self.hazard[:, step], self.drive[:, step]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What came.

    Parameters
    ----------
    chart : mapping of channel to float64 [N, MOMENTS]
        What was charted in the window, NaN where it was not; ``time_min`` is NaN where there is no row.
    growth : Growth
    asleep : float64 [N, MOMENTS]
        Depth that sedation adds at every moment of the window.
    treated_h, reversed_h, sedated_h : float64 [N]
        When each was begun; infinite where it was not.
    body : Body
        Hidden state at every hour: [N, HOURS].
    sedation : float64 [N, HOURS]
        Depth that sedation adds.
    gcs : float64 [N, HOURS]
        Coma scale that an examiner charts every hour; the verbal part of intubated patients counts as 1.
    gcs_undisturbed : float64 [N, HOURS]
        The same without confounders and errors.
    """

    chart: dict[str, Float]
    growth: Growth
    asleep: Float
    treated_h: Float
    reversed_h: Float
    sedated_h: Float
    body: Body
    sedation: Float
    gcs: Float
    gcs_undisturbed: Float


def follow(people: Admission, place: Place, tosses: Tosses, spread: Spread, done: Intervention = DOCTORS) -> Course:
    """Let two days pass."""
    bedside = _Bedside(people, place, tosses, done)
    sums = spread.summed(weights())
    count = len(people)
    drift, hazard, torn, alarm = np.zeros((4, count))
    clot = people.onset_h * clotting(people, 0.0, np.full(count, np.inf))
    for moment in range(MOMENTS):
        hours = moment * STEP_H
        before, torn = torn, _jumps(tosses, hazard[:, None])[:, 0]
        alarm = alarm * np.exp(-STEP_H / PRESSOR_H) + torn - before
        bedside.visit(moment, body(people, sums.at(drift + torn), hours), alarm)
        if moment < MOMENTS - 1:
            pressure = load(people, hours, bedside.treated_h)
            rate = STEP_H * people.frailty * np.exp(-clot) * strain(pressure)
            drift, hazard = drift + DRIFT * rate, hazard + HAZARD * rate
            clot = clot + STEP_H * clotting(people, hours, bedside.reversed_h)
    grown = grow(people, tosses, bedside.treated_h, bedside.reversed_h)
    states = body(people, sums.at(grown.drive[:, ::STEPS_AN_HOUR]), np.arange(HOURS, dtype=np.float64)[None])
    sedation, gcs = bedside.stay(states)
    return Course(
        chart=bedside.chart, growth=grown, asleep=bedside.asleep, treated_h=bedside.treated_h,
        reversed_h=bedside.reversed_h, sedated_h=bedside.sedated_h, body=states, sedation=sedation, gcs=gcs,
        gcs_undisturbed=coma_scale(states.severity, states.language, np.zeros((*states.severity.shape, 3))).sum(-1),
    )  # fmt: skip


def grow(people: Admission, tosses: Tosses, treated_h: Float, reversed_h: Float) -> Growth:
    """The drive over 48 h, where it is known when treatment was begun."""
    steps = STEPS_AN_HOUR * (HOURS - 1)
    hours = np.asarray(STEP_H * np.arange(steps)[None], np.float64)
    firming = STEP_H * clotting(people, hours, reversed_h)
    start = people.onset_h * clotting(people, 0.0, np.full(len(people), np.inf))
    clot = start[:, None] + np.cumsum(firming, axis=1) - firming
    rate = STEP_H * people.frailty[:, None] * np.exp(-clot) * strain(load(people, hours, treated_h))
    summed = np.concatenate([np.zeros((len(people), 1)), np.cumsum(rate, axis=1)], axis=1)
    hazard = HAZARD * summed
    return Growth(drift=DRIFT * summed, hazard=hazard, drive=DRIFT * summed + _jumps(tosses, hazard))


def _jumps(tosses: Tosses, hazard: Float) -> Float:
    """What tears have added when so many were to be expected: [N, T] to [N, T]."""
    total = np.zeros_like(hazard)
    for tear, jump in zip(tosses.tears.T, tosses.jumps.T, strict=True):
        total += np.where(hazard >= tear[:, None], jump[:, None], 0.0)
    return total


class _Bedside:
    """Those who look, chart and treat."""

    def __init__(self, people: Admission, place: Place, tosses: Tosses, done: Intervention) -> None:
        count = len(people)
        self.people, self.place, self.tosses, self.done = people, place, tosses, done
        self.treated_h = np.full(count, 0.0 if done.treatment else np.inf)
        self.reversed_h = np.full(count, np.inf)
        self.sedated_h = np.full(count, 0.0 if done.sedation else np.inf)
        self.intubated_h = np.full(count, np.inf)
        self.awake_h = np.full(count, np.inf if done.sedation else 0.0)
        self.depth = 0.6 + 1.6 * tosses.person["depth"]
        self.stay_h = 2 + 22 * tosses.person["awake"]
        low, high = place.interval_min
        self.often = 60 / STEPS_AN_HOUR / (low + (high - low) * tosses.person["interval"])
        self.seen_ml = people.blood.sum(1)
        self.wander = np.zeros(count)
        self.asleep = np.zeros((count, MOMENTS))
        self.chart: dict[str, Float] = {name: np.full((count, MOMENTS), np.nan) for name in CHANNELS}

    def sedation(self, hours: float) -> Float:
        """Depth that sedation adds now: [N]."""
        return np.where((self.sedated_h <= hours) & (hours < self.awake_h), self.depth, 0.0)

    def visit(self, moment: int, state: Body, alarm: Float) -> None:
        """Chart a moment of the window, and decide by what is charted."""
        hours, people, tosses = moment * STEP_H, self.people, self.tosses
        uniform = {name: values[:, moment] for name, values in tosses.uniform.items()}
        normal = {name: values[:, moment] for name, values in tosses.normal.items()}
        dark = night(people.clock_h + hours)
        row = (uniform["chart"] < self.often * (1 - 0.3 * dark)) | (moment == 0)
        sedation = self.asleep[:, moment] = self.sedation(hours)
        vitals = self._vitals(hours, state, sedation, alarm, uniform, normal)
        disturbed = disturbance(people, hours, sedation)
        error = RATING_ERROR * np.stack([normal["eye"], normal["verbal"], normal["motor"]], axis=-1)
        scores = coma_scale(state.severity + disturbed, state.language, error)
        tube = self.intubated_h <= hours
        as_one = tosses.person["verbal"] < self.place.verbal_one
        scores[:, 1] = np.where(tube, np.where(as_one, 1.0, np.nan), scores[:, 1])
        scored = row & ((uniform["score"] < 0.75 * (1 - 0.4 * dark)) | (moment == 0))
        stroke = stroke_scale(state, disturbed, STROKE_ERROR * normal["stroke"])
        vitals |= {"gcs_eye": scores[:, 0], "gcs_verbal": scores[:, 1], "gcs_motor": scores[:, 2], "gcs": scores.sum(1)}
        for name, values in vitals.items():
            self.chart[name][:, moment] = np.where(scored if name.startswith("gcs") else row, values, np.nan)
        asked = scored & (uniform["nihss"] < (0.85 if moment == 0 else 0.08))
        self.chart["nihss"][:, moment] = np.where(asked, stroke, np.nan)
        early = np.floor(60 / STEPS_AN_HOUR * uniform["minute"]) if moment else 0.0
        self.chart["time_min"][:, moment] = np.where(row, np.round(hours * 60) - early, np.nan)
        if moment < MOMENTS - 1:
            self._decide(hours, row, scored, vitals["sbp"], np.nansum(scores, 1), uniform)

    def _vitals(
        self, hours: float, state: Body, sedation: Float, alarm: Float, uniform: dict[str, Float],
        normal: dict[str, Float],
    ) -> dict[str, Float]:  # fmt: skip
        people = self.people
        treated, tube = self.treated_h <= hours, self.intubated_h <= hours
        self.wander = WANDER_KEPT * self.wander + WANDER_MMHG * normal["sbp"]
        told = signs(
            state, pressure=load(people, hours, self.treated_h) + self.place.cuff_mmhg, sedation=sedation, alarm=alarm,
            tube=tube, treated=treated, drink=people.alcohol, hours=hours,
        )  # fmt: skip
        error = {name: NOISE[name] * values for name, values in normal.items() if name in NOISE}
        error["rr"] = np.where(tube, BREATH_ON_TUBE, 1.0) * error["rr"]
        shown = cuff_spoilt(told["sbp"] + self.wander, uniform["cuff"])
        oxygen = probe_spoilt(np.minimum(told["spo2"] + error["spo2"], 100), uniform["probe"])
        pupils = {name: told[name] + error[name] for name in ("pupil_left", "pupil_right")}
        gap = uniform["gap"]
        return {
            "sbp": np.clip(np.round(shown), 40, 280),
            "dbp": np.clip(np.round(0.5 * shown + 8 + error["dbp"]), 20, 180),
            "hr": np.clip(np.round(told["hr"] + error["hr"]), 30, 190),
            "rr": np.where(gap < 0.15, np.nan, np.clip(np.round(told["rr"] + error["rr"]), 6, 50)),
            "spo2": np.where(gap > 0.95, np.nan, np.clip(np.round(oxygen), 55, 100)),
            "temp": np.where(gap > 0.4, np.nan, np.clip(np.round(told["temp"] + error["temp"], 1), 33, 42)),
            "pupil_left": np.where(gap > 0.6, np.nan, np.clip(np.round(2 * pupils["pupil_left"]) / 2, 1, 8)),
            "pupil_right": np.where(gap > 0.6, np.nan, np.clip(np.round(2 * pupils["pupil_right"]) / 2, 1, 8)),
            # What a nurse forgets to tick stays empty: not everybody who is sedated is charted so.
            "sedated": np.where(uniform["probe"] > 0.8, np.nan, 1.0 * (sedation > 0)),
            "intubated": 1.0 * tube,
            "antihypertensive": 1.0 * treated,
            "reversal": 1.0 * (self.reversed_h <= hours),
        }

    def _decide(
        self, hours: float, row: npt.NDArray[np.bool_], scored: npt.NDArray[np.bool_], sbp: Float, gcs: Float,
        uniform: dict[str, Float],
    ) -> None:  # fmt: skip
        """Orders by what was just charted: the sicker somebody looks, and the higher the cuff reads, the more."""
        if self.done.treatment is None:
            # A score that was not taken leaves the impression of the volume on the CT.
            worse = np.where(scored, 14 - gcs, np.minimum(self.seen_ml / 8, 8))
            wish = sigmoid(-3.6 + 0.05 * (sbp - 150) + 0.3 * worse + 0.02 * self.seen_ml)
            self.treated_h = _begun(self.treated_h, hours, row & (uniform["treat"] < wish))
        known = self.people.agent > 0
        self.reversed_h = _begun(self.reversed_h, hours, row & known & (uniform["reverse"] < 0.25))
        low = gcs <= 8
        tube = np.where(low, sigmoid(-1.5 + 0.5 * (8 - gcs) + self.place.intubation), 0.002)
        self.intubated_h = _begun(self.intubated_h, hours, scored & (uniform["intubate"] < tube))
        restless = -4.6 + 1.6 * self.people.alcohol + 1.6 * self.people.seizure + 0.8 * ((gcs > 8) & (gcs < 14))
        calm = np.where(self.intubated_h <= hours, 0.7, sigmoid(restless + self.place.sedation))
        self._sedate(hours, scored & (uniform["sedate"] < calm))

    def _sedate(self, hours: float, wanted: npt.NDArray[np.bool_]) -> None:
        if self.done.sedation is None:
            begun = _begun(self.sedated_h, hours, wanted)
            self.awake_h = np.where(begun < self.sedated_h, hours + self.stay_h, self.awake_h)
            self.sedated_h = begun

    def stay(self, states: Body) -> tuple[Float, Float]:
        """Sedation and charted coma scale at every hour; those who worsen are intubated and sedated later, too."""
        people, tosses = self.people, self.tosses
        error = RATING_ERROR * tosses.rating
        sedation, gcs = np.zeros((len(people), HOURS)), np.zeros((len(people), HOURS))
        for hour in range(HOURS):
            sedation[:, hour] = self.sedation(hour)
            depth = states.severity[:, hour] + disturbance(people, hour, sedation[:, hour])
            scores = coma_scale(depth, states.language[:, hour], error[:, hour])
            scores[:, 1] = np.where(self.intubated_h <= hour, 1.0, scores[:, 1])
            gcs[:, hour] = scores.sum(1)
            if hour >= WINDOW_H:
                low = gcs[:, hour] <= 8
                tube = np.where(low, sigmoid(-1.5 + 0.5 * (8 - gcs[:, hour]) + self.place.intubation), 0.002)
                self.intubated_h = _begun(self.intubated_h, hour, tosses.later[:, hour] < tube)
                self._sedate(hour, self.intubated_h == hour)
        return sedation, gcs


def _begun(since: Float, hours: float, wanted: npt.NDArray[np.bool_]) -> Float:
    return np.where(wanted & np.isinf(since), hours, since)


CHANNELS = (
    "time_min", "sbp", "dbp", "hr", "rr", "spo2", "temp", "gcs", "gcs_eye", "gcs_verbal", "gcs_motor", "nihss",
    "pupil_left", "pupil_right", "sedated", "intubated", "antihypertensive", "reversal",
)  # fmt: skip
"""Of the chart, in the order of its file."""
