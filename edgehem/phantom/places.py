"""Where hemorrhages start, by the names of their sites, and which name a place has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.shapes import Bool, Triple
from edgehem.phantom.tissue import Kind, Tissue

DEEP: dict[str, tuple[Triple, float]] = {
    "putamen": ((25, -14, 3), 2.5),
    "caudate": ((13.5, -31, 9), 1.5),
    "thalamus": ((11, 3, 7), 2.0),
    "internal capsule": ((18, -2, 8), 1.5),
    "midbrain": ((4, 4, -12), 1.5),
    "pons": ((3, 5, -30), 2.0),
    "medulla": ((2, 14, -48), 1.0),
    "cerebellum": ((22, 48, -36), 3.0),
    "vermis": ((1, 48, -30), 2.0),
}
"""Head coordinates on the left, and how far a clot's start lies from them (standard deviation), mm (ours)."""
FREQUENCIES = {
    "frontal lobe": 0.13, "parietal lobe": 0.13, "temporal lobe": 0.10, "occipital lobe": 0.06, "putamen": 0.28,
    "caudate": 0.03, "thalamus": 0.14, "internal capsule": 0.02, "midbrain": 0.01, "pons": 0.03, "medulla": 0.005,
    "cerebellum": 0.055, "vermis": 0.01,
}  # fmt: skip
"""How often each site of a parenchymal hemorrhage is drawn (ours, in the order of what series report)."""
CAPACITY_ML = {"midbrain": 6.0, "pons": 12.0, "medulla": 2.5, "vermis": 15.0, "cerebellum": 45.0, "caudate": 25.0}
"""Sites that are not drawn for larger volumes (ours)."""
CISTERNS: dict[str, Triple] = {
    "suprasellar": (0, -17, -19),
    "sylvian": (38, -12, -4),
    "interhemispheric": (0, -50, 12),
    "perimesencephalic": (0, 6, -12),
    "prepontine": (0, -9, -28),
}
"""Centres of the subarachnoid spaces that blood starts in."""
SURFACE: dict[str, Triple] = {
    "frontal": (0.75, -0.75, 0.35),
    "parietal": (0.85, 0.15, 0.65),
    "temporal": (1.0, -0.15, -0.05),
    "occipital": (0.6, 0.85, 0.3),
    "posterior fossa": (0.5, 0.75, -0.55),
}
"""Direction of the middle of an epidural or subdural collection on the left."""


def lobes(t: Tissue) -> dict[str, Bool]:
    """Which points lie in the white matter and cortex of each lobe, by planes through head coordinates."""
    brain = t.kind == Kind.PARENCHYMA
    temporal = (t.z < 2 - 0.25 * t.y) & (np.abs(t.x) > 26) & (t.y > -38) & (t.y < 40)
    occipital = (t.y > 48) & ~temporal
    frontal = (t.y < -22) & ~temporal
    return {
        "temporal lobe": brain & temporal,
        "occipital lobe": brain & occipital,
        "frontal lobe": brain & frontal,
        "parietal lobe": brain & ~temporal & ~occipital & ~frontal & (t.z > 18),
    }


def start(anatomy: Anatomy, site: str, side: int, contusion: bool, rng: np.random.Generator) -> Triple:
    """Where a parenchymal hemorrhage starts, head coordinates mm."""
    t = anatomy.tissue
    if site in DEEP:
        at, jitter = DEEP[site]
        moved = np.asarray(at) + rng.normal(0, jitter, 3)
        return side * float(moved[0]), float(moved[1]), float(moved[2])
    inside = lobes(t)[site] & (t.x * side > 8)
    # Contusions lie where the brain strikes bone, lobar hemorrhages at the border of cortex and white matter.
    inside &= (t.depth > 3) & (t.depth < 9) & (t.z < 6) if contusion else (t.depth > 9) & (t.depth < 26)
    pool = np.flatnonzero(inside)
    if not pool.size:
        pool = np.flatnonzero(lobes(t)[site] & (t.x * side > 3))
    pick = int(pool[rng.integers(pool.size)])
    return float(t.x[pick]), float(t.y[pick]), float(t.z[pick])


def draw_site(ml: float, contusion: bool, rng: np.random.Generator) -> str:
    """Site of a parenchymal hemorrhage of some volume."""
    if contusion:
        return str(rng.choice(["frontal lobe", "temporal lobe"]))
    names = [name for name in FREQUENCIES if ml <= CAPACITY_ML.get(name, 200.0)]
    weights = np.asarray([FREQUENCIES[name] for name in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def direction(site: str, side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Direction from the head's middle to that of a collection under the skull, unit float32 [3]."""
    x, y, z = SURFACE[site]
    vector = np.array([side * x, y, z]) + rng.normal(0, 0.14, 3)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
