"""Hemorrhage in a phantom: five subtypes, each by the space it spreads in, at a stated volume.

Every subtype is a *field* in millimetres over the voxels it may occupy: blood fills the lowest values first, and the
level is found by bisection so that the stated volume is met. Extradural and subdural blood follow the inner table,
subarachnoid blood the fluid spaces from a centre outwards, intraventricular blood sinks to the back of the ventricles
(the patient lies supine), intraparenchymal blood is an irregular ellipsoid with oedema around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.brain import Kind, Tissue, ventricle_distance
from edgehem.phantom.shapes import F32, Bool, PointField, smoothstep

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
"""Where each subtype may lie in version 2."""
SIGNS = ("swirl", "black hole", "blend", "island", "satellite", "fluid level")
"""Signs on plain CT that a hemorrhage of version 2 may show."""
AGES = ("hyperacute", "acute", "subacute", "chronic", "acute on chronic")
"""Ages of blood in version 2: hours, days 0-3, days 4-20, weeks, and fresh blood in an old collection."""

_RANGES = (("hu", 0, 110), ("mottle_hu", 0, 30), ("mottle_mm", 1, 40), ("irregularity", 0, 1), ("oedema_mm", 0, 30))


@dataclass(frozen=True, kw_only=True)
class Bleed:
    """One hemorrhage. None leaves a choice to the seed; everything after `ml` is version 2's.

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

    @property
    def plain(self) -> bool:
        """Whether version 1 can paint it: nothing but subtype and volume was asked for."""
        return self == Bleed(subtype=self.subtype, ml=self.ml)


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
        Version 2: site, side, age, signs, density and volume of each hemorrhage.
    flow : Flow or None
        Version 2: how they move the brain; None where nothing moves.
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


def side_of(seed: int) -> int:
    """The side a seed's hemorrhages lie on: +1 the patient's left, -1 the right."""
    return 1 if np.random.default_rng([seed, 3]).random() < 0.5 else -1


def midline_shift(bleeds: Sequence[Bleed], seed: int) -> float:
    """Midline shift that the stated hemorrhages cause, mm, away from their side.

    A rule of thumb of ours: nothing below 15 mL, then 1 mm for every 6 mL, at most 14 mm.
    """
    mass = sum(b.ml for b in bleeds if b.subtype in ("epidural", "intraparenchymal", "subdural"))
    return -side_of(seed) * float(np.clip((mass - 15) / 6, 0, 14))


def bleed(anatomy: Anatomy, bleeds: Sequence[Bleed], seed: int) -> Bled:
    """Put hemorrhages into a head.

    Parameters
    ----------
    anatomy : Anatomy
        Not modified.
    bleeds : sequence of Bleed
        Painted in this order; by version 1, which knows subtype and volume only.
    seed : int

    Returns
    -------
    Bled

    Raises
    ------
    UsageError
        If a hemorrhage asks for more.
    """
    for item in bleeds:
        if not item.plain:
            raise UsageError("a hemorrhage with more than a subtype and a volume needs phantoms of version 2")
    hu = anatomy.hu.copy()
    flat = hu.reshape(-1)
    coverage: dict[str, F32] = {}
    volumes: dict[str, float] = {}
    side = side_of(seed)
    for number, item in enumerate(bleeds):
        rng = np.random.default_rng([seed, 4, number])
        field, weight = _FIELDS[item.subtype](anatomy, item.ml, side, rng)
        share = fill(field, weight, item.ml / anatomy.voxel_ml)
        tissue = anatomy.tissue
        touched = np.flatnonzero(share > 0)
        at = tissue.index[touched]
        clot = PointField(rng, 16, waves=6)(tissue.x[touched], tissue.y[touched], tissue.z[touched])
        density = {"subarachnoid": rng.uniform(48, 72), "intraventricular": rng.uniform(52, 78)}
        mean = float(density.get(item.subtype, rng.uniform(55, 82)))
        if item.subtype == "intraparenchymal":
            _oedema(flat, tissue, field, float(rng.uniform(1.5, 8)), float(rng.uniform(4, 11)))
        flat[at] += (mean + float(rng.uniform(1, 5)) * clot - flat[at]) * share[touched]
        block = coverage.setdefault(item.subtype, np.zeros_like(hu))
        np.maximum.at(block.reshape(-1), at, share[touched])
        volumes[item.subtype] = float(block.sum(dtype=np.float64) * anatomy.voxel_ml)
    return Bled(hu=hu, coverage=coverage, ml=volumes)


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


def _oedema(flat: F32, tissue: Tissue, field: F32, width: float, drop: float) -> None:
    """Darken the tissue around an intraparenchymal hemorrhage, in place."""
    around = np.flatnonzero((tissue.kind <= Kind.CEREBELLUM) & (field < width + 1) & (tissue.fluid < 0.3))
    # The clot's surface lies where the field is 0 (its radius is subtracted); oedema fades over `width` mm.
    flat[tissue.index[around]] -= drop * (1 - smoothstep(field[around], 0.3 * width, width + 0.5))


def _intraparenchymal(anatomy: Anatomy, ml: float, side: int, rng: np.random.Generator) -> tuple[F32, F32]:
    t = anatomy.tissue
    sites = ["putamen", "lobar", "lobar", "thalamus"] + ["cerebellum"] * (ml < 25) + ["pons"] * (ml < 7)
    site = str(rng.choice(sites))
    if site == "lobar":
        pool = np.flatnonzero((t.kind == Kind.PARENCHYMA) & (t.depth > 6) & (t.depth < 26) & (t.x * side > 8))
        pick = int(pool[rng.integers(pool.size)])
        centre = (float(t.x[pick]), float(t.y[pick]), float(t.z[pick]))
    else:
        x, y, z = {"putamen": (26, -12, 2), "thalamus": (12, 2, 7), "cerebellum": (22, 50, -36), "pons": (2, 6, -30)}[
            site
        ]
        jitter = rng.normal(0, 2, 3)
        centre = (side * x + float(jitter[0]), y + float(jitter[1]), z + float(jitter[2]))
    radius = (3 * ml * 1000 / (4 * np.pi)) ** (1 / 3)
    stretch = np.exp(rng.normal(0, 0.2, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0] / stretch[:, None]
    near = np.flatnonzero(
        (t.x - centre[0]) ** 2 + (t.y - centre[1]) ** 2 + (t.z - centre[2]) ** 2 < (3 * radius + 15) ** 2
    )
    field = np.full(t.x.shape, 1e4, np.float32)
    offset = np.stack([t.x[near] - centre[0], t.y[near] - centre[1], t.z[near] - centre[2]])
    distance = np.linalg.norm(axes.astype(np.float32) @ offset.astype(np.float32), axis=0)
    rough = PointField(rng, 1.6 * radius + 8)(*offset) * float(rng.uniform(0.08, 0.28)) * radius
    field[near] = distance - radius + rough
    allowed = (t.kind <= Kind.BRAINSTEM) | ((t.kind == Kind.SUBARACHNOID) & (t.depth > 4))
    if site in {"putamen", "thalamus"}:
        allowed &= t.x * side > 1
    return field, allowed.astype(np.float32)


def _intraventricular(anatomy: Anatomy, ml: float, side: int, rng: np.random.Generator) -> tuple[F32, F32]:
    t = anatomy.tissue
    ventricle = t.kind == Kind.VENTRICLE
    capacity = float(ventricle.sum()) * anatomy.voxel_ml
    if ml > 0.7 * capacity or rng.random() < 0.25:
        # A cast: the ventricles fill whole, and widen when the volume asks for it.
        near = np.flatnonzero((t.kind <= Kind.VENTRICLE) & (np.abs(t.x) < 50) & (t.depth > 8))
        field = np.full(t.x.shape, 1e4, np.float32)
        field[near] = ventricle_distance(anatomy.head, t.x[near], t.y[near], t.z[near])
        if ml < 0.7 * capacity:
            field[near] += np.where(t.x[near] * side > -2, 0, 12).astype(np.float32)
            field[near] += np.maximum(0, -t.y[near] - 20) * 0.15
        return field, (t.kind <= Kind.VENTRICLE).astype(np.float32)
    # Blood settles: the lowest point of a supine patient is the back.
    other = float(rng.uniform(0, 25))
    field = (
        -t.y
        + 0.25 * t.z
        + np.where(t.x * side > 0, 0, other).astype(np.float32)
        + 1.5 * PointField(rng, 12)(t.x, t.y, t.z)
    )
    return np.asarray(field, np.float32), (ventricle * np.minimum(1, t.fluid * 1.2)).astype(np.float32)


def _subarachnoid(anatomy: Anatomy, ml: float, side: int, rng: np.random.Generator) -> tuple[F32, F32]:
    t = anatomy.tissue
    kind = str(rng.choice(["basal", "sylvian", "convexity"], p=[0.5, 0.25, 0.25]))
    if kind == "convexity":
        pool = np.flatnonzero((t.kind == Kind.SUBARACHNOID) & (t.depth < 15) & (t.z > 10) & (t.x * side > 5))
        pool = pool if pool.size else np.flatnonzero(t.kind == Kind.SUBARACHNOID)
        pick = int(pool[rng.integers(pool.size)])
        centre = (float(t.x[pick]), float(t.y[pick]), float(t.z[pick]))
    else:
        centre = (0, -15, -18) if kind == "basal" else (side * 38, -12, -4)
    distance = np.sqrt((t.x - centre[0]) ** 2 + (t.y - centre[1]) ** 2 + (t.z - centre[2]) ** 2)
    field = distance + 6 * PointField(rng, 30)(t.x, t.y, t.z)
    space: Bool = (t.kind == Kind.SUBARACHNOID) & (t.z > -62)
    # Blood distends the space it fills: thin sulci show it in real scans, too.
    return np.asarray(field, np.float32), (space * np.minimum(1, 1.6 * t.fluid)).astype(np.float32)


def _direction(side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A direction towards the convexity of one side, unit float32 [3]."""
    vector = np.array([side * 1.0, rng.normal(0, 0.7), rng.normal(0.35, 0.4)])
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _subdural(anatomy: Anatomy, ml: float, side: int, rng: np.random.Generator) -> tuple[F32, F32]:
    t = anatomy.tissue
    # The tentorium and the falx bound the subdural space; fluid over the brain is pushed away.
    allowed = (t.kind != Kind.CEREBELLUM) & (t.kind != Kind.BRAINSTEM) & (t.kind != Kind.CANAL) & (t.x * side > 0.5)
    if ml < 15 and rng.random() < 0.3:
        # Along the falx.
        extent = np.hypot((t.y - float(rng.uniform(-40, 50))) / 32, (t.z - float(rng.uniform(25, 45))) / 18)
        field = np.abs(t.x) + 3.5 * extent**2
        field = np.where((t.depth < 42) & (t.z > 8), field, np.float32(1e4))
    else:
        direction = _direction(side, rng)
        radius = np.sqrt(t.x**2 + t.y**2 + t.z**2) + 1e-3
        cosine = (t.x * direction[0] + t.y * direction[1] + t.z * direction[2]) / radius
        # Thickness grows with the volume as acute subdurals do, 4 mm at 2 mL to 11 mm at 60 mL (a rule of ours, with
        # scatter); the area under it follows, a cap of 60 % mean filling on a sphere of 72 mm.
        thickest = float(rng.uniform(0.75, 1.3)) * (2.3 + 1.15 * float(np.sqrt(ml)))
        cap = np.sqrt(1000 * ml / (0.6 * thickest * np.pi)) / 72
        reach = float(np.cos(min(cap, 1.75)))
        profile = np.clip((cosine - reach) / (1 - reach), 0, 1) ** np.float32(0.6)
        ripple = 1 + 0.15 * PointField(rng, 35)(t.x, t.y, t.z)
        thick = np.maximum(profile * ripple, 1e-3)
        field = np.where((profile > 0.02) & (t.z > -35), t.depth / thick, np.float32(1e4))
    return np.asarray(field, np.float32), allowed.astype(np.float32)


def _epidural(anatomy: Anatomy, ml: float, side: int, rng: np.random.Generator) -> tuple[F32, F32]:
    t = anatomy.tissue
    direction = _direction(side, rng)
    radius = np.sqrt(t.x**2 + t.y**2 + t.z**2) + 1e-3
    cosine = (t.x * direction[0] + t.y * direction[1] + t.z * direction[2]) / radius
    # A lens on the inner table: distance along the surface against depth, flatter than a half ball.
    shell = radius + t.depth
    along = shell * np.arccos(np.clip(cosine, -1, 1))
    flat = float(rng.uniform(0.38, 0.62))
    field = np.sqrt(along**2 + (t.depth / flat) ** 2)
    field += 1.0 * PointField(rng, 25)(t.x, t.y, t.z)
    allowed = (t.kind != Kind.CANAL) & (t.x * side > 0.5)
    return np.asarray(field, np.float32), allowed.astype(np.float32)


_FIELDS = {
    "epidural": _epidural,
    "intraparenchymal": _intraparenchymal,
    "intraventricular": _intraventricular,
    "subarachnoid": _subarachnoid,
    "subdural": _subdural,
}
