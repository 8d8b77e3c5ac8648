"""The preprocessing pass against its definition: a slow reading of it, SciPy, and the laws it must obey.

The reading below is voxel by voxel, in Python floats, and shares nothing with the oracle. Where a linear function is
sampled the exact answer is known without any reading: trilinear interpolation reproduces it, whatever the geometry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from edgehem.kernels import AIR_HU, Target, Windows, cover, window
from edgehem.kernels.oracle import preprocess, resample
from edgehem.kernels.plan import MAX_REDUCTION, Plan, reduction
from edgehem.volume import Volume

StackOf = Callable[..., Volume]
F64 = npt.NDArray[np.float64]

TOLERANCE_HU = 0.03
"""Positions in float32 are right to 1e-5 of a pixel on stacks of this size, and neighbours differ by up to 3000 HU."""


# The definition, read slowly


def slow_hounsfield(volume: Volume, factor: int) -> list[list[list[float]]]:
    """HU [Z][Y][X] of reduced pixels."""
    slices, rows, columns = volume.pixels.shape
    out = []
    for i in range(slices):
        image = []
        for r in range(rows // factor):
            line = []
            for c in range(columns // factor):
                total = 0.0
                for dr in range(factor):
                    for dc in range(factor):
                        stored = int(volume.pixels[i, r * factor + dr, c * factor + dc])
                        padded = volume.padding is not None and volume.padding[0] <= stored <= volume.padding[1]
                        total += AIR_HU if padded else stored * float(volume.slope[i]) + float(volume.intercept[i])
                line.append(total / factor**2)
            image.append(line)
        out.append(image)
    return out


def slow_slice_value(image: list[list[float]], row: float, column: float) -> float:
    """Bilinear value; constant from the outermost pixel centres to half a pixel beyond, then air."""
    rows, columns = len(image), len(image[0])
    if not (-0.5 <= row <= rows - 0.5 and -0.5 <= column <= columns - 0.5):
        return AIR_HU
    row, column = min(max(row, 0.0), rows - 1.0), min(max(column, 0.0), columns - 1.0)
    r, c = int(row), int(column)
    below, right = min(r + 1, rows - 1), min(c + 1, columns - 1)
    a, b = row - r, column - c
    top = image[r][c] * (1 - b) + image[r][right] * b
    bottom = image[below][c] * (1 - b) + image[below][right] * b
    return top * (1 - a) + bottom * a


def slow_resample(volume: Volume, target: Target) -> F64:
    """What `resample` is documented to give."""
    plan = Plan.of(volume, target)
    factor = plan.factor
    images = slow_hounsfield(volume, factor)
    row_mm, column_mm = volume.pixel_spacing
    half_block = (factor - 1) / 2
    normal = np.cross(volume.row_cosines, volume.column_cosines)
    first_pixels = [
        o + half_block * (row_mm * volume.column_cosines + column_mm * volume.row_cosines) for o in volume.origin
    ]
    d = [float(o @ normal) for o in volume.origin]
    extent = sum(abs(float(n)) * mm for n, mm in zip(normal, target.spacing_mm[::-1], strict=True))
    lowest = d[0] - ((d[1] - d[0]) / 2 if len(d) > 1 else extent / 2)
    highest = d[-1] + ((d[-1] - d[-2]) / 2 if len(d) > 1 else extent / 2)

    def slice_at(index: int, point: F64) -> float:
        offset = point - first_pixels[index]
        row = float(offset @ volume.column_cosines) / (row_mm * factor)
        column = float(offset @ volume.row_cosines) / (column_mm * factor)
        return slow_slice_value(images[index], row, column)

    def at(s: float, point: F64) -> float:
        """The stack as interpolated along the normal through a point."""
        if not lowest <= s <= highest:
            return AIR_HU
        after = next((i for i, distance in enumerate(d) if distance > s), len(d))
        if after in (0, len(d)):
            return slice_at(min(after, len(d) - 1), point)
        share = (s - d[after - 1]) / (d[after] - d[after - 1])
        return (1 - share) * slice_at(after - 1, point) + share * slice_at(after, point)

    hu = np.empty(target.shape)
    for k, j, i in np.ndindex(*target.shape):
        steps = np.array([i, j, k]) * target.spacing_mm[::-1]
        point = np.array(target.origin) + steps
        s = float(point @ normal)
        if not plan.extent:
            hu[k, j, i] = at(s, point)
            continue
        # Between these places the interpolated stack is linear, so its mean there is its value in the middle.
        low, high = s - extent / 2, s + extent / 2
        edges = [low, *sorted(e for e in (lowest, *d, highest) if low < e < high), high]
        pieces = [(q - p) * at((p + q) / 2, point) for p, q in pairwise(edges)]
        hu[k, j, i] = sum(pieces) / extent
    return hu


def tilted(degrees: float) -> dict[str, Any]:
    """Orientation of a stack whose gantry is tilted while the table moves along z."""
    angle = math.radians(degrees)
    return {"column": (0, math.cos(angle), -math.sin(angle)), "advance": (0, 0, 1)}


def turned(yaw: float, pitch: float, roll: float) -> dict[str, Any]:
    """Orientation of an oblique stack, degrees."""
    matrix = Rotation.from_euler("ZXY", [yaw, pitch, roll], degrees=True).as_matrix()
    return {"row": matrix[:, 0], "column": matrix[:, 1]}


def noise(points: F64) -> F64:
    """A different HU at every pixel, the same each time."""
    return np.asarray(np.random.default_rng(4).integers(-1000, 2000, points.shape[:-1]), np.float64)


GEOMETRIES: dict[str, dict[str, Any]] = {
    "axial": {"distances": (-6, -3, 0, 3, 6)},
    "tilted": {"distances": (-6, -3, 0, 3, 6), **tilted(18.5)},
    "tilted the other way": {"distances": (-6, -3, 0, 3, 6), **tilted(-25)},
    "variable spacing": {"distances": (-7, -5.5, -4, 0, 4, 4.5)},
    "oblique": {"distances": (-6, -3, 0, 3, 6), **turned(11, -9, 7)},
    "oblique, variable, tilted": {
        "distances": (-7, -3, -2, 1, 6),
        **turned(-20, 14, 5),
        "advance": (0.1, 0.2, 1),
    },
    "normal to the feet": {"distances": (-6, -2, 0, 3, 6), "row": (-1, 0, 0)},
    "single slice": {"distances": (0.3,)},
    "pixels not square": {"distances": (-4, 0, 4), "spacing": (1.1, 1.7)},
    "fine pixels, reduced": {"distances": (-4, 0, 4), "spacing": (0.7, 0.7), "size": (17, 14)},
    "thin slices, averaged": {"distances": tuple(np.arange(-7, 7) * 0.8), **tilted(8)},
}
TARGET = Target(shape=(8, 7, 6), spacing_mm=(2.9, 1.37, 1.43), origin=(-3.51, -4.17, -10.33))
"""Reaches out of every stack above on all sides."""


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_resampling_is_what_the_definition_says(geometry: str, stack_of: StackOf) -> None:
    """Every voxel inside, outside and at the faces, with padding and with each slice's own slope and intercept."""
    volume = stack_of(noise, **{"size": (8, 7), "spacing": (1.2, 1.2), **GEOMETRIES[geometry]})
    slices = len(volume.pixels)
    volume = replace(
        volume,
        slope=np.linspace(0.5, 1.5, slices, dtype=np.float32),
        intercept=np.linspace(-300, 40, slices, dtype=np.float32),
        padding=(-1000, -700),
    )
    for resampling in ("antialiased", "trilinear"):
        target = replace(TARGET, resampling=resampling)
        hu = resample(volume, target)
        assert hu.dtype == np.float32
        np.testing.assert_allclose(hu, slow_resample(volume, target), atol=TOLERANCE_HU)
        assert (hu != AIR_HU).any(), "the case shows nothing"
        assert (hu == AIR_HU).any(), "the case has no outside"


def test_an_axial_uniform_stack_agrees_with_scipy(stack_of: StackOf) -> None:
    """map_coordinates, of another make, gives the same between the first and the last slice."""
    volume = stack_of(noise, size=(20, 24), spacing=(1.3, 1.1), distances=np.arange(9) * 2.5)
    target = Target(shape=(12, 15, 17), spacing_mm=(1.57, 1.41, 1.33), origin=(-11.03, -10.2, 0.4))
    z, y, x = (
        (np.arange(n) * step + start - first) / mm
        for n, step, start, first, mm in zip(
            target.shape,
            target.spacing_mm,
            target.origin[::-1],
            volume.origin[0, ::-1],
            (2.5, *volume.pixel_spacing),
            strict=True,
        )
    )
    at = np.meshgrid(z, y, x, indexing="ij")
    expected = map_coordinates(volume.pixels.astype(np.float64), at, order=1, mode="constant", cval=AIR_HU)
    inside = np.all([(a >= 0) & (a <= n - 1) for a, n in zip(at, volume.pixels.shape, strict=True)], axis=0)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(resample(volume, target)[inside], expected[inside], atol=TOLERANCE_HU)


# Laws


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """Any stack of 4 to 8 slices that is at least 30 mm high: turned, tilted, unevenly spaced."""
    angle = st.floats(-30, 30)
    gaps = draw(st.lists(st.floats(1.0, 9.0), min_size=3, max_size=7))
    distances = np.concatenate([[0.0], np.cumsum(gaps)])
    assume(distances[-1] >= 16)
    spacing = draw(st.tuples(st.floats(0.4, 2.0), st.floats(0.4, 2.0)))
    return {
        "size": (int(44 / spacing[0]), int(44 / spacing[1])),
        "spacing": spacing,
        "distances": distances - distances[-1] / 2,
        "centre": draw(st.tuples(*[st.floats(-200, 200)] * 3)),
        **turned(draw(angle), draw(angle), draw(angle)),
        "advance": (draw(st.floats(-0.2, 0.2)), draw(st.floats(-0.2, 0.2)), 1),
    }


def inner_grid(volume: Volume, spacing: tuple[float, float, float]) -> Target:
    """A grid around the middle of a stack, small enough to lie inside it however it is turned."""
    corner = (np.array(volume.pixels.shape[1:]) - 1) * np.array(volume.pixel_spacing) / 2
    ends = (volume.origin[0] + volume.origin[-1]) / 2
    middle = ends + volume.column_cosines * corner[0] + volume.row_cosines * corner[1]
    shape = (3, 4, 5)
    x, y, z = middle - np.array([(n - 1) / 2 * mm for n, mm in zip(shape, spacing, strict=True)])[::-1]
    return Target(shape=shape, spacing_mm=spacing, origin=(float(x), float(y), float(z)))


GRID_SPACING = st.tuples(st.floats(0.5, 3.0), st.floats(0.4, 1.5), st.floats(0.4, 1.5))


@given(geometry=geometries(), spacing=GRID_SPACING, slope=st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_linear_function_of_place_is_reproduced(
    stack_of: StackOf, geometry: dict[str, Any], spacing: tuple[float, float, float], slope: tuple[float, float, float]
) -> None:
    """Interpolation, reduction and averaging are exact on HU = a·x + b·y + c·z, so any error of place would show."""
    centre = np.array(geometry["centre"])

    def ramp(points: F64) -> F64:
        return np.asarray((points - centre) @ np.array(slope))

    step = 1 / 64  # stored values are rounded to this many HU
    volume = stack_of(ramp, slope=step, **geometry)
    target = inner_grid(volume, spacing)
    k, j, i = np.indices(target.shape)
    dz, dy, dx = target.spacing_mm
    x, y, z = target.origin
    expected = ramp(np.stack([x + i * dx, y + j * dy, z + k * dz], axis=-1))
    hu = resample(volume, target)
    np.testing.assert_allclose(hu, expected, atol=step / 2 + TOLERANCE_HU)


@given(geometry=geometries(), spacing=GRID_SPACING, value=st.integers(-1000, 3000))
def test_a_constant_stays_constant(
    stack_of: StackOf, geometry: dict[str, Any], spacing: tuple[float, float, float], value: int
) -> None:
    """Inside the stack weights add up to one; slices may be scaled each in their own way."""
    volume = stack_of(lambda points: np.full(points.shape[:-1], value / 2), **geometry | {"slope": 0.5})
    odd = np.arange(len(volume.pixels)) % 2 == 1
    pixels = volume.pixels.copy()
    pixels[odd] = 7
    intercept = np.where(odd, value / 2 - 7 * 0.5, 0).astype(np.float32)
    volume = replace(volume, pixels=pixels, intercept=intercept)
    hu = resample(volume, inner_grid(volume, spacing))
    np.testing.assert_allclose(hu, value / 2, atol=TOLERANCE_HU)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)),
    powers=st.tuples(*[st.integers(-2, 2)] * 2),
    origin=st.tuples(*[st.integers(-999, 999)] * 3),
)
def test_equal_grids_are_the_identity(
    shape: tuple[int, int, int], powers: tuple[int, int], origin: tuple[int, int, int]
) -> None:
    """Every pixel comes back as it was, those at the edges of the image included."""
    dz, mm = 2.0 ** powers[0], 2.0 ** powers[1]
    x, y, z = (float(c) for c in origin)
    pixels = np.random.default_rng(1).integers(-1000, 3000, shape).astype(np.int16)
    volume = Volume(
        pixels=pixels,
        slope=np.ones(shape[0], np.float32),
        intercept=np.zeros(shape[0], np.float32),
        origin=np.array([[x, y, z + k * dz] for k in range(shape[0])]),
        row_cosines=np.array([1.0, 0, 0]),
        column_cosines=np.array([0, 1.0, 0]),
        pixel_spacing=(mm, mm),
    )
    hu = resample(volume, Target(shape=shape, spacing_mm=(dz, mm, mm), origin=(x, y, z)))
    np.testing.assert_array_equal(hu, pixels.astype(np.float32))


@given(geometry=geometries(), shift=st.tuples(*[st.floats(-400, 400)] * 3))
def test_moving_everything_changes_nothing(
    stack_of: StackOf, geometry: dict[str, Any], shift: tuple[float, float, float]
) -> None:
    volume = stack_of(noise, **geometry)
    target = inner_grid(volume, (2.5, 0.9, 0.9))
    x, y, z = np.array(target.origin) + shift
    there = resample(replace(volume, origin=volume.origin + np.array(shift)), replace(target, origin=(x, y, z)))
    np.testing.assert_allclose(there, resample(volume, target), atol=TOLERANCE_HU)


def flip_slices(volume: Volume) -> Volume:
    """The same stack told from the other side: rows upside down, the normal reversed, slices in the other order."""
    last = volume.column_cosines * volume.pixel_spacing[0] * (volume.pixels.shape[1] - 1)
    return replace(
        volume,
        pixels=np.ascontiguousarray(volume.pixels[::-1, ::-1]),
        slope=volume.slope[::-1].copy(),
        intercept=volume.intercept[::-1].copy(),
        origin=volume.origin[::-1] + last,
        column_cosines=-volume.column_cosines,
    )


def transpose(volume: Volume) -> Volume:
    """The same stack with rows and columns exchanged, and therefore the normal reversed."""
    return replace(
        volume,
        pixels=np.ascontiguousarray(volume.pixels[::-1].transpose(0, 2, 1)),
        slope=volume.slope[::-1].copy(),
        intercept=volume.intercept[::-1].copy(),
        origin=volume.origin[::-1].copy(),
        row_cosines=volume.column_cosines,
        column_cosines=volume.row_cosines,
        pixel_spacing=volume.pixel_spacing[::-1],
    )


@pytest.mark.parametrize("told", [flip_slices, transpose])
@given(geometry=geometries())
def test_the_same_pixels_told_another_way_give_the_same(
    stack_of: StackOf, told: Callable[[Volume], Volume], geometry: dict[str, Any]
) -> None:
    """Feet first or head first, rows down or up: what counts is where a pixel lies."""
    rows, columns = geometry["size"]
    volume = stack_of(noise, **geometry | {"size": (rows // 12 * 12, columns // 12 * 12)})  # whole reduced pixels
    slices = len(volume.pixels)
    volume = replace(
        volume, slope=np.linspace(0.5, 1, slices, dtype=np.float32), intercept=np.arange(slices, dtype=np.float32)
    )
    target = inner_grid(volume, (2.5, 0.9, 0.9))
    np.testing.assert_allclose(resample(told(volume), target), resample(volume, target), atol=TOLERANCE_HU)


# Antialiasing and padding


@pytest.mark.parametrize(
    ("pixel_mm", "grid_mm", "factor"),
    [(1.0, 1.0, 1), (1.0, 1.49, 1), (1.0, 1.5, 2), (0.5, 1.0, 2), (0.4, 1.0, 3), (2.0, 1.0, 1), (0.1, 1.0, 4)],
)
def test_pixels_are_reduced_by_the_nearest_whole_factor(
    pixel_mm: float, grid_mm: float, factor: int, stack_of: StackOf
) -> None:
    volume = stack_of(noise, size=(8, 8), spacing=(pixel_mm, pixel_mm), distances=(0, 1))
    assert reduction(volume, Target(shape=(1, 2, 2), spacing_mm=(1, grid_mm, grid_mm), origin=(0, 0, 0))) == factor
    assert factor <= MAX_REDUCTION


def test_a_trilinear_grid_reduces_nothing(stack_of: StackOf) -> None:
    volume = stack_of(noise, size=(8, 8), spacing=(0.25, 0.25), distances=np.arange(9) * 0.5)
    plan = Plan.of(volume, replace(TARGET, resampling="trilinear"))
    assert (plan.factor, plan.extent) == (1, 0)


@pytest.mark.parametrize(
    ("slice_mm", "plane_mm", "averaged"), [(5, 4.5, False), (4.5, 4.5, False), (3, 4.5, True), (0.3, 4.5, True)]
)
def test_thin_slices_are_averaged_over_a_plane(
    slice_mm: float, plane_mm: float, averaged: bool, stack_of: StackOf
) -> None:
    volume = stack_of(noise, size=(4, 4), spacing=(1, 1), distances=np.arange(4) * slice_mm)
    plan = Plan.of(volume, Target(shape=(1, 2, 2), spacing_mm=(plane_mm, 1, 1), origin=(0, 0, 0)))
    assert plan.extent == (plane_mm if averaged else 0)


def test_of_thin_slices_every_one_counts(stack_of: StackOf) -> None:
    """Whichever of 30 slices in a plane is bright, the plane is brighter by a thirtieth."""
    target = Target(shape=(1, 2, 2), spacing_mm=(4.5, 1, 1), origin=(0, 0, 0))
    for bright in range(30):
        volume = stack_of(noise, size=(4, 4), spacing=(1, 1), distances=(np.arange(30) - 14.5) * 0.15)
        volume.pixels[:] = 0
        volume.pixels[bright] = 300
        np.testing.assert_allclose(resample(volume, target), 10, atol=TOLERANCE_HU)


def test_a_checkerboard_of_fine_pixels_becomes_its_mean(stack_of: StackOf) -> None:
    """Without the reduction a coarse grid would pick all white or all black pixels."""
    volume = stack_of(noise, size=(16, 16), spacing=(0.5, 0.5), distances=(0, 1))
    volume.pixels[:] = np.where(np.indices((16, 16)).sum(axis=0) % 2, 100, 0)
    target = Target(shape=(1, 6, 6), spacing_mm=(1, 1, 1), origin=(-2.5, -2.5, 0))
    np.testing.assert_allclose(resample(volume, target), 50, atol=TOLERANCE_HU)


def test_padding_is_air_before_it_is_rescaled(stack_of: StackOf) -> None:
    volume = stack_of(noise, size=(4, 4), spacing=(1, 1), distances=(0, 1), padding=(-2000, -1999))
    volume.pixels[:] = -2000
    target = Target(shape=(2, 2, 2), spacing_mm=(0.3, 1, 1), origin=(-0.4, -0.4, 0.2))
    np.testing.assert_allclose(resample(volume, target), AIR_HU, atol=TOLERANCE_HU)


def test_nothing_that_is_given_is_written_to(stack_of: StackOf) -> None:
    volume = stack_of(noise, size=(6, 6), spacing=(1, 1), distances=(0, 1, 2))
    for array in (volume.pixels, volume.slope, volume.intercept, volume.origin):
        array.setflags(write=False)
    preprocess(volume, TARGET, Windows(level_width=((40, 80),)))


@pytest.mark.parametrize("tilt", [0, 20, -20])
def test_a_plane_is_covered_as_far_as_its_middle_lies_between_the_faces(tilt: float, stack_of: StackOf) -> None:
    """By counting points; the middle is the central half by rows and columns."""
    volume = stack_of(noise, size=(60, 60), spacing=(2, 2), distances=np.arange(5) * 5.0, **tilted(tilt))
    target = Target(shape=(16, 40, 40), spacing_mm=(4.0, 2.0, 2.0), origin=(-40, -40, -20))
    z, y, x = (
        start + np.arange(n) * mm
        for n, mm, start in zip(target.shape, target.spacing_mm, target.origin[::-1], strict=True)
    )
    points = np.stack(np.meshgrid(z, y[10:30], x[10:30], indexing="ij"), axis=-1)[..., ::-1]
    s = points @ volume.normal
    share = ((s >= volume.distances[0] - 2.5) & (s <= volume.distances[-1] + 2.5)).mean(axis=(1, 2))
    found = cover(volume, target)
    assert found.dtype == np.float32 and found.shape == (16,)
    np.testing.assert_allclose(found, share, atol=0.06)
    assert found.min() == 0 and found.max() == 1


# Windows


HU = st.lists(st.floats(-2000, 4000, width=32), min_size=2, max_size=20)


@given(hu=HU, level=st.floats(-500, 1000), width=st.floats(1, 4000))
def test_windows_are_monotone_and_bounded(hu: list[float], level: float, width: float) -> None:
    ordered = np.sort(np.array(hu, np.float32)).reshape(1, 1, -1)
    out = window(ordered, Windows(level_width=((level, width),)))
    assert out.shape == (1, 1, 1, len(hu))
    assert (out >= 0).all() and (out <= 1).all()
    assert (np.diff(out[0, 0, 0]) >= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@given(hu=HU, mean=st.floats(-1, 1), std=st.floats(0.1, 2), scale=st.floats(0.005, 0.1))
def test_window_values_are_what_the_definition_says(
    dtype: str, hu: list[float], mean: float, std: float, scale: float
) -> None:
    """Channel by channel in Python floats: equal to one rounding step of the type."""
    pairs = ((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0))
    values = np.array(hu, np.float32)
    out = window(values.reshape(1, 1, -1), Windows(level_width=pairs, mean=mean, std=std, dtype=dtype, scale=scale))
    assert out.dtype == np.dtype(dtype)
    for channel, (level, width) in enumerate(pairs):
        for got, value in zip(out[0, channel, 0].tolist(), values.tolist(), strict=True):
            exact = (min(1.0, max(0.0, (value - (level - width / 2)) / width)) - mean) / std
            if dtype == "int8":
                steps = min(127.0, max(-127.0, exact / scale))
                assert got == round(steps) or abs(abs(steps - math.floor(steps)) - 0.5) < 1e-3
            else:
                unit = float(np.finfo(dtype).eps)
                assert got == pytest.approx(exact, abs=unit * (1 + (1 + abs(mean)) / std) + 1e-5)


def test_the_pass_is_resampling_and_then_windows(stack_of: StackOf) -> None:
    volume = stack_of(noise, size=(8, 7), spacing=(1.2, 1.2), distances=(-4, 0, 4), **tilted(12))
    windows = Windows(level_width=((40, 80), (600, 2800)), dtype="float16")
    tensor = preprocess(volume, TARGET, windows)
    assert tensor.shape == (8, 2, 7, 6)
    np.testing.assert_array_equal(tensor, window(resample(volume, TARGET), windows))


@pytest.mark.parametrize(
    "wrong",
    [
        {"level_width": ()},
        {"level_width": ((40, 0),)},
        {"level_width": ((40, 80),) * 17},
        {"level_width": ((float("nan"), 80),)},
        {"level_width": ((40, 80),), "mean": float("inf")},
        {"level_width": ((40, 80),), "dtype": "float16", "std": 1e-6},
        {"level_width": ((40, 80),), "dtype": "float64"},
        {"level_width": ((40, 80),), "std": 0},
        {"level_width": ((40, 80),), "scale": -1},
    ],
)
def test_impossible_windows_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Windows(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (0, 2, 2)},
        {"spacing_mm": (1, 0, 1)},
        {"spacing_mm": (1, 1, -1)},
        {"spacing_mm": (1, float("inf"), 1)},
        {"origin": (0, float("nan"), 0)},
        {"resampling": "cubic"},
    ],
)
def test_impossible_grids_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Target(**{"shape": (2, 2, 2), "spacing_mm": (1, 1, 1), "origin": (0, 0, 0), **wrong})
