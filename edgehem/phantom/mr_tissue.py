"""What magnetic resonance sees of a head: proton density, relaxation and susceptibility of tissues and of blood.

The numbers are rounded and made to give the contrast that textbooks show; they are no reference for relaxometry.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgehem.errors import UsageError

FIELDS_T = (1.5, 3.0)
"""Field strengths the tables hold, tesla."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Substance:
    """A tissue or a stage of blood. Pairs hold values at 1.5 T and 3 T.

    Parameters
    ----------
    density : float
        Protons that can be seen, cerebrospinal fluid being 1.
    t1, t2, t2_star : tuple of float, ms
        `t2_star` without what the field's gradients over a voxel do: those are computed
        (:mod:`edgehem.phantom.mr_field`).
    ppm : float
        Magnetic susceptibility (SI) beside that of water, parts per million.
    stays : float
        Share that a spin echo keeps of what flows; 1 where nothing flows.
    """

    density: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    t2_star: tuple[float, float]
    ppm: float = 0.0
    stays: float = 1.0


OXYGEN_PPM = 3.39
"""Susceptibility of fully deoxygenated beside fully oxygenated red cells, ppm: 0.27 ppm (cgs) times 4 pi, Spees et al.,
Magnetic Resonance in Medicine 2001;45:533-42."""
VENOUS_PPM = round(OXYGEN_PPM * 0.42 * 0.32, 2)
"""Susceptibility of venous blood beside water, ppm: ours, for a haematocrit of 42 % of which 32 % without oxygen."""

TISSUES: dict[str, Substance] = {
    "air": Substance(density=0.0, t1=(1000, 1000), t2=(1, 1), t2_star=(1, 1), ppm=9.41),
    "fat": Substance(density=0.78, t1=(270, 380), t2=(85, 80), t2_star=(40, 28), ppm=0.65),
    "muscle": Substance(density=0.75, t1=(1000, 1400), t2=(44, 42), t2_star=(30, 24)),
    "bone": Substance(density=0.10, t1=(250, 300), t2=(0.6, 0.5), t2_star=(0.6, 0.5), ppm=-2.0),
    "marrow": Substance(density=0.52, t1=(320, 420), t2=(60, 55), t2_star=(14, 8), ppm=-0.3),
    "csf": Substance(density=1.00, t1=(4200, 4300), t2=(1800, 1500), t2_star=(600, 350)),
    "grey": Substance(density=0.83, t1=(1050, 1500), t2=(94, 90), t2_star=(70, 52), ppm=0.02),
    "white": Substance(density=0.71, t1=(640, 870), t2=(80, 72), t2_star=(66, 48), ppm=-0.02),
    "dura": Substance(density=0.60, t1=(900, 1100), t2=(32, 28), t2_star=(14, 9)),
    "vessel": Substance(density=0.92, t1=(1440, 1930), t2=(180, 120), t2_star=(55, 26), ppm=0.25, stays=0.08),
    "calcium": Substance(density=0.30, t1=(800, 1000), t2=(35, 30), t2_star=(6, 4), ppm=-3.0),
    "gliosis": Substance(density=0.86, t1=(1250, 1650), t2=(165, 150), t2_star=(110, 85)),
    "oedema": Substance(density=0.88, t1=(1350, 1750), t2=(170, 155), t2_star=(115, 90)),
    "vein": Substance(density=0.85, t1=(1440, 1930), t2=(110, 50), t2_star=(50, 20), ppm=VENOUS_PPM, stays=0.5),
}
"""By the names of ``Anatomy.materials``, and two of our own (oedema, small veins).

All values are ours, rounded. What they lean on: T1 of grey and white matter at 3 T lies between Wansapura et al.
(Journal of Magnetic Resonance Imaging 1999;9:531-8) and Stanisz et al. (Magnetic Resonance in Medicine 2005;54:507-12);
T1 of blood and the T2 of brain are near those of Stanisz; T1 of white matter at 1.5 T is shorter, as older textbooks
have it. The susceptibility of air beside water is 0.36 - (-9.05) ppm (Schenck, Medical Physics 1996;23:815-50). Flow
empties a spin echo (`stays`); no inflow is modelled.
"""

MATERIALS = tuple(name for name in TISSUES if name not in ("oedema", "vein"))
"""What the anatomy says a voxel consists of."""

BLOOD: dict[str, Substance] = {
    "oxy": Substance(density=0.90, t1=(1350, 1750), t2=(150, 135), t2_star=(120, 95)),
    "deoxy": Substance(
        density=0.86, t1=(1150, 1480), t2=(42, 30), t2_star=(20, 11), ppm=round(OXYGEN_PPM * 0.6 * 0.7, 2)
    ),
    "met_cell": Substance(density=0.84, t1=(380, 450), t2=(42, 30), t2_star=(20, 10), ppm=1.6),
    "met_free": Substance(density=0.92, t1=(330, 390), t2=(170, 155), t2_star=(90, 70), ppm=0.5),
    "haemosiderin": Substance(density=0.70, t1=(1050, 1450), t2=(18, 11), t2_star=(6, 3), ppm=3.0),
    "cavity": Substance(density=0.97, t1=(3300, 3500), t2=(380, 340), t2_star=(250, 180), ppm=0.05),
    "mixed": Substance(density=0.95, t1=(1500, 1850), t2=(210, 190), t2_star=(80, 60), ppm=0.3),
}
"""What blood turns into: oxyhaemoglobin, deoxyhaemoglobin in cells, methaemoglobin in cells and set free,
haemosiderin, the fluid of an old cavity, and fresh blood diluted in cerebrospinal fluid, whose oxygen keeps it from
turning dark.

The order of lighter and darker is that of Bradley, Radiology 1993;189:15-26; the numbers that give it are ours. A
retracted clot is taken as 60 % red cells, 70 % of them without oxygen.
"""

SUBSTANCES: dict[str, Substance] = {**TISSUES, **BLOOD}
NAMES = tuple(SUBSTANCES)
"""The order of the columns of a composition."""

STAGES = ("hyperacute", "acute", "early_subacute", "late_subacute", "chronic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clot:
    """What a hemorrhage of a stage consists of: a core, and a rim of `rim_mm` along its surface.

    Blood does not change everywhere at once: up to `lag` of the core, in patches, is still `before`.
    """

    core: str
    rim: str
    rim_mm: float
    before: str
    lag: float


CLOTS: dict[str, Clot] = {
    "hyperacute": Clot(core="oxy", rim="deoxy", rim_mm=0.8, before="mixed", lag=0.3),
    "acute": Clot(core="deoxy", rim="deoxy", rim_mm=0.0, before="oxy", lag=0.3),
    "early_subacute": Clot(core="deoxy", rim="met_cell", rim_mm=5.0, before="oxy", lag=0.15),
    "late_subacute": Clot(core="met_free", rim="haemosiderin", rim_mm=0.8, before="met_cell", lag=0.3),
    "chronic": Clot(core="cavity", rim="haemosiderin", rim_mm=2.0, before="met_free", lag=0.15),
}
"""Blood changes from its surface inwards (Bradley 1993); the thicknesses and shares are ours."""

DILUTED: dict[str, Clot] = {
    "hyperacute": Clot(core="mixed", rim="mixed", rim_mm=0.0, before="oxy", lag=0.5),
    "acute": Clot(core="mixed", rim="mixed", rim_mm=0.0, before="oxy", lag=0.5),
    "early_subacute": Clot(core="met_free", rim="met_free", rim_mm=0.0, before="mixed", lag=0.5),
    "late_subacute": Clot(core="met_free", rim="haemosiderin", rim_mm=0.4, before="mixed", lag=0.3),
    "chronic": Clot(core="csf", rim="haemosiderin", rim_mm=0.5, before="csf", lag=0.0),
}
"""Subarachnoid blood: no clot of its own at first, a film of haemosiderin (superficial siderosis) in the end. Ours."""

EXTRA_AXIAL: dict[str, Clot] = {
    **CLOTS,
    "chronic": Clot(core="mixed", rim="haemosiderin", rim_mm=0.5, before="met_free", lag=0.15),
}
"""Subdural and epidural blood: what is left in the end is fluid rich in protein, lighter than that of the ventricles in
FLAIR, in thin membranes. Ours."""

VENTRICULAR: dict[str, Clot] = {
    **CLOTS,
    "chronic": Clot(core="csf", rim="haemosiderin", rim_mm=0.5, before="csf", lag=0.0),
}
"""Blood in the ventricles clots as in the brain; in the end it is washed out and leaves a film on their walls. Ours."""

BY_SUBTYPE: dict[str, dict[str, Clot]] = {
    "epidural": EXTRA_AXIAL,
    "intraparenchymal": CLOTS,
    "intraventricular": VENTRICULAR,
    "subarachnoid": DILUTED,
    "subdural": EXTRA_AXIAL,
}
"""What a hemorrhage of each subtype consists of at each stage."""

_STAGE_ENDS_H = (24.0, 72.0, 168.0, 336.0)
"""Hours at which one stage is taken to end and the next to begin: 1, 3, 7 and 14 days (Bradley 1993)."""


def stage_at(hours: float) -> str:
    """The stage of blood that is `hours` old.

    Raises
    ------
    UsageError
        If `hours` is negative or no number.
    """
    if not hours >= 0:
        raise UsageError(f"blood that is {hours} hours old is not possible")
    return STAGES[sum(hours >= end for end in _STAGE_ENDS_H)]


IRON_MG_PER_KG: dict[str, tuple[float, float, float]] = {
    "pallidum": (214.1, 0.09, 3.7),
    "putamen": (146.2, 0.04, 4.6),
    "caudate": (96.6, 0.05, 3.3),
    "red_nucleus": (195.0, 0.06, 3.0),
    "dentate": (100.0, 0.06, 3.0),
}
"""Iron of deep grey matter, mg per kg of fresh tissue, a (1 - exp(-b age)) + c. Pallidum, putamen and caudate:
Hallgren and Sourander, J Neurochem 1958;3:41-51 (there per 100 g); red nucleus and dentate: ours."""
IRON_PPM = 0.0009
"""Susceptibility per mg of iron in a kg of tissue, ppm: ours, a rounded textbook value."""
IRON_R2_STAR = 0.05
"""R2* per mg of iron in a kg, 1/s and tesla: ours. A quarter of it is taken as R2."""
