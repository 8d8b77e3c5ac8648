"""A CT scanner for phantoms: slices through a block, with partial volume, tilt, noise and vendors' habits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.face import AIR_HU
from edgehem.phantom.flaws import Restless, metal_streaks, smear
from edgehem.phantom.shapes import F32, soft
from edgehem.volume import Volume

SUB_SLICE_MM = 1.25
"""Thick slices are averages of sub-slices this far apart: true partial volume, not interpolation."""


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
    noise_hu, sharpness : float
        Noise level, and the kernel's cut-off in cycles per mm (0.3 soft ... 0.8 sharp).
    streaks : float
        Strength of streaks and dark bands between dense bones, 0..1.
    drift_hu : float
        Standard deviation of a per-slice offset.
    intercept : int
        Rescale intercept: -1024 (stored unsigned) or 0 (stored signed).
    bits : int
        12 or 16 bits stored.
    padding : int or None
        Stored value outside the circular field of view.
    headrest : bool
    """

    seed: int
    positions: tuple[float, ...]
    thickness_mm: tuple[float, ...]
    tilt_deg: float = 0.0
    matrix: int = 512
    fov_mm: float = 240.0
    noise_hu: float = 3.5
    sharpness: float = 0.5
    streaks: float = 0.5
    drift_hu: float = 0.3
    intercept: int = -1024
    bits: int = 12
    padding: int | None = None
    headrest: bool = True


def head_range(anatomy: Anatomy, tilt_deg: float) -> tuple[float, float]:
    """Lowest and highest point of the head along the slice normal, mm."""
    z_axis, y_axis, _ = anatomy.axes
    step = 4
    solid = (anatomy.hu[::step, ::step, ::step] > -300).any(axis=2)
    planes, rows = np.nonzero(solid)
    tilt = np.radians(tilt_deg)
    along = y_axis[::step][rows] * np.sin(tilt) + z_axis[::step][planes] * np.cos(tilt)
    return float(along.min()), float(along.max())


class _Sampler:
    """Samples blocks on the planes of a scan.

    The block is aligned with the scanner and the gantry tilts about x only, so a slice row is a weighted sum of four
    block rows: whole rows are gathered, and columns are interpolated by one matrix product.
    """

    def __init__(self, anatomy: Anatomy, scan: Scan) -> None:
        self.axes, self.scan = anatomy.axes, scan
        tilt = np.radians(scan.tilt_deg)
        self.sine, self.cosine = float(np.sin(tilt)), float(np.cos(tilt))
        self.pixel_mm = scan.fov_mm / scan.matrix
        self.offsets = (np.arange(scan.matrix) - (scan.matrix - 1) / 2) * self.pixel_mm
        x_axis = self.axes[2]
        at = (self.offsets - x_axis[0]) / (x_axis[1] - x_axis[0])
        base = np.floor(at).astype(np.int64)
        weights = np.zeros((len(x_axis), scan.matrix), np.float32)
        for shift, value in ((0, 1 - (at - base)), (1, at - base)):
            column = base + shift
            ok = (column >= 0) & (column < len(x_axis))
            np.add.at(weights, (column[ok], np.flatnonzero(ok)), value[ok])
        self.columns = weights

    def slice(self, block: F32, number: int, background: float) -> F32:
        """One slice of a block, averaged over its thickness: float32 [matrix, matrix]."""
        z_axis, y_axis, _ = self.axes
        scan = self.scan
        thickness = scan.thickness_mm[number]
        count = max(1, int(np.ceil(thickness / SUB_SLICE_MM)))
        rows = np.zeros((scan.matrix, block.shape[2]), np.float32)
        # The table moves along z, so the plane crosses y = 0 at z = position / cos(tilt).
        centre = scan.positions[number] / self.cosine
        for k in range(count):
            along = ((k + 0.5) / count - 0.5) * thickness
            y = self.offsets * self.cosine + along * self.sine
            z = centre - self.offsets * self.sine + along * self.cosine
            fy = np.clip((y - y_axis[0]) / (y_axis[1] - y_axis[0]), 0, len(y_axis) - 1.001)
            fz = np.clip((z - z_axis[0]) / (z_axis[1] - z_axis[0]), 0, len(z_axis) - 1.001)
            iy, iz = fy.astype(np.int64), fz.astype(np.int64)
            wy, wz = (fy - iy).astype(np.float32)[:, None], (fz - iz).astype(np.float32)[:, None]
            rows += (1 - wz) * ((1 - wy) * block[iz, iy] + wy * block[iz, iy + 1])
            rows += wz * ((1 - wy) * block[iz + 1, iy] + wy * block[iz + 1, iy + 1])
        rows /= count
        return np.asarray((rows - background) @ self.columns + background, np.float32)


def _noise(rng: np.random.Generator, scan: Scan) -> F32:
    """Correlated noise of unit variance: white noise through the ramp and the kernel's roll-off, [matrix, matrix]."""
    white = rng.standard_normal((scan.matrix, scan.matrix), np.float32)
    pixel = scan.fov_mm / scan.matrix
    fy = np.fft.fftfreq(scan.matrix, pixel).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(scan.matrix, pixel).astype(np.float32)[None]
    frequency = np.hypot(fy, fx)
    response = np.sqrt(frequency + np.float32(0.02)) * np.exp(-((frequency / scan.sharpness) ** 2))
    shaped = np.fft.irfft2(np.fft.rfft2(white) * response, s=white.shape)
    return np.asarray(shaped / shaped.std(), np.float32)


STREAK_MM = 60.0
"""Length over which streaks between dense bones hold together."""


def _streaks(rng: np.random.Generator, sampler: _Sampler, bone: F32, grid: F32) -> F32:
    """Streaks along the rows that cross much bone, and the dark band between the petrous bones: HU [matrix, matrix]."""
    scan = sampler.scan
    width = max(1, round(STREAK_MM / sampler.pixel_mm))
    box = np.full(width, 1 / np.sqrt(width), np.float32)
    long = np.stack([np.convolve(row, box, "same") for row in rng.standard_normal((8, scan.matrix))])
    lines = rng.standard_normal((scan.matrix, 1), np.float32) + 0.6 * long[rng.integers(0, 8, scan.matrix)]
    band = 5 * np.exp(-((grid / 45) ** 2))
    return np.asarray(scan.streaks * np.clip(bone - 0.35, 0, 1.2) * (2.5 * lines - band), np.float32)


def headrest(scan: Scan, rng: np.random.Generator) -> F32:
    """A thin curved cradle behind the head: HU over air, float32 [matrix, matrix]."""
    offsets = (np.arange(scan.matrix) - (scan.matrix - 1) / 2) * scan.fov_mm / scan.matrix
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    half, depth = float(rng.uniform(96, 112)), float(rng.uniform(112, 122))
    shell = (np.sqrt(np.sqrt((x / half) ** 4 + (y / depth) ** 4)) - 1) * half
    shell = np.where(y > float(rng.uniform(-20, 30)), np.abs(shell) - 1.2, 9)
    return np.asarray(soft(shell.astype(np.float32)) * float(rng.uniform(600, 1150)), np.float32)


def acquire(
    anatomy: Anatomy, hu: F32, coverage: Mapping[str, F32], scan: Scan, *, motion_mm: float = 0.0
) -> tuple[Volume, npt.NDArray[np.uint8], dict[str, float]]:
    """Scan a head.

    Parameters
    ----------
    anatomy : Anatomy
    hu : float32 array [Z, Y, X]
        The block to scan: the anatomy's own, or one that has bled.
    coverage : mapping of label to float32 array [Z, Y, X]
        What to mark in the mask: the first label becomes 1, the second 2, ... where it fills half a voxel or more.
    scan : Scan
    motion_mm : float
        How far the head moves: see :class:`edgehem.phantom.flaws.Restless`. The mask shows where it was before.

    Returns
    -------
    volume : Volume
        Stored values, as the vendor in `scan` would write them.
    mask : uint8 array [slices, matrix, matrix]
    visible : dict of label to float
        Volume inside the scanned slices, mL.
    """
    rng = np.random.default_rng([scan.seed, 5])
    sampler = _Sampler(anatomy, scan)
    shape = (len(scan.positions), scan.matrix, scan.matrix)
    pixels, mask = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    rest = headrest(scan, rng) if scan.headrest else np.float32(0)
    lowest, highest = (-1024, 3071) if scan.bits == 12 else (-2000, 20000)
    grid = np.hypot(sampler.offsets[:, None], sampler.offsets[None])
    outside = grid > scan.fov_mm / 2
    visible = dict.fromkeys(coverage, 0.0)
    restless = Restless(motion_mm, scan.seed) if motion_mm > 0 else None
    for number in range(shape[0]):
        image = sampler.slice(hu, number, AIR_HU)
        image += metal_streaks(image, sampler.pixel_mm, scan.seed + number)
        if restless is not None:
            image = smear(image, restless.during_a_slice(), sampler.pixel_mm)
        bone = np.clip(image - 250, 0, 1200).mean(axis=1, keepdims=True) / 220  # dense bone crossed by each row
        level = scan.noise_hu * (0.55 + 0.45 * np.exp(-((grid / 95) ** 2))) * (1 + scan.streaks * np.minimum(bone, 1.5))
        noise = _noise(rng, scan) * level
        if scan.streaks > 0:
            noise += _streaks(rng, sampler, bone, grid) * (image > -300)
        image = np.maximum(image, AIR_HU + rest) + noise + scan.drift_hu * rng.standard_normal()
        stored = np.rint(np.clip(image, lowest, highest)).astype(np.int32) - scan.intercept
        if scan.padding is not None:
            stored[outside] = scan.padding
        pixels[number] = stored
        for value, (name, block) in enumerate(coverage.items(), start=1):
            share = sampler.slice(block, number, 0.0)
            mask[number][share >= 0.5] = value
            visible[name] += float(share.sum(dtype=np.float64)) * sampler.pixel_mm**2 * scan.thickness_mm[number] / 1000
    return stack_volume(pixels, scan), mask, visible


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
