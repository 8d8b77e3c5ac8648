"""How a phantom is scanned, and where its slices lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How a phantom is scanned. Lengths mm, angles degrees, noise HU (standard deviation in the middle of the head).

    Parameters
    ----------
    seed : int
        Of the noise.
    positions : tuple of float
        Slice centres along the slice normal, increasing; 0 is the isocentre.
    thickness_mm : tuple of float
        Of every slice.
    tilt_deg : float
        Gantry tilt: the slice normal leans towards the back by this angle while the table moves along z.
    matrix, fov_mm : int, float
        Square image and its field of view.
    noise_hu : float
    streaks : float
        Strength of streaks where few photons arrive, 0..1.
    drift_hu : float
        Standard deviation of a per-slice offset.
    intercept : int
        Rescale intercept: -1024 (stored unsigned) or 0 (stored signed).
    bits : int
        12 or 16 bits stored.
    padding : int or None
        Stored value outside the circular field of view.
    """

    seed: int
    positions: tuple[float, ...]
    thickness_mm: tuple[float, ...]
    tilt_deg: float = 0.0
    matrix: int = 512
    fov_mm: float = 240.0
    noise_hu: float = 3.5
    streaks: float = 0.5
    drift_hu: float = 0.3
    intercept: int = -1024
    bits: int = 12
    padding: int | None = None


def head_range(anatomy: Anatomy, tilt_deg: float) -> tuple[float, float]:
    """Lowest and highest point of the head along the slice normal, mm."""
    z_axis, y_axis, _ = anatomy.axes
    step = 4
    solid = (anatomy.hu[::step, ::step, ::step] > -300).any(axis=2)
    planes, rows = np.nonzero(solid)
    tilt = np.radians(tilt_deg)
    along = y_axis[::step][rows] * np.sin(tilt) + z_axis[::step][planes] * np.cos(tilt)
    return float(along.min()), float(along.max())


def stack_volume(pixels: npt.NDArray[np.int16], scan: Scan) -> Volume:
    """Stored values [slices, matrix, matrix] with the geometry of their scan."""
    tilt = np.radians(scan.tilt_deg)
    sine, cosine = float(np.sin(tilt)), float(np.cos(tilt))
    pixel_mm = scan.fov_mm / scan.matrix
    corner = float((0 - (scan.matrix - 1) / 2) * pixel_mm)
    positions = np.asarray(scan.positions)
    origin = np.empty((len(positions), 3))
    origin[:, 0] = corner
    origin[:, 1] = corner * cosine
    origin[:, 2] = positions / cosine - corner * sine
    return Volume(
        pixels=pixels,
        slope=np.ones(len(pixels), np.float32),
        intercept=np.full(len(pixels), scan.intercept, np.float32),
        origin=origin,
        row_cosines=np.array([1.0, 0.0, 0.0]),
        column_cosines=np.array([0.0, cosine, -sine]),
        pixel_spacing=(pixel_mm, pixel_mm),
        padding=None if scan.padding is None else (scan.padding, scan.padding),
    )
