"""What a reconstruction kernel does: how sharp the image is, and how its noise is grained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgehem.errors import UsageError
from edgehem.phantom.shapes import F32

KERNELS: dict[str, tuple[float, float]] = {
    "soft": (0.36, 0.0),
    "standard": (0.44, 0.05),
    "fine": (0.54, 0.25),
    "bone": (0.80, 0.70),
}
"""Cut-off in cycles per mm and edge enhancement. A Gaussian of the cut-off f has its half at 0.83 f: 3.0, 3.7, 4.5 and
6.6 line pairs per cm, in the range that vendors state for head kernels; the numbers themselves are ours."""
KERNEL_CHANCES = (0.2, 0.5, 0.3, 0.0)
"""How often each is drawn (ours); bone only when it is asked for: it comes beside a series for brain, never alone."""
WIDER = 1.7
"""The blurred copy that edge enhancement takes away is this much wider (ours)."""

TAIL, TAIL_MM = 0.05, 2.5
"""Share and width of the point spread's tail: radiation from beside the focal spot, and scatter (ours)."""

FINEST = 2.5
"""Cycles per mm beyond which no kernel lets anything through."""
BLACK = 0.012
"""Frequencies that a kernel lets through by less than this share carry no noise."""


@dataclass(frozen=True, kw_only=True)
class Optics:
    """How a scanner sees.

    Parameters
    ----------
    kernel : str
        One of :data:`KERNELS`.
    hardening : float
        Share of beam hardening that the scanner's own bone correction leaves; beyond 1 it stands for scatter too.
    iterative : float
        0 filtered back projection ... 1 iterative reconstruction: noise moves to lower frequencies.
    modulation : float
        How far the tube current follows the head's attenuation from slice to slice: 0 not at all, 1 fully.
    soft_profile : float
        0 slices with sharp edges (sequential) ... 1 with the bell-shaped profile of a helical scan.
    """

    kernel: str = "standard"
    hardening: float = 0.5
    iterative: float = 0.0
    modulation: float = 0.5
    soft_profile: float = 0.3

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise UsageError(f"unknown kernel {self.kernel!r}; one of {', '.join(KERNELS)}")

    @property
    def sigma_mm(self) -> float:
        """Standard deviation of the point spread in the plane, mm."""
        return float(1 / (np.sqrt(2) * np.pi * KERNELS[self.kernel][0]))


def spread(optics: Optics, places: F32, samples: F32) -> F32:
    """Weights that sample a line of voxels through the point spread: float32 [places, samples].

    Parameters
    ----------
    optics : Optics
    places, samples : float32 arrays [M], [N], mm
        Where to sample; where the voxels are (evenly spaced).
    """
    step = float(samples[1] - samples[0])
    enhancement = KERNELS[optics.kernel][1]
    distance = places[:, None] - samples[None]
    # A voxel is an average over its own length already.
    own = max(optics.sigma_mm**2 - step**2 / 12, (0.42 * step) ** 2)
    weights = (1 - TAIL) * _bell(distance, own) + TAIL * _bell(distance, TAIL_MM**2)
    if enhancement:
        weights = (1 + enhancement) * weights - enhancement * _bell(distance, own * WIDER**2)
    return np.asarray(weights, np.float32)


def _bell(distance: F32, variance: float) -> F32:
    weights = np.exp(-(distance**2) / (2 * variance)) * (np.abs(distance) < 6 * np.sqrt(variance))
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6), np.float32)


def _response(optics: Optics, frequency: F32) -> F32:
    """Amplitude of noise at frequencies in cycles per mm: it rises with the ramp and falls with the kernel."""
    cutoff, enhancement = KERNELS[optics.kernel]
    cutoff *= 1 - 0.35 * optics.iterative
    bell = np.exp(-((frequency / cutoff) ** 2))
    edge = (1 + enhancement) - enhancement * np.exp(-((WIDER**2 - 1) * (frequency / cutoff) ** 2))
    ramp = np.sqrt(frequency + np.float32(0.025 + 0.05 * optics.iterative))  # a little is left at zero
    return np.asarray(ramp * bell * edge, np.float32)


class Grain:
    """Noise of one kernel with the power spectrum of filtered back projection.

    Its variance is 1 where pixels are small enough for the kernel; what lies beyond a coarse matrix's frequencies is
    lost with them.
    """

    def __init__(self, optics: Optics, matrix: int, pixel_mm: float) -> None:
        fy = np.fft.fftfreq(matrix, pixel_mm).astype(np.float32)[:, None]
        fx = np.fft.rfftfreq(matrix, pixel_mm).astype(np.float32)[None]
        frequency = np.sqrt(fy * fy + fx * fx)
        response = _response(optics, frequency)
        response[response < BLACK * response.max()] = 0
        fine = np.linspace(0, FINEST, 2000, dtype=np.float32)
        power = 2 * np.pi * float(np.trapezoid(_response(optics, fine).astype(np.float64) ** 2 * fine, fine))
        power *= pixel_mm**2  # of the density per (cycle per mm)², over the matrix's frequencies
        # White noise in the plane of frequencies: its real and imaginary part have half the variance each.
        response *= np.float32(matrix / np.sqrt(2 * power))
        rows, columns = response.any(axis=1), response.any(axis=0)
        self._low = int(np.flatnonzero(~rows)[0]) if not rows.all() else matrix
        self._columns = int(np.flatnonzero(columns)[-1]) + 1
        self._response = response[:, : self._columns].copy()
        self._matrix = matrix

    def draw(self, rng: np.random.Generator) -> F32:
        """One plane of noise, float32 [matrix, matrix]; only frequencies that the kernel lets through are drawn."""
        spectrum = np.zeros((self._matrix, self._matrix // 2 + 1), np.complex64)
        for part in (slice(0, self._low), slice(-self._low + 1, None)) if self._low < self._matrix else (slice(None),):
            wanted = self._response[part]
            white = rng.standard_normal((len(wanted), 2 * self._columns), np.float32).view(np.complex64)
            spectrum[part, : self._columns] = white * wanted
        return np.asarray(np.fft.irfft2(spectrum, s=(self._matrix, self._matrix)), np.float32)
