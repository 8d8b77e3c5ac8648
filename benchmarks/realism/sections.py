"""What lies inside the skull on each section of a head CT, and how deep: found alike in a real scan and a phantom.

Nothing here knows a phantom's truth: what cannot be measured in a real scan cannot be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.dicom.hu import to_hu
from edgehem.errors import UsageError
from edgehem.volume import Volume

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

BONE_HU = 250.0
"""As :data:`edgehem.dicom.anatomy.BONE_HU`."""
TISSUE_HU = -300.0
"""Between air and fat."""
CLOSE_MM = 3.0
"""Sutures and thin bone are bridged over this length."""
LEAST_MM2 = 4000.0
"""Of a section through the vault."""
FEWEST = 3
"""Sections that a head needs to be measured."""


@dataclass(frozen=True, kw_only=True)
class Sections:
    """The vault of a head, section by section.

    Parameters
    ----------
    hu : float32 array [N, Y, X], HU
    inside : bool array [N, Y, X]
        Within the inner table.
    depth : float32 array [N, Y, X], mm
        Distance to the inner table in the plane; 0 outside.
    bone : bool array [N, Y, X]
        The skull around it.
    pixel_mm : tuple of float
        Rows, columns.
    """

    hu: Float32
    inside: Bool
    depth: Float32
    bone: Bool
    pixel_mm: tuple[float, float]


def vault(volume: Volume) -> Sections:
    """The sections from the largest one upwards: below, the skull base lies among the brain.

    Raises
    ------
    UsageError
        If fewer than three sections show a closed skull.
    """
    from scipy import ndimage

    hu = to_hu(volume.pixels, volume.slope, volume.intercept, volume.padding)
    pixel_mm = volume.pixel_spacing
    found = [_cavity(section > BONE_HU, section > TISSUE_HU, pixel_mm) for section in hu]
    area = np.array([inside.sum() for inside, _ in found]) * pixel_mm[0] * pixel_mm[1]
    largest = int(area.argmax())
    up = 1 if volume.origin[-1, 2] > volume.origin[0, 2] else -1
    chosen = [n for n in range(len(hu)) if (n - largest) * up >= 0 and area[n] >= LEAST_MM2]
    if len(chosen) < FEWEST:
        raise UsageError("too few sections show a closed skull")
    inside = np.stack([found[n][0] for n in chosen])
    depth = np.stack([ndimage.distance_transform_edt(one, sampling=pixel_mm) for one in inside]).astype(np.float32)
    bone = np.stack([found[n][1] for n in chosen])
    return Sections(hu=hu[chosen], inside=inside, depth=depth, bone=bone, pixel_mm=pixel_mm)


def _cavity(bone: Bool, tissue: Bool, pixel_mm: tuple[float, float]) -> tuple[Bool, Bool]:
    """The largest space that bone encloses on a section, and the bone around it."""
    from scipy import ndimage

    head = _largest(ndimage.binary_fill_holes(tissue))
    radius = max(1, round(CLOSE_MM / min(pixel_mm)))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    ring = ndimage.binary_closing(np.pad(bone & head, radius), y * y + x * x <= radius * radius)
    ring = ring[radius:-radius, radius:-radius]
    inside = _largest(ndimage.binary_fill_holes(ring) & ~ring)
    around = ndimage.binary_dilation(inside, iterations=round(14 / min(pixel_mm)))
    return inside, bone & head & around & ~inside


def _largest(mask: Bool) -> Bool:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax(), np.bool_)
