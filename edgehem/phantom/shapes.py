"""Building blocks of the phantom: smooth random fields, solids as signed distances, and soft edges.

Distances are millimetres, negative inside. Everything works on float32 arrays of any shape.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]


def _spline_weights(positions: F32, size: int) -> F32:
    """Cubic B-spline weights of lattice positions, float32 [len(positions), size]."""
    base = np.floor(positions).astype(np.int64)
    t = (positions - base).astype(np.float32)
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((len(positions), size), np.float32)
    rows = np.arange(len(positions))
    for offset, piece in enumerate(pieces):
        np.add.at(weights, (rows, np.clip(base - 1 + offset, 0, size - 1)), piece / 6)
    return weights


class SmoothField:
    """A smooth random field over a box: white noise on a coarse lattice, interpolated by cubic B-splines.

    Parameters
    ----------
    rng : numpy.random.Generator
    axes : three float32 arrays [Z], [Y], [X], mm
        The grid's coordinates; the field is defined on their outer product.
    scale_mm : float
        Distance of lattice nodes: structures are about twice as large.

    Notes
    -----
    Evaluated slab by slab as three small matrix products, which costs a few milliseconds where a gather costs
    tens. Values have zero mean and a standard deviation of about 1.
    """

    def __init__(self, rng: np.random.Generator, axes: tuple[F32, F32, F32], scale_mm: float) -> None:
        sizes = [max(4, int(np.ceil((axis[-1] - axis[0]) / scale_mm)) + 4) for axis in axes]
        self._weights = [
            _spline_weights((axis - axis[0]) / np.float32(scale_mm) + 1.5, size)
            for axis, size in zip(axes, sizes, strict=True)
        ]
        # A cubic B-spline of unit white noise has variance (sum of squared weights)³; 0.479 is its mean over a cell.
        self._lattice = (rng.standard_normal(sizes) / 0.479**1.5).astype(np.float32)

    def slab(self, start: int, stop: int) -> F32:
        """The field on Z indices start..stop: float32 [stop - start, Y, X]."""
        wz, wy, wx = self._weights
        nz, ny, nx = self._lattice.shape
        planes = (wz[start:stop] @ self._lattice.reshape(nz, -1)).reshape(-1, ny, nx)
        return np.asarray(wy @ (planes @ wx.T), np.float32)


class PointField:
    """A smooth random field of arbitrary points: a sum of plane waves with a narrow band of wavelengths.

    Its zero level set is a tangle of curved sheets, which is what sulci look like.
    """

    def __init__(self, rng: np.random.Generator, wavelength_mm: float, waves: int = 9) -> None:
        directions = rng.standard_normal((waves, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength_mm * rng.uniform(0.75, 1.35, (waves, 1))
        self._k = (directions * 2 * np.pi / lengths).astype(np.float32)
        self._phase = rng.uniform(0, 2 * np.pi, waves).astype(np.float32)
        self.gradient = float(2 * np.pi / wavelength_mm)
        """Typical slope of the field per mm: |value| / gradient estimates the distance to the nearest sheet."""

    def __call__(self, x: F32, y: F32, z: F32) -> F32:
        total = np.zeros_like(x)
        for k, phase in zip(self._k, self._phase, strict=True):
            total += np.sin(k[0] * x + k[1] * y + k[2] * z + phase)
        return np.asarray(total * np.float32(np.sqrt(2 / len(self._phase))), np.float32)


def ellipsoid(x: F32, y: F32, z: F32, centre: Triple, radii: Triple) -> F32:
    """Approximate signed distance to an axis-parallel ellipsoid, mm."""
    e = np.sqrt(
        ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 + ((z - centre[2]) / radii[2]) ** 2
    )
    return np.asarray((e - 1) * np.float32(min(radii)), np.float32)


def capsule(x: F32, y: F32, z: F32, a: Triple, b: Triple, radius_a: float, radius_b: float) -> F32:
    """Signed distance to a segment thickened from radius_a to radius_b, mm."""
    ab = [float(q - p) for p, q in zip(a, b, strict=True)]
    t = ((x - a[0]) * ab[0] + (y - a[1]) * ab[1] + (z - a[2]) * ab[2]) / (ab[0] ** 2 + ab[1] ** 2 + ab[2] ** 2)
    t = np.clip(t, 0, 1)
    dx, dy, dz = x - (a[0] + t * ab[0]), y - (a[1] + t * ab[1]), z - (a[2] + t * ab[2])
    return np.asarray(np.sqrt(dx * dx + dy * dy + dz * dz) - (radius_a + t * (radius_b - radius_a)), np.float32)


def chain(x: F32, y: F32, z: F32, points: list[tuple[float, float, float, float]]) -> F32:
    """Signed distance to a string of capsules through points (x, y, z, radius), mm."""
    distance = None
    for a, b in pairwise(points):
        piece = capsule(x, y, z, a[:3], b[:3], a[3], b[3])
        distance = piece if distance is None else np.minimum(distance, piece)
    if distance is None:
        raise ValueError("a chain needs two points")
    return distance


def soft(distance: F32, width: float = 1.0) -> F32:
    """Coverage of a voxel by a solid: 1 inside, 0 outside, a linear ramp `width` mm wide at the surface."""
    return np.asarray(np.clip(0.5 - distance / np.float32(width), 0, 1), np.float32)


def smoothstep(value: F32, low: float, high: float) -> F32:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((value - low) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def near(mask: Bool, solid: Callable[[F32, F32, F32], F32], x: F32, y: F32, z: F32, far: float = 30.0) -> F32:
    """A solid's distance where mask holds, `far` elsewhere: structures are small, and most points are not near."""
    distance = np.full(x.shape, far, np.float32)
    points = np.flatnonzero(mask)
    if points.size:
        distance[points] = solid(x[points], y[points], z[points])
    return distance


def blend(target: F32, value: Any, coverage: F32) -> None:
    """Paint value over target by coverage, in place."""
    target += (value - target) * coverage
