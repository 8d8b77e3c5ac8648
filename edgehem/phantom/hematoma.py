"""Hemorrhages in a head: choices left to the seed, density and signs, oedema, mass effect, their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.bleeds import SITES, Bled, Bleed, fill
from edgehem.phantom.displacement import Flow, carry, displace
from edgehem.phantom.fields import Space, epidural, intraventricular, parenchymal, subarachnoid, subdural
from edgehem.phantom.places import draw_site
from edgehem.phantom.shapes import F32, PointField, smoothstep
from edgehem.phantom.tissue import Kind

DENSITIES = {
    "hyperacute": (48.0, 62.0), "acute": (58.0, 80.0), "subacute": (34.0, 46.0), "chronic": (14.0, 28.0),
    "acute on chronic": (56.0, 74.0),
}  # fmt: skip
"""HU of a clot by age, drawn evenly: textbook ranges, rounded."""
DISPLACES = {"epidural": 0.95, "intraparenchymal": 0.6, "intraventricular": 0.15, "subarachnoid": 0.0, "subdural": 0.9}
"""Share of the blood's volume that pushes tissue away; the rest replaces what is destroyed, or fluid (ours)."""
CONTUSION_DISPLACES = 0.35
"""A contusion pushes by this part of what another parenchymal hemorrhage does: it is mixed with tissue (ours)."""
SIGN_CHANCES = {"swirl": 0.2, "black hole": 0.15, "blend": 0.12, "island": 0.12, "satellite": 0.15, "fluid level": 0.04}
"""How often each sign is drawn where `signs` is None and the clot is large enough for it (ours)."""
SIGN_ML = 6.0
"""Smaller clots are drawn without signs (ours)."""
SWIRL_HU, BLACK_HOLE_HU, BLEND_HU, LEVEL_HU = 20.0, 30.0, 22.0, 24.0
"""How much lower the paler part is. The black hole sign asks for 28 HU and more (Li et al., Stroke 2016;47:1777-1781),
the blend sign for 18 (Li et al., Stroke 2015;46:2119-2123)."""
MASSES = ("epidural", "intraparenchymal", "subdural")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A hemorrhage with nothing left open.

    Parameters
    ----------
    bleed : Bleed
        With its site, side, density and all else.
    space : Space
        What it fills.
    seed : tuple of int
        Of its texture.
    """

    bleed: Bleed
    space: Space
    seed: tuple[int, ...]


def side_of(seed: int) -> int:
    """The side that a head's hemorrhages share where none is stated: +1 the patient's left, -1 the right."""
    return 1 if np.random.default_rng([seed, 26]).random() < 0.5 else -1


def place(anatomy: Anatomy, item: Bleed, seed: int, number: int, scale_ml: float | None = None) -> Placed:
    """Choose what a hemorrhage leaves open, and where it lies.

    Parameters
    ----------
    anatomy : Anatomy
    item : Bleed
    seed : int
    number : int
        Of the hemorrhage in its head: each draws from its own stream.
    scale_ml : float, optional
        Volume that the shape's scale follows, where it is not the hemorrhage's own.
    """
    rng = np.random.default_rng([seed, 25, number])
    ml = scale_ml or item.ml
    drawn: dict[str, Any] = {
        "side": side_of(seed),
        "hu": float(rng.uniform(*DENSITIES[item.age])),
        # Contusions are salt and pepper: blood and bruised tissue in small patches.
        "mottle_hu": float(rng.uniform(1, 5)) + 6 * item.contusion,
        "mottle_mm": float(rng.uniform(5, 16)) * (0.5 if item.contusion else 1.0),
        "irregularity": float(rng.beta(1.4, 2.2)),
        "oedema_mm": float(rng.uniform(1.0, 4.0)) * {"hyperacute": 0.4, "acute": 1.0}.get(item.age, 1.7),
    }
    chances = rng.random(len(SIGN_CHANCES))
    possible = item.subtype == "intraparenchymal" and item.ml >= SIGN_ML and item.age in {"hyperacute", "acute"}
    drawn["signs"] = frozenset(
        name for name, draw in zip(SIGN_CHANCES, chances, strict=True) if possible and draw < SIGN_CHANCES[name]
    )
    drawn["site"] = _site(item, rng)
    if item.subtype in {"subarachnoid", "intraventricular"} and item.hu is None:
        drawn["hu"] -= 6.0  # diluted by fluid
    whole = replace(item, **{name: value for name, value in drawn.items() if getattr(item, name) is None})
    site, side = str(whole.site), int(whole.side or 1)
    if whole.subtype == "intraparenchymal":
        signs = whole.signs or frozenset()
        nodules = 4 * ("island" in signs) + ("satellite" in signs)
        irregular = max(float(whole.irregularity or 0), 0.6 if "island" in signs else 0.0)
        space = parenchymal(anatomy, ml, site, side, irregular, nodules, whole.contusion, rng)
    else:
        space = _OTHERS[whole.subtype](anatomy, ml, site, side, rng)
    return Placed(bleed=whole, space=space, seed=(seed, 27, number))


def place_all(anatomy: Anatomy, items: Sequence[Bleed], seed: int) -> list[Placed]:
    """:func:`place` for all of a head's hemorrhages."""
    return [place(anatomy, item, seed, number) for number, item in enumerate(items)]


_OTHERS = {
    "epidural": epidural,
    "intraventricular": intraventricular,
    "subarachnoid": subarachnoid,
    "subdural": subdural,
}


def _site(item: Bleed, rng: np.random.Generator) -> str:
    """A site for a hemorrhage that has none."""
    if item.subtype == "intraparenchymal":
        return draw_site(item.ml, item.contusion, rng)
    names = list(SITES[item.subtype])
    weights = {
        "epidural": (0.15, 0.25, 0.5, 0.05, 0.05),
        "intraventricular": (0.7, 0.2, 0.05, 0.05),
        "subarachnoid": (0.35, 0.22, 0.08, 0.1, 0.05, 0.2),
        "subdural": (0.3, 0.3, 0.15, 0.07, 0.12, 0.05, 0.01),
    }[item.subtype]
    small = item.ml <= {"falx": 25.0, "tentorium": 15.0}.get(names[-1], 200.0)
    chosen = str(rng.choice(names, p=weights))
    limits = {"falx": 25.0, "tentorium": 15.0, "posterior fossa": 25.0, "third ventricle": 4.0, "fourth ventricle": 4.0}
    return chosen if small and item.ml <= limits.get(chosen, 200.0) else names[0 if len(names) != 5 else 2]


def bleed(anatomy: Anatomy, items: Sequence[Placed]) -> Bled:
    """Put placed hemorrhages into a head: fluid spaces first, then what takes room, which moves all before it.

    Parameters
    ----------
    anatomy : Anatomy
        Not modified.
    items : sequence of Placed

    Returns
    -------
    Bled
    """
    t, head = anatomy.tissue, anatomy.head
    hu = anatomy.hu.copy()
    coverage: dict[str, F32] = {}
    truth: list[dict[str, Any]] = []
    shares = [fill(item.space.field, item.space.weight, item.bleed.ml / anatomy.voxel_ml) for item in items]
    broken = [_broken_into(item, share) for item, share in zip(items, shares, strict=True)]
    order = sorted(range(len(items)), key=lambda i: items[i].bleed.subtype in MASSES)
    taken = np.zeros(t.x.shape, np.float32)
    for item, share in zip(items, shares, strict=True):
        weight = DISPLACES[item.bleed.subtype] * (CONTUSION_DISPLACES if item.bleed.contusion else 1.0)
        taken = np.maximum(taken, np.float32(weight) * share)
    flow: Flow | None = None
    for number in order:
        item, share, ventricular = items[number], shares[number], broken[number]
        if item.bleed.subtype in MASSES and flow is None and float(taken.sum()) * anatomy.voxel_ml > 0.5:
            flow = displace(anatomy, taken)
            carry(anatomy, flow, hu, head.csf_hu)
            for block in coverage.values():
                carry(anatomy, flow, block, 0.0)
        if item.bleed.subtype == "intraparenchymal":
            _oedema(anatomy, hu, item, share)
        _paint(anatomy, hu, item, share)
        _cover(anatomy, coverage, item.bleed.subtype, share)
        extension = 0.0
        if ventricular is not None:
            _paint(anatomy, hu, item, ventricular)
            _cover(anatomy, coverage, "intraventricular", ventricular)
            extension = float(ventricular.sum(dtype=np.float64)) * anatomy.voxel_ml
        truth.append(_describe(item, float(share.sum(dtype=np.float64)) * anatomy.voxel_ml, extension))
    volumes = {name: float(block.sum(dtype=np.float64) * anatomy.voxel_ml) for name, block in coverage.items()}
    return Bled(hu=hu, coverage=coverage, ml=volumes, hemorrhages=tuple(truth), flow=flow)


def _cover(anatomy: Anatomy, coverage: dict[str, F32], subtype: str, share: F32) -> None:
    block = coverage.setdefault(subtype, np.zeros_like(anatomy.hu)).reshape(-1)
    index = anatomy.tissue.index
    block[index] = np.maximum(block[index], share)


def _describe(item: Placed, ml: float, extension_ml: float) -> dict[str, Any]:
    """One hemorrhage's truth."""
    b = item.bleed
    return {
        "subtype": b.subtype, "ml": round(ml, 3), "site": b.site, "side": "left" if b.side == 1 else "right",
        "age": b.age, "signs": sorted(b.signs or ()), "hu": round(float(b.hu or 0), 1),
        "mottle_hu": round(float(b.mottle_hu or 0), 2), "mottle_mm": round(float(b.mottle_mm or 0), 1),
        "irregularity": round(float(b.irregularity or 0), 3), "oedema_mm": round(float(b.oedema_mm or 0), 2),
        "contusion": b.contusion, "ventricular_extension_ml": round(extension_ml, 3),
        "origin_mm": [round(c, 1) for c in item.space.origin],
    }  # fmt: skip


def _broken_into(item: Placed, share: F32) -> F32 | None:
    """Share of blood in ventricles that a parenchymal hemorrhage has reached, or None."""
    space = item.space
    if space.ventricle is None or not share.any():
        return None
    level = float(space.field[share > 0.5].max()) if (share > 0.5).any() else -1e3
    reached = np.clip(0.5 - (space.field - level), 0, 1) * space.ventricle
    return np.asarray(reached, np.float32) if reached.sum() > 8 else None


def _oedema(anatomy: Anatomy, hu: F32, item: Placed, share: F32) -> None:
    """Darken the tissue around a parenchymal hemorrhage, in place."""
    t, width = anatomy.tissue, float(item.bleed.oedema_mm or 0)
    if width <= 0 or not (share > 0.5).any():
        return
    level = float(item.space.field[share > 0.5].max())
    away = item.space.field - level
    around = np.flatnonzero((t.kind <= Kind.CEREBELLUM) & (away < 2 * width + 1) & (t.fluid < 0.3))
    flat = hu.reshape(-1)
    at = t.index[around]
    # White matter swells, cortex hardly: it is shown less where the tissue is dense.
    drop = 9 * (1 - smoothstep(away[around], 0.4 * width, 1.6 * width + 0.5))
    flat[at] -= drop * np.clip((flat[at] - anatomy.head.csf_hu) / 24, 0, 1)


def _paint(anatomy: Anatomy, hu: F32, item: Placed, share: F32) -> None:
    """Paint a clot with its density and signs, in place."""
    t, b = anatomy.tissue, item.bleed
    touched = np.flatnonzero(share > 0)
    if not touched.size:
        return
    rng = np.random.default_rng(list(item.seed))
    x, y, z = t.x[touched], t.y[touched], t.z[touched]
    inside = item.space.field[touched]
    level = float(inside.max())
    deep = np.clip(level - inside, 0, None)  # mm below the surface
    value = np.float32(b.hu or 0) + np.float32(b.mottle_hu or 0) * PointField(rng, float(b.mottle_mm or 8), waves=7)(
        x, y, z
    )
    value -= 4 * np.exp(-deep / 2)
    signs = b.signs or frozenset()
    radius = max(float(np.cbrt(touched.size * anatomy.voxel_ml * 1000 * 0.75 / np.pi)), 3.0)
    middle = [float(np.median(a)) for a in (x, y, z)]
    if "swirl" in signs:
        band = PointField(rng, 1.1 * radius, waves=6)(x, y, z)
        value -= SWIRL_HU * smoothstep(band, 0.5, 0.9) * smoothstep(deep, 1, 3)
    if "black hole" in signs:
        # Wholly inside the clot: around one of its deepest points.
        core = np.argsort(deep, kind="stable")[-max(1, touched.size // 20) :]
        pick = int(core[rng.integers(core.size)])
        size = float(rng.uniform(0.22, 0.32)) * radius + 1.5
        hole = np.sqrt((x - x[pick]) ** 2 + (y - y[pick]) ** 2 + (z - z[pick]) ** 2) - size
        value -= BLACK_HOLE_HU * np.clip(0.5 - hole, 0, 1) * smoothstep(deep, 0.5, 2)
    if "blend" in signs:
        normal = rng.standard_normal(3)
        normal /= np.linalg.norm(normal)
        along = (x - middle[0]) * normal[0] + (y - middle[1]) * normal[1] + (z - middle[2]) * normal[2]
        value -= BLEND_HU * np.clip(0.5 + (along - 0.25 * radius) / 1.5, 0, 1)
    if "fluid level" in signs or b.age == "acute on chronic":
        # The patient lies on the back: what is heavy sinks to larger y.
        row = (t.index[touched] // len(anatomy.axes[2])) % len(anatomy.axes[1])
        height = anatomy.axes[1][row]
        border = float(np.quantile(height, 0.55))
        value -= LEVEL_HU * np.clip(0.5 - (height - border) / 2.0, 0, 1)
    if b.age in {"chronic", "acute on chronic"} and b.subtype == "subdural":
        membrane = np.abs(PointField(rng, 38, waves=5)(x, y, z))
        value += 10 * np.clip(1 - membrane / 0.1, 0, 1)
    flat = hu.reshape(-1)
    at = t.index[touched]
    flat[at] += (np.asarray(value, np.float32) - flat[at]) * share[touched]
