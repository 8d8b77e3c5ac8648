"""Fields that blood fills from their lowest value upwards, one for each subtype.

A field is in mm and does not depend on the volume that will fill it, except through `ml`, which sets the scale of its
irregularities: the same field filled to two levels gives two times of one hemorrhage, the later around the earlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.cerebrum import ventricle_distance
from edgehem.phantom.places import CISTERNS, direction, start
from edgehem.phantom.shapes import F32, Bool, PointField, Triple
from edgehem.phantom.spread import FAR, arrival
from edgehem.phantom.tissue import Kind


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a hemorrhage fills.

    Parameters
    ----------
    field : float32 array [N], mm
        Over the anatomy's tissue; filled from its lowest value.
    weight : float32 array [N]
        Share of each voxel that blood can take.
    origin : tuple of float
        Where it starts, head coordinates mm.
    ventricle : bool array [N] or None
        Ventricle that a parenchymal hemorrhage may break into.
    """

    field: F32
    weight: F32
    origin: Triple
    ventricle: Bool | None = None


def radius_of(ml: float) -> float:
    """Radius of a ball, mm."""
    return float(np.cbrt(3 * ml * 1000 / (4 * np.pi)))


def parenchymal(
    anatomy: Anatomy,
    ml: float,
    site: str,
    side: int,
    irregularity: float,
    nodules: int,
    contusion: bool,
    rng: np.random.Generator,
) -> Space:
    """Blood from a point through tissue, with lobes, and `nodules` that lie apart."""
    t = anatomy.tissue
    origin = start(anatomy, site, side, contusion, rng)
    radius = radius_of(ml)
    seeds: list[tuple[Triple, float]] = [(origin, 0.0)]
    for _ in range(round(5 * irregularity)):
        away = rng.standard_normal(3)
        away *= rng.uniform(0.55, 1.0) * radius / np.linalg.norm(away)
        place = (origin[0] + float(away[0]), origin[1] + float(away[1]), origin[2] + float(away[2]))
        seeds.append((place, float(rng.uniform(0.25, 0.6)) * radius))
    points, time = arrival(anatomy, seeds, 2.0 * radius + 14)
    x, y, z = t.x[points], t.y[points], t.z[points]
    rough = (0.06 + 0.16 * irregularity) * radius * PointField(rng, 1.5 * radius + 6)(x, y, z)
    rough += (0.4 + 0.9 * irregularity) * PointField(rng, 7, waves=6)(x, y, z)
    if contusion:
        rough += 3.5 * PointField(rng, 9, waves=6)(x, y, z)
    local = time - np.float32(radius) + rough
    for _ in range(nodules):
        away = rng.standard_normal(3)
        away *= (1.25 * radius + rng.uniform(4, 9)) / np.linalg.norm(away)
        size = float(rng.uniform(2.2, 4.2))
        centre = np.asarray(origin, np.float32) + away.astype(np.float32)
        apart = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) - size
        local = np.minimum(local, apart + 0.6)
    field = np.full(t.x.shape, FAR, np.float32)
    field[points] = local
    allowed = (t.kind <= Kind.BRAINSTEM) | ((t.kind == Kind.SUBARACHNOID) & (t.depth > 4))
    return Space(field=field, weight=allowed.astype(np.float32), origin=origin, ventricle=t.kind == Kind.VENTRICLE)


def intraventricular(anatomy: Anatomy, ml: float, site: str, side: int, rng: np.random.Generator) -> Space:
    """Blood that settles to the back of the ventricles, fills them whole, or stays in the third or fourth."""
    t = anatomy.tissue
    ventricle = t.kind == Kind.VENTRICLE
    if site == "layering" and ml > 0.6 * float(ventricle.sum()) * anatomy.voxel_ml:
        site = "cast"
    if site == "layering":
        other = float(rng.uniform(0, 25))
        field = -t.y + 0.25 * t.z + np.where(t.x * side > 0, 0, other).astype(np.float32)
        field += 1.5 * PointField(rng, 12)(t.x, t.y, t.z)
        weight = (ventricle * np.minimum(1, t.fluid * 1.2)).astype(np.float32)
        return Space(field=np.asarray(field, np.float32), weight=weight, origin=(20.0 * side, 45, 5))
    near = np.flatnonzero((t.kind <= Kind.VENTRICLE) & (np.abs(t.x) < 50) & (t.depth > 8))
    field = np.full(t.x.shape, FAR, np.float32)
    x, y, z = t.x[near], t.y[near], t.z[near]
    field[near] = ventricle_distance(anatomy.head, x, y, z)
    centre: Triple = {"third ventricle": (0, -7, -1), "fourth ventricle": (0, 31, -31)}.get(site, (8.0 * side, 0, 15))
    away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    if site == "cast":
        field[near] += np.where(x * side > -2, 0, 6).astype(np.float32) + 0.04 * away
    else:
        field[near] += 0.6 * np.clip(away - 9, 0, None)
    return Space(field=field, weight=(t.kind <= Kind.VENTRICLE).astype(np.float32), origin=centre)


def subarachnoid(anatomy: Anatomy, ml: float, site: str, side: int, rng: np.random.Generator) -> Space:
    """Blood in fluid spaces around the brain, outwards from a cistern or a place on the convexity."""
    t = anatomy.tissue
    if site == "convexity":
        pool = np.flatnonzero((t.kind == Kind.SUBARACHNOID) & (t.depth < 15) & (t.z > 10) & (t.x * side > 5))
        pool = pool if pool.size else np.flatnonzero(t.kind == Kind.SUBARACHNOID)
        pick = int(pool[rng.integers(pool.size)])
        centre: Triple = (float(t.x[pick]), float(t.y[pick]), float(t.z[pick]))
    else:
        at = CISTERNS[site]
        centre = (side * at[0], at[1], at[2])
    distance = np.sqrt((t.x - centre[0]) ** 2 + (t.y - centre[1]) ** 2 + (t.z - centre[2]) ** 2)
    field = distance + 6 * PointField(rng, 30)(t.x, t.y, t.z) + 0.1 * np.clip(-t.y, 0, None)
    # Blood distends what it fills, so sulci that are closed in this head can hold some.
    space = ((t.kind == Kind.SUBARACHNOID) & (t.z > -62)) * np.minimum(1, 1.6 * t.fluid)
    near_surface = (t.kind <= Kind.CEREBELLUM) & (t.fluid > 0.12) & (t.z > -62)
    return Space(
        field=np.asarray(field, np.float32),
        weight=np.asarray(np.maximum(space, near_surface * t.fluid * 1.3), np.float32),
        origin=centre,
    )


def _bone_cosine(anatomy: Anatomy, towards: F32) -> tuple[F32, F32]:
    """Cosine of every point's direction with another, and its distance from the head's middle, mm."""
    t = anatomy.tissue
    radius = np.sqrt(t.x**2 + t.y**2 + t.z**2) + np.float32(1e-3)
    return (t.x * towards[0] + t.y * towards[1] + t.z * towards[2]) / radius, radius


def subdural(anatomy: Anatomy, ml: float, site: str, side: int, rng: np.random.Generator) -> Space:
    """A crescent under the vault, or blood along the falx or the tentorium."""
    t = anatomy.tissue
    own = t.x * side > 0.5
    below = (t.kind == Kind.CEREBELLUM) | (t.kind == Kind.BRAINSTEM)
    allowed = (t.kind != Kind.CANAL) & own & (below if site == "posterior fossa" else ~below)
    if site == "posterior fossa":
        allowed = (t.kind != Kind.CANAL) & own & (t.y > 8) & (t.z < 8 - 0.5 * np.abs(t.x))
    if site == "falx":
        extent = ((t.y - float(rng.uniform(-40, 50))) / 32) ** 2 + ((t.z - float(rng.uniform(25, 45))) / 18) ** 2
        field = np.where((t.depth < 48) & (t.z > 6), np.abs(t.x) + 3.0 * extent, FAR)
        return Space(field=np.asarray(field, np.float32), weight=allowed.astype(np.float32), origin=(1.0 * side, 0, 35))
    if site == "tentorium":
        height = 10 - 0.56 * np.abs(t.x) - 0.0045 * np.clip(t.y - 25, 0, None) ** 2
        extent = ((np.abs(t.x) - 26) / 18) ** 2 + ((t.y - 42) / 22) ** 2
        over = t.z - height
        field = np.where((over > -0.5) & (t.y > 10), over + 2.5 * extent, FAR)
        origin: Triple = (26.0 * side, 42, -4)
        return Space(field=np.asarray(field, np.float32), weight=allowed.astype(np.float32), origin=origin)
    towards = direction(site, side, rng)
    cosine, _ = _bone_cosine(anatomy, towards)
    # Thickness grows with volume as acute subdurals do, 4 mm at 2 mL to 11 mm at 60 mL (a rule of ours, with scatter);
    # the area follows, a cap of 60 % mean filling on a sphere of 72 mm.
    thickest = float(rng.uniform(0.75, 1.3)) * (2.3 + 1.15 * float(np.sqrt(ml)))
    cap = np.sqrt(1000 * ml / (0.6 * thickest * np.pi)) / 72
    reach = float(np.cos(min(cap, 1.75)))
    profile = np.sqrt(np.clip((cosine - reach) / (1 - reach), 0, 1))
    ripple = 1 + 0.15 * PointField(rng, 35)(t.x, t.y, t.z)
    thick = np.maximum(profile * ripple, 1e-3)
    low = -62 if site == "posterior fossa" else -35
    field = np.where((profile > 0.02) & (t.z > low), t.depth / thick, FAR)
    middle: Triple = (float(70 * towards[0]), float(70 * towards[1]), float(70 * towards[2]))
    return Space(field=np.asarray(field, np.float32), weight=allowed.astype(np.float32), origin=middle)


def epidural(anatomy: Anatomy, ml: float, site: str, side: int, rng: np.random.Generator) -> Space:
    """A lens between bone and dura, flatter than half a ball."""
    t = anatomy.tissue
    towards = direction(site, side, rng)
    cosine, radius = _bone_cosine(anatomy, towards)
    along = (radius + t.depth) * np.arccos(np.clip(cosine, -1, 1))
    flat = float(rng.uniform(0.38, 0.62))
    field = np.sqrt(along**2 + (t.depth / flat) ** 2) + 1.0 * PointField(rng, 25)(t.x, t.y, t.z)
    allowed = (t.kind != Kind.CANAL) & (t.x * side > 0.5)
    middle: Triple = (float(70 * towards[0]), float(70 * towards[1]), float(70 * towards[2]))
    return Space(field=np.asarray(field, np.float32), weight=allowed.astype(np.float32), origin=middle)
