"""MR studies: the same head and hemorrhages as CT, with contrast by the age of blood."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from edgehem.errors import UsageError
from edgehem.phantom import SUBTYPES, Bleed, make_case
from edgehem.phantom.anatomy import synthesise
from edgehem.phantom.head import draw_head
from edgehem.phantom.mr import MrCase, MrSeries, make_mr
from edgehem.phantom.mr_iron import deep_iron, draw_microbleeds, microbleed_chance
from edgehem.phantom.mr_protocol import PEAKS, TWELVE_BITS, draw_peak
from edgehem.phantom.mr_signal import DEFAULT_KINDS
from edgehem.phantom.mr_tissue import STAGES

VOXEL_MM = 2.0
MATRIX = 128
SEED = 3
CLOT = (Bleed(subtype="intraparenchymal", ml=30),)


@pytest.fixture(scope="module")
def of_stage() -> Callable[[str], MrCase]:
    """One head with one clot of any stage at 1.5 T; each is made once."""
    made: dict[str, MrCase] = {}

    def get(stage: str) -> MrCase:
        if stage not in made:
            made[stage] = make_mr(
                SEED,
                bleeds=CLOT,
                age=stage,
                kinds=(*DEFAULT_KINDS, "t2", "swi_minip"),
                field_t=1.5,
                voxel_mm=VOXEL_MM,
                matrix=MATRIX,
                microbleeds=3,
            )
        return made[stage]

    return get


def digest(series: MrSeries) -> str:
    parts = (series.volume.pixels, series.volume.origin, series.volume.column_cosines, series.mask)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def clot_over_brain(series: MrSeries, part: str = "core") -> float:
    """Median of a clot's core, or of its rim, over that of the tissue around it."""
    ratios = []

    def by(mm: float) -> int:
        return round(mm / series.scan.pixel_mm)

    for image, mask in zip(series.volume.pixels, series.mask > 0, strict=True):
        if mask.sum() * series.scan.pixel_mm**2 < 250:
            continue
        inside = binary_dilation(~mask, iterations=by(4))
        core, rim = ~inside, mask & inside
        around = binary_dilation(mask, iterations=by(18)) & ~binary_dilation(mask, iterations=by(11))
        ratios.append(float(np.median(image[core if part == "core" else rim])) / float(np.median(image[around])))
    return float(np.median(ratios))


def test_the_same_seed_gives_the_same_bytes_whatever_else_is_made(of_stage: Callable[[str], MrCase]) -> None:
    case = of_stage("acute")
    alone = make_mr(
        SEED, bleeds=CLOT, age="acute", kinds=("flair",), field_t=1.5, voxel_mm=VOXEL_MM, matrix=MATRIX, microbleeds=3
    )
    assert tuple(alone.series) == ("flair",)
    assert digest(alone.series["flair"]) == digest(case.series["flair"])
    assert alone.ml == case.ml
    assert alone.microbleeds == case.microbleeds


def test_series_differ_from_each_other_and_between_seeds(of_stage: Callable[[str], MrCase]) -> None:
    digests = {digest(series) for series in of_stage("acute").series.values()}
    other = make_mr(SEED + 1, kinds=("t1",), field_t=1.5, voxel_mm=4.0, matrix=64)
    assert len(digests | {digest(other.series["t1"])}) == 7


@pytest.mark.parametrize(
    ("stage", "kind", "low", "high"),
    [
        ("hyperacute", "t1", 0.7, 1.05),
        ("hyperacute", "t2", 1.25, 9),
        ("hyperacute", "flair", 1.1, 9),
        ("acute", "t1", 0.6, 1.0),
        ("acute", "t2", 0, 0.65),
        ("acute", "flair", 0, 0.7),
        ("acute", "t2star", 0, 0.8),
        ("acute", "swi", 0, 0.6),
        ("early_subacute", "t2", 0, 0.75),
        ("late_subacute", "t1", 1.4, 9),
        ("late_subacute", "t2", 1.25, 9),
        ("late_subacute", "flair", 1.25, 9),
        ("chronic", "t1", 0, 0.85),
        ("chronic", "t2", 1.25, 9),
    ],
)
def test_a_clot_is_lighter_or_darker_than_brain_by_its_age(
    of_stage: Callable[[str], MrCase], stage: str, kind: str, low: float, high: float
) -> None:
    assert low < clot_over_brain(of_stage(stage).series[kind]) < high


def test_methaemoglobin_begins_at_the_rim(of_stage: Callable[[str], MrCase]) -> None:
    t1 = of_stage("early_subacute").series["t1"]
    assert clot_over_brain(t1, part="rim") > 1.1
    assert clot_over_brain(t1, part="rim") > 1.2 * clot_over_brain(of_stage("acute").series["t1"], part="rim")


def test_an_old_clot_has_a_dark_rim(of_stage: Callable[[str], MrCase]) -> None:
    for kind in ("t2", "t2star", "swi"):
        series = of_stage("chronic").series[kind]
        assert clot_over_brain(series, part="rim") < 0.7 * clot_over_brain(series)


def test_the_mask_lies_where_that_of_ct_lies(of_stage: Callable[[str], MrCase]) -> None:
    ct = make_case(SEED, bleeds=CLOT, voxel_mm=VOXEL_MM)

    def centre(volume: object, mask: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        v = ct.volume if volume is None else volume
        k, row, column = np.nonzero(mask == 1 + SUBTYPES.index("intraparenchymal"))
        points = v.origin[k] + np.outer(column * v.pixel_spacing[1], v.row_cosines)  # type: ignore[attr-defined]
        points += np.outer(row * v.pixel_spacing[0], v.column_cosines)  # type: ignore[attr-defined]
        return np.asarray(points.mean(axis=0))

    expected = centre(None, ct.mask)
    case = of_stage("acute")
    assert case.ml == ct.ml
    assert case.midline_shift_mm == ct.midline_shift_mm
    assert case.age_years == ct.age_years
    for kind, series in case.series.items():
        if kind == "swi_minip":
            continue
        found = centre(series.volume, series.mask)
        assert np.linalg.norm(found - expected) < 2.5, kind
        measured = (series.mask > 0).sum() * series.scan.pixel_mm**2 * series.spacing_mm / 1000
        assert measured == pytest.approx(30, rel=0.15), kind
        assert 0.6 * 30 < series.visible_ml["intraparenchymal"] < 1.06 * 30


def test_the_bone_is_black_and_fluid_is_dark_on_flair(of_stage: Callable[[str], MrCase]) -> None:
    series = of_stage("acute").series["flair"]
    middle = series.volume.pixels[len(series.volume.pixels) // 2].astype(float)
    head = middle > 0.15 * np.percentile(middle, 99)
    air = middle[:20, :20].mean()
    assert head.mean() > 0.2
    assert air < 0.1 * np.median(middle[head])


def test_microbleeds_are_seen_where_the_truth_says_and_not_in_ct(of_stage: Callable[[str], MrCase]) -> None:
    case = of_stage("acute")
    assert len(case.microbleeds) == 3
    swi = case.series["swi"]
    found = 0
    for spot in case.microbleeds:
        point = np.asarray(spot.centre_mm)
        k = swi.volume.nearest_slice(point)
        row, column = swi.volume.world_to_index(point[None], k)[0].round().astype(int)
        image = swi.volume.pixels[k]
        around = image[row - 6 : row + 7, column - 6 : column + 7]
        found += float(image[row - 1 : row + 2, column - 1 : column + 2].min()) < 0.6 * float(np.median(around))
    assert found == 3


def test_microbleeds_and_iron_grow_with_age() -> None:
    young, old = (synthesise(draw_head(SEED, age_years=age), 4.0) for age in (30.0, 85.0))
    assert deep_iron(old).max() > 1.02 * deep_iron(young).max() > 150
    counts = [np.mean([bool(draw_microbleeds(head, seed)) for seed in range(300)]) for head in (young, old)]
    for head, share in zip((young, old), counts, strict=True):
        chance = microbleed_chance(head.head.age_years)
        assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / 300)
    assert counts[1] > counts[0]


def test_intensities_have_no_unit() -> None:
    peaks = [draw_peak(seed, "t1") for seed in range(200)]
    assert peaks == [draw_peak(seed, "t1") for seed in range(200)]
    assert PEAKS[0] <= min(peaks) < 2 * PEAKS[0] < PEAKS[1] / 2 < max(peaks) <= PEAKS[1]


def test_what_is_stored_fits_and_has_no_offset(of_stage: Callable[[str], MrCase]) -> None:
    for stage in STAGES:
        for series in of_stage(stage).series.values():
            assert series.volume.pixels.min() >= 0
            if series.bits == 12:
                assert series.volume.pixels.max() <= TWELVE_BITS
            assert (series.volume.slope == 1).all()
            assert not series.volume.intercept.any()


def test_minimum_intensities_come_from_the_swi(of_stage: Callable[[str], MrCase]) -> None:
    case = of_stage("acute")
    swi, least = case.series["swi"], case.series["swi_minip"]
    slab = round(least.scan.thickness_mm / swi.spacing_mm)
    assert len(least.volume.pixels) == len(swi.volume.pixels) - slab + 1
    scale = draw_peak(SEED, "swi_minip")
    assert scale == draw_peak(SEED, "swi")
    expected = np.stack([swi.volume.pixels[k : k + slab].min(axis=0) for k in range(len(least.volume.pixels))])
    assert np.array_equal(expected, least.volume.pixels)
    assert least.volume.distances[0] == pytest.approx(swi.volume.distances[:slab].mean())


def test_a_head_without_blood_has_no_mask_and_the_labels_say_so() -> None:
    case = make_mr(8, kinds=("t1",), voxel_mm=4.0, matrix=64)
    assert not case.series["t1"].mask.any()
    assert case.labels == dict.fromkeys(("any", *SUBTYPES), 0)
    assert case.field_t in (1.5, 3.0)
    blood = make_mr(8, bleeds=(Bleed(subtype="subdural", ml=20),), kinds=("t1",), voxel_mm=4.0, matrix=64)
    assert blood.labels["subdural"] == blood.labels["any"] == 1


def test_fields_of_the_head_can_be_set() -> None:
    assert make_mr(8, kinds=("t1",), voxel_mm=4.0, matrix=64, head={"age_years": 33.0}).age_years == 33.0
    with pytest.raises(UsageError, match="no field"):
        make_mr(8, kinds=("t1",), voxel_mm=4.0, matrix=64, head={"agee": 33.0})


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_every_subtype_can_be_seen(subtype: str) -> None:
    case = make_mr(
        5,
        bleeds=(Bleed(subtype=subtype, ml=12),),
        kinds=("swi",),
        age="chronic",
        voxel_mm=3.0,
        matrix=64,
    )
    assert set(np.unique(case.series["swi"].mask)) == {0, 1 + SUBTYPES.index(subtype)}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"kinds": ()}, "no MR series"),
        ({"kinds": ("ct",)}, "unknown MR series"),
        ({"field_t": 0.5}, "outside"),
        ({"matrix": 8}, "matrix"),
        ({"microbleeds": -1}, "microbleeds"),
        ({"age": "ancient"}, "ancient"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make_mr(1, bleeds=CLOT, voxel_mm=4.0, **wrong)  # type: ignore[arg-type]
