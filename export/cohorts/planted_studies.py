"""Phantom CTs of cohorts whose truth says how they were scanned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgehem.phantom import Bleed, Case, Protocol, make_case


def planted_study(
    truth: Mapping[str, Any],
    seed: int,
    *,
    head: Mapping[str, Any],
    bleeds: tuple[Bleed, ...] = (),
    matrix: int = 512,
    voxel_mm: float = 1.0,
) -> Case:
    """Make the study of one patient in memory.

    Parameters
    ----------
    truth : mapping
        One patient's columns of the truth; ``thickness_mm`` and ``kernel`` say how it was scanned.
    seed : int
        Of everything that the cohort did not plant: the head's shape, the hematoma's outline, noise.
    head : mapping
        Fields of the phantom's head that are planted.
    bleeds : tuple of Bleed
    matrix : int
        Pixels of a row.
    voxel_mm : float
        Resolution of the head's block.
    """
    protocol = Protocol(
        thickness_mm=float(truth["thickness_mm"]),
        tilt_deg=0.0,
        variable_spacing=False,
        matrix=matrix,
        kernel=str(truth["kernel"]),
    )
    return make_case(seed, bleeds=bleeds, protocol=protocol, voxel_mm=voxel_mm, head=head)
