"""The inside of the skull: grey and white matter, fluid, dura, vessels, and the findings that are not blood."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from edgehem.phantom.head import Head
from edgehem.phantom.materials import Layers
from edgehem.phantom.shapes import F32, PointField, capsule, chain, ellipsoid, near, smoothstep, soft


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
    found : uint8 array [N] or None
        Version 2: what is there that is neither tissue nor blood, of :data:`edgehem.phantom.materials.FINDINGS`; 0 for
        nothing.
    """

    index: npt.NDArray[np.int64]
    x: F32
    y: F32
    z: F32
    depth: F32
    kind: npt.NDArray[np.uint8]
    fluid: F32
    found: npt.NDArray[np.uint8] | None = None


def ventricle_distance(head: Head, x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the ventricular system, mm."""
    side = np.where(x > 0, 1 + head.ventricle_asymmetry, 1 - head.ventricle_asymmetry).astype(np.float32)
    ax, k = np.abs(x), head.ventricle_scale
    wide = 0.75 + 0.25 * k
    lateral = chain(ax, y, z, [
        (9 * wide, -49, 4, 2.6 * k), (8.5 * wide, -34, 11, 3.9 * k), (10 * wide, -10, 20, 4.2 * k),
        (15 * wide, 14, 21, 4.9 * k), (23 * wide, 30, 13, 6.2 * k),
    ])  # fmt: skip
    occipital = chain(ax, y, z, [(23 * wide, 30, 12, 5.6 * k), (24, 45, 6, 3.4 * k), (23, 60, 3, 1.2 * k)])
    temporal = chain(ax, y, z, [
        (24 * wide, 29, 9, 5 * k), (32, 14, -6, 2.4 * k), (33, -2, -16, 2.0 * k), (29, -14, -20, 1.6 * k),
    ])  # fmt: skip
    lateral = np.minimum(np.minimum(lateral, occipital), temporal) * (np.float32(1) / side)
    third = np.maximum(np.abs(x) - 1.5 * k, np.hypot((y + 6) / 1.25, z + 2) - 11)
    fourth = np.maximum(ellipsoid(x, y, z, (0, 31, -31), (8.5, 5.5 * (0.6 + 0.4 * k), 10)), z + 60)
    aqueduct = capsule(x, y, z, (0, 8, -6), (0, 26, -24), 1.0, 1.2)
    return np.asarray(np.minimum.reduce([lateral, third, fourth, aqueduct]), np.float32)


def _stem_distance(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to midbrain, pons, medulla and cord, mm."""
    stem = chain(x, y, z, [(0, 4, -8, 13), (0, 8, -22, 13.5), (0, 7, -32, 15.5), (0, 17, -54, 8.5)])
    return np.minimum(stem, chain(x, y, z, [(0, 17, -54, 8.5), (0, 29, -68, 6.5), (0, 36, -150, 5.5)]))


def _artery_distance(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the basilar, middle and anterior cerebral arteries, mm."""
    ax = np.abs(x)
    return np.asarray(
        np.minimum.reduce([
            capsule(x, y, z, (0, -10, -18), (1.5, -7, -36), 1.6, 1.8),
            chain(ax, y, z, [(10, -20, -19, 1.8), (22, -24, -16, 1.3), (34, -20, -13, 1.0)]),
            chain(ax, y, z, [(10, -20, -19, 1.6), (2, -34, -14, 1.0), (1.5, -46, 4, 0.8)]),
        ]),
        np.float32,
    )  # fmt: skip


def _vein_distance(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to what contrast shows and a plain scan does not: deep veins, straight sinus, branches, mm."""
    ax = np.abs(x)
    return np.asarray(
        np.minimum.reduce([
            chain(ax, y, z, [(2, -22, 12, 1.0), (2, 14, 10, 1.2), (0, 26, 8, 2.2), (0, 60, 4, 2.4), (0, 80, 0, 2.6)]),
            chain(ax, y, z, [(34, -20, -13, 1.2), (37, -14, 4, 1.1), (38, 2, 12, 1.0), (46, 14, 22, 0.9)]),
            chain(ax, y, z, [(34, -20, -13, 1.2), (37, 2, -4, 1.1), (44, 18, 4, 0.9)]),
            chain(ax, y, z, [(1.5, -46, 4, 1.1), (1.5, -40, 22, 1.0), (1.5, -10, 34, 1.0), (1.5, 20, 30, 0.9)]),
            chain(ax, y, z, [(3, -12, -19, 1.2), (14, 4, -16, 1.2), (12, 32, -6, 1.1), (10, 60, 2, 0.9)]),
        ]),
        np.float32,
    )  # fmt: skip


def _nuclei_distance(ax: F32, y: F32, z: F32) -> F32:
    """Signed distance to caudate, lentiform nucleus and thalamus; ax is |x|, mm."""
    return np.asarray(
        np.minimum.reduce([
            ellipsoid(ax, y, z, (13, -31, 9), (5, 10, 9)),
            ellipsoid(ax, y, z, (24.5, -15, 2), (7, 16, 10)),
            ellipsoid(ax, y, z, (11, 2, 7), (8.5, 14, 9)),
        ]),
        np.float32,
    )  # fmt: skip


class BrainPainter:
    """Paints slabs of points inside the skull and remembers what they are."""

    def __init__(self, head: Head, rng: np.random.Generator) -> None:
        self.head = head
        self.sulci = PointField(rng, 27)
        self.detail = PointField(rng, 13)
        self.folia = PointField(rng, 6, waves=5)
        self.patch = PointField(rng, 18, waves=7)
        self.infarcts = [self._draw_infarct(rng) for _ in range(head.infarcts)]
        self.calcified = rng.uniform(1.2, 3.4, 4).tolist()
        self.sinus_mm = float(rng.uniform(3.0, 5.5))
        self.falx_mm = float(rng.uniform(0.3, 1.1))
        self.falx_calcified = bool(rng.random() < 0.2)
        self.artery_hu = float(rng.uniform(38, 62))
        self.carotid_hu = float(rng.choice([0, 1]) * rng.uniform(150, 600))
        self._columns: list[tuple[npt.NDArray[np.generic], ...]] = []

    def _draw_infarct(
        self, rng: np.random.Generator
    ) -> tuple[tuple[float, float, float], tuple[float, float, float], float]:
        """Centre, radii and share of fluid of an old infarct."""
        side = float(rng.choice([-1, 1]))
        centre = (side * float(rng.uniform(15, 55)), float(rng.uniform(-55, 70)), float(rng.uniform(-20, 45)))
        small = rng.random() < 0.5
        a, b, c = (rng.uniform(3, 6, 3) if small else rng.uniform(9, 26, 3)).tolist()
        return centre, (a, b, c), float(rng.uniform(0.35, 0.95))

    def tissue(self) -> Tissue:
        """Everything painted so far."""
        index, x, y, z, depth, kind, fluid = (np.concatenate(parts) for parts in zip(*self._columns, strict=True))
        return Tissue(index=index, x=x, y=y, z=z, depth=depth, kind=kind, fluid=fluid)

    def _sulcus_sheet(self, x: F32, y: F32, z: F32) -> F32:
        """Distance to the nearest sulcus, mm."""
        field = self.sulci(x, y, z) + 0.45 * self.detail(x, y, z)
        return np.asarray(np.abs(field) / (self.sulci.gradient * 1.25), np.float32)

    def _sylvian_distance(self, ax: F32, y: F32, z: F32) -> F32:
        """Signed distance to the Sylvian fissure and the fluid over the insula; ax is |x|, mm."""
        width = self.head.sulcus_mm
        slope = np.abs(z + 13 - 0.66 * (y + 27) + 0.45 * (ax - 36))
        fissure = np.maximum(slope * 0.8 - 0.7 * width * smoothstep(34 - np.abs(y + 8), 0, 12), 35.5 - ax)
        insula = np.abs(ax - 36 - 0.024 * (z - 2) ** 2) - 0.75 * width
        insula = np.maximum(insula, (np.hypot((y + 10) / 1.25, z - 2) - 15) * 0.3)
        return np.asarray(np.minimum(fissure, insula), np.float32)

    def _cistern_distance(self, x: F32, y: F32, z: F32) -> F32:
        """Signed distance to the suprasellar, quadrigeminal and great cisterns, mm."""
        ax, atrophy = np.abs(x), self.head.atrophy
        return np.asarray(
            np.minimum.reduce([
                ellipsoid(x, y, z, (0, -17, -19), (13 + 2 * atrophy, 11, 8)),
                chain(ax, y, z, [(8, -20, -18, 3.2), (30, -22, -14, 2.0 + atrophy)]),
                ellipsoid(x, y, z, (0, 24, -4), (13, 4.5 + 2 * atrophy, 6)),
                ellipsoid(x, y, z, (0, 52, -60), (16, 13, 7)),
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
        """Hounsfield units of points inside the skull.

        Parameters
        ----------
        layers : Layers
            Of the same points, all white matter so far; changed in place.
        x, y, z : float32 arrays [N]
            Head coordinates, mm.
        inner, vault : float32 arrays [N]
            Signed distance to the cavity's surface and to the vault's inner table, mm (negative inside).
        level : float32 array [N]
            0 in the middle of the vault, 1 at its inner table.
        texture : float32 array [N]
            Fine random field.
        index : int64 array [N]
            Position in the flattened block.

        Returns
        -------
        float32 array [N], HU
        """
        head = self.head
        depth = -inner
        deep = np.clip(depth, 0, None)
        if head.midline_shift:
            # Pushed most in the middle of the head, not at all along the skull.
            push = smoothstep(depth, 2, 30) * np.exp(-((y / 70) ** 2) - ((z - 10) / 45) ** 2)
            x = x - head.midline_shift * push
        ax = np.abs(x)
        canal = (z < -64) | ((inner < 0) & (np.hypot(x, y - 29) < 17) & (z < -56))
        stem = near((ax < 30) & (z < 16), _stem_distance, x, y, z)
        tent_height = 10 - 0.56 * ax - 0.0045 * np.clip(y - 25, 0, None) ** 2
        infratentorial = (z < tent_height) & (y > 14 + 0.35 * ax - 12 * (z < -30))
        ventricles = near((ax < 48) & (deep > 6), lambda x, y, z: ventricle_distance(head, x, y, z), x, y, z)
        patch = self.patch(x, y, z)

        # Fluid spaces outside the brain, as distances. Folds bend the sheets, so that nothing runs straight.
        rim = 0.4 + 2.3 * head.atrophy * smoothstep(z, -25, 35) + 0.5 * head.atrophy
        sheet = near((deep < 24) & ~infratentorial, self._sulcus_sheet, x, y, z)
        reach = smoothstep(20 - deep + 3 * texture, 0, 9) * ~infratentorial
        sulci = sheet - 0.55 * head.sulcus_mm * reach * (0.75 + 0.35 * texture) + 4 * (1 - reach)
        opening = (0.5 + 1.1 * head.sulcus_mm * smoothstep(level, 0.5, 0.95)) * ((z > -8) | (y < -30))
        fissure = np.abs(x + 0.5 * patch) - opening
        fissure = np.where((level > 0.45) & ((z > 14) | (y < -38) | ((y > 45) & (z > 0))), fissure, np.float32(9))
        sylvian = near(
            (ax > 22) & (np.abs(y + 8) < 42), self._sylvian_distance, ax + 2 * patch, y + 4 * patch, z + 3 * patch
        )
        basal = near((ax < 45) & (z < 14) & (np.abs(y) < 75), self._cistern_distance, x, y + 0.8 * patch, z)
        around_stem = np.maximum(np.abs(stem - 1.8) - 1.9 - 0.7 * head.atrophy, np.maximum((y - 14) * 0.8, z + 6))
        cord_space = np.where(canal & (stem > 0), np.float32(-2), np.float32(9))
        spaces = np.minimum.reduce([sulci, fissure, sylvian, basal, around_stem, cord_space, depth - rim])

        # Grey and white matter.
        cortex = smoothstep(4.2 - np.minimum(deep - rim, np.maximum(sheet * 1.15, 9 * (1 - reach))), 0, 2.0)
        cortex = np.maximum(cortex, smoothstep(np.asarray(3.2 - np.minimum(sylvian, fissure), np.float32), 0, 1.5))
        nuclei = near((ax < 34) & (z > -12) & (z < 22), _nuclei_distance, ax, y, z)
        grey = np.maximum(cortex, soft(nuclei, 2.0))
        folds = near(infratentorial, self.folia, x, 0.6 * y, 1.6 * z, far=0)
        grey = np.where(infratentorial, 0.75 + 0.13 * folds, grey)
        grey = np.where(stem < 0, np.float32(0.4), grey)
        value = head.white_hu + (head.grey_hu - head.white_hu) * grey + 0.9 * texture
        layers.over("grey", grey)
        around = np.exp(-np.clip(ventricles, 0, None) / (3 + 7 * head.leukoaraiosis)) * (1 - cortex) * ~infratentorial
        patchy = smoothstep(patch, -1.2, 0.6)
        value -= (1 + 9 * head.leukoaraiosis) * around * patchy
        layers.over("gliosis", head.leukoaraiosis * around * patchy)
        for centre, radii, share in self.infarcts:
            lesion = ellipsoid(x, y, z, centre, radii) + 0.30 * min(radii) * patch
            lost = soft(lesion, 3.0) * min(1.0, 0.4 + share) * (stem > 0)
            layers.paint(value, head.csf_hu + (1 - share) * 18, lost, "gliosis")
            layers.over("csf", share * lost)

        # Fluid over tissue.
        outer_fluid = soft(spaces, 1.2)
        ventricular = soft(ventricles, 1.0)
        fluid = np.maximum(outer_fluid, ventricular)
        layers.paint(value, head.csf_hu, fluid, "csf")
        dura = self._paint_dense(value, layers, x, y, z, depth, vault, level, tent_height, texture)
        value += head.cupping_hu * np.exp(-deep / 7) * (1 - 0.6 * fluid)

        kind = np.zeros(x.shape, np.uint8)
        kind[infratentorial] = Kind.CEREBELLUM
        kind[stem < 0] = Kind.BRAINSTEM
        kind[outer_fluid > 0.5] = Kind.SUBARACHNOID
        kind[ventricular > 0.5] = Kind.VENTRICLE
        kind[dura > 0.5] = Kind.DURA
        kind[canal] = Kind.CANAL
        keep = inner < 0
        self._columns.append((index[keep], x[keep], y[keep], z[keep], depth[keep], kind[keep], fluid[keep]))
        return np.asarray(value, np.float32)

    def _paint_dense(
        self,
        value: F32,
        layers: Layers,
        x: F32,
        y: F32,
        z: F32,
        depth: F32,
        vault: F32,
        level: F32,
        tent_height: F32,
        texture: F32,
    ) -> F32:
        """Dura, venous sinuses, arteries and calcifications, in place; returns the dura's coverage."""
        head, ax = self.head, np.abs(x)
        falx_edge = 0.60 - 0.16 * smoothstep(y, -20, 60)
        falx = np.maximum(ax - self.falx_mm, (falx_edge - level) * 80)
        falx = np.where((z > 6) | (y < -45), falx, 9)
        tentorium = np.maximum(np.abs(z - tent_height) * 0.85 - 0.5, 22 - np.hypot(x, y - 6))
        tentorium = np.where((y > 12) & (y > 2 + 0.4 * ax), tentorium, 9)
        sheath = np.minimum(falx, tentorium)
        dura = soft(np.asarray(sheath, np.float32), 1.2)
        layers.paint(value, head.dura_hu, dura, "dura")
        if self.falx_calcified:
            plaque = soft(np.maximum(falx, ellipsoid(x, y, z, (0, -62, 30), (3, 9, 7))))
            layers.paint(value, 300, plaque, "calcium")
        # Superior sagittal sinus (a triangle under the vault), torcular, transverse sinuses, cavernous sinuses.
        sagittal = np.maximum(
            ax - self.sinus_mm * np.clip(1 - depth / (1.7 * self.sinus_mm), 0, 1), depth - 1.7 * self.sinus_mm
        )
        sagittal = np.where((z > 0) | (y < -60), sagittal, 9)
        sagittal = np.where((z > -14) & (y > -60) | (z > 20), sagittal, 9)
        transverse = np.hypot(np.clip(-vault, 0, None) - 2.5, (z - tent_height) * 0.8) - 3.4
        transverse = np.where((y > 14) & (y > 0.4 * ax), transverse, 9)
        cavernous = ellipsoid(ax, y, z, (11, -17, -29 + head.base_shift), (5, 10, 6))
        sinus = np.minimum(np.minimum(sagittal, transverse), cavernous)
        layers.paint(value, head.sinus_hu, soft(np.asarray(sinus, np.float32), 1.2), "vessel")
        arteries = near((ax < 37) & (z < 8) & (y < 0) & (y > -50), _artery_distance, x, y, z)
        layers.paint(value, self.artery_hu, soft(arteries, 1.0), "vessel")
        spots = [
            (head.choroid_hu, (19, 29, 13), self.calcified[0]),
            (head.choroid_hu, (-19, 29, 13), self.calcified[1]),
            (head.pineal_hu, (0, 14, 0), self.calcified[2]),
            (head.basal_ganglia_hu, (19, -14, 1), self.calcified[3]),
            (head.basal_ganglia_hu, (-19, -14, 1), self.calcified[3]),
            (self.carotid_hu, (11, -20, -26), 2.2),
            (self.carotid_hu, (-11, -19, -26), 2.0),
        ]
        for density, centre, radius in spots:
            if density > 0:
                around = np.flatnonzero(np.abs(z - centre[2]) < 3 * radius)
                p = ellipsoid(x[around], y[around], z[around], centre, (radius, 1.5 * radius, radius))
                spot, part = value[around], layers.at(around)
                covered = soft(p + 0.5 * texture[around], 1.4)
                part.paint(spot, density * (0.8 + 0.25 * texture[around]), covered, "calcium")
                value[around] = spot
                layers.put(around, part)
        # Choroid plexus without calcium is still denser than fluid.
        plexus = near(
            (ax < 24) & (z > 5) & (z < 23),
            lambda x, y, z: chain(np.abs(x), y, z, [(12, 0, 20, 1.0), (16, 18, 18, 1.8), (20, 29, 12, 2.8)]),
            x, y, z,
        )  # fmt: skip
        layers.paint(value, 38, 0.8 * soft(plexus, 1.5), "vessel")
        if head.contrast_hu > 0:
            vessels = np.minimum(np.minimum(sinus, arteries), near((ax < 48) & (z < 40), _vein_distance, x, y, z))
            layers.paint(value, head.contrast_hu, soft(np.asarray(vessels, np.float32), 1.2), "vessel")
            layers.paint(value, 0.8 * head.contrast_hu, soft(plexus, 1.5), "vessel")
        return np.maximum(dura, soft(np.asarray(sinus, np.float32), 1.2))
