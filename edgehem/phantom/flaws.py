"""What spoils a head CT, or changes the head before it: metal, surgery, contrast, and a patient who moves.

No phantom has any of it unless asked to: the intake's gates are judged with these, and no network is trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy, rotation
from edgehem.phantom.face import AIR_HU
from edgehem.phantom.shapes import F32, Triple, blend, capsule, ellipsoid, soft

METAL_HU = 8000.0
"""Titanium at 120 kV; steel, cobalt and amalgam lie higher. Scanners clip it at the top of their scale."""
METAL_FROM_HU = 3500.0
"""No bone or enamel is as dense: what is, throws streaks."""
STREAK_HU = 300.0
"""Streaks at the surface of a piece of metal 10 mm across; they fall with distance."""
SECTORS = 24
"""Parts of a rotation in which a moving head is taken to stand still."""


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What is wrong; nothing by default. Lengths mm.

    Parameters
    ----------
    clip_mm : float
        Length of an aneurysm clip at the middle cerebral artery.
    plate_mm : float
        Diameter of a titanium plate, 1.2 mm thick, on the vault.
    fillings : int
        Teeth filled with metal: they lie below the brain.
    craniotomy_mm : float
        Diameter of a hole in the vault.
    air_ml : float
        Air under the vault, at the forehead.
    contrast_hu : float
        What arteries, veins, sinuses and choroid plexus measure after contrast (0: none was given).
    motion_mm : float
        How far the head moves within the slices' plane; it moves during every second slice, and stays there.
    """

    clip_mm: float = 0.0
    plate_mm: float = 0.0
    fillings: int = 0
    craniotomy_mm: float = 0.0
    air_ml: float = 0.0
    contrast_hu: float = 0.0
    motion_mm: float = 0.0


def alter(anatomy: Anatomy, hu: F32, flaws: Flaws, seed: int) -> F32:
    """Put metal, surgery and air into a head that may have bled.

    Parameters
    ----------
    anatomy : Anatomy
    hu : float32 array [Z, Y, X]
        Not modified.
    flaws : Flaws
    seed : int
        Of the places.

    Returns
    -------
    float32 array [Z, Y, X], HU
    """
    rng = np.random.default_rng([seed, 8])
    head, out = anatomy.head, hu.copy()
    side = 1.0 if rng.random() < 0.5 else -1.0
    # A place on the vault, in head coordinates: parietal, above the temporal muscle.
    direction = np.array([side * 0.9, float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.35, 0.7))])
    direction /= np.linalg.norm(direction)
    z, y, x = (points.astype(np.float32) for points in _head_coordinates(anatomy))
    along = direction[0] * x + direction[1] * y + direction[2] * z
    across = np.sqrt(np.clip(x * x + y * y + z * z - along * along, 0, None))
    if flaws.craniotomy_mm > 0:
        out[(along > 0) & (across < flaws.craniotomy_mm / 2) & (out > 130)] = 45.0
    if flaws.plate_mm > 0:
        shell = np.sqrt((x / head.half_width) ** 2 + (y / head.half_length) ** 2 + (z / head.height) ** 2) - 1
        shell = shell * (along + 1e-3) - head.skull_mm - 1
        blend(out, METAL_HU, soft(np.abs(shell) - 0.6) * (along > 0) * (across < flaws.plate_mm / 2))
    if flaws.clip_mm > 0:
        start: Triple = (side * 22, -24, -16 + 4)
        end: Triple = (side * 22, -24 - 0.7 * flaws.clip_mm, -12 + 0.7 * flaws.clip_mm)
        blend(out, METAL_HU, soft(capsule(x, y, z, start, end, 1.2, 1.6)))
    for number in range(flaws.fillings):
        tooth: Triple = (side * (-1) ** number * (22 + 2 * (number // 2)), -52 - 9 * (number // 2), -88)
        blend(out, 2 * METAL_HU, soft(ellipsoid(x, y, z, tooth, (3.5, 3.5, 2.5))))
    if flaws.air_ml > 0:
        out.reshape(-1)[_foremost(anatomy, flaws.air_ml)] = AIR_HU
    return out


def _head_coordinates(anatomy: Anatomy) -> tuple[npt.NDArray[np.float64], ...]:
    """Head coordinates z, y, x of every voxel of a block, mm, without its small warp."""
    zz, yy, xx = np.meshgrid(*anatomy.axes, indexing="ij", sparse=True)
    offset = anatomy.head.offset
    moved = (xx - offset[0], yy - offset[1], zz - offset[2])
    x, y, z = (row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2] for row in rotation(anatomy.head).T)
    return z, y, x


def _foremost(anatomy: Anatomy, ml: float) -> npt.NDArray[np.int64]:
    """The points inside the vault that air rises to in a patient on the back."""
    t = anatomy.tissue
    vault = np.flatnonzero(t.z > 5)
    # In scanner coordinates "up" is to the front: the block's second index.
    row = (t.index[vault] // len(anatomy.axes[2])) % len(anatomy.axes[1])
    count = min(len(vault), round(ml / anatomy.voxel_ml))
    return np.asarray(t.index[vault[np.argsort(row, kind="stable")[:count]]], np.int64)


def metal_streaks(image: F32, pixel_mm: float, seed: int) -> F32:
    """Bright and dark streaks that run out of the metal in a slice: HU to add, float32 [Y, X]."""
    rows, columns = np.nonzero(image > METAL_FROM_HU)
    out = np.zeros_like(image)
    if not rows.size:
        return out
    rng = np.random.default_rng([seed, 9])
    y, x = np.meshgrid(np.arange(image.shape[0]), np.arange(image.shape[1]), indexing="ij", sparse=True)
    for side in (columns < columns.mean(), columns >= columns.mean()):
        if not side.any():
            continue
        down, right = (y - rows[side].mean()) * pixel_mm, (x - columns[side].mean()) * pixel_mm
        size = np.sqrt(side.sum()) * pixel_mm
        rays = np.interp(np.arange(360), np.arange(0, 360, 6), rng.standard_normal(60))
        angle = np.degrees(np.arctan2(down, right)).astype(np.int64) % 360
        out += STREAK_HU * size / 10 * rays[angle] * np.minimum(1, 12 / (np.hypot(down, right) + 4))
    return np.asarray(out * (image > -900), np.float32)


class Restless:
    """Where a moving head is, slice after slice.

    Parameters
    ----------
    motion_mm : float
        Largest distance from its first place.
    seed : int
    """

    def __init__(self, motion_mm: float, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 10])
        self._motion_mm = motion_mm
        self._place = np.zeros(2)

    def during_a_slice(self) -> npt.NDArray[np.float64]:
        """Place of the head (down, right) in each part of the next rotation, float64 [SECTORS, 2] mm."""
        start, goal, rng = self._place, self._place, self._rng
        if rng.random() < 0.5:
            angle, reach = rng.uniform(0, 2 * np.pi), self._motion_mm * rng.uniform(0.5, 1)
            goal = reach * np.array([np.sin(angle), np.cos(angle)])
        self._place = goal
        moment = rng.uniform(0.2, 0.8) * SECTORS
        share = np.clip((np.arange(SECTORS) - moment) / 4 + 0.5, 0, 1)[:, None]
        return np.asarray(start + share * (goal - start))


def smear(image: F32, places: npt.NDArray[np.float64], pixel_mm: float) -> F32:
    """A slice of a head that moved while the gantry turned.

    Parallel projections from one direction are one line of the image's Fourier transform: each sector of directions
    shows the head where it was then.

    Parameters
    ----------
    image : float32 array [Y, X], HU
    places : float64 array [sectors, 2], mm
        Displacement (down, right) in each sector of half a rotation.
    pixel_mm : float

    Returns
    -------
    float32 array [Y, X], HU
    """
    fy = np.fft.fftfreq(image.shape[0], pixel_mm)[:, None]
    fx = np.fft.fftfreq(image.shape[1], pixel_mm)[None]
    sector = np.floor((np.arctan2(fy, fx) % np.pi) / np.pi * len(places)).astype(np.int64) % len(places)
    phase = fy * places[sector, 0] + fx * places[sector, 1]
    moved = np.fft.ifft2(np.fft.fft2(image - AIR_HU) * np.exp(-2j * np.pi * phase)).real + AIR_HU
    return np.asarray(moved, np.float32)
