"""Hemorrhage after thrombectomy, and collaterals, from the CT before it (system 4): the cohort.

The publication (Zhang et al., Front Neurol 2025, doi 10.3389/fneur.2025.1617626) had 58 patients with both targets.
What is planted is ours (``docs/cohorts_stroke.md``).
"""

from __future__ import annotations

from math import erf, sqrt
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgehem.export.cohorts.core import (
    BLOCK,
    Cohort,
    Column,
    Float,
    Label,
    Part,
    Patients,
    Values,
    reader_noise,
    sigmoid,
    tidy,
)
from edgehem.export.cohorts.post_intervention_images import write_images
from edgehem.export.cohorts.post_intervention_people import PLACES, WAKE_UP, draw_people
from edgehem.export.cohorts.post_intervention_risk import (
    DELAY_SPREAD,
    LYSIS,
    PROTECTION,
    base_risk,
    flow_risk,
    hemorrhage_chance,
    lysis_chance,
    reperfusion_chance,
)
from edgehem.export.cohorts.post_intervention_tissue import (
    COLLATERALS,
    draw_tissue,
    expect,
    hidden,
    lost_regions,
    posterior,
)

GRADES = ("none", "HI1", "HI2", "PH1", "PH2")
"""ECASS grades of hemorrhagic infarction and parenchymal hematoma; the label merges the four."""
GRADE_SHARE = (0.34, 0.28, 0.20, 0.18)
"""Shares of the four among those who bleed, ours. Independent of the rest: the label does not tell them apart."""

READER = 43
"""Purpose of the reader's random numbers."""
REGION_SEEN = (2.8, 1.3, 0.04)
"""A reader sees half of the lost regions at this loss of density (HU); slope per HU; rate of false alarms. Ours."""
READING = {"hypodensity_hu": 1.2, "swelling": 0.15, "dense_artery_mm": 2.0, "leukoaraiosis": 0.45}
"""Standard deviation of a reader's error, ours."""
SHORT_MM = 4.0
"""A dense artery that reads shorter than this is not called one, ours."""


class PostIntervention(Cohort):
    """Patients with an occluded anterior circulation, at the CT before thrombectomy, at the published size."""

    name: ClassVar[str] = "post_intervention"
    version: ClassVar[str] = "1"
    what: ClassVar[str] = "acute stroke before thrombectomy: hemorrhage afterwards, and collaterals, from plain CT"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="age", kind="count", what="age", unit="a", low=25, high=98),
        Column(name="female", kind="binary", what="female sex"),
        Column(name="nihss", kind="count", what="NIH Stroke Scale at admission", low=0, high=42),
        Column(
            name="onset_to_ct_min",
            kind="count",
            what="from onset to this CT; empty where nobody saw the onset",
            unit="min",
            low=20,
            high=1440,
        ),
        Column(name="glucose", kind="real", what="blood glucose", unit="mmol/L", low=2.5, high=30, digits=1),
        Column(name="sbp", kind="count", what="systolic blood pressure", unit="mmHg", low=80, high=240),
        Column(name="atrial_fibrillation", kind="binary", what="known or seen atrial fibrillation"),
        Column(name="hypertension", kind="binary", what="known arterial hypertension"),
        Column(name="diabetes", kind="binary", what="known diabetes"),
        Column(name="anticoagulant", kind="binary", what="takes an anticoagulant"),
        Column(name="antiplatelet", kind="binary", what="takes an antiplatelet drug"),
        Column(name="prior_stroke", kind="binary", what="known earlier stroke"),
    )
    labels: ClassVar[tuple[Label, ...]] = (
        Label(name="post_intervention_hemorrhage", what="any hemorrhage (HI1 to PH2) on the scan after intervention"),
        Label(name="good_collaterals", what="good collaterals on angiography"),
    )
    train: ClassVar[int] = 40
    test: ClassVar[int] = 18
    paths: ClassVar[tuple[str, ...]] = ("ct",)
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            label="post_intervention_hemorrhage",
            truth="chance_afterwards",
            what="everything, and what comes after the CT: lysis, reperfusion, its time",
        ),
    )

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """Draw people, collaterals, tissue, and what became of it."""
        place = PLACES[int(shifted)]
        person, brain = draw_people(rng, place)
        expected = expect(person["age"], brain.leukoaraiosis, person["diabetes"], brain.occlusion)
        collaterals = expected + rng.standard_normal(BLOCK)
        tissue = draw_tissue(rng, collaterals, expected, person["onset_to_ct_min"], brain.occlusion, brain.left)
        belief = posterior(tissue, brain.left)
        wake_up = rng.random(BLOCK) < WAKE_UP
        lysis = lysis_chance(person, wake_up, place)
        base = base_risk(person, brain.leukoaraiosis, tissue.core_ml) + place.found
        by_lysis = [
            hemorrhage_chance(base + LYSIS * given, tissue, belief, place.to_reperfusion) for given in (0.0, 1.0)
        ]
        # What happens after the CT: the treatment, its success, the time it took, the outcome.
        lysed = (rng.random(BLOCK) < lysis).astype(np.float64)
        delay = np.round(place.to_reperfusion * np.exp(DELAY_SPREAD * rng.standard_normal(BLOCK)))
        reperfused = (rng.random(BLOCK) < reperfusion_chance(collaterals)).astype(np.float64)
        flow = reperfused * flow_risk(tissue.minutes, tissue.core_ml, delay)
        afterwards = sigmoid(base + LYSIS * lysed + PROTECTION * collaterals + flow)
        bled = (rng.random(BLOCK) < afterwards).astype(np.int64)
        grade = 1 + np.searchsorted(np.cumsum(GRADE_SHARE)[:-1], rng.random(BLOCK), "right")
        lost = lost_regions(rng, tissue)
        scanner = {
            "thickness_mm": rng.choice(place.thickness_mm, BLOCK),
            "kernel": rng.choice(place.kernels, BLOCK),
        }
        seen = dict(person)
        seen["nihss"] = tissue.nihss
        seen["onset_to_ct_min"] = np.where(wake_up, np.nan, person["onset_to_ct_min"])
        truth: dict[str, Values] = {
            "age_years": person["age"],
            "sex": np.where(person["female"] == 1, "F", "M"),
            "collaterals": collaterals,
            "lysed": lysed,
            "reperfused": reperfused,
            "ct_to_reperfusion_min": delay,
            "grade": np.array(GRADES)[np.where(bled == 1, grade, 0)],
            "aspects": (10 - lost.sum(axis=1)).astype(np.int64),
            "regions": lost,
            "left": brain.left,
            "leukoaraiosis": brain.leukoaraiosis,
            "old_infarcts": brain.old_infarcts,
            **scanner,
            **hidden(tissue),
            "chance_if_not_lysed": by_lysis[0],
            "chance_if_lysed": by_lysis[1],
            "chance_afterwards": afterwards,
        }
        return Patients(
            inputs=tidy(self.columns, seen),
            labels={"post_intervention_hemorrhage": bled, "good_collaterals": (collaterals > 0).astype(np.int64)},
            chance={
                "post_intervention_hemorrhage": by_lysis[0] + lysis * (by_lysis[1] - by_lysis[0]),
                "good_collaterals": np.clip(belief[:, COLLATERALS > 0].sum(axis=1), 0, 1),
            },
            truth=truth,
        )

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """What a simple reader sees in the plain CT: early cores are faint, and half of their regions are missed."""
        t = patients.truth
        error = reader_noise(patients, READER, 15)
        half, slope, alarm = REGION_SEEN
        sensitivity = sigmoid(slope * (t["tissue_drop_hu"] - half))[:, None]
        chance = np.where(t["regions"], sensitivity, alarm)
        even = 0.5 * (1 + np.vectorize(erf, otypes=[np.float64])(error[:, :10] / sqrt(2)))
        lost = (even < chance).sum(axis=1)
        length = t["tissue_dense_artery_mm"] + READING["dense_artery_mm"] * error[:, 10]
        dense = (t["tissue_dense_artery_mm"] > 0) & (length > SHORT_MM)
        drop = t["tissue_drop_hu"] + READING["hypodensity_hu"] * error[:, 11]
        read = {
            "ct_aspects": 10.0 - lost,
            "ct_hypodensity_hu": np.where(lost > 0, np.maximum(drop, 0), 0),
            "ct_swelling": np.clip(t["tissue_swelling"] + READING["swelling"] * error[:, 12], 0, 1),
            "ct_dense_artery_mm": np.where(dense, length, 0),
            "ct_leukoaraiosis": np.clip(np.rint(t["leukoaraiosis"] + READING["leukoaraiosis"] * error[:, 13]), 0, 3),
            "ct_old_infarcts": np.asarray(t["old_infarcts"], np.float64),
        }
        return {name: np.asarray(np.round(values, 3), np.float64) for name, values in read.items()}

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write the phantom CT with this core, this dense artery and this brain."""
        return write_images({name: values[row] for name, values in patients.truth.items()}, out, seed)


class PostInterventionLarge(PostIntervention):
    """The same patients in numbers that can tell two models apart; the size is ours."""

    name: ClassVar[str] = "post_intervention_large"
    train: ClassVar[int] = 1600
    test: ClassVar[int] = 800
