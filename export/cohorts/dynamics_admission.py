"""Whom the dynamics begin with: hospitals, patients at admission, and the tosses of their next two days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import sigmoid
from edgehem.export.cohorts.dynamics_spread import JUMP, Spread
from edgehem.regions import load_regions

Float = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flag = npt.NDArray[np.bool_]

AGENTS = ("none", "vka", "doac")
"""Anticoagulants: none, a vitamin K antagonist, a direct oral one."""
SITES = {"lentiform": 0.33, "thalamus": 0.19, "caudate": 0.05, "frontal": 0.1, "parietal": 0.09, "temporal": 0.08,
         "occipital": 0.04, "insula": 0.01, "cerebellum": 0.06, "vermis": 0.01, "brainstem": 0.04}  # fmt: skip
"""Where the first vessel tears: shares. Ours, deep sites leading."""
FIRST_ML = {"lobe": 16.0, "deep": 8.0, "infratentorial": 5.0}
"""Median of what the first tear leaves, mL. Ours."""
FRAILTY = 0.8
"""Log standard deviation of the vessels' frailty. Ours."""
FIRST_BY_FRAILTY, FIRST_SPREAD = 0.25, 0.75
"""Power of the frailty in what the first tear leaves, and the log standard deviation of the rest. Ours."""
CLOT_H = 6.0
"""Time constant with which a clot becomes firm without anticoagulation. Ours: most expansion is early."""
MOMENTS = 19
"""Moments of the observed window: every ten minutes from admission to three hours."""
HOURS = 49
"""Hours of the whole course: 0 to 48."""
TEARS = 12
"""Further tears that a patient can have; fewer than 1 in 100,000 would have more."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A hospital: whom it sees, and its habits. All figures are ours.

    Parameters
    ----------
    age : float
        Mean age, years.
    lobar : float
        Factor on the odds of a lobar site.
    agents : tuple of float
        Shares of :data:`AGENTS`.
    interval_min : tuple of float
        Shortest and longest usual interval between charted rows.
    sedation, intubation : float
        Added to the log odds of either, at every moment.
    verbal_one : float
        Share of intubated patients whose verbal score is charted as 1; it stays empty in others.
    cuff_mmhg : float
        What its cuffs read too high.
    styles : tuple of float
        Shares of the notes' styles (:data:`edgehem.export.cohorts.notes.STYLES`).
    """

    age: float
    lobar: float
    agents: tuple[float, float, float]
    interval_min: tuple[float, float]
    sedation: float
    intubation: float
    verbal_one: float
    cuff_mmhg: float
    styles: tuple[float, float, float]


USUAL = Place(
    age=67, lobar=1.0, agents=(0.78, 0.1, 0.12), interval_min=(10, 25), sedation=0.0, intubation=0.0, verbal_one=0.7,
    cuff_mmhg=0.0, styles=(0.6, 0.4, 0.0),
)  # fmt: skip
OTHER = Place(
    age=73, lobar=1.6, agents=(0.68, 0.05, 0.27), interval_min=(20, 45), sedation=2.0, intubation=1.2, verbal_one=0.1,
    cuff_mmhg=5.0, styles=(0.0, 0.0, 1.0),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Patients as they come in: arrays of [N] unless said otherwise. Nothing here changes by what is done to them.

    Parameters
    ----------
    age, male, hypertension, diabetes, antiplatelet, inr, platelets, glucose
        As in the table.
    agent : int64
        Place in :data:`AGENTS`.
    dose_h : float64
        Hours since the last dose, NaN without an anticoagulant.
    hold : float64
        What the anticoagulant adds to the clot's time constant, as a share of it.
    onset_h : float64
        From onset to admission.
    found_down, seizure, alcohol, vomiting : bool
    premorbid : int64
        Modified Rankin scale before, 0 to 4.
    clock_h : float64
        Time of day at admission.
    chronic, surge, response : float64
        mmHg: usual systolic pressure, what onset adds to it, how much treatment takes off.
    frailty : float64
        Factor on the rate of growth: the state of the vessels.
    fragile : float64
        Added to the severity: how badly a brain takes it.
    reserve : float64
        Room for mass, mL.
    origin : int64
        Region of the first tear.
    first_ml : float64
        What the first tear left, before it was held to what can be.
    blood : float64 [N, R]
        mL at the admission CT.
    style : int64
        Of the note.
    """

    age: Float
    male: Flag
    hypertension: Flag
    diabetes: Flag
    antiplatelet: Flag
    inr: Float
    platelets: Float
    glucose: Float
    agent: Whole
    dose_h: Float
    hold: Float
    onset_h: Float
    found_down: Flag
    seizure: Flag
    alcohol: Flag
    vomiting: Flag
    premorbid: Whole
    clock_h: Float
    chronic: Float
    surge: Float
    response: Float
    frailty: Float
    fragile: Float
    reserve: Float
    origin: Whole
    first_ml: Float
    blood: Float
    style: Whole

    def __len__(self) -> int:
        return len(self.age)


def origins(place: Place) -> Float:
    """Chance of each region to be where the first vessel tears: [R]."""
    regions = load_regions()
    share = np.array([SITES.get(region.name.removeprefix(f"{region.side}_"), 0.0) for region in regions.regions])
    share = share * np.where(regions.is_kind("lobe"), place.lobar, 1.0)
    share = share * np.where(regions.is_side("midline"), 1.0, 0.5)
    return np.asarray(share / share.sum(), np.float64)


def first_median() -> Float:
    """Median of what a first tear leaves in each region, in vessels of frailty 1: [R] mL, 0 where none tears."""
    return np.array([FIRST_ML.get(region.kind, 0.0) for region in load_regions().regions], np.float64)


def admit(rng: np.random.Generator, count: int, place: Place) -> Admission:
    """Draw patients at admission. Distributions and odds are ours, plausible and not measured."""
    regions = load_regions()
    age = _rounded(rng.normal(place.age, 13, count), 20, 99, 0)
    decade = (age - 68) / 10
    hypertension = rng.random(count) < sigmoid(0.7 + 0.25 * decade)
    agent = np.asarray(rng.choice(3, count, p=place.agents), np.int64)
    dose_h = np.where(agent > 0, np.round(rng.gamma(2.0, 6.0, count) + 1), np.nan)
    inr = np.where(agent == 1, rng.lognormal(0.95, 0.28, count), rng.normal(1.05, 0.1, count))
    inr = _rounded(inr, 0.8, 8, 1)
    of_doac = 1.5 * np.exp(-np.nan_to_num(dose_h, nan=1e3) / 14)
    hold = np.select([agent == 1, agent == 2], [0.5 * np.clip(inr - 1, 0, 3), of_doac], 0.0)
    found_down = rng.random(count) < 0.17
    onset_h = _rounded(rng.lognormal(0.85, 0.6, count) + np.where(found_down, 3, 0), 0.5, 20, 1)
    frailty = rng.lognormal(0, FRAILTY, count)
    origin = np.asarray(rng.choice(len(regions), count, p=origins(place)), np.int64)
    first = first_median()[origin] * frailty**FIRST_BY_FRAILTY * rng.lognormal(0, FIRST_SPREAD, count)
    seeded = np.zeros((count, len(regions)))
    seeded[np.arange(count), origin] = np.clip(first, 0.5, 70)
    blood = Spread.of(seeded).at(rng.gamma(1.5, 0.3, count) * (1 + 0.3 * hold))
    reserve = np.asarray(30 + 0.7 * np.clip(age - 50, 0, 45), np.float64)
    premorbid = np.clip(np.floor(rng.exponential(np.exp(-0.35 + 0.3 * decade))), 0, 4).astype(np.int64)
    return Admission(
        age=age, male=rng.random(count) < 0.56, hypertension=hypertension, diabetes=rng.random(count) < 0.2,
        antiplatelet=rng.random(count) < sigmoid(-1.0 + 0.3 * decade), inr=inr,
        platelets=_rounded(rng.normal(225, 65, count), 20, 600, 0),
        glucose=_rounded(rng.lognormal(1.98, 0.28, count), 3, 30, 1), agent=agent, dose_h=dose_h, hold=hold,
        onset_h=onset_h, found_down=found_down,
        seizure=rng.random(count) < 0.06 + 0.1 * regions.is_kind("lobe")[origin],
        alcohol=rng.random(count) < 0.1, vomiting=rng.random(count) < np.where(blood.sum(1) > 25, 0.5, 0.25),
        premorbid=premorbid, clock_h=rng.uniform(0, 24, count), chronic=rng.normal(132, 11, count) + 16 * hypertension,
        surge=np.clip(rng.normal(30, 17, count), 0, 90), response=np.clip(rng.normal(34, 10, count), 8, 60),
        frailty=frailty, fragile=rng.normal(0, 0.3, count), reserve=reserve, origin=origin,
        first_ml=first, blood=blood, style=np.asarray(rng.choice(3, count, p=place.styles), np.int64),
    )  # fmt: skip


def _rounded(values: Float, low: float, high: float, digits: int) -> Float:
    return np.asarray(np.round(np.clip(values, low, high), digits), np.float64)


@dataclass(frozen=True, kw_only=True)
class Tosses:
    """What chance does to patients after admission, drawn before it happens: the same tosses under another treatment
    give the same patients in another world.

    Parameters
    ----------
    tears : float64 [N, TEARS]
        Summed hazard at which each further tear comes: a Poisson process of rate 1.
    jumps : float64 [N, TEARS]
        Rise of the drive by each.
    uniform : mapping of purpose to float64 [N, MOMENTS]
        For decisions, gaps and artefacts.
    normal : mapping of purpose to float64 [N, MOMENTS]
        For fluctuation and error.
    later : float64 [N, HOURS]
        Uniform, for sedation and intubation after the window.
    rating : float64 [N, HOURS, 3]
        Normal, for scores after the window.
    person : mapping of purpose to float64 [N]
        Uniform, once for each patient.
    """

    tears: Float
    jumps: Float
    uniform: dict[str, Float]
    normal: dict[str, Float]
    later: Float
    rating: Float
    person: dict[str, Float]


UNIFORM = ("chart", "score", "treat", "reverse", "intubate", "sedate", "minute", "cuff", "probe", "gap", "nihss")
NORMAL = ("sbp", "dbp", "hr", "spo2", "temp", "rr", "eye", "verbal", "motor", "pupil_left", "pupil_right", "stroke")
PERSON = ("interval", "depth", "awake", "verbal", "outcome")


def draw_tosses(rng: np.random.Generator, count: int) -> Tosses:
    """Draw them."""
    return Tosses(
        tears=np.cumsum(rng.exponential(1.0, (count, TEARS)), axis=1),
        jumps=rng.exponential(JUMP, (count, TEARS)),
        uniform={name: rng.random((count, MOMENTS)) for name in UNIFORM},
        normal={name: rng.standard_normal((count, MOMENTS)) for name in NORMAL},
        later=rng.random((count, HOURS)),
        rating=rng.standard_normal((count, HOURS, 3)),
        person={name: rng.random(count) for name in PERSON},
    )
