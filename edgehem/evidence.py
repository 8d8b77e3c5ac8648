"""Where an answer came from: key slices and suspected regions, in the pixels of the acquired series."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem import kernels
from edgehem.errors import BundleError
from edgehem.preprocess import grid_point, plane_to_slice
from edgehem.result import KeySlice
from edgehem.volume import Volume

KEY_SLICES = 4
"""At most so many key slices are reported."""
KEY_WEIGHT = 0.03
"""Planes with less of the attention than this are no key slices."""
MAP_LOGIT = 0.0
"""A cell of the blood map belongs to a suspected region from this logit on (probability one half)."""


def key_slices(
    volume: Volume,
    target: kernels.Target,
    attention: npt.NDArray[np.float32],
    blood_map: npt.NDArray[np.float32],
) -> tuple[KeySlice, ...]:
    """The acquired slices the answer came from, heaviest first.

    Parameters
    ----------
    volume : Volume
    target : kernels.Target
    attention : float32 array [Z]
        Weight of every grid plane.
    blood_map : float32 array [Z, Y / s, X / s]
        Logit of blood per cell of every plane.

    Returns
    -------
    tuple of KeySlice
        A plane is shown by the slice through its most suspicious cell (through its middle, where no cell reaches
        :data:`MAP_LOGIT`): a tilted slice crosses several planes. Planes that fall on the same slice are added up; the
        box is that of the heaviest.

    Raises
    ------
    BundleError
        If the outputs are not numbers, or not one row and one map for every plane.
    """
    if attention.shape != target.shape[:1] or blood_map.ndim != 3 or len(blood_map) != len(attention):
        raise BundleError(f"evidence of shapes {attention.shape} and {blood_map.shape} for {target.shape[0]} planes")
    if not (np.isfinite(attention).all() and np.isfinite(blood_map).all()):
        raise BundleError("the evidence holds a value that is not a number")
    best: dict[int, tuple[float, int]] = {}
    for plane in np.argsort(-attention, kind="stable"):
        weight = float(attention[plane])
        if weight < KEY_WEIGHT:
            break
        index = _slice_of(volume, target, blood_map[plane], int(plane))
        held = best.get(index)
        best[index] = (held[0] + weight, held[1]) if held else (weight, int(plane))
    ranked = sorted(best.items(), key=lambda item: -item[1][0])[:KEY_SLICES]
    return tuple(
        KeySlice(
            index=index, weight=round(weight, 4), box=suspected_box(volume, target, blood_map[plane], plane, index)
        )
        for index, (weight, plane) in ranked
    )


def suspected_box(
    volume: Volume, target: kernels.Target, cells: npt.NDArray[np.float32], plane: int, index: int
) -> tuple[int, int, int, int] | None:
    """Bounding box, on an acquired slice, of the region around a plane's most suspicious cell.

    Returns
    -------
    tuple of int or None
        First row, first column, last row, last column; None where no cell reaches :data:`MAP_LOGIT`.
    """
    seed = _most_suspicious(cells)
    if seed is None:
        return None
    suspicious = cells >= MAP_LOGIT
    region = np.zeros_like(suspicious)
    region[seed] = True
    size = 0
    while (now := int(region.sum())) != size:
        size = now
        wide = np.pad(region, 1)
        rows = wide[:-2] | wide[1:-1] | wide[2:]
        region = (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]) & suspicious
    ys, xs = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    step = target.shape[1] / cells.shape[0]
    corners = [(y * step - 0.5, x * step - 0.5) for y in (ys[0], ys[-1] + 1) for x in (xs[0], xs[-1] + 1)]
    at = volume.world_to_index(np.stack([grid_point(target, plane, y, x) for y, x in corners]), index)
    last = np.array(volume.pixels.shape[1:]) - 1
    first, end = np.clip(at.min(axis=0), 0, last), np.clip(at.max(axis=0), 0, last)
    return int(first[0]), int(first[1]), int(end[0]), int(end[1])


def _most_suspicious(cells: npt.NDArray[np.float32]) -> tuple[int, int] | None:
    """Row and column of a plane's most suspicious cell; None where no cell reaches :data:`MAP_LOGIT`."""
    row, column = divmod(int(np.argmax(cells)), cells.shape[1])
    return (row, column) if float(cells[row, column]) >= MAP_LOGIT else None


def _slice_of(volume: Volume, target: kernels.Target, cells: npt.NDArray[np.float32], plane: int) -> int:
    """Index of the acquired slice that shows a plane: where its blood is suspected, else at its middle."""
    seed = _most_suspicious(cells)
    if seed is None:
        return plane_to_slice(volume, target, plane)
    step = target.shape[1] / cells.shape[0]
    return volume.nearest_slice(grid_point(target, plane, (seed[0] + 0.5) * step - 0.5, (seed[1] + 0.5) * step - 0.5))
