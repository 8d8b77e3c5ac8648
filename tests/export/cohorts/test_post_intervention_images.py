"""Phantoms of the post-intervention cohort: what is planted is asked for, is written, and shows."""

from __future__ import annotations

import numpy as np
import pytest

import edgehem
from edgehem.export.cohorts.core import Variant
from edgehem.export.cohorts.post_intervention import PostIntervention
from edgehem.export.cohorts.post_intervention_images import head_fields, stroke_study
from edgehem.phantom.head import draw_head


def _truth(patients, row):
    return {name: values[row] for name, values in patients.truth.items()}


@pytest.mark.parametrize("variant", [Variant.PLANTED, Variant.SHIFTED])
def test_every_patient_can_be_painted(variant):
    patients = PostIntervention().draw(400, seed=2, variant=variant)
    for row in range(len(patients)):
        truth, seed = _truth(patients, row), int(patients.seeds[row])
        head = draw_head(seed, **head_fields(truth, seed))
        assert head.age_years == truth["age_years"]
        assert head.infarct_side == head.mca_side == (1 if truth["left"] == 1 else -1)
        assert (head.mca_hu > 0) == (truth["tissue_dense_artery_mm"] > 0)
        assert head.infarct.startswith("mca")
        assert (head.infarct == "mca") == (truth["tissue_occlusion"] != "m2")
        assert (head.thrombosis, head.surgery) == (None, None)
        assert (head.old_infarct is not None) == (truth["old_infarcts"] == 2)


def test_a_longer_clot_a_larger_core_and_more_swelling_are_asked_for():
    patients = PostIntervention().draw(1, seed=2)
    base = _truth(patients, 0)

    def ask(**changes):
        return head_fields({**base, **changes}, 3)

    assert ask(tissue_dense_artery_mm=15.0)["mca_hu"] > ask(tissue_dense_artery_mm=5.0)["mca_hu"] > 50
    assert ask(tissue_core_ml=90.0)["infarct_extent"] > ask(tissue_core_ml=20.0)["infarct_extent"]
    assert ask(tissue_swelling=0.8)["infarct_hours"] > ask(tissue_swelling=0.2)["infarct_hours"]
    assert ask(tissue_drop_hu=8.0)["infarct_drop_hu"] == 8
    assert ask(leukoaraiosis=3.0)["leukoaraiosis"] > ask(leukoaraiosis=0.0)["leukoaraiosis"]


@pytest.mark.slow
def test_the_core_is_dark_on_its_side():
    patients = PostIntervention().draw(1, seed=2)
    base = {**_truth(patients, 0), "tissue_occlusion": "m1", "left": 1.0, "tissue_swelling": 0.1}
    base |= {"tissue_core_ml": 110.0, "tissue_territory_ml": 190.0}
    faint, plain = (stroke_study({**base, "tissue_drop_hu": drop}, 6, matrix=128, voxel_mm=2.0) for drop in (0.5, 8.0))
    lost = faint.volume.pixels.astype(np.float64) - plain.volume.pixels
    brain = (plain.volume.pixels + plain.volume.intercept[:, None, None] > 0) & (np.abs(lost) < 40)
    x = plain.volume.origin[0, 0] + np.arange(128) * plain.volume.pixel_spacing[1]
    left, right = (brain & side for side in (x > 25, x < -25))
    core = lost[left] > 4
    # A scan's noise is the same, so that the difference is the core.
    assert core.sum() * plain.volume.pixel_spacing[0] ** 2 * base["thickness_mm"] / 1000 > 30
    assert lost[left][core].mean() == pytest.approx(7, abs=2.5)
    assert (lost[right] > 4).mean() < 0.01


@pytest.mark.slow
def test_files_are_a_study(tmp_path):
    cohort = PostIntervention()
    patients = cohort.draw(2, seed=4)
    written = cohort.write_files(patients, 0, tmp_path, int(patients.seeds[0]))
    assert written == {"ct": "ct"}
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]
    assert edgehem.read_study(tmp_path / "ct") is not None
