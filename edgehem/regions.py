"""Named regions of the brain: where they lie in a head, how large they are, and which touch each other.

The table ``regions.json`` is measured in the atlas of blast-ct (github.com/biomedia-mira/blast-ct, Apache-2.0; 31 ROIs
in a CT template) by ``docs/make_regions.py``; the grouping of ROIs into regions is ours. It describes one template, not
a patient.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError

Float = npt.NDArray[np.float64]
TABLE = Path(__file__).with_name("regions.json")


class Region(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named region.

    Attributes
    ----------
    name : str
        With its side before it where there are two of it: ``left_thalamus``, ``brainstem``.
    side : str
    kind : str
        ``lobe`` (cortex with the white matter below it; the insula is one), ``deep`` (supratentorial grey nuclei),
        ``infratentorial`` or ``ventricle``.
    rois : tuple of int
        The atlas's labels that it is made of.
    volume_ml : float
        In the template, inside its brain mask.
    centroid : tuple of float
        Normalised head coordinates, LPS: -1 to 1 along each axis over the bounding box of the template's brain.
    extent_mm, extent_share : tuple of float
        Size of its own bounding box along L, P and S: in the template, and as a share of the brain's.
    """

    name: str
    side: Literal["left", "right", "midline"]
    kind: Literal["lobe", "deep", "infratentorial", "ventricle"]
    rois: tuple[int, ...]
    volume_ml: float
    centroid: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    extent_share: tuple[float, float, float]

    @property
    def mirror(self) -> str:
        """The name of its counterpart on the other side; its own on the midline."""
        side, _, rest = self.name.partition("_")
        return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, self.name)


class Regions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All regions, in the order of every array about them.

    Attributes
    ----------
    source, licence : str
    brain_mm : tuple of float
        The bounding box of the template's brain along L, P and S.
    regions : tuple of Region
    contact_mm2 : tuple of rows
        Area of the voxel faces between each two regions, symmetric. Faces of voxels overstate a smooth surface by up to
        the square root of three, everywhere alike.
    """

    source: str
    licence: str
    brain_mm: tuple[float, float, float]
    regions: tuple[Region, ...]
    contact_mm2: tuple[tuple[float, ...], ...]

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all regions."""
        return tuple(region.name for region in self.regions)

    def index(self, name: str) -> int:
        """The place of a region in every array.

        Raises
        ------
        UsageError
            If there is no such region.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UsageError(f"no region is called {name!r}; there are {', '.join(self.names)}") from None

    def is_kind(self, kind: str) -> npt.NDArray[np.bool_]:
        """Which regions are of a kind: bool [R]."""
        return np.array([region.kind == kind for region in self.regions])

    def is_side(self, side: str) -> npt.NDArray[np.bool_]:
        """Which regions are on a side: bool [R]."""
        return np.array([region.side == side for region in self.regions])

    def centroids(self) -> Float:
        """[R, LPS], -1 to 1."""
        return np.array([region.centroid for region in self.regions], np.float64)

    def volumes(self) -> Float:
        """[R] mL."""
        return np.array([region.volume_ml for region in self.regions], np.float64)

    def distances(self) -> Float:
        """Between centroids in the template: [R, R] mm."""
        centroids = self.centroids() * np.array(self.brain_mm) / 2  # [R, LPS] mm
        return np.asarray(np.linalg.norm(centroids[:, None] - centroids[None], axis=-1), np.float64)

    def contact(self) -> Float:
        """[R, R] mm2."""
        return np.array(self.contact_mm2, np.float64)

    def adjacency(self) -> Float:
        """Contact over the square root of both regions' whole contact: symmetric, [R, R], 0 to 1.

        Its largest eigenvalue is 1.
        """
        contact = self.contact()
        root = np.sqrt(contact.sum(1))
        return np.asarray(contact / (root[:, None] * root[None]), np.float64)


@cache
def load_regions() -> Regions:
    """The shipped table."""
    return msgspec.json.decode(TABLE.read_bytes(), type=Regions)
