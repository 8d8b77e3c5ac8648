"""From the numbers of a head to a block of Hounsfield units: skin, skull, skull base, face and neck.

The brain is painted by :mod:`edgehem.phantom.brain` on the points inside the cavity that this module finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.brain import BrainPainter, Tissue
from edgehem.phantom.head import Head
from edgehem.phantom.shapes import F32, SmoothField, blend, chain, ellipsoid, near, smoothstep, soft

AIR_HU = -1000.0
EXTENT_MM = ((-132.0, 108.0), (-124.0, 124.0), (-98.0, 98.0))
"""Z, Y, X range of the block around the isocentre."""
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
    """

    head: Head
    hu: F32
    axes: tuple[F32, F32, F32]
    tissue: Tissue

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


def synthesise(head: Head, voxel_mm: float = 1.0) -> Anatomy:
    """Build a head.

    Parameters
    ----------
    head : Head
    voxel_mm : float
        Edge of a voxel. Edges are antialiased over one voxel.

    Returns
    -------
    Anatomy
    """
    z_axis, y_axis, x_axis = (np.arange(low, high, voxel_mm, dtype=np.float32) for low, high in EXTENT_MM)
    axes = (z_axis, y_axis, x_axis)
    rng = np.random.default_rng([head.seed, 2])
    warps = [SmoothField(rng, axes, 45) for _ in range(3)]
    outside = _Outside(head, rng, axes)
    brain = BrainPainter(head, rng)
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
        outside.paint(hu[start:stop], x, y, z, start, stop, brain)
    return Anatomy(head=head, hu=hu, axes=axes, tissue=brain.tissue())


def _ear_distance(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the auricles: hollow shells, mm."""
    return np.asarray(np.abs(ellipsoid(np.abs(x), y, z, (75, 18, -30), (7, 13, 24))) - 1.3, np.float32)


class _Outside:
    """Everything that is not inside the skull, and the surface that divides the two."""

    def __init__(self, head: Head, rng: np.random.Generator, axes: tuple[F32, F32, F32]) -> None:
        self.head = head
        self.thickness = SmoothField(rng, axes, 22)
        self.texture = SmoothField(rng, axes, 5)
        self.muscle = SmoothField(rng, axes, 9)
        self.cells = SmoothField(rng, axes, 2.6)
        self.harmonics = rng.normal(0, 0.022, 6).tolist()  # Python floats keep float32 arithmetic float32
        self.frontal_sinus = float(rng.uniform(0.3, 1.2))
        self.clinoid_mm = rng.uniform(2.0, 4.0, 2).tolist()
        self.bone_gain = rng.uniform(0.8, 1.1)

    def _vault(self, x: F32, y: F32, z: F32) -> tuple[F32, F32]:
        """Signed distance to the inner table of the vault, and the level (0 centre, 1 table)."""
        head = self.head
        # Egg-shaped from above: widest behind the middle, narrower at the forehead.
        width = head.half_width * (1 + 0.10 * np.tanh((y - 5) / 55) - 0.0013 * np.clip(-20 - y, 0, None))
        height = np.where(z > 0, np.float32(head.height), np.float32(78))
        u2, v2, w2 = (x / width) ** 2, (y / head.half_length) ** 2, (z / height) ** 2
        round_level = np.sqrt(u2 + v2 + w2) + np.float32(1e-4)
        square_level = np.sqrt(np.sqrt(u2 * u2 + v2 * v2 + w2 * w2))
        level = 0.72 * round_level + 0.28 * square_level
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
        central = np.exp(-((x / 13) ** 4)) * smoothstep(y, -42, -36) * (1 - smoothstep(y, 10, 16))
        floor = floor + (np.maximum(middle_line, floor - 30) - floor) * central
        for sign, size in zip((-1, 1), self.clinoid_mm, strict=True):
            floor = np.maximum(floor, -19 - 3 * np.hypot(x - sign * 11, y + 28) / size * 2)  # anterior clinoids
            floor = np.maximum(floor, -21 - 3 * np.hypot(x - sign * 7, y + 10) / size * 2)  # posterior clinoids
        dense = np.maximum(central, np.exp(-(((y - petrous_line) / 9) ** 2)) * smoothstep(ax, 8, 16))
        return np.asarray(floor + self.head.base_shift, np.float32), np.asarray(dense, np.float32)

    def paint(self, hu: F32, x: F32, y: F32, z: F32, start: int, stop: int, brain: BrainPainter) -> None:
        """Fill a slab of the block with Hounsfield units and hand the cavity's points to the brain."""
        head = self.head
        hu[:] = AIR_HU
        flat = hu.reshape(-1)
        rough = (x / 92) ** 2 + (y / 116) ** 2 + (np.clip(z, 0, None) / 108) ** 2  # no head is larger than this
        candidates = np.flatnonzero(rough.reshape(-1) < 1)
        if not candidates.size:
            return
        x, y, z = (a.reshape(-1)[candidates] for a in (x, y, z))
        vault, level = self._vault(x, y, z)
        thick = self.thickness.slab(start, stop).reshape(-1)[candidates]
        thick = head.skull_mm * (1 + 0.16 * thick)
        crest = 1.0 * np.exp(-((x / 14) ** 2)) * smoothstep(np.abs(y), 60, 85)
        sinus = 4 * self.frontal_sinus * np.exp(-((x / 34) ** 2) - ((z + 6) / 18) ** 2) * smoothstep(-y, 40, 75)
        thick = np.asarray(thick + crest + sinus, np.float32)
        scalp = head.scalp_mm * (1 + 0.25 * smoothstep(y, 40, 90) + 0.9 * smoothstep(np.abs(x), 50, 66) * (z < 25))
        skin = vault - (thick + scalp)
        low = z < 30
        face = near(low, lambda x, y, z: np.maximum(ellipsoid(x, y, z, (0, -38, -62), (62, 56, 62)), z + 12), x, y, z)
        neck = np.hypot(x / 1.12, y - 14 - 0.10 * np.clip(-60 - z, 0, None)) - 54
        lower = np.minimum(face, np.maximum(neck, z + 40))
        gap = np.clip(0.5 + 0.5 * (lower - skin) / 14, 0, 1)
        skin = lower + (skin - lower) * gap - 14 * gap * (1 - gap)
        nose = near(low, lambda x, y, z: chain(x, y, z, [(0, -92, -28, 4), (0, -104, -52, 9)]), x, y, z)
        ear = near(low, _ear_distance, x, y, z)
        skin = np.minimum(np.minimum(skin, nose), ear)

        head_points = np.flatnonzero(skin < 1)
        if not head_points.size:
            return
        inside = candidates[head_points]
        px, py, pz, pvault, plevel, pskin, pthick = (a[head_points] for a in (x, y, z, vault, level, skin, thick))
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

        # Scalp, face and neck: skin over fat with muscles.
        value = np.where(pskin > -1.6, 15.0, -85.0).astype(np.float32)
        # Muscle bundles parted by thin planes of fat.
        muscle = smoothstep(np.abs(muscle_field), 0.05 + 0.25 * head.fat_fraction, 0.25 + 0.3 * head.fat_fraction)
        muscle = muscle * smoothstep(-pskin, 2.5, 6 + 6 * head.fat_fraction)
        temporal = soft(np.abs(np.abs(px) - 66 - 0.05 * pz) - 7, 3) * smoothstep(-py, -22, -5) * (pz < 25) * (pz > -45)
        blend(value, 52 + 7 * texture, np.maximum(muscle * smoothstep(-pz, 0, 25), temporal * (pskin < -2.5)))

        # Vault: two tables around the diploe. The outer surface follows the local thickness.
        above = smoothstep(pz - pfloor, -14, -6)
        through = pvault / pthick
        diploe = np.exp(-(((through - 0.5) / 0.24) ** 2)) * smoothstep(pthick, 3.5, 7)
        vault_hu = head.bone_hu * (1 - (0.58 + 0.12 * texture) * diploe)
        bone = soft(np.maximum(np.maximum(-pvault, pvault - pthick), -pinner)) * above
        blend(value, vault_hu, bone)

        # Base: a plate under the floor, thick and dense along the petrous ridges and the clivus.
        under = pfloor - pz
        plate = 4 + 17 * pdense + 1.5 * texture
        base = soft(np.maximum(np.maximum(-under * 0.75, (under - plate) * 0.75), pvault - pthick)) * (pinner > -1)
        base_hu = self.bone_gain * (480 + 420 * pdense + 190 * texture + 330 * (under < 2.2))
        blend(value, base_hu, base)
        self._paint_face(value, px, py, pz, pvault, pthick, texture, cells)

        # Skin surface towards air, then everything inside the cavity.
        edge = soft(pskin)
        value = AIR_HU + (value - AIR_HU) * edge
        cavity = np.flatnonzero(pinner < 1)
        if cavity.size:
            painted = value[cavity]
            content = brain.paint(
                px[cavity],
                py[cavity],
                pz[cavity],
                pinner[cavity],
                pvault[cavity],
                plevel[cavity],
                texture[cavity],
                start * hu[0].size + inside[cavity],
            )
            blend(painted, content, soft(pinner[cavity]))
            value[cavity] = painted
        flat[inside] = value

    def _paint_face(self, value: F32, x: F32, y: F32, z: F32, vault: F32, thick: F32, texture: F32, cells: F32) -> None:
        """Orbits, sinuses, mastoids, jaw and the upper spine, in place."""
        head, low = self.head, np.flatnonzero(z < 12)
        if not low.size:
            return
        v, x, y, z, vault, thick, texture, cells = (a[low] for a in (value, x, y, z, vault, thick, texture, cells))
        ax = np.abs(x)
        s = head.base_shift
        orbit = ellipsoid(ax, y, z, (31, -72, -30 + s), (19, 23, 18))
        blend(v, 700 + 150 * texture, soft(np.asarray(np.abs(orbit) - 1.3, np.float32)) * (y > -88))
        blend(v, -90, soft(orbit))
        cone = np.hypot(ax - 24 - 0.25 * (-55 - y), z + 31 - s)
        blend(v, 50, soft(np.abs(cone - np.clip(0.45 * (-44 - y), 0, 11)) - 1.6, 1.5) * (orbit < -1) * (y > -82))
        blend(v, 32, soft(cone - 2.2, 1.5) * (orbit < -1) * (y > -78))
        globe = ellipsoid(ax, y, z, (32, -82, -31 + s), (12.3, 12.3, 12.3))
        blend(v, 42, soft(globe))
        blend(v, 9, soft(globe + 1.4))
        blend(v, 75, soft(ellipsoid(ax, y, z, (32, -91, -31 + s), (4.8, 2.2, 4.8))))
        air = np.minimum.reduce(
            [
                ellipsoid(x, y, z, (2, -32, -42 + s), (13, 11, 9 * (0.4 + head.pneumatisation))),  # sphenoid sinus
                ellipsoid(ax, y, z, (30, -66, -66), (13, 15, 16)),  # maxillary sinuses
                np.maximum(
                    ellipsoid(x, y, z, (0, -72, -66), (15, 30, 24)), 1.5 - ax - 0.9 * np.clip(cells, 0, 2)
                ),  # nose
                np.maximum(  # frontal sinus, in the thickness of the bone
                    ellipsoid(
                        x, y, z, (0, -head.half_length - 3, -4), (24 * self.frontal_sinus, 9, 15 * self.frontal_sinus)
                    ),
                    np.maximum(1.8 - vault, vault - thick + 1.5),
                ),
                chain(x, y, z, [(0, -38, -78, 8), (0, -26, -100, 9), (0, -24, -140, 9)]),  # pharynx
            ]
        )
        blend(v, 550 + 200 * texture, soft(np.abs(air) - 1.1) * (v < 300) * (z > -92))
        blend(v, AIR_HU, soft(air))
        turbinates = (np.abs(cells) < 0.5) * soft(ellipsoid(x, y, z, (0, -68, -68), (13, 26, 22)))
        blend(v, 60, turbinates.astype(np.float32))
        ethmoid = ellipsoid(x, y, z, (0, -66, -36 + s), (12, 20, 13))
        blend(v, AIR_HU, soft(ethmoid) * (np.abs(cells) > 0.35))
        blend(v, 420, soft(ethmoid) * (np.abs(cells) <= 0.35) * (v < 300))
        mastoid = ellipsoid(ax, y, z, (57, 20, -42), (13, 15, 17))
        blend(v, 600 + 150 * texture, soft(mastoid))
        blend(v, AIR_HU, soft(mastoid + 2.5) * smoothstep(cells, 0.7 - 1.2 * head.pneumatisation, 0.9))
        canal = chain(ax, y, z, [(52, 6, -36, 3.0), (80, 10, -37, 3.5)])
        blend(v, AIR_HU, soft(canal))
        jaw = np.maximum(np.abs(ax - 46 + 0.12 * (z + 60)) - 3.2, np.hypot((y + 22) * 0.9, (z + 92) * 0.45) - 22)
        cheek = chain(ax, y, z, [(60, -10, -40, 2.6), (56, -52, -42, 3.4), (40, -82, -44, 3.2)])
        palate = np.maximum(np.abs(z + 90) - 2.5, np.hypot(x, y + 66) - 30)
        for bone in (jaw, cheek, palate):
            blend(v, head.bone_hu * 0.85 - 450 * soft(bone + 2.2), soft(bone))
        ring = np.hypot(x, y - 31) - 15
        atlas = np.maximum(np.maximum(-ring, ring - 7 - 5 * (ax > 12)), np.abs(z + 83) - 8)
        dens = np.maximum(np.hypot(x, y - 13) - 6, np.abs(z + 92) - 17)
        below = np.maximum(np.maximum(-ring, ring - 8), np.abs(z + 118) - 15)
        for bone in (atlas, dens, below):
            blend(v, head.bone_hu * 0.75 - 420 * soft(bone + 2.5), soft(bone))
        value[low] = v
