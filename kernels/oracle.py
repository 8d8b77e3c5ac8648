"""The preprocessing pass in NumPy: the definition that every other implementation is compared with, bit for bit.

A target voxel lies at a signed distance along the slice normal. It is interpolated between the two slices that bracket
it, bilinearly inside each of them at the voxel's own projection onto that slice, so gantry tilt, oblique stacks and
changing slice distances need no special case. An image reaches half a pixel beyond the centres of its outermost pixels.

Antialiasing, where the target asks for it. In the plane, when target pixels are at least 1.5 times as large as the
slice's, the slice is first reduced by the nearest whole factor (area mean of HU). Along the normal, when a target
voxel's extent is at least 1.5 times the distance of the slices, the voxel is the mean over that extent of the stack as
interpolated, so every slice counts. Both follow from the geometry alone.

Arithmetic is float32, one rounding per operation, in the order written: that is what makes the bits comparable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.kernels.plan import Plan, channels
from edgehem.kernels.types import AIR_HU, Stack, Target, Windows

Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]

AIR = np.float32(AIR_HU)


def hounsfield(stack: Stack, plan: Plan) -> Float32:
    """Slices in HU, padding as air, reduced in the plane (area mean): float32 [Z, Y // f, X // f]."""
    factor = plan.factor
    rows, columns = plan.rows // factor, plan.columns // factor
    out = np.empty((plan.slices, rows, columns), np.float32)
    for i in range(plan.slices):
        stored = stack.pixels[i, : rows * factor, : columns * factor].astype(np.int32)
        padded = None
        if plan.padding is not None:
            low, high = plan.padding
            padded = (stored >= low) & (stored <= high)
            stored[padded] = 0
        total = _blocks(stored, factor)
        out[i] = total.astype(np.float32) * plan.gain[i] + plan.intercept[i]
        if padded is not None:
            out[i] += _blocks(padded.astype(np.int32), factor).astype(np.float32) * plan.padded[i]
    return out


def _blocks(values: npt.NDArray[np.int32], factor: int) -> npt.NDArray[np.int32]:
    """Sums over factor × factor blocks."""
    total = np.zeros((values.shape[0] // factor, values.shape[1] // factor), np.int32)
    for dy in range(factor):
        for dx in range(factor):
            total += values[dy::factor, dx::factor]
    return total


def resample(stack: Stack, target: Target) -> Float32:
    """Sample a stack on a target grid.

    Parameters
    ----------
    stack : Stack
    target : Target

    Returns
    -------
    float32 array [Z, Y, X], HU
        :data:`AIR_HU` where the stack has nothing.
    """
    plan = Plan.of(stack, target)
    hu = hounsfield(stack, plan)
    planes, height, width = plan.shape
    out = np.empty(plan.shape, np.float32)
    for k in range(planes):
        s, u, v = (_positions(axis, k, height, width) for axis in plan.axes)
        out[k] = _averaged(hu, plan, s, u, v) if plan.extent else _interpolated(hu, plan, s, u, v)
    return out


def _positions(axis: Float32, k: int, height: int, width: int) -> Float32:
    """Positions of plane k: float32 [Y, X], or [Y, 1] where columns make no difference."""
    start, per_plane, per_row, per_column = axis
    base = (start + np.float32(k) * per_plane) + np.arange(height, dtype=np.float32)[:, None] * per_row
    if per_column == 0:
        return np.asarray(base, np.float32)
    return np.asarray(base + np.arange(width, dtype=np.float32) * per_column, np.float32)


def _segments(plan: Plan, s: Float32) -> Index:
    """Between which knots s lies: index of the lower one."""
    return np.clip(np.searchsorted(plan.knots, s, side="right") - 1, 0, plan.slices)


def _neighbours(plan: Plan, segment: Index) -> tuple[Index, Index]:
    """The slices below and above a segment; the outermost segments have the same slice on both sides."""
    return np.maximum(segment - 1, 0), np.minimum(segment, plan.slices - 1)


def _interpolated(hu: Float32, plan: Plan, s: Float32, u: Float32, v: Float32) -> Float32:
    segment = _segments(plan, s)
    weight = np.clip((s - plan.knots[segment]) * plan.inverse_gap[segment], np.float32(0), np.float32(1))
    below, above = (_bilinear(hu, plan, index, u, v) for index in _neighbours(plan, segment))
    inside = (s >= plan.knots[0]) & (s <= plan.knots[-1])
    return np.where(inside, below + weight * (above - below), AIR)


def _averaged(hu: Float32, plan: Plan, s: Float32, u: Float32, v: Float32) -> Float32:
    """Mean of the interpolated stack over `extent` around s, air where the stack has ended."""
    half, share = np.float32(plan.extent * 0.5), np.float32(1 / plan.extent)
    first, last = plan.knots[0], plan.knots[-1]
    low, high = np.clip(s - half, first, last), np.clip(s + half, first, last)
    total = (np.float32(1) - (high - low) * share) * AIR
    total = np.broadcast_to(total, plan.shape[1:]).copy()
    pending = np.zeros_like(low)  # weight of the upper neighbour, to which the next segment adds
    segment = _segments(plan, low)
    while True:
        at = np.minimum(segment, plan.slices)
        active = (segment <= plan.slices) & (plan.knots[at] < high)
        if not active.any():
            break
        p, q = np.maximum(low, plan.knots[at]), np.minimum(high, plan.knots[at + 1])
        length = (q - p) * share
        upper = length * (((p + q) * np.float32(0.5) - plan.knots[at]) * plan.inverse_gap[at])
        below, above = _neighbours(plan, at)
        pending = np.where(active, pending + (length - upper), pending)
        total = np.where(active & (below != above), total + pending * _bilinear(hu, plan, below, u, v), total)
        pending = np.where(active, np.where(below != above, upper, pending + upper), pending)
        segment = segment + active
    last_slice = np.clip(segment - 1, 0, plan.slices - 1)
    # The last segment's upper neighbour has not been counted yet.
    return np.where(high > low, total + pending * _bilinear(hu, plan, last_slice, u, v), AIR)


def _bilinear(hu: Float32, plan: Plan, index: Index, u: Float32, v: Float32) -> Float32:
    """Bilinear samples of slices `index` at (row, column), air outside the image: float32 [Y, X]."""
    _, rows, columns = hu.shape
    row, column = u - plan.row_offset[index], v - plan.column_offset[index]
    half = np.float32(0.5)
    inside = (row >= -half) & (row <= rows - half) & (column >= -half) & (column <= columns - half)
    row, column = np.clip(row, 0, np.float32(rows - 1)), np.clip(column, 0, np.float32(columns - 1))
    r, c = row.astype(np.intp), column.astype(np.intp)
    fr, fc = row - r.astype(np.float32), column - c.astype(np.float32)
    top = (index * rows + r) * columns
    bottom = (index * rows + np.minimum(r + 1, rows - 1)) * columns
    right = np.minimum(c + 1, columns - 1)
    flat = hu.reshape(-1)

    def between_columns(line: Index) -> Float32:
        left = flat[line + c]
        return np.asarray(left + fc * (flat[line + right] - left))

    upper = between_columns(top)
    return np.where(inside, upper + fr * (between_columns(bottom) - upper), AIR)


def window(hu: Float32, windows: Windows) -> npt.NDArray[np.generic]:
    """Apply windows to HU.

    Parameters
    ----------
    hu : float32 array [Z, Y, X]
    windows : Windows

    Returns
    -------
    array [Z, C, Y, X] of `windows.dtype`
    """
    planes, height, width = hu.shape
    out = np.empty((planes, len(windows.level_width), height, width), np.dtype(windows.dtype))
    for channel, (factor, addend, lowest, highest) in enumerate(channels(windows)):
        value = np.clip(hu * factor + addend, lowest, highest)
        out[:, channel] = np.rint(value) if windows.dtype == "int8" else value
    return out


def preprocess(stack: Stack, target: Target, windows: Windows) -> npt.NDArray[np.generic]:
    """The whole pass: raw slices to windowed channels on the target grid.

    Parameters
    ----------
    stack : Stack
    target : Target
    windows : Windows

    Returns
    -------
    array [Z, C, Y, X] of `windows.dtype`
    """
    return window(resample(stack, target), windows)
