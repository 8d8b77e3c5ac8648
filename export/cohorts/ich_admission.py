"""Patients with an intracerebral hemorrhage as they are admitted: causes first, then what can be seen of them.

Every number here is ours unless a source stands beside it. They were chosen so that the cohort looks like those that
are published; none was fitted to patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, Values, lose, sigmoid, toss

LOCATIONS = ("deep", "lobar", "brainstem", "cerebellum")
CAUSES_OF_PLACE = ((0.60, 0.20, 0.09, 0.11), (0.08, 0.84, 0.01, 0.07))
"""How often each location is bled into, without and with amyloid angiopathy (ours)."""
MEDIAN_ML = np.array([11.0, 26.0, 4.0, 10.0])
"""Median volume by location, mL (ours)."""
LARGEST_ML = np.array([130.0, 150.0, 14.0, 60.0])
"""What the location has room for, mL (ours)."""
THRESHOLD_ML = np.array([30.0, 60.0, 5.0, 15.0])
"""Volume from which a clot at the location kills, mL (ours; 30 mL is the ICH score's only one)."""
ANTICOAGULANTS = ("none", "vka", "doac")
READING_ERROR = 0.12
"""Relative standard deviation of a person's volume reading (ours)."""
MOTOR_STEPS, EYE_STEPS, VERBAL_STEPS = (1.2, 1.9, 2.6, 3.2, 3.8), (0.3, 1.3, 2.2), (0.0, 0.9, 1.6, 2.3)
"""Depth of unconsciousness at which each component of the Glasgow Coma Scale loses a point (ours)."""
PREMORBID_STEPS = (0.4, 1.1, 1.8, 2.5, 3.3)
"""Frailty at which the modified Rankin Scale before the stroke gains a point (ours)."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What differs between hospitals, all ours.

    Parameters
    ----------
    age_mean, age_sd : float
        Years.
    anticoagulation : float
        Added to the logit of being anticoagulated.
    doac_share : float
        Of the anticoagulated.
    nihss_missing : tuple of float
        By ward: the share of patients whose NIHSS is not taken.
    verbal_as_one : tuple of float
        By ward: whether the GCS of an intubated patient is written with 1 for speech, else it is left empty.
    intubation : float
        Depth of unconsciousness at which half of the patients are intubated.
    creatinine_gain, glucose_offset : float
        Calibration of the laboratory: a factor, and mmol/L.
    labs_missing : float
        Share of patients in the middle of the severity scale without a laboratory result.
    withdrawal, withdrawal_per_point : float
        Logit of an early withdrawal of care at an ICH score of 0, and by point of it.
    """

    age_mean: float
    age_sd: float
    anticoagulation: float
    doac_share: float
    nihss_missing: tuple[float, ...]
    verbal_as_one: tuple[float, ...]
    intubation: float
    creatinine_gain: float
    glucose_offset: float
    labs_missing: float
    withdrawal: float
    withdrawal_per_point: float


HOME = Place(
    age_mean=68, age_sd=13, anticoagulation=0, doac_share=0.45, nihss_missing=(0.05, 0.1, 0.3, 0.8),
    verbal_as_one=(1, 0, 1, 0), intubation=2.4, creatinine_gain=1, glucose_offset=0, labs_missing=0.03,
    withdrawal=-5.2, withdrawal_per_point=1.05,
)  # fmt: skip
AWAY = Place(
    age_mean=75, age_sd=11, anticoagulation=0.4, doac_share=0.8, nihss_missing=(0.7, 0.85, 0.9, 0.97),
    verbal_as_one=(1, 1, 1, 0), intubation=1.6, creatinine_gain=1.1, glucose_offset=0.4, labs_missing=0.1,
    withdrawal=-3.4, withdrawal_per_point=0.9,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The hidden state at admission, column by column; each an array [N].

    Parameters
    ----------
    ward, location : int
        0 to 3; index into :data:`LOCATIONS`.
    age, hours : float
        Years; since onset.
    female, hypertension, diabetes, prior_stroke, dementia, antiplatelet, intubated, witnessed, ivh : 0 or 1
    anticoagulant : int
        Index into :data:`ANTICOAGULANTS`.
    vascular : float
        A risk that hypertension, diabetes, stroke and their drugs share.
    premorbid : int
        Modified Rankin Scale before the stroke.
    inr, platelets, creatinine, glucose : float
        As they are, before a laboratory measured them: 1, 10⁹/L, µmol/L, mmol/L.
    ml, ivh_ml, oedema_ml, shift_mm : float
    depth : float
        Of unconsciousness; what the Glasgow Coma Scale shows in steps.
    deficit : float
        What the NIHSS shows.
    sbp : float
        mmHg.
    """

    ward: npt.NDArray[np.int64]
    location: npt.NDArray[np.int64]
    anticoagulant: npt.NDArray[np.int64]
    premorbid: npt.NDArray[np.int64]
    female: npt.NDArray[np.int64]
    hypertension: npt.NDArray[np.int64]
    diabetes: npt.NDArray[np.int64]
    prior_stroke: npt.NDArray[np.int64]
    dementia: npt.NDArray[np.int64]
    antiplatelet: npt.NDArray[np.int64]
    intubated: npt.NDArray[np.int64]
    witnessed: npt.NDArray[np.int64]
    ivh: npt.NDArray[np.int64]
    vascular: Float
    age: Float
    hours: Float
    inr: Float
    platelets: Float
    creatinine: Float
    glucose: Float
    ml: Float
    ivh_ml: Float
    oedema_ml: Float
    shift_mm: Float
    depth: Float
    deficit: Float
    sbp: Float


def decades(age: Float) -> Float:
    """Years as decades from 70."""
    return (age - 70) / 10


def draw_admission(rng: np.random.Generator, place: Place, n: int) -> Admission:
    """Draw hidden states.

    Parameters
    ----------
    rng : numpy Generator
    place : Place
    n : int
    """
    ward = rng.integers(4, size=n)
    age = np.clip(rng.normal(place.age_mean, place.age_sd, n), 18, 102)
    old = decades(age)
    frailty = 0.55 * old + rng.normal(0, 0.8, n)
    vascular = rng.normal(0, 1, n)
    female = toss(rng, sigmoid(-0.2 + 0.15 * old))
    hypertension = toss(rng, sigmoid(0.7 + 0.3 * old + 0.8 * vascular))
    diabetes = toss(rng, sigmoid(-1.6 + 0.15 * old + 0.6 * vascular))
    prior_stroke = toss(rng, sigmoid(-2.0 + 0.35 * old + 0.6 * vascular))
    fibrillation = toss(rng, sigmoid(-1.7 + 0.7 * old + 0.3 * vascular))
    dementia = toss(rng, sigmoid(-3.0 + 1.1 * frailty + 0.6 * prior_stroke))
    disability = frailty + 0.7 * prior_stroke + 1.2 * dementia + rng.normal(0, 0.4, n)
    anticoagulated = toss(rng, sigmoid(-3.4 + 3.0 * fibrillation.astype(np.float64) + place.anticoagulation))
    anticoagulant = anticoagulated * np.where(rng.random(n) < place.doac_share, 2, 1)
    vka = anticoagulant == 1
    antiplatelet = toss(rng, sigmoid(-1.5 + 0.5 * vascular + 0.5 * old + 0.8 * prior_stroke - 1.5 * anticoagulated))
    inr = np.exp(np.where(vka, np.log(2.7), np.where(anticoagulant == 2, 0.2, 0.05)) + rng.normal(0, 1, n) * 0.07)
    inr *= np.exp(np.where(vka, 0.28 * rng.normal(0, 1, n), 0))
    platelets = np.clip(rng.normal(225, 60, n) - 120 * (rng.random(n) < 0.06), 12, 700)
    creatinine = np.exp(np.log(74) + 0.14 * (1 - female) + 0.1 * old + 0.15 * diabetes + rng.normal(0, 0.28, n))
    amyloid = toss(rng, sigmoid(-0.9 + 0.6 * old + 0.6 * dementia - 0.8 * hypertension))
    location = (rng.random(n)[:, None] > np.cumsum(np.array(CAUSES_OF_PLACE)[amyloid], axis=1)[:, :3]).sum(axis=1)

    witnessed = toss(rng, np.full(n, 0.75))
    hours = np.clip(np.exp(np.log(np.where(witnessed, 2.5, 8.0)) + rng.normal(0, 0.8, n)), 0.3, 48)
    size = rng.normal(0, 0.8, n) + 0.4 * vka * np.log(np.maximum(inr, 1) / 1.05) + 0.2 * (anticoagulant == 2)
    size += 0.35 * np.log(225 / platelets) + 0.1 * np.log(hours / 3.5)
    ml = np.clip(MEDIAN_ML[location] * np.exp(size), 0.4, LARGEST_ML[location])
    over = np.log(ml / THRESHOLD_ML[location])
    ivh = toss(rng, sigmoid(np.array([0.8, -0.7, 0.5, 0.4])[location] + 0.9 * over))
    ivh_ml = ivh * np.clip(np.exp(np.log(6) + 0.3 * over + rng.normal(0, 0.8, n)), 0.3, 80)
    supratentorial = location < 2
    shift_mm = supratentorial * np.clip((ml - 15) / 6, 0, 14) * np.exp(rng.normal(0, 0.25, n))
    oedema_ml = 0.5 * ml**0.9 * (hours / 3.5) ** 0.25 * np.exp(rng.normal(0, 0.35, n))

    depth = 1.5 + 0.75 * over + ivh * (0.4 + 0.3 * np.log1p(ivh_ml)) + 0.05 * shift_mm + 0.6 * (location == 2)
    depth = depth + 0.2 * frailty + rng.normal(0, 1, n)
    deficit = 3 + np.array([6.0, 4.0, 5.0, 0.0])[location] + 2.2 * over + 9 * sigmoid(depth - 1) + rng.normal(0, 3.5, n)
    sbp = 158 + 18 * hypertension + 6 * np.maximum(depth, 0) + rng.normal(0, 24, n)
    sbp = np.clip(sbp - 55 * (depth > 3.2) * (rng.random(n) < 0.5), 60, 280)  # the brainstem's pressure fails
    glucose = np.exp(np.log(6.3) + 0.4 * diabetes + 0.08 * np.maximum(depth, 0) + rng.normal(0, 0.2, n))
    return Admission(
        ward=ward, location=location, anticoagulant=anticoagulant, vascular=vascular,
        premorbid=np.digitize(disability, PREMORBID_STEPS),
        female=female, hypertension=hypertension, diabetes=diabetes, prior_stroke=prior_stroke, dementia=dementia,
        antiplatelet=antiplatelet, intubated=toss(rng, sigmoid(3 * (depth - place.intubation))), witnessed=witnessed,
        ivh=ivh, age=age, hours=hours, inr=inr, platelets=platelets, creatinine=creatinine, glucose=glucose, ml=ml,
        ivh_ml=ivh_ml, oedema_ml=oedema_ml, shift_mm=shift_mm, depth=depth, deficit=deficit, sbp=sbp,
    )  # fmt: skip


def coma_scale(rng: np.random.Generator, depth: Float) -> tuple[Float, Float, Float]:
    """Eye (1-4), verbal (1-5) and motor (1-6) response of the Glasgow Coma Scale, as one examiner scores them."""
    eye, verbal, motor = (
        1 + len(steps) - np.digitize(depth + rng.normal(0, 0.35, len(depth)), steps).astype(np.float64)
        for steps in (EYE_STEPS, VERBAL_STEPS, MOTOR_STEPS)
    )
    return eye, verbal, motor


def observe(rng: np.random.Generator, state: Admission, place: Place) -> dict[str, Values]:
    """What the table holds of hidden states: measured, read, scored, and often not at all.

    What is missing follows from causes (depth, ward, whether anybody saw the onset), never from the outcome.
    """
    n = len(state.age)
    eye, verbal, motor = coma_scale(rng, state.depth)
    tube = state.intubated == 1
    ones = np.array(place.verbal_as_one)[state.ward] == 1
    total = np.where(tube, np.where(ones, eye + motor + 1, np.nan), eye + verbal + motor)
    # Laboratory results come too late for those who die at the door, and are not asked for in the mildest.
    unmeasured = place.labs_missing + 0.3 * sigmoid(4 * (state.depth - 3.3)) + 0.2 * sigmoid(-4 * (state.depth + 0.5))
    drawn = rng.random(n) < unmeasured

    def lab(values: Values) -> Values:
        return lose(rng, np.where(drawn, np.nan, values), 0.02)

    nihss_missing = np.array(place.nihss_missing)[state.ward]
    read_ml = state.ml * np.exp(rng.normal(0, READING_ERROR, n))
    seen = (state.ivh == 1) & (rng.random(n) > 0.4 * np.exp(-state.ivh_ml))
    taken_for = np.where(rng.random(n) < 0.03, np.where(state.location == 1, 0, 1), state.location)
    location = np.where(state.location < 2, taken_for, state.location)
    return {
        "age": state.age,
        "female": state.female,
        "hypertension": lose(rng, state.hypertension.astype(float), 0.04),
        "diabetes": lose(rng, state.diabetes.astype(float), 0.04),
        "prior_stroke": lose(rng, state.prior_stroke.astype(float), 0.04),
        "dementia": lose(rng, state.dementia.astype(float), 0.08),
        "premorbid_mrs": lose(rng, state.premorbid.astype(float), np.where(state.witnessed, 0.05, 0.35)),
        "anticoagulant": lose(rng, np.array(ANTICOAGULANTS)[state.anticoagulant], np.where(state.witnessed, 0.02, 0.1)),
        "antiplatelet": lose(rng, state.antiplatelet.astype(float), 0.05),
        "hours_since_onset": np.where(state.witnessed, state.hours * np.exp(rng.normal(0, 0.1, n)), np.nan),
        "intubated": state.intubated,
        "gcs_eye": lose(rng, eye, 0.02),
        "gcs_verbal": lose(rng, np.where(tube, np.nan, verbal), 0.02),
        "gcs_motor": lose(rng, motor, 0.02),
        "gcs": lose(rng, total, 0.02),
        "nihss": lose(rng, np.where(tube & (rng.random(n) < 0.6), np.nan, state.deficit), nihss_missing),
        "sbp": lose(rng, state.sbp + rng.normal(0, 6, n), 0.01),
        "dbp": lose(rng, 12 + 0.48 * state.sbp + rng.normal(0, 10, n), 0.01),
        "heart_rate": lose(rng, 78 + 4 * np.maximum(state.depth, 0) + rng.normal(0, 14, n), 0.02),
        "temperature": lose(rng, 36.7 + 0.1 * np.maximum(state.depth, 0) + rng.normal(0, 0.5, n), 0.1),
        "glucose": lab(state.glucose * np.exp(rng.normal(0, 0.04, n)) + place.glucose_offset),
        "creatinine": lab(state.creatinine * place.creatinine_gain * np.exp(rng.normal(0, 0.05, n))),
        "sodium": lab(rng.normal(138.5, 3.2, n)),
        "inr": lab(state.inr * np.exp(rng.normal(0, 0.04, n))),
        "platelets": lab(state.platelets + rng.normal(0, 10, n)),
        "weekend": toss(rng, np.full(n, 2 / 7)),
        "triage_number": rng.integers(1, 1000, n).astype(float),
        "hematoma_ml": lose(rng, read_ml, 0.02),
        "ivh": lose(rng, seen.astype(float), 0.01),
        "ivh_ml": lose(rng, np.where(seen, state.ivh_ml * np.exp(rng.normal(0, 0.25, n)), 0), 0.1),
        "location": lose(rng, np.array(LOCATIONS)[location], 0.01),
        "midline_shift_mm": lose(rng, np.maximum(state.shift_mm + rng.normal(0, 0.8, n), 0), 0.05),
        "oedema_ml": lose(rng, state.oedema_ml * np.exp(rng.normal(0, 0.3, n)), 0.3),
    }
