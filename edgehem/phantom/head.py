"""The head as numbers: what differs from one phantom to the next."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from edgehem.errors import UsageError
from edgehem.phantom.people import SINUSES, SURGERIES, TERRITORIES, draw_person

VERSIONS = ("1", "2")
"""Generator versions: the same version and seed give the same study."""


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
    # What follows is version 2's; the defaults mean "not there".
    version: str = "1"
    sex: str = "O"
    # shape of the skull: skew of one side against the other (share of the half width), flattening of the back (0..1),
    # height of the crown above an ellipsoid (share), thickening of the inner table of the forehead, frontal sinus size
    plagiocephaly: float = 0.0
    flat_occiput: float = 0.0
    towering: float = 0.0
    hyperostosis_mm: float = 0.0
    diploe: float = 1.0
    frontal_sinus: float = 0.7
    # brain: width of a cavum septi pellucidi, size of a mega cisterna magna (0..1), how much wider the left sulci are
    # than the right (share), lacunes
    cavum_mm: float = 0.0
    cisterna_magna: float = 0.0
    sulcus_asymmetry: float = 0.0
    lacunes: int = 0
    # an old infarct with its ex-vacuo ventricle: territory, side (+1 left, -1 right), share of the territory
    old_infarct: str | None = None
    old_infarct_side: int = 1
    old_infarct_extent: float = 0.6
    # an acute infarct: grey and white both lose `drop` HU, and swelling closes sulci
    infarct: str | None = None
    infarct_side: int = 1
    infarct_extent: float = 0.8
    infarct_drop_hu: float = 0.0
    infarct_hours: float = 0.0
    # how far it closes sulci, 0..1; None: as far as its age lets expect
    infarct_swelling: float | None = None
    # calcifications, HU; 0 where there is none
    falx_hu: float = 0.0
    tentorium_hu: float = 0.0
    dentate_hu: float = 0.0
    carotid_hu: float = 0.0
    # vessels: flowing blood in arteries, a thrombosed sinus segment, a hyperdense middle cerebral artery
    artery_hu: float = 42.0
    thrombosis: str | None = None
    thrombosis_hu: float = 0.0
    mca_hu: float = 0.0
    mca_side: int = 1
    # surgery
    surgery: str | None = None
    surgery_side: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (
            ("version", self.version, VERSIONS),
            ("old_infarct", self.old_infarct, (None, *TERRITORIES)),
            ("infarct", self.infarct, (None, *TERRITORIES)),
            ("thrombosis", self.thrombosis, (None, *SINUSES)),
            ("surgery", self.surgery, (None, *SURGERIES)),
        ):
            if value not in known:
                listed = ", ".join(str(item) for item in known)
                raise UsageError(f"a head's {name} is {value!r}; one of {listed} was expected")
        for name in ("old_infarct_side", "infarct_side", "mca_side", "surgery_side"):
            if getattr(self, name) not in (-1, 1):
                raise UsageError(f"a head's {name} is {getattr(self, name)!r}; +1 (left) or -1 (right) was expected")
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and not np.isfinite(number) for number in numbers):
                raise UsageError(f"a head's {field.name} is {value!r}; finite numbers were expected")
        for name in ("old_infarct_extent", "infarct_extent", "atrophy", "leukoaraiosis", "infarct_swelling"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"a head's {name} is {share!r}; 0 to 1 was expected")


def changed(head: Head, changes: dict[str, Any]) -> Head:
    """A head with some of its fields set by name.

    Raises
    ------
    UsageError
        If a name is no field of :class:`Head`, or fixed (seed, version), or a value is not possible.
    """
    known = {field.name for field in fields(Head)} - {"seed", "version"}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise UsageError(
            f"a head has no field {', '.join(unknown)} that can be set; known are {', '.join(sorted(known))}"
        )
    return replace(head, **changes) if changes else head


def draw_head(
    seed: int, version: str = "1", *, midline_shift: float = 0.0, contrast_hu: float = 0.0, **changes: Any
) -> Head:
    """Draw one adult head.

    Parameters
    ----------
    seed : int
        The same seed gives the same head.
    version : str
        One of :data:`VERSIONS`.
    midline_shift : float
        Displacement of the midline towards the patient's left, mm (negative: to the right).
    contrast_hu : float
        What arteries, veins and choroid plexus measure after a contrast agent; 0 for a scan without.
    **changes
        Any other field of :class:`Head`, set instead of drawn. Everything else stays as the seed drew it.

    Raises
    ------
    UsageError
        If there is no such version or field, or a value is not possible.
    """
    if version not in VERSIONS:
        raise UsageError(f"there is no phantom of version {version!r}; known are {', '.join(VERSIONS)}")
    drawn = _draw_first(seed) if version == "1" else Head(seed=seed, version=version, **draw_person(seed))
    return changed(drawn, {"midline_shift": midline_shift, "contrast_hu": contrast_hu, **changes})


def _draw_first(seed: int) -> Head:
    """A head of version 1."""
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
    )
