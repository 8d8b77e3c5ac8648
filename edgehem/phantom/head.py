"""The head as numbers: what differs from one phantom to the next."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from edgehem.errors import UsageError
from edgehem.phantom.people import SINUSES, SURGERIES, TERRITORIES, draw_person


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
    # mass effect: the brain's midline is pushed by this much towards +x (left), mm
    midline_shift: float = 0.0
    # contrast agent: what vessels and plexus measure, HU; 0 where none was given
    contrast_hu: float = 0.0
    # The defaults of what follows mean "not there".
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
        If a name is no field of :class:`Head`, or the seed, or a value is not possible.
    """
    known = {field.name for field in fields(Head)} - {"seed"}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise UsageError(
            f"a head has no field {', '.join(unknown)} that can be set; known are {', '.join(sorted(known))}"
        )
    return replace(head, **changes) if changes else head


def draw_head(seed: int, **changes: Any) -> Head:
    """Draw one adult head.

    Parameters
    ----------
    seed : int
        The same seed gives the same head.
    **changes
        Any other field of :class:`Head`, set instead of drawn. Everything else stays as the seed drew it.

    Raises
    ------
    UsageError
        If there is no such field, or a value is not possible.
    """
    return changed(Head(seed=seed, **draw_person(seed)), changes)
