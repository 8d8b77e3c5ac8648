"""Noise of a CT, measured where the brain is even: its level, and how its power spreads over spatial frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.realism.sections import Sections
from edgehem.errors import UsageError

Float = npt.NDArray[np.float64]

PATCH_MM = 14.0
"""Side of a patch: even brain is hardly wider."""
DEEP_MM = 8.0
"""Patches lie at least so far from bone, whose blur is no noise."""
BRAIN_HU = (18.0, 46.0)
"""Of a patch's mean: brain without fluid."""
QUARTERS_HU = 6.0
"""The means of a patch's quarters differ by no more: else it shows an edge."""
EVEN = 0.5
"""The evenest half of the patches counts: sulci and nuclei are no noise."""
FEWEST = 12
BANDS = (0.0, 0.15, 0.3, 0.5, 1.0)
"""Limits of the bands that power is told in, cycles per mm."""
STEP = 0.05
"""Width of the radial bins, cycles per mm."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise in the brain.

    Parameters
    ----------
    sd_hu : float
        After a plane and a parabola were taken out of each patch.
    centre_per_mm : float
        Mean frequency, weighted by power, cycles per mm.
    bands : tuple of float
        Share of the power in each band of :data:`BANDS`.
    frequency, power : float64 arrays
        Radial noise power spectrum: cycles per mm, HU² mm². Sums over the plane to the variance.
    patches : int
    """

    sd_hu: float
    centre_per_mm: float
    bands: tuple[float, ...]
    frequency: Float
    power: Float
    patches: int


def measure(sections: Sections) -> Noise:
    """Measure the noise power spectrum (ICRU Report 87's estimate from detrended regions of interest).

    Raises
    ------
    UsageError
        If too few patches are even brain.
    """
    rows, columns = (max(8, round(PATCH_MM / mm)) for mm in sections.pixel_mm)
    patches = _patches(sections, rows, columns)
    if len(patches) < FEWEST:
        raise UsageError("too little even brain to measure noise in")
    left = _detrended(np.stack(patches))
    sd = left.std(axis=(1, 2))
    left = left[sd <= np.quantile(sd, EVEN)]
    dy, dx = sections.pixel_mm
    power = (np.abs(np.fft.fft2(left)) ** 2).mean(axis=0) * dy * dx / (rows * columns)  # [fy, fx] HU² mm²
    radial = np.hypot(np.fft.fftfreq(rows, dy)[:, None], np.fft.fftfreq(columns, dx)[None])
    bins = (radial / STEP).astype(np.int64).ravel()
    count = np.bincount(bins)
    mean = np.bincount(bins, power.ravel()) / np.maximum(1, count)
    shares = [power[(radial >= low) & (radial < high)].sum() / power.sum() for low, high in pairwise(BANDS)]
    return Noise(
        sd_hu=float(np.sqrt((left**2).mean())),
        centre_per_mm=float((radial * power).sum() / power.sum()),
        bands=tuple(float(share) for share in shares),
        frequency=np.asarray((np.flatnonzero(count) + 0.5) * STEP, np.float64),
        power=mean[count > 0],
        patches=len(left),
    )


def _patches(sections: Sections, rows: int, columns: int) -> list[Float]:
    from scipy import ndimage

    found = []
    for hu, depth in zip(sections.hu, sections.depth, strict=True):
        # A patch is named by its first corner, and lies deep where its shallowest point does.
        deep = ndimage.minimum_filter(depth, (rows, columns), origin=(-(rows // 2), -(columns // 2)))
        for top in range(0, hu.shape[0] - rows, rows):
            for left in range(0, hu.shape[1] - columns, columns):
                if deep[top, left] < DEEP_MM:
                    continue
                patch = hu[top : top + rows, left : left + columns].astype(np.float64)
                if BRAIN_HU[0] <= patch.mean() <= BRAIN_HU[1] and _quarters_hu(patch) <= QUARTERS_HU:
                    found.append(patch)
    return found


def _quarters_hu(patch: Float) -> float:
    rows, columns = (size // 2 for size in patch.shape)
    means = [part.mean() for half in (patch[:rows], patch[rows:]) for part in (half[:, :columns], half[:, columns:])]
    return float(np.ptp(means))


def _detrended(patches: Float) -> Float:
    """Patches [N, Y, X] less their best fitting second-order surface."""
    _, rows, columns = patches.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
    q, _ = np.linalg.qr(basis.T)
    flat = patches.reshape(len(patches), -1)
    return np.asarray((flat - flat @ q @ q.T).reshape(patches.shape))
