"""The head that MR sees is the head that CT sees: pushed as far, with the water of its oedema and its thrombi."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgehem.phantom import Bleed, Protocol, make_case
from edgehem.phantom.anatomy import synthesise
from edgehem.phantom.head import draw_head
from edgehem.phantom.mr_anatomy import Patient, bleeding_head, steps_of
from edgehem.phantom.mr_head import MrHead, see
from edgehem.phantom.mr_tissue import NAMES

VOXEL_MM = 3.0
TINY = Protocol(slices=12, matrix=64)
LARGE = (Bleed(subtype="intraparenchymal", ml=60, site="putamen", side=1),)


def seen(patient: Patient, stage: str = "acute") -> MrHead:
    ages = dict.fromkeys(patient.bled.coverage, stage)
    return see(patient, ages=ages, microbleeds=(), seed=1)


def amount(head: MrHead, name: str) -> float:
    """Volume of a substance, mL."""
    return (
        float(head.shares[NAMES.index(name)].sum(dtype=np.float64)) / 255 * float(np.prod(steps_of(head.axes))) / 1000
    )


@pytest.fixture(scope="module")
def pushed() -> Patient:
    return bleeding_head(9, LARGE, voxel_mm=VOXEL_MM)


def test_volumes_and_shift_are_those_of_ct() -> None:
    bleeds = (Bleed(subtype="subdural", ml=50), Bleed(subtype="subarachnoid", ml=6))
    patient = bleeding_head(12, bleeds, voxel_mm=VOXEL_MM)
    ct = make_case(12, bleeds=bleeds, voxel_mm=VOXEL_MM, protocol=TINY)
    assert patient.bled.ml == pytest.approx(ct.ml, rel=1e-5)
    assert patient.midline_shift_mm == pytest.approx(ct.midline_shift_mm, rel=1e-5)
    assert patient.midline_shift_mm != 0
    assert patient.anatomy.head == ct.head


def test_the_push_is_the_one_that_ct_was_moved_by(pushed: Patient) -> None:
    before = synthesise(draw_head(9), VOXEL_MM)
    away = (pushed.bled.coverage["intraparenchymal"] == 0) & (np.abs(pushed.wet_hu) < 0.4)
    inside = np.zeros(away.shape, bool)
    inside.reshape(-1)[before.tissue.index] = True
    assert (away & inside).sum() > 0.7 * inside.sum()  # what CT painted is where MR's tissue went
    unmoved = inside & (np.abs(before.hu - pushed.bled.hu) < 0.4)
    assert (away & inside).sum() > 1.1 * unmoved.sum()  # which it would not be, had MR left the tissue where it was
    assert bleeding_head(9, (Bleed(subtype="subarachnoid", ml=10),), voxel_mm=VOXEL_MM).bled.flow is None


def test_the_push_keeps_every_voxel_whole_and_moves_the_brain(pushed: Patient) -> None:
    total = np.sum(list(pushed.materials.values()), axis=0)
    assert np.allclose(total, 1, atol=1e-3)
    before = bleeding_head(9, (), voxel_mm=VOXEL_MM)
    assert before.midline_shift_mm == 0
    x0, x1 = before.anatomy.tissue.x, pushed.anatomy.tissue.x
    t = before.anatomy.tissue
    septum = (np.abs(t.x) < 2) & (t.y > -32) & (t.y < 0) & (t.z > 6) & (t.z < 20)
    # What has come to a place came from the clot's side, left: its own coordinate is larger.
    assert float((x1 - x0)[septum].mean()) == pytest.approx(-pushed.midline_shift_mm, abs=0.3)
    assert pushed.midline_shift_mm < -1


def test_oedema_lies_around_the_clot(pushed: Patient) -> None:
    head = seen(pushed)
    assert 2 < amount(head, "oedema") < 60
    assert amount(head, "oedema") > 5 * amount(seen(bleeding_head(9, (), voxel_mm=VOXEL_MM)), "oedema")


@pytest.mark.parametrize("stage", ["hyperacute", "acute", "early_subacute", "late_subacute", "chronic"])
def test_all_blood_turns_into_what_its_stage_is_made_of(pushed: Patient, stage: str) -> None:
    head = seen(pushed, stage)
    blood = sum(amount(head, name) for name in NAMES[NAMES.index("oxy") :])
    assert blood == pytest.approx(sum(pushed.bled.ml.values()), rel=0.03)
    sums = head.shares.sum(axis=0, dtype=np.int64)
    assert np.abs(sums - 255).max() <= 8


@pytest.mark.parametrize(
    ("change", "grows"),
    [
        ({"infarct": "mca", "infarct_extent": 0.8, "infarct_drop_hu": 7.0, "infarct_hours": 20.0}, "oedema"),
        ({"thrombosis": "superior sagittal", "thrombosis_hu": 76.0, "sinus_hu": 52.0}, "deoxy"),
        ({"mca_hu": 70.0, "mca_side": 1, "artery_hu": 42.0}, "deoxy"),
    ],
)  # fmt: skip
def test_infarcts_are_wet_and_thrombi_hold_no_oxygen(change: dict[str, Any], grows: str) -> None:
    quiet: dict[str, Any] = {"infarct": None, "thrombosis": None, "mca_hu": 0.0}
    without, with_it = (seen(bleeding_head(31, (), head={**quiet, **more}, voxel_mm=2.0)) for more in ({}, change))
    assert amount(without, grows) == 0
    assert amount(with_it, grows) > (20 if grows == "oedema" else 0.05)
