"""Small veins, which susceptibility weighting shows: over the cortex, in white matter, and the deep ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.shapes import F32, PointField, chain, near, soft
from edgehem.phantom.tissue import Kind

CORTICAL_MM = 1.1
MEDULLARY_MM = 0.45
"""Radii, before they vary: ours. Medullary veins fill a part of a voxel only."""
_WAVELENGTHS_MM = (38.0, 16.0)
"""Of the sheets whose crossings are the veins: over the cortex, and in white matter."""


def _deep_distance(ax: F32, y: F32, z: F32) -> F32:
    """Signed distance to septal, thalamostriate, internal cerebral and basal veins; ax is |x|, mm."""
    return np.asarray(
        np.minimum.reduce([
            chain(ax, y, z, [(1.5, -20, 11, 0.7), (2.0, 0, 10, 0.9), (1.0, 20, 9, 1.1), (0, 28, 9, 1.6)]),
            chain(ax, y, z, [(1.5, -40, 12, 0.5), (1.2, -28, 12, 0.6), (1.5, -20, 11, 0.7)]),
            chain(ax, y, z, [(16, 10, 17, 0.5), (12, -8, 14, 0.7), (1.8, -18, 11, 0.8)]),
            chain(ax, y, z, [(12, -16, -15, 0.6), (15, 4, -10, 0.8), (8, 22, 2, 1.0), (0, 28, 8, 1.3)]),
        ]),
        np.float32,
    )  # fmt: skip


def _tubes(field_a: F32, field_b: F32, gradient_a: float, gradient_b: float, radius: F32 | float) -> F32:
    """Cover of tubes around the curves on which two fields vanish."""
    distance = np.hypot(field_a / np.float32(gradient_a), field_b / np.float32(gradient_b)) - radius
    return soft(np.asarray(distance, np.float32))


def veins(anatomy: Anatomy, seed: int) -> tuple[npt.NDArray[np.int64], F32]:
    """Voxels that small veins touch, and how much of each they fill: int64 [K] (positions in the block), float32 [K].

    Two smooth random fields vanish on two sets of curved sheets, and both on their crossings, which are curves: the
    veins. Over the cortex they lie in the fluid of the sulci; in white matter they are thin.
    """
    rng = np.random.default_rng([seed, 64])
    t = anatomy.tissue
    share = np.zeros(t.x.shape, np.float32)
    wave, thin = _WAVELENGTHS_MM
    first, second = PointField(rng, wave, waves=7), PointField(rng, wave, waves=7)
    outer = np.flatnonzero((t.depth < 16) & (t.z > -25) & (t.fluid > 0.25) & (t.kind <= Kind.SUBARACHNOID))
    x, y, z = t.x[outer], t.y[outer], t.z[outer]
    # One field is enough where fluid is a sheet already.
    across = np.abs(first(x, y, z)) / np.float32(first.gradient) - CORTICAL_MM * (1 + 0.3 * second(x, y, z))
    share[outer] = 0.9 * soft(np.asarray(across, np.float32), 1.2)
    third, fourth = PointField(rng, thin, waves=6), PointField(rng, thin, waves=6)
    white = np.flatnonzero((t.kind == Kind.PARENCHYMA) & (t.depth > 9) & (t.fluid < 0.1) & (t.z > -5))
    x, y, z = t.x[white], t.y[white], t.z[white]
    medullary = _tubes(third(x, y, z), fourth(x, y, z), third.gradient, fourth.gradient, MEDULLARY_MM)
    share[white] = np.maximum(share[white], 0.6 * medullary)
    deep = near((np.abs(t.x) < 20) & (t.z > -18) & (t.z < 20), _deep, t.x, t.y, t.z)
    share = np.maximum(share, soft(deep, 1.2))
    touched = np.flatnonzero(share > 0.02)
    return t.index[touched], share[touched]


def _deep(x: F32, y: F32, z: F32) -> F32:
    return _deep_distance(np.abs(x), y, z)
