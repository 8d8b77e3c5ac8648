"""Heads of the CT phantom: what varies, what can be set, and what they are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.errors import UsageError
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.findings import Findings
from edgehem.phantom.head import Head, draw_head
from edgehem.phantom.materials import MATERIALS
from edgehem.phantom.people import SINUSES, SURGERIES, TERRITORIES, infarct_drop
from edgehem.phantom.shapes import F32
from edgehem.phantom.tissue import Kind

VOXEL_MM = 3.0
PLAIN: dict[str, Any] = {
    "pitch_deg": 0.0, "roll_deg": 0.0, "yaw_deg": 0.0, "old_infarct": None, "infarct": None, "infarct_drop_hu": 0.0,
    "thrombosis": None, "mca_hu": 0.0, "surgery": None, "lacunes": 0, "leukoaraiosis": 0.0,
}  # fmt: skip
"""A head without findings, straight in the scanner."""


def head(**changes: Any) -> Head:
    return draw_head(31, **{**PLAIN, **changes})


@pytest.fixture(scope="module")
def plain() -> Anatomy:
    return synthesise(head(), VOXEL_MM)


def inside(anatomy: Anatomy) -> F32:
    """HU of every point inside the skull, [N]."""
    return anatomy.hu.reshape(-1)[anatomy.tissue.index]


def volume(anatomy: Anatomy, kind: Kind) -> float:
    return float((anatomy.tissue.kind == kind).sum()) * anatomy.voxel_ml


# Drawing


def test_the_same_seed_gives_the_same_head() -> None:
    assert draw_head(8) == draw_head(8)
    assert draw_head(8) != draw_head(9)


def test_what_is_set_is_set_and_all_else_stays() -> None:
    drawn, changed = draw_head(8), draw_head(8, atrophy=0.9, thrombosis="straight", thrombosis_hu=80.0)
    assert changed == replace(drawn, atrophy=0.9, thrombosis="straight", thrombosis_hu=80.0)
    assert draw_head(8, atrophy=0.9) == replace(draw_head(8), atrophy=0.9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"atrofy": 0.5}, "atrofy"),
        ({"thrombosis": "jugular"}, "thrombosis"),
        ({"infarct": "left"}, "infarct"),
        ({"surgery": "transplant"}, "surgery"),
        ({"infarct_side": 0}, "infarct_side"),
        ({"infarct_extent": 1.5}, "infarct_extent"),
    ],
)
def test_impossible_heads_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        draw_head(1, **changes)


def test_people_vary_as_people_do() -> None:
    """Adults of all ages; atrophy follows age and varies within it; skulls are long and round; findings are few."""
    heads = [draw_head(seed) for seed in range(600)]
    ages, atrophy = (np.array([getattr(h, name) for h in heads]) for name in ("age_years", "atrophy"))
    assert ages.min() >= 18 and ages.max() <= 100 and np.ptp(ages) > 70
    assert 0.5 < np.corrcoef(ages, atrophy)[0, 1] < 0.95
    assert atrophy[(ages > 70) & (ages < 80)].std() > 0.08
    index = np.array([h.half_width / h.half_length for h in heads])
    assert index.min() < 0.73 and index.max() > 0.86 and 0.77 < index.mean() < 0.81
    assert 0.4 < np.mean([h.sex == "F" for h in heads]) < 0.6
    for name in ("infarct", "thrombosis", "surgery", "old_infarct"):
        assert 0.005 < np.mean([getattr(h, name) is not None for h in heads]) < 0.25


def test_an_infarct_darkens_with_time() -> None:
    drops = [infarct_drop(hours) for hours in (0, 1, 3, 8, 30, 72, 200)]
    assert drops[0] == 0 and drops == sorted(drops) and drops[-1] == drops[-2]


# Painting


def test_atrophy_takes_brain_and_widens_fluid() -> None:
    young = synthesise(head(atrophy=0.0, sulcus_mm=0.2, ventricle_scale=0.6), VOXEL_MM)
    old = synthesise(head(atrophy=0.9, sulcus_mm=2.8, ventricle_scale=1.8), VOXEL_MM)
    assert volume(old, Kind.VENTRICLE) > 2.5 * volume(young, Kind.VENTRICLE)
    assert volume(old, Kind.SUBARACHNOID) > 1.6 * volume(young, Kind.SUBARACHNOID)
    assert len(old.tissue.x) == pytest.approx(len(young.tissue.x), rel=1e-3)  # the skull is the same


def test_heads_are_as_large_as_adults(plain: Anatomy) -> None:
    """Intracranial volume in litres: textbooks say 1.2 to 1.7."""
    assert 1.15 < len(plain.tissue.x) * plain.voxel_ml / 1000 < 1.75


@pytest.mark.parametrize("name", TERRITORIES)
def test_an_acute_infarct_darkens_its_territory_and_nothing_on_the_other_side(name: str, plain: Anatomy) -> None:
    hurt = synthesise(head(infarct=name, infarct_side=-1, infarct_drop_hu=9.0, infarct_hours=2.0), VOXEL_MM)
    change = inside(hurt) - inside(plain)
    other = hurt.tissue.x > 6
    assert np.abs(change[other]).max() < 1
    lost = change < -4
    assert lost.sum() * hurt.voxel_ml > 1
    assert hurt.tissue.x[lost].max() < VOXEL_MM


def test_an_old_infarct_becomes_fluid_and_pulls_the_ventricle() -> None:
    findings = Findings(head(old_infarct="mca superior", old_infarct_side=1), np.random.default_rng(0))
    at = [np.array([value], np.float32) for value in (30.0, -20.0, 20.0)]
    wall = np.array([5.0], np.float32)
    assert findings.widened(wall, *at)[0] < 5 and findings.widened(wall, -at[0], at[1], at[2])[0] > 4.9
    hurt = synthesise(head(old_infarct="mca superior", old_infarct_side=1, old_infarct_extent=1.0), VOXEL_MM)
    t = hurt.tissue
    core = (np.abs(t.x - 46) < 10) & (np.abs(t.y + 26) < 14) & (np.abs(t.z - 24) < 12) & (t.kind != Kind.DURA)
    assert inside(hurt)[core].mean() < 20


@pytest.mark.parametrize("segment", SINUSES)
def test_a_thrombosed_sinus_is_dense_on_its_side(segment: str, plain: Anatomy) -> None:
    clotted = synthesise(head(thrombosis=segment, thrombosis_hu=85.0), VOXEL_MM)
    denser = inside(clotted) - inside(plain) > 8
    assert denser.sum() * clotted.voxel_ml > 0.15
    x = clotted.tissue.x[denser]
    if segment.endswith("left"):
        assert x.min() > -3
    if segment.endswith("right"):
        assert x.max() < 3


def test_a_dense_middle_cerebral_artery_lies_on_its_side(plain: Anatomy) -> None:
    dense = synthesise(head(mca_hu=85.0, mca_side=1), VOXEL_MM)
    changed = np.abs(inside(dense) - inside(plain)) > 5
    assert changed.any() and dense.tissue.x[changed].min() > 5


@pytest.mark.parametrize("kind", SURGERIES)
def test_surgery_changes_one_side_of_the_head(kind: str, plain: Anatomy) -> None:
    operated = synthesise(head(surgery=kind, surgery_side=-1), VOXEL_MM)
    _, _, columns = np.nonzero(np.abs(operated.hu - plain.hu) > 100)
    assert columns.size
    assert (operated.axes[2][columns].mean() - operated.head.offset[0]) < -5


def test_shape_moves_the_skull(plain: Anatomy) -> None:
    """Widths of the skull in its block follow the drawn half width."""
    wide = synthesise(head(half_width=plain.head.half_width * 1.1), VOXEL_MM)

    def width(anatomy: Anatomy) -> float:
        columns = (anatomy.hu > 300).any(axis=(0, 1))
        return float(np.ptp(anatomy.axes[2][columns]))

    assert width(wide) > 1.05 * width(plain)


# Materials


def test_materials_add_up_and_are_what_the_image_shows() -> None:
    made = synthesise(draw_head(5), 3.0, materials=True)
    shares = made.materials
    assert shares is not None and tuple(shares) == MATERIALS
    total = np.sum(list(shares.values()), axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-3)
    assert all(block.min() >= -1e-6 and block.max() <= 1 + 1e-6 for block in shares.values())

    def mean(name: str) -> float:
        found: npt.NDArray[np.bool_] = shares[name] > 0.9
        assert found.any(), name
        return float(made.hu[found].mean())

    assert mean("air") < -950 and mean("fat") < -60 and mean("bone") > 350
    assert mean("white") < mean("grey") and -5 < mean("csf") < 20


def test_asking_for_materials_changes_no_hounsfield_unit(plain: Anatomy) -> None:
    again = synthesise(head(), VOXEL_MM, materials=True)
    np.testing.assert_array_equal(again.hu, plain.hu)
    assert plain.materials is None


@pytest.mark.parametrize("name", ["pneumatisation", "frontal_sinus"])
def test_a_head_without_air_cells_has_a_whole_skull(name: str, plain: Anatomy) -> None:
    """Mastoid cells (-1.2: none) and frontal sinus (0) may be missing; bone takes their place, not air."""
    without = synthesise(head(**{name: {"pneumatisation": -1.2, "frontal_sinus": 0.0}[name]}), VOXEL_MM)
    if name == "pneumatisation":  # without a frontal sinus the forehead is flatter, and the air before it more
        assert (without.hu < -500).sum() <= (plain.hu < -500).sum()
    assert (without.hu > 250).sum() > 0.97 * (plain.hu > 250).sum()
