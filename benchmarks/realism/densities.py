"""Hounsfield units of what a head is made of, as anybody measures them who was not told the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.realism.sections import Sections

Float = npt.NDArray[np.float64]

SMOOTH_MM = 1.2
"""Classes are told apart on a smoothed section, or noise would decide."""
FLUID_HU = (-5.0, 15.0)
TISSUE_HU = (19.0, 52.0)
INNER_MM = 6.0
"""Brain is measured deeper than this: beside bone, blur and beam hardening add to it."""
RIM_MM = {"1": (0.6, 1.4), "2": (1.5, 2.5), "4": (3.5, 4.5), "8": (7.0, 9.0), "15": (13.0, 17.0)}
"""Depths under the inner table at which the rim is measured."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
HISTOGRAM_HU = np.arange(-40.0, 121.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Densities:
    """Quantiles (5, 25, 50, 75, 95 %) in HU.

    Parameters
    ----------
    brain, fluid, bone : tuple of float
        `brain` and `fluid` on smoothed sections.
    contrast_hu : float
        Between the grey and the white end of the brain: its 90 % less its 10 % quantile, smoothed.
    fluid_share : float
        Fluid in the vault, part of its area.
    rim : dict of depth (mm) to float
        Median at a depth, less that of the brain.
    bone_mm : float
        Mean thickness of the skull, from its area as if sections were round.
    histogram : float64 array
        Share of the raw pixels inside the skull per bin of :data:`HISTOGRAM_HU`.
    """

    brain: tuple[float, ...]
    fluid: tuple[float, ...]
    bone: tuple[float, ...]
    contrast_hu: float
    fluid_share: float
    rim: dict[str, float]
    bone_mm: float
    histogram: Float


def measure(sections: Sections) -> Densities:
    """Measure a head."""
    from scipy import ndimage

    sigma = [SMOOTH_MM / mm for mm in sections.pixel_mm]
    smooth = np.stack([ndimage.gaussian_filter(np.clip(hu, -100, 200), sigma) for hu in sections.hu])
    deep = sections.depth > INNER_MM
    tissue = deep & (smooth > TISSUE_HU[0]) & (smooth < TISSUE_HU[1])
    fluid = sections.inside & (smooth > FLUID_HU[0]) & (smooth < FLUID_HU[1])
    brain = smooth[tissue]
    middle = float(np.median(brain))
    depth, hu = sections.depth, sections.hu
    rim = {name: float(np.median(hu[(depth > low) & (depth < high)])) - middle for name, (low, high) in RIM_MM.items()}
    area = np.stack([sections.inside.sum(axis=(1, 2)), (sections.inside | sections.bone).sum(axis=(1, 2))])
    radius = np.sqrt(area * np.prod(sections.pixel_mm) / np.pi)  # [inner, outer] mm, of disks of the same area
    raw = hu[sections.inside]
    counts, _ = np.histogram(raw, HISTOGRAM_HU)
    return Densities(
        brain=_quantiles(brain),
        fluid=_quantiles(smooth[fluid & (depth > 1)]),
        bone=_quantiles(hu[sections.bone]),
        contrast_hu=float(np.subtract(*np.quantile(brain, (0.9, 0.1)))),
        fluid_share=float((fluid & deep).sum() / max(1, deep.sum())),
        rim=rim,
        bone_mm=float((radius[1] - radius[0]).mean()),
        histogram=counts / max(1, len(raw)),
    )


def distance_hu(one: Float, other: Float) -> float:
    """How far two histograms lie apart: the HU that every pixel would have to move on average (earth mover's)."""
    step = HISTOGRAM_HU[1] - HISTOGRAM_HU[0]
    return float(np.abs(np.cumsum(one / one.sum()) - np.cumsum(other / other.sum())).sum() * step)


def _quantiles(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    if not values.size:
        return (float("nan"),) * len(QUANTILES)
    return tuple(float(value) for value in np.quantile(values, QUANTILES))
