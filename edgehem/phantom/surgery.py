"""What surgeons leave: holes and flaps in the vault, a plastic replacement, a catheter, a cavity."""

from __future__ import annotations

import numpy as np

from edgehem.phantom.head import Head
from edgehem.phantom.materials import Layers
from edgehem.phantom.shapes import F32, Triple, blend, capsule, chain, ellipsoid, soft

PLASTIC_HU = 140.0
"""Polymethyl methacrylate, as a cranioplasty measures it (rounded; makes with barium are denser)."""
SILICONE_HU = 350.0
"""Silicone with barium, of a shunt's catheter (ours)."""
KERF_MM = 1.1
"""Half the width of the saw's cut around a bone flap (ours)."""
FLAP_MM = 33.0
"""Radius of a bone flap (ours)."""


class Surgery:
    """The operation a head has had; only built where there was one.

    Parameters
    ----------
    head : Head
        Its `surgery` is not None.
    """

    def __init__(self, head: Head) -> None:
        self.kind, self.side = str(head.surgery), float(head.surgery_side)
        rng = np.random.default_rng([head.seed, 23])
        back, up = float(rng.uniform(-0.45, 0.35)), float(rng.uniform(0.3, 0.65))
        if self.kind == "shunt":
            back, up = 0.75, 0.4  # parietal
        direction = np.array([self.side * 0.85, back, up])
        self.direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        self.radius = {"burr hole": 7.0, "shunt": 6.0}.get(self.kind, FLAP_MM * float(rng.uniform(0.8, 1.15)))
        self.depth = float(rng.uniform(14, 26))

    def _across(self, x: F32, y: F32, z: F32) -> tuple[F32, F32]:
        """Distance along the axis of the approach and across it, mm."""
        along = self.direction[0] * x + self.direction[1] * y + self.direction[2] * z
        across = np.sqrt(np.clip(x * x + y * y + z * z - along * along, 0, None))
        return along, np.where(along > 0, across, np.float32(200))

    def opening(self, x: F32, y: F32, z: F32) -> F32:
        """Share of bone that is gone."""
        _, across = self._across(x, y, z)
        if self.kind in {"burr hole", "shunt", "cranioplasty"}:
            return soft(across - np.float32(self.radius))
        cut = np.abs(across - np.float32(self.radius)) - KERF_MM
        for number in range(3):
            cut = np.minimum(cut, self._burr(x, y, z, number))
        return soft(cut)

    def _burr(self, x: F32, y: F32, z: F32, number: int) -> F32:
        """Signed distance to one of the burr holes on a flap's rim, mm."""
        d = self.direction
        first = np.cross(d, [0, 0, 1])
        first /= np.linalg.norm(first)
        second = np.cross(d, first)
        angle = 2 * np.pi * number / 3 + 0.5
        rim = self.radius * (np.cos(angle) * first + np.sin(angle) * second)
        p = 75 * d + rim
        p = (p / np.linalg.norm(p)).astype(np.float32)
        along = p[0] * x + p[1] * y + p[2] * z
        away = np.sqrt(np.clip(x * x + y * y + z * z - along * along, 0, None))
        return np.where(along > 0, away - np.float32(5.5), np.float32(200))

    def plate(self, value: F32, layers: Layers, x: F32, y: F32, z: F32, vault: F32, thick: F32) -> None:
        """Paint the plastic that replaces the flap of a cranioplasty, in place."""
        if self.kind == "cranioplasty":
            _, across = self._across(x, y, z)
            sheet = np.maximum(np.abs(vault - 0.45 * thick) - 2.0, across - np.float32(self.radius - 1.5))
            layers.paint(value, PLASTIC_HU, soft(np.asarray(sheet, np.float32)), "muscle")

    def cavity(self, x: F32, y: F32, z: F32) -> F32:
        """Signed distance to a resection's cavity, mm; far where there is none."""
        if self.kind != "resection":
            return np.full(x.shape, 9, np.float32)
        at: Triple = tuple((62 * self.direction).tolist())
        return ellipsoid(x, y, z, at, (self.depth, 1.1 * self.depth, 0.9 * self.depth))

    def catheter(self, value: F32, x: F32, y: F32, z: F32) -> None:
        """Paint a shunt's catheter, under the scalp and into the frontal horn, in place."""
        if self.kind != "shunt":
            return
        d, s = self.direction, self.side
        start: Triple = (float(82 * d[0]), float(82 * d[1]), float(82 * d[2]))
        tip: Triple = (7 * s, -26, 12)
        middle: Triple = (22 * s, 26, 16)
        close = np.flatnonzero((x * np.float32(s) > -2) & (y > -30))
        xs, ys, zs = x[close], y[close], z[close]
        inside = chain(xs, ys, zs, [(*start, 1.3), (*middle, 1.3), (*tip, 1.3)])
        under_skin = capsule(xs, ys, zs, start, (78 * s, 40, -30), 1.3, 1.3)
        painted = value[close]
        blend(painted, SILICONE_HU, soft(np.minimum(inside, under_skin)))
        value[close] = painted
