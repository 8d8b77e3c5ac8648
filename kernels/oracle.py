"""The preprocessing pass in NumPy: the definition that every other implementation is compared with.

A target voxel p lies at signed distance s = p·n along the slice normal n. It is interpolated linearly between the two
slices that bracket s, and bilinearly inside each of them at p's own projection onto that slice, so gantry tilt, oblique
stacks and changing slice distances need no special case.

Antialiasing. In the plane, when target pixels are at least 1.5 times as large as the slice's, the slice is first
reduced by the nearest whole factor (area mean of HU). Along the normal, when the target's planes are at least 1.5 times
as far apart as the slices, a target voxel is the mean of evenly spaced samples over its own thickness. Both factors
follow from the geometry alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.kernels.types import AIR_HU, Stack, Target, Windows

MAX_SUB_PLANES = 8
MAX_REDUCTION = 4


def reduction(stack: Stack, target: Target) -> int:
    """Whole factor by which slices are reduced in the plane before sampling."""
    ratio = min(target.spacing_mm[1:]) / max(stack.pixel_spacing)
    return int(np.clip(np.floor(ratio + 0.5), 1, MAX_REDUCTION))


def sub_planes(stack: Stack, target: Target) -> int:
    """Number of samples along the patient's axis that make one target plane."""
    if len(stack.distances) < 2:
        return 1
    ratio = target.spacing_mm[0] / float(np.median(np.diff(stack.distances)))
    return int(np.clip(np.floor(ratio + 0.5), 1, MAX_SUB_PLANES))


def hounsfield(stack: Stack, factor: int) -> npt.NDArray[np.float32]:
    """Slices in HU, padding as air, reduced in the plane by `factor` (area mean): float32 [Z, Y // f, X // f]."""
    slices, rows, columns = stack.pixels.shape
    rows, columns = rows // factor * factor, columns // factor * factor
    out = np.empty((slices, rows // factor, columns // factor), np.float32)
    for i in range(slices):
        stored = stack.pixels[i, :rows, :columns]
        hu = stored.astype(np.float32) * stack.slope[i] + stack.intercept[i]
        if stack.padding is not None:
            low, high = stack.padding
            hu[(stored >= low) & (stored <= high)] = AIR_HU
        if factor > 1:
            total = np.zeros((rows // factor, columns // factor), np.float32)
            for dy in range(factor):
                for dx in range(factor):
                    total += hu[dy::factor, dx::factor]
            hu = total * np.float32(1 / factor**2)
        out[i] = hu
    return out


def resample(stack: Stack, target: Target) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Sample a stack on a target grid.

    Parameters
    ----------
    stack : Stack
    target : Target

    Returns
    -------
    hu : float32 array [Z, Y, X]
        :data:`AIR_HU` where the stack has nothing.
    covered : bool array [Z, Y, X]
        Whether the voxel lies between the outer faces of the first and last slice.
    """
    factor, samples = reduction(stack, target), sub_planes(stack, target)
    hu = hounsfield(stack, factor)
    slices, rows, columns = hu.shape
    row_mm, column_mm = (mm * factor for mm in stack.pixel_spacing)
    # The centre of a reduced pixel is the mean of the centres it was made of.
    shift = (factor - 1) / 2
    origin = stack.origin + shift * (
        stack.row_cosines * stack.pixel_spacing[1] + stack.column_cosines * stack.pixel_spacing[0]
    )
    normal, distances = stack.normal, stack.distances
    offset_row, offset_column = origin @ stack.column_cosines / row_mm, origin @ stack.row_cosines / column_mm
    gaps = np.diff(distances)
    below = distances[0] - (gaps[0] / 2 if slices > 1 else target.spacing_mm[0] / 2)
    above = distances[-1] + (gaps[-1] / 2 if slices > 1 else target.spacing_mm[0] / 2)

    planes, height, width = target.shape
    x = target.origin[0] + np.arange(width) * target.spacing_mm[2]
    y = (target.origin[1] + np.arange(height) * target.spacing_mm[1])[:, None]

    def projected(axis: npt.NDArray[np.float64], z: float) -> npt.NDArray[np.float64]:
        return np.asarray(x * axis[0] + y * axis[1] + z * axis[2])  # [Y, X]

    flat = hu.reshape(-1)
    out = np.empty(target.shape, np.float32)
    covered = np.empty(target.shape, np.bool_)
    for k in range(planes):
        total = np.zeros((height, width), np.float32)
        inside_any = np.zeros((height, width), np.bool_)
        for sample in range(samples):
            z = target.origin[2] + (k + (sample + 0.5) / samples - 0.5) * target.spacing_mm[0]
            s = projected(normal, z)
            inside = (s >= below) & (s <= above)
            inside_any |= inside
            if not inside.any():
                total += np.float32(AIR_HU)
                continue
            lower = np.clip(np.searchsorted(distances, s, side="right") - 1, 0, max(0, slices - 2))
            upper = np.minimum(lower + 1, slices - 1)
            gap = np.where(upper > lower, distances[upper] - distances[lower], 1.0)
            weight = np.clip((s - distances[lower]) / gap, 0, 1).astype(np.float32)
            row, column = projected(stack.column_cosines, z) / row_mm, projected(stack.row_cosines, z) / column_mm
            value = np.zeros((height, width), np.float32)
            for index, share in ((lower, 1 - weight), (upper, weight)):
                sampled = _bilinear(flat, index, row - offset_row[index], column - offset_column[index], rows, columns)
                value += share * sampled
            total += np.where(inside, value, np.float32(AIR_HU))
        out[k] = total / np.float32(samples)
        covered[k] = inside_any
    return out, covered


def _bilinear(
    flat: npt.NDArray[np.float32],
    index: npt.NDArray[np.int64],
    row: npt.NDArray[np.float64],
    column: npt.NDArray[np.float64],
    rows: int,
    columns: int,
) -> npt.NDArray[np.float32]:
    """Bilinear samples of slices `index` at (row, column), air outside the image: float32, the shape of `row`.

    The image ends at the centres of its outermost pixels, which belong to it on all four sides.
    """
    inner = (row >= 0) & (row <= rows - 1) & (column >= 0) & (column <= columns - 1)
    r0, c0 = np.clip(np.floor(row), 0, rows - 2), np.clip(np.floor(column), 0, columns - 2)
    fr, fc = (row - r0).astype(np.float32), (column - c0).astype(np.float32)
    base = (index * rows + r0.astype(np.int64)) * columns + c0.astype(np.int64)
    top = flat[base] * (1 - fc) + flat[base + 1] * fc
    bottom = flat[base + columns] * (1 - fc) + flat[base + columns + 1] * fc
    return np.where(inner, top * (1 - fr) + bottom * fr, np.float32(AIR_HU))


def window(hu: npt.NDArray[np.float32], windows: Windows) -> npt.NDArray[np.generic]:
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
    for channel, (level, width_hu) in enumerate(windows.level_width):
        low = np.float32(level - width_hu / 2)
        value = np.clip((hu - low) * np.float32(1 / width_hu), np.float32(0), np.float32(1))
        if windows.mean != 0 or windows.std != 1:
            value = (value - np.float32(windows.mean)) * np.float32(1 / windows.std)
        if windows.dtype == "int8":
            value = np.clip(np.rint(value * np.float32(1 / windows.scale)), -127, 127)
        out[:, channel] = value
    return out


def preprocess(stack: Stack, target: Target, windows: Windows) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """The whole pass: raw slices to windowed channels on the target grid.

    Parameters
    ----------
    stack : Stack
    target : Target
    windows : Windows

    Returns
    -------
    tensor : array [Z, C, Y, X] of `windows.dtype`
    covered : bool array [Z, Y, X]
    """
    hu, covered = resample(stack, target)
    return window(hu, windows), covered
