"""Dura, venous sinuses, arteries and calcifications of a head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.phantom.head import Head
from edgehem.phantom.materials import FINDINGS, Labels, Layers
from edgehem.phantom.shapes import F32, Triple, capsule, chain, ellipsoid, near, soft

FALX_MM = (0.35, 0.85)
"""Half the thickness of the falx (ours; the dura is about 1 mm thick)."""


def middle_cerebral(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the left middle cerebral artery's first segment, mm."""
    return chain(x, y, z, [(10, -20, -19, 1.7), (22, -24, -16, 1.6), (34, -20, -13, 1.3)])


def _arteries(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the basilar, middle, anterior and posterior cerebral arteries, mm."""
    ax = np.abs(x)
    pieces = [
        capsule(x, y, z, (0, -8, -18), (1.5, -7, -36), 1.5, 1.7),
        chain(ax, y, z, [(10, -20, -19, 1.6), (22, -24, -16, 1.3), (34, -20, -13, 1.0)]),
        chain(ax, y, z, [(10, -20, -19, 1.4), (2, -34, -14, 1.0), (1.5, -46, 4, 0.8)]),
        chain(ax, y, z, [(1, -8, -18, 1.1), (13, -2, -16, 1.0), (18, 14, -10, 0.8)]),
    ]
    return np.asarray(np.minimum.reduce(pieces), np.float32)


def _deep_veins(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to the internal cerebral veins and the vein of Galen, mm."""
    return chain(np.abs(x), y, z, [(2, -18, 10, 0.7), (2, 14, 10, 0.9), (0, 26, 8, 1.8), (0, 34, 6, 1.8)])


def _branches(x: F32, y: F32, z: F32) -> F32:
    """Signed distance to what is too thin to be seen without a contrast agent, mm.

    Pericallosal and callosomarginal arteries, both divisions of the middle cerebral artery over the insula,
    thalamostriate veins, inferior sagittal sinus.
    """
    ax = np.abs(x)
    pieces = [
        chain(ax, y, z, [(1.5, -46, 4, 0.8), (1.6, -50, 16, 0.9), (1.6, -38, 28, 0.9), (1.6, -10, 34, 0.8),
                         (1.6, 18, 30, 0.7)]),
        chain(ax, y, z, [(2, -52, 20, 0.8), (3, -40, 42, 0.8), (4, -8, 52, 0.7), (4, 20, 50, 0.6)]),
        chain(ax, y, z, [(34, -20, -13, 1.0), (38, -14, 0, 0.9), (39.5, -4, 12, 0.9), (44, 6, 22, 0.8),
                         (52, 16, 30, 0.7)]),
        chain(ax, y, z, [(34, -20, -13, 1.0), (39, -2, -4, 0.9), (41, 14, 6, 0.9), (48, 28, 14, 0.8)]),
        chain(ax, y, z, [(2, -18, 10, 0.7), (8, -16, 17, 0.8), (16, -6, 21, 0.7)]),
        chain(x, y, z, [(0, -40, 38, 0.9), (0, 0, 42, 1.1), (0, 30, 24, 1.3), (0, 34, 8, 1.5)]),
    ]  # fmt: skip
    return np.asarray(np.minimum.reduce(pieces), np.float32)


class Vessels:
    """Everything dense inside the skull that is no blood clot, but for a thrombus."""

    def __init__(self, head: Head, rng: np.random.Generator) -> None:
        self.head = head
        self.falx_mm = float(rng.uniform(*FALX_MM))
        self.sagittal_mm = float(rng.uniform(3.0, 5.2))
        # The right transverse sinus is the larger one in most people.
        self.dominance = float(np.clip(rng.normal(-0.2, 0.25), -0.75, 0.75))
        sizes = rng.uniform(1.2, 3.2, 4).tolist()
        place = rng.uniform(-62, 20), rng.uniform(20, 40)
        spots: list[tuple[float, Triple, Triple]] = [
            (head.choroid_hu, (20, 29, 13), (sizes[0], 1.5 * sizes[0], sizes[0])),
            (head.choroid_hu, (-20, 29, 13), (sizes[1], 1.5 * sizes[1], sizes[1])),
            (head.pineal_hu, (0, 15, 1), (0.8 * sizes[2], sizes[2], 0.8 * sizes[2])),
            (head.basal_ganglia_hu, (18.5, -14, 1), (1.5 + sizes[3], 3 + 2 * sizes[3], 2 + sizes[3])),
            (head.basal_ganglia_hu, (-18.5, -14, 1), (1.5 + sizes[3], 3 + 2 * sizes[3], 2 + sizes[3])),
            (head.falx_hu, (0, float(place[0]), float(place[1])), (1.6, 4 + 2 * sizes[0], 3 + sizes[1])),
            (head.tentorium_hu, (17, 24, 2), (5, 4, 1.3)),
            (head.dentate_hu, (15, 44, -36), (4, 6, 3.5)),
            (head.dentate_hu, (-15, 44, -36), (4, 6, 3.5)),
            (head.carotid_hu, (11, -20, -26), (1.8, 3, 2.2)),
            (head.carotid_hu, (-11, -19, -26), (1.8, 3, 2.2)),
            (0.7 * head.carotid_hu, (7, 10, -52), (1.2, 1.6, 2.5)),
        ]
        self.spots = [spot for spot in spots if spot[0] > 0]

    def paint(
        self,
        value: F32,
        layers: Layers,
        found: Labels,
        x: F32,
        y: F32,
        z: F32,
        depth: F32,
        vault: F32,
        level: F32,
        tent_height: F32,
        texture: F32,
    ) -> F32:
        """Paint over brain and fluid, and label what is found, in place.

        Returns
        -------
        float32 array [N]
            Share of dura and sinus.
        """
        head, ax = self.head, np.abs(x)
        falx_edge = 0.60 - 0.16 * np.clip((y + 20) / 80, 0, 1)
        falx = np.maximum(ax - self.falx_mm, (falx_edge - level) * 80)
        falx = np.where((z > 6) | (y < -45), falx, np.float32(9))
        tentorium = np.maximum(np.abs(z - tent_height) * 0.85 - 0.4, 22 - np.sqrt(x * x + (y - 6) ** 2))
        tentorium = np.where((y > 12) & (y > 2 + 0.4 * ax), tentorium, np.float32(9))
        dura = soft(np.asarray(np.minimum(falx, tentorium), np.float32), 1.2)
        layers.paint(value, head.dura_hu, dura, "dura")
        segments = self._sinuses(x, y, z, depth, vault, tent_height)
        sinus = soft(np.asarray(np.minimum.reduce(list(segments.values())), np.float32), 1.2)
        layers.paint(value, head.sinus_hu, sinus, "vessel")
        if head.thrombosis is not None:
            segment = segments[self._segment(head.thrombosis)]
            clot = np.where(self._on_side(head.thrombosis, x), segment, np.float32(9)) - 0.5  # it widens its sinus
            thrombus = soft(np.asarray(clot, np.float32), 1.2)
            layers.paint(value, head.thrombosis_hu, thrombus, "vessel")
            found[thrombus > 0.5] = FINDINGS["thrombosed sinus"]
        arteries = near((ax < 37) & (z < 8) & (y < 18) & (y > -50), _arteries, x, y, z)
        layers.paint(value, head.artery_hu, soft(arteries, 1.0), "vessel")
        veins = near((ax < 6) & (z > 0) & (z < 16) & (y > -22) & (y < 40), _deep_veins, x, y, z)
        layers.paint(value, head.sinus_hu, soft(veins, 1.0), "vessel")
        if head.mca_hu > 0:
            own = x * np.float32(head.mca_side)
            dense = near((own > 6) & (own < 38) & (z < -8) & (z > -24), middle_cerebral, own, y, z)
            artery = soft(dense - 0.3, 1.0)
            layers.paint(value, head.mca_hu, artery, "vessel")
            found[artery > 0.5] = FINDINGS["dense artery"]
        for hu, centre, radii in self.spots:
            around = np.flatnonzero(np.abs(z - centre[2]) < 2 * radii[2] + 2)
            if around.size:
                spot, part = value[around], layers.at(around)
                lump = ellipsoid(x[around], y[around], z[around], centre, radii) + 0.6 * texture[around]
                share = soft(lump, 1.6)
                part.paint(spot, hu * (0.8 + 0.25 * texture[around]), share, "calcium")
                value[around] = spot
                found[around[share > 0.5]] = FINDINGS["calcification"]
                layers.put(around, part)
        plexus = near(
            (ax < 25) & (z > 5) & (z < 23) & (y > -2) & (y < 36),
            lambda x, y, z: chain(np.abs(x), y, z, [(10, 0, 20, 0.8), (15, 18, 18, 1.6), (20.5, 29, 12, 2.6)]),
            x, y, z,
        )  # fmt: skip
        layers.paint(value, 37, 0.75 * soft(plexus, 1.5), "vessel")
        if head.contrast_hu > 0:
            filled = np.maximum(np.maximum(sinus, soft(arteries, 1.0)), soft(veins, 1.0))
            layers.paint(value, head.contrast_hu, filled, "vessel")
            layers.paint(value, 0.8 * head.contrast_hu, soft(plexus, 1.5), "vessel")
        return np.maximum(dura, sinus)

    def branches(self, value: F32, layers: Layers, x: F32, y: F32, z: F32, sulcal: F32) -> None:
        """Paint the thin vessels that a contrast agent shows, in place; `sulcal`: distance to those in sulci, mm."""
        thin = np.minimum(near((z > -16) & (z < 56), _branches, x, y, z), sulcal)
        layers.paint(value, self.head.contrast_hu, soft(np.asarray(thin, np.float32), 1.0), "vessel")

    @staticmethod
    def _segment(name: str) -> str:
        return name.removesuffix(" left").removesuffix(" right")

    @staticmethod
    def _on_side(name: str, x: F32) -> npt.NDArray[np.bool_]:
        if name.endswith("left"):
            return x > 0
        return x < 0 if name.endswith("right") else np.ones(x.shape, bool)

    def _sinuses(self, x: F32, y: F32, z: F32, depth: F32, vault: F32, tent_height: F32) -> dict[str, F32]:
        """Signed distance to each sinus, mm."""
        ax, wide = np.abs(x), self.sagittal_mm
        sagittal = np.maximum(ax - wide * np.clip(1 - depth / (1.7 * wide), 0, 1), depth - 1.7 * wide)
        sagittal = np.where(((z > 0) | (y < -60)) & (((z > -14) & (y > -60)) | (z > 20)), sagittal, np.float32(9))
        under = np.clip(-vault, 0, None)
        size = 3.2 * (1 + self.dominance * np.sign(x))
        transverse = np.sqrt((under - 2.3) ** 2 + ((z - tent_height) * 0.8) ** 2) - size
        transverse = np.where((y > 20) & (y > 0.4 * ax), transverse, np.float32(9))
        # From the end of the transverse sinus down behind the petrous bone to the jugular foramen.
        sigmoid = near(
            (ax > 22) & (z < -8) & (z > -62) & (y > 4) & (y < 48),
            lambda x, y, z: chain(np.abs(x), y, z, [
                (58, 27, -21, 3.4), (55, 21, -30, 3.5), (48, 19, -39, 3.4), (38, 20, -45, 3.2), (28, 17, -52, 3.0),
            ]),
            x, y, z,
        )  # fmt: skip
        straight = near(
            (ax < 6) & (y > 30) & (y < 86) & (z > -12) & (z < 14),
            lambda x, y, z: chain(x, y, z, [(0, 34, 8, 1.7), (0, 58, 3, 2.0), (0, 80, -2, 2.4)]),
            x, y, z,
        )  # fmt: skip
        cavernous = ellipsoid(ax, y, z, (11, -17, -29 + self.head.base_shift), (4.5, 9, 5))
        sigmoid_wall = sigmoid - 1.8 * self.dominance * np.sign(x)
        named = {
            "superior sagittal": sagittal, "transverse": transverse, "sigmoid": sigmoid_wall, "straight": straight,
            "cavernous": cavernous,
        }  # fmt: skip
        return {name: np.asarray(distance, np.float32) for name, distance in named.items()}
