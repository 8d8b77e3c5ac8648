"""The head of a seed and its hemorrhages, as CT of that seed has them, with the materials that MR needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgehem.phantom import hematoma
from edgehem.phantom.anatomy import Anatomy, rotation, synthesise
from edgehem.phantom.bleeds import Bled, Bleed
from edgehem.phantom.displacement import Flow, carry
from edgehem.phantom.head import draw_head
from edgehem.phantom.shapes import F32


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A head with its hemorrhages.

    Parameters
    ----------
    anatomy : Anatomy
        After the hemorrhages have pushed it, without them. `hu` is what CT would show of it.
    materials : mapping of material to float32 array [Z, Y, X]
        Shares that add up to 1.
    bled : Bled
    wet_hu : float32 array [Z, Y, X]
        By how much oedema, of a hemorrhage or of an acute infarct, makes CT darker, HU. Not told where blood lies.
    midline_shift_mm : float
        Towards the patient's left.
    """

    anatomy: Anatomy
    materials: Mapping[str, F32]
    bled: Bled
    wet_hu: F32
    midline_shift_mm: float


def steps_of(axes: tuple[F32, F32, F32]) -> tuple[float, float, float]:
    """Distance of voxels along Z, Y and X, mm."""
    z, y, x = (float(axis[1] - axis[0]) for axis in axes)
    return z, y, x


def bleeding_head(
    seed: int, bleeds: Sequence[Bleed], head: Mapping[str, Any] | None = None, voxel_mm: float = 1.0
) -> Patient:
    """Build the head and the hemorrhages of :func:`edgehem.phantom.cases.make_case` with the same arguments.

    Raises
    ------
    UsageError
        If there is no such field of a head.
    """
    person = draw_head(seed, **dict(head or {}))
    before = synthesise(person, voxel_mm, materials=True)
    if before.materials is None:
        raise TypeError("the anatomy was built without its materials")
    dry = before.hu
    if person.infarct is not None and person.infarct_drop_hu > 0:
        # The same head without what the infarct does to its density: the difference is water.
        dry = synthesise(replace(person, infarct_drop_hu=0.0), voxel_mm).hu
    bled = Bled(hu=before.hu, coverage={}, ml={})
    if bleeds:
        bled = hematoma.bleed(before, hematoma.place_all(before, bleeds, seed))
    flow = bled.flow
    after = before if flow is None else _moved(before, flow)
    if flow is not None:
        dry = dry.copy()
        carry(before, flow, dry, person.csf_hu)
    wet = dry - bled.hu
    for block in bled.coverage.values():
        wet[block > 0] = 0
    return Patient(
        anatomy=after,
        materials=after.materials or {},
        bled=bled,
        wet_hu=wet,
        midline_shift_mm=person.midline_shift + bled.midline_shift_mm,
    )


def _moved(anatomy: Anatomy, flow: Flow) -> Anatomy:
    """The head with all its materials and coordinates carried along."""
    t = anatomy.tissue
    hu = anatomy.hu.copy()
    carry(anatomy, flow, hu, anatomy.head.csf_hu)
    materials = dict(anatomy.materials or {})
    for name, share in materials.items():
        if share.reshape(-1)[t.index].any():
            materials[name] = share.copy()
            carry(anatomy, flow, materials[name], float(name == "csf"))
    shape = anatomy.hu.shape
    position = []
    for size, step, at, by in zip(
        shape, steps_of(anatomy.axes), np.unravel_index(t.index, shape), flow.moved, strict=True
    ):
        position.append(np.clip(np.rint(at - by / np.float32(step)), 0, size - 1).astype(np.int64))
    row_of = np.full(anatomy.hu.size, -1, np.int64)
    row_of[t.index] = np.arange(len(t.index))
    origin = row_of[np.ravel_multi_index(position, shape)]
    origin = np.where(origin >= 0, origin, np.arange(len(t.index)))
    # Coordinates of what has come here: its displacement, turned from the scanner's axes into the head's.
    by_head = rotation(anatomy.head).T.astype(np.float32) @ flow.moved[::-1]
    return replace(
        anatomy,
        hu=hu,
        materials=materials,
        tissue=replace(
            t,
            x=t.x - by_head[0],
            y=t.y - by_head[1],
            z=t.z - by_head[2],
            kind=t.kind[origin],
            fluid=t.fluid[origin],
            found=t.found[origin],
        ),
    )
