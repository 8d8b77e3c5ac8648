"""Face, ears and upper spine: orbits, sinuses, mastoids, jaw, and the first vertebrae."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from edgehem.phantom.head import Head
from edgehem.phantom.materials import Layers
from edgehem.phantom.shapes import F32, chain, ellipsoid, smoothstep, soft

AIR_HU = -1000.0
FACE_MM, EAR_MM = -12.0, -20.0
"""Orbits, nose, sinuses and pharynx lie before this y, ears, jaw and spine below this z, with their walls."""
LOW_MM = 12.0
"""All of it lies below this z."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Points outside the brain and what is known of them.

    Parameters
    ----------
    x, y, z : float32 arrays [N]
        Head coordinates, mm.
    vault, thick : float32 arrays [N]
        Signed distance to the vault's inner table, and its thickness, mm.
    texture, cells : float32 arrays [N]
        Random fields: fine, and as coarse as air cells.
    """

    x: F32
    y: F32
    z: F32
    vault: F32
    thick: F32
    texture: F32
    cells: F32

    def at(self, points: npt.NDArray[np.int64]) -> Surroundings:
        """Some of the points."""
        return Surroundings(**{field.name: getattr(self, field.name)[points] for field in fields(self)})


def paint_face(head: Head, value: F32, layers: Layers, around: Surroundings) -> None:
    """Paint over what is outside the brain, in place.

    Parameters
    ----------
    head : Head
    value : float32 array [N], HU
    layers : Layers
    around : Surroundings
    """
    for where, painter in (((around.z < LOW_MM) & (around.y < FACE_MM), _front), (around.z < EAR_MM, _low)):
        points = np.flatnonzero(where)
        if points.size:
            v, part = value[points], layers.at(points)
            painter(head, v, part, around.at(points))
            value[points] = v
            layers.put(points, part)


def _front(head: Head, v: F32, part: Layers, around: Surroundings) -> None:
    """Orbits, nose and sinuses."""
    x, y, z, vault, thick, cells = around.x, around.y, around.z, around.vault, around.thick, around.cells
    ax, s = np.abs(x), head.base_shift
    size = max(head.frontal_sinus, 1e-3)  # of no extent where there is none
    orbit = ellipsoid(ax, y, z, (31, -72, -30 + s), (19, 23, 18))
    part.paint(v, 700 + 150 * around.texture, soft(np.asarray(np.abs(orbit) - 1.3, np.float32)) * (y > -88), "bone")
    part.paint(v, -90, soft(orbit), "fat")
    cone = np.hypot(ax - 24 - 0.25 * (-55 - y), z + 31 - s)
    recti = soft(np.abs(cone - np.clip(0.45 * (-44 - y), 0, 11)) - 1.6, 1.5) * (orbit < -1) * (y > -82)
    part.paint(v, 50, recti, "muscle")
    part.paint(v, 32, soft(cone - 2.2, 1.5) * (orbit < -1) * (y > -78), "white")
    globe = ellipsoid(ax, y, z, (32, -82, -31 + s), (12.3, 12.3, 12.3))
    part.paint(v, 42, soft(globe), "dura")
    part.paint(v, 9, soft(globe + 1.4), "csf")
    part.paint(v, 75, soft(ellipsoid(ax, y, z, (32, -91, -31 + s), (4.8, 2.2, 4.8))), "muscle")
    air = np.minimum.reduce(
        [
            ellipsoid(x, y, z, (2, -32, -42 + s), (13, 11, 9 * max(0.4 + head.pneumatisation, 0.3))),  # sphenoid sinus
            ellipsoid(ax, y, z, (30, -66, -66), (13, 15, 16)),  # maxillary sinuses
            np.maximum(ellipsoid(x, y, z, (0, -72, -66), (15, 30, 24)), 1.5 - ax - 0.9 * np.clip(cells, 0, 2)),  # nose
            np.maximum(  # frontal sinus, in the thickness of the bone
                ellipsoid(x, y, z, (0, -head.half_length - 3, -4), (24 * size, 9, 15 * size)),
                np.maximum(1.8 - vault, vault - thick + 1.5),
            ),
            chain(x, y, z, [(0, -38, -78, 8), (0, -26, -100, 9), (0, -24, -140, 9)]),  # pharynx
        ]
    )
    part.paint(v, 550 + 200 * around.texture, soft(np.abs(air) - 1.1) * (v < 300) * (z > -92), "bone")
    part.paint(v, AIR_HU, soft(air), "air")
    turbinates = (np.abs(cells) < 0.5) * soft(ellipsoid(x, y, z, (0, -68, -68), (13, 26, 22)))
    part.paint(v, 60, turbinates.astype(np.float32), "muscle")
    ethmoid = ellipsoid(x, y, z, (0, -66, -36 + s), (12, 20, 13))
    part.paint(v, AIR_HU, soft(ethmoid) * (np.abs(cells) > 0.35), "air")
    part.paint(v, 420, soft(ethmoid) * (np.abs(cells) <= 0.35) * (v < 300), "bone")


def _low(head: Head, v: F32, part: Layers, around: Surroundings) -> None:
    """Mastoids, ear canals, jaw, palate, atlas and axis."""
    x, y, z = around.x, around.y, around.z
    ax = np.abs(x)
    mastoid = ellipsoid(ax, y, z, (57, 20, -42), (13, 15, 17))
    part.paint(v, 600 + 150 * around.texture, soft(mastoid), "bone")
    few = 0.7 - 1.2 * head.pneumatisation
    part.paint(v, AIR_HU, soft(mastoid + 2.5) * smoothstep(around.cells, few, max(0.9, few + 0.2)), "air")
    canal = chain(ax, y, z, [(52, 6, -36, 3.0), (80, 10, -37, 3.5)])
    part.paint(v, AIR_HU, soft(canal), "air")
    jaw = np.maximum(np.abs(ax - 46 + 0.12 * (z + 60)) - 3.2, np.hypot((y + 22) * 0.9, (z + 92) * 0.45) - 22)
    cheek = chain(ax, y, z, [(60, -10, -40, 2.6), (56, -52, -42, 3.4), (40, -82, -44, 3.2)])
    palate = np.maximum(np.abs(z + 90) - 2.5, np.hypot(x, y + 66) - 30)
    for bone in (jaw, cheek, palate):
        part.paint(v, head.bone_hu * 0.85 - 450 * soft(bone + 2.2), soft(bone), "bone")
    ring = np.hypot(x, y - 31) - 15
    atlas = np.maximum(np.maximum(-ring, ring - 7 - 5 * (ax > 12)), np.abs(z + 83) - 8)
    dens = np.maximum(np.hypot(x, y - 13) - 6, np.abs(z + 92) - 17)
    below = np.maximum(np.maximum(-ring, ring - 8), np.abs(z + 118) - 15)
    for bone in (atlas, dens, below):
        part.paint(v, head.bone_hu * 0.75 - 420 * soft(bone + 2.5), soft(bone), "bone")
