"""From the numbers of a head to a block of Hounsfield units: skin, skull, skull base, face and neck.

The brain is painted by :mod:`edgehem.phantom.cerebrum` on the points inside the cavity that this module finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.cerebrum import Cerebrum
from edgehem.phantom.face import AIR_HU, Surroundings, paint_face
from edgehem.phantom.head import Head
from edgehem.phantom.materials import Layers, blocks, scatter
from edgehem.phantom.shapes import F32, SmoothField, blend, chain, ellipsoid, near, smoothstep, soft
from edgehem.phantom.surgery import Surgery
from edgehem.phantom.tissue import Tissue

EXTENT_MM = ((-132.0, 108.0), (-124.0, 124.0), (-98.0, 98.0))
"""Z, Y, X range of the block around the isocentre."""
MARROW = 0.7
"""Share of marrow in the middle of the diploe and in spongy bone, the rest trabeculae (ours)."""
PLANE_RATIO = 1.5
"""Distance of planes over that of rows: slices are 2.5 mm and thicker, and average over planes anyway."""
REFERENCE_MM = (66.5, 84.0, 76.0)
"""Half width, half length and height of the head that is painted; each head is a scaled and bent copy of it."""
SKIN_MM, SKIN_HU = 2.2, 45.0
"""Thickness and density of the skin (ours)."""
BOUNDS_MM = (88.0, 114.0, 99.0)
"""No reference head reaches beyond these radii."""
TAPER = (0.075, 0.0006)
"""Egg-shaped from above: widest behind the middle, narrower at the forehead (two terms, ours)."""
SQUARE = 0.36
"""How square the outline is between an ellipsoid (0) and one of the fourth power (1; ours)."""
SLAB = 6
"""Z planes evaluated at a time: small enough for the second-level cache, where NumPy is several times faster."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A head as a block of voxels in scanner coordinates (LPS, mm, isocentre at the origin).

    Parameters
    ----------
    head : Head
    hu : float32 array [Z, Y, X]
        Noise-free Hounsfield units.
    axes : three float32 arrays [Z], [Y], [X], mm
    tissue : Tissue
        Every voxel inside the skull with its head coordinates, depth and kind: what a hemorrhage is placed by.
    materials : dict of str to float32 array [Z, Y, X], or None
        Share 0..1 of every material of :data:`edgehem.phantom.materials.MATERIALS`, adding up to 1; when asked for.
    """

    head: Head
    hu: F32
    axes: tuple[F32, F32, F32]
    tissue: Tissue
    materials: dict[str, F32] | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(np.prod([axis[1] - axis[0] for axis in self.axes])) / 1000


def rotation(head: Head) -> npt.NDArray[np.float64]:
    """Rotation from head to scanner coordinates, float64 [3, 3]: pitch about x, roll about y, yaw about z."""
    pitch, roll, yaw = np.radians([head.pitch_deg, head.roll_deg, head.yaw_deg])
    cx, sx, cy, sy, cz, sz = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll), np.cos(yaw), np.sin(yaw)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def synthesise(head: Head, voxel_mm: float = 1.0, *, materials: bool = False) -> Anatomy:
    """Build a head.

    Parameters
    ----------
    head : Head
    voxel_mm : float
        Edge of a voxel. Edges are antialiased over one voxel.
    materials : bool
        Keep the shares of all materials as well (twelve more blocks).

    Returns
    -------
    Anatomy
    """
    steps = (PLANE_RATIO * voxel_mm, voxel_mm, voxel_mm)
    z_axis, y_axis, x_axis = (
        np.arange(low, high, step, dtype=np.float32) for (low, high), step in zip(EXTENT_MM, steps, strict=True)
    )
    axes = (z_axis, y_axis, x_axis)
    rng = np.random.default_rng([head.seed, 2])
    warps = [SmoothField(rng, axes, 45) for _ in range(3)]
    made = blocks((len(z_axis), len(y_axis), len(x_axis)), materials)
    outside = _Outside(head, rng, axes, made)
    brain = Cerebrum(head)
    to_head = rotation(head).T.astype(np.float32)
    offset = np.asarray(head.offset, np.float32)
    hu = np.empty((len(z_axis), len(y_axis), len(x_axis)), np.float32)
    for start in range(0, len(z_axis), SLAB):
        stop = min(start + SLAB, len(z_axis))
        zz, yy, xx = np.meshgrid(z_axis[start:stop], y_axis, x_axis, indexing="ij", sparse=True)
        sx, sy, sz = xx - offset[0], yy - offset[1], zz - offset[2]
        x, y, z = (
            (row[0] * sx + row[1] * sy + row[2] * sz) + head.asymmetry * warp.slab(start, stop)
            for row, warp in zip(to_head, warps, strict=True)
        )
        outside.paint(hu[start:stop], *_shape(head, x, y, z), start, stop, brain)
    return Anatomy(head=head, hu=hu, axes=axes, tissue=brain.tissue(), materials=made)


def _shape(head: Head, x: F32, y: F32, z: F32) -> tuple[F32, F32, F32]:
    """Coordinates of the reference head for points of a head: size, index, and what is crooked."""
    x, y, z = (
        a * np.float32(reference / own)
        for a, reference, own in zip(
            (x, y, z), REFERENCE_MM, (head.half_width, head.half_length, head.height), strict=True
        )
    )
    y = y - np.float32(head.plagiocephaly) * x
    y = y + np.float32(0.10 * head.flat_occiput) * np.clip(y - 30, 0, None)
    z = z - np.float32(head.towering / 80) * np.clip(z, 0, None) * y
    return x, y, z


def _length(x: F32, y: F32) -> F32:
    """The hypotenuse, without the care of np.hypot for numbers near overflow, and ten times as fast."""
    return np.asarray(np.sqrt(x * x + y * y), np.float32)


def _ear_distance(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the auricles: hollow shells, mm."""
    return np.asarray(np.abs(ellipsoid(np.abs(x), y, z, (75, 18, -30), (7, 13, 24))) - 1.3, np.float32)


class _Outside:
    """Everything that is not inside the skull, and the surface that divides the two."""

    def __init__(
        self, head: Head, rng: np.random.Generator, axes: tuple[F32, F32, F32], made: dict[str, F32] | None
    ) -> None:
        self.head, self.blocks, self.keep = head, made, made is not None
        self.thickness = SmoothField(rng, axes, 22)
        self.texture = SmoothField(rng, axes, 5)
        self.muscle = SmoothField(rng, axes, 9)
        self.cells = SmoothField(rng, axes, 2.6)
        self.harmonics = rng.normal(0, 0.022, 6).tolist()  # Python floats keep float32 arithmetic float32
        self.clinoid_mm = rng.uniform(2.0, 4.0, 2).tolist()
        self.bone_gain = float(rng.uniform(0.8, 1.1))
        self.surgery = None if head.surgery is None else Surgery(head)

    def _vault(self, x: F32, y: F32, z: F32) -> tuple[F32, F32]:
        """Signed distance to the inner table of the vault, and the level (0 centre, 1 table)."""
        half_width, half_length, above = REFERENCE_MM
        width = half_width * (1 + TAPER[0] * np.tanh((y - 5) / 55) - TAPER[1] * np.clip(-20 - y, 0, None))
        height = np.where(z > 0, np.float32(above), np.float32(78))
        u2, v2, w2 = (x / width) ** 2, (y / half_length) ** 2, (z / height) ** 2
        round_level = np.sqrt(u2 + v2 + w2) + np.float32(1e-4)
        square_level = np.sqrt(np.sqrt(u2 * u2 + v2 * v2 + w2 * w2))
        level = (1 - SQUARE) * round_level + SQUARE * square_level
        radius = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
        a, b, c = x / radius, y / radius, z / radius
        h = self.harmonics
        level /= (
            1 + h[0] * a + h[1] * a * b + h[2] * b * c + h[3] * a * c + h[4] * (3 * c * c - 1) / 2 + h[5] * b * a * a
        )
        return np.asarray(radius * (1 - 1 / level), np.float32), np.asarray(level, np.float32)

    def _floor(self, x: F32, y: F32) -> tuple[F32, F32]:
        """Height of the skull base, and how much of it is petrous or central bone (0..1)."""
        ax = np.abs(x)
        anterior = (
            -17
            + 6 * np.exp(-(((ax - 29) / 17) ** 2) - ((y + 60) / 24) ** 2)  # orbital roofs
            + 7 * np.exp(-((x / 2.5) ** 2) - ((y + 66) / 10) ** 2)  # crista galli
            - 5 * np.exp(-(((ax - 7) / 5) ** 2) - ((y + 60) / 18) ** 2)  # cribriform plate
        )
        middle = -43 + 0.012 * (ax - 40) ** 2 + 0.010 * (y + 5) ** 2
        posterior = -63 + 0.0085 * x * x + 0.0135 * np.clip(np.abs(y - 40) - 8, 0, None) ** 2
        wing_line = -41 + 0.16 * np.clip(ax - 15, 0, None)
        petrous_line = -4 + 0.40 * ax
        ridge = -26 - 1.25 * np.abs(y - petrous_line) - 2.2 * np.clip(11 - ax, 0, None) + 0.06 * (ax - 40)
        wing = -19 - 2.4 * np.clip(y - wing_line, 0, None) + 0.05 * (ax - 30)
        is_anterior = smoothstep(wing_line - y, -1.5, 1.5)
        is_posterior = smoothstep(np.asarray(y - petrous_line, np.float32), -2, 2)
        floor = middle + (posterior - middle) * is_posterior
        floor = np.maximum(np.maximum(floor, ridge), np.where(y < wing_line + 14, wing, -99))
        floor = floor + (anterior - floor) * is_anterior
        # The midline: sella turcica with its dorsum, clivus down to the foramen magnum, clinoids.
        sella = np.where(y < -26, np.float32(-22), -33 + 0.10 * (np.clip(y, -26, -12) + 19) ** 2)
        clivus = -24 - 1.75 * np.clip(y + 9, 0, None)
        middle_line = np.where(y > -12, np.where(y < -8, np.float32(-24), clivus), sella)
        fourth = ((x / 13) ** 2) ** 2  # many times faster than a power of four
        central = np.exp(-fourth) * smoothstep(y, -42, -36) * (1 - smoothstep(y, 10, 16))
        floor = floor + (np.maximum(middle_line, floor - 30) - floor) * central
        for sign, size in zip((-1, 1), self.clinoid_mm, strict=True):
            floor = np.maximum(floor, -19 - 3 * _length(x - sign * 11, y + 28) / size * 2)  # anterior clinoids
            floor = np.maximum(floor, -21 - 3 * _length(x - sign * 7, y + 10) / size * 2)  # posterior clinoids
        dense = np.maximum(central, np.exp(-(((y - petrous_line) / 9) ** 2)) * smoothstep(ax, 8, 16))
        return np.asarray(floor + self.head.base_shift, np.float32), np.asarray(dense, np.float32)

    def paint(self, hu: F32, x: F32, y: F32, z: F32, start: int, stop: int, brain: Cerebrum) -> None:
        """Fill a slab of the block with Hounsfield units and hand the cavity's points to the brain."""
        head = self.head
        hu[:] = AIR_HU
        flat = hu.reshape(-1)
        a, b, c = BOUNDS_MM
        rough = (x / a) ** 2 + (y / b) ** 2 + (np.clip(z, 0, None) / c) ** 2
        candidates = np.flatnonzero(rough.reshape(-1) < 1)
        if not candidates.size:
            return
        x, y, z = (a.reshape(-1)[candidates] for a in (x, y, z))
        vault, level = self._vault(x, y, z)
        thick = self.thickness.slab(start, stop).reshape(-1)[candidates]
        thick = head.skull_mm * (1 + 0.16 * thick)
        crest = 1.0 * np.exp(-((x / 14) ** 2)) * smoothstep(np.abs(y), 60, 85)
        sinus = (
            4 * max(head.frontal_sinus, 1e-3) * np.exp(-((x / 34) ** 2) - ((z + 6) / 18) ** 2) * smoothstep(-y, 40, 75)
        )
        thick = np.asarray(thick + crest + sinus, np.float32)
        scalp = head.scalp_mm * (1 + 0.25 * smoothstep(y, 40, 90) + 0.9 * smoothstep(np.abs(x), 50, 66) * (z < 25))
        skin = vault - (thick + scalp)
        if head.hyperostosis_mm > 0:
            # Hyperostosis frontalis interna: the inner table thickens in lumps, on both sides of the midline.
            lumps = smoothstep(-y, 25, 55) * smoothstep(z, -5, 20) * smoothstep(np.abs(x), 5, 16)
            lumps = head.hyperostosis_mm * lumps * (1 + 0.35 * self.muscle.slab(start, stop).reshape(-1)[candidates])
            vault, thick = np.asarray(vault + lumps, np.float32), np.asarray(thick + lumps, np.float32)
        low = z < 30
        face = near(low, lambda x, y, z: np.maximum(ellipsoid(x, y, z, (0, -38, -62), (62, 56, 62)), z + 12), x, y, z)
        neck = _length(x / 1.12, y - 14 - 0.10 * np.clip(-60 - z, 0, None)) - 54
        lower = np.minimum(face, np.maximum(neck, z + 40))
        gap = np.clip(0.5 + 0.5 * (lower - skin) / 14, 0, 1)
        skin = lower + (skin - lower) * gap - 14 * gap * (1 - gap)
        nose = near(low, lambda x, y, z: chain(x, y, z, [(0, -92, -28, 4), (0, -104, -52, 9)]), x, y, z)
        ear = near(low, _ear_distance, x, y, z)
        skin = np.asarray(np.minimum(np.minimum(skin, nose), ear), np.float32)

        head_points = np.flatnonzero(skin < 1)
        if not head_points.size:
            return
        inside = candidates[head_points]
        px, py, pz, pvault, plevel, pskin, pthick = (
            np.asarray(a[head_points], np.float32) for a in (x, y, z, vault, level, skin, thick)
        )
        pfloor, pdense = np.full(px.shape, -150, np.float32), np.zeros(px.shape, np.float32)
        based = np.flatnonzero(pz < 25)
        pfloor[based], pdense[based] = self._floor(px[based], py[based])
        canal = near(
            pz < -30,
            lambda x, y, z: chain(x, y, z, [(0, 27, -52, 16), (0, 29, -66, 15), (0, 33, -90, 11), (0, 36, -150, 11)]),
            px, py, pz,
        )  # fmt: skip
        pinner = np.minimum(np.maximum(pvault, (pfloor - pz) * 0.75), canal)
        texture = self.texture.slab(start, stop).reshape(-1)[inside]
        muscle_field = self.muscle.slab(start, stop).reshape(-1)[inside]
        cells = self.cells.slab(start, stop).reshape(-1)[inside]

        # What lies deep inside the skull is painted by the brain alone.
        shell = np.flatnonzero(pinner > -2)
        layers, value = Layers.of(len(inside), self.keep), np.zeros(len(inside), np.float32)
        columns = (px, py, pz, pvault, pskin, pthick, pinner, pfloor, pdense, texture, muscle_field, cells)
        outer = layers.at(shell)
        value[shell] = self._paint_around(outer, *(a[shell] for a in columns))
        layers.put(shell, outer)
        cavity = np.flatnonzero(pinner < 1)
        if cavity.size:
            painted = value[cavity]
            brain_layers = Layers.of(len(cavity), self.keep, "white")
            content = brain.paint(
                brain_layers,
                px[cavity],
                py[cavity],
                pz[cavity],
                pinner[cavity],
                pvault[cavity],
                plevel[cavity],
                texture[cavity],
                start * hu[0].size + inside[cavity],
            )
            opened = soft(pinner[cavity])
            blend(painted, content, opened)
            layers.merge(cavity, brain_layers, opened)
            value[cavity] = painted
        if self.surgery is not None:
            self.surgery.catheter(value, px, py, pz)
        flat[inside] = value
        scatter(self.blocks, start, inside, layers)

    def _paint_around(
        self,
        layers: Layers,
        x: F32,
        y: F32,
        z: F32,
        vault: F32,
        skin: F32,
        thick: F32,
        inner: F32,
        floor: F32,
        dense: F32,
        texture: F32,
        bundles: F32,
        cells: F32,
    ) -> F32:
        """Hounsfield units of scalp, muscle, vault, base and face, float32 [N]; all distances in mm."""
        # Skin over fat with muscles.
        head = self.head
        value = np.where(skin > -SKIN_MM, SKIN_HU, -85.0).astype(np.float32)
        layers.over("muscle", np.asarray(skin > -SKIN_MM, np.float32))
        # Muscle bundles parted by thin planes of fat.
        muscle = smoothstep(np.abs(bundles), 0.25 * head.fat_fraction - 0.02, 0.3 * head.fat_fraction + 0.10)
        muscle = muscle * smoothstep(-skin, 2.5, 6 + 6 * head.fat_fraction)
        temporal = soft(np.abs(np.abs(x) - 66 - 0.05 * z) - 7, 3) * smoothstep(-y, -22, -5) * (z < 25) * (z > -45)
        muscles = np.maximum(muscle * smoothstep(-z, 0, 25), temporal * (skin < -2.5))
        layers.paint(value, 52 + 7 * texture, muscles, "muscle")

        # Vault: two tables around the diploe. The outer surface follows the local thickness.
        above = smoothstep(z - floor, -14, -6)
        through = vault / thick
        diploe = np.exp(-(((through - 0.5) / 0.24) ** 2)) * smoothstep(thick, 3.5, 7)
        vault_hu = head.bone_hu * (1 - (0.58 + 0.12 * texture) * (head.diploe * diploe))
        bone = soft(np.maximum(np.maximum(-vault, vault - thick), -inner)) * above
        if self.surgery is not None:
            bone = bone * (1 - self.surgery.opening(x, y, z))
            self.surgery.plate(value, layers, x, y, z, vault, thick)
        layers.paint(value, vault_hu, bone, "bone")
        layers.over("marrow", MARROW * diploe * bone)

        # Base: a plate under the floor, thick and dense along the petrous ridges and the clivus.
        under = floor - z
        plate = 4 + 17 * dense + 1.5 * texture
        base = soft(np.maximum(np.maximum(-under * 0.75, (under - plate) * 0.75), vault - thick)) * (inner > -1)
        base_hu = self.bone_gain * (480 + 420 * dense + 190 * texture + 330 * (under < 2.2))
        layers.paint(value, base_hu, base, "bone")
        layers.over("marrow", MARROW * (1 - dense) * (under > 2.2) * base)
        around = Surroundings(x=x, y=y, z=z, vault=vault, thick=thick, texture=texture, cells=cells)
        paint_face(head, value, layers, around)

        # Skin surface towards air.
        edge = soft(skin)
        layers.over("air", 1 - edge)
        return np.asarray(AIR_HU + (value - AIR_HU) * edge, np.float32)
