"""An MR scanner for phantoms: slices, coils, a truncated k-space, noise, motion, and the filter of SWI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.mr_coil import Coil
from edgehem.phantom.shapes import F32

C64 = npt.NDArray[np.complex64]
Float64 = npt.NDArray[np.float64]
SUB_SLICE_MM = 1.0
"""Slices are averages of sub-slices this far apart or less: partial volume, and dephasing through the slice."""
PROFILE = (0.75, 1.25)
"""The slice profile falls from 1 to 0 between these multiples of half the slice thickness: ours."""
HOMODYNE_SHARE = 0.2
"""Width of the low-pass filter of SWI as a share of the matrix, 64 of 320: ours."""
PHASE_MASK_POWER = 4
"""How often the phase mask is multiplied in (Haacke et al., Magnetic Resonance in Medicine 2004;52:612-8)."""


@dataclass(frozen=True, kw_only=True)
class MrScan:
    """How a head is scanned. Lengths mm, angles degrees.

    Parameters
    ----------
    positions : tuple of float
        Slice centres along the slice normal, increasing; 0 is the isocentre.
    thickness_mm : float
    tilt_deg : float
        The slice normal leans towards the back by this angle, and the stack advances along it (oblique to x).
    matrix : int
        Rows and columns of the image.
    lines : int
        Phase-encoding steps, left to right; what is missing to `matrix` is filled with zeros.
    fov_mm : float
    centre_mm : tuple of float
        Centre of the field of view along a row and along a column, from the isocentre.
    noise : float
        Standard deviation of the real part of a channel's noise, in units of the signal.
    apodisation : float
        0: k-space ends abruptly. 1: as a Hann window. Takes the edge off Gibbs ringing.
    motion_mm : float
        How far the head moves during the scan; 0 for a patient who lies still.
    motion_lines : float
        Period of the movement, in lines.
    coil : Coil
    seed : tuple of int
        Of the noise.
    """

    positions: tuple[float, ...]
    thickness_mm: float
    tilt_deg: float
    matrix: int
    lines: int
    fov_mm: float
    centre_mm: tuple[float, float]
    noise: float
    apodisation: float
    motion_mm: float
    motion_lines: float
    coil: Coil
    seed: tuple[int, ...]

    @property
    def pixel_mm(self) -> float:
        """Edge of a pixel, mm."""
        return self.fov_mm / self.matrix

    @property
    def origins(self) -> Float64:
        """Centre of the first pixel of every slice, LPS: float64 [slices, 3]."""
        tilt = np.radians(self.tilt_deg)
        corner = -(self.matrix - 1) / 2 * self.pixel_mm
        along, at = corner + self.centre_mm[1], np.asarray(self.positions)
        return np.stack(
            [
                np.full(at.shape, corner + self.centre_mm[0]),
                along * np.cos(tilt) + at * np.sin(tilt),
                -along * np.sin(tilt) + at * np.cos(tilt),
            ],
            axis=1,
        )


class Slicer:
    """Samples blocks on the planes of a scan.

    Slices tilt about x only, so a row of a slice is a weighted sum of four rows of the block: whole rows are gathered,
    and columns are interpolated by one matrix product.

    Parameters
    ----------
    axes : three float32 arrays [Z], [Y], [X], mm
    scan : MrScan
    """

    def __init__(self, axes: tuple[F32, F32, F32], scan: MrScan) -> None:
        self.axes, self.scan = axes, scan
        tilt = np.radians(scan.tilt_deg)
        self.sine, self.cosine = float(np.sin(tilt)), float(np.cos(tilt))
        offsets = (np.arange(scan.matrix) - (scan.matrix - 1) / 2) * scan.pixel_mm
        self.x, self.v = offsets + scan.centre_mm[0], offsets + scan.centre_mm[1]
        x_axis = axes[2]
        at = (self.x - x_axis[0]) / (x_axis[1] - x_axis[0])
        base = np.floor(at).astype(np.int64)
        self.columns = np.zeros((len(x_axis), scan.matrix), np.float32)
        for shift, value in ((0, 1 - (at - base)), (1, at - base)):
            column = base + shift
            ok = (column >= 0) & (column < len(x_axis))
            self.columns[column[ok], np.flatnonzero(ok)] += value[ok]
        reach = PROFILE[1] * scan.thickness_mm / 2
        count = max(1, int(np.ceil(2 * reach / SUB_SLICE_MM)))
        self.along = ((np.arange(count) + 0.5) / count * 2 - 1) * reach
        profile = np.clip((reach - np.abs(self.along)) / (reach - PROFILE[0] * scan.thickness_mm / 2), 0, 1)
        self.weights = profile / profile.sum()

    def place(self, position: float) -> tuple[Float64, Float64]:
        """y and z of the rows of a slice: float64 [matrix], twice."""
        y, z = self.v * self.cosine + position * self.sine, -self.v * self.sine + position * self.cosine
        return np.asarray(y, np.float64), np.asarray(z, np.float64)

    def slice(self, block: C64 | F32, number: int) -> C64 | F32:
        """One slice of a block, averaged over its profile: [matrix, matrix], in the block's dtype; 0 outside."""
        z_axis, y_axis, _ = self.axes
        rows = np.zeros((self.scan.matrix, block.shape[2]), block.dtype)
        for along, weight in zip(self.along, self.weights, strict=True):
            y, z = self.place(self.scan.positions[number] + float(along))
            fy, fz = (y - y_axis[0]) / (y_axis[1] - y_axis[0]), (z - z_axis[0]) / (z_axis[1] - z_axis[0])
            ok = np.flatnonzero((fy >= 0) & (fy < len(y_axis) - 1) & (fz >= 0) & (fz < len(z_axis) - 1))
            iy, iz = fy[ok].astype(np.int64), fz[ok].astype(np.int64)
            wy, wz = (fy[ok] - iy).astype(np.float32)[:, None], (fz[ok] - iz).astype(np.float32)[:, None]
            part = (1 - wz) * ((1 - wy) * block[iz, iy] + wy * block[iz, iy + 1])
            part += wz * ((1 - wy) * block[iz + 1, iy] + wy * block[iz + 1, iy + 1])
            rows[ok] += np.float32(weight) * part
        if np.iscomplexobj(rows):
            out = np.empty((self.scan.matrix, self.scan.matrix), np.complex64)
            out.real, out.imag = rows.real @ self.columns, rows.imag @ self.columns
            return out
        return np.asarray(rows @ self.columns, np.float32)

    def shading(self, number: int) -> F32:
        """What the coil receives at a slice, [matrix, matrix]: computed on every eighth pixel and interpolated."""
        coarse = np.linspace(0, self.scan.matrix - 1, self.scan.matrix // 8 + 1)
        every = np.arange(self.scan.matrix, dtype=np.float64)
        y, z = self.place(self.scan.positions[number])
        y, z, x = (np.interp(coarse, every, values) for values in (y, z, self.x))
        knots = self.scan.coil.received(x[None], y[:, None], z[:, None])
        tent = np.clip(1 - np.abs(every[:, None] - coarse[None]) / (coarse[1] - coarse[0]), 0, 1).astype(np.float32)
        return np.asarray(tent @ knots @ tent.T, np.float32)


def _frequencies(scan: MrScan) -> Float64:
    """Spatial frequencies of rows, and of columns, in FFT order: cycles per field of view, [matrix]."""
    return np.asarray(np.fft.fftfreq(scan.matrix, 1 / scan.matrix), np.float64)


def window(scan: MrScan) -> F32:
    """What is kept of k-space: rows are frequency-encoded, columns phase-encoded. float32 [matrix, matrix]."""
    frequencies = _frequencies(scan)

    def taper(frequency: Float64, extent: float) -> Float64:
        inside = np.abs(frequency) < extent / 2
        hann = 0.5 + 0.5 * np.cos(2 * np.pi * frequency / extent)
        return inside * (1 - scan.apodisation + scan.apodisation * hann)

    return np.asarray(taper(frequencies, scan.matrix)[:, None] * taper(frequencies, scan.lines)[None], np.float32)


def _movement(scan: MrScan) -> C64 | None:
    """Factor of k-space of a head that swings while the lines are read one after the other, [matrix, matrix]."""
    if scan.motion_mm <= 0:
        return None
    frequencies = _frequencies(scan)
    time = frequencies + scan.matrix / 2  # lines are read from one end to the other
    swing = scan.motion_mm * np.sin(2 * np.pi * time / scan.motion_lines) / scan.fov_mm
    turns = frequencies[:, None] * swing[None] + 0.5 * (frequencies * swing)[None]
    return np.asarray(np.exp(-2j * np.pi * turns), np.complex64)


def homodyne(image: C64) -> F32:
    """Phase of an image without what is smooth in it, radians: float32 [rows, columns].

    The image is divided by its own low-pass filtered copy (Noll, Nishimura and Macovski, IEEE Trans Med Imaging
    1991;10:154-63).
    """
    size = image.shape[0]
    frequency = np.fft.fftfreq(size, 1 / size) / (HOMODYNE_SHARE * size / 2)
    hann = np.where(np.abs(frequency) < 1, 0.5 + 0.5 * np.cos(np.pi * np.clip(frequency, -1, 1)), 0).astype(np.float32)
    smooth = np.fft.ifft2(np.fft.fft2(image) * (hann[:, None] * hann[None]))
    return np.asarray(np.angle(image * np.conj(smooth)), np.float32)


def weighted(image: C64) -> F32:
    """Magnitude times the phase mask of SWI (Haacke et al. 2004): what is paramagnetic turns darker."""
    phase = homodyne(image)
    mask = np.where(phase > 0, 1 - phase / np.float32(np.pi), np.float32(1)) ** PHASE_MASK_POWER
    return np.asarray(np.abs(image) * mask, np.float32)


def acquire_mr(block: C64 | F32, slicer: Slicer, *, susceptibility_weighted: bool = False) -> F32:
    """Scan a head.

    Parameters
    ----------
    block : complex64 or float32 array [Z, Y, X]
        Transverse magnetisation at the echo.
    slicer : Slicer
    susceptibility_weighted : bool
        Channels are combined with their phases, and the phase mask is multiplied in; otherwise the root of the sum of
        squares of the channels is taken.

    Returns
    -------
    float32 array [slices, matrix, matrix]
        Magnitude, in the units of the block.

    Notes
    -----
    Channels have independent noise of equal strength. Seen along the vector of sensitivities, one combination of them
    holds all the signal, and the others noise only: the sum of squares is made from these, which is the same in law.
    Its background follows a chi distribution with twice as many degrees of freedom as channels (Constantinides, Atalar
    and McVeigh, Magnetic Resonance in Medicine 1997;38:852-7); of one channel, Rayleigh's, and the signal Rice's.
    """
    scan = slicer.scan
    size = scan.matrix
    kept, moved = window(scan), _movement(scan)
    images = np.empty((len(scan.positions), size, size), np.float32)
    measured = np.flatnonzero(kept.any(axis=0))
    # White noise of the kept part of k-space: its sum over the window sets the strength in the image.
    strength = np.float32(scan.noise * size * size / np.sqrt(float(np.square(kept, dtype=np.float64).sum())))
    channels = 1 if susceptibility_weighted else scan.coil.channels
    for number in range(len(scan.positions)):
        rng = np.random.default_rng([*scan.seed, number])
        shading = slicer.shading(number)
        spectrum = np.fft.fft2(slicer.slice(block, number) * shading).astype(np.complex64)
        if moved is not None:
            spectrum *= moved
        total = np.zeros((size, size), np.float32)
        for channel in range(channels):
            lines = np.zeros((size, size), np.complex64)
            drawn = rng.standard_normal((2, size, len(measured)), np.float32) * strength
            lines[:, measured] = drawn[0] + 1j * drawn[1]
            image = np.fft.ifft2((lines + spectrum if channel == 0 else lines) * kept)
            if susceptibility_weighted:
                total = weighted(image.astype(np.complex64)) ** 2
            else:
                total += image.real**2 + image.imag**2
        images[number] = np.sqrt(total)
        if scan.coil.normalised:
            images[number] /= shading**scan.coil.normalised
    return images


def minimum_intensity(images: F32, slab: int) -> F32:
    """Minimum over a sliding slab of slices: float32 [slices - slab + 1, rows, columns]."""
    return np.stack([images[k : k + slab].min(axis=0) for k in range(len(images) - slab + 1)])


def mark(
    coverage: Mapping[str, F32], codes: Mapping[str, int], slicer: Slicer
) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
    """Mask of what fills half a pixel's slice or more, and volumes inside the slices.

    Parameters
    ----------
    coverage : mapping of label to float32 array [Z, Y, X]
    codes : mapping of label to int
        Values of the mask; later labels win.
    slicer : Slicer

    Returns
    -------
    mask : uint8 array [slices, matrix, matrix]
    visible : dict of label to float
        mL.
    """
    scan = slicer.scan
    mask = np.zeros((len(scan.positions), scan.matrix, scan.matrix), np.uint8)
    visible = {}
    for label, block in coverage.items():
        total = 0.0
        box = _box(block)
        part = block[box]
        z, y, x = (axis[span] for axis, span in zip(slicer.axes, box, strict=True))
        inside = Slicer((z, y, x), scan)
        for number in range(len(scan.positions)):
            share = inside.slice(part, number)
            mask[number][share >= 0.5] = codes[label]
            total += float(share.sum(dtype=np.float64))
        visible[label] = total * scan.pixel_mm**2 * scan.thickness_mm / 1000
    return mask, visible


def _box(block: F32) -> tuple[slice, ...]:
    """What is not 0 in a block, with a layer of zeros around it: most hemorrhages fill a small part of a head."""
    spans = []
    for axis in range(3):
        held = np.flatnonzero(block.any(axis=tuple(other for other in range(3) if other != axis)))
        low, high = (int(held[0]), int(held[-1])) if held.size else (0, 0)
        spans.append(slice(max(0, low - 1), max(high + 2, 2)))
    return tuple(spans)
