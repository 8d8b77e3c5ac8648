"""Phantoms of the CVT cohort: what is planted is asked for, is written, and can be measured in the image."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

import edgehem
from edgehem.export.cohorts.core import Variant
from edgehem.export.cohorts.cvt import Cvt
from edgehem.export.cohorts.cvt_images import head_fields, hematoma_mask, hematoma_study, hemorrhages, side_of
from edgehem.export.cohorts.cvt_radiomics import measure
from edgehem.export.cohorts.discrimination import concordance
from edgehem.phantom.head import draw_head

MATRIX, VOXEL_MM = 128, 2.0
"""Small enough for a test: 2 mm pixels."""


def _truth(patients, row):
    return {name: values[row] for name, values in patients.truth.items()}


@pytest.mark.parametrize("variant", [Variant.PLANTED, Variant.SHIFTED])
def test_every_patient_can_be_painted(variant):
    """Sites, ranges and fields are the phantom's: it refuses what it does not know."""
    patients = Cvt().draw(400, seed=2, variant=variant)
    for row in range(len(patients)):
        truth, seed = _truth(patients, row), int(patients.seeds[row])
        bleeds, fields = hemorrhages(truth, seed), head_fields(truth, seed)
        first = bleeds[0]
        assert (first.hu, first.mottle_hu) == (truth["hematoma_hu"], truth["mottle_hu"])
        assert first.side == side_of(truth)
        assert first.site.split()[0] == truth["site"]
        assert first.ml <= truth["volume_ml"]
        kinds = [bleed.subtype for bleed in bleeds]
        assert kinds.count("intraparenchymal") == truth["hematomas"]
        assert kinds.count("intraventricular") == truth["ventricular_blood"]
        assert kinds.count("subarachnoid") == truth["convexity_blood"]
        assert all(bleed.ml <= max(first.ml, 1) for bleed in bleeds if bleed.subtype == "intraparenchymal")
        head = draw_head(seed, **fields)
        assert head.age_years == truth["age_years"]
        assert (head.thrombosis is None) == (truth["dense_sinus"] in ("none", "all"))
        assert (head.sinus_hu > 60) == (truth["dense_sinus"] == "all")
        assert (head.infarct, head.surgery, head.mca_hu) == (None, None, 0)


def test_a_thrombosed_transverse_sinus_is_on_the_side_of_the_hematoma():
    patients = Cvt().draw(2000, seed=2)
    rows = np.flatnonzero(patients.truth["dense_sinus"] == "transverse")
    assert len(rows) > 20
    for row in rows:
        truth = _truth(patients, row)
        name = head_fields(truth, 5)["thrombosis"]
        assert name == f"transverse {'left' if side_of(truth) > 0 else 'right'}"


def test_the_mask_is_the_hematoma_alone():
    patients = Cvt().draw(400, seed=2)
    with_blood = (patients.truth["ventricular_blood"] == 1) & (patients.truth["volume_ml"] < 60)
    row = int(np.flatnonzero(with_blood & (patients.truth["site"] == "putamen"))[0])
    truth = _truth(patients, row)
    case = hematoma_study(truth, int(patients.seeds[row]), matrix=MATRIX, voxel_mm=VOXEL_MM)
    mask = hematoma_mask(case)
    assert set(np.unique(mask).tolist()) == {0, 1}
    assert 0 < mask.sum() < (case.mask > 0).sum()
    found = measure(case.volume, mask)
    assert found["volume_ml"] == pytest.approx(truth["volume_ml"], rel=0.15, abs=0.5)
    assert found["mean_hu"] == pytest.approx(truth["hematoma_hu"], abs=6)
    # LPS: x grows to the patient's left.
    columns = np.nonzero(mask)[2]
    x = case.volume.origin[0, 0] + columns.mean() * case.volume.pixel_spacing[1]
    assert np.sign(x) == side_of(truth)


@pytest.mark.slow
def test_files_are_a_study_and_its_mask(tmp_path):
    cohort = Cvt()
    patients = cohort.draw(3, seed=4)
    row = 1
    written = cohort.write_files(patients, row, tmp_path, int(patients.seeds[row]))
    assert set(written) == set(cohort.paths)
    assert {path.name for path in tmp_path.iterdir()} == set(written.values())
    study = edgehem.read_study(tmp_path / written["ct"])
    files = list((tmp_path / written["ct"]).iterdir())
    with gzip.open(tmp_path / written["mask"]) as file:
        held = np.frombuffer(file.read()[352:], np.uint8)
    assert set(np.unique(held).tolist()) == {0, 1}
    assert held.size == len(files) * 512 * 512
    assert study is not None


@pytest.mark.slow
def test_the_planted_texture_is_in_the_image():
    """60 small studies, half of them thromboses: texture is measured, and tells them apart as far as it may."""
    patients = Cvt().draw(400, seed=11)
    labels = patients.labels["cvt"]
    rows = np.concatenate([np.flatnonzero(labels == value)[:30] for value in (0, 1)])
    found = []
    for row in rows.tolist():
        case = hematoma_study(_truth(patients, row), int(patients.seeds[row]), matrix=MATRIX, voxel_mm=VOXEL_MM)
        found.append(measure(case.volume, hematoma_mask(case)))
    read = {name: np.array([one[name] for one in found]) for name in found[0]}
    t, sick = {name: values[rows] for name, values in patients.truth.items()}, labels[rows]
    # The middle 80 % of a clot's values: its rim, and bone beside it, are no texture.
    mottle = (read["p90_hu"] - read["p10_hu"]) / 2.563

    def correlation(x, y):
        return float(np.corrcoef(x, y)[0, 1])

    def standard(values):
        return (values - values.mean()) / values.std()

    assert correlation(mottle, t["mottle_hu"]) > 0.65
    assert correlation(read["p50_hu"], t["hematoma_hu"]) > 0.9
    single = t["hematomas"] == 1
    assert correlation(np.log(read["volume_ml"][single]), np.log(t["volume_ml"][single])) > 0.9
    # Signs are known before, so that nothing is fitted: mottled, less dense, near the skull, ragged.
    score = standard(mottle) - standard(read["p50_hu"]) - standard(read["depth_mm"]) + standard(read["compactness"])
    assert 0.6 < concordance(sick, score) < concordance(sick, t["chance_image"])
