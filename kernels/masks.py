"""What a study needs around a model, besides the preprocessing pass: where a head is, and what a mask shows.

Each function validates once, then runs the native twin, or NumPy where there is none: the results are the same, bit
for bit. :mod:`edgehem.kernels.masks_oracle` defines them.
"""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import numpy.typing as npt

from edgehem.kernels import fused, masks_oracle, native
from edgehem.kernels.types import Stack, Target

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_] | npt.NDArray[np.uint8]

CONNECTIVITIES = (6, 18, 26)
"""Neighbours of a voxel: those that share a face, also those that share an edge, also those that share a corner."""
ORDERS = ("nearest", "linear")
MOST_VOXELS = 2**31 - 2
"""A component, a voxel and a pixel are counted in 32 bits."""

HAS_NAN = 1
NAN = "NaN among the values: no integer stands for it"

_I, _L, _D, _F, _P = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_float, ctypes.c_void_p


def label(mask: Mask, connectivity: int = 6) -> tuple[Int32, int]:
    """Connected components of a mask.

    Parameters
    ----------
    mask : bool or uint8 array [Z, Y, X]
        What is not 0 is set.
    connectivity : {6, 18, 26}

    Returns
    -------
    labels : int32 array [Z, Y, X]
        0 outside; components are numbered from 1 in the order of their first voxels (C order).
    count : int

    Raises
    ------
    ValueError
        If the mask has another type or shape, or more than :data:`MOST_VOXELS`.
    MemoryError
    """
    if mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"a mask is a bool or uint8 array, not {mask.dtype}")
    if connectivity not in CONNECTIVITIES:
        raise ValueError(f"connectivity {connectivity} is none of {CONNECTIVITIES}")
    _check_size("a mask", mask.shape)
    labels = np.zeros(mask.shape, np.int32)
    if mask.size == 0:
        return labels, 0
    if (library := _library()) is None:
        return masks_oracle.label(mask.astype(np.bool_), connectivity)
    contiguous, count = np.ascontiguousarray(mask), _I()
    _done(library.eh_label(contiguous.ctypes.data, *mask.shape, connectivity, labels.ctypes.data, ctypes.byref(count)))
    return labels, count.value


def volumes_ml(labels: Int32, count: int, voxel_ml: float | Float64) -> Float64:
    """Volume of every component.

    Parameters
    ----------
    labels : int32 array [Z, Y, X]
    count : int
        Components: labels are 0..count.
    voxel_ml : float or float64 array [Z], mL
        Of one voxel, or of one voxel in each slice where slices lie unevenly.

    Returns
    -------
    float64 array [count], mL
        Of components 1..count.

    Raises
    ------
    ValueError
        If there are labels outside 0..count, or a volume is not positive.
    """
    _check_size("a labelled mask", labels.shape)
    each = np.asarray(voxel_ml, np.float64)
    if each.shape not in ((), labels.shape[:1]) or not (np.isfinite(each) & (each > 0)).all():
        raise ValueError(f"one positive volume, or one per slice ({labels.shape[0]}), not {voxel_ml}")
    total = np.zeros(count + 1)
    for plane, ml in zip(labels, np.broadcast_to(each, labels.shape[:1]), strict=True):
        # Slice by slice, because bincount copies what it counts to 64 bits; only what is set, because most is not:
        # 40 × 224 × 224 voxels then take 0.5 to 3 ms, so that a native version would not be worth its lines.
        counts = np.bincount(plane[plane != 0])
        if counts.size > count + 1:
            raise ValueError(f"label {counts.size - 1} among {count} components")
        total[: counts.size] += counts * ml
    return total[1:]


def bounding_box(mask: Mask) -> Int32:
    """The smallest box around a mask.

    Parameters
    ----------
    mask : bool or uint8 array [Z, Y, X]

    Returns
    -------
    int32 array [3, 2]
        First index and the one after the last, along Z, Y, X; zeros for an empty mask.

    Raises
    ------
    ValueError
        If the mask has another shape.
    """
    _check_size("a mask", mask.shape)
    box = np.zeros((3, 2), np.int32)
    in_plane = np.any(mask, axis=0)
    for axis, line in enumerate((np.any(mask, axis=(1, 2)), in_plane.any(axis=1), in_plane.any(axis=0))):
        if (found := np.flatnonzero(line)).size:
            box[axis] = found[0], found[-1] + 1
    return box


def to_slices(
    values: npt.NDArray[np.uint8] | Float32,
    target: Target,
    stack: Stack,
    order: str,
    *,
    threads: int | None = None,
) -> npt.NDArray[np.uint8] | Float32:
    """Bring a mask or a probability map from a grid back to the slices as they were acquired.

    Parameters
    ----------
    values : array [Z, Y, X] on the grid
        uint8 (or bool) for ``nearest``, finite float32 for ``linear``.
    target : Target
        The grid.
    stack : Stack
        Gives the place of every pixel; its values are not read.
    order : {"nearest", "linear"}
        The nearest voxel (halves go to the higher index), or trilinear interpolation.
    threads : int, optional
        All CPUs this process may use by default.

    Returns
    -------
    array [slices, rows, columns] of the type of `values`
        0 for pixels more than half a voxel beyond the centres of the grid's outermost voxels; up to there the outermost
        voxels count.

    Raises
    ------
    ValueError
        If types or shapes do not fit, or values for ``linear`` are not finite.
    MemoryError
    """
    if order not in ORDERS:
        raise ValueError(f"order {order!r} is none of {', '.join(ORDERS)}")
    if order == "nearest" and values.dtype == np.bool_:
        values = values.view(np.uint8)
    wanted = np.dtype(np.uint8 if order == "nearest" else np.float32)
    if values.dtype != wanted or values.shape != target.shape:
        raise ValueError(f"{order} takes {wanted} of shape {target.shape}, not {values.dtype} of {values.shape}")
    if order == "linear" and not np.isfinite(values).all():
        raise ValueError("values to interpolate must be finite: one NaN or infinity would spread to its neighbours")
    _check_size("the grid", target.shape)
    _check_size("the stack", stack.pixels.shape)
    threads = threads or fused.usable_threads()
    if (library := _library()) is None:
        by_numpy = {"nearest": masks_oracle.to_slices_nearest, "linear": masks_oracle.to_slices_linear}
        return by_numpy[order](values, target, stack)  # type: ignore[operator, no-any-return]
    contiguous, positions = np.ascontiguousarray(values), masks_oracle.Positions.of(stack, target)
    out = np.empty(stack.pixels.shape, wanted)
    block, start = return_parameters(positions, stack.pixels.shape, target.shape), positions.start
    run = library.eh_to_slices_nearest if order == "nearest" else library.eh_to_slices_linear
    _done(run(ctypes.byref(block), start.ctypes.data, contiguous.ctypes.data, out.ctypes.data, threads))
    return out


def quantize(values: Float32, scale: float, *, threads: int | None = None) -> npt.NDArray[np.int8]:
    """Turn values into steps of a scale: multiplied by 1 / scale, clipped to ±127, rounded half to even.

    Parameters
    ----------
    values : float32 array of any shape
        Infinity is clipped like any large value.
    scale : float
        Quantisation step; its inverse is rounded to float32 once.
    threads : int, optional
        All CPUs this process may use by default.

    Returns
    -------
    int8 array of the same shape, C-contiguous

    Raises
    ------
    ValueError
        If a value is NaN, for no integer stands for it; if `values` is not float32, or `scale` is not positive or its
        inverse not a float32.
    """
    if values.dtype != np.float32:
        raise ValueError(f"values are float32, not {values.dtype}")
    limits = np.finfo(np.float32)
    if not float(limits.tiny) <= scale <= 1 / float(limits.tiny):
        raise ValueError(f"a scale is positive, and its inverse a float32: not {scale}")
    inverse = np.float32(1 / scale)
    threads = threads or fused.usable_threads()
    values = np.asarray(values, order="C")
    if (library := _library()) is None:
        if np.isnan(values).any():
            raise ValueError(NAN)
        return masks_oracle.quantize(values, inverse)
    out = np.empty(values.shape, np.int8)
    code = library.eh_quantize(values.ctypes.data, out.ctypes.data, values.size, inverse, threads)
    if code == HAS_NAN:
        raise ValueError(NAN)
    _done(code)
    return out


def nearest(stack: Stack, target: Target, *, threads: int | None = None) -> Float32:
    """HU of the nearest pixel of the nearest slice: enough to find a head, at a fraction of the pass's cost.

    Parameters
    ----------
    stack : Stack
    target : Target
    threads : int, optional
        All CPUs this process may use by default.

    Returns
    -------
    float32 array [Z, Y, X], HU
        Air for padding, beyond the image, and further along the normal than half a gap from the outermost slices (or
        half a plane of the grid, if that is more).

    Raises
    ------
    ValueError
        If the stack has no slices, or slices without pixels.
    """
    if stack.pixels.ndim != 3 or min(stack.pixels.shape) < 1:
        raise ValueError(f"a stack needs slices with pixels, not {stack.pixels.shape}")
    _check_size("the grid", target.shape)
    threads = threads or fused.usable_threads()
    if (library := _library()) is None:
        return masks_oracle.nearest(stack, target)
    out = np.empty(target.shape, np.float32)
    bounds, pixels = masks_oracle.Bounds.of(stack, target), native.sliced(stack)
    block = nearest_parameters(bounds, stack, target, pixels)
    tables = [np.ascontiguousarray(t) for t in (bounds.middles, bounds.first_row, bounds.first_column)]
    tables += [np.ascontiguousarray(t, np.float32) for t in (stack.slope, stack.intercept)]
    _done(
        library.eh_nearest(
            ctypes.byref(block),
            *(t.ctypes.data for t in tables),
            pixels.ctypes.data,
            out.ctypes.data,
            threads,
        )
    )
    return out


class ReturnParameters(ctypes.Structure):
    """`EhReturn` of masks.h, field by field."""

    _fields_ = (
        ("size", _I), ("slices", _I), ("rows", _I), ("columns", _I), ("planes", _I), ("height", _I), ("width", _I),
        ("per_row", _F * 3), ("per_column", _F * 3),
    )  # fmt: skip


def return_parameters(
    positions: masks_oracle.Positions, pixels: tuple[int, ...], grid: tuple[int, int, int]
) -> ReturnParameters:
    """The parameter block that brings a grid back to slices of shape `pixels` [slices, rows, columns]."""
    block = ReturnParameters()
    block.size = ctypes.sizeof(ReturnParameters)
    block.slices, block.rows, block.columns = pixels
    block.planes, block.height, block.width = grid
    block.per_row[:], block.per_column[:] = positions.per_row.tolist(), positions.per_column.tolist()
    return block


class NearestParameters(ctypes.Structure):
    """`EhNearest` of masks.cpp, field by field."""

    _fields_ = (
        ("size", _I), ("slices", _I), ("rows", _I), ("columns", _I), ("planes", _I), ("height", _I), ("width", _I),
        ("padding_low", _I), ("padding_high", _I), ("reserved", _I), ("slice_stride", _L), ("row_stride", _L),
        ("origin", _D * 3), ("spacing", _D * 3), ("normal", _D * 3), ("down", _D * 3), ("right", _D * 3),
        ("row_mm", _D), ("column_mm", _D), ("lowest", _D), ("highest", _D),
    )  # fmt: skip


def nearest_parameters(
    bounds: masks_oracle.Bounds, stack: Stack, target: Target, pixels: npt.NDArray[np.int16]
) -> NearestParameters:
    """The parameter block of one sampling; `pixels` have adjacent columns."""
    block = NearestParameters()
    block.size = ctypes.sizeof(NearestParameters)
    block.slices, block.rows, block.columns = pixels.shape
    block.planes, block.height, block.width = target.shape
    block.padding_low, block.padding_high = stack.padding if stack.padding is not None else (1, 0)
    block.slice_stride, block.row_stride = (stride // pixels.itemsize for stride in pixels.strides[:2])
    block.origin[:], block.spacing[:] = target.origin, target.spacing_mm[::-1]
    block.normal[:], block.down[:] = stack.normal.tolist(), stack.column_cosines.tolist()
    block.right[:] = stack.row_cosines.tolist()
    block.row_mm, block.column_mm = stack.pixel_spacing
    block.lowest, block.highest = bounds.lowest, bounds.highest
    return block


def _check_size(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or math.prod(shape) > MOST_VOXELS:
        raise ValueError(f"{name} is [Z, Y, X] of at most {MOST_VOXELS} voxels, not {shape}")


def _library() -> ctypes.CDLL | None:
    """The native twin with this module's functions declared, or None where NumPy is to do the work."""
    library = native.library() if fused.implementation() == "native" else None
    return None if library is None else _declared(library)


@functools.cache
def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    i = ctypes.c_int
    returned, sampled = ctypes.POINTER(ReturnParameters), ctypes.POINTER(NearestParameters)
    library.eh_label.argtypes = (_P, i, i, i, i, _P, ctypes.POINTER(_I))
    library.eh_to_slices_nearest.argtypes = library.eh_to_slices_linear.argtypes = (returned, _P, _P, _P, i)
    library.eh_quantize.argtypes = (_P, _P, _L, _F, i)
    library.eh_nearest.argtypes = (sampled, _P, _P, _P, _P, _P, _P, _P, i)
    return library


def _done(code: int) -> None:
    if code:
        error = MemoryError if code == -3 else RuntimeError
        raise error(f"the native twin gave up: {native.FAILURES.get(code, code)}")
