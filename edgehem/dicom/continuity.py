"""Does every slice continue its neighbours? Where those above and below show tissue, so does the one between them.

A slice that was blanked, half written or taken from another body breaks this, whatever its header says. Anatomy does
not: between two places of tissue a few millimetres apart lies tissue, but for small cavities, and between two places of
skull lies skull. At the ends of a stack there is one neighbour: a head is a dome, and does not end abruptly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.dicom.hu import sample
from edgehem.errors import Code, Refusal
from edgehem.volume import Volume

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

GRID = 64
"""Points per side at which a slice is sampled: 4 mm in a 250 mm field of view."""
TISSUE_HU = -300.0
"""Between air and fat."""
BONE_HU = 300.0
"""Above soft tissue, blood and calcified plexus; skull is far denser."""
MIN_TISSUE_MM2 = 4000.0
MIN_BONE_MM2 = 600.0
"""Overlaps of the neighbours smaller than these (a head is 15,000 mm² and its skull 3,000) say nothing."""
RUN = 4
"""Bad slices in a row that must not excuse each other; more in a thin stack."""
RUN_MM = 12.0
MOST_TISSUE_LOST = 0.25
"""A quarter of a head is more than all its cavities. Half a blank slice loses half."""
MOST_BONE_LOST = 0.8
"""Bone is looked for one point further, which forgives a movement of 4 to 8 mm. A steep vertex or a thin squama can
lose half of what is left; another body's slice loses nearly all of it."""
DOME_MM = 180.0
"""A section h below the top of a sphere of radius R is 2 pi R h large, and the last slice but one of a whole stack lies
about one distance below the top. Twice the radius of the largest heads allows for flat vaults and partial volume."""
END_LOST = 0.5
"""Part of the neighbour's tissue that the outermost slice lacks where a stack that goes on ends in nothing."""


def refuse_interrupted(volume: Volume) -> None:
    """Make sure that no slice interrupts what its neighbours show.

    Raises
    ------
    Refusal
        HU_IMPLAUSIBLE.
    """
    tissue, bone = lost_shares(volume)
    if tissue.max(initial=0) > MOST_TISSUE_LOST or bone.max(initial=0) > MOST_BONE_LOST:
        raise Refusal(
            Code.HU_IMPLAUSIBLE,
            "An image between two others is empty, incomplete or of something else; the study must be sent again.",
        )
    if ends_in_nothing(volume):
        raise Refusal(
            Code.HU_IMPLAUSIBLE,
            "The first or last image shows nothing where the head goes on; the study must be sent again.",
        )


def lost_shares(volume: Volume) -> tuple[Float32, Float32]:
    """Which part of the tissue and of the bone that slices above and below show is lacking in a slice.

    Returns
    -------
    tissue, bone : float32 array [pairs]
        0 to 1, for every slice between the one before it and each of the next few (:data:`RUN`, :data:`RUN_MM`); 0
        where these two share too little to tell.
    """
    hu, pixel_mm2 = _coarse(volume)
    reach = max(RUN, int(RUN_MM / volume.slice_spacing))
    lost = []
    for above, enough, forgiving in ((TISSUE_HU, MIN_TISSUE_MM2, False), (BONE_HU, MIN_BONE_MM2, True)):
        mask = hu > above  # [Z, Y', X']
        shown = _grown(mask) if forgiving else mask
        shares = []
        # A run of three is passed over in a step of four as well as in one of three.
        for step in (2**power for power in range(reach.bit_length())):
            if step + 2 > len(mask):
                break
            both = mask[: -step - 1] & mask[step + 1 :]
            expected = both.sum(axis=(1, 2))
            found = (both & shown[1:-step]).sum(axis=(1, 2))
            told = expected * pixel_mm2 >= enough
            shares.append(np.where(told, 1 - found / np.maximum(1, expected), 0))
        lost.append(np.concatenate(shares).astype(np.float32) if shares else np.zeros(0, np.float32))
    return lost[0], lost[1]


def ends_in_nothing(volume: Volume) -> bool:
    """Whether an outermost slice lacks the tissue of the one beside it, which is too large to be the last one."""
    hu, pixel_mm2 = _coarse(volume, np.array([0, 1, -2, -1]))
    tissue = hu > TISSUE_HU
    distances = np.diff(volume.distances)
    for outer, inner, apart in ((0, 1, distances[0]), (3, 2, distances[-1])):
        area = int(tissue[inner].sum())
        lost = int((tissue[inner] & ~tissue[outer]).sum())
        largest = MIN_TISSUE_MM2 + 2 * np.pi * DOME_MM * apart
        if area * pixel_mm2 > largest and lost > END_LOST * area:
            return True
    return False


def _coarse(volume: Volume, slices: npt.NDArray[np.intp] | None = None) -> tuple[Float32, float]:
    """Every few pixels of the slices, float32 [N, Y', X'] HU, and the area that each stands for, mm²."""
    rows, columns = (max(1, size // GRID) for size in volume.pixels.shape[1:])
    row_mm, column_mm = volume.pixel_spacing
    return sample(volume, (rows, columns), slices), rows * row_mm * columns * column_mm


def _grown(mask: Bool) -> Bool:
    """A mask [Z, Y, X] and its four neighbours in the plane."""
    out = mask.copy()
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    out[:, :, 1:] |= mask[:, :, :-1]
    out[:, :, :-1] |= mask[:, :, 1:]
    return out
