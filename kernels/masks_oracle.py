"""The helper kernels in NumPy: the definitions that every other implementation is compared with, bit for bit.

They also serve where there is no native twin, so none of them loops over voxels. Arithmetic is float32, one rounding
per operation, in the order written, unless a function says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.kernels.plan import NEGLIGIBLE
from edgehem.kernels.types import AIR_HU, Stack, Target

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]

# Connected components


def label(mask: npt.NDArray[np.bool_], connectivity: int) -> tuple[Int32, int]:
    """Connected components, numbered from 1 by their first voxel in C order: int32 [Z, Y, X], and how many.

    The set voxels of a row that follow one another are one node; nodes that touch are joined, each to the smallest it
    touches, until none is left to join.
    """
    starts = mask.copy()
    starts[..., 1:] &= ~mask[..., :-1]
    node = np.cumsum(starts, dtype=np.int32).reshape(mask.shape) - np.int32(1)  # of a set voxel: its run
    parent = np.arange(int(starts.sum()), dtype=np.int32)
    one, other = _touching(mask, node, connectivity)
    while one.size:
        parent = _join(parent, one, other)
        one, other = parent[one], parent[other]
        apart = one != other
        one, other = one[apart], other[apart]
    roots = parent == np.arange(parent.size)
    number = np.cumsum(roots, dtype=np.int32)[parent]
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = number[node[mask]]
    return labels, int(roots.sum())


def _touching(mask: npt.NDArray[np.bool_], node: Int32, connectivity: int) -> tuple[Int32, Int32]:
    """Pairs of nodes of neighbouring rows that touch."""
    furthest = {6: 1, 18: 2, 26: 3}[connectivity]
    found = []
    for dk, dj in ((0, 1), (1, -1), (1, 0), (1, 1)):
        for di in (-1, 0, 1):
            if dk + abs(dj) + abs(di) > furthest:
                continue
            here, there = zip(*(_overlap(d) for d in (dk, dj, di)), strict=True)
            both = mask[here] & mask[there]
            # Along a row the same two nodes meet again and again: once is enough.
            again = both[..., 1:] & both[..., :-1]
            both[..., 1:] &= ~again
            found.append((node[here][both], node[there][both]))
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _overlap(step: int) -> tuple[slice, slice]:
    """Where an axis and the same axis moved by one step overlap."""
    ways = {0: (slice(None), slice(None)), 1: (slice(None, -1), slice(1, None)), -1: (slice(1, None), slice(None, -1))}
    return ways[step]


def _join(parent: Int32, one: Int32, other: Int32) -> Int32:
    """Hang every root on the smallest it touches, then every node on its root."""
    parent = parent.copy()
    np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
    while not np.array_equal(above := parent[parent], parent):
        parent = above
    return parent


# Back to the slices


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Where the pixels of a stack lie on a grid, in voxels along its planes, rows and columns.

    On each axis pixel [i, r, c] lies at ``(start[i] + (r - rows // 2)·per_row) + (c - columns // 2)·per_column``, in
    float32 and in this order. Counted from the middle of the slices that is within 1e-4 voxel over any head.

    Parameters
    ----------
    start : float32 array [slices, 3]
    per_row, per_column : float32 arrays [3]
    """

    start: Float32
    per_row: Float32
    per_column: Float32

    @classmethod
    def of(cls, stack: Stack, target: Target) -> Positions:
        """Lay a stack's slices out on a grid."""
        _, rows, columns = stack.pixels.shape
        row_mm, column_mm = stack.pixel_spacing
        down, right = stack.column_cosines * row_mm, stack.row_cosines * column_mm
        middle = stack.origin + (rows // 2) * down + (columns // 2) * right

        def voxels(mm: Float64, steps: int) -> Float32:
            # Patient coordinates are x, y, z: columns, rows, planes.
            values = np.asarray(mm)[..., ::-1] / np.asarray(target.spacing_mm)
            return np.where(np.abs(values) * steps < NEGLIGIBLE, 0.0, values).astype(np.float32)

        return cls(
            start=voxels(middle - np.asarray(target.origin), 1),
            per_row=voxels(down, rows),
            per_column=voxels(right, columns),
        )

    def of_slice(self, index: int, rows: int, columns: int) -> Float32:
        """Positions of one slice's pixels, float32 [3, rows, columns]."""
        r = np.arange(rows, dtype=np.float32) - np.float32(rows // 2)
        c = np.arange(columns, dtype=np.float32) - np.float32(columns // 2)
        base = self.start[index][:, None] + r * self.per_row[:, None]
        return np.asarray(base[:, :, None] + c * self.per_column[:, None, None])


def to_slices_nearest(values: npt.NDArray[np.uint8], target: Target, stack: Stack) -> npt.NDArray[np.uint8]:
    """The nearest voxel of every pixel; halves go to the higher index: uint8 [slices, rows, columns]."""
    slices, rows, columns = stack.pixels.shape
    positions = Positions.of(stack, target)
    out = np.empty((slices, rows, columns), np.uint8)
    for i in range(slices):
        at = positions.of_slice(i, rows, columns)
        nearer = []
        for axis, size in enumerate(target.shape):
            lower, upper, weight = _tap(at[axis], size)
            nearer.append(np.where(weight >= np.float32(0.5), upper, lower))
        out[i] = np.where(_inside(at, target.shape), values[tuple(nearer)], np.uint8(0))
    return out


def to_slices_linear(values: Float32, target: Target, stack: Stack) -> Float32:
    """Trilinear value at every pixel, between planes, then rows, then columns: float32 [slices, rows, columns]."""
    slices, rows, columns = stack.pixels.shape
    positions = Positions.of(stack, target)
    out = np.empty((slices, rows, columns), np.float32)
    for i in range(slices):
        at = positions.of_slice(i, rows, columns)
        (k, k1, wk), (j, j1, wj), (c, c1, wc) = (_tap(at[axis], size) for axis, size in enumerate(target.shape))
        near, far = (
            _lerp(_lerp(values[k, j, x], values[k1, j, x], wk), _lerp(values[k, j1, x], values[k1, j1, x], wk), wj)
            for x in (c, c1)
        )
        out[i] = np.where(_inside(at, target.shape), _lerp(near, far, wc), np.float32(0))
    return out


def _inside(at: Float32, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """A grid reaches half a voxel beyond the centres of its outermost voxels."""
    half = np.float32(0.5)
    sizes = np.array(shape, np.float32)[:, None, None]
    return np.asarray(((at >= -half) & (at <= sizes - half)).all(axis=0))


def _tap(at: Float32, size: int) -> tuple[Index, Index, Float32]:
    """The voxel below, the one above, and how far a position has come from the first to the second."""
    at = np.clip(at, np.float32(0), np.float32(size - 1))
    lower = at.astype(np.intp)
    return lower, np.minimum(lower + 1, size - 1), at - lower.astype(np.float32)


def _lerp(a: Float32, b: Float32, weight: Float32) -> Float32:
    return np.asarray(a + weight * (b - a))


# Quantisation


def quantize(values: Float32, inverse_scale: np.float32) -> npt.NDArray[np.int8]:
    """int8 of values · inverse_scale, clipped to ±127 and then rounded half to even. Values must not be NaN."""
    with np.errstate(over="ignore"):
        steps = values * inverse_scale
    return np.asarray(np.rint(np.clip(steps, np.float32(-127), np.float32(127))), np.int8)


# Nearest pixels


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Which slice is nearest, and where a stack begins and ends along its normal, mm, float64.

    Parameters
    ----------
    middles : float64 array [slices - 1]
        Halfway between neighbouring slices.
    first_row, first_column : float64 arrays [slices]
        Of the first pixel, along a column and along a row.
    lowest, highest : float
        Half a gap (the median one), or half a plane of the grid if that is more, beyond the outermost slices.
    """

    middles: Float64
    first_row: Float64
    first_column: Float64
    lowest: float
    highest: float

    @classmethod
    def of(cls, stack: Stack, target: Target) -> Bounds:
        """Measure a stack that is to be sampled on a grid."""
        d = stack.distances
        gap = float(np.median(np.diff(d))) if d.size > 1 else 0.0
        half = max(gap, target.spacing_mm[0]) / 2
        return cls(
            middles=(d[1:] + d[:-1]) / 2,
            first_row=stack.origin @ stack.column_cosines,
            first_column=stack.origin @ stack.row_cosines,
            lowest=float(d[0] - half),
            highest=float(d[-1] + half),
        )


def nearest(stack: Stack, target: Target) -> Float32:
    """HU of the nearest pixel of the nearest slice, float32 [Z, Y, X]; positions in float64."""
    bounds = Bounds.of(stack, target)
    planes, rows, columns = target.shape
    x = target.origin[0] + np.arange(columns) * target.spacing_mm[2]
    y = (target.origin[1] + np.arange(rows) * target.spacing_mm[1])[:, None]
    z = (target.origin[2] + np.arange(planes) * target.spacing_mm[0])[:, None, None]

    def along(axis: Float64) -> Float64:
        return np.asarray(x * axis[0] + y * axis[1] + z * axis[2])

    def pixel(position: Float64, size: int) -> Int64:
        return np.clip(np.rint(position), -1, size).astype(np.int64)  # -1 and size: outside

    s = along(stack.normal)
    index = np.searchsorted(bounds.middles, s)
    height, width = stack.pixels.shape[1:]
    row_mm, column_mm = stack.pixel_spacing
    r = pixel((along(stack.column_cosines) - bounds.first_row[index]) / row_mm, height)
    c = pixel((along(stack.row_cosines) - bounds.first_column[index]) / column_mm, width)
    inside = (s > bounds.lowest) & (s < bounds.highest) & (r >= 0) & (r < height) & (c >= 0) & (c < width)
    stored = stack.pixels[index, np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)]
    if stack.padding is not None:
        inside &= (stored < stack.padding[0]) | (stored > stack.padding[1])
    return np.where(inside, stored * stack.slope[index] + stack.intercept[index], np.float32(AIR_HU))
