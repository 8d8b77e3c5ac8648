"""Coils: what is transmitted at 3 T is uneven, and what is received is brighter near the elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.shapes import F32

LOOP_MM = 62.0
"""Radius of a receiving loop: ours, about that of an eight-channel head coil."""
COIL_MM = (128.0, 145.0)
"""Half axes of the tube on which the loops lie, across and front to back: ours."""


@dataclass(frozen=True, kw_only=True)
class Coil:
    """Receiving loops around the head, and the unevenness of what is transmitted.

    Parameters
    ----------
    centres : tuple of (x, y, z), mm
        Of the loops, scanner coordinates.
    gains : tuple of float
    normalised : float
        0: as received. 1: the scanner has divided all shading out again; between, a part of it.
    transmit : float
        How much stronger the transmitted field is in the middle of the head than at its edge.
    channels : int
        Receivers whose noise adds up in the sum of squares.
    """

    centres: tuple[tuple[float, float, float], ...]
    gains: tuple[float, ...]
    normalised: float
    transmit: float
    channels: int

    def received(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], z: npt.NDArray[np.float64]) -> F32:
        """Sum of squares of all sensitivities, its root, at points: float32, about 1 in the middle of the head.

        Along its axis the field of a loop of radius R falls as R³ / (R² + d²)^(3/2) (Biot-Savart); the same is taken in
        all directions.
        """
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape))
        middle = 0.0
        for (cx, cy, cz), gain in zip(self.centres, self.gains, strict=True):
            square = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2
            total += gain**2 * (LOOP_MM**2 / (LOOP_MM**2 + square)) ** 3
            middle += gain**2 * (LOOP_MM**2 / (LOOP_MM**2 + cx**2 + cy**2 + cz**2)) ** 3
        return np.asarray(np.sqrt(total / middle), np.float32)

    def transmitted(
        self, index: npt.NDArray[np.int64], axes: tuple[F32, F32, F32], centre: tuple[float, float, float]
    ) -> F32:
        """Transmitted field at voxels, 1 where nominal: float32 [N]. A bell of 70 mm around (z, y, x), ours."""
        bells = [np.exp(-0.5 * ((axis - np.float32(c)) / 70) ** 2) for axis, c in zip(axes, centre, strict=True)]
        plane = bells[1][:, None] * bells[2][None]
        bell = (bells[0][:, None] * plane.reshape(1, -1)).reshape(-1)[index]
        return np.asarray(1 + np.float32(self.transmit) * (bell - np.float32(0.6)), np.float32)


def draw_coil(seed: int, field_t: float) -> Coil:
    """Draw the coil a patient lies in: one quadrature coil, or eight loops combined to four channels (ours)."""
    rng = np.random.default_rng([seed, 61])
    quadrature = rng.random() < 0.15
    turned, lifted = float(rng.uniform(0, np.pi / 4)), float(rng.uniform(-10, 15))
    centres = []
    for number in range(8):
        angle = turned + number * np.pi / 4
        z = lifted + (30.0 if number % 2 else -30.0)
        centres.append((COIL_MM[0] * float(np.cos(angle)), COIL_MM[1] * float(np.sin(angle)), z))
    gains = np.exp(rng.normal(0, 0.15, 8))
    normalised = float(rng.choice([0.0, 0.7, 1.0], p=[0.4, 0.3, 0.3]))
    high = (field_t - 1.5) / 1.5
    return Coil(
        centres=tuple(centres),
        gains=tuple(float(g) for g in gains),
        normalised=1.0 if quadrature else normalised,
        transmit=float(rng.uniform(0.02, 0.06) + high * rng.uniform(0.15, 0.3)),
        channels=1 if quadrature else 4,
    )
