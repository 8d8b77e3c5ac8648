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
    axes : float32 array [3, 4]
        Start, per plane, per row, per column of three positions: the distance along the normal (mm), and the row and
        the column within the middle slice (reduced pixels).
    extent : float
        Length of normal over which slices are averaged, mm; 0 interpolates between two slices.
    padding : tuple of int or None
        Inclusive range of stored values.
    tables : float32 array [7 Z + 3]
        What follows, one after the other, as the kernels read it.
    """

    slices: int
    rows: int
    columns: int
    factor: int
    shape: tuple[int, int, int]
    axes: Float32
    extent: float
    padding: tuple[int, int] | None
    tables: Float32

    @property
    def knots(self) -> Float32:
        """Float32 [Z + 2], mm."""
        return self.tables[: self.slices + 2]

    @property
    def inverse_gap(self) -> Float32:
        """Float32 [Z + 1], 1/mm: between knots."""
        return self.tables[self.slices + 2 : 2 * self.slices + 3]

    @property
    def row_offset(self) -> Float32:
        """Float32 [Z]: what a slice's own position takes from the row, reduced pixels."""
        return self._per_slice(0)

    @property
    def column_offset(self) -> Float32:
        """Float32 [Z]: the same for the column."""
        return self._per_slice(1)

    @property
    def gain(self) -> Float32:
        """Float32 [Z]: HU of a reduced pixel = sum of its stored values · gain + intercept."""
        return self._per_slice(2)

    @property
    def intercept(self) -> Float32:
        """Float32 [Z], HU; never -0."""
        return self._per_slice(3)

    @property
    def padded(self) -> Float32:
        """Float32 [Z]: added once for each stored value that is padding (and is left out of the sum)."""
        return self._per_slice(4)

    def _per_slice(self, index: int) -> Float32:
        start = (2 + index) * self.slices + 3
        return self.tables[start : start + self.slices]

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
        # Few, large NumPy calls: beside a pass of three milliseconds each of them counts.
        slices, rows, columns = stack.pixels.shape
        if min(slices, rows, columns) < 1:
            raise ValueError(f"a stack needs slices with pixels, not {stack.pixels.shape}")
        factor = min(reduction(stack, target), rows, columns)
        row_mm, column_mm = stack.pixel_spacing
        dz, dy, dx = target.spacing_mm
        middle = stack.origin[slices // 2]
        down, right, normal = stack.column_cosines, stack.row_cosines, stack.normal
        scaled = np.array([normal, down / (row_mm * factor), right / (column_mm * factor)]).T  # [xyz, position]

        # Targets are axis-parallel: planes along z, rows along y, columns along x.
        steps = np.array([target.origin - middle, (0, 0, dz), (0, dy, 0), (dx, 0, 0)])  # [start|k|j|i, xyz] mm
        axes = steps @ scaled
        # The centre of a reduced pixel is the mean of the centres it was made of.
        axes[0, 1:] -= (factor - 1) / (2 * factor)
        axes[np.abs(axes) * np.array([(1,), *((n,) for n in target.shape)]) < NEGLIGIBLE] = 0

        places = (stack.origin - middle) @ scaled  # [Z, distance|row|column]
        places[np.abs(places) < NEGLIGIBLE] = 0
        distances = places[:, 0]
        extent = float(np.abs(normal) @ (dx, dy, dz))
        low = high = extent / 2
        averaged = False
        if slices > 1:
            gaps = np.diff(distances)
            low, high = gaps[0] / 2, gaps[-1] / 2
            averaged = target.resampling == "antialiased" and extent >= COARSER * np.median(gaps)
        knots = np.concatenate([[distances[0] - low], distances, [distances[-1] + high]])

        plan = cls(
            slices=slices,
            rows=rows,
            columns=columns,
            factor=factor,
            shape=target.shape,
            axes=axes.T.astype(np.float32),
            extent=float(np.float32(extent)) if averaged else 0.0,
            padding=stack.padding,
            tables=np.empty(7 * slices + 3, np.float32),
        )
        plan.knots[:] = knots
        plan.inverse_gap[:] = 1 / np.diff(knots)
        plan.row_offset[:], plan.column_offset[:] = places[:, 1], places[:, 2]
        plan.gain[:] = stack.slope / factor**2
        plan.intercept[:] = stack.intercept + np.float32(0)  # -0 becomes 0
        plan.padded[:] = (AIR_HU - stack.intercept) / factor**2
        return plan


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
    start, per_plane, per_row, per_column = plan.axes[0].astype(np.float64)
    k = np.arange(planes)[:, None, None]
    s = start + k * per_plane + at[0][:, None] * per_row + at[1] * per_column  # [Z, 24, 24] mm
    return np.asarray(((s >= plan.knots[0]) & (s <= plan.knots[-1])).mean(axis=(1, 2)), np.float32)
