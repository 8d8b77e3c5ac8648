"""First-order features, shape and depth, on volumes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.cvt_radiomics import measure
from edgehem.volume import Volume

SKULL_MM = 70.0


def _volume(hu: np.ndarray, spacing=(1.0, 1.0), thickness=2.0) -> Volume:
    slices = len(hu)
    origin = np.zeros((slices, 3))
    origin[:, 2] = np.arange(slices) * thickness
    return Volume(
        pixels=np.ascontiguousarray(np.rint(hu) + 1024, np.int16),
        slope=np.ones(slices, np.float32),
        intercept=np.full(slices, -1024, np.float32),
        origin=origin,
        row_cosines=np.array([1.0, 0, 0]),
        column_cosines=np.array([0, 1.0, 0]),
        pixel_spacing=spacing,
    )


def _head(radius=10.0, at=(0.0, 0.0), *, mottle=0.0, marrow=False, spacing=1.0):
    """A round skull of 70 mm inside and 7 mm thick, and a ball of 60 HU in it; slices of 2 mm."""
    half = round(90 / spacing)
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * spacing
    z = (np.arange(21) - 10)[:, None, None] * 2.0
    hu = np.full((21, *x.shape), 30.0)
    r = np.hypot(x, y)
    skull = (r >= SKULL_MM) & (r < SKULL_MM + 7)
    if marrow:
        skull &= (r < SKULL_MM + 2.5) | (r >= SKULL_MM + 4.5)
    hu[:, skull] = 1200
    hu[:, r >= SKULL_MM + 7] = -1000
    mask = (z**2 + (y - at[0]) ** 2 + (x - at[1]) ** 2) <= radius**2
    hu[mask] = 60 + mottle * np.random.default_rng(0).standard_normal(int(mask.sum()))
    return _volume(hu, (spacing, spacing)), mask.astype(np.uint8)


@pytest.mark.parametrize("mottle", [2.0, 5.0, 9.0])
def test_mean_spread_and_percentiles(mottle):
    found = measure(*_head(12, mottle=mottle))
    assert found["mean_hu"] == pytest.approx(60, abs=0.3)
    assert found["sd_hu"] == pytest.approx(mottle, rel=0.06)
    assert found["core_sd_hu"] == pytest.approx(mottle, rel=0.06)
    assert found["p90_hu"] - found["p10_hu"] == pytest.approx(2 * 1.2816 * mottle, abs=1.3)  # whole HU
    assert abs(found["skewness"]) < 0.15
    # Of a normal curve in bins of width w: log2(sd / w) + log2(sqrt(2 pi e)), from an sd of about w on.
    if mottle >= 5:
        assert found["entropy_bit"] == pytest.approx(np.log2(mottle / 5) + 2.047, abs=0.1)


def test_a_flat_clot_has_no_spread():
    found = measure(*_head(10))
    assert (found["sd_hu"], found["skewness"], found["entropy_bit"]) == (0, 0, 0)


def test_size_and_surface():
    volume, mask = _head(14)
    found = measure(volume, mask)
    ball = 4 / 3 * np.pi * 14**3 / 1000
    assert found["volume_ml"] == pytest.approx(ball, rel=0.03)
    # The faces of voxels over-state the area of a ball by one half.
    assert found["compactness"] == pytest.approx(1.5, abs=0.06)
    assert found["surface_per_mm"] == pytest.approx(found["surface_mm2"] / (1000 * found["volume_ml"]))
    ragged = mask & (np.indices(mask.shape).sum(axis=0) % 3 > 0)
    assert measure(volume, ragged.astype(np.uint8))["compactness"] > 2 * found["compactness"]


@pytest.mark.parametrize("marrow", [False, True])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.0, 45.0), (-40.0, 0.0), (30.0, 30.0)])
def test_depth_is_the_distance_to_the_inner_table(at, marrow):
    volume, mask = _head(10, at, marrow=marrow)
    assert measure(volume, mask)["depth_mm"] == pytest.approx(SKULL_MM - 10 - np.hypot(*at), abs=1.5)


def test_pixel_size_does_not_matter():
    coarse, fine = (measure(*_head(12, (0, 30), mottle=4, spacing=s)) for s in (1.0, 0.5))
    for name in ("volume_ml", "mean_hu", "surface_mm2"):
        assert fine[name] == pytest.approx(coarse[name], rel=0.05)
    assert fine["depth_mm"] == pytest.approx(coarse["depth_mm"], abs=1)


def test_a_step_between_slices_is_no_texture():
    volume, mask = _head(12, mottle=3)
    stepped = np.asarray(volume.pixels + (20 * (np.arange(21) % 2))[:, None, None], np.int16)
    found = measure(_volume(stepped.astype(float) - 1024), mask)
    assert found["core_sd_hu"] == pytest.approx(3, rel=0.1)
    assert found["sd_hu"] > 9


def test_without_bone_there_is_no_depth():
    volume, mask = _head(10)
    soft = _volume(np.minimum(volume.pixels.astype(float) - 1024, 80))
    assert np.isnan(measure(soft, mask)["depth_mm"])


def test_bad_masks_are_refused():
    volume, mask = _head(10)
    with pytest.raises(UsageError, match="shape"):
        measure(volume, mask[1:])
    with pytest.raises(UsageError, match="0 voxels"):
        measure(volume, np.zeros_like(mask))
    one = _volume(volume.pixels[10:11].astype(float) - 1024)
    with pytest.raises(UsageError, match="one slice"):
        measure(one, mask[10:11])
