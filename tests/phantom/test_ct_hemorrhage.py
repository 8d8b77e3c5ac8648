"""Hemorrhages of the CT phantom: places, signs, mass effect, growth, and that all of it is truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import label

from edgehem.errors import UsageError
from edgehem.phantom import AGES, SITES, SUBTYPES, Bleed, Protocol, make_case, make_pair
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.bleeds import Bled
from edgehem.phantom.files import describe
from edgehem.phantom.growth import expanded, grow
from edgehem.phantom.head import draw_head
from edgehem.phantom.hematoma import bleed as bleed_second
from edgehem.phantom.hematoma import place
from edgehem.phantom.places import DEEP
from edgehem.phantom.shapes import F32
from edgehem.phantom.spread import FAR, eikonal
from edgehem.phantom.tissue import Kind

VOXEL_MM = 2.5
CLEAN: dict[str, Any] = {"old_infarct": None, "infarct": None, "thrombosis": None, "surgery": None, "lacunes": 0}
TINY = Protocol(slices=12, matrix=64)
SITED = [(subtype, site) for subtype in SUBTYPES for site in SITES[subtype]]
SMALL_SITES = {"midbrain": 1.5, "medulla": 1.0, "third ventricle": 1.0, "fourth ventricle": 1.0}


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return synthesise(draw_head(11, **CLEAN), VOXEL_MM)


def put(anatomy: Anatomy, item: Bleed, seed: int = 3) -> Bled:
    return bleed_second(anatomy, [place(anatomy, item, seed, 0)])


def shares(anatomy: Anatomy, bled: Bled, subtype: str) -> F32:
    return np.asarray(bled.coverage[subtype].reshape(-1)[anatomy.tissue.index])


# Places


@pytest.mark.parametrize(("subtype", "site"), SITED)
def test_blood_lies_at_its_site_on_its_side_at_its_volume(subtype: str, site: str, anatomy: Anatomy) -> None:
    ml = SMALL_SITES.get(site, 6.0)
    bled = put(anatomy, Bleed(subtype=subtype, ml=ml, site=site, side=-1))
    truth, t = bled.hemorrhages[0], anatomy.tissue
    assert (truth["site"], truth["side"], truth["subtype"]) == (site, "right", subtype)
    assert truth["ml"] == pytest.approx(ml, rel=0.03)
    share = shares(anatomy, bled, subtype)
    x, y, z = (float((a * share).sum() / share.sum()) for a in (t.x, t.y, t.z))
    assert x < 3
    if site in DEEP:
        at, _ = DEEP[site]
        assert np.linalg.norm([x + at[0], y - at[1], z - at[2]]) < 13
    lobes = {"frontal": y < -15, "occipital": y > 35, "parietal": z > 15, "temporal": z < 10}
    for lobe, holds in lobes.items():
        if site.startswith(lobe):
            assert holds
    if subtype in {"epidural", "subdural"} and site not in {"falx", "tentorium"}:
        assert t.depth[share > 0.5].min() < VOXEL_MM


def test_none_leaves_a_choice_to_the_seed(anatomy: Anatomy) -> None:
    drawn = [place(anatomy, Bleed(subtype="intraparenchymal", ml=12, signs=None), seed, 0).bleed for seed in range(40)]
    assert len({item.site for item in drawn}) > 4 and {item.side for item in drawn} == {-1, 1}
    assert len({item.signs for item in drawn}) > 3
    again = place(anatomy, Bleed(subtype="intraparenchymal", ml=12, signs=None), 7, 0).bleed
    assert again == drawn[7]
    fixed = place(anatomy, Bleed(subtype="intraparenchymal", ml=12, hu=66.0, site="pons", side=1), 7, 0).bleed
    assert (fixed.hu, fixed.site, fixed.side, fixed.signs) == (66.0, "pons", 1, frozenset())


@pytest.mark.parametrize(
    "wrong",
    [
        {"site": "spleen"},
        {"site": "convexity"},
        {"side": 2},
        {"signs": frozenset({"halo"})},
        {"age": "ancient"},
        {"hu": 300.0},
        {"irregularity": 1.5},
        {"subtype": "subdural", "contusion": True},
    ],
)
def test_impossible_hemorrhages_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Bleed(**{"subtype": "intraparenchymal", "ml": 5.0, **wrong})


# Density


@pytest.mark.parametrize("age", AGES)
def test_density_follows_age(age: str, anatomy: Anatomy) -> None:
    bled = put(anatomy, Bleed(subtype="subdural", ml=40, site="parietal", side=1, age=age))
    mean = float(bled.hu[bled.coverage["subdural"] > 0.95].mean())
    low, high = {"chronic": (10, 34), "subacute": (30, 48), "acute on chronic": (34, 68)}.get(age, (44, 82))
    assert low < mean < high


def test_a_stated_density_and_mottle_are_drawn(anatomy: Anatomy) -> None:
    for mottle in (1.0, 9.0):
        item = Bleed(subtype="intraparenchymal", ml=30, site="putamen", side=1, hu=70.0, mottle_hu=mottle, mottle_mm=8)
        bled = put(anatomy, item)
        core = bled.hu[bled.coverage["intraparenchymal"] > 0.98]
        assert core.mean() == pytest.approx(69, abs=3)
        assert 0.6 * mottle < core.std() < mottle + 2


@pytest.mark.parametrize("sign", ["swirl", "black hole", "blend", "fluid level"])
def test_a_sign_makes_a_part_of_the_clot_paler(sign: str, anatomy: Anatomy) -> None:
    base: dict[str, Any] = {
        "subtype": "intraparenchymal", "ml": 40, "site": "putamen", "side": 1, "hu": 70.0, "mottle_hu": 1.0,
    }  # fmt: skip
    without = put(anatomy, Bleed(**base))
    bled = put(anatomy, Bleed(**base, signs=frozenset({sign})))
    clot = bled.coverage["intraparenchymal"] > 0.95
    paler = without.hu[clot] - bled.hu[clot] > 14
    assert 0.004 < paler.mean() < 0.8
    assert bled.hemorrhages[0]["signs"] == [sign] and without.hemorrhages[0]["signs"] == []
    if sign == "fluid level":
        # Supine: what is dense lies at the back (larger y).
        _, rows, _ = np.nonzero(clot)
        assert rows[paler].mean() < rows[~paler].mean() - 2


@pytest.mark.parametrize(("sign", "least"), [("satellite", 2), ("island", 3)])
def test_satellites_and_islands_are_pieces_of_their_own(sign: str, least: int, anatomy: Anatomy) -> None:
    pieces = []
    for seed in range(4):
        item = Bleed(
            subtype="intraparenchymal", ml=20, site="parietal lobe", side=1, irregularity=0.1, signs=frozenset({sign})
        )
        pieces.append(label(put(anatomy, item, seed).coverage["intraparenchymal"] > 0.3)[1])
    assert max(pieces) >= least


def test_irregular_clots_have_more_surface(anatomy: Anatomy) -> None:
    def surface(irregularity: float) -> float:
        total = 0.0
        for seed in range(3):
            item = Bleed(subtype="intraparenchymal", ml=25, site="putamen", side=1, irregularity=irregularity)
            clot = put(anatomy, item, seed).coverage["intraparenchymal"] > 0.5
            total += sum(float(np.diff(clot.astype(np.int8), axis=axis).astype(bool).sum()) for axis in range(3))
        return total

    assert surface(1.0) > 1.1 * surface(0.0)


def test_oedema_darkens_what_surrounds_the_clot(anatomy: Anatomy) -> None:
    base: dict[str, Any] = {"subtype": "intraparenchymal", "ml": 20, "site": "parietal lobe", "side": 1}
    narrow, wide = (put(anatomy, Bleed(**base, oedema_mm=width)) for width in (0.0, 8.0))
    darker = (narrow.hu - wide.hu) > 3
    assert darker.sum() * anatomy.voxel_ml > 4
    assert not (darker & (wide.coverage["intraparenchymal"] > 0.9)).any()


def test_a_thalamic_clot_breaks_into_the_ventricle(anatomy: Anatomy) -> None:
    bled = put(anatomy, Bleed(subtype="intraparenchymal", ml=25, site="thalamus", side=1))
    extension = bled.hemorrhages[0]["ventricular_extension_ml"]
    assert extension > 0.5 and bled.ml["intraventricular"] == pytest.approx(extension, rel=0.01)
    ventricle = anatomy.tissue.kind == Kind.VENTRICLE
    assert shares(anatomy, bled, "intraventricular")[~ventricle].sum() == 0


# Mass effect


@pytest.mark.parametrize("subtype", ["epidural", "intraparenchymal", "subdural"])
def test_the_midline_is_pushed_away_and_more_by_more(subtype: str, anatomy: Anatomy) -> None:
    site = {"intraparenchymal": "putamen"}.get(subtype, "temporal")
    shift = {
        (side, ml): put(anatomy, Bleed(subtype=subtype, ml=ml, site=site, side=side)).midline_shift_mm
        for side, ml in ((1, 15), (1, 60), (-1, 60))
    }
    assert shift[1, 60] < shift[1, 15] < 0 < shift[-1, 60]
    assert 1.5 < abs(shift[1, 60]) < 15


def test_fluid_spaces_give_way_and_the_skull_does_not() -> None:
    """The ventricle beside a clot gets smaller; nothing outside the skull changes."""
    head = synthesise(draw_head(11, **{**CLEAN, "ventricle_scale": 1.5}), VOXEL_MM)
    bled = put(head, Bleed(subtype="subdural", ml=80, site="parietal", side=1, age="acute"))
    t, before = head.tissue, head.hu.reshape(-1)
    after = bled.hu.reshape(-1)
    outside = np.ones(before.shape, bool)
    outside[t.index] = False
    np.testing.assert_array_equal(after[outside], before[outside])
    near = (t.x > 0) & (t.x < 32) & (np.abs(t.y) < 45) & (t.z > 0) & (t.z < 32)
    dark_before, dark_after = (float((a[t.index][near] < 20).sum()) for a in (before, after))
    assert dark_after < 0.9 * dark_before


# Growth


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_the_later_clot_holds_the_earlier_one(subtype: str, anatomy: Anatomy) -> None:
    early, late = grow(anatomy, (Bleed(subtype=subtype, ml=6),), (11.0,), 5)
    first, second = bleed_second(anatomy, early), bleed_second(anatomy, late)
    a, b = (shares(anatomy, bled, subtype) for bled in (first, second))
    assert (b >= a - 1e-4).all()
    assert first.ml[subtype] == pytest.approx(6, rel=0.02) and second.ml[subtype] == pytest.approx(11, rel=0.02)
    assert first.hemorrhages[0]["site"] == second.hemorrhages[0]["site"]


def test_a_pair_is_one_head_scanned_twice() -> None:
    first, second = make_pair(
        4, bleeds=(Bleed(subtype="intraparenchymal", ml=10),), ml_after=(20.0,), protocol=TINY, voxel_mm=4.0
    )
    assert first.head == second.head and first.seed == second.seed
    assert first.scan.seed != second.scan.seed and first.volume.pixels.shape == second.volume.pixels.shape
    assert expanded(first.ml["intraparenchymal"], second.ml["intraparenchymal"])


def test_what_an_expansion_is() -> None:
    assert expanded(10, 16) and expanded(9, 12.1) and not expanded(30, 35) and expanded(30, 36)


def test_hemorrhages_do_not_shrink(anatomy: Anatomy) -> None:
    with pytest.raises(UsageError, match="cannot grow"):
        grow(anatomy, (Bleed(subtype="subdural", ml=20),), (10.0,), 1)
    with pytest.raises(UsageError, match="later volumes"):
        grow(anatomy, (Bleed(subtype="subdural", ml=20),), (), 1)


def test_the_front_is_slow_where_it_has_to_be() -> None:
    """Straight through free space; around a wall, not through it."""
    slow = np.ones((3, 21, 21), np.float32)
    start = np.full(slow.shape, FAR, np.float32)
    start[1, 10, 2] = 0
    free = eikonal(slow, start)
    assert free[1, 10, 18] == pytest.approx(16, rel=0.02)
    assert free[1, 18, 10] == pytest.approx(np.hypot(8, 8), rel=0.12)
    slow[:, 4:, 10] = 1000
    walled = eikonal(slow, start)
    assert walled[1, 10, 18] > 1.15 * free[1, 10, 18]
    assert walled[1, 10, 18] < 40


# Truth


def test_truth_tells_everything_and_the_mask_agrees() -> None:
    bleeds = (
        Bleed(subtype="intraparenchymal", ml=20, site="frontal lobe", side=1, signs=frozenset({"blend"})),
        Bleed(subtype="subdural", ml=20, site="parietal", side=-1, age="subacute"),
    )
    fine = Protocol(slices=30, matrix=128)
    case = make_case(6, bleeds=bleeds, protocol=fine, voxel_mm=3.0, head={"infarct": None, "atrophy": 0.3})
    truth = describe(case)
    assert truth["generator"] == "edgehem phantom 2"
    named = {(h["subtype"], h["site"], h["side"], h["age"]) for h in truth["hemorrhages"]}
    assert named == {
        ("intraparenchymal", "frontal lobe", "left", "acute"), ("subdural", "parietal", "right", "subacute"),
    }  # fmt: skip
    assert truth["head"]["atrophy"] == 0.3 and truth["head"]["sex"] in "FM"
    assert truth["labels"]["subdural"] == truth["labels"]["intraparenchymal"] == truth["labels"]["any"] == 1
    assert set(np.unique(case.mask)) == {0, 2, 5}
    row_mm, column_mm = case.volume.pixel_spacing
    thick = np.asarray(case.scan.thickness_mm)[:, None, None]
    counted = float(((case.mask == 5) * thick).sum()) * row_mm * column_mm / 1000
    assert counted == pytest.approx(case.visible_ml["subdural"], rel=0.25)
