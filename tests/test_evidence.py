"""Key slices and suspected regions land on the acquired pixels that the grid looked at."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.errors import BundleError
from edgehem.evidence import KEY_SLICES, KEY_WEIGHT, key_slices, suspected_box
from edgehem.kernels import Target
from edgehem.preprocess import grid_point
from edgehem.volume import Volume

F32 = npt.NDArray[np.float32]

TARGET = Target(shape=(20, 64, 64), spacing_mm=(6.0, 3.0, 3.0), origin=(-94.0, -99.0, -50.0))
CELL = 4
"""Grid rows and columns per cell of the blood map."""
TILT = math.radians(17)


@pytest.fixture(scope="module")
def volume(stack_of: Callable[..., Volume]) -> Volume:
    """A tilted stack whose slice distance changes from 3 to 7 mm, 2 mm pixels."""
    return stack_of(
        lambda points: np.zeros(points.shape[:-1]),
        size=(110, 120),
        spacing=(2.0, 1.8),
        distances=np.concatenate([np.arange(-65, 0, 3.0), np.arange(2, 85, 7.0)]),
        column=(0, math.cos(TILT), -math.sin(TILT)),
        advance=(0, 0, 1),
    )


def blank() -> F32:
    """A blood map in which nothing is suspected."""
    return np.full((TARGET.shape[0], TARGET.shape[1] // CELL, TARGET.shape[2] // CELL), -8, np.float32)


def attend(**weights: float) -> F32:
    """Attention by plane: ``attend(p3=0.5)``."""
    attention = np.zeros(TARGET.shape[0], np.float32)
    for plane, weight in weights.items():
        attention[int(plane[1:])] = weight
    return attention


def nearest_slice(volume: Volume, points: npt.NDArray[np.float64], place: npt.NDArray[np.float64]) -> int:
    """The slice with the pixel nearest to a place: no projection, every pixel is looked at."""
    return int(np.argmin(np.linalg.norm(points - place, axis=-1).reshape(len(points), -1).min(axis=1)))


@pytest.mark.parametrize("plane", [2, 7, 10, 15])
def test_a_plane_is_answered_with_the_slice_at_its_middle(
    plane: int, volume: Volume, points_of: Callable[[Volume], npt.NDArray[np.float64]]
) -> None:
    (key,) = key_slices(volume, TARGET, attend(**{f"p{plane}": 0.9}), blank())
    assert key.index == nearest_slice(volume, points_of(volume), grid_point(TARGET, plane, 31.5, 31.5))
    assert key.weight == pytest.approx(0.9)
    assert key.box is None


@pytest.mark.parametrize("place", [(10.0, -5.0), (-40.0, 30.0), (35.0, 55.0)])
@pytest.mark.parametrize("plane", [3, 9, 14])
def test_the_box_surrounds_what_was_planted(
    plane: int,
    place: tuple[float, float],
    volume: Volume,
    points_of: Callable[[Volume], npt.NDArray[np.float64]],
) -> None:
    """A disc of 18 mm radius anywhere in a plane: on the slice, its box has its middle and its size, to a cell."""
    centre, radius = np.array([*place, grid_point(TARGET, plane, 0, 0)[2]]), 18.0
    blood = blank()
    step = CELL * TARGET.spacing_mm[1]
    for row, column in np.ndindex(*blood.shape[1:]):
        middle = grid_point(TARGET, plane, (row + 0.5) * CELL - 0.5, (column + 0.5) * CELL - 0.5)
        distance = float(np.linalg.norm(middle - centre))
        if distance < radius:
            blood[plane, row, column] = 5 - distance / radius
    (key,) = key_slices(volume, TARGET, attend(**{f"p{plane}": 1.0}), blood)
    assert key.box is not None
    # The slice passes through the disc's middle, to half a slice distance and a cell across the tilt.
    off = abs(float(volume.distances[key.index] - centre @ volume.normal))
    assert off < 3.5 + step * math.sin(TILT)
    pixels = points_of(volume)[key.index]
    row, column = np.unravel_index(np.argmin(np.linalg.norm(pixels - centre, axis=-1)), pixels.shape[:2])
    first_row, first_column, last_row, last_column = key.box
    assert (first_row + last_row) / 2 * 2.0 == pytest.approx(row * 2.0, abs=step)
    assert (first_column + last_column) / 2 * 1.8 == pytest.approx(column * 1.8, abs=step)
    assert (last_row - first_row) * 2.0 == pytest.approx(2 * radius, abs=2 * step)
    assert (last_column - first_column) * 1.8 == pytest.approx(2 * radius, abs=2 * step)


def test_the_box_of_one_cell_is_that_cell(stack_of: Callable[..., Volume]) -> None:
    """On slices that lie in the grid's planes, to a pixel."""
    volume = stack_of(lambda p: np.zeros(p.shape[:-1]), size=(201, 201), spacing=(1, 1), distances=(-5, 0, 5))
    target = Target(shape=(1, 40, 40), spacing_mm=(5.0, 4.0, 4.0), origin=(-78.0, -78.0, 0.0))
    cells = np.full((10, 10), -1, np.float32)
    cells[2, 7] = 1
    # Cell 2 holds grid rows 8 to 11, whose outer edges lie at -78 + (7.5 or 11.5) · 4 mm; pixel 0 lies at -100 mm.
    assert suspected_box(volume, target, cells, 0, 1) == (52, 132, 68, 148)


def test_only_the_region_around_the_most_suspicious_cell_is_boxed(volume: Volume) -> None:
    """Cells hang together over corners too; another region, and a cell below even odds, do not."""
    alone, diagonal, apart = blank()[0], blank()[0], blank()[0]
    alone[5, 5] = 3
    diagonal[5, 5], diagonal[6, 6] = 3, 0.5
    apart[5, 5], apart[12, 12], apart[5, 6] = 3, 2, -0.1
    boxes = [suspected_box(volume, TARGET, cells, 9, 20) for cells in (alone, diagonal, apart)]
    assert boxes[2] == boxes[0]
    assert boxes[0] is not None and boxes[1] is not None
    assert boxes[1][:2] == boxes[0][:2] and boxes[1][2] > boxes[0][2] and boxes[1][3] > boxes[0][3]


def test_a_box_ends_at_the_edge_of_the_image(stack_of: Callable[..., Volume]) -> None:
    """The grid may be larger than the field of view."""
    volume = stack_of(lambda p: np.zeros(p.shape[:-1]), size=(40, 30), spacing=(1, 1), distances=(-50, 0, 70))
    assert suspected_box(volume, TARGET, np.full((16, 16), 2, np.float32), 9, 1) == (0, 0, 39, 29)


def test_planes_on_the_same_slice_are_added_up(stack_of: Callable[..., Volume]) -> None:
    """Weights add; the box is that of the heavier plane."""
    volume = stack_of(lambda p: np.zeros(p.shape[:-1]), size=(99, 99), spacing=(2, 2), distances=(-40, -20, 0, 20, 40))
    blood = blank()
    blood[8, 4, 4], blood[9, 10, 10] = 1, 1  # planes at z = -2 and 4
    (key,) = key_slices(volume, TARGET, attend(p8=0.3, p9=0.5), blood)
    assert (key.index, key.weight) == (2, pytest.approx(0.8))
    assert key.box == suspected_box(volume, TARGET, blood[9], 9, 2) != suspected_box(volume, TARGET, blood[8], 8, 2)


def test_the_heaviest_come_first_and_the_light_ones_not_at_all(volume: Volume) -> None:
    attention = attend(p2=0.1, p5=0.2, p8=0.3, p11=0.05, p13=0.15, p15=0.12, p17=KEY_WEIGHT / 2)
    keys = key_slices(volume, TARGET, attention, blank())
    assert [round(key.weight, 2) for key in keys] == [0.3, 0.2, 0.15, 0.12]
    assert len(keys) == KEY_SLICES
    assert key_slices(volume, TARGET, attend(p4=KEY_WEIGHT / 2), blank()) == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["attention", "map"])
def test_evidence_that_is_no_number_is_refused(where: str, value: float, volume: Volume) -> None:
    """As logits are: a result never holds a NaN."""
    attention, blood = attend(p4=0.9), blank()
    if where == "attention":
        attention[7] = value
    else:
        blood[4, 3, 3] = value
    with pytest.raises(BundleError, match="not a number"):
        key_slices(volume, TARGET, attention, blood)


def test_evidence_of_another_grid_is_refused(volume: Volume) -> None:
    with pytest.raises(BundleError, match="20 planes"):
        key_slices(volume, TARGET, attend(p4=0.9)[:-1], blank())
    with pytest.raises(BundleError, match="20 planes"):
        key_slices(volume, TARGET, attend(p4=0.9), blank()[:-1])
