"""What lies inside the skull, voxel by voxel: what a hemorrhage is placed by."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from edgehem.phantom.shapes import F32


class Kind(IntEnum):
    """What a voxel inside the skull mostly is."""

    PARENCHYMA = 0
    CEREBELLUM = 1
    BRAINSTEM = 2
    VENTRICLE = 3
    SUBARACHNOID = 4
    DURA = 5
    CANAL = 6


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """All N voxels inside the skull, as columns.

    Parameters
    ----------
    index : int64 array [N]
        Position in the flattened block.
    x, y, z : float32 arrays [N]
        Head coordinates, mm.
    depth : float32 array [N]
        Distance to the inner table or the skull base, mm.
    kind : uint8 array [N]
        A :class:`Kind`.
    fluid : float32 array [N]
        Share of cerebrospinal fluid, 0..1.
    found : uint8 array [N]
        What is there that is neither tissue nor blood, of :data:`edgehem.phantom.materials.FINDINGS`; 0 for nothing.
    """

    index: npt.NDArray[np.int64]
    x: F32
    y: F32
    z: F32
    depth: F32
    kind: npt.NDArray[np.uint8]
    fluid: F32
    found: npt.NDArray[np.uint8]
    _places: list[npt.NDArray[np.int32]] = field(default_factory=list, repr=False, compare=False)

    def places(self, shape: tuple[int, ...]) -> list[npt.NDArray[np.int32]]:
        """Plane, row and column of every voxel in a block of this shape, int32 [N] each; computed once."""
        if not self._places:
            small = self.index.astype(np.int32)
            line = small // np.int32(shape[2])
            plane = line // np.int32(shape[1])
            self._places.extend((plane, line - plane * np.int32(shape[1]), small - line * np.int32(shape[2])))
        return self._places
