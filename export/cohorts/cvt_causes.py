"""Causes of an intraparenchymal hematoma, and what follows from each: the tables that the CVT cohort is drawn from.

All numbers are ours, chosen so that their directions are those that textbooks give. See ``docs/cohorts_stroke.md``.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from edgehem.export.cohorts.core import Float, Values
from edgehem.export.cohorts.cvt_factors import Factor, Index, Level, Network, lattice, lognormal, normal, yes

CAUSES = ("cvt", "hypertension", "amyloid", "anticoagulation", "malformation")
"""Wu et al. (Sci Rep 2025, doi 10.1038/s41598-025-31206-8) name hypertension, amyloid angiopathy and arteriovenous
malformation as the others; anticoagulation is added by us. Every row of chances below is in this order."""
PREVALENCE = (46 / 192, 24 / 83)
"""Share of CVT in centre 1 (training) and centre 2 (external test) of Wu et al."""
OTHERS = ((0.46, 0.22, 0.14, 0.18), (0.40, 0.20, 0.24, 0.16))
"""Mix of the other causes in the two centres, ours."""

SITES = ("frontal", "parietal", "temporal", "occipital", "putamen", "caudate", "thalamus", "cerebellum", "pons")
"""Where the largest hematoma lies; the first four are lobes."""
LOBES = SITES[:4]
SINUSES = ("none", "superior_sagittal", "transverse", "straight", "all")
"""Venous sinus that is denser than blood should be; ``all`` is haemoconcentration, no thrombosis."""

HIGH_HEMATOCRIT = 48.0
"""Hematocrit from which dense sinuses are common without thrombosis, %, ours."""
FERTILE_YEARS = (16.0, 50.0)
"""Age in which pregnancy and contraceptives are asked about, years, ours."""
LARGE_ML, HUGE_ML = 15.0, 40.0
"""Bands of volume by which consciousness suffers, mL, ours."""


def _lobar(site: Values) -> Index:
    return np.asarray(~np.isin(site, LOBES), np.int64)


def _drainage(site: Values) -> Index:
    """0: to the superior sagittal sinus. 1: to the transverse sinus. 2: to the deep veins, or infratentorial."""
    deep = np.where(np.isin(site, ("temporal", "cerebellum")), 1, 2)
    return np.asarray(np.where(np.isin(site, ("frontal", "parietal", "occipital")), 0, deep), np.int64)


def _band(ml: Values) -> Index:
    return np.asarray((ml >= LARGE_ML).astype(np.int64) + (ml >= HUGE_ML), np.int64)


def _thick_blood(hematocrit: Values) -> Index:
    return np.asarray(hematocrit >= HIGH_HEMATOCRIT, np.int64)


def _fertile(female: Values, age: Values) -> Index:
    young = (age >= FERTILE_YEARS[0]) & (age < FERTILE_YEARS[1])
    return np.asarray((female == 1) & young, np.int64)


LEVELS = (
    Level(name="deep", of=("site",), count=2, of_values=_lobar),
    Level(name="drainage", of=("site",), count=3, of_values=_drainage),
    Level(name="volume_band", of=("volume_ml",), count=3, of_values=_band),
    Level(name="thick_blood", of=("hematocrit",), count=2, of_values=_thick_blood),
    Level(name="fertile", of=("female", "age"), count=2, of_values=_fertile),
)

NEVER = (0.0, 0.0, 0.0, 0.0, 0.0)


def _history(centre: int) -> tuple[Factor, ...]:
    """What depends on no image. The second centre's D-dimer assay reads 1.4 times as much, ours."""
    age, hematocrit = lattice(16, 95, 1), lattice(22, 62, 1)
    d_dimer, headache = lattice(0.1, 20, 0.1), lattice(0.1, 30, 0.1)
    binary = lattice(0, 1, 1)
    assay = 1.4 if centre else 1.0
    return (
        Factor(
            name="age",
            group="clinical",
            values=age,
            chances=normal(age, (50, 59, 69, 67, 46), (15, 13, 10, 12, 16)),
        ),
        Factor(name="female", group="clinical", values=binary, chances=yes((0.60, 0.40, 0.50, 0.44, 0.46))),
        Factor(
            name="hematocrit",
            group="clinical",
            values=hematocrit,
            chances=normal(hematocrit, (40.5, 42, 40, 39.5, 41), (6.0, 4.5, 4.5, 5.0, 4.5)),
        ),
        Factor(
            name="pregnancy",
            group="clinical",
            values=binary,
            chances=yes(NEVER, (0.22, 0.06, 0.02, 0.03, 0.05)),
            parents=("fertile",),
        ),
        Factor(
            name="contraceptives",
            group="clinical",
            values=binary,
            chances=yes(NEVER, (0.38, 0.14, 0.10, 0.06, 0.18)),
            parents=("fertile",),
        ),
        Factor(name="hypertension", group="clinical", values=binary, chances=yes((0.32, 0.86, 0.58, 0.66, 0.30))),
        Factor(name="anticoagulant", group="clinical", values=binary, chances=yes((0.05, 0.03, 0.05, 0.97, 0.03))),
        Factor(
            name="headache_days",
            group="clinical",
            values=headache,
            chances=lognormal(headache, (1.2, 0.5, 0.6, 0.6, 0.7), (1.2, 1.1, 1.1, 1.1, 1.3)),
        ),
        Factor(
            name="d_dimer",
            group="clinical",
            values=d_dimer,
            chances=lognormal(d_dimer, np.multiply(assay, (1.1, 0.7, 0.9, 0.6, 0.6)).tolist(), (0.9,) * 5),
        ),
    )


def _onset(centre: int) -> tuple[Factor, ...]:
    """What depends on where and how large the hematoma is. The second centre writes down 4 of 5 seizures, ours."""
    gcs = lattice(3, 15, 1)
    seizures = (0.8 if centre else 1.0) * np.array([[0.36, 0.16, 0.14, 0.12, 0.24], [0.14, 0.05, 0.05, 0.05, 0.10]])
    consciousness = np.stack(
        [
            normal(gcs, (14.2, 14.0, 14.2, 13.6, 14.2), (1.6, 1.9, 1.6, 2.2, 1.8)),
            normal(gcs, (13.4, 12.4, 13.0, 11.8, 13.0), (2.2, 2.8, 2.4, 3.0, 2.5)),
            normal(gcs, (11.5, 8.5, 10.0, 8.0, 10.0), (3.0, 3.4, 3.2, 3.4, 3.2)),
        ]
    )
    return (
        Factor(name="epilepsy", group="clinical", values=lattice(0, 1, 1), chances=yes(*seizures), parents=("deep",)),
        Factor(name="gcs", group="clinical", values=gcs, chances=consciousness, parents=("volume_band",)),
    )


def _image() -> tuple[Factor, ...]:
    binary = lattice(0, 1, 1)
    ml, hu, mottle = lattice(1, 120, 0.5), lattice(40, 85, 0.5), lattice(0.5, 14, 0.1)
    grain, ragged, oedema = lattice(4, 16, 0.5), lattice(0, 1, 0.02), lattice(0, 20, 0.5)
    site = np.array(
        [
            [0.21, 0.23, 0.29, 0.08, 0.06, 0.02, 0.06, 0.04, 0.01],
            [0.08, 0.08, 0.09, 0.03, 0.34, 0.05, 0.20, 0.07, 0.06],
            [0.30, 0.26, 0.20, 0.16, 0.02, 0.01, 0.02, 0.02, 0.01],
            [0.16, 0.15, 0.15, 0.07, 0.18, 0.03, 0.12, 0.12, 0.02],
            [0.25, 0.23, 0.22, 0.12, 0.04, 0.02, 0.03, 0.08, 0.01],
        ]
    )
    return (
        Factor(name="site", group="location", values=np.array(SITES), chances=site),
        Factor(name="right", group="location", values=binary, chances=yes((0.5,) * 5)),
        Factor(
            name="volume_ml",
            group="shape",
            values=ml,
            chances=lognormal(ml, (17, 15, 22, 21, 16), (0.8, 0.85, 0.8, 0.9, 0.85)),
        ),
        Factor(
            name="hematomas",
            group="location",
            values=lattice(1, 3, 1),
            chances=np.array(
                [[0.74, 0.18, 0.08], [0.96, 0.03, 0.01], [0.87, 0.10, 0.03], [0.90, 0.08, 0.02], [0.97, 0.02, 0.01]]
            ),
        ),
        Factor(
            name="hematoma_hu",
            group="texture",
            values=hu,
            chances=normal(hu, (58, 62, 61, 58.5, 61.5), (5.5,) * 5),
        ),
        Factor(
            name="mottle_hu",
            group="texture",
            values=mottle,
            chances=normal(mottle, (6.3, 4.2, 4.6, 5.8, 4.8), (2.0, 1.8, 1.8, 2.0, 1.9)),
        ),
        Factor(
            name="mottle_mm",
            group="texture",
            values=grain,
            chances=normal(grain, (8.8, 9.0, 9.0, 9.0, 9.0), (2.5,) * 5),
        ),
        Factor(
            name="irregularity",
            group="shape",
            values=ragged,
            chances=normal(ragged, (0.48, 0.36, 0.45, 0.42, 0.38), (0.18,) * 5),
        ),
        Factor(
            name="oedema_mm",
            group="shape",
            values=oedema,
            chances=normal(oedema, (7.2, 5.0, 5.5, 4.5, 5.0), (3.2, 2.6, 2.6, 2.6, 2.6)),
        ),
        Factor(
            name="convexity_blood",
            group="location",
            values=binary,
            chances=yes((0.22, 0.05, 0.26, 0.10, 0.12), (0.05, 0.01, 0.05, 0.02, 0.02)),
            parents=("deep",),
        ),
        Factor(
            name="ventricular_blood",
            group="location",
            values=binary,
            chances=yes((0.06, 0.12, 0.10, 0.15, 0.14), (0.20, 0.40, 0.30, 0.40, 0.35)),
            parents=("deep",),
        ),
        Factor(
            name="dense_sinus",
            group="location",
            values=np.array(SINUSES),
            chances=_sinus(),
            parents=("drainage", "thick_blood"),
        ),
    )


def _sinus() -> Float:
    """Chance of each dense sinus, float64 [drainage, thick blood, causes, sinuses].

    A thrombosed sinus is dense in a part of the patients only, and mostly it is the one that drains the hematoma's
    site. In thick blood all sinuses are dense, whatever the cause: then a dense sinus says little.
    """
    thrombosed = np.array(
        [[0.26, 0.07, 0.02], [0.08, 0.27, 0.02], [0.05, 0.07, 0.20]]  # drainage by sinus
    )
    table = np.zeros((3, 2, len(CAUSES), len(SINUSES)))
    for thick, everywhere in enumerate((0.02, 0.30)):
        for drainage, own in enumerate(thrombosed):
            table[drainage, thick, 0, 1:4] = own * (1 - everywhere)
            table[drainage, thick, 1:, 1:4] = 0.012 * (1 - everywhere)  # a reader's false alarm, ours
        table[:, thick, :, 4] = everywhere
    table[..., 0] = 1 - table[..., 1:].sum(axis=-1)
    return table


@cache
def network(centre: int) -> Network:
    """Causes and features of centre 0 (training) or 1 (external)."""
    sick = PREVALENCE[centre]
    prior = np.array([sick, *(np.array(OTHERS[centre]) * (1 - sick))], np.float64)
    factors = (*_history(centre), *_image(), *_onset(centre))
    return Network(causes=CAUSES, prior=prior, factors=factors, levels=LEVELS)
