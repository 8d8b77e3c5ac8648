"""What a head lies on in the scanner: a padded cradle at the table's end, or the table's top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.shapes import F32, soft

SUPPORTS = ("headrest", "table", "none")
"""A cradle, the top of the table, or foam that no scan shows."""
CHANCES = (0.62, 0.2, 0.18)
"""How often each is drawn (ours): most tables carry a headrest for heads; who is not to be moved lies on the top."""
SKIN_HU = (150.0, 300.0)
"""Skins of carbon fibre in resin, 1.5 g/cm³: carbon weakens X-rays less than water does, gram for gram (rounded)."""
FOAM_HU = (-965.0, -900.0)
"""Foam of a pad or of the table's core, 0.04 to 0.1 g/cm³."""
SKIN_MM, EDGE_MM = (1.2, 2.2), 1.5
"""Thickness of a skin (ours), and the width over which its edges fade."""
STEP_MM = 0.4
"""Distance of the lines that a support's section is kept on."""
LYING_MM = (-70.0, 70.0)
"""Range of z in which the back of the head may touch its support."""


@dataclass(frozen=True, kw_only=True)
class Couch:
    """A support: the same section along the table, which rises or falls a little. Lengths mm, densities HU.

    Parameters
    ----------
    kind : str
        One of :data:`SUPPORTS`.
    slope : float
        How far it falls to the back per mm towards the head's top.
    contact_mm : float
        Where its upper skin is deepest: y at z = 0.
    centre_mm, half_mm, depth_mm : float
        A headrest's middle (x), half width, and height from its middle to its deepest point.
    ends_mm : float
        How far above its deepest point a headrest's sides end.
    curve_per_mm : float
        Curvature of a table's top.
    skin_mm, pad_mm, core_mm : float
        Thickness of a skin, of the foam on it, and of the table's core.
    skin_hu, foam_hu : float
    """

    kind: str = "none"
    slope: float = 0.0
    contact_mm: float = 110.0
    centre_mm: float = 0.0
    half_mm: float = 100.0
    depth_mm: float = 110.0
    ends_mm: float = 90.0
    curve_per_mm: float = 0.0
    skin_mm: float = 1.6
    pad_mm: float = 10.0
    core_mm: float = 45.0
    skin_hu: float = 200.0
    foam_hu: float = -940.0


def draw_couch(seed: int, anatomy: Anatomy, kind: str | None = None) -> Couch:
    """Draw what a head lies on, and put it where the head touches it.

    Parameters
    ----------
    seed : int
        Of the scan.
    anatomy : Anatomy
    kind : str, optional
        One of :data:`SUPPORTS`, instead of what the seed draws.
    """
    rng = np.random.default_rng([seed, 30])
    drawn = str(rng.choice(SUPPORTS, p=CHANCES))
    slope = float(np.clip(rng.normal(0, 0.03), -0.08, 0.08))
    curve = float(rng.choice([0.0, 1 / rng.uniform(280, 500)]))
    pad, side = float(rng.uniform(3, 14)), float(rng.uniform(4, 18))
    y, x, z = _outline(anatomy)
    back = y - slope * z
    middle = float(x.min() + x.max()) / 2
    kind = drawn if kind is None else kind
    touching = float((back + curve * x * x / 2).max()) if kind == "table" else float(back.max())
    height = float(rng.uniform(95, 120))
    return Couch(
        kind=kind,
        slope=slope,
        contact_mm=touching + pad,
        centre_mm=middle,
        half_mm=float(x.max() - x.min()) / 2 + side,
        depth_mm=height,
        ends_mm=float(rng.uniform(0.6, 1.0)) * height,
        curve_per_mm=curve,
        skin_mm=float(rng.uniform(*SKIN_MM)),
        pad_mm=pad,
        core_mm=float(rng.uniform(32, 60)),
        skin_hu=float(rng.uniform(*SKIN_HU)),
        foam_hu=float(rng.uniform(*FOAM_HU)),
    )


def _outline(anatomy: Anatomy) -> tuple[F32, F32, F32]:
    """Points y, x, z of the head in the range that may touch its support, mm."""
    step = 3
    z, y, x = (axis[::step] for axis in anatomy.axes)
    planes = np.flatnonzero((z > LYING_MM[0]) & (z < LYING_MM[1]))
    solid = anatomy.hu[::step, ::step, ::step][planes] > -500
    plane, row, column = np.nonzero(solid)
    return y[row], x[column], z[planes][plane]


class Support:
    """A couch in the slices of a scan.

    Parameters
    ----------
    couch : Couch
    offsets : float32 array [matrix], mm
        Places of rows and columns in a slice.
    tilt_deg : float
        Of the gantry.
    """

    def __init__(self, couch: Couch, offsets: F32, tilt_deg: float) -> None:
        self.couch = couch
        tilt = np.radians(tilt_deg)
        # A row at v of a slice at z lies at y = v cos(tilt) and z - v sin(tilt); the section is told by y - slope * z.
        self._rows = offsets * float(np.cos(tilt) + couch.slope * np.sin(tilt))
        self._low = couch.contact_mm - couch.depth_mm - couch.pad_mm - 4
        lines = np.arange(self._low, couch.contact_mm + couch.core_mm + 6, STEP_MM, dtype=np.float32)
        self._section = _section(couch, lines[:, None], offsets[None].astype(np.float32))

    def over_air(self, z_mm: float) -> tuple[slice, F32]:
        """Rows that the support reaches in the slice whose middle lies at `z_mm`, and its HU over air there."""
        at = (self._rows - np.float32(self.couch.slope * z_mm) - np.float32(self._low)) / np.float32(STEP_MM)
        held = np.flatnonzero((at > 0) & (at < len(self._section) - 1.001))
        if self.couch.kind == "none" or not held.size:
            return slice(0, 0), np.zeros((0, self._section.shape[1]), np.float32)
        base = at[held].astype(np.int64)
        rest = (at[held] - base)[:, None].astype(np.float32)
        lower = self._section[base]
        return slice(int(held[0]), int(held[-1]) + 1), lower + rest * (self._section[base + 1] - lower)


def _section(couch: Couch, y: F32, x: F32) -> F32:
    """HU over air of a support at z = 0, float32 [lines, matrix]."""
    foam, skin = np.float32(couch.foam_hu + 1000), np.float32(couch.skin_hu + 1000)
    half = couch.skin_mm / 2
    if couch.kind == "headrest":
        middle = couch.contact_mm - couch.depth_mm
        across, along = (x - couch.centre_mm) / couch.half_mm, (y - middle) / couch.depth_mm
        # Rather a tub than a half ring; distances are exact at its deepest point.
        level = np.sqrt(np.sqrt((across * across) ** 2 + (along * along) ** 2))
        shell = np.asarray((level - 1) * couch.depth_mm, np.float32)
        inside = np.asarray(soft(couch.contact_mm - couch.ends_mm - y, EDGE_MM), np.float32)
        pad = soft(np.asarray(np.maximum(shell, -shell - couch.pad_mm), np.float32), EDGE_MM) * foam
        wall = soft(np.asarray(np.abs(shell) - half, np.float32), EDGE_MM) * skin
        return np.asarray(np.maximum(pad, wall) * inside, np.float32)
    top = couch.contact_mm - couch.curve_per_mm * x * x / 2
    below = np.asarray(y - top, np.float32)
    bottom = np.asarray(below - couch.core_mm, np.float32)
    solid = soft(np.asarray(np.maximum(-below - couch.pad_mm, bottom), np.float32), EDGE_MM) * foam
    nearest = np.asarray(np.minimum(np.abs(below), np.abs(bottom)) - half, np.float32)
    skins = soft(nearest, EDGE_MM) * skin
    return np.asarray(np.maximum(solid, skins), np.float32)
