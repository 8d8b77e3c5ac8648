"""Iron that magnetic resonance shows and CT does not: deep grey matter, and microbleeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.mr_anatomy import steps_of
from edgehem.phantom.mr_tissue import IRON_MG_PER_KG
from edgehem.phantom.shapes import F32, ellipsoid, soft
from edgehem.phantom.tissue import Kind

_NUCLEI = {
    "pallidum": ((19.5, -13, 0.5), (3.2, 8, 6)),
    "putamen": ((27, -15, 3), (4, 13, 9)),
    "caudate": ((13, -31, 9), (5, 10, 9)),
    "red_nucleus": ((4.8, 2, -7), (2.8, 3.2, 3.5)),
    "dentate": ((15, 44, -38), (6, 5, 3)),
}
"""Centre (of the left side) and radii in head coordinates, mm, inside the nuclei that the anatomy paints. Ours."""


def deep_iron(anatomy: Anatomy) -> F32:
    """Iron of the deep nuclei, mg per kg, at every voxel inside the skull; 0 elsewhere: float32 [N].

    It grows with age as Hallgren and Sourander found (:data:`edgehem.phantom.mr_tissue.IRON_MG_PER_KG`).
    """
    t, age = anatomy.tissue, anatomy.head.age_years
    iron = np.zeros(t.x.shape, np.float32)
    deep = np.flatnonzero((np.abs(t.x) < 34) & (t.y > -46) & (t.y < 52) & (t.z > -44) & (t.z < 22) & (t.fluid < 0.5))
    x, y, z = np.abs(t.x[deep]), t.y[deep], t.z[deep]
    for name, (centre, radii) in _NUCLEI.items():
        most, rate, rest = IRON_MG_PER_KG[name]
        amount = most * (1 - np.exp(-rate * age)) + rest
        inside = soft(ellipsoid(x, y, z, centre, radii), 1.5)
        iron[deep] = np.maximum(iron[deep], inside * np.float32(amount))
    return iron


@dataclass(frozen=True, kw_only=True)
class Microbleed:
    """A microbleed: a spot of haemosiderin that CT does not show.

    Parameters
    ----------
    centre_mm : tuple of float
        DICOM patient coordinates (LPS).
    diameter_mm : float
        Of the spot itself; in the image it is larger, the more so the longer the echo time.
    place : str
        ``lobar``, ``deep`` or ``infratentorial``.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    place: str


PLACES = ("lobar", "deep", "infratentorial")
_PLACE_CHANCES = ((0.75, 0.15, 0.10), (0.2, 0.5, 0.3))
"""Where the microbleeds of a head are, if its vessels suffer from amyloid, or from high pressure: ours."""


def microbleed_chance(age_years: float) -> float:
    """Share of heads with microbleeds: grows with age, 5 % at 45 and 26 % at 80. Ours."""
    return float(np.clip(0.05 + 0.006 * (age_years - 45), 0.02, 0.4))


def draw_microbleeds(anatomy: Anatomy, seed: int, count: int | None = None) -> tuple[Microbleed, ...]:
    """Draw the microbleeds of a head.

    Parameters
    ----------
    anatomy : Anatomy
    seed : int
    count : int, optional
        How many; left to the seed without it: mostly none, else one to about ten.
    """
    rng = np.random.default_rng([seed, 65])
    present = rng.random() < microbleed_chance(anatomy.head.age_years)
    drawn = int(rng.geometric(0.35)) if present else 0
    chances = _PLACE_CHANCES[int(rng.random() < 0.5)]
    t = anatomy.tissue
    brain = (t.fluid < 0.05) & (t.depth > 4)
    central = (np.abs(t.x) < 32) & (t.y > -34) & (t.y < 16) & (t.z > -6) & (t.z < 22)
    parenchyma = brain & (t.kind == Kind.PARENCHYMA)
    pools = {
        "lobar": np.flatnonzero(parenchyma & ~central & (t.depth < 30)),
        "deep": np.flatnonzero(parenchyma & central),
        "infratentorial": np.flatnonzero(brain & ((t.kind == Kind.CEREBELLUM) | (t.kind == Kind.BRAINSTEM))),
    }
    spots = []
    for _ in range(drawn if count is None else count):
        place = str(rng.choice(PLACES, p=chances))
        pool = pools[place] if pools[place].size else np.flatnonzero(t.depth > 0)
        pick = pool[int(rng.random() * len(pool))]
        z, y, x = (
            float(a[i]) for a, i in zip(anatomy.axes, np.unravel_index(t.index[pick], anatomy.hu.shape), strict=True)
        )
        spots.append(Microbleed(centre_mm=(x, y, z), diameter_mm=round(float(rng.uniform(1.5, 5.0)), 2), place=place))
    return tuple(spots)


def microbleed_shares(anatomy: Anatomy, spot: Microbleed) -> tuple[npt.NDArray[np.int64], F32]:
    """Voxels that a microbleed touches, and how much of each it fills: int64 [K], float32 [K]."""
    reach = spot.diameter_mm / 2 + 1.5
    ranges = [
        np.flatnonzero(np.abs(axis - np.float32(c)) < reach)
        for axis, c in zip(anatomy.axes, reversed(spot.centre_mm), strict=True)
    ]
    iz, iy, ix = np.meshgrid(*ranges, indexing="ij")
    # A voxel is tried at 4 x 4 x 4 points.
    steps, tries = steps_of(anatomy.axes), (np.arange(4) - 1.5) / 4
    square = np.zeros((*iz.shape, 4, 4, 4), np.float32)
    for k, (axis, i, c) in enumerate(zip(anatomy.axes, (iz, iy, ix), reversed(spot.centre_mm), strict=True)):
        offset = tries.reshape([4 if j == k else 1 for j in range(3)]) * steps[k]
        square += (axis[i][..., None, None, None] + offset.astype(np.float32) - np.float32(c)) ** 2
    share = (square < np.float32(spot.diameter_mm / 2) ** 2).mean(axis=(3, 4, 5), dtype=np.float32)
    touched = share > 0
    index = np.ravel_multi_index((iz[touched], iy[touched], ix[touched]), anatomy.hu.shape)
    return np.asarray(index, np.int64), share[touched]
