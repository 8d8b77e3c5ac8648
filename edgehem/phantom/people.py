"""People: heads drawn from a seed, as people vary; any number of a head can be set instead.

Frequencies and spreads are ours unless a comment says otherwise: round numbers that give plausible heads. They are no
epidemiology, and a cohort that needs a prevalence sets it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

TERRITORIES = ("mca", "mca superior", "mca inferior", "aca", "pca", "lenticulostriate", "cerebellar")
"""Vascular territories that an infarct, old or acute, may take."""
SINUSES = ("superior sagittal", "transverse left", "transverse right", "sigmoid left", "sigmoid right", "straight")
"""Segments of the dural venous sinuses that may be thrombosed."""
SURGERIES = ("burr hole", "craniotomy", "cranioplasty", "shunt", "resection")
"""Operations that a head may have had."""

AGES_YEARS = (18.0, 100.0)
"""Adults only."""
RAREST = 0.03
"""Chance of each rare finding of a drawn head: thrombosis, acute infarct, hyperdense artery (ours)."""


def _chance(rng: np.random.Generator, chance: float) -> bool:
    return bool(rng.random() < chance)


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _density(rng: np.random.Generator, chance: float, low: float, high: float) -> float:
    """HU of a calcification that is there by chance; 0 where it is not. Two draws always."""
    there, value = rng.random(), float(rng.uniform(low, high))
    return value if there < chance else 0.0


def draw_person(seed: int) -> dict[str, Any]:
    """The fields of a :class:`edgehem.phantom.head.Head`, but for its seed."""
    rng = np.random.default_rng([seed, 20])
    sex = "F" if rng.random() < 0.5 else "M"
    # A wide adult range, more old than young: those who are scanned for a hemorrhage.
    age = float(np.clip(18 + 82 * rng.beta(2.6, 1.7), *AGES_YEARS))
    # Loss of brain with age, slow before 50, faster after, with as much scatter between people of one age.
    expected = 0.06 + 0.20 * (age - 18) / 82 + 0.55 * float(np.clip((age - 50) / 45, 0, 1)) ** 1.5
    atrophy = float(np.clip(expected + rng.normal(0, 0.13), 0, 1))
    central, cortical = (float(np.clip(atrophy + rng.normal(0, 0.12), 0, 1)) for _ in range(2))
    # Cephalic index: mean near 79, from long (70) to round (90); the volume is kept.
    index = float(np.clip(rng.normal(0.79, 0.035), 0.69, 0.91))
    size = float(rng.normal(1.0 if sex == "M" else 0.963, 0.026))
    stretch = float(np.sqrt(index / 0.79))
    grey = float(rng.normal(38.0, 1.5))
    haemoconcentration = float(np.clip(rng.normal(0, 1), -2, 2))
    person = dict[str, Any](
        sex=sex,
        age_years=age,
        half_width=66.5 * size * stretch,
        half_length=84.0 * size / stretch,
        height=76.0 * size * float(rng.normal(1, 0.035)),
        pitch_deg=float(np.clip(rng.normal(-2, 8), -24, 24)),
        roll_deg=float(np.clip(rng.normal(0, 3.5), -12, 12)),
        yaw_deg=float(np.clip(rng.normal(0, 5), -20, 20)),
        offset=(float(rng.normal(0, 6)), float(rng.normal(0, 8)), float(rng.normal(0, 3))),
        asymmetry=float(rng.uniform(0.5, 2.6)),
        skull_mm=float(np.clip(rng.normal(6.6 if sex == "F" else 6.9, 1.2), 3.8, 11)),
        scalp_mm=float(np.clip(rng.normal(5, 1.4), 2.2, 10)),
        fat_fraction=float(rng.uniform(0.05, 0.4)),
        base_shift=float(rng.normal(0, 2.2)),
        pneumatisation=float(rng.uniform(0, 1)) if rng.random() > 0.08 else -1.2,
        atrophy=atrophy,
        ventricle_scale=float(np.clip(0.62 + 0.95 * central + rng.normal(0, 0.12), 0.45, 2.2)),
        ventricle_asymmetry=float(np.clip(rng.normal(0, 0.10), -0.35, 0.35)),
        sulcus_mm=float(np.clip(0.25 + 2.5 * cortical + rng.normal(0, 0.2), 0.1, 3.6)),
        leukoaraiosis=float(np.clip(0.9 * (age - 45) / 50 * rng.beta(1.6, 2.2) * 1.6, 0, 1)),
        grey_hu=grey,
        white_hu=grey - float(np.clip(rng.normal(8.0, 1.1), 5, 11)),
        csf_hu=float(np.clip(rng.normal(6, 2), 0, 13)),
        bone_hu=float(rng.uniform(1150, 1750)) - 150 * float(age > 65 and sex == "F"),
        sinus_hu=54 + 6 * haemoconcentration,
        artery_hu=43 + 5 * haemoconcentration,
        dura_hu=float(rng.uniform(48, 62)),
        choroid_hu=_density(rng, float(np.clip(0.1 + (age - 20) / 70, 0.1, 0.9)), 110, 550),
        pineal_hu=_density(rng, float(np.clip(0.3 + (age - 20) / 100, 0.3, 0.8)), 110, 480),
        basal_ganglia_hu=_density(rng, 0.02 + 0.14 * (age > 60), 70, 240),
        falx_hu=_density(rng, 0.03 + 0.15 * (age > 50), 180, 700),
        tentorium_hu=_density(rng, 0.02 + 0.08 * (age > 60), 130, 400),
        dentate_hu=_density(rng, 0.01 + 0.04 * (age > 60), 70, 190),
        carotid_hu=_density(rng, float(np.clip((age - 45) / 45, 0, 0.9)), 150, 700),
        plagiocephaly=float(np.clip(rng.normal(0, 0.018), -0.07, 0.07)),
        flat_occiput=float(np.clip(rng.beta(1.2, 4.0), 0, 0.8)),
        towering=float(np.clip(rng.normal(0, 0.04), -0.09, 0.12)),
        hyperostosis_mm=float(rng.uniform(2, 6)) if _chance(rng, 0.14 if sex == "F" and age > 50 else 0.03) else 0.0,
        diploe=float(np.clip(rng.normal(0.9, 0.2), 0.2, 1.25)),
        frontal_sinus=float(rng.uniform(0.3, 1.0)) if _chance(rng, 0.93) else 0.0,
        cavum_mm=float(rng.uniform(2, 7)) if _chance(rng, 0.05) else 0.0,
        cisterna_magna=float(rng.uniform(0.4, 1)) if _chance(rng, 0.05) else 0.0,
        sulcus_asymmetry=float(np.clip(rng.normal(0, 0.12), -0.5, 0.5)),
        lacunes=int(rng.poisson(float(np.clip((age - 50) / 40, 0, 1)) * 0.9)),
    )
    return person | _findings(np.random.default_rng([seed, 21]), age)


def _findings(rng: np.random.Generator, age: float) -> dict[str, Any]:
    """What few heads have: old and acute infarcts, dense vessels, surgery."""
    found: dict[str, Any] = {}
    if _chance(rng, 0.03 + 0.14 * float(np.clip((age - 50) / 40, 0, 1))):
        found["old_infarct"] = str(rng.choice(TERRITORIES[1:]))
        found["old_infarct_side"] = _side(rng)
        found["old_infarct_extent"] = float(rng.uniform(0.25, 1))
    if _chance(rng, RAREST):
        hours = float(rng.uniform(1, 72))
        found["infarct"], found["infarct_side"] = str(rng.choice(TERRITORIES)), _side(rng)
        found["infarct_extent"], found["infarct_hours"] = float(rng.uniform(0.4, 1)), hours
        found["infarct_drop_hu"] = infarct_drop(hours) * float(rng.uniform(0.8, 1.2))
        if found["infarct"].startswith("mca") and _chance(rng, 0.4):
            found["mca_side"], found["mca_hu"] = found["infarct_side"], float(rng.uniform(55, 85))
    if _chance(rng, RAREST):
        found["thrombosis"], found["thrombosis_hu"] = str(rng.choice(SINUSES)), float(rng.uniform(66, 90))
    if _chance(rng, 2 * RAREST):
        found["surgery"], found["surgery_side"] = str(rng.choice(SURGERIES)), _side(rng)
    return found


def infarct_drop(hours: float) -> float:
    """Fall of density of infarcted tissue after some hours, HU (ours): 2 at 2 h, 5 at 6 h, 10 at 24 h, 14 at 72 h.

    One percent more water takes about 2.5 HU from brain; uptake is quick in the first day and slows after it.
    """
    return float(np.interp(hours, [0, 2, 6, 24, 72], [0, 2, 5, 10, 14]))
