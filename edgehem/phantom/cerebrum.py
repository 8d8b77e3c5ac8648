"""The inside of the skull: gyri, ventricles with a septum, deep nuclei, cerebellum, and what age does.

Sulci are sheets that run inwards from the surface: a random field is read at points pushed out towards one sphere, so
that its zero level hardly changes with depth. Cortex lines them whether they are open or closed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.phantom.findings import Findings
from edgehem.phantom.head import Head
from edgehem.phantom.materials import FINDINGS, Layers
from edgehem.phantom.shapes import F32, PointField, capsule, chain, ellipsoid, near, smoothstep, soft
from edgehem.phantom.surgery import Surgery
from edgehem.phantom.tissue import Kind, Tissue
from edgehem.phantom.vessels import Vessels

CORTEX_MM = 3.0
"""Thickness of the cortex: 2 to 4.5 mm in textbooks of anatomy, 3 here throughout."""
SPHERE_MM = 62.0
"""Radius of the sphere that sulci are read on: that of a brain surface, rounded."""
CORTICAL_MM = 0.9
"""Radius of the vessels in sulci (ours)."""
SEPTUM_MM = 0.8
"""Half the thickness of the septum pellucidum and the fornix between the lateral ventricles (ours)."""


def _lateral(head: Head, x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the lateral ventricles without their indentations, mm."""
    side = np.where(x > 0, 1 + head.ventricle_asymmetry, 1 - head.ventricle_asymmetry).astype(np.float32)
    ax, k = np.abs(x), head.ventricle_scale
    wide = 0.7 + 0.3 * k
    # Heights are shortened, so that round capsules become upright ovals.
    u = 0.72 * (z - 12)
    body = chain(ax, y, u, [
        (14 * wide, -45, -4.5, 1.4 * k), (8.5 * wide, -37, -1, 3.3 * k), (5.2 * wide, -24, 2.2, 3.5 * k),
        (8 * wide, -4, 5.8, 3.7 * k), (13.5 * wide, 13, 5.6, 4.4 * k), (22 * wide, 29, 0.5, 5.8 * k),
    ])  # fmt: skip
    occipital = chain(ax, y, u, [(22 * wide, 29, 0, 5.4 * k), (24, 44, -3, 3.0 * k), (23, 58, -5, 1.0 * k)])
    temporal = chain(ax, y, u, [
        (24 * wide, 28, -2, 4.6 * k), (32, 13, -12, 1.9 * k), (33, -3, -19, 1.5 * k), (29, -15, -22, 1.1 * k),
    ])  # fmt: skip
    return np.asarray(np.minimum(np.minimum(body, occipital), temporal) * (np.float32(1) / side), np.float32)


def ventricle_distance(head: Head, x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the ventricular system, mm."""
    ax, k = np.abs(x), head.ventricle_scale
    caudate = ellipsoid(ax, y, z, (14.5, -31, 9), (5.5, 11, 8))
    thalamus = ellipsoid(ax, y, z, (11, 2, 7), (8.5, 14, 8.5))
    indented = np.maximum(np.maximum(-caudate, -thalamus) - 0.6, SEPTUM_MM - ax)
    lateral = np.maximum(_lateral(head, x, y, z), indented)
    third = np.maximum(ax - 0.9 - 1.1 * k, np.sqrt(((y + 7) / 1.3) ** 2 + (z + 1) ** 2) - 10.5)
    # A tent: wide in the middle, its roof behind.
    fourth = np.maximum(ellipsoid(x, y, z, (0, 31, -31), (8.5, 5.5 * (0.6 + 0.4 * k), 10)), 25.5 + 0.35 * ax - y)
    aqueduct = capsule(x, y, z, (0, 8, -6), (0, 26, -24), 1.0, 1.2)
    system = np.minimum(np.minimum(lateral, third), np.minimum(fourth, aqueduct))
    if head.cavum_mm > 0:
        cavum = ellipsoid(x, y, z, (0, -27, 12), (head.cavum_mm, 13, 6))
        system = np.minimum(system, cavum)
    return np.asarray(system, np.float32)


def stem_distance(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to midbrain, pons, medulla and cord, mm."""
    stem = chain(x, y, z, [(0, 5, -8, 12.5), (0, 9, -22, 12.5), (0, 7, -32, 15), (0, 17, -54, 8.5)])
    return np.minimum(stem, chain(x, y, z, [(0, 17, -54, 8.5), (0, 29, -68, 6.5), (0, 36, -150, 5.5)]))


def nuclei_distance(ax: F32, y: F32, z: F32) -> F32:
    """Signed distance to caudate, lentiform nucleus and thalamus; ax is |x|, mm."""
    lens = np.maximum(ellipsoid(ax, y, z, (23, -16, 2), (8.5, 17, 10)), 12.5 + 0.5 * np.abs(y + 16) - ax)
    body = chain(ax, y, z, [(13, -31, 9, 5.2), (14, -14, 18, 2.6), (19, 10, 20, 1.8)])
    thalamus = np.maximum(ellipsoid(ax, y, z, (11, 2, 7), (9, 14.5, 9)), 2.2 - ax)
    return np.asarray(np.minimum(np.minimum(lens, body), thalamus), np.float32)


class Cerebrum:
    """Paints slabs of points inside the skull and remembers what they are."""

    def __init__(self, head: Head) -> None:
        self.head = head
        own = np.random.default_rng([head.seed, 22])
        self.sulci = PointField(own, 19, waves=8)
        self.detail = PointField(own, 11, waves=6)
        self.reach = PointField(own, 34, waves=4)
        self.patch = PointField(own, 18, waves=6)
        self.fine = PointField(own, 8.5, waves=5)
        self.folia = PointField(own, 5.2, waves=4)
        self.findings = Findings(head, own)
        self.vessels = Vessels(head, own)
        self.surgery = None if head.surgery is None else Surgery(head)
        self._columns: list[tuple[npt.NDArray[np.generic], ...]] = []

    def tissue(self) -> Tissue:
        """Everything painted so far."""
        index, x, y, z, depth, kind, fluid, found = (
            np.concatenate(parts) for parts in zip(*self._columns, strict=True)
        )
        return Tissue(index=index, x=x, y=y, z=z, depth=depth, kind=kind, fluid=fluid, found=found)

    def _sulcus(self, x: F32, y: F32, z: F32, deep: F32) -> tuple[F32, F32]:
        """Distance to the middle of the nearest sulcus, and half its open width, mm."""
        radius = np.sqrt(x * x + y * y + (z - 8) ** 2) + np.float32(1)
        ratio = np.float32(SPHERE_MM) / radius
        push = np.sqrt(ratio) * np.sqrt(np.sqrt(ratio))
        sheet = self.sulci(x * push, y * push, (z - 8) * push) + 0.5 * self.detail(x * push, y * push, z * push)
        distance = np.abs(sheet) / (self.sulci.gradient * 1.3 * push)
        bottom = 13 + 6.5 * np.clip(self.reach(x, y, z), -1.3, 1.3)
        head = self.head
        width = 0.5 * head.sulcus_mm * (1 + head.sulcus_asymmetry * np.sign(x)) * (1.1 - 0.55 * deep / bottom)
        # Frontal and parietal sulci widen first with age.
        width = width * (0.7 + 0.5 * smoothstep(z, -10, 40)) * (1 - self.findings.swollen(x, y, z))
        past = np.clip(deep - bottom, 0, None)
        return np.asarray(np.sqrt(distance * distance + past * past), np.float32), np.asarray(width, np.float32)

    def _sylvian(self, ax: F32, y: F32, z: F32) -> F32:
        """Signed distance to the Sylvian fissure and the fluid over the insula; ax is |x|, mm."""
        width = 0.35 + 0.85 * self.head.sulcus_mm
        slope = np.abs(z + 13 - 0.66 * (y + 27) + 0.45 * (ax - 36))
        fissure = np.maximum(slope * 0.8 - 0.7 * width * smoothstep(34 - np.abs(y + 8), 0, 12), 36 - ax)
        insula = np.abs(ax - 37.5 - 0.022 * (z - 2) ** 2) - 0.8 * width
        insula = np.maximum(insula, (np.sqrt(((y + 10) / 1.3) ** 2 + (z - 2) ** 2) - 15) * 0.4)
        return np.asarray(np.minimum(fissure, insula), np.float32)

    def _cisterns(self, x: F32, y: F32, z: F32) -> F32:
        """Signed distance to the suprasellar, quadrigeminal, prepontine and great cisterns, mm."""
        ax, a, m = np.abs(x), self.head.atrophy, self.head.cisterna_magna
        # A five-pointed star: straight forwards, into the Sylvian fissures, and around the midbrain.
        star = np.minimum(
            np.maximum(ellipsoid(x, y, z, (0, -17, -19), (9 + 2 * a, 9, 8)), -30 - y),
            chain(ax, y, z, [(5, -20, -18, 3.0), (30, -22, -14, 1.4 + a)]),
        )
        star = np.minimum(star, capsule(x, y, z, (0, -22, -16), (0, -38, -8), 2.2 + a, 1.0))
        return np.asarray(
            np.minimum.reduce([
                star,
                ellipsoid(x, y, z, (0, -9, -14), (4.5, 5, 6)),  # interpeduncular
                ellipsoid(x, y, z, (0, 24, -4), (12, 3.5 + 2 * a, 6)),
                np.maximum(ellipsoid(x, y, z, (0, 54, -60), (13 + 16 * m, 9 + 12 * m, 6 + 12 * m)), -z - 74),
                ellipsoid(ax, y, z, (13, 8, -40), (8, 4.5 + a, 5)),  # cerebellopontine angles
            ]),
            np.float32,
        )  # fmt: skip

    def paint(
        self,
        layers: Layers,
        x: F32,
        y: F32,
        z: F32,
        inner: F32,
        vault: F32,
        level: F32,
        texture: F32,
        index: npt.NDArray[np.int64],
    ) -> F32:
        """Paint the points inside the skull, and remember them as tissue.

        Parameters
        ----------
        layers : Layers
            Painted as well.
        x, y, z : float32 arrays [N]
            Head coordinates, mm.
        inner, vault : float32 arrays [N]
            Signed distances to the cavity's wall and to the inner table of the vault, mm.
        level : float32 array [N]
            0 in the middle of the vault, 1 at its inner table.
        texture : float32 array [N]
            A fine random field.
        index : int64 array [N]
            Position of every point in the block.

        Returns
        -------
        float32 array [N], HU
        """
        head = self.head
        depth = -inner
        deep = np.clip(depth, 0, None)
        if head.midline_shift:
            x = x - head.midline_shift * smoothstep(depth, 2, 30) * np.exp(-((y / 70) ** 2) - ((z - 10) / 45) ** 2)
        ax = np.abs(x)
        canal = (z < -64) | ((inner < 0) & (x * x + (y - 29) ** 2 < 289) & (z < -56))
        stem = near((ax < 30) & (z < 16) & (y < 60), stem_distance, x, y, z)
        tent_height = 10 - 0.56 * ax - 0.0045 * np.clip(y - 25, 0, None) ** 2
        infratentorial = (z < tent_height) & (y > 14 + 0.35 * ax - 12 * (z < -30))
        cerebral = ~infratentorial
        ventricles = near((ax < 48) & (deep > 6), lambda x, y, z: ventricle_distance(head, x, y, z), x, y, z)
        patch = self.patch(x, y, z)

        # Fluid outside the brain, as distances.
        rim = 0.1 + 1.3 * head.atrophy * smoothstep(z, -25, 35) * (1 + head.sulcus_asymmetry * np.sign(x))
        sulcus, width = np.full(x.shape, 30, np.float32), np.zeros(x.shape, np.float32)
        shallow = np.flatnonzero((deep < 30) & cerebral & (stem > 2))
        sulcus[shallow], width[shallow] = self._sulcus(x[shallow], y[shallow], z[shallow], deep[shallow])
        # The hemispheres part in the midline; the fissure winds a little, and opens with age.
        fissure = np.abs(x + 0.6 * patch) - (0.25 + 0.75 * head.sulcus_mm * smoothstep(level, 0.5, 0.95))
        parted = (level > 0.45) & ((z > 14) | (y < -38) | ((y > 45) & (z > 0)))
        fissure = np.where(parted & ((z > -8) | (y < -30)), fissure, np.float32(9))
        sylvian = near(
            (ax > 22) & (np.abs(y + 8) < 46), self._sylvian, ax + 1.6 * patch, y + 4 * patch, z + 2.5 * patch
        )
        basal = near((ax < 45) & (z < 14) & (np.abs(y) < 85), self._cisterns, x, y + 0.8 * patch, z)
        shell = np.abs(stem - 1.3) - 0.7 - head.atrophy + 0.7 * patch
        around = np.maximum(shell, np.maximum((y - 16) * 0.8, z + 6))
        cord = np.where(canal & (stem > 0), np.float32(-2), np.float32(9))
        spaces = np.minimum.reduce([sulcus - width, fissure, sylvian, basal, around, cord, depth - rim])

        # Grey and white matter.
        to_surface = np.minimum(np.minimum(deep - rim, sulcus - width), np.minimum(sylvian, fissure))
        cortex = smoothstep(np.asarray(CORTEX_MM + 0.6 - to_surface, np.float32), 0, 1.2) * cerebral * (stem > 1)
        nuclei = near((ax < 34) & (z > -12) & (z < 26), nuclei_distance, ax, y, z)
        grey = np.maximum(cortex, 0.9 * soft(nuclei, 2.5))
        folds = near(infratentorial, self.folia, 0.35 * x, 0.7 * y, 1.7 * z, far=0)
        core = smoothstep(deep, 9, 16) * smoothstep(ax, 4, 10) + smoothstep(np.asarray(30 - y, np.float32), -6, 4)
        grey = np.where(infratentorial, 0.78 - 0.5 * np.clip(core, 0, 1) + 0.08 * folds, grey)
        grey = np.where(stem < 0, np.float32(0.35), grey)
        grain = self.fine(x, y, z)
        value = head.white_hu + (head.grey_hu - head.white_hu) * grey + 0.6 * texture + 0.9 * grain
        value += 1.2 * soft(near(nuclei < 0, self._pallidum, ax, y, z), 3)
        layers.over("grey", grey)
        pale = np.exp(-np.clip(ventricles, 0, None) / (2.5 + 8 * head.leukoaraiosis)) * (1 - cortex) * cerebral
        spread = smoothstep(patch + 2.2 * head.leukoaraiosis, 0.2, 2.2) * smoothstep(deep, 9, 20)
        pale = (pale * smoothstep(patch, -1.6, 0.4) + 0.6 * spread * (1 - grey) * cerebral) * head.leukoaraiosis
        value -= 11 * pale
        layers.over("gliosis", np.clip(pale, 0, 1))
        found = np.zeros(x.shape, np.uint8)
        cleft = self.findings.paint(value, layers, found, x, y, z, stem, grey, patch)

        # Fluid over tissue.
        outer_fluid = np.maximum(soft(spaces, 1.2), cleft)
        if self.surgery is not None:
            cavity = soft(self.surgery.cavity(x, y, z) + 2 * patch, 1.5)
            outer_fluid = np.maximum(outer_fluid, cavity)
            found[cavity > 0.5] = FINDINGS["resection cavity"]
        ventricular = soft(self.findings.widened(ventricles, x, y, z), 1.0)
        fluid = np.maximum(outer_fluid, ventricular)
        layers.paint(value, head.csf_hu, fluid, "csf")
        dura = self.vessels.paint(value, layers, found, x, y, z, depth, vault, level, tent_height, texture)

        if head.contrast_hu > 0:
            # Where a second field crosses a sulcus, a vessel runs along its floor or wall.
            crossing = np.full(x.shape, 9, np.float32)
            crossing[shallow] = np.abs(self.reach(x[shallow], y[shallow], z[shallow])) / self.reach.gradient
            sulcal = np.sqrt(sulcus * sulcus + crossing * crossing) - np.float32(CORTICAL_MM)
            self.vessels.branches(value, layers, x, y, z, np.asarray(sulcal, np.float32))

        kind = np.zeros(x.shape, np.uint8)
        kind[infratentorial] = Kind.CEREBELLUM
        kind[stem < 0] = Kind.BRAINSTEM
        kind[outer_fluid > 0.5] = Kind.SUBARACHNOID
        kind[ventricular > 0.5] = Kind.VENTRICLE
        kind[dura > 0.5] = Kind.DURA
        kind[canal] = Kind.CANAL
        keep = inner < 0
        columns = (index, x, y, z, depth, kind, fluid, found)
        self._columns.append(tuple(column[keep] for column in columns))
        return np.asarray(value, np.float32)

    @staticmethod
    def _pallidum(ax: F32, y: F32, z: F32) -> F32:
        return ellipsoid(ax, y, z, (18.5, -14, 1), (4, 9, 7))
