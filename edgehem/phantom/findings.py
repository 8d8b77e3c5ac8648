"""What is wrong with the brain and is no blood: infarcts, old and acute, by vascular territory, and lacunes."""

from __future__ import annotations

import numpy as np

from edgehem.phantom.head import Head
from edgehem.phantom.materials import FINDINGS, Labels, Layers
from edgehem.phantom.shapes import F32, Triple, ellipsoid, smoothstep, soft

_CENTRES: dict[str, tuple[Triple, Triple]] = {
    "mca": ((46, -6, 14), (30, 50, 44)),
    "mca superior": ((46, -26, 24), (26, 34, 32)),
    "mca inferior": ((46, 22, 8), (24, 34, 28)),
    "aca": ((8, -34, 40), (13, 46, 40)),
    "pca": ((22, 56, 6), (24, 30, 24)),
    "lenticulostriate": ((24, -15, 5), (9, 18, 13)),
    "cerebellar": ((28, 48, -38), (22, 24, 16)),
}
"""Centre and radii of each territory in a head's left half, mm: ellipsoids over textbook maps (ours)."""
LACUNE_SITES: tuple[Triple, ...] = ((24, -14, 3), (11, 3, 7), (16, -24, 14), (24, 4, 24), (19, -34, 20), (4, 6, -30))
"""Putamen, thalamus, caudate, corona radiata, frontal white matter, pons."""


class Findings:
    """Infarcts and lacunes of a head.

    Parameters
    ----------
    head : Head
    rng : numpy.random.Generator
        Of the lacunes' places.
    """

    def __init__(self, head: Head, rng: np.random.Generator) -> None:
        self.head = head
        self.lacunes: list[tuple[Triple, Triple]] = []
        for _ in range(6):  # the same draws whatever their number
            at = LACUNE_SITES[int(rng.integers(len(LACUNE_SITES)))]
            side = 1.0 if rng.random() < 0.5 else -1.0
            jitter, radii = rng.normal(0, 2.2, 3).tolist(), rng.uniform(1.8, 4.6, 3).tolist()
            place = (side * at[0] + jitter[0], at[1] + jitter[1], at[2] + jitter[2])
            self.lacunes.append((place, (radii[0], radii[1], radii[2])))
        self.lacunes = self.lacunes[: head.lacunes]

    def _territory(self, name: str, side: int, extent: float, x: F32, y: F32, z: F32) -> F32:
        """Signed distance to the part of a territory that is infarcted, mm; wedges widen towards the surface."""
        centre, radii = _CENTRES[name]
        scale = float(np.cbrt(extent))
        own = x * np.float32(side)
        a, b, c = (scale * radius for radius in radii)
        # It ends at the midline, whatever frays its border.
        return np.asarray(np.maximum(ellipsoid(own, y, z, centre, (a, b, c)), 2 * (2.5 - own)), np.float32)

    def swollen(self, x: F32, y: F32, z: F32) -> F32 | np.float32:
        """How far sulci are closed by an acute infarct's swelling, 0..1."""
        head = self.head
        swelling = head.infarct_swelling
        if swelling is None:
            swelling = 0.0 if head.infarct_hours < 3 else min(1.0, head.infarct_hours / 24)
        if head.infarct is None or swelling <= 0:
            return np.float32(0)
        distance = self._territory(head.infarct, head.infarct_side, head.infarct_extent, x, y, z)
        return np.asarray(soft(distance, 6.0) * np.float32(swelling), np.float32)

    def widened(self, ventricles: F32, x: F32, y: F32, z: F32) -> F32:
        """Ventricles that an old infarct beside them has pulled out, mm."""
        head = self.head
        if head.old_infarct is None:
            return ventricles
        loss = self._territory(head.old_infarct, head.old_infarct_side, head.old_infarct_extent, x, y, z)
        return np.asarray(ventricles - 4.5 * head.old_infarct_extent * np.exp(-np.clip(loss, 0, None) / 14), np.float32)

    def paint(
        self, value: F32, layers: Layers, found: Labels, x: F32, y: F32, z: F32, stem: F32, grey: F32, patch: F32
    ) -> F32 | np.float32:
        """Paint what is there over the tissue, and label it, in place; returns the share of fluid-filled clefts."""
        head = self.head
        fluid: F32 | np.float32 = np.float32(0)
        if head.infarct is not None and head.infarct_drop_hu > 0:
            distance = self._territory(head.infarct, head.infarct_side, head.infarct_extent, x, y, z) + 2.5 * patch
            share = soft(distance, 5.0)
            found[share > 0.5] = FINDINGS["acute infarct"]
            # Cortex and nuclei lose what told them from white matter, and more: they are what starves first.
            contrast = (head.grey_hu - head.white_hu) * grey * min(1.0, head.infarct_drop_hu / 6)
            value -= share * (0.55 * contrast + head.infarct_drop_hu * (0.6 + 0.4 * grey) * 0.8)
        if head.old_infarct is not None:
            distance = self._territory(head.old_infarct, head.old_infarct_side, head.old_infarct_extent, x, y, z)
            distance = distance + 3 * patch
            lost = soft(distance, 4.0) * (stem > 0)
            found[lost > 0.5] = FINDINGS["old infarct"]
            layers.paint(value, head.csf_hu + 11, lost, "gliosis")
            fluid = np.asarray(lost * smoothstep(-distance, 2, 7) * smoothstep(patch, -1.2, 0.6), np.float32)
        for centre, radii in self.lacunes:
            near = np.flatnonzero(np.abs(z - centre[2]) < 8)
            hole, part = value[near], layers.at(near)
            gone = 0.9 * soft(ellipsoid(x[near], y[near], z[near], centre, radii), 1.5)
            part.paint(hole, head.csf_hu + 5, gone, "csf")
            value[near] = hole
            found[near[gone > 0.5]] = FINDINGS["lacune"]
            layers.put(near, part)
        return fluid
