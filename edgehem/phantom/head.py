"""The head as numbers: what differs from one phantom to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Head:
    """Parameters of one synthetic head. Lengths mm, angles degrees, densities HU.

    Head coordinates are LPS with the origin in the middle of the vault, 17 mm behind the anterior commissure: x to the
    patient's left, y to the back, z to the top. Sizes follow adult means and spreads of craniometry textbooks, rounded;
    they are made to look plausible to a network, and are no anthropometric reference.
    """

    seed: int
    age_years: float
    # size and pose
    half_width: float
    half_length: float
    height: float
    pitch_deg: float
    roll_deg: float
    yaw_deg: float
    offset: tuple[float, float, float]
    asymmetry: float
    # skull and skin
    skull_mm: float
    scalp_mm: float
    fat_fraction: float
    base_shift: float
    pneumatisation: float
    # brain
    atrophy: float
    ventricle_scale: float
    ventricle_asymmetry: float
    sulcus_mm: float
    leukoaraiosis: float
    infarcts: int
    # densities
    grey_hu: float
    white_hu: float
    csf_hu: float
    bone_hu: float
    sinus_hu: float
    dura_hu: float
    # findings that are no blood
    choroid_hu: float
    pineal_hu: float
    basal_ganglia_hu: float
    cupping_hu: float
    # mass effect: the brain's midline is pushed by this much towards +x (left), mm
    midline_shift: float = 0.0
    # contrast agent: what vessels and plexus measure, HU; 0 where none was given
    contrast_hu: float = 0.0


def draw_head(seed: int, *, midline_shift: float = 0.0, contrast_hu: float = 0.0) -> Head:
    """Draw one adult head.

    Parameters
    ----------
    seed : int
        The same seed gives the same head.
    midline_shift : float
        Displacement of the midline towards the patient's left, mm (negative: to the right).
    contrast_hu : float
        What arteries, veins and choroid plexus measure after a contrast agent; 0 for a scan without.
    """
    rng = np.random.default_rng([seed, 1])
    age = float(np.clip(rng.normal(62, 16), 20, 95))
    atrophy = float(np.clip((age - 45) / 45 + rng.normal(0, 0.25), 0, 1))
    size = rng.normal(1, 0.035)
    grey = float(rng.normal(37.5, 1.6))
    return Head(
        seed=seed,
        age_years=age,
        half_width=float(65 * size * rng.normal(1, 0.03)),
        half_length=float(83 * size * rng.normal(1, 0.035)),
        height=float(76 * size * rng.normal(1, 0.03)),
        pitch_deg=float(rng.uniform(-24, 24)),
        roll_deg=float(rng.normal(0, 4)),
        yaw_deg=float(rng.normal(0, 5)),
        offset=(float(rng.normal(0, 6)), float(rng.normal(0, 8)), float(rng.normal(0, 3))),
        asymmetry=float(rng.uniform(0.5, 3.0)),
        skull_mm=float(np.clip(rng.normal(6.5, 1.3), 4, 11)),
        scalp_mm=float(np.clip(rng.normal(5, 1.3), 2.5, 9)),
        fat_fraction=float(rng.uniform(0.3, 0.8)),
        base_shift=float(rng.normal(0, 2.5)),
        pneumatisation=float(rng.uniform(0, 1)),
        atrophy=atrophy,
        ventricle_scale=float(np.clip(0.75 + 0.7 * atrophy + rng.normal(0, 0.18), 0.55, 2.0)),
        ventricle_asymmetry=float(rng.normal(0, 0.12)),
        sulcus_mm=float(np.clip(0.7 + 2.0 * atrophy + rng.normal(0, 0.35), 0.4, 3.4)),
        leukoaraiosis=float(np.clip(rng.normal(0.9 * atrophy, 0.3), 0, 1)),
        infarcts=int(rng.choice([0, 1, 2], p=[0.68, 0.24, 0.08])),
        grey_hu=grey,
        white_hu=grey - float(rng.uniform(5.5, 10)),
        csf_hu=float(rng.normal(6, 2.5)),
        bone_hu=float(rng.uniform(1000, 1700)),
        sinus_hu=float(rng.uniform(44, 70)),
        dura_hu=float(rng.uniform(42, 62)),
        choroid_hu=float(rng.choice([0, 1]) * rng.uniform(120, 600)),
        pineal_hu=float(rng.choice([0, 1], p=[0.35, 0.65]) * rng.uniform(110, 500)),
        basal_ganglia_hu=float(rng.choice([0, 1], p=[0.85, 0.15]) * rng.uniform(110, 260)),
        cupping_hu=float(rng.uniform(0, 11)),
        midline_shift=midline_shift,
        contrast_hu=contrast_hu,
    )
