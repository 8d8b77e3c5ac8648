"""Is it a head? A closed bright ring of a skull's size around soft tissue, and no lungs.

Each slice is looked at along rays from the centre of its bone. The brightest point of a ray is the skull, whatever
lies outside of it: a headrest that touches the head, a pillow, hair. Gantry tilt changes no ring into an open one.
The sizes are anatomy's, not fitted to any data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.dicom.hu import AIR_HU, sample, to_hu
from edgehem.errors import Code, Refusal
from edgehem.volume import Volume

Float32 = npt.NDArray[np.float32]

BONE_HU = 250.0
"""Bone on a slice that cuts it obliquely or thinly; soft tissue and most headrests stay below."""
RING_CLOSED = 0.75
"""Part of the rays that must meet bone: a whole skull has all; a large craniectomy takes away less than a quarter."""
RING_DIAMETER_MM = (85.0, 210.0)
"""Mean diameter of the ring: a newborn's skull is about 90-100 mm, an adult's at its widest about 165 mm."""
INSIDE = 0.85
"""The part of a ray, from the centre towards the skull, that is taken as inside of it."""
INSIDE_HU = (-50.0, 130.0)
"""Brain, fluid and blood with the noise of thin slices and sharp kernels."""
INSIDE_SHARE = 0.7
"""Part of the inside that must be such: the rest may be calcium, metal, air after surgery."""
RING_HEIGHT_MM = 30.0
"""Slices with such a ring must make up this height; the vault above the orbits is about 60-80 mm high."""
BRAIN_HU = (12.0, 52.0)
"""Where the median inside of the rings must lie. White and grey matter measure 20 to 45, fluid 0 to 15; even 200 mL of
blood, generalised swelling or large ventricles leave the median of a whole head within. An intercept that is wrong by
20 or more does not."""
USUAL_BRAIN_HU = (20.0, 44.0)
"""Outside of this the median is said: swelling, much fluid, contrast, or a scale that is off by 10 or more."""
LUNG_HU = (-920.0, -500.0)
"""Aerated lung. Outside air and sinuses lie below, fat and skin above."""
LUNG_ML = 400.0
"""Lung tissue within the bone rays of a stack at most: partial volume of airways and sinuses is a tenth of it."""

RAYS = 72
STEP_MM = 1.5
"""Along a ray: the skull of an infant is 2-3 mm thick."""
_REACH_MM = 120.0
"""Length of a ray: half of the largest skull, and room for a centre that is off."""
_MAX_SLICES = 64
_CENTRE_STEP_MM = 3.0


@dataclass(frozen=True, kw_only=True)
class Rings:
    """A stack along rays from each slice's centre of bone.

    Parameters
    ----------
    slices : int array [N]
        Which slices were looked at.
    slab_mm : float
        Height that each of them stands for.
    centre : float32 array [N, 2]
        Row, column of the centre of bone, pixels.
    hu : float32 array [N, ray, radius], HU
        Rays are :data:`RAYS` in number, from the direction of a row's end towards that of a column's; points lie
        :data:`STEP_MM` apart.
    reach : float32 array [N, ray], mm
        Where a ray is brightest: the skull, where there is one.
    closed : bool array [N]
        The slice shows a closed skull of a head's size around soft tissue.
    inside_hu : float
        Median inside of the closed skulls, HU.
    """

    slices: npt.NDArray[np.intp]
    slab_mm: float
    centre: Float32
    hu: Float32
    reach: Float32
    closed: npt.NDArray[np.bool_]
    inside_hu: float


def refuse_other_than_head(volume: Volume) -> Rings:
    """Make sure that a stack shows a head, and only a head.

    Parameters
    ----------
    volume : Volume
        In plausible Hounsfield units.

    Returns
    -------
    Rings
        What was looked at, for the gates that look closer.

    Raises
    ------
    Refusal
        NOT_HEAD; HU_IMPLAUSIBLE where there is a skull, and its inside does not have brain's values.
    """
    count = len(volume.pixels)
    slices = np.unique(np.linspace(0, count - 1, min(count, _MAX_SLICES)).round().astype(np.intp))
    slab_mm = (volume.distances[-1] - volume.distances[0] + volume.slice_spacing) / len(slices)
    centre = _bone_centres(volume, slices)  # [Z, 2] row, column in pixels
    hu = _along_rays(volume, slices, centre)  # [Z, ray, radius] HU
    radius = np.arange(hu.shape[2], dtype=np.float32) * STEP_MM  # mm
    reach = radius[hu.argmax(axis=2)]  # [Z, ray] mm, where the ray is brightest
    meets_bone = hu.max(axis=2) > BONE_HU
    closed = meets_bone.mean(axis=1)
    diameter = 2 * (reach * meets_bone).sum(axis=1) / np.maximum(1, meets_bone.sum(axis=1))

    inside = (radius < INSIDE * reach[..., None]) & meets_bone[..., None]
    is_tissue = inside & (hu > INSIDE_HU[0]) & (hu < INSIDE_HU[1])
    # A step along a ray covers an area that grows with the radius.
    tissue_share = (is_tissue @ radius).sum(axis=1) / np.maximum(1.0, (inside @ radius).sum(axis=1))
    ring = (
        (closed >= RING_CLOSED)
        & (diameter >= RING_DIAMETER_MM[0])
        & (diameter <= RING_DIAMETER_MM[1])
        & (tissue_share >= INSIDE_SHARE)
    )
    if ring.sum() * slab_mm < RING_HEIGHT_MM:
        raise Refusal(Code.NOT_HEAD, "The images do not show a head: no closed skull around soft tissue is found.")

    is_lung = (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]) & (radius < reach[..., None])
    area = (is_lung @ radius).sum(axis=1) * STEP_MM * (2 * np.pi / RAYS)  # [Z] mm²
    if area[~ring].sum() * slab_mm / 1000 > LUNG_ML:
        raise Refusal(Code.NOT_HEAD, "The images show lungs; only a CT of the head is analysed.")
    brain = float(np.median(hu[ring][inside[ring]]))
    if not BRAIN_HU[0] <= brain <= BRAIN_HU[1]:
        raise Refusal(
            Code.HU_IMPLAUSIBLE,
            f"Inside the skull the typical value is {brain:.0f} Hounsfield units; it should be 20-40.",
        )
    return Rings(slices=slices, slab_mm=slab_mm, centre=centre, hu=hu, reach=reach, closed=ring, inside_hu=brain)


def _along_rays(volume: Volume, slices: npt.NDArray[np.intp], centre: Float32) -> Float32:
    """Hounsfield units along rays from each slice's centre of bone, float32 [Z, ray, radius]; air off the image."""
    row_mm, column_mm = volume.pixel_spacing
    rows, columns = volume.pixels.shape[1:]
    angle = np.arange(RAYS, dtype=np.float32) * (2 * np.pi / RAYS)
    radius = np.arange(0, _REACH_MM, STEP_MM, dtype=np.float32)
    down = np.rint(np.outer(np.sin(angle), radius / row_mm)).astype(np.intp)  # [ray, radius]
    right = np.rint(np.outer(np.cos(angle), radius / column_mm)).astype(np.intp)
    stored = np.empty((len(slices), *down.shape), volume.pixels.dtype)
    off = np.empty(stored.shape, np.bool_)
    for number, index in enumerate(slices):
        row, column = down + int(centre[number, 0]), right + int(centre[number, 1])
        off[number] = (row < 0) | (row >= rows) | (column < 0) | (column >= columns)
        row *= columns
        row += column
        np.take(volume.pixels[index].reshape(-1), row, out=stored[number], mode="clip")
    hu = to_hu(stored, volume.slope[slices], volume.intercept[slices], volume.padding)
    hu[off] = AIR_HU
    return hu


def _bone_centres(volume: Volume, slices: npt.NDArray[np.intp]) -> Float32:
    """Mean row and column of bone on each slice, float32 [Z, 2] whole pixels; the middle where there is no bone."""
    rows, columns = volume.pixels.shape[1:]
    step = tuple(max(1, round(_CENTRE_STEP_MM / spacing)) for spacing in volume.pixel_spacing)
    bone = sample(volume, (step[0], step[1]), slices) > BONE_HU
    by_row = bone.sum(axis=2, dtype=np.float32)  # [Z, Y']
    by_column = bone.sum(axis=1, dtype=np.float32)  # [Z, X']
    total = by_row.sum(axis=1)
    row = by_row @ np.arange(0, rows, step[0], dtype=np.float32)
    column = by_column @ np.arange(0, columns, step[1], dtype=np.float32)
    some = np.maximum(total, 1)
    centre = np.stack([row / some, column / some], axis=1)
    centre[total == 0] = (rows / 2, columns / 2)
    return np.asarray(np.rint(centre), dtype=np.float32)
