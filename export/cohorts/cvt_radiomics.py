"""First-order features, shape and depth of a hematoma in a CT: what shows whether the planted texture is in the image.

A small set of our own for the exam of the generator, not the radiomics of system 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import Float
from edgehem.volume import Volume

Mask = npt.NDArray[np.bool_]

PERCENTILES = (10, 25, 50, 75, 90)
ENTROPY_HU = 5.0
"""Width of the histogram's bins for the entropy, HU, ours: a clot spans some 30 HU."""
BONE_HU = 400.0
"""Denser than blood, calcified dura mostly, and the rim of bone; ours."""
DIRECTIONS = 180
"""Rays per slice that look for the inner table, 2 degrees apart, ours."""
RAY_MM = 0.5
"""Step along a ray, ours."""
VAULT_MM = 14.0
"""Skull along a ray, at most; ours: thick ones, met slantwise."""
MIN_VOXELS = 8
"""A hematoma of fewer voxels is not measured, ours."""
SURFACE_POINTS = 2000
"""Voxels of the surface that depth is looked up for, at most, evenly spread in order; ours."""
TILE = 256


def measure(volume: Volume, mask: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Measure one hematoma, or several as one.

    Parameters
    ----------
    volume : Volume
    mask : uint8 array [Z, Y, X]
        Not 0 where the hematoma is.

    Returns
    -------
    dict of name to float
        ``volume_ml``; ``mean_hu``, ``sd_hu``, ``skewness``, ``p10_hu`` to ``p90_hu`` and ``entropy_bit`` of its voxels
        less the outermost layer in the plane, where partial volume rules (all voxels where nothing would be left);
        ``core_sd_hu``, the standard deviation inside slices only, so that drift along the stack does not count;
        ``surface_mm2``, the area of voxel faces, and ``surface_per_mm``, that by the volume; ``compactness``, surface
        over that of a ball of the same volume; ``depth_mm``, the smallest distance to the inner table.

    Raises
    ------
    UsageError
        If the shapes differ or the mask has fewer than :data:`MIN_VOXELS` voxels.
    """
    inside = np.asarray(mask) != 0
    if inside.shape != volume.pixels.shape:
        raise UsageError(f"the mask has shape {inside.shape}, the volume {volume.pixels.shape}")
    if int(inside.sum()) < MIN_VOXELS:
        raise UsageError(f"the mask has {int(inside.sum())} voxels; {MIN_VOXELS} are needed")
    hu = volume.pixels * volume.slope[:, None, None] + volume.intercept[:, None, None]  # [Z, Y, X] HU
    core = _eroded(inside)
    core = core if int(core.sum()) >= MIN_VOXELS else inside
    thick = _thickness(volume)  # [Z] mm
    row_mm, column_mm = volume.pixel_spacing
    ml = float((inside.sum(axis=(1, 2)) * thick).sum() * row_mm * column_mm / 1000)
    surface = _surface(inside, thick, row_mm, column_mm)
    ball = (36 * np.pi * (1000 * ml) ** 2) ** (1 / 3)
    values = hu[core].astype(np.float64)
    spread = float(values.std())
    return {
        "volume_ml": ml,
        "mean_hu": float(values.mean()),
        "sd_hu": spread,
        "skewness": float(((values - values.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0,
        **{f"p{p}_hu": float(v) for p, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)},
        "entropy_bit": _entropy(values),
        "core_sd_hu": _within(hu, core),
        "surface_mm2": surface,
        "surface_per_mm": surface / (1000 * ml),
        "compactness": surface / ball,
        "depth_mm": _depth(hu, inside, volume),
    }


def _eroded(inside: Mask) -> Mask:
    """Voxels whose four neighbours in the plane are inside, too."""
    core = inside.copy()
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    core[:, :, 1:] &= inside[:, :, :-1]
    core[:, :, :-1] &= inside[:, :, 1:]
    core[:, [0, -1]] = False
    core[:, :, [0, -1]] = False
    return core


def _thickness(volume: Volume) -> Float:
    """Extent of every slice along the normal, float64 [Z], mm: half the way to both neighbours."""
    if len(volume.origin) < 2:
        raise UsageError("a volume of one slice has no thickness")
    gaps = np.diff(volume.distances)
    return np.asarray((np.append(gaps, gaps[-1]) + np.insert(gaps, 0, gaps[0])) / 2, np.float64)


def _surface(inside: Mask, thick: Float, row_mm: float, column_mm: float) -> float:
    """Area of the faces between inside and outside, mm²."""
    padded = np.pad(inside, 1)
    across = float((padded[1:] != padded[:-1]).sum()) * row_mm * column_mm
    rows = (padded[1:-1, 1:] != padded[1:-1, :-1]).sum(axis=(1, 2)) * thick * column_mm
    columns = (padded[1:-1, :, 1:] != padded[1:-1, :, :-1]).sum(axis=(1, 2)) * thick * row_mm
    return across + float(rows.sum() + columns.sum())


def _entropy(values: Float) -> float:
    """Shannon entropy of the histogram, bits."""
    _, counts = np.unique(np.floor(values / ENTROPY_HU), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _within(hu: npt.NDArray[np.float32], core: Mask) -> float:
    """Standard deviation about the mean of each slice, HU."""
    counts = core.sum(axis=(1, 2))
    kept = counts >= MIN_VOXELS
    if not kept.any():
        return float(hu[core].std(dtype=np.float64))
    values = np.where(core, hu, 0)[kept].astype(np.float64)
    n = counts[kept]
    mean = values.sum(axis=(1, 2)) / n
    square = (values**2).sum(axis=(1, 2)) - n * mean**2
    return float(np.sqrt(np.maximum(square, 0).sum() / n.sum()))


def _depth(hu: npt.NDArray[np.float32], inside: Mask, volume: Volume) -> float:
    """Smallest distance between hematoma and inner table, mm; NaN where no bone is met."""
    planes = np.flatnonzero(inside.any(axis=(1, 2)))
    planes = np.arange(max(planes[0] - 2, 0), min(planes[-1] + 3, len(inside)))
    table = np.concatenate([_inner_table(hu[z], z, volume) for z in planes.tolist()])
    if not len(table):
        return float("nan")
    rim = np.argwhere(inside & ~_eroded(inside))
    rim = rim[:: -(-len(rim) // SURFACE_POINTS)]
    points = _places(volume, rim[:, 0], rim[:, 1:].astype(np.float64))
    nearest = np.inf
    for start in range(0, len(points), TILE):
        gap = points[start : start + TILE, None] - table[None]
        nearest = min(nearest, float((gap**2).sum(axis=-1).min()))
    return float(np.sqrt(nearest))


def _inner_table(image: npt.NDArray[np.float32], z: int, volume: Volume) -> Float:
    """Points of the inner table of a slice, float64 [N, 3], mm: where a ray from outside leaves the skull."""
    bone = image > BONE_HU
    if not bone.any():
        return np.empty((0, 3))
    row_mm, column_mm = volume.pixel_spacing
    rows, columns = np.nonzero(bone)
    centre = np.array([rows.min() + rows.max(), columns.min() + columns.max()]) / 2
    reach = float(np.hypot(np.ptp(rows) * row_mm, np.ptp(columns) * column_mm)) / 2 + 5
    angle = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    along = np.arange(reach, 0, -RAY_MM)  # from outside to the centre
    at_row = centre[0] + np.sin(angle)[:, None] * along / row_mm
    at_column = centre[1] + np.cos(angle)[:, None] * along / column_mm
    r, c = np.rint(at_row).astype(np.int64), np.rint(at_column).astype(np.int64)
    ok = (r >= 0) & (r < bone.shape[0]) & (c >= 0) & (c < bone.shape[1])
    met = np.zeros(ok.shape, np.bool_)  # [directions, steps]
    met[ok] = bone[r[ok], c[ok]]
    entered = np.argmax(met, axis=1)
    # Marrow may part the tables: the last bone within the skull's thickness ends it.
    vault = met & (np.arange(len(along)) < entered[:, None] + round(VAULT_MM / RAY_MM))
    left = np.minimum(len(along) - np.argmax(vault[:, ::-1], axis=1), len(along) - 1)
    found = np.flatnonzero(met.any(axis=1))
    place = np.stack([at_row[found, left[found]], at_column[found, left[found]]], axis=1)
    return _places(volume, np.full(len(found), z), place)


def _places(volume: Volume, z: npt.NDArray[np.int64], at: Float) -> Float:
    """World points of rows and columns [N, 2] in slices [N], float64 [N, 3], mm."""
    row_mm, column_mm = volume.pixel_spacing
    down, right = at[:, :1] * row_mm * volume.column_cosines, at[:, 1:] * column_mm * volume.row_cosines
    return np.asarray(volume.origin[z] + down + right, np.float64)
