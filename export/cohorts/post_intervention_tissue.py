"""Collaterals and the infarct core that they slow down: how the tissue is drawn, and what it tells of them.

Collaterals are one hidden number for each patient, standard normal about what age and vessels let expect; above 0 they
are called good. Everything that a plain CT or the neurological score shows of them has a likelihood in closed form, so
that their posterior is a sum over a fine grid. All numbers are ours (``docs/cohorts_stroke.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, Values, sigmoid

OCCLUSIONS = ("ica", "m1", "m2")
"""Occluded artery: internal carotid, first or second segment of the middle cerebral artery."""
REGIONS = ("L", "I", "M2", "C", "M5", "IC", "M4", "M1", "M6", "M3")
"""The ten regions of ASPECTS (Barber et al., Lancet 2000), in the order in which the core takes them here (ours)."""
REGION_SHARE = (0.05, 0.08, 0.13, 0.16, 0.22, 0.28, 0.34, 0.42, 0.50, 0.60)
"""Share of the territory that has died when a region is seen to be lost, median; ours."""
REGION_SPREAD = 0.45
"""Spread of the logarithm of it, ours."""
DEEP = ("L", "C", "IC")
"""Regions that an occlusion of the second segment spares: their arteries leave before it."""

GRID = 0.1
"""Step of the grid of collaterals. Its cells meet at 0, where good begins."""
COLLATERALS = np.round(np.arange(-6 + GRID / 2, 6, GRID), 2)
"""Middles of the cells, float64 [120]: the sum is a midpoint rule."""

TERRITORY_ML = (250.0, 190.0, 95.0)
"""Median of the tissue at risk by occlusion, mL, ours."""
TERRITORY_SPREAD = 0.2
GROWTH_PER_MIN = 0.20 / 150
"""Median rate at which tissue at risk dies with collaterals of 0, per minute: 18 % after 150 minutes. Ours."""
GROWTH = (-0.55, 0.60)
"""What collaterals add to the logarithm of the rate, and its spread, ours."""
DROP = (-0.16, 0.25)
"""The same for the logarithm of the core's loss of density, ours."""
SWELLING = (-0.35, 0.7)
"""The same for the logit of swelling, ours."""
CLOT = (-0.15, 0.35)
"""The same for the logarithm of the length of a dense artery, ours."""
DENSE = -0.30
"""What collaterals add to the logit of the artery being dense at all, ours."""
SEVERITY = (-1.2, 4.5)
"""What collaterals add to the NIHSS, and its spread, ours."""
NIHSS = np.arange(43, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """What has happened when the CT is taken; float64 arrays [N] if not said otherwise.

    Parameters
    ----------
    occlusion : int64 array [N]
        Index into :data:`OCCLUSIONS`.
    minutes : array
        From onset to CT.
    expected : array
        Mean of the collaterals that age and vessels let expect.
    rate_per_min : array
        Share of the surviving tissue at risk that dies in a minute.
    territory_ml, core_ml : array
    drop_hu : array
        Loss of density in the core.
    swelling : array
        0 to 1: how far sulci are effaced.
    dense_artery_mm : array
        0 where the artery is not dense.
    nihss : array
    """

    occlusion: npt.NDArray[np.int64]
    minutes: Float
    expected: Float
    rate_per_min: Float
    territory_ml: Float
    core_ml: Float
    drop_hu: Float
    swelling: Float
    dense_artery_mm: Float
    nihss: Float


def expect(age: Float, leukoaraiosis: Float, diabetes: Float, occlusion: npt.NDArray[np.int64]) -> Float:
    """Mean of the collaterals: worse with age, white-matter disease, diabetes and a carotid occlusion. Ours."""
    vessels = 0.30 * (leukoaraiosis - 1) + 0.30 * diabetes
    return np.asarray(0.25 - 0.015 * (age - 72) - vessels - np.array([0.35, 0.0, -0.10])[occlusion], np.float64)


def draw_tissue(
    rng: np.random.Generator,
    collaterals: Float,
    expected: Float,
    minutes: Float,
    occlusion: npt.NDArray[np.int64],
    left: Float,
) -> Tissue:
    """Draw what the CT and the score will show.

    Parameters
    ----------
    rng : numpy.random.Generator
    collaterals, expected, minutes, left : float64 arrays [N]
        `left` is 1 where the left hemisphere is struck.
    occlusion : int64 array [N]
    """
    count = len(collaterals)
    noise = rng.standard_normal((5, count))  # of territory, growth, density, swelling, clot
    territory = np.asarray(TERRITORY_ML)[occlusion] * np.exp(TERRITORY_SPREAD * noise[0])
    rate = GROWTH_PER_MIN * np.exp(GROWTH[0] * collaterals + GROWTH[1] * noise[1])
    core = territory * -np.expm1(-rate * minutes)
    dense = rng.random(count) < sigmoid(_dense(occlusion) + DENSE * collaterals)
    length = np.exp(_clot(occlusion) + CLOT[0] * collaterals + CLOT[1] * noise[4])
    odds = _severity(occlusion, left, core)[:, None] + SEVERITY[0] * collaterals[:, None]
    chances = _score(odds)[:, 0]  # [N, 43]
    score = (np.cumsum(chances, axis=1) <= rng.random((count, 1))).sum(axis=1)
    return Tissue(
        occlusion=occlusion,
        minutes=minutes,
        expected=expected,
        rate_per_min=rate,
        territory_ml=territory,
        core_ml=core,
        drop_hu=np.exp(_drop(minutes) + DROP[0] * collaterals + DROP[1] * noise[2]),
        swelling=sigmoid(_swelling(core / territory) + SWELLING[0] * collaterals + SWELLING[1] * noise[3]),
        dense_artery_mm=np.where(dense, length, 0.0),
        nihss=np.minimum(score, 42).astype(np.float64),
    )


def posterior(tissue: Tissue, left: Float) -> Float:
    """Chance of each cell of :data:`COLLATERALS` given the tissue, by Bayes' rule: float64 [N, cells].

    Parameters
    ----------
    tissue : Tissue
    left : float64 array [N]
        1 where the left hemisphere is struck.
    """
    t, c = tissue, COLLATERALS[None]
    gone = t.core_ml / t.territory_ml
    log = -0.5 * (c - t.expected[:, None]) ** 2
    log += _fit(np.log(t.rate_per_min / GROWTH_PER_MIN), c, GROWTH)
    log += _fit(np.log(t.drop_hu) - _drop(t.minutes), c, DROP)
    log += _fit(np.log(t.swelling / (1 - t.swelling)) - _swelling(gone), c, SWELLING)
    dense = t.dense_artery_mm > 0
    chance = sigmoid(_dense(t.occlusion)[:, None] + DENSE * c)
    log += np.log(np.where(dense[:, None], chance, 1 - chance))
    length = np.log(np.where(dense, t.dense_artery_mm, 1.0)) - _clot(t.occlusion)
    log += np.where(dense[:, None], _fit(length, c, CLOT), 0.0)
    scores = _score(_severity(t.occlusion, left, t.core_ml)[:, None] + SEVERITY[0] * c)  # [N, cells, 43]
    log += np.log(scores[np.arange(len(left)), :, t.nihss.astype(np.int64)])
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), np.float64)


def lost_regions(rng: np.random.Generator, tissue: Tissue) -> npt.NDArray[np.bool_]:
    """Regions of ASPECTS that the core has taken, bool [N, 10] in the order of :data:`REGIONS`.

    They follow from the core's share of the territory alone, and so tell nothing more of the collaterals.
    """
    noise = np.exp(REGION_SPREAD * rng.standard_normal((len(tissue.minutes), len(REGIONS))))
    lost = (tissue.core_ml / tissue.territory_ml)[:, None] > np.asarray(REGION_SHARE) * noise
    return np.asarray(lost & ~(np.isin(REGIONS, DEEP) & (tissue.occlusion == 2)[:, None]))


def hidden(tissue: Tissue) -> dict[str, Values]:
    """The tissue as columns of the truth."""
    columns = {f.name: getattr(tissue, f.name) for f in fields(tissue)}
    columns["occlusion"] = np.array(OCCLUSIONS)[tissue.occlusion]
    return {f"tissue_{name}": values for name, values in columns.items()}


def _fit(seen: Float, c: Float, effect: tuple[float, float]) -> Float:
    """Logarithm of a normal density about a line through 0, less a constant."""
    return np.asarray(-0.5 * ((seen[:, None] - effect[0] * c) / effect[1]) ** 2, np.float64)


def _score(mean: Float) -> Float:
    """Chance of every NIHSS about a mean [N, M]: a normal curve on whole numbers, float64 [N, M, 43]."""
    weight = np.exp(-0.5 * ((NIHSS - mean[..., None]) / SEVERITY[1]) ** 2)
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True), np.float64)


def _severity(occlusion: npt.NDArray[np.int64], left: Float, core: Float) -> Float:
    return np.asarray(np.array([17.5, 15.0, 9.0])[occlusion] + 1.5 * left + 0.03 * (core - 40), np.float64)


def _drop(minutes: Float) -> Float:
    """Logarithm of the density lost in the core, HU: it becomes visible over hours."""
    return np.asarray(np.log(1.2 + 5.5 * -np.expm1(-minutes / 240)), np.float64)


def _swelling(gone: Float) -> Float:
    return np.asarray(-1.8 + 3.5 * gone, np.float64)


def _dense(occlusion: npt.NDArray[np.int64]) -> Float:
    return np.array([0.3, 0.2, -1.1], np.float64)[occlusion]


def _clot(occlusion: npt.NDArray[np.int64]) -> Float:
    return np.log(np.array([15.0, 11.0, 7.0], np.float64))[occlusion]
