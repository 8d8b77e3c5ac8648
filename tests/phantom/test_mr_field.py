"""The field of a susceptibility map, and the blooming it causes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.phantom.mr_coil import Coil
from edgehem.phantom.mr_field import Field, dipole_field, field_at
from edgehem.phantom.mr_head import MrHead
from edgehem.phantom.mr_scanner import MrScan, Slicer
from edgehem.phantom.mr_signal import PulseSequence
from edgehem.phantom.mr_tissue import NAMES, SUBSTANCES
from edgehem.phantom.shapes import F32, soft

SIZE, RADIUS, PPM = 64, 6.0, 2.0
AXIS = (np.arange(SIZE) - SIZE // 2).astype(np.float32)
CENTRE = SIZE // 2
ONE_MM = (1.0, 1.0, 1.0)
ONE_LOOP = Coil(centres=((500.0, 0.0, 0.0),), gains=(1.0,), normalised=1.0, transmit=0.0, channels=1)


def sphere(radius: float) -> F32:
    """Share of voxels that a sphere in the middle fills, [Z, Y, X]."""
    z, y, x = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
    return soft(np.sqrt(z * z + y * y + x * x) - np.float32(radius))


@pytest.fixture(scope="module")
def of_a_sphere() -> F32:
    return dipole_field(PPM * sphere(RADIUS), ONE_MM, 0.0)


@pytest.mark.parametrize("distance", [10, 14, 20])
def test_outside_a_sphere_the_field_is_that_of_a_dipole(of_a_sphere: F32, distance: int) -> None:
    moment = PPM / 3 * (RADIUS / distance) ** 3
    far = of_a_sphere[CENTRE, CENTRE + 28, CENTRE + 28]
    poles = of_a_sphere[CENTRE + distance, CENTRE, CENTRE] - far
    equator = of_a_sphere[CENTRE, CENTRE + distance, CENTRE] - far
    assert poles == pytest.approx(2 * moment, rel=0.08, abs=0.01)
    assert equator == pytest.approx(-moment, rel=0.08, abs=0.01)


def test_inside_a_sphere_the_field_is_even(of_a_sphere: F32) -> None:
    core = of_a_sphere[CENTRE - 3 : CENTRE + 4, CENTRE - 3 : CENTRE + 4, CENTRE - 3 : CENTRE + 4]
    assert float(np.ptp(core)) < 0.12 * PPM / 3


def test_the_field_is_linear_and_blind_to_a_constant() -> None:
    ppm = sphere(5)
    one = dipole_field(ppm, ONE_MM, 0.0)
    assert np.allclose(dipole_field(3 * ppm, ONE_MM, 0.0), 3 * one, atol=1e-5)
    assert np.allclose(dipole_field(ppm + 9, ONE_MM, 9.0), one, atol=1e-5)


def test_the_field_does_not_depend_on_the_shape_of_voxels(of_a_sphere: F32) -> None:
    flat = sphere(RADIUS).reshape(SIZE // 2, 2, SIZE, SIZE).mean(axis=1)  # 2 mm along z
    field = dipole_field(PPM * flat, (2.0, 1.0, 1.0), 0.0)
    fine = of_a_sphere.reshape(SIZE // 2, 2, SIZE, SIZE).mean(axis=1)
    away = np.sqrt(AXIS[:, None] ** 2 + AXIS[None] ** 2) > RADIUS + 3
    middle = np.s_[SIZE // 4]
    assert np.abs(field[middle] - fine[middle])[away].max() < 0.02


def test_a_second_order_shim_takes_everything_of_second_order() -> None:
    z, y, x = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
    block = (0.3 + 0.02 * z - 0.01 * y + 0.0004 * x * y + 0.0003 * z * z - 0.0002 * z * x).astype(np.float32)
    index = np.flatnonzero(sphere(25) > 0)
    field = field_at(block, index, (AXIS, AXIS, AXIS), index)
    assert float(np.abs(field.ppm).max()) < 1e-4
    assert all(float(np.abs(slope).max()) < 1e-4 for slope in field.slopes)


def test_an_even_field_dephases_nothing_and_a_slope_by_a_sinc() -> None:
    ppm = np.zeros(3, np.float32)
    slope = np.array([0, 0.1, 0.3], np.float32)
    none = np.zeros(3, np.float32)
    field = Field(ppm=ppm, slopes=(slope, none, none))
    kept = np.abs(field.dephased(20, 3.0))
    assert kept == pytest.approx(np.abs(np.sinc(42.577 * 3 * 0.02 * slope)), abs=1e-6)
    assert kept[0] == 1
    assert kept[1] > np.abs(field.dephased(40, 3.0))[1]


def spot(share: F32, name: str) -> MrHead:
    """White matter with a spot of something in its middle."""
    shares = np.zeros((len(NAMES), share.size), np.uint8)
    held = np.rint(255 * share.reshape(-1)).astype(np.uint8)
    shares[NAMES.index("white")] = 255 - held
    shares[NAMES.index(name)] = held
    index = np.arange(share.size)
    block = dipole_field(np.float32(SUBSTANCES[name].ppm) * share, ONE_MM, 0.0)
    axes = (AXIS, AXIS, AXIS)
    return MrHead(
        shape=share.shape,  # type: ignore[arg-type]
        axes=axes,
        index=index,
        shares=shares,
        iron=np.zeros(share.size, np.float32),
        texture=np.ones(share.size, np.float32),
        field=field_at(block, index, axes, index),
        brain=((-30.0, 30.0),) * 3,
    )


def dark_mm2(head: MrHead, te: float, field_t: float, thickness_mm: float = 5.0) -> float:
    """Area around the spot that has lost 30 % of the signal of white matter."""
    pulses = PulseSequence(kind="t2star", physics="gradient_echo", field_t=field_t, te=te, tr=700, flip_deg=20)
    scan = MrScan(
        positions=(0.0,), thickness_mm=thickness_mm, tilt_deg=0.0, matrix=48, lines=48, fov_mm=48.0, centre_mm=(0, 0),
        noise=0.0, apodisation=0.0, motion_mm=0.0, motion_lines=1.0, coil=ONE_LOOP, seed=(0,),
    )  # fmt: skip
    image: npt.NDArray[np.float32] = np.abs(Slicer(head.axes, scan).slice(head.excite(pulses), 0))
    return float((image < 0.7 * np.median(image)).sum())


def test_a_microbleed_blooms_with_echo_time_and_field() -> None:
    head = spot(sphere(1.5), "haemosiderin")
    by_time = [dark_mm2(head, te, 1.5) for te in (4, 15, 30)]
    assert by_time == sorted(by_time)
    assert by_time[0] < by_time[1] < by_time[2]
    assert dark_mm2(head, 20, 3.0) > 1.3 * dark_mm2(head, 20, 1.5)
    assert dark_mm2(head, 20, 3.0) > 2 * np.pi * 1.5**2  # larger than it is


def test_blooming_needs_susceptibility() -> None:
    """Old fluid, which is not magnetic, is seen in its own size."""
    assert dark_mm2(spot(sphere(3), "cavity"), 40, 3.0) == 0
    assert dark_mm2(spot(sphere(3), "deoxy"), 40, 3.0) > np.pi * 9


def test_iron_darkens_a_gradient_echo_more_than_a_spin_echo() -> None:
    head = spot(np.zeros((SIZE,) * 3, np.float32), "csf")
    ferrous = MrHead(**{**vars(head), "iron": np.full(head.iron.shape, 200, np.float32)})
    drop = []
    for physics, kind in (("gradient_echo", "t2star"), ("spin_echo", "t2")):
        pulses = PulseSequence(kind=kind, physics=physics, field_t=3.0, te=20, tr=700, flip_deg=90)  # type: ignore[arg-type]
        plain, dark = (np.abs(h.excite(pulses))[CENTRE, CENTRE, CENTRE] for h in (head, ferrous))
        drop.append(dark / plain)
    assert drop[0] < drop[1] < 1
