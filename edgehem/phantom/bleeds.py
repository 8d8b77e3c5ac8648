"""Hemorrhages of a phantom as they are asked for, and as they come out.

Blood fills a *field* in millimetres over the voxels it may occupy, lowest values first (:mod:`edgehem.phantom.fields`);
the level is found by bisection, so that the stated volume is met.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgehem.errors import UsageError
from edgehem.phantom.shapes import F32

if TYPE_CHECKING:
    from edgehem.phantom.displacement import Flow

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
"""The RSNA 2019 challenge's five subtypes in its order; a mask holds 1 + this index."""


SITES = {
    "epidural": ("frontal", "parietal", "temporal", "occipital", "posterior fossa"),
    "intraparenchymal": (
        "frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe", "putamen", "caudate", "thalamus",
        "internal capsule", "midbrain", "pons", "medulla", "cerebellum", "vermis",
    ),
    "intraventricular": ("layering", "cast", "third ventricle", "fourth ventricle"),
    "subarachnoid": (
        "suprasellar", "sylvian", "interhemispheric", "perimesencephalic", "prepontine", "convexity",
    ),
    "subdural": ("frontal", "parietal", "temporal", "occipital", "falx", "tentorium", "posterior fossa"),
}  # fmt: skip
"""Where each subtype may lie."""
SIGNS = ("swirl", "black hole", "blend", "island", "satellite", "fluid level")
"""Signs on plain CT that a hemorrhage may show."""
AGES = ("hyperacute", "acute", "subacute", "chronic", "acute on chronic")
"""Ages of blood: hours, days 0-3, days 4-20, weeks, and fresh blood in an old collection."""

_RANGES = (("hu", 0, 110), ("mottle_hu", 0, 30), ("mottle_mm", 1, 40), ("irregularity", 0, 1), ("oedema_mm", 0, 30))


@dataclass(frozen=True, kw_only=True)
class Bleed:
    """One hemorrhage. None leaves a choice to the seed.

    Parameters
    ----------
    subtype : str
        One of :data:`SUBTYPES`.
    ml : float
        Volume, mL.
    site : str or None
        One of :data:`SITES` of its subtype.
    side : int or None
        +1 the patient's left, -1 the right.
    hu : float or None
        Mean density of the clot.
    mottle_hu, mottle_mm : float or None
        Standard deviation and grain of the density within the clot.
    irregularity : float or None
        0 a smooth ellipsoid ... 1 lobulated and multinodular.
    oedema_mm : float or None
        Width of the oedema around a parenchymal hemorrhage.
    signs : frozenset of str or None
        Of :data:`SIGNS`; empty for none at all.
    age : str
        One of :data:`AGES`.
    contusion : bool
        A parenchymal hemorrhage of the frontal or temporal base with salt-and-pepper mixing.
    """

    subtype: str
    ml: float
    site: str | None = None
    side: int | None = None
    hu: float | None = None
    mottle_hu: float | None = None
    mottle_mm: float | None = None
    irregularity: float | None = None
    oedema_mm: float | None = None
    signs: frozenset[str] | None = frozenset()
    age: str = "acute"
    contusion: bool = False

    def __post_init__(self) -> None:
        if self.subtype not in SUBTYPES:
            raise ValueError(f"unknown hemorrhage subtype {self.subtype!r}; one of {', '.join(SUBTYPES)}")
        if not 0 < self.ml <= 200:
            raise ValueError(f"a hemorrhage of {self.ml} mL is outside 0-200 mL")
        if self.site is not None and self.site not in SITES[self.subtype]:
            raise UsageError(f"{self.subtype} hemorrhage at {self.site!r}; one of {', '.join(SITES[self.subtype])}")
        if self.side not in (None, -1, 1):
            raise UsageError(f"side {self.side!r} of a hemorrhage; +1 (left), -1 (right) or None was expected")
        if unknown := sorted((self.signs or frozenset()) - set(SIGNS)):
            raise UsageError(f"unknown signs {', '.join(unknown)} of a hemorrhage; known are {', '.join(SIGNS)}")
        if self.age not in AGES:
            raise UsageError(f"unknown age {self.age!r} of a hemorrhage; one of {', '.join(AGES)}")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} {value} of a hemorrhage is outside {low:g} to {high:g}")
        if self.contusion and self.subtype != "intraparenchymal":
            raise UsageError(f"a contusion is intraparenchymal, not {self.subtype}")


@dataclass(frozen=True, kw_only=True)
class Bled:
    """A head after bleeding.

    Parameters
    ----------
    hu : float32 array [Z, Y, X]
    coverage : dict of subtype to float32 array [Z, Y, X]
        Share of each voxel that is blood, 0..1.
    ml : dict of subtype to float
        Volume reached, mL. Less than asked for only where the space is smaller (subarachnoid).
    hemorrhages : tuple of dict
        Site, side, age, signs, density and volume of each hemorrhage.
    flow : Flow or None
        How they move the brain; None where nothing moves.
    """

    hu: F32
    coverage: dict[str, F32]
    ml: dict[str, float]
    hemorrhages: tuple[dict[str, Any], ...] = ()
    flow: Flow | None = None

    @property
    def midline_shift_mm(self) -> float:
        """How far the septum is moved, towards the patient's left."""
        return 0.0 if self.flow is None else self.flow.midline_shift_mm


def fill(field: F32, weight: F32, voxels: float) -> F32:
    """Share of blood per voxel: weight under the level at which the shares add up to `voxels`."""
    candidates = np.flatnonzero((weight > 0) & (field < 1e3))
    share = np.zeros(field.shape, np.float32)
    if not candidates.size:
        return share
    f, w = field[candidates], weight[candidates]
    low, high = float(f.min()) - 1, float(f.max()) + 1
    for _ in range(26):
        level = (low + high) / 2
        if float((np.clip(0.5 - (f - level), 0, 1) * w).sum(dtype=np.float64)) < voxels:
            low = level
        else:
            high = level
    share[candidates] = np.clip(0.5 - (f - high), 0, 1) * w
    return share
