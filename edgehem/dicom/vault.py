"""What spoils a head CT though it is one: metal, motion, contrast, surgery. Each is said, and none refuses.

A refusal costs an alarm; a note costs a look. Contrast is refused where the header tells it
(:mod:`edgehem.dicom.labels`). Seen in the pixels alone it is a flag: densely calcified vessels and implants look alike,
and blood may lie beside it.

Everything is measured from the vault downwards, on the rays that found the skull: face and neck hold air, thin bone and
teeth that imitate each of these. Thresholds are sizes and densities of anatomy, physics and implants, not fitted to
scans of patients; ``edgehem bench gates`` counts how often each is right on phantoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgehem.dicom.anatomy import BONE_HU, RAYS, STEP_MM, Rings
from edgehem.errors import Code
from edgehem.result import Note
from edgehem.volume import Volume

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

METAL_HU = 2400.0
"""Cortical bone reaches 2000, the petrous bone on thin slices 2200; titanium alone has 7000. Enamel, 2500 to 3000, lies
below the brain. A scale that ends below this (8 bits) hides metal."""
METAL_MM2 = 3.0
"""Area on one slice: a few pixels of 0.5 mm. The jaws of an aneurysm clip are 1 to 2 mm wide, its spring is larger."""
METAL_BELOW_TOP_MM = (100.0, 125.0)
"""How deep under the vault metal matters, in the front and in the back half of the head. The arterial circle lies at 80
to 95 mm and the foramen magnum at 110 to 125; upper teeth begin at 110 even with the chin up, and lie in front."""
METAL_BESIDE_SKULL_MM = 8.0
"""A plate or a staple lies on the bone, at most as far out as the scalp."""

SHIFT_MM = 1.5
"""Median distance between a slice's inner table and the one interpolated between its neighbours. A head that moves by d
and stays there displaces two slices by about 0.35 d each (half of d, over all directions): 1.5 mm stand for 4 mm. Half
a pixel comes on top, for a table is found no better."""
BEND_PER_MM = 0.016
"""A skull bends by itself: interpolation over slices s apart errs by s² / 2 × R² / r³, with R = 80 mm for the vault and
r >= 58 mm, 25 mm below the vertex."""
SHIFTED_SLICES = 2
"""Neighbours on both sides of one movement; one slice alone may be a fold of bone."""
STEADY_MM = (15.0, 65.0)
"""Depth under the vault's top where its inner table is smooth: below the steep part, above the skull base."""

VESSEL_HU = 110.0
"""Clotted blood stays below 100; arteries and veins with contrast have 150 to 400, less on slices thicker than they."""
VESSEL_NOISE = 4.0
"""Standard deviations of noise that a single bright point must exceed the densest blood (85) by."""
DENSE_BLOOD_HU = 85.0
VESSEL_MOST_HU = 450.0
"""Denser than any contrast: bone, calcium, metal. What lies beside it may be its blurred edge."""
VESSEL_BESIDE_BONE_MM = 12.0
"""Not looked at: partial volume of the vault, and dural calcium."""
VESSEL_DEPTH_MM = (12.0, 60.0)
"""Under the vault and above the orbital roofs and petrous ridges, even with the chin down."""
VESSEL_CELL = (10.0, 6, 25.0)
"""What counts as one place: depth in mm, rays (30°), radius in mm."""
VESSEL_PLACES = 10
"""Pineal gland, both choroid plexuses, basal ganglia and falx make at most 9 places when all are calcified; vessels are
everywhere."""

HOLE_MM = 30.0
"""A gap in the ring, along it: more than a suture, a pacchionian pit or a burr hole (14 mm)."""
HOLE_MM2 = 500.0
"""Its area over all slices: a disk of 25 mm. Bone flaps are 40 mm and more."""
HOLE_DEPTH_MM = (5.0, 55.0)
"""Above the temporal squama, which is thin enough to vanish on thick slices."""
AIR_HU = -300.0
"""Half air: neither fat nor its noise."""
AIR_ML = 0.5
"""Inside of the skull there is none, unless it was opened. Thin sheets of it are hardly measured beside the bone."""
AIR_DEPTH_MM = 55.0
"""Above the sphenoid sinus, even with the chin down. Air rises to the forehead of a patient who lies."""
AIR_BESIDE_BONE_MM = 3.0
SINUS_WIDTH = 1 / 5
"""Of all rays: no frontal sinus is wider. Before one the inner table may be too thin to be seen, and the first bone on
a ray is the outer table: there the inner one is taken to run on as it does beside."""

TOP_RING_MM = 15.0
"""A slice shows a closed ring from 10 to 15 mm under the highest point of the skull on: above, it cuts bone flatly."""


def vault_notes(volume: Volume, rings: Rings) -> list[Note]:
    """What a person should know about the images.

    Parameters
    ----------
    volume : Volume
    rings : Rings
        What :func:`edgehem.dicom.anatomy.refuse_other_than_head` saw in it.

    Returns
    -------
    list of Note
        METAL, MOTION, CONTRAST_SEEN, POSTOPERATIVE.
    """
    vault = Vault(volume, rings)
    metal_mm2 = metal(vault)
    moved = shifted_slices(vault)
    spoilt = metal_mm2 >= METAL_MM2 or moved >= SHIFTED_SLICES
    said = [
        (
            metal_mm2 >= METAL_MM2,
            Code.METAL,
            "Metal lies at the brain or its skull; streaks may hide blood or look like it.",
        ),
        (
            moved >= SHIFTED_SLICES,
            Code.MOTION,
            f"The patient moved: {moved} slices do not continue their neighbours.",
        ),
        # Streaks are bright in many places, too.
        (
            not spoilt and vessel_places(vault) >= VESSEL_PLACES,
            Code.CONTRAST_SEEN,
            "Vessels look bright in many places, as after a contrast agent; blood and contrast look alike.",
        ),
        (
            hole_mm2(vault) >= HOLE_MM2 or air_ml(vault) >= AIR_ML,
            Code.POSTOPERATIVE,
            "The skull has a large gap or holds air, as after surgery or an open injury.",
        ),
    ]
    return [Note(code=code, reason=reason) for applies, code, reason in said if applies]


@dataclass(frozen=True)
class Vault:
    """The rays of a stack with what several gates need: where the inner table is, and how deep under the top.

    Parameters
    ----------
    volume : Volume
    rings : Rings
        What :func:`edgehem.dicom.anatomy.refuse_other_than_head` saw in it.
    """

    volume: Volume
    rings: Rings

    @cached_property
    def radius(self) -> Float32:
        """Of a ray's points, float32 [radius] mm."""
        return np.arange(self.rings.hu.shape[2], dtype=np.float32) * np.float32(STEP_MM)

    @cached_property
    def angle(self) -> Float32:
        """Of the rays, float32 [ray]."""
        return np.arange(RAYS, dtype=np.float32) * np.float32(2 * np.pi / RAYS)

    @cached_property
    def inner(self) -> Float32:
        """Where a ray from within first meets bone, float32 [N, ray] mm: interpolated between its points."""
        hu = self.rings.hu
        outer = self.radius > 0.6 * self.rings.reach[..., None]  # no calcified plexus or falx
        first = ((hu > BONE_HU) & outer).argmax(axis=2)
        here = np.take_along_axis(hu, first[..., None], axis=2)[..., 0]
        before = np.take_along_axis(hu, np.maximum(first - 1, 0)[..., None], axis=2)[..., 0]
        back = np.clip((here - BONE_HU) / np.maximum(here - before, 1), 0, 1)
        return np.asarray((first - back) * STEP_MM, np.float32)

    @cached_property
    def place(self) -> Float32:
        """Of the centres: down, right from the image's corner, float32 [N, 2] mm."""
        return np.asarray(self.rings.centre * np.array(self.volume.pixel_spacing), np.float32)

    @cached_property
    def height(self) -> Float32:
        """Of the centres along the patient, float32 [N] mm."""
        v, down_right = self.volume, self.place
        up = v.origin[self.rings.slices, 2] + down_right @ np.array([v.column_cosines[2], v.row_cosines[2]])
        return np.asarray(up, np.float32)

    @cached_property
    def top(self) -> float:
        """Height of the highest ring that a whole head would show, mm: :data:`TOP_RING_MM` under its highest point.

        That is the highest closed ring, unless the scan ends below it: how wide this ring is tells how much of the
        vault, taken as a sphere, is missing above.
        """
        closed = self.rings.closed
        highest = int(np.argmax(np.where(closed, self.height, -np.inf)))
        radius = np.median(self.inner, axis=1)
        sphere = float(radius[closed].max())
        above = sphere - float(np.sqrt(max(0.0, sphere**2 - float(radius[highest]) ** 2)))
        return float(self.height[highest]) + max(0.0, above - TOP_RING_MM)

    @cached_property
    def depth(self) -> Float32:
        """Of every point under the top, float32 [N, ray, radius] mm: a tilted slice is deeper at one side."""
        v = self.volume
        climb = np.sin(self.angle) * v.column_cosines[2] + np.cos(self.angle) * v.row_cosines[2]
        rise = np.outer(climb, self.radius).astype(np.float32)
        return np.asarray((self.top - self.height)[:, None, None] - rise, np.float32)

    def cell_mm2(self) -> Float32:
        """Area that a point of a ray stands for, float32 [radius]."""
        return np.asarray(self.radius * (STEP_MM * 2 * np.pi / RAYS), np.float32)


def metal(vault: Vault) -> float:
    """Largest area of metal on a slice, in the head down to the skull base, mm²."""
    v, rings = vault.volume, vault.rings
    largest = v.pixels.max(axis=(1, 2)) * v.slope + v.intercept  # [Z] HU
    middle_y = v.origin[rings.slices, 1] + vault.place @ np.array([v.column_cosines[1], v.row_cosines[1]])
    middle_y = float(middle_y[rings.closed].mean())
    most = 0.0
    for index in np.flatnonzero(largest > METAL_HU):
        stored = v.pixels[index]
        found = stored * v.slope[index] + v.intercept[index] > METAL_HU
        if v.padding is not None:
            found &= (stored < v.padding[0]) | (stored > v.padding[1])
        pixels = np.argwhere(found)
        mm = pixels * np.array(v.pixel_spacing)
        point = v.origin[index] + mm[:, :1] * v.column_cosines + mm[:, 1:] * v.row_cosines
        deep = np.where(point[:, 1] < middle_y, *METAL_BELOW_TOP_MM)
        near = int(np.abs(rings.slices - index).argmin())
        offset = mm - vault.place[near]
        ray = np.rint(np.arctan2(offset[:, 0], offset[:, 1]) / (2 * np.pi) * RAYS).astype(np.intp) % RAYS
        inside = np.hypot(offset[:, 0], offset[:, 1]) < _skull(rings.reach[near])[ray] + METAL_BESIDE_SKULL_MM
        count = int((inside & (vault.top - point[:, 2] < deep)).sum())
        most = max(most, count * v.pixel_spacing[0] * v.pixel_spacing[1])
    return most


def _continued(inner: Float32, hidden: Bool) -> Float32:
    """The inner table along rays [ray], mm, as it runs on beside those that are hidden; nowhere farther than seen."""
    angle = np.arange(RAYS) * (2 * np.pi / RAYS)
    waves = np.stack([np.ones(RAYS), *(wave(n * angle) for n in range(1, 5) for wave in (np.cos, np.sin))], axis=1)
    weights, *_ = np.linalg.lstsq(waves[~hidden], inner[~hidden], rcond=None)
    return np.asarray(np.where(hidden, np.minimum(inner, waves @ weights), inner), np.float32)


def _skull(reach: Float32) -> Float32:
    """Distance of the skull along rays [ray], mm: medians over 65°, which no rail, wire or clip reaches."""
    around = np.stack([np.roll(reach, shift) for shift in range(-6, 7)])
    return np.asarray(np.median(around, axis=0), np.float32)


def shifted_slices(vault: Vault) -> int:
    """Number of slices of the vault that are displaced against their neighbours.

    A skull is rigid and smooth: its inner table on one slice lies between those on the slices beside it. Local bone and
    surgery change a few rays, a movement most of them; the median over rays tells them apart.
    """
    closed, distances = vault.rings.closed, vault.volume.distances[vault.rings.slices]
    under = vault.top - vault.height
    whole = closed[:-2] & closed[1:-1] & closed[2:]
    at = np.flatnonzero(whole & (under[1:-1] > STEADY_MM[0]) & (under[1:-1] < STEADY_MM[1])) + 1
    if not at.size:
        return 0
    # Seen from one centre for all slices; centres differ by little, so that a shift along each ray does it.
    aside = vault.place - vault.place[at[0]]
    table = vault.inner + np.outer(aside[:, 0], np.sin(vault.angle)) + np.outer(aside[:, 1], np.cos(vault.angle))
    # The table moves obliquely under a tilted gantry, by the same amount from slice to slice.
    below, above = distances[at] - distances[at - 1], distances[at + 1] - distances[at]
    share = (below / (below + above))[:, None]
    expected = (1 - share) * table[at - 1] + share * table[at + 1]
    error = np.median(np.abs(table[at] - expected), axis=1)
    limit = SHIFT_MM + max(vault.volume.pixel_spacing) / 2 + BEND_PER_MM * np.maximum(below, above) ** 2
    return int((error > limit).sum())


def vessel_places(vault: Vault) -> int:
    """Number of places inside the brain with points as bright as vessels with contrast, away from bone and calcium."""
    hu, closed = vault.rings.hu, vault.rings.closed[:, None, None]
    inside = closed & (vault.radius < vault.inner[..., None] - VESSEL_BESIDE_BONE_MM) & (vault.radius > 2 * STEP_MM)
    inside &= (vault.depth > VESSEL_DEPTH_MM[0]) & (vault.depth < VESSEL_DEPTH_MM[1])
    if not inside.any():
        return 0
    # Differences between neighbouring rays are noise: their median is 0.95 standard deviations.
    noise = float(np.median(np.abs(hu[:, 1:] - hu[:, :-1])[inside[:, 1:]])) / 0.95
    bright = inside & (hu > max(VESSEL_HU, DENSE_BLOOD_HU + VESSEL_NOISE * noise))
    if not bright.any():
        return 0
    dense = hu > VESSEL_MOST_HU
    for axis, steps in ((2, 3), (1, 1), (0, 1)):
        dense = _spread(dense, axis, steps)
    slices, rays, points = np.nonzero(bright & ~dense)
    deep, wide, far = VESSEL_CELL
    places = (vault.depth[slices, rays, points] // deep, rays // wide, vault.radius[points] // far)
    return len(np.unique(np.stack(places, axis=1), axis=0))


def _spread(mask: Bool, axis: int, steps: int) -> Bool:
    """A mask grown along one axis."""
    out = mask.copy()
    grown, line = np.moveaxis(out, axis, 0), np.moveaxis(mask, axis, 0)
    for step in range(1, steps + 1):
        grown[step:] |= line[:-step]
        grown[:-step] |= line[step:]
    return out


def hole_mm2(vault: Vault) -> float:
    """Area of the vault where long runs of neighbouring rays meet no bone, mm²."""
    under = vault.top - vault.height
    up = vault.rings.closed & (under > HOLE_DEPTH_MM[0]) & (under < HOLE_DEPTH_MM[1])
    area = 0.0
    for hu, inner in zip(vault.rings.hu[up], vault.inner[up], strict=True):
        open_rays = hu.max(axis=1) < BONE_HU
        if not open_rays.any():
            continue
        per_ray = float(np.median(inner[~open_rays])) * 2 * np.pi / RAYS  # mm of the ring
        area += per_ray * vault.rings.slab_mm * sum(run for run in _runs(open_rays) if run * per_ray >= HOLE_MM)
    return area


def _runs(flags: Bool) -> list[int]:
    """Lengths of the runs of True around a circle that has a False."""
    start = int(np.argmin(flags))
    edges = np.diff(np.roll(flags, -start).astype(np.int8), prepend=0, append=0)
    return [int(end - begin) for begin, end in zip(*(np.flatnonzero(edges == sign) for sign in (1, -1)), strict=True)]


def air_ml(vault: Vault) -> float:
    """Air inside of the vault, mL."""
    air: Bool = vault.rings.closed[:, None, None] & (vault.rings.hu < AIR_HU)
    air &= vault.radius < vault.inner[..., None] - AIR_BESIDE_BONE_MM
    holds: Bool = np.asarray(air.any(axis=2), np.bool_)
    for index in np.flatnonzero(holds.any(axis=1) & (holds.mean(axis=1) <= SINUS_WIDTH)):
        table = _continued(vault.inner[index], holds[index])
        air[index] &= vault.radius < table[:, None] - AIR_BESIDE_BONE_MM
    air &= (vault.depth > 0) & (vault.depth < AIR_DEPTH_MM)
    return float((air @ vault.cell_mm2()).sum()) * vault.rings.slab_mm / 1000
