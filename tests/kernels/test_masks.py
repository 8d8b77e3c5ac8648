"""The helper kernels against their definitions, and the definitions against SciPy and slow readings.

Three implementations go through one matrix: NumPy, the native twin (compiled here from its source), and the CUDA
kernels' source executed on the host, which is not a test on a GPU. They must agree bit for bit.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial.transform import Rotation

from edgehem.kernels import AIR_HU, Target, build, masks, masks_oracle
from edgehem.volume import Volume

Array = npt.NDArray[Any]
F64 = npt.NDArray[np.float64]
StackOf = Callable[..., Volume]

SANITIZED = "EDGEHEM_TEST_SANITIZED"
"""Set in the process that runs this matrix again under the address and undefined-behaviour sanitizers."""
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g") if os.environ.get(SANITIZED) else ()
THREADS_PER_BLOCK = 96
"""Of kernels on the host; seldom a divisor of the size, so that threads beyond the end are run."""


# Implementations


class Implementation(Protocol):
    """What the matrix runs."""

    def to_slices(self, values: Array, target: Target, stack: Any, order: str) -> Array: ...
    def quantize(self, values: Array, scale: float) -> Array: ...


class OnHost:
    """masks.cu executed on the host."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.run_eh_quantize.argtypes = (
            ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_float,
            ctypes.c_void_p,
        )  # fmt: skip

    @staticmethod
    def launch(count: int) -> tuple[int, int]:
        return -(-count // THREADS_PER_BLOCK), THREADS_PER_BLOCK

    def to_slices(self, values: Array, target: Target, stack: Any, order: str) -> Array:
        positions, values = masks_oracle.Positions.of(stack, target), np.ascontiguousarray(values)
        block = masks.return_parameters(positions, stack.pixels.shape, target.shape)
        out = np.full(stack.pixels.shape, 77, values.dtype)
        run = getattr(self.library, f"run_eh_to_slices_{order}")
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (positions.start, values, out)]
        run(*self.launch(out.size), ctypes.byref(block), *pointers)
        return out

    def quantize(self, values: Array, scale: float) -> Array:
        values, nan = np.asarray(values, order="C"), np.zeros(1, np.int32)
        out = np.full(values.shape, 77, np.int8)
        self.library.run_eh_quantize(
            *self.launch(out.size), values.ctypes.data, out.ctypes.data, out.size, 1 / scale, nan.ctypes.data
        )
        if nan[0]:
            raise ValueError("NaN")
        return out


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], ctypes.CDLL]:
    """Compiles a source into a library, once."""
    built: dict[Path, ctypes.CDLL] = {}

    def compile_(source: Path) -> ctypes.CDLL:
        if not (compiler := shutil.which("g++")):
            pytest.skip("no g++ to compile the kernels with")
        if source not in built:
            out = tmp_path_factory.mktemp("masks") / f"{source.stem}.so"
            flags = [*build.CXX_FLAGS, "-fvisibility=default", "-Werror", "-shared", "-I", build.HERE, *SANITIZERS]
            subprocess.run([compiler, *flags, source, "-o", out], check=True)
            built[source] = ctypes.CDLL(os.fspath(out))
        return built[source]

    return compile_


@pytest.fixture(params=["numpy", "native"])
def masks_by(
    request: pytest.FixtureRequest, compiled: Callable[[Path], ctypes.CDLL], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The module `masks`, made to use one implementation."""
    library = masks._declared(compiled(build.HERE / "masks.cpp")) if request.param == "native" else None
    monkeypatch.setattr(masks, "_library", lambda: library)
    return masks


@pytest.fixture
def native(compiled: Callable[[Path], ctypes.CDLL]) -> ctypes.CDLL:
    """The native twin of the helper kernels."""
    return masks._declared(compiled(build.HERE / "masks.cpp"))


@pytest.fixture(params=["numpy", "native", "cuda source on the host"])
def implementation(
    request: pytest.FixtureRequest, compiled: Callable[[Path], ctypes.CDLL], monkeypatch: pytest.MonkeyPatch
) -> Implementation:
    """Each implementation of what also runs on GPUs."""
    if request.param == "cuda source on the host":
        return OnHost(compiled(Path(__file__).parent / "masks_on_host.cpp"))
    library = masks._declared(compiled(build.HERE / "masks.cpp")) if request.param == "native" else None
    monkeypatch.setattr(masks, "_library", lambda: library)
    return masks


def assert_same_bits(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype and got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)
    assert got.tobytes() == expected.tobytes(), "equal numbers, other bits"


# Connected components


def noise(shape: tuple[int, int, int], share: float) -> Array:
    return np.random.default_rng(math.prod(shape)).random(shape) < share


def spiral(size: int) -> Array:
    """One path that winds inwards: every row joins runs that seemed apart so far."""
    out = np.zeros((1, size, size), bool)
    y, x, dy, dx = 0, -1, 0, 1
    for turn in range(size):
        for _ in range(size - turn if turn < 2 else size - 2 * (turn // 2) - turn % 2):
            if not (0 <= y + dy < size and 0 <= x + dx < size):
                break
            y, x = y + dy, x + dx
            out[0, y, x] = True
        dy, dx = dx, -dy
    return out


def comb(height: int, width: int) -> Array:
    """Teeth that only the last row joins."""
    out = np.zeros((1, height, width), bool)
    out[0, :, ::2] = True
    out[0, -1] = True
    return out


def serpentine(planes: int, size: int) -> Array:
    """Combs in every other plane, joined at alternating corners: one path through everything."""
    out = np.zeros((planes, size, size), bool)
    out[::2] = comb(size, size)
    out[1::4, -1, -1] = True
    out[3::4, 0, 0] = True
    return out


def diagonals(size: int) -> Array:
    """Voxels that touch at edges in one half and at corners in the other."""
    k, j, i = np.indices((size, size, size))
    return np.where(i < size // 2, (j == k) & (i == size // 4), (j == k) & (i == size - 1 - j))


def levels(shape: tuple[int, int, int]) -> Array:
    """uint8 with every byte value."""
    values = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    return np.where(noise(shape, 0.5), values, np.uint8(0))


MASKS: dict[str, Array] = {
    "nothing": np.zeros((3, 4, 5), bool),
    "everything": np.ones((3, 5, 17), bool),
    "no voxels": np.zeros((2, 0, 3), bool),
    "one voxel": np.ones((1, 1, 1), bool),
    "one set voxel": np.pad(np.ones((1, 1, 1), bool), 2),
    "one slice": noise((1, 30, 31), 0.5),
    "one row": noise((1, 1, 100), 0.5),
    "one column": noise((1, 100, 1), 0.5),
    "one pillar": noise((100, 1, 1), 0.5),
    "checkerboard": np.indices((5, 6, 19)).sum(axis=0) % 2 == 0,
    "checkerboard, the other half": np.indices((5, 6, 19)).sum(axis=0) % 2 == 1,
    "spiral": spiral(33),
    "comb": comb(20, 41),
    "comb upside down": comb(20, 41)[:, ::-1],
    "serpentine": serpentine(9, 15),
    "diagonals": diagonals(12),
    "shells": np.indices((15, 15, 15)).max(axis=0) % 2 == 0,
    "bytes": levels((6, 7, 40)),
    "transposed": noise((9, 10, 11), 0.4).transpose(2, 0, 1),
    "strided": noise((8, 20, 40), 0.4)[::2, 1::3, ::2],
    "reversed": noise((7, 8, 9), 0.4)[::-1, :, ::-1],
    **{f"noise {share}, {width} wide": noise((6, 13, width), share)
       for share in (0.1, 0.3, 0.5, 0.8) for width in (7, 8, 9, 64, 67)},
}  # fmt: skip


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("name", MASKS)
def test_components_are_those_of_the_definition(masks_by: Any, name: str, connectivity: int) -> None:
    mask = MASKS[name].copy() if MASKS[name].flags.c_contiguous else MASKS[name]
    mask.setflags(write=False)
    labels, count = masks_by.label(mask, connectivity)
    expected, expected_count = (
        masks_oracle.label(mask.astype(bool), connectivity) if mask.size else (np.zeros(mask.shape, np.int32), 0)
    )
    assert count == expected_count
    assert_same_bits(labels, expected)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("name", [name for name, mask in MASKS.items() if mask.size])
def test_the_definition_of_components_agrees_with_scipy(name: str, connectivity: int) -> None:
    mask = MASKS[name].astype(bool)
    labels, count = masks_oracle.label(mask, connectivity)
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    theirs, their_count = ndimage.label(mask, structure)
    # SciPy's numbers, in the order of first voxels.
    _, first, inverse = np.unique(np.concatenate([[0], theirs.reshape(-1)]), return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    assert count == their_count
    np.testing.assert_array_equal(labels.reshape(-1), order[inverse[1:]])


@given(mask=arrays.arrays(bool, arrays.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_components_partition_the_mask_and_are_maximal(mask: Array) -> None:
    labels = {c: masks_oracle.label(mask, c) for c in masks.CONNECTIVITIES}
    for connectivity, (numbers, count) in labels.items():
        np.testing.assert_array_equal(numbers > 0, mask)
        found, first = np.unique(numbers[mask], return_index=True)
        np.testing.assert_array_equal(found, np.arange(1, count + 1))
        assert (np.diff(first) > 0).all(), "numbered by first voxels"
        for step in itertools.product((-1, 0, 1), repeat=3):
            if 0 < sum(map(abs, step)) <= {6: 1, 18: 2, 26: 3}[connectivity]:
                here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(step, mask.shape, strict=True))
                there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(step, mask.shape, strict=True))
                both = mask[here] & mask[there]
                np.testing.assert_array_equal(numbers[here][both], numbers[there][both])
    # More neighbours join components and never split one.
    for fewer, more in ((6, 18), (18, 26)):
        pairs = np.unique(np.stack([labels[fewer][0][mask], labels[more][0][mask]]), axis=1)
        assert pairs.shape[1] == labels[fewer][1]


def test_a_large_mask_of_noise_is_labelled_alike(masks_by: Any) -> None:
    """Enough runs for the native table of runs to grow several times."""
    mask = np.random.default_rng(8).random((20, 90, 101)) < 0.45
    labels, count = masks_by.label(mask, 18)
    expected = masks_oracle.label(mask, 18)
    assert count == expected[1]
    assert_same_bits(labels, expected[0])


@pytest.mark.parametrize(
    ("mask", "connectivity"),
    [
        (np.zeros((2, 2), bool), 6),
        (np.zeros((2, 2, 2), np.int32), 6),
        (np.zeros((2, 2, 2), bool), 8),
        (np.broadcast_to(np.False_, (2**11, 2**10, 2**10)), 6),
    ],
)
def test_what_is_no_mask_is_refused(masks_by: Any, mask: Array, connectivity: int) -> None:
    with pytest.raises(ValueError):
        masks_by.label(mask, connectivity)


# Volumes and boxes


def test_volumes_are_counts_of_voxels_slice_by_slice() -> None:
    labels, count = masks_oracle.label(noise((6, 9, 10), 0.3), 6)
    each = np.array([0.1, 0.1, 0.2, 0.3, 0.1, 0.05])
    counted = [[int((plane == n).sum()) for plane in labels] for n in range(1, count + 1)]
    np.testing.assert_allclose(masks.volumes_ml(labels, count, each), [np.dot(c, each) for c in counted], rtol=1e-12)
    np.testing.assert_allclose(masks.volumes_ml(labels, count, 0.5), [sum(c) * 0.5 for c in counted], rtol=1e-12)
    np.testing.assert_array_equal(masks.volumes_ml(np.zeros((2, 3, 4), np.int32), 0, 1.0), [])
    np.testing.assert_array_equal(masks.volumes_ml(np.zeros((2, 3, 4), np.int32), 2, 1.0), [0, 0])


@pytest.mark.parametrize("voxel_ml", [0.0, -1.0, math.nan, np.ones(3), np.ones((2, 1))])
def test_impossible_voxels_are_refused(voxel_ml: Any) -> None:
    with pytest.raises(ValueError):
        masks.volumes_ml(np.zeros((2, 3, 4), np.int32), 0, voxel_ml)


@pytest.mark.parametrize("value", [-1, 3])
def test_labels_that_do_not_count_are_refused(value: int) -> None:
    with pytest.raises(ValueError):
        masks.volumes_ml(np.full((2, 3, 4), value, np.int32), 2, 1.0)


@pytest.mark.parametrize("name", MASKS)
def test_a_box_holds_all_of_a_mask_and_nothing_to_spare(name: str) -> None:
    mask = MASKS[name]
    box = masks.bounding_box(mask)
    places = np.argwhere(mask)
    expected = np.stack([places.min(axis=0), places.max(axis=0) + 1], axis=1) if len(places) else np.zeros((3, 2))
    assert box.dtype == np.int32
    np.testing.assert_array_equal(box, expected)


# Back to the slices


def tilted(degrees: float) -> dict[str, Any]:
    angle = math.radians(degrees)
    return {"column": (0, math.cos(angle), -math.sin(angle)), "advance": (0, 0, 1)}


def turned(yaw: float, pitch: float, roll: float) -> dict[str, Any]:
    matrix = Rotation.from_euler("ZXY", [yaw, pitch, roll], degrees=True).as_matrix()
    return {"row": matrix[:, 0], "column": matrix[:, 1]}


GEOMETRIES: dict[str, dict[str, Any]] = {
    "axial": {"distances": (-6, -3, 0, 3, 6)},
    "tilted": {"distances": (-6, -3, 0, 3, 6), **tilted(18.5)},
    "tilted the other way": {"distances": (-6, -3, 0, 3, 6), **tilted(-25)},
    "variable spacing": {"distances": (-7, -5.5, -4, 0, 4, 4.5)},
    "oblique": {"distances": (-6, -3, 0, 3, 6), **turned(11, -9, 7)},
    "oblique, variable, tilted": {"distances": (-7, -3, -2, 1, 6), **turned(-20, 14, 5), "advance": (0.1, 0.2, 1)},
    "turned in the plane": {"distances": (-4, 0, 4), **turned(30, 0, 0)},
    "rolled": {"distances": (-4, 0, 4), **turned(0, 0, 14)},
    "each slice further to the left": {"distances": (-6, -3, 0, 3, 6), "advance": (0.3, 0, 1)},
    "feet first": {"distances": (-6, -2, 0, 3, 6), "row": (-1, 0, 0)},
    "prone": {"distances": (-4, 0, 4), "row": (-1, 0, 0), "column": (0, -1, 0)},
    "sagittal": {"distances": (-4, 0, 4), "row": (0, 1, 0), "column": (0, 0, -1)},
    "single slice": {"distances": (0.3,)},
    "single pixel": {"distances": (0.3,), "size": (1, 1)},
    "pixels not square": {"distances": (-4, 0, 4), "spacing": (1.1, 1.7)},
    "fine pixels": {"distances": (-4, 0, 4), "spacing": (0.3, 0.31), "size": (41, 52)},
    "far away": {"distances": (-4, 0, 4), "centre": (900, 900, 900)},
}
GRID = Target(shape=(8, 7, 6), spacing_mm=(1.6, 1.37, 1.43), origin=(-3.01, -4.17, -5.33))
"""Smaller than most stacks, so that they reach out of it on all sides."""


def stack_in(stack_of: StackOf, geometry: str) -> Volume:
    """A stack of noise with each slice's own slope and intercept."""
    rng = np.random.default_rng(4)
    plain = {"size": (12, 13), "spacing": (1.2, 1.2)}
    volume = stack_of(lambda p: rng.integers(-1000, 2000, p.shape[:-1]), **plain | GEOMETRIES[geometry])
    count = len(volume.pixels)
    return Volume(**{field.name: getattr(volume, field.name) for field in fields(volume)} | {
        "slope": np.linspace(0.5, 1.5, count, dtype=np.float32),
        "intercept": np.linspace(-300, 40, count, dtype=np.float32),
    })  # fmt: skip


def values_for(order: str, shape: tuple[int, ...] = GRID.shape) -> Array:
    """No two neighbours alike, none 0."""
    rng = np.random.default_rng(9)
    return rng.integers(1, 256, shape).astype(np.uint8) if order == "nearest" else rng.normal(2, 1, shape).astype("f4")


def places(volume: Volume, grid: Target) -> F64:
    """Grid position of every pixel, straight from the definition, [3, slices, rows, columns] in voxels."""
    slices, rows, columns = volume.pixels.shape
    out = np.empty((3, slices, rows, columns))
    for i, r, c in np.ndindex(slices, rows, columns):
        p = volume.origin[i] + r * volume.pixel_spacing[0] * volume.column_cosines
        p = p + c * volume.pixel_spacing[1] * volume.row_cosines
        out[:, i, r, c] = (p - np.array(grid.origin))[::-1] / np.array(grid.spacing_mm)
    return out


@pytest.mark.parametrize("order", masks.ORDERS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_bring_the_same_back_to_the_slices(
    implementation: Implementation, geometry: str, order: str, stack_of: StackOf
) -> None:
    volume, values = stack_in(stack_of, geometry), values_for(order)
    values.setflags(write=False)
    by_definition = {"nearest": masks_oracle.to_slices_nearest, "linear": masks_oracle.to_slices_linear}[order]
    assert_same_bits(implementation.to_slices(values, GRID, volume, order), by_definition(values, GRID, volume))


@pytest.mark.parametrize("order", masks.ORDERS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 6), (8, 1, 6), (8, 7, 1), (3, 40, 70)])
def test_grids_of_any_shape(
    implementation: Implementation, shape: tuple[int, int, int], order: str, stack_of: StackOf
) -> None:
    by_definition = {"nearest": masks_oracle.to_slices_nearest, "linear": masks_oracle.to_slices_linear}[order]
    grid = Target(shape=shape, spacing_mm=(3.0, 1.9, 1.8), origin=(-0.3, -0.4, -0.2))
    for geometry in ("axial", "oblique"):
        volume, values = stack_in(stack_of, geometry), values_for(order, shape)
        expected = by_definition(values, grid, volume)
        assert (expected != 0).any(), "the case shows nothing"
        assert_same_bits(implementation.to_slices(values, grid, volume, order), expected)


@pytest.mark.parametrize("order", masks.ORDERS)
def test_views_and_threads_make_no_difference(masks_by: Any, order: str, stack_of: StackOf) -> None:
    volume = stack_of(lambda p: p[..., 0], size=(70, 12), spacing=(0.3, 1.2), distances=(-4, 0, 4), **tilted(10))
    values = values_for(order, (7, 8, 6)).transpose(1, 0, 2)
    expected = masks_by.to_slices(np.ascontiguousarray(values), GRID, volume, order, threads=1)
    for threads in (None, 1, 2, 5, 1000):
        assert_same_bits(masks_by.to_slices(values, GRID, volume, order, threads=threads), expected)
    assert_same_bits(masks_by.to_slices(values[:, ::-1][:, ::-1], GRID, volume, order), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_definition_is_a_reading_of_world_coordinates(geometry: str, stack_of: StackOf) -> None:
    """Pixel by pixel from patient coordinates, linear values from SciPy; at an edge either is right."""
    volume = stack_in(stack_of, geometry)
    at = places(volume, GRID)
    sizes = np.array(GRID.shape)[:, None, None, None]
    inside = ((at >= -0.5) & (at <= sizes - 0.5)).all(axis=0)
    edge = (np.abs(at + 0.5 - np.rint(at + 0.5)) < 1e-4).any(axis=0)
    assert (inside & ~edge).any() or geometry == "far away", "the case shows nothing"

    mask = values_for("nearest")
    index = np.clip(np.floor(at + 0.5), 0, sizes - 1).astype(int)
    expected = np.where(inside, mask[tuple(index)], 0)
    np.testing.assert_array_equal(masks_oracle.to_slices_nearest(mask, GRID, volume)[~edge], expected[~edge])

    shares = values_for("linear")
    expected = np.where(inside, ndimage.map_coordinates(shares.astype("f8"), at, order=1, mode="nearest"), 0)
    got = masks_oracle.to_slices_linear(shares, GRID, volume)
    np.testing.assert_allclose(got[~edge], expected[~edge], atol=1e-3)


def test_positions_are_within_a_ten_thousandth_of_a_voxel_over_a_head(stack_of: StackOf) -> None:
    volume = stack_of(
        lambda p: 0 * p[..., 0], size=(512, 512), spacing=(0.47, 0.47), distances=np.arange(-80, 81, 40.0),
        centre=(-3.7, 181.3, 1204.9), **turned(4, 17, 3),
    )  # fmt: skip
    grid = Target(shape=(40, 224, 224), spacing_mm=(4.5, 1.0, 1.0), origin=(-115.2, 70.1, 1112.0))
    positions = masks_oracle.Positions.of(volume, grid)
    r, c = np.arange(512)[:, None, None], np.arange(512)[None, :, None]
    for i in range(len(volume.pixels)):
        down, right = volume.column_cosines * volume.pixel_spacing[0], volume.row_cosines * volume.pixel_spacing[1]
        exact = ((volume.origin[i] + r * down + c * right) - np.array(grid.origin))[..., ::-1] / grid.spacing_mm
        assert np.abs(positions.of_slice(i, 512, 512) - np.moveaxis(exact, -1, 0)).max() < 1e-4


@pytest.mark.parametrize("order", masks.ORDERS)
def test_equal_grids_give_the_values_back(implementation: Implementation, order: str, stack_of: StackOf) -> None:
    volume = stack_of(lambda p: p[..., 0], size=(5, 6), spacing=(0.7, 0.9), distances=(0, 1.1, 2.2, 3.3))
    x, y, z = volume.origin[0].tolist()
    values = values_for(order, (4, 5, 6))
    grid = Target(shape=(4, 5, 6), spacing_mm=(1.1, 0.7, 0.9), origin=(x, y, z))
    np.testing.assert_allclose(implementation.to_slices(values, grid, volume, order), values, atol=1e-5)


def line_of_pixels(start: float, step: float, count: int) -> Any:
    """One slice of one row along x: pixel c lies at start + c · step."""
    return SimpleNamespace(
        pixels=np.zeros((1, 1, count), np.int16), origin=np.array([[start, 0.0, 0.0]]), pixel_spacing=(1.0, step),
        row_cosines=np.array([1.0, 0, 0]), column_cosines=np.array([0, 1.0, 0]), normal=np.array([0, 0, 1.0]),
        distances=np.zeros(1),
    )  # fmt: skip


def test_edges_and_ties(implementation: Implementation) -> None:
    """Half a voxel beyond the outermost centres belongs to them, halves go up, and beyond there is nothing."""
    grid = Target(shape=(1, 1, 3), spacing_mm=(1, 1, 1), origin=(0, 0, 0))
    quarter = line_of_pixels(-1.0, 0.25, 17)  # -1, -0.75, ... 3
    mask, shares = np.array([[[10, 20, 30]]], np.uint8), np.array([[[1, 2, 4]]], np.float32)
    nearest = implementation.to_slices(mask, grid, quarter, "nearest")
    linear = implementation.to_slices(shares, grid, quarter, "linear")
    np.testing.assert_array_equal(nearest.ravel(), [0, 0, *[10] * 4, *[20] * 4, *[30] * 5, 0, 0])
    np.testing.assert_array_equal(linear.ravel(), [0, 0, 1, 1, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 4, 4, 0, 0])


@pytest.mark.parametrize("order", masks.ORDERS)
@given(
    angles=st.tuples(*[st.floats(-40, 40)] * 3), centre=st.tuples(*[st.floats(-200, 200)] * 3),
    spacing=st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)), value=st.integers(1, 255),
)  # fmt: skip
def test_a_constant_comes_back_inside_and_nothing_outside(
    stack_of: StackOf, order: str, angles: tuple[float, ...], centre: Any, spacing: Any, value: int
) -> None:
    geometry = {"size": (9, 10), "spacing": spacing, "distances": (-7, -2, 0, 5), "centre": centre, **turned(*angles)}
    volume = stack_of(lambda p: 0 * p[..., 0], **geometry)
    dtype = np.uint8 if order == "nearest" else np.float32
    x, y, z = (np.array(centre) - 5).tolist()
    grid = Target(shape=(6, 9, 8), spacing_mm=(1.7, 1.1, 1.2), origin=(x, y, z))
    out = masks.to_slices(np.full(grid.shape, value, dtype), grid, volume, order)
    at, sizes = places(volume, grid), np.array(grid.shape)[:, None, None, None]
    assert (out[((at > -0.499) & (at < sizes - 0.501)).all(axis=0)] == value).all()
    assert (out[((at < -0.501) | (at > sizes - 0.499)).any(axis=0)] == 0).all()


def test_a_mask_of_truth_values_comes_back_as_bytes(masks_by: Any, stack_of: StackOf) -> None:
    volume, mask = stack_in(stack_of, "axial"), noise(GRID.shape, 0.5)
    assert_same_bits(
        masks_by.to_slices(mask, GRID, volume, "nearest"),
        masks_by.to_slices(mask.astype("u1"), GRID, volume, "nearest"),
    )


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (np.zeros(GRID.shape, np.uint8), "cubic"),
        (np.zeros(GRID.shape, np.float32), "nearest"),
        (np.zeros(GRID.shape, np.uint8), "linear"),
        (np.zeros(GRID.shape, np.float64), "linear"),
        (np.zeros((2, 2, 2), np.uint8), "nearest"),
        (np.full(GRID.shape, np.nan, np.float32), "linear"),
        (np.full(GRID.shape, np.inf, np.float32), "linear"),
    ],
)
def test_what_cannot_be_brought_back_is_refused(masks_by: Any, values: Array, order: str, stack_of: StackOf) -> None:
    with pytest.raises(ValueError):
        masks_by.to_slices(values, GRID, stack_in(stack_of, "axial"), order)


# Quantisation

HALVES = np.arange(-260, 261, dtype=np.float32) / 2
LIMIT = float(np.finfo(np.float32).max)
SPECIAL = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, LIMIT, -LIMIT, np.inf, -np.inf], np.float32)
QUANTISED: dict[str, tuple[Array, float]] = {
    "halves": (HALVES, 1.0),
    "beside halves": (np.nextafter(HALVES, np.float32(np.inf)), 1.0),
    "below halves": (np.nextafter(HALVES, np.float32(-np.inf)), 1.0),
    "an odd scale": (np.linspace(-5, 5, 9999, dtype=np.float32), 0.0371),
    "a tiny scale": (SPECIAL, 1e-37),
    "a huge scale": (SPECIAL, 1e37),
    "special": (SPECIAL, 0.5),
    "none": (np.zeros((3, 0, 2), np.float32), 1.0),
    "a scalar": (np.array(1.5, np.float32), 1.0),
    "one block": (np.linspace(-200, 200, 1 << 16, dtype=np.float32), 1.3),
    "a little more": (np.linspace(-200, 200, (1 << 16) + 3, dtype=np.float32), 1.3),
    "a view": (np.linspace(-200, 200, 2400, dtype=np.float32).reshape(10, 12, 20)[::2, ::-1].transpose(2, 0, 1), 1.3),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_all_quantise_alike(implementation: Implementation, name: str) -> None:
    values, scale = QUANTISED[name]
    assert_same_bits(
        implementation.quantize(values, scale),
        masks_oracle.quantize(np.asarray(values, order="C"), np.float32(1 / scale)),
    )


def test_the_definition_of_quantisation_rounds_half_to_even() -> None:
    """Python's round does, and so does this; only the product is rounded to float32 before."""
    for values, scale in QUANTISED.values():
        inverse = np.float32(1 / scale)
        for value, got in zip(values.ravel()[::7], masks_oracle.quantize(values, inverse).ravel()[::7], strict=True):
            steps = float(value) * float(inverse)
            assert got == round(max(-127.0, min(127.0, float(np.float32(steps)) if abs(steps) < 200 else steps)))


@pytest.mark.parametrize("place", [0, 5, 70_000])
def test_nan_is_no_integer(implementation: Implementation, place: int) -> None:
    values = np.zeros(70_001, np.float32)
    values[place] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        implementation.quantize(values, 0.1)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-39, 1e39])
def test_impossible_scales_are_refused(masks_by: Any, scale: float) -> None:
    with pytest.raises(ValueError):
        masks_by.quantize(np.zeros(3, np.float32), scale)


def test_only_float32_is_quantised(masks_by: Any) -> None:
    with pytest.raises(ValueError):
        masks_by.quantize(np.zeros(3), 1.0)


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1), scale=st.floats(1e-6, 1e6))
def test_quantised_values_are_bounded_monotone_and_near(values: list[float], scale: float) -> None:
    ordered = np.sort(np.array(values, np.float32))
    out = masks.quantize(ordered, scale).astype(int)
    assert (np.abs(out) <= 127).all()
    assert (np.diff(out) >= 0).all()
    near = np.abs(ordered) < 127 * scale
    np.testing.assert_allclose(out[near] * scale, ordered[near], atol=scale * 0.5001)


# Nearest pixels


def slow_nearest(stack: Any, grid: Target) -> Array:
    """Voxel by voxel, in Python floats."""
    out = np.full(grid.shape, AIR_HU)
    d = [float(x) for x in stack.distances]
    gap = float(np.median(np.diff(d))) if len(d) > 1 else 0.0
    reach = max(gap, grid.spacing_mm[0]) / 2
    for k, j, i in np.ndindex(*grid.shape):
        p = np.array(grid.origin) + np.array([i, j, k]) * np.array(grid.spacing_mm[::-1])
        s = float(p @ stack.normal)
        if not d[0] - reach < s < d[-1] + reach:
            continue
        index = min(range(len(d)), key=lambda n: abs(d[n] - s))
        offset = p - stack.origin[index]
        row = round(float(offset @ stack.column_cosines) / stack.pixel_spacing[0])
        column = round(float(offset @ stack.row_cosines) / stack.pixel_spacing[1])
        if not (0 <= row < stack.pixels.shape[1] and 0 <= column < stack.pixels.shape[2]):
            continue
        stored = int(stack.pixels[index, row, column])
        if stack.padding is None or not stack.padding[0] <= stored <= stack.padding[1]:
            out[k, j, i] = stored * float(stack.slope[index]) + float(stack.intercept[index])
    return out


def with_padding(volume: Volume, padding: tuple[int, int] | None) -> Volume:
    return Volume(**{field.name: getattr(volume, field.name) for field in fields(volume)} | {"padding": padding})


SAMPLED = Target(shape=(9, 11, 10), spacing_mm=(2.3, 1.93, 1.87), origin=(-9.03, -10.11, -9.33))
"""Reaches out of the stacks on all sides."""


@pytest.mark.parametrize("padding", [None, (-1000, -400)])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_nearest_pixels_are_those_of_the_definition(
    masks_by: Any, geometry: str, padding: tuple[int, int] | None, stack_of: StackOf
) -> None:
    volume = with_padding(stack_in(stack_of, geometry), padding)
    expected = masks_oracle.nearest(volume, SAMPLED)
    for threads in (None, 1, 3):
        assert_same_bits(masks_by.nearest(volume, SAMPLED, threads=threads), expected)
    np.testing.assert_allclose(expected, slow_nearest(volume, SAMPLED), atol=1e-3)
    if geometry not in ("far away", "single pixel"):
        assert (expected != AIR_HU).any(), "the case shows nothing"
    assert (expected == AIR_HU).any(), "the case has no outside"


def test_ties_between_pixels_and_slices_and_the_ends_of_padding(masks_by: Any, stack_of: StackOf) -> None:
    """Halfway between pixels the even one, between slices the one before; ends of the stack are outside."""
    volume = stack_of(lambda p: 0 * p[..., 0], size=(1, 5), spacing=(2, 2), distances=(-4, 0, 4), padding=(17, 19))
    volume.pixels[:] = np.arange(10, 25).reshape(3, 1, 5)  # of which the middle row is 15 to 19
    x, y, _ = volume.origin[0].tolist()
    slices = Target(shape=(7, 1, 1), spacing_mm=(2, 2, 2), origin=(x, y, -6.0))  # -6, -4, ... 6
    air = AIR_HU
    np.testing.assert_array_equal(masks_by.nearest(volume, slices).ravel(), [air, 10, 10, 15, 15, 20, air])
    pixels = Target(shape=(3, 1, 11), spacing_mm=(4, 2, 1), origin=(x - 1, y, -4.0))  # -0.5, 0, 0.5, ... 4.5 pixels
    expected = [
        [10, 10, 10, 11, 12, 12, 12, 13, 14, 14, 14],
        [15, 15, 15, 16, air, air, air, air, air, air, air],
        [20, 20, 20, 21, 22, 22, 22, 23, 24, 24, 24],
    ]
    np.testing.assert_array_equal(masks_by.nearest(volume, pixels)[:, 0], expected)


@pytest.mark.parametrize("view", ["columns", "rows", "reversed", "copied"])
def test_pixels_need_not_be_contiguous(masks_by: Any, view: str, stack_of: StackOf) -> None:
    volume = stack_in(stack_of, "tilted")
    pixels = np.zeros([2 * n for n in volume.pixels.shape], np.int16)
    pixels = {
        "columns": pixels[::2, ::2, ::2], "rows": pixels[1::2, ::2, :13], "reversed": pixels[:5, :12, 12::-1],
        "copied": pixels[:5, :12, :13],
    }[view]  # fmt: skip
    pixels[...] = volume.pixels
    names = (
        "slope", "intercept", "origin", "row_cosines", "column_cosines", "pixel_spacing", "padding", "normal",
        "distances",
    )  # fmt: skip
    stack = SimpleNamespace(pixels=pixels, **{name: getattr(volume, name) for name in names})
    assert_same_bits(masks_by.nearest(stack, SAMPLED), masks_oracle.nearest(volume, SAMPLED))


def test_an_empty_stack_has_no_nearest_pixel(masks_by: Any) -> None:
    stack = line_of_pixels(0.0, 1.0, 1)
    stack.pixels = np.zeros((0, 4, 4), np.int16)
    with pytest.raises(ValueError):
        masks_by.nearest(stack, SAMPLED)


# The native interface


def test_another_layout_is_refused(native: ctypes.CDLL) -> None:
    stack, values, out = line_of_pixels(0.0, 1.0, 3), np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)
    grid = Target(shape=(1, 1, 3), spacing_mm=(1, 1, 1), origin=(0, 0, 0))
    positions = masks_oracle.Positions.of(stack, grid)
    block = masks.return_parameters(positions, stack.pixels.shape, grid.shape)
    pointers = [a.ctypes.data for a in (positions.start, values, out)]
    assert native.eh_to_slices_nearest(ctypes.byref(block), *pointers, 1) == 0
    block.size += 4
    assert native.eh_to_slices_nearest(ctypes.byref(block), *pointers, 1) == -1
    assert native.eh_nearest(ctypes.byref(masks.NearestParameters()), *[None] * 7, 1) == -1


def test_impossible_sizes_are_refused(native: ctypes.CDLL) -> None:
    count = ctypes.c_int32()
    for shape in ((-1, 2, 2), (2**11, 2**10, 2**10), (2**20, 2**20, 2**20)):
        assert native.eh_label(None, *shape, 6, None, ctypes.byref(count)) == -2
    assert native.eh_quantize(None, None, -1, 1.0, 1) == -2
    block = masks.ReturnParameters(size=ctypes.sizeof(masks.ReturnParameters), slices=1, rows=1, columns=1)
    assert native.eh_to_slices_linear(ctypes.byref(block), None, None, None, 1) == -2


def test_a_fake_library_without_memory_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_library", lambda: SimpleNamespace(eh_label=lambda *_: -3))
    with pytest.raises(MemoryError):
        masks.label(np.ones((1, 1, 1), bool))


def test_the_matrix_holds_under_the_sanitizers(sanitized_environment: dict[str, str]) -> None:
    """Every access within its array, no undefined arithmetic: native code and kernel source on the host."""
    if SANITIZERS:
        pytest.skip("already under the sanitizers")
    chosen = "(native or host) and not numpy and not refused"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=sanitized_environment | {SANITIZED: "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 200, done.stdout[-500:]
