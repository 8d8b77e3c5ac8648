"""The arithmetic of one pass, laid out once: geometry in float64 on the host, tables in float32 for every kernel.

Every implementation reads the same plan, so what they compute can be compared bit for bit; the plan itself is compared
with world coordinates in the tests. Positions are kept relative to the middle slice, where float32 is most accurate:
within 1e-4 of a pixel and of a slice gap over any head.

Along the normal, `knots` are the lower face of the first slice, the slices' own distances, and the upper face of the
last. Between two slices a stack is interpolated linearly; between an outer slice and its face it is constant, and
beyond the faces there is air.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.kernels.types import AIR_HU, Stack, Target, Windows

Float32 = npt.NDArray[np.float32]

MAX_REDUCTION = 4
"""Largest whole factor by which slices are reduced in the plane."""

COARSER = 1.5
"""From this ratio of grid spacing to acquired spacing on, an antialiased grid averages."""

NEGLIGIBLE = 1e-5
"""Steps that move less than this over the whole grid (pixels, or mm along the normal) are rounding, and become zero."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One stack on one grid.

    Positions of voxel [k, j, i] are ``((start + k·per_plane) + j·per_row) + i·per_column``, in float32, in this order.

    Parameters
    ----------
    slices, rows, columns : int
        The stack as stored.
    factor : int
        In-plane reduction; a reduced pixel is the mean of factor² stored ones.
    shape : tuple of int
        Of the grid: Z, Y, X.
    along : float32 array [4]
        Distance along the normal, mm: start, per plane, per row, per column.
    row, column : float32 arrays [4]
        Position within the middle slice, reduced pixels, likewise.
    extent : float
        Length of normal over which slices are averaged, mm; 0 interpolates between two slices.
    knots : float32 array [Z + 2], mm
    inverse_gap : float32 array [Z + 1], 1/mm
    row_offset, column_offset : float32 arrays [Z]
        What a slice's own position takes from `row` and `column`, reduced pixels.
    gain, intercept : float32 arrays [Z]
        HU of a reduced pixel = sum of its stored values · gain + intercept.
    padded : float32 array [Z]
        Added once for each stored value that is padding (and is left out of the sum).
    padding : tuple of int or None
        Inclusive range of stored values.
    """

    slices: int
    rows: int
    columns: int
    factor: int
    shape: tuple[int, int, int]
    along: Float32
    row: Float32
    column: Float32
    extent: float
    knots: Float32
    inverse_gap: Float32
    row_offset: Float32
    column_offset: Float32
    gain: Float32
    intercept: Float32
    padded: Float32
    padding: tuple[int, int] | None

    @classmethod
    def of(cls, stack: Stack, target: Target) -> Plan:
        """Lay out a stack on a grid.

        Parameters
        ----------
        stack : Stack
        target : Target

        Raises
        ------
        ValueError
            If the stack has no slices, or slices without pixels.
        """
        slices, rows, columns = stack.pixels.shape
        if min(slices, rows, columns) < 1:
            raise ValueError(f"a stack needs slices with pixels, not {stack.pixels.shape}")
        factor = min(reduction(stack, target), rows, columns)
        middle = slices // 2
        row_mm, column_mm = (mm * factor for mm in stack.pixel_spacing)
        down, right, normal = stack.column_cosines, stack.row_cosines, stack.normal
        # The centre of a reduced pixel is the mean of the centres it was made of.
        shift = (factor - 1) / 2 * (right * stack.pixel_spacing[1] + down * stack.pixel_spacing[0])
        start = np.asarray(target.origin, np.float64) - stack.origin[middle]
        # Targets are axis-parallel: planes along z, rows along y, columns along x.
        steps = np.array([start, *(np.diag(target.spacing_mm) @ np.eye(3)[::-1])])  # [start|k|j|i, xyz] mm
        sizes = (1, *target.shape)

        def affine(axis: npt.NDArray[np.float64], offset: float = 0.0) -> Float32:
            values = steps @ axis
            values[0] -= offset
            negligible = np.abs(values) * sizes < NEGLIGIBLE
            return np.where(negligible, 0.0, values).astype(np.float32)

        def offsets(axis: npt.NDArray[np.float64]) -> Float32:
            values = (stack.origin - stack.origin[middle]) @ axis
            return np.where(np.abs(values) < NEGLIGIBLE, 0.0, values).astype(np.float32)

        distances = stack.distances - stack.distances[middle]
        gaps = np.diff(distances)
        extent = float(np.abs(normal) @ target.spacing_mm[::-1])
        averaged = slices > 1 and target.resampling == "antialiased" and extent >= COARSER * np.median(gaps)
        half = (gaps[0] / 2, gaps[-1] / 2) if slices > 1 else (extent / 2, extent / 2)
        knots = np.array([distances[0] - half[0], *distances, distances[-1] + half[1]])
        gain = stack.slope.astype(np.float64) / factor**2
        intercept = stack.intercept.astype(np.float64)
        return cls(
            slices=slices,
            rows=rows,
            columns=columns,
            factor=factor,
            shape=target.shape,
            along=affine(normal),
            row=affine(down / row_mm, float(shift @ down) / row_mm),
            column=affine(right / column_mm, float(shift @ right) / column_mm),
            extent=float(np.float32(extent)) if averaged else 0.0,
            knots=knots.astype(np.float32),
            inverse_gap=(1 / np.diff(knots)).astype(np.float32),
            row_offset=offsets(down / row_mm),
            column_offset=offsets(right / column_mm),
            gain=gain.astype(np.float32),
            intercept=intercept.astype(np.float32) + np.float32(0),  # never -0
            padded=((AIR_HU - intercept) / factor**2).astype(np.float32),
            padding=stack.padding,
        )


def reduction(stack: Stack, target: Target) -> int:
    """Whole factor by which slices are reduced in the plane before sampling."""
    if target.resampling == "trilinear":
        return 1
    ratio = min(target.spacing_mm[1:]) / max(stack.pixel_spacing)
    # Halves round up: 1.5 is already worth a factor of two.
    return int(np.clip(np.floor(ratio + (2 - COARSER)), 1, MAX_REDUCTION))


def channels(windows: Windows | None) -> Float32:
    """Windows as arithmetic: float32 [C, 4] of (factor, addend, lowest, highest), so that a channel is
    ``clip(hu · factor + addend, lowest, highest)``, for int8 still to be rounded. None is one channel of plain HU.
    """
    if windows is None:
        return np.array([[1.0, 0.0, -np.inf, np.inf]], np.float32)
    unit = 1 / windows.scale if windows.dtype == "int8" else 1.0
    out = np.empty((len(windows.level_width), 4), np.float64)
    for channel, (level, width) in enumerate(windows.level_width):
        # (clip((hu - low) / width, 0, 1) - mean) / std, in one multiplication and one addition.
        low = level - width / 2
        lowest, highest = -windows.mean / windows.std * unit, (1 - windows.mean) / windows.std * unit
        factor = (highest - lowest) / width
        out[channel] = factor, lowest - low * factor, lowest, highest
    if windows.dtype == "int8":
        out[:, 2:] = np.clip(out[:, 2:], -127, 127)
    # Adding zero turns -0 into 0, so that equal numbers are equal bits.
    return (out + 0.0).astype(np.float32)


def cover(stack: Stack, target: Target) -> Float32:
    """How much of the middle of every plane the stack reaches: float32 [Z], 0 to 1.

    The middle is the central half by rows and columns; reached is what lies between the outer faces of the stack.
    """
    plan = Plan.of(stack, target)
    planes, rows, columns = plan.shape
    # A plane's edge of cover is straight, so a few hundred places tell its share within a few per cent.
    at = [np.unique(np.linspace(n // 4, n - 1 - n // 4, 24).round()) for n in (rows, columns)]
    start, per_plane, per_row, per_column = plan.along.astype(np.float64)
    k = np.arange(planes)[:, None, None]
    s = start + k * per_plane + at[0][:, None] * per_row + at[1] * per_column  # [Z, 24, 24] mm
    return np.asarray(((s >= plan.knots[0]) & (s <= plan.knots[-1])).mean(axis=(1, 2)), np.float32)
