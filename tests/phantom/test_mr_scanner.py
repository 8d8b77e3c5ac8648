"""The MR scanner: noise, shading, a truncated k-space, motion, partial volume, and the phase mask of SWI."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import gamma

from edgehem.phantom.mr_coil import Coil, draw_coil
from edgehem.phantom.mr_scanner import MrScan, Slicer, acquire_mr, homodyne, mark, minimum_intensity, weighted
from edgehem.phantom.shapes import F32

AXIS = np.arange(-40, 41, dtype=np.float32)
AXES = (AXIS, AXIS, AXIS)
FAR = Coil(centres=((4000.0, 0.0, 0.0),), gains=(1.0,), normalised=0.0, transmit=0.0, channels=1)
"""So far away that it receives everything evenly."""
SCAN = MrScan(
    positions=(-6.0, 0.0, 6.0), thickness_mm=5.0, tilt_deg=0.0, matrix=80, lines=80, fov_mm=80.0, centre_mm=(0.0, 0.0),
    noise=0.0, apodisation=0.0, motion_mm=0.0, motion_lines=10.0, coil=FAR, seed=(7, 1),
)  # fmt: skip


def solid(value: float = 1.0) -> F32:
    return np.full((81, 81, 81), value, np.float32)


def cube() -> F32:
    """Signal in the middle, air around it."""
    block = np.zeros((81, 81, 81), np.float32)
    block[:, 20:61, 20:61] = 1
    return block


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("lines", [80, 52])
def test_the_background_has_the_mean_of_its_noise(channels: int, lines: int) -> None:
    """Rayleigh's for one channel, chi for more (Constantinides 1997)."""
    sigma = 0.3
    scan = replace(SCAN, noise=sigma, lines=lines, coil=replace(FAR, channels=channels), positions=tuple(range(12)))
    images = acquire_mr(solid(0), Slicer(AXES, scan))
    expected = sigma * np.sqrt(2) * gamma(channels + 0.5) / gamma(channels)
    assert float(images.mean()) == pytest.approx(expected, rel=0.02)


def test_signal_over_noise_is_rician() -> None:
    sigma, height = 0.4, 1.0
    scan = replace(SCAN, noise=sigma, positions=tuple(np.arange(-15.0, 16)))
    images = acquire_mr(solid(height), Slicer(AXES, scan))[:, 10:70, 10:70]
    assert float((images.astype(np.float64) ** 2).mean()) == pytest.approx(height**2 + 2 * sigma**2, rel=0.02)
    assert images.min() >= 0


def test_noise_depends_on_the_seed_and_not_on_other_slices() -> None:
    scan = replace(SCAN, noise=0.2)
    images = acquire_mr(solid(), Slicer(AXES, scan))
    fewer = acquire_mr(solid(), Slicer(AXES, replace(scan, positions=SCAN.positions[:1])))
    assert np.array_equal(images[:1], fewer)
    assert not np.array_equal(images[0], acquire_mr(solid(), Slicer(AXES, replace(scan, seed=(8, 1))))[0])


def test_shading_is_smooth_and_brighter_near_the_elements() -> None:
    for seed in range(5):
        coil = draw_coil(seed, 3.0)
        slicer = Slicer(AXES, replace(SCAN, coil=coil, fov_mm=220.0, matrix=256, lines=200))
        shading = slicer.shading(1)
        assert float(np.abs(np.diff(shading, axis=0)).max() / shading.mean()) < 0.06
        y, z = slicer.place(0.0)
        exact = coil.received(slicer.x[None], y[:, None], z[:, None])
        assert float(np.abs(shading / exact - 1).max()) < 0.02
        rim = np.hypot(slicer.x[None], slicer.v[:, None])
        assert shading[(rim > 80) & (rim < 90)].mean() > 1.3 * shading[rim < 20].mean()


def test_a_normalised_image_is_even() -> None:
    coil = replace(draw_coil(3, 1.5), channels=1)
    uneven, even = (
        acquire_mr(solid(), Slicer(AXES, replace(SCAN, coil=replace(coil, normalised=share))))[1, 15:65, 15:65]
        for share in (0.0, 1.0)
    )
    assert np.ptp(even) < 0.15 * np.ptp(uneven)


def test_transmission_is_uneven_at_the_higher_field() -> None:
    index = np.arange(81**3)
    for seed in range(5):
        low, high = (draw_coil(seed, field_t).transmitted(index, AXES, (0, 0, 0)) for field_t in (1.5, 3.0))
        assert np.ptp(high) > 1.5 * np.ptp(low)
        assert 0.7 < high.min() <= high.max() < 1.3


def test_a_truncated_k_space_rings_beside_edges_and_a_filter_calms_it() -> None:
    def overshoot(apodisation: float) -> float:
        scan = replace(SCAN, lines=40, apodisation=apodisation)
        return float(acquire_mr(cube(), Slicer(AXES, scan))[1, 30:50].max()) - 1

    assert 0.04 < overshoot(0.0) < 0.14
    assert overshoot(1.0) < 0.3 * overshoot(0.0)
    assert overshoot(0.0) > overshoot(0.5)


def test_ringing_runs_along_the_phase_encoding() -> None:
    image = acquire_mr(cube(), Slicer(AXES, replace(SCAN, lines=40)))[1]
    assert np.abs(image[40, :14]).max() > 4 * np.abs(image[:14, 40]).max()


def test_movement_ghosts_along_the_phase_encoding() -> None:
    still, moved = (
        acquire_mr(cube(), Slicer(AXES, replace(SCAN, motion_mm=mm, motion_lines=8.0)))[1] for mm in (0.0, 2.0)
    )
    beside, above = np.s_[25:55, :15], np.s_[:15, 25:55]
    assert moved[beside].mean() > 0.01 > still[beside].mean()
    assert moved[beside].mean() > 5 * moved[above].mean()


def test_a_slice_half_in_a_layer_holds_half_of_it() -> None:
    block = np.zeros((81, 81, 81), np.float32)
    block[41:] = 1  # from z = 0.5 mm upwards
    images = acquire_mr(block, Slicer(AXES, replace(SCAN, positions=(-8.0, 0.5, 9.0))))
    assert images[:, 40, 40] == pytest.approx([0, 0.5, 1], abs=0.06)


def test_opposed_phases_in_a_slice_cancel() -> None:
    block = np.ones((81, 81, 81), np.complex64)
    block *= np.exp(1j * np.pi * AXIS / 5)[:, None, None]  # half a turn over the slice, and more in its tails
    image = acquire_mr(block, Slicer(AXES, replace(SCAN, positions=(0.0,))))[0, 40, 40]
    assert image == pytest.approx(2 / np.pi, abs=0.06)


@pytest.mark.parametrize("tilt", [-14.0, 0.0, 21.0])
def test_a_point_is_where_the_geometry_says(tilt: float) -> None:
    point = np.array([13.0, -9.0, 6.0])  # x, y, z
    z, y, x = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
    blob = np.clip(4 - np.sqrt((x - point[0]) ** 2 + (y - point[1]) ** 2 + (z - point[2]) ** 2), 0, 1)
    scan = replace(SCAN, tilt_deg=tilt, positions=tuple(np.arange(-30.0, 31, 2)), thickness_mm=2.0, centre_mm=(3, -2))
    images = acquire_mr(blob.astype(np.float32), Slicer(AXES, scan))
    at = np.array([images.sum(axis=axes) @ np.arange(n) for axes, n in (((1, 2), 31), ((0, 2), 80), ((0, 1), 80))])
    slice_, row, column = at / images.sum()
    radians = np.radians(tilt)
    down = np.array([0, np.cos(radians), -np.sin(radians)])
    normal = np.array([0, np.sin(radians), np.cos(radians)])
    found = scan.origins[0] + 2.0 * slice_ * normal + row * down + column * np.array([1.0, 0, 0])
    assert found == pytest.approx(point, abs=0.3)
    mask, visible = mark({"blob": blob.astype(np.float32)}, {"blob": 3}, Slicer(AXES, scan))
    assert set(np.unique(mask)) == {0, 3}
    assert visible["blob"] == pytest.approx(float(blob.sum()) / 1000, rel=0.03)


def phased(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.complex64]:
    return np.exp(1j * phase).astype(np.complex64)


def test_the_filter_takes_a_smooth_phase_and_leaves_a_vein() -> None:
    row = np.linspace(-1, 1, 128)
    smooth = 3 * row[:, None] ** 2 + 2 * row[None]
    vein = np.zeros((128, 128))
    vein[:, 63:65] = 1.2
    left = homodyne(phased(smooth + vein))
    inner = np.s_[40:88, 40:88]
    assert np.abs(homodyne(phased(smooth))[inner]).max() < 0.1
    assert left[64, 63] > 0.9


def test_the_mask_darkens_what_is_paramagnetic_only() -> None:
    vein = np.zeros((128, 128))
    vein[:, 63:65] = 1.2
    assert weighted(phased(vein))[64, 63] < 0.4
    assert weighted(phased(-vein))[64, 63] == pytest.approx(1, abs=1e-3)


def test_the_minimum_slides_over_the_stack() -> None:
    images = np.random.default_rng(0).random((7, 3, 3)).astype(np.float32)
    least = minimum_intensity(images, 3)
    assert least.shape == (5, 3, 3)
    assert np.array_equal(least[2], images[2:5].min(axis=0))
