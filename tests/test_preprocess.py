"""Where the head is found, how the grid hangs on it, and what is said about the part that was scanned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.errors import Code, Refusal
from edgehem.kernels import Target
from edgehem.preprocess import (
    CANONICAL,
    FULL_COVER_MM,
    LEAST_COVER_MM,
    VERTEX_MARGIN_MM,
    HeadPosition,
    PreprocessSpec,
    coverage_notes,
    fill,
    grid_point,
    locate_head,
    place,
    place_grid,
    plane_to_slice,
    plane_validity,
)
from edgehem.volume import Volume

StackOf = Callable[..., Volume]
F64 = npt.NDArray[np.float64]

CENTRE = np.array([6.0, -11.0, 15.0])
RADII = np.array([72.0, 88.0, 80.0])
VERTEX_Z = CENTRE[2] + RADII[2]
WITHIN_MM = 5.0
"""One voxel of the coarse grid and half a slice."""
SPEC = PreprocessSpec(shape=(12, 16, 16), spacing_mm=(15.0, 14.0, 14.0), windows=((40, 80),))


def head(points: F64) -> F64:
    """An ellipsoid of bone around brain, in air."""
    r = np.linalg.norm((points - CENTRE) / RADII, axis=-1)
    return np.select([r < 0.92, r < 1], [35.0, 900.0], -1000.0)


def headrest(points: F64) -> F64:
    """A U-shaped shell, 6 mm thick, that the back of the head lies on and that reaches over the vertex."""
    x, y, z = np.moveaxis(points - CENTRE, -1, 0)
    bottom = (np.abs(y - RADII[1] - 1) < 3) & (np.abs(x) < 60)
    arms = (np.abs(np.abs(x) - 85) < 3) & (y > -20) & (y < RADII[1])
    joints = (np.abs(np.hypot(np.abs(x) - 60, (y - RADII[1] + 26) * 25 / 27) - 25) < 3) & (y > RADII[1] - 26)
    return np.where((bottom | arms | (joints & (np.abs(x) > 60))) & (z > -90), 200.0, -1000.0)


def head_on_rest(points: F64) -> F64:
    return np.maximum(head(points), headrest(points))


def acquire(stack_of: StackOf, solid: Callable[[F64], F64] = head, **geometry: Any) -> Volume:
    """240 × 240 mm of 2.5 mm pixels, slices every 5 mm from z = -85 to 120."""
    plain = {"size": (96, 96), "spacing": (2.5, 2.5), "distances": np.arange(-85, 121, 5.0)}
    return stack_of(solid, **plain | geometry)


def gantry(degrees: float) -> dict[str, Any]:
    angle = math.radians(degrees)
    return {"column": (0, math.cos(angle), -math.sin(angle)), "advance": (0, 0, 1)}


def upside_down(volume: Volume) -> Volume:
    """The same stack with its normal towards the feet, as when the patient was scanned feet first."""
    return replace(
        volume,
        pixels=np.ascontiguousarray(volume.pixels[::-1, :, ::-1]),
        origin=volume.origin[::-1] + volume.row_cosines * volume.pixel_spacing[1] * (volume.pixels.shape[2] - 1),
        row_cosines=-volume.row_cosines,
    )


def above_removed(volume: Volume, z: float) -> Volume:
    """The stack without the slices whose middle lies above z."""
    keep = volume.origin[:, 2] + volume.column_cosines[2] * 120 < z
    return replace(
        volume,
        pixels=volume.pixels[keep],
        slope=volume.slope[keep],
        intercept=volume.intercept[keep],
        origin=volume.origin[keep],
    )


# Locating


@pytest.mark.parametrize("solid", [head, head_on_rest])
@pytest.mark.parametrize("geometry", [{}, gantry(18), {"row": (-1, 0, 0), "column": (0, -1, 0)}])
def test_the_head_is_found_with_and_without_a_headrest(
    stack_of: StackOf, geometry: dict[str, Any], solid: Callable[[F64], F64]
) -> None:
    """The rest touches the head and reaches over the vertex; neither centre nor vertex follow it."""
    found = locate_head(acquire(stack_of, solid, **geometry))
    assert found.vertex_z == pytest.approx(VERTEX_Z, abs=WITHIN_MM)
    assert found.centre_x == pytest.approx(CENTRE[0], abs=WITHIN_MM)
    assert found.centre_y == pytest.approx(CENTRE[1], abs=WITHIN_MM)
    assert found.lowest_z == pytest.approx(CENTRE[2] - RADII[2], abs=WITHIN_MM)
    assert not found.vertex_cut


def test_the_rest_of_that_test_would_mislead() -> None:
    """The headrest used above is one that a plain bounding box would follow: over the vertex and past the side."""
    z = np.array([*CENTRE[:2], VERTEX_Z + 20]) + np.array([0, RADII[1] + 1, 0])
    side = CENTRE + np.array([85, 0, 0])
    assert (headrest(np.array([z, side])) > 0).all()


def test_padding_is_no_tissue(stack_of: StackOf) -> None:
    """Stored values that mean "nothing here" may be large; they do not make a head."""
    volume = acquire(stack_of, head, padding=(3000, 3000))
    volume.pixels[:, :, :20] = 3000
    assert locate_head(volume).centre_x == pytest.approx(CENTRE[0], abs=WITHIN_MM)


@pytest.mark.parametrize(
    "solid",
    [
        lambda p: np.full(p.shape[:-1], -1000.0),
        headrest,
        lambda p: np.where(np.linalg.norm(p, axis=-1) < 40, 40.0, -1000.0),
    ],
    ids=["air", "headrest alone", "a ball of 270 mL"],
)
def test_no_head_is_refused(stack_of: StackOf, solid: Callable[[F64], F64]) -> None:
    with pytest.raises(Refusal) as refused:
        locate_head(acquire(stack_of, solid))
    assert refused.value.code is Code.NOT_HEAD


@pytest.mark.parametrize("feet_first", [False, True])
@pytest.mark.parametrize(
    ("tilt", "missing_mm", "cut"), [(0, -10, False), (0, 3, False), (0, 30, True), (18, -10, False), (18, 30, True)]
)
def test_a_vertex_that_was_not_scanned_is_noticed(
    stack_of: StackOf, tilt: float, missing_mm: float, cut: bool, feet_first: bool
) -> None:
    """A stack that ends in air or grazes the scalp is whole; one that ends inside the brain is not."""
    volume = above_removed(acquire(stack_of, **gantry(tilt)), VERTEX_Z - missing_mm)
    assert volume.tilt_deg == pytest.approx(tilt, abs=0.1)
    found = locate_head(upside_down(volume) if feet_first else volume)
    assert found.vertex_cut is cut


# Saying what is missing


def position(**changes: Any) -> HeadPosition:
    whole = {"vertex_z": 100.0, "centre_x": 3.0, "centre_y": -4.0, "lowest_z": -60.0, "vertex_cut": False}
    return HeadPosition(**whole | changes)


def test_a_whole_head_needs_no_note() -> None:
    assert coverage_notes(position()) == ()
    assert coverage_notes(position(lowest_z=100 - FULL_COVER_MM)) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vertex_cut": True}, ["the vertex"]),
        ({"lowest_z": 100 - FULL_COVER_MM + 1}, ["the skull base"]),
        ({"lowest_z": 100 - LEAST_COVER_MM, "vertex_cut": True}, ["the vertex", "the skull base"]),
    ],
)
def test_what_was_not_scanned_is_named(changes: dict[str, Any], words: list[str]) -> None:
    (note,) = coverage_notes(position(**changes))
    assert note.code is Code.COVERAGE_PARTIAL
    for word in ("the vertex", "the skull base"):
        assert (word in note.reason) is (word in words)


def test_too_little_of_a_head_is_refused() -> None:
    with pytest.raises(Refusal, match="59 mm") as refused:
        coverage_notes(position(lowest_z=100 - LEAST_COVER_MM + 1))
    assert refused.value.code is Code.COVERAGE


# The grid


@pytest.mark.parametrize("spec", [SPEC, CANONICAL])
def test_the_grid_hangs_from_the_vertex_around_the_head(spec: PreprocessSpec) -> None:
    """Its upper face lies a margin above the vertex; its middle, by rows and columns, in the head's."""
    target = place_grid(position(), spec)
    planes, rows, columns = spec.shape
    middle = grid_point(target, planes - 0.5, (rows - 1) / 2, (columns - 1) / 2)
    np.testing.assert_allclose(middle, [3.0, -4.0, 100.0 + VERTEX_MARGIN_MM])
    assert (target.shape, target.spacing_mm) == (spec.shape, spec.spacing_mm)


def test_grid_points_count_columns_to_the_left_rows_to_the_back_planes_up() -> None:
    target = Target(shape=(2, 2, 2), spacing_mm=(4.0, 3.0, 2.0), origin=(10.0, 20.0, 30.0))
    np.testing.assert_allclose(grid_point(target, 1, 2, 3), [16.0, 26.0, 34.0])


@pytest.mark.parametrize("tilt", [-20, 0, 20])
def test_planes_are_valid_where_their_middle_is_mostly_covered(stack_of: StackOf, tilt: float) -> None:
    """The middle is the central half by rows and columns; its outside says nothing."""
    volume = acquire(stack_of, distances=np.arange(-40, 41, 5.0), **gantry(tilt))
    target = place_grid(position(), CANONICAL)
    valid = plane_validity(volume, target)
    assert valid.dtype == np.float32
    assert set(valid.tolist()) == {0.0, 1.0}
    middles = np.array([grid_point(target, plane, 111.5, 111.5) for plane in range(len(valid))])
    outside = np.abs(middles @ volume.normal - volume.distances[8]) - 42.5  # mm beyond the stack's faces
    assert (valid[outside < -2] == 1).all() and (valid[outside > 2] == 0).all()


@pytest.mark.parametrize("tilt", [-20, 0, 20])
def test_a_plane_is_shown_by_the_slice_that_passes_nearest_to_its_middle(stack_of: StackOf, tilt: float) -> None:
    """On a tilted, unevenly spaced stack, by the distance of points on every slice."""
    distances = np.concatenate([np.arange(-80, 0, 2.5), np.arange(0, 110, 7.0)])
    volume = acquire(stack_of, distances=distances, **gantry(tilt))
    target = place_grid(position(), CANONICAL)
    for plane in range(0, CANONICAL.shape[0], 3):
        middle = grid_point(target, plane, 111.5, 111.5)
        nearest = []
        for index, origin in enumerate(volume.origin):
            row, column = volume.world_to_index(middle[None], index)[0]
            foot = origin + row * 2.5 * volume.column_cosines + column * 2.5 * volume.row_cosines
            nearest.append(np.linalg.norm(middle - foot))
        assert plane_to_slice(volume, target, plane) == int(np.argmin(nearest))


def test_the_models_input_shows_the_head_in_the_middle_of_the_grid(stack_of: StackOf) -> None:
    """Shape, type, validity and content of the tensor, for a stack that starts above the grid's lowest planes."""
    volume = acquire(stack_of, distances=np.arange(-30, 121, 5.0))
    prepared = place(volume, SPEC)
    tensor = fill(volume, prepared, SPEC)
    assert tensor.shape == (1, 12, 1, 16, 16)
    assert tensor.dtype == np.float32
    assert prepared.valid.shape == (1, 12) and prepared.valid.dtype == np.float32
    z = np.array([grid_point(prepared.target, plane, 0, 0)[2] for plane in range(12)])
    # Half a slice more than the first centre is covered, and as much of a plane may miss.
    np.testing.assert_array_equal(prepared.valid[0][np.abs(z + 32.5) > 7.5], z[np.abs(z + 32.5) > 7.5] > -32.5)
    brain, air = tensor[0, 8, 0, 7:9, 7:9], tensor[0, 8, 0, :, 0]
    np.testing.assert_allclose(brain, 35 / 80, atol=1e-3)
    np.testing.assert_allclose(air, 0)
