"""ICH outcome: death within 30 days, and the modified Rankin Scale at 90 days, from what is known at admission.

Length of stay, surgery, later scans and later scores are not in the table, on purpose: they are known only after the
moment of prediction, and the first is nearly the outcome itself (who dies early stays briefly).

Four futures are possible: the clot grows or not, care is withdrawn early or not. The chances of both, and of the
outcome in each future, are known, so the chance of every outcome at admission is their exact mixture.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import (
    BLOCK,
    UNKNOWN,
    Cohort,
    Column,
    Float,
    Label,
    Patients,
    Values,
    sigmoid,
    tidy,
    toss,
)
from edgehem.export.cohorts.ich_admission import (
    ANTICOAGULANTS,
    AWAY,
    HOME,
    LOCATIONS,
    THRESHOLD_ML,
    Admission,
    Place,
    coma_scale,
    decades,
    draw_admission,
    observe,
)

DIES_WITHOUT_CARE = 0.96
"""Chance of death within 30 days once care is withdrawn, whoever it is (ours)."""
SURVIVORS_MRS = (-1.1, 0.1, 1.1, 2.3, 3.7, 5.0)
"""Cut points of mRS 1 to 6 at 90 days on the logit scale, of those alive at day 30 (ours)."""
LOST = (0.14, 0.14, 0.14, 0.09, 0.06, 0.06, 0.0)
"""Share lost to follow-up by mRS at 90 days: the well do not come back; the dead are in the register (ours)."""
LOST_BY_WARD = (0.6, 1.0, 1.0, 1.6)
"""Factor on it by ward (ours)."""
POOR_FROM = 4
"""Poor outcome: mRS 4 to 6."""


def _column(
    name: str, what: str, unit: str, low: float, high: float, digits: int = 0, *, image: bool = False
) -> Column:
    return Column(
        name=name, kind="real", what=what, unit=unit, low=low, high=high, digits=digits,
        source="image" if image else "clinic",
    )  # fmt: skip


def _flag(name: str, what: str, *, image: bool = False) -> Column:
    return Column(name=name, kind="binary", what=what, source="image" if image else "clinic")


def _score(name: str, what: str, low: float, high: float) -> Column:
    return Column(name=name, kind="count", what=what, unit="points", low=low, high=high)


COLUMNS = (
    _column("age", "Age.", "years", 18, 102),
    _flag("female", "Sex, 1 if female."),
    _flag("hypertension", "Known before."),
    _flag("diabetes", "Known before."),
    _flag("prior_stroke", "A stroke before."),
    _flag("dementia", "Known before."),
    _score("premorbid_mrs", "Modified Rankin Scale before the stroke.", 0, 5),
    Column(name="anticoagulant", kind="category", what="Taken at onset.", values=ANTICOAGULANTS),
    _flag("antiplatelet", "Taken at onset."),
    _column("hours_since_onset", "Empty where nobody saw the onset.", "h", 0, 72, 1),
    _flag("intubated", "At the first examination."),
    _score("gcs_eye", "Glasgow Coma Scale, eyes.", 1, 4),
    _score("gcs_verbal", "Glasgow Coma Scale, speech; empty with a tube.", 1, 5),
    _score("gcs_motor", "Glasgow Coma Scale, movement.", 1, 6),
    _score("gcs", "Glasgow Coma Scale, total as written: with a tube, some wards count 1 for speech.", 3, 15),
    _score("nihss", "National Institutes of Health Stroke Scale.", 0, 42),
    _column("sbp", "Systolic blood pressure.", "mmHg", 40, 300),
    _column("dbp", "Diastolic blood pressure.", "mmHg", 20, 180),
    _column("heart_rate", "Heart rate.", "1/min", 25, 200),
    _column("temperature", "Body temperature.", "°C", 33, 42, 1),
    _column("glucose", "In blood.", "mmol/L", 2, 40, 1),
    _column("creatinine", "In serum.", "µmol/L", 20, 1200),
    _column("sodium", "In serum. Without effect.", "mmol/L", 110, 170),
    _column("inr", "International normalised ratio.", "1", 0.8, 12, 1),
    _column("platelets", "Count.", "10⁹/L", 5, 900),
    _flag("weekend", "Admitted on a weekend. Without effect."),
    Column(name="triage_number", kind="count", what="Of the day's queue. Without effect.", low=1, high=999),
    _column("hematoma_ml", "Volume read by a person, ventricles left out.", "mL", 0, 250, 1, image=True),
    _flag("ivh", "Blood in a ventricle.", image=True),
    _column("ivh_ml", "Its volume.", "mL", 0, 150, 1, image=True),
    Column(name="location", kind="category", what="Of the hematoma.", values=LOCATIONS, source="image"),
    _column("midline_shift_mm", "At the septum.", "mm", 0, 30, 1, image=True),
    _column("oedema_ml", "Around the hematoma.", "mL", 0, 250, 1, image=True),
)
LABELS = (
    Label(name="mortality_30d", what="Dead within 30 days."),
    Label(name="poor_outcome_90d", what="mRS 4 to 6 at 90 days."),
    Label(name="mrs_90d", what="Modified Rankin Scale at 90 days.", classes=7),
)


def ich_score(gcs: Values, ml: Values, ivh: Values, location: Values, age: Values) -> npt.NDArray[np.int64]:
    """The ICH score, 0 to 6 points, int64 [N]; `location` as an index into LOCATIONS.

    References
    ----------
    Hemphill JC et al. The ICH score. Stroke 2001;32:891-897.
    """
    points = np.where(gcs <= 4, 2, np.where(gcs <= 12, 1, 0)) + (ml >= 30) + (ivh == 1) + (location >= 2) + (age >= 80)
    return np.asarray(points, np.int64)


def growth_chance(state: Admission) -> Float:
    """Chance that the clot grows: early scan, anticoagulation, few platelets, high pressure, large already."""
    logit = -1.5 - 0.55 * np.log(state.hours / 3.5) + 0.9 * (state.anticoagulant > 0) + 0.35 * np.log(state.ml / 15)
    return sigmoid(logit + 0.9 * np.log(225 / state.platelets) + 0.012 * (state.sbp - 165))


def withdrawal_chance(state: Admission, place: Place, points: npt.NDArray[np.int64]) -> Float:
    """Chance that care is withdrawn early: by what doctors expect (the ICH score), not by what is true."""
    logit = place.withdrawal + place.withdrawal_per_point * points + 0.35 * state.premorbid + 0.5 * state.dementia
    return sigmoid(logit + 0.25 * decades(state.age))


def death_logit(state: Admission, grown: int) -> Float:
    """Logit of death within 30 days under full care."""
    old, size = decades(state.age), np.log(state.ml / 20)
    beyond = sigmoid(6 * np.log(state.ml / THRESHOLD_ML[state.location]))  # a step, by location
    pressure = np.minimum(((state.sbp - 155) / 40) ** 2, 6)
    sugar = np.minimum((np.log(state.glucose / 7) / 0.4) ** 2, 6)
    logit = (
        -3.75
        + 0.45 * old
        + 0.3 * size
        + 0.3 * old * size
        + 1.7 * beyond
        + 0.7 * np.maximum(state.depth, -1)
        + state.ivh * (0.1 + 0.45 * np.clip(state.depth, 0, 3))
        + 0.6 * (state.location == 2)
        + 0.15 * state.premorbid
        + 0.3 * pressure
        + 0.35 * sugar
        + 0.5 * np.maximum(np.log(state.creatinine / 90), 0)
        + grown * (0.9 + 0.3 * np.maximum(size, 0))
    )
    return np.asarray(logit, np.float64)


def survivors_mrs(state: Admission, grown: int, withdrawn: int) -> Float:
    """Chances of mRS 0 to 6 at 90 days of who is alive at day 30, float64 [N, 7]."""
    old, size = decades(state.age), np.log(state.ml / 20)
    worse = 0.6 * state.premorbid + 0.3 * old + 0.4 * size + 0.13 * state.deficit + 0.35 * state.ivh + 0.2 * old * size
    worse = worse - 0.4 + 0.7 * grown + 1.5 * withdrawn
    at_least = sigmoid(worse[:, None] - np.array(SURVIVORS_MRS))
    edges = np.column_stack([np.ones(len(worse)), at_least, np.zeros(len(worse))])
    return np.asarray(-np.diff(edges, axis=1), np.float64)


class IchOutcome(Cohort):
    """Prognosis of intracerebral hemorrhage from the admission and a person's reading of the CT."""

    name: ClassVar[str] = "ich_outcome"
    version: ClassVar[str] = "1"
    what: ClassVar[str] = "Intracerebral hemorrhage: death and disability from what is known at admission."
    columns: ClassVar[tuple[Column, ...]] = COLUMNS
    labels: ClassVar[tuple[Label, ...]] = LABELS
    train: ClassVar[int] = 800
    test: ClassVar[int] = 200
    paths: ClassVar[tuple[str, ...]] = ("ct", "mask")

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """See :meth:`Cohort.block`."""
        place = AWAY if shifted else HOME
        state = draw_admission(rng, place, BLOCK)
        inputs = tidy(COLUMNS, observe(rng, state, place))
        eye, verbal, motor = coma_scale(rng, state.depth)
        believed = ich_score(eye + verbal + motor, state.ml, state.ivh, state.location, state.age)
        grows, leaves = growth_chance(state), withdrawal_chance(state, place, believed)

        futures = [(grown, withdrawn) for grown in (0, 1) for withdrawn in (0, 1)]
        care = [sigmoid(death_logit(state, grown)) for grown in (0, 1)]
        weights = np.stack([(grows if g else 1 - grows) * (leaves if w else 1 - leaves) for g, w in futures])  # [4, N]
        dies = np.stack([np.full(BLOCK, DIES_WITHOUT_CARE) if w else care[g] for g, w in futures])  # [4, N]
        later = np.stack([survivors_mrs(state, g, w) for g, w in futures])  # [4, N, 7]
        death = (weights * dies).sum(axis=0)
        mrs = ((weights * (1 - dies))[:, :, None] * later).sum(axis=0)  # [N, 7]
        mrs[:, 6] += death

        grown, withdrawn = toss(rng, grows), toss(rng, leaves)
        came = 2 * grown + withdrawn, np.arange(BLOCK)
        dead = toss(rng, dies[came])
        alive = (rng.random(BLOCK)[:, None] > np.cumsum(later[came], axis=1)[:, :6]).sum(axis=1)
        reached = np.where(dead == 1, 6, alive).astype(np.int64)
        poor = (reached >= POOR_FROM).astype(np.int64)
        lost = rng.random(BLOCK) < np.array(LOST)[reached] * np.array(LOST_BY_WARD)[state.ward]
        return self._seen(
            Patients(
                inputs=inputs,
                labels={
                    "mortality_30d": dead,
                    "poor_outcome_90d": np.where(lost, UNKNOWN, poor),
                    "mrs_90d": np.where(lost, UNKNOWN, reached),
                },
                complete={"poor_outcome_90d": poor, "mrs_90d": reached},
                chance={
                    "mortality_30d": np.clip(death, 0, 1),
                    "poor_outcome_90d": np.clip(mrs[:, POOR_FROM:].sum(axis=1), 0, 1),
                    "mrs_90d": np.clip(mrs, 0, 1),
                },
                truth={
                    "ward": state.ward,
                    "location": state.location,
                    "left": toss(rng, np.full(BLOCK, 0.5)),
                    "volume_ml": state.ml,
                    "ventricular_ml": state.ivh_ml,
                    "shift_mm": state.shift_mm,
                    "unconsciousness": state.depth,
                    "growth_chance": grows,
                    "grown": grown,
                    "withdrawal_chance": leaves,
                    "withdrawn": withdrawn,
                    "mortality_30d_under_full_care": (1 - grows) * care[0] + grows * care[1],
                },
            )
        )

    def _seen(self, drawn: Patients) -> Patients:
        """What of a block is in the table: all of it."""
        return drawn

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write a phantom CT (DICOM) with the row's hematoma and ventricular blood, and its mask."""
        from edgehem.export.cohorts.ich_images import write_images

        return write_images(patients, row, out, seed)


class IchOutcomeCt(IchOutcome):
    """The same without a person's reading: what the CT shows has to be found in the CT."""

    name = "ich_outcome_ct"
    what = "Intracerebral hemorrhage: death and disability from the admission and the CT itself."
    columns = tuple(column for column in COLUMNS if column.source == "clinic")

    def _seen(self, drawn: Patients) -> Patients:
        read = {column.name: drawn.inputs[column.name] for column in COLUMNS if column.source == "image"}
        return Patients(
            inputs={column.name: drawn.inputs[column.name] for column in self.columns},
            labels=drawn.labels,
            complete=drawn.complete,
            chance=drawn.chance,
            truth={**drawn.truth, **{f"read_{name}": values for name, values in read.items()}},
        )

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """A person's reading of the CT, with its errors and gaps: drawn with the patient, and not in the table."""
        found: dict[str, Float] = {}
        for column in COLUMNS:
            if column.source == "image":
                values = patients.truth[f"read_{column.name}"]
                if column.kind == "category":
                    found |= {
                        f"{column.name}_{value}": np.where(values == "", np.nan, values == value)
                        for value in column.values
                    }
                else:
                    found[column.name] = values
        return found
