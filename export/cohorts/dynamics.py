"""Bleeding dynamics: patients with a spreading hemorrhage, their chart of the first hours and their admission note.

What is planted, with every equation and constant, is in ``docs/cohorts_dynamics.md``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import (
    BLOCK,
    UNKNOWN,
    Cohort,
    Column,
    Label,
    Nearer,
    Patients,
    lose,
    tidy,
)
from edgehem.export.cohorts.dynamics_admission import AGENTS, OTHER, USUAL, Admission, admit, draw_tosses
from edgehem.export.cohorts.dynamics_body import body, weights
from edgehem.export.cohorts.dynamics_chart import as_series, summaries
from edgehem.export.cohorts.dynamics_course import (
    CHANNELS,
    DOCTORS,
    STEPS_AN_HOUR,
    WINDOW_H,
    Course,
    Intervention,
    follow,
)
from edgehem.export.cohorts.dynamics_outcome import LABEL_H, LAST_H, conclude
from edgehem.export.cohorts.dynamics_signs import DENSITY_ERROR_HU, density_spread, mixed_chance
from edgehem.export.cohorts.dynamics_spread import Spread
from edgehem.export.cohorts.notes import Facts, write_note
from edgehem.export.cohorts.notes_concepts import read_notes
from edgehem.regions import load_regions

Float = npt.NDArray[np.float64]

READER_ERROR = 0.1
"""Log standard deviation of a region's volume as it was read. Ours."""
READ_ML = 0.1
"""Less blood in a region is overlooked. Ours."""
NO_REPEAT_CT, NO_FOLLOW_UP = 0.05, 0.06
"""Shares of patients without the labels of 24 h and of 90 days, lost at random. Ours."""
CAUSES = (
    "found_down", "seizure", "alcohol", "vomiting", "premorbid", "dose_h", "onset_h", "antiplatelet", "agent", "hold",
    "frailty", "fragile", "origin", "style",
)  # fmt: skip
"""What is kept of the admission as truth; much of it is in the note."""


def region_column(name: str) -> str:
    """The column with the blood that was read in a region."""
    return f"blood_{name}_ml"


class Dynamics(Cohort):
    """Who will bleed on, into the ventricles, and fare poorly: seen at the end of the third hour after admission."""

    name = "dynamics"
    version = "1"
    what = "Bleeding dynamics over 48 h, seen through the chart of the first three hours, the admission CT and a note"
    columns = (
        Column(name="age", kind="count", what="Age", unit="years", low=18, high=100),
        Column(name="male", kind="binary", what="Male sex"),
        Column(name="hypertension", kind="binary", what="Known hypertension"),
        Column(name="diabetes", kind="binary", what="Known diabetes"),
        Column(name="antiplatelet", kind="binary", what="Takes an antiplatelet drug"),
        Column(
            name="anticoagulant", kind="category", what="Anticoagulant; the time of its last dose is in the note",
            values=AGENTS,
        ),
        Column(name="inr", kind="real", what="International normalised ratio", low=0.8, high=8),
        Column(name="platelets", kind="count", what="Platelets", unit="10^9/L", low=10, high=900),
        Column(name="glucose", kind="real", what="Blood glucose", unit="mmol/L", low=2, high=40),
        Column(name="onset_to_ct_h", kind="real", what="Onset to admission CT, if known", unit="h", low=0, high=48),
        Column(name="arrival_hour", kind="count", what="Hour of the day at admission", unit="h", low=0, high=23),
        Column(name="mixed_density", kind="binary", what="Swirl or black-hole sign", source="image"),
        Column(
            name="density_sd_hu", kind="real", what="Standard deviation of density within the hemorrhage", unit="HU",
            low=1, high=40, source="image",
        ),
        Column(name="oedema_ml", kind="real", what="Oedema", unit="mL", low=0, high=300, source="image"),
        *(
            Column(
                name=region_column(name), kind="real", what=f"Blood in: {name.replace('_', ' ')}", unit="mL", low=0,
                high=300, source="image",
            )
            for name in load_regions().names
        ),
    )  # fmt: skip
    labels = (
        Label(name="expansion", what="Blood in the tissue grows by 6 mL or by 33 % within 24 h"),
        Label(
            name="ventricular_extension", what="Blood in the ventricles, none or some before, grows by 1 mL within 24 h"
        ),
        Label(name="poor_outcome_90d", what="Modified Rankin scale of 4 to 6 at 90 days"),
    )
    train = 1000
    test = 400
    paths = ("series", "text")

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """Draw :data:`BLOCK` patients."""
        return draw_block(rng, shifted)

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write the chart (JSON) and the note (UTF-8). Their noise came with the patient: `seed` changes nothing."""
        chart = {name: patients.truth[f"chart_{name}"][row] for name in CHANNELS}
        series = json.dumps(as_series(chart), allow_nan=False)
        (out / "series.json").write_text(series + "\n", encoding="utf-8", newline="\n")
        (out / "note.txt").write_text(note(patients, row), encoding="utf-8", newline="\n")
        return {"series": "series.json", "text": "note.txt"}

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """Summaries of the chart, and concepts counted in the note."""
        chart = {name: patients.truth[f"chart_{name}"] for name in CHANNELS}
        return summaries(chart) | read_notes(note(patients, row) for row in range(len(patients)))

    def nearer(self, count: int, *, seed: int = 0, shifted: bool = False) -> list[Nearer]:
        """Chances of who reads the CT and the chart as well as can be; see :mod:`.dynamics_filter`."""
        from edgehem.export.cohorts import dynamics_filter

        return dynamics_filter.nearer(count, seed=seed, shifted=shifted)


def draw_block(rng: np.random.Generator, shifted: bool, done: Intervention = DOCTORS) -> Patients:
    """Draw :data:`BLOCK` patients; with an intervention, the same patients and tosses in another world.

    Parameters
    ----------
    rng : numpy.random.Generator
    shifted : bool
        At the other hospital.
    done : Intervention
    """
    place = OTHER if shifted else USUAL
    people = admit(rng, BLOCK, place)
    tosses = draw_tosses(rng, BLOCK)
    reading = rng.standard_normal((BLOCK, len(load_regions()) + 2))
    signs = rng.random((BLOCK, 4))
    seeds = rng.integers(2**31, size=BLOCK)
    spread = Spread.of(people.blood)
    course = follow(people, place, tosses, spread, done)
    ended = conclude(people, spread, course, tosses.person["outcome"])
    missed = {"poor_outcome_90d": signs[:, 3] < NO_FOLLOW_UP}
    labels = {
        name: np.where(missed.get(name, signs[:, 2] < NO_REPEAT_CT), UNKNOWN, values)
        for name, values in ended.labels.items()
    }
    inputs = _inputs(people, spread, reading, signs, rng)
    truth = _truth(people, spread, course) | {"note_seed": seeds, "expansion_untorn": ended.untorn}
    return Patients(inputs=inputs, labels=labels, chance=ended.chance, truth=truth, complete=ended.labels)


def _inputs(
    people: Admission, spread: Spread, reading: Float, signs: Float, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    read = people.blood * np.exp(READER_ERROR * reading[:, :-2])
    read = np.where(read < READ_ML, 0.0, read)
    start = body(people, spread.summed(weights()).at(np.zeros(len(people))), 0.0)
    vessels = np.log(people.frailty)
    mixed = np.where(signs[:, 0] < mixed_chance(vessels), 1.0, 0.0)
    values: dict[str, npt.NDArray[Any]] = {
        "age": people.age,
        "male": people.male,
        "hypertension": people.hypertension,
        "diabetes": people.diabetes,
        "antiplatelet": people.antiplatelet,
        "anticoagulant": np.asarray(AGENTS)[people.agent],
        "inr": people.inr,
        "platelets": people.platelets,
        "glucose": people.glucose,
        "onset_to_ct_h": np.where(people.found_down, np.nan, people.onset_h),
        "arrival_hour": np.floor(people.clock_h),
        # Thick slices show no texture.
        "mixed_density": np.where(signs[:, 1] < 0.08, np.nan, mixed),
        "density_sd_hu": density_spread(vessels) + DENSITY_ERROR_HU * reading[:, -2],
        "oedema_ml": start.oedema * np.exp(0.25 * reading[:, -1]),
    }
    values |= {region_column(name): read[:, place] for place, name in enumerate(load_regions().names)}
    inputs = tidy(Dynamics.columns, values)
    for name, share in (("inr", 0.06), ("platelets", 0.04), ("glucose", 0.08), ("anticoagulant", 0.05)):
        inputs[name] = lose(rng, inputs[name], share)
    return inputs


def _truth(people: Admission, spread: Spread, course: Course) -> dict[str, npt.NDArray[Any]]:
    """What is hidden, and what files are made from.

    Hourly, 0 to 48 h, float32 [N, 49]: hidden state, sedation, drive, and the coma scale with and without what disturbs
    it. ``blood_at_...`` [N, R] mL. ``chart_<channel>`` [N, 19]. Causes and orders [N], infinite where none was given.
    """
    hourly: dict[str, npt.NDArray[Any]] = {
        "tissue_ml": course.body.tissue, "ventricles_ml": course.body.ventricles, "oedema_ml": course.body.oedema,
        "icp_mmhg": course.body.icp, "severity": course.body.severity, "gcs_charted": course.gcs,
        "gcs_undisturbed": course.gcs_undisturbed, "sedation": course.sedation,
        "drive": course.growth.drive[:, ::STEPS_AN_HOUR],
    }  # fmt: skip
    blood = {
        "blood_at_admission": people.blood,
        "blood_at_window": spread.at(course.growth[WINDOW_H][2]),
        "blood_at_24h": spread.at(course.growth[LABEL_H][2]),
        "blood_at_48h": spread.at(course.growth[LAST_H][2]),
    }
    single = {name: np.asarray(getattr(people, name)) for name in CAUSES}
    orders = {"treated_h": course.treated_h, "reversed_h": course.reversed_h, "sedated_h": course.sedated_h}
    hourly = {name: values.astype(np.float32) for name, values in hourly.items()}
    return hourly | blood | single | orders | {f"chart_{name}": values for name, values in course.chart.items()}


def note(patients: Patients, row: int) -> str:
    """A patient's admission note."""
    truth, inputs = patients.truth, patients.inputs
    region = load_regions().names[int(truth["origin"][row])]
    facts = Facts(
        age=int(inputs["age"][row]), male=bool(inputs["male"][row]), onset_h=float(truth["onset_h"][row]),
        found_down=bool(truth["found_down"][row]), seizure=bool(truth["seizure"][row]),
        alcohol=bool(truth["alcohol"][row]), vomiting=bool(truth["vomiting"][row]),
        hypertension=bool(inputs["hypertension"][row]), diabetes=bool(inputs["diabetes"][row]),
        antiplatelet=bool(truth["antiplatelet"][row]), agent=AGENTS[int(truth["agent"][row])],
        dose_h=float(truth["dose_h"][row]), premorbid=int(truth["premorbid"][row]), where=region.replace("_", " "),
        ivh_ml=float(inputs[region_column("ventricles")][row]), swirl=inputs["mixed_density"][row] == 1,
        sbp=float(truth["chart_sbp"][row, 0]), gcs=float(truth["chart_gcs"][row, 0]),
    )  # fmt: skip
    return write_note(facts, int(truth["style"][row]), int(truth["note_seed"][row]))
