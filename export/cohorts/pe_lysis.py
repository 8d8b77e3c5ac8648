"""Thrombolysis for pulmonary embolism: who bleeds, who dies. The second half of system 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgehem.export.cohorts.core import BLOCK, UNKNOWN, Cohort, Float, Label, Patients, Values, sigmoid, toss
from edgehem.export.cohorts.pe_columns import COLUMNS
from edgehem.export.cohorts.pe_patients import draw_patients
from edgehem.export.cohorts.pe_recordings import ecg_truth, recording_features, write_recording
from edgehem.export.cohorts.pe_strain import GRID

LOST = 0.02
"""Part of the patients whose outcome nobody knows. Ours."""
DEATH_BASE, BLEEDING_BASE = -8.0, -3.15
"""Log odds of somebody without anything: set so that about 9 % die and 11 % bleed. Ours."""
FATAL = 1.6
"""Added to the log odds of death by a bleeding. Ours."""


def bleeding_logit(v: Mapping[str, Values]) -> Float:
    """Log odds of major bleeding, float64 [N]; ours.

    The interaction is the full dose in those who are old *and* light; platelets, creatinine and pressure matter beyond
    a bend only.
    """
    full = v["lysis_dose"] == "full"
    older, lighter = np.maximum(v["age"] - 62, 0) / 10, np.maximum(75 - v["weight"], 0) / 10
    out = (
        BLEEDING_BASE
        + 0.10 * (v["age"] - 62) / 10
        + 0.25 * full
        + 0.45 * full * older * lighter
        + 1.2 * v["recent_major_bleeding"]
        + 0.6 * v["recent_surgery"]
        + 0.5 * v["prior_stroke"]
        + 0.3 * v["cancer"]
        + 0.35 * v["antiplatelet"]
        + 0.3 * (v["anticoagulant"] == "doac")
        + 0.7 * np.maximum(v["inr"] - 1.5, 0)
        + 2.0 * np.maximum(np.log(160 / v["platelets"]), 0)
        + 1.3 * np.maximum(np.log(v["creatinine"] / 105), 0)
        + 0.25 * np.maximum(12 - v["hemoglobin"], 0)
        + 0.02 * np.maximum(v["sbp"] - 150, 0)
    )
    return np.asarray(out, np.float64)


def death_logit(v: Mapping[str, Values], strain: Float) -> Float:
    """Log odds of death within 30 days without a bleeding, for arguments that broadcast; ours.

    Lactate matters more the lower the pressure is, and strain more where lactate is high: the ECG and the record each
    tell half.
    """
    lactate = np.log(v["lactate"] / 1.5)
    low = np.clip((115 - v["sbp"]) / 25, 0, 2)
    out = (
        DEATH_BASE
        + 0.28 * (v["age"] - 62) / 10
        + 0.7 * v["cancer"]
        + 0.5 * v["heart_failure"]
        + 0.3 * v["chronic_lung_disease"]
        + 0.9 * v["altered_mentation"]
        + 0.07 * np.maximum(91 - v["spo2"], 0)
        + 0.6 * lactate
        + 0.8 * np.maximum(lactate, 0) * low
        + 1.0 * np.maximum(np.log(v["creatinine"] / 110), 0)
        + 7.0 * strain
        + 1.0 * strain * np.maximum(lactate, 0)
    )
    return np.asarray(out, np.float64)


class PeLysis(Cohort):
    """Patients with embolism at the decision for thrombolysis, each with a record and a 12-lead ECG.

    Bleeding and death are two labels, and somebody who bled and died has both; in the one label of three classes death
    comes before bleeding.
    """

    name = "pe_lysis"
    version = "1"
    what = "Pulmonary embolism before thrombolysis: record and 12-lead ECG to bleeding and death."
    columns = COLUMNS
    labels = (
        Label(name="death", what="Death within 30 days, bleeding or not."),
        Label(name="bleeding", what="Major bleeding, death or not."),
        Label(name="outcome", what="0 neither, 1 bleeding, 2 death (with bleeding or without).", classes=3),
    )
    train, test = 1600, 400
    """Ours: the students' numbers of patients are not known. Their split was 8:2."""
    examined = 4000
    paths = ("ecg",)

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """Draw patients, their bleeding, then their death; chances are summed over what strain may be."""
        drawn = draw_patients(rng, BLOCK, shifted)
        column = {name: values[:, None] for name, values in drawn.true.items() if values.dtype.kind == "f"}
        bleeding_chance = sigmoid(bleeding_logit(drawn.true))
        bleeding = toss(rng, bleeding_chance)
        tossed = sigmoid(death_logit(drawn.true, drawn.strain) + FATAL * bleeding)
        death = toss(rng, tossed)
        logit = death_logit(column, GRID[None, :])  # [N, 41]
        with_bleeding, without = (np.sum(drawn.posterior * sigmoid(logit + shift), axis=1) for shift in (FATAL, 0.0))
        death_chance = bleeding_chance * with_bleeding + (1 - bleeding_chance) * without
        bled_only = bleeding_chance * (1 - with_bleeding)
        outcome_chance = np.clip(np.stack([1 - death_chance - bled_only, bled_only, death_chance], axis=1), 0, 1)
        lost = rng.random(BLOCK) < LOST
        labels = {"death": death, "bleeding": bleeding, "outcome": np.where(death == 1, 2, bleeding)}
        return Patients(
            inputs=drawn.recorded,
            labels={name: np.where(lost, UNKNOWN, values) for name, values in labels.items()},
            complete=labels,
            chance={"death": death_chance, "bleeding": bleeding_chance, "outcome": outcome_chance},
            truth={
                "strain": drawn.strain,
                "true_lactate": drawn.true["lactate"],
                "true_sbp": drawn.true["sbp"],
                "true_weight": drawn.true["weight"],
                **ecg_truth(drawn.signs, drawn.rate, drawn.true["age"], drawn.true["male"], shifted),
            },
        )

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write the ECG."""
        return write_recording(patients, row, out, seed)

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """What a simple reader finds in the ECGs."""
        return recording_features(patients)
