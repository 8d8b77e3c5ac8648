"""Growth: one head at two times, its hemorrhage larger at the second, along anatomy.

Both times fill the same field (:mod:`edgehem.phantom.fields`), so the later clot holds the earlier one, and it goes
where the field's front goes next: white matter and ventricles before sulci, falx and tentorium.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgehem.errors import UsageError
from edgehem.phantom import hematoma
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.bleeds import Bleed
from edgehem.phantom.cases import Case, Protocol, expose_case
from edgehem.phantom.head import draw_head

EXPANSION_ML, EXPANSION_SHARE = 6.0, 0.33
"""Hematoma expansion: 6 mL or a third more than before, the definition that most trials use."""
SECOND_SCAN = 7_919
"""Added to a seed for the second scan: another pose on the table, another noise, maybe another scanner."""


def expanded(before_ml: float, after_ml: float) -> bool:
    """Whether a hemorrhage has expanded."""
    grown = after_ml - before_ml
    return grown >= EXPANSION_ML or grown >= EXPANSION_SHARE * before_ml


def grow(
    anatomy: Anatomy, bleeds: tuple[Bleed, ...], ml_after: tuple[float, ...], seed: int
) -> tuple[list[hematoma.Placed], list[hematoma.Placed]]:
    """Place hemorrhages at two times.

    Parameters
    ----------
    anatomy : Anatomy
    bleeds : tuple of Bleed
        At the first time.
    ml_after : tuple of float
        Volume of each at the second time, mL; not smaller than before.
    seed : int

    Returns
    -------
    before, after : lists of Placed

    Raises
    ------
    UsageError
        If the volumes do not match the hemorrhages, or one shrinks.
    """
    if len(ml_after) != len(bleeds):
        raise UsageError(f"{len(ml_after)} later volumes for {len(bleeds)} hemorrhages")
    before, after = [], []
    for number, (item, later) in enumerate(zip(bleeds, ml_after, strict=True)):
        if later < item.ml:
            raise UsageError(f"a hemorrhage of {item.ml} mL cannot grow to {later} mL")
        # The scale of the shape is that of the later volume where the rule for its thickness depends on it.
        scale = later if item.subtype == "subdural" else item.ml
        first = hematoma.place(anatomy, item, seed, number, scale)
        before.append(first)
        after.append(replace(first, bleed=replace(first.bleed, ml=later)))
    return before, after


def make_pair(
    seed: int,
    *,
    bleeds: tuple[Bleed, ...],
    ml_after: tuple[float, ...],
    protocol: Protocol | None = None,
    protocol_after: Protocol | None = None,
    voxel_mm: float = 1.0,
    head: Mapping[str, object] | None = None,
) -> tuple[Case, Case]:
    """Make two studies of one head: at admission, and later.

    Parameters
    ----------
    seed : int
    bleeds, ml_after
        See :func:`grow`.
    protocol, protocol_after : Protocol, optional
        Of the two scans; the second is the first's where it is not given.
    voxel_mm, head
        See :func:`edgehem.phantom.cases.make_case`.

    Returns
    -------
    before, after : Case
        Both of the same seed; :func:`expanded` tells from their `ml` whether the hemorrhage expanded.
    """
    anatomy = synthesise(draw_head(seed, **dict(head or {})), voxel_mm)
    earlier, later = grow(anatomy, bleeds, ml_after, seed)
    first = protocol or Protocol()
    return (
        expose_case(anatomy, seed, earlier, seed, first),
        expose_case(anatomy, seed, later, seed + SECOND_SCAN, protocol_after or first),
    )
