"""The scanner: slice profile, point spread, beam hardening, noise, and what the vendor does with the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.beam import GRID, expose
from edgehem.phantom.couch import Couch, Support
from edgehem.phantom.face import AIR_HU
from edgehem.phantom.flaws import Restless, metal_streaks, smear
from edgehem.phantom.optics import Grain, Optics, spread
from edgehem.phantom.scan import Scan, stack_volume
from edgehem.phantom.shapes import F32
from edgehem.volume import Volume

SUB_SLICE_MM = 0.8
"""A slice is a weighted mean of sub-slices this far apart."""
CHUNK = 40
"""Slices that are held at a time: what a longer study needs does not grow with its length."""
STREAK_MM = 60.0
"""Length over which streaks of starved rays hold together (ours)."""
REFERENCE_NOISE = 0.85
"""Noise in the middle of the phantom's heads, 20 cm of water being 1; median of drawn heads: what `noise_hu` means."""


class Sampler:
    """Samples blocks on the planes of a scan, through the point spread or plainly."""

    def __init__(self, anatomy: Anatomy, scan: Scan, optics: Optics) -> None:
        self.axes, self.scan, self.optics = anatomy.axes, scan, optics
        tilt = np.radians(scan.tilt_deg)
        self.sine, self.cosine = float(np.sin(tilt)), float(np.cos(tilt))
        self.pixel_mm = scan.fov_mm / scan.matrix
        self.offsets = (np.arange(scan.matrix) - (scan.matrix - 1) / 2) * self.pixel_mm
        places = self.offsets.astype(np.float32)
        # Lines of the plane as far apart as the block's rows: what is gathered before it is spread.
        self.lines = self.axes[1]
        self.blurred = (spread(optics, places, self.lines), spread(optics, places, self.axes[2]).T.copy())
        self.plain = (_linear(places, self.lines), _linear(places, self.axes[2]).T.copy())

    def _sub_slices(self, thickness: float) -> list[tuple[float, float]]:
        """Offset along the normal and weight of every sub-slice."""
        soft = self.optics.soft_profile
        reach = thickness * (1 + soft)
        count = max(1, int(np.ceil(reach / SUB_SLICE_MM)))
        at = ((np.arange(count) + 0.5) / count - 0.5) * reach
        weight = np.ones(count)
        if soft > 0:
            weight = np.clip((reach / 2 - np.abs(at)) / (soft * thickness), 0, 1)
        return list(zip(at.tolist(), (weight / weight.sum()).tolist(), strict=True))

    def _lines_of(self, block: F32, number: int) -> F32:
        """The slice's profile over the block's rows, float32 [lines, X]."""
        z_axis, y_axis, _ = self.axes
        step_z, step_y = float(z_axis[1] - z_axis[0]), float(y_axis[1] - y_axis[0])
        # The table moves along z, so the plane crosses y = 0 at z = position / cos(tilt).
        centre = self.scan.positions[number] / self.cosine
        out = np.zeros((len(self.lines), block.shape[2]), np.float32)
        last = len(z_axis) - 1.001
        for along, share in self._sub_slices(self.scan.thickness_mm[number]):
            weight = np.float32(share)
            if self.sine == 0:
                at = float(np.clip((centre + along - z_axis[0]) / step_z, 0, last))
                plane, rest = int(at), np.float32(at - int(at))
                out += weight * (1 - rest) * block[plane] + weight * rest * block[plane + 1]
                continue
            y = self.lines * self.cosine + along * self.sine
            z = centre - self.lines * self.sine + along * self.cosine
            fy = np.clip((y - y_axis[0]) / step_y, 0, len(y_axis) - 1.001)
            fz = np.clip((z - z_axis[0]) / step_z, 0, last)
            iy, iz = fy.astype(np.int64), fz.astype(np.int64)
            wy, wz = (fy - iy).astype(np.float32)[:, None], (fz - iz).astype(np.float32)[:, None] * weight
            out += (weight - wz) * (block[iz, iy] + wy * (block[iz, iy + 1] - block[iz, iy]))
            out += wz * (block[iz + 1, iy] + wy * (block[iz + 1, iy + 1] - block[iz + 1, iy]))
        return out

    def image(self, block: F32, number: int) -> F32:
        """One slice of a head as the detector sees it, float32 [matrix, matrix] HU."""
        rows, columns = self.blurred
        return np.asarray(rows @ (self._lines_of(block, number) - np.float32(AIR_HU)) @ columns + AIR_HU, np.float32)

    def share(self, block: F32, number: int) -> F32:
        """One slice of a block of shares, not blurred, float32 [matrix, matrix]."""
        rows, columns = self.plain
        return np.asarray(rows @ self._lines_of(block, number) @ columns, np.float32)

    def labels(self, block: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.uint8]:
        """Labels in the middle of a slice, uint8 [matrix, matrix]."""
        z_axis, y_axis, x_axis = self.axes
        centre = self.scan.positions[number] / self.cosine
        iz, _ = _nearest(z_axis, centre - self.offsets * self.sine)
        iy, within = _nearest(y_axis, self.offsets * self.cosine)
        ix, across = _nearest(x_axis, self.offsets)
        out: npt.NDArray[np.uint8] = block[iz, iy][:, ix]
        out *= (within[:, None] & across[None]).astype(np.uint8)
        return out

    def touches(self, number: int, planes: npt.NDArray[np.int64]) -> bool:
        """Whether a slice may cross any of the block's planes."""
        z_axis = self.axes[0]
        if not planes.size:
            return False
        half = self.scan.thickness_mm[number] + abs(self.sine) * 125
        centre = self.scan.positions[number] / self.cosine
        return bool(z_axis[planes[0]] - 2 < centre + half and z_axis[planes[-1]] + 2 > centre - half)


def _nearest(axis: F32, places: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Nearest sample of an evenly spaced axis for every place, and which places lie on the axis at all."""
    at = np.rint((places - axis[0]) / (axis[1] - axis[0])).astype(np.int64)
    return np.clip(at, 0, len(axis) - 1), (at >= 0) & (at < len(axis))


def _linear(places: F32, samples: F32) -> F32:
    """Weights of linear interpolation, float32 [places, samples]; nothing outside."""
    step = float(samples[1] - samples[0])
    return np.asarray(np.clip(1 - np.abs(places[:, None] - samples[None]) / step, 0, None), np.float32)


def _cells(matrix: int) -> tuple[F32, F32]:
    """Weights that average a line of pixels into cells, [GRID, matrix], and that interpolate back, [matrix, GRID]."""
    edges = np.linspace(0, matrix, GRID + 1)
    pixel = np.arange(matrix)
    inside = np.clip(np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None]), 0, None)
    down = np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)
    at = np.clip((pixel + 0.5) * GRID / matrix - 0.5, 0, GRID - 1)
    return down, np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(GRID)[None]), 0, None), np.float32)


def _streaks(rng: np.random.Generator, scan: Scan, pixel_mm: float) -> F32:
    """Unit noise that runs along rows, as where few photons arrive from the sides: float32 [matrix, matrix]."""
    width = max(1, round(STREAK_MM / pixel_mm))
    running = np.cumsum(rng.standard_normal((scan.matrix, scan.matrix + width), np.float32), axis=1)
    return np.asarray((running[:, width:] - running[:, :-width]) / np.float32(np.sqrt(width)), np.float32)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What a scan gives.

    Parameters
    ----------
    volume : Volume
        Stored values, as the vendor in the scan would write them.
    mask : uint8 array [slices, matrix, matrix]
        1 + index of the label in `coverage`, or 0.
    found : uint8 array [slices, matrix, matrix] or None
        Labels in the middle of every slice.
    visible : dict of label to float
        Volume inside the scanned slices, mL.
    """

    volume: Volume
    mask: npt.NDArray[np.uint8]
    found: npt.NDArray[np.uint8] | None
    visible: dict[str, float]


def acquire(
    anatomy: Anatomy,
    hu: F32,
    coverage: Mapping[str, F32],
    scan: Scan,
    optics: Optics,
    couch: Couch,
    *,
    found: npt.NDArray[np.uint8] | None = None,
    motion_mm: float = 0.0,
) -> Exposure:
    """Scan a head.

    Parameters
    ----------
    anatomy : Anatomy
    hu : float32 array [Z, Y, X]
        The block to scan: the anatomy's own, or one that has bled.
    coverage : mapping of label to float32 array [Z, Y, X]
        What to mark in the mask: the first label becomes 1, the second 2, ... where it fills half a voxel or more.
    scan : Scan
        Its `noise_hu` is the noise in the middle of a head of median attenuation.
    optics : Optics
    couch : Couch
    found : uint8 array [Z, Y, X], optional
        Labels of what is neither tissue nor blood.
    motion_mm : float
        How far the head moves: see :class:`edgehem.phantom.flaws.Restless`. The mask shows where it was before.

    Returns
    -------
    Exposure
    """
    sampler = Sampler(anatomy, scan, optics)
    rng = np.random.default_rng([scan.seed, 24])
    grain = Grain(optics, scan.matrix, sampler.pixel_mm)
    shape = (len(scan.positions), scan.matrix, scan.matrix)
    pixels, mask = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    support = Support(couch, sampler.offsets.astype(np.float32), scan.tilt_deg)
    labels = np.zeros(shape if found is not None else (0, 0, 0), np.uint8)
    labelled = np.flatnonzero([] if found is None else found.any(axis=(1, 2)))
    lowest, highest = (-1024, 3071) if scan.bits == 12 else (-2000, 20000)
    outside = np.hypot(sampler.offsets[:, None], sampler.offsets[None]) > scan.fov_mm / 2
    visible = dict.fromkeys(coverage, 0.0)
    planes = {name: np.flatnonzero(block.any(axis=(1, 2))) for name, block in coverage.items()}
    restless = Restless(motion_mm, scan.seed) if motion_mm > 0 else None
    down, up = _cells(scan.matrix)
    images = np.empty((min(CHUNK, shape[0]), *shape[1:]), np.float32)
    for first in range(0, shape[0], CHUNK):
        numbers = range(first, min(first + CHUNK, shape[0]))
        for slot, number in enumerate(numbers):
            images[slot] = sampler.image(hu, number)
        held = images[: len(numbers)]
        coarse = np.stack([down @ image @ down.T for image in held])  # [N, GRID, GRID] HU
        artefact, unevenness = expose(coarse, scan.fov_mm / GRID)
        for slot, number in enumerate(numbers):
            image = held[slot]
            image += up @ (artefact[slot] * np.float32(optics.hardening)) @ up.T
            image += metal_streaks(image, sampler.pixel_mm, scan.seed + number)
            if restless is not None:
                image[:] = smear(image, restless.during_a_slice(), sampler.pixel_mm)
            rows, over_air = support.over_air(scan.positions[number] / sampler.cosine)
            np.maximum(image[rows], AIR_HU + over_air, out=image[rows])
            middle = unevenness[slot, GRID // 2 - 8 : GRID // 2 + 8, GRID // 2 - 8 : GRID // 2 + 8].mean()
            relative = unevenness[slot] / REFERENCE_NOISE * (REFERENCE_NOISE / middle) ** optics.modulation
            level = up @ (scan.noise_hu * np.minimum(relative, 8).astype(np.float32)) @ up.T
            image += grain.draw(rng) * level
            starved = np.clip(level - np.float32(1.2 * scan.noise_hu), 0, 2 * scan.noise_hu)  # HU
            if scan.streaks > 0 and starved.max() > 0.3 * scan.noise_hu:
                image += np.float32(0.6 * scan.streaks) * starved * _streaks(rng, scan, sampler.pixel_mm)
            image += np.float32(scan.drift_hu * rng.standard_normal())
            stored = np.rint(np.clip(image, lowest, highest)).astype(np.int32) - scan.intercept
            if scan.padding is not None:
                stored[outside] = scan.padding
            pixels[number] = stored
            for value, (name, block) in enumerate(coverage.items(), start=1):
                if not sampler.touches(number, planes[name]):
                    continue
                share = sampler.share(block, number)
                mask[number][share >= 0.5] = value
                area = sampler.pixel_mm**2
                visible[name] += float(share.sum(dtype=np.float64)) * area * scan.thickness_mm[number] / 1000
            if found is not None and sampler.touches(number, labelled):
                labels[number] = sampler.labels(found, number)
    return Exposure(
        volume=stack_volume(pixels, scan), mask=mask, found=None if found is None else labels, visible=visible
    )
