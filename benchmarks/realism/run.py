"""``edgehem bench realism``: a real head CT among phantoms, every measurement of both, and where the real one lies.

Numbers of the phantoms say what a network is trained on; those of one real scan say little of other scans. A real
head is a judge: no phantom is tuned to give its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks import environment
from edgehem.benchmarks.realism import densities, noise, sections
from edgehem.dicom.hu import to_hu
from edgehem.errors import UsageError
from edgehem.machine import usable_cpus
from edgehem.phantom.bleeds import SUBTYPES, Bleed
from edgehem.phantom.cases import VERSION, Case, make_case
from edgehem.phantom.files import cohort_case
from edgehem.phantom.mr import MrCase, make_mr
from edgehem.phantom.mr_tissue import STAGES
from edgehem.volume import Volume
from edgehem.workers import ordered

SCHEMA = "edgehem.bench.realism/1"
PHANTOMS, QUICK_PHANTOMS = 40, 4
SEED = 91
"""Of the phantoms' cohort: no network was trained, calibrated or judged on it."""
BLED = 4
"""Every so many sound phantoms, one that bled is measured, for the blood alone."""
LOOKED_AT_ML = 18.0

Float = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Head:
    """What is measured of one head.

    Parameters
    ----------
    measures : dict of name to float
        See :data:`MEASURES`.
    histogram : float64 array
        See :class:`edgehem.benchmarks.realism.densities.Densities`.
    spectrum : float64 array
        Radial noise power spectrum at :data:`FREQUENCIES`, as a share of its sum.
    """

    measures: dict[str, float]
    histogram: Float
    spectrum: Float


MEASURES = {
    "brain 5 %": ("HU", "smoothed brain, 6 mm and more from bone"),
    "brain 50 %": ("HU", "the same"),
    "brain 95 %": ("HU", "the same"),
    "grey - white": ("HU", "90 % less 10 % of it: contrast of grey and white matter, with what blurs it"),
    "fluid 50 %": ("HU", "smoothed fluid, -5 to 15 HU"),
    "fluid share": ("", "part of the vault, 6 mm and more from bone"),
    "bone 5 %": ("HU", "skull of the vault"),
    "bone 50 %": ("HU", "the same"),
    "bone 95 %": ("HU", "the same"),
    "skull": ("mm", "its mean thickness"),
    **{
        f"rim {mm} mm": ("HU", "median so deep under the inner table, less that of the brain")
        for mm in densities.RIM_MM
    },
    "noise": ("HU", "standard deviation in even brain"),
    "noise centre": ("1/mm", "mean frequency of its power"),
    **{
        f"noise {low:g} to {high:g}": ("", "share of its power between these frequencies, cycles per mm")
        for low, high in pairwise(noise.BANDS)
    },
}  # fmt: skip
"""Unit and meaning of every measurement."""
FREQUENCIES = np.arange(0.025, 1.0, noise.STEP)


def to_look_at() -> list[tuple[str, Volume]]:
    """Phantoms for a contact sheet: three without hemorrhage, and one of each subtype."""
    chosen: list[tuple[int, tuple[Bleed, ...]]] = [(cohort_case(2 * index, SEED)[0], ()) for index in range(3)]
    chosen += [
        (cohort_case(20 + number, SEED)[0], (Bleed(subtype=name, ml=LOOKED_AT_ML),))
        for number, name in enumerate(SUBTYPES)
    ]
    return [
        (
            f"phantom {seed}: {bleeds[0].subtype if bleeds else 'no hemorrhage'}",
            make_case(seed, bleeds=bleeds).volume,
        )
        for seed, bleeds in chosen
    ]


def mr_to_look_at() -> list[tuple[str, MrCase]]:
    """MR phantoms for a contact sheet: one head, with blood of every age."""
    seed = cohort_case(0, SEED)[0]
    bleeds = (Bleed(subtype="intraparenchymal", ml=LOOKED_AT_ML),)
    return [(f"phantom {seed}, {stage} blood", make_mr(seed, bleeds=bleeds, age=stage)) for stage in STAGES]


def measure(volume: Volume) -> Head:
    """Measure a head.

    Raises
    ------
    UsageError
        If it cannot be measured: no closed skull, or too little even brain.
    """
    vault = sections.vault(volume)
    found, texture = densities.measure(vault), noise.measure(vault)
    spectrum = np.interp(FREQUENCIES, texture.frequency, texture.power, right=0.0) * FREQUENCIES
    measures = {
        "brain 5 %": found.brain[0],
        "brain 50 %": found.brain[2],
        "brain 95 %": found.brain[4],
        "grey - white": found.contrast_hu,
        "fluid 50 %": found.fluid[2],
        "fluid share": found.fluid_share,
        "bone 5 %": found.bone[0],
        "bone 50 %": found.bone[2],
        "bone 95 %": found.bone[4],
        "skull": found.bone_mm,
        **{f"rim {mm} mm": value for mm, value in found.rim.items()},
        "noise": texture.sd_hu,
        "noise centre": texture.centre_per_mm,
        **dict(zip(list(MEASURES)[-len(texture.bands) :], texture.bands, strict=True)),
    }
    return Head(measures=measures, histogram=found.histogram, spectrum=spectrum / spectrum.sum())


def blood(case: Case) -> dict[str, tuple[float, ...]]:
    """Quantiles of the HU inside each hemorrhage, a pixel away from its edge; by subtype."""
    from scipy import ndimage

    hu = to_hu(case.volume.pixels, case.volume.slope, case.volume.intercept, case.volume.padding)
    found = {}
    for value, name in enumerate(SUBTYPES, start=1):
        core = ndimage.binary_erosion(case.mask == value, np.ones((1, 3, 3)))
        if core.any():
            found[name] = tuple(float(q) for q in np.quantile(hu[core], densities.QUANTILES))
    return found


def _job(job: tuple[int, bool]) -> Head | dict[str, tuple[float, ...]] | None:
    """Measure a phantom, or the blood of one that bled; None where it cannot be measured."""
    index, bled = job
    seed = cohort_case(2 * index + bled, SEED)[0]
    if bled:
        subtype = SUBTYPES[index // BLED % len(SUBTYPES)]
        return blood(make_case(seed, bleeds=(Bleed(subtype=subtype, ml=LOOKED_AT_ML),)))
    try:
        return measure(make_case(seed).volume)
    except UsageError:
        return None


def run(
    real: Sequence[Volume],
    *,
    phantoms: int = PHANTOMS,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Measure real heads and phantoms.

    Parameters
    ----------
    real : sequence of Volume
        May be empty: then phantoms alone are told.
    phantoms : int
        Without hemorrhage, as real heads of this comparison are taken to be; a quarter as many that bled beside them.
    workers : int, optional
        Processes; as many as there are CPUs by default.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.realism/1``), ready for JSON.

    Raises
    ------
    UsageError
        If a real head cannot be measured.
    """
    heads = [measure(volume) for volume in real]
    jobs = [(index, bled) for index in range(phantoms) for bled in (False, True) if not bled or not index % BLED]
    made: list[Head] = []
    clots: dict[str, list[tuple[float, ...]]] = {}
    for done, found in enumerate(ordered(_job, jobs, workers or usable_cpus()), start=1):
        if isinstance(found, Head):
            made.append(found)
        elif found:
            for name, quantiles in found.items():
                clots.setdefault(name, []).append(quantiles)
        progress(done, len(jobs))
    if not made:
        raise UsageError("no phantom could be measured")
    return {
        "schema": SCHEMA,
        "environment": environment.describe(),
        "settings": {"phantoms": phantoms, "measured": len(made), "version": VERSION, "seed": SEED},
        "measures": [_row(name, heads, made) for name in MEASURES],
        "histogram": {
            "hu": densities.HISTOGRAM_HU[:-1].tolist(),
            **_curves([head.histogram for head in heads], [head.histogram for head in made]),
        },
        "spectrum": {
            "per_mm": FREQUENCIES.tolist(),
            **_curves([head.spectrum for head in heads], [head.spectrum for head in made]),
        },
        "apart_hu": {
            "real": [[densities.distance_hu(head.histogram, other.histogram) for other in made] for head in heads],
            "phantoms": [
                densities.distance_hu(one.histogram, other.histogram)
                for number, one in enumerate(made)
                for other in made[:number]
            ],
        },
        "blood": {name: [list(one) for one in quantiles] for name, quantiles in sorted(clots.items())},
    }  # fmt: skip


def _row(name: str, heads: Sequence[Head], made: Sequence[Head]) -> dict[str, Any]:
    unit, what = MEASURES[name]
    values = np.array([head.measures[name] for head in made])
    real = [head.measures[name] for head in heads]
    return {
        "name": name,
        "unit": unit,
        "what": what,
        "phantoms": [float(q) for q in np.quantile(values, densities.QUANTILES)],
        "real": real,
        # 0: below all phantoms; 1: above all.
        "rank": [float((values < value).mean()) for value in real],
    }


def _curves(real: Sequence[Float], made: Sequence[Float]) -> dict[str, Any]:
    low, middle, high = np.quantile(np.stack(made), (0.05, 0.5, 0.95), axis=0)
    return {
        "real": [curve.tolist() for curve in real],
        "phantoms": {"low": low.tolist(), "median": middle.tolist(), "high": high.tolist()},
    }
