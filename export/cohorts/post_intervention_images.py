"""From a patient of the post-intervention cohort to a phantom CT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgehem.phantom import Case, Protocol, make_case
from edgehem.phantom.files import to_dicom, write_series

SMALLEST_DROP_HU, LARGEST_DROP_HU = 0.5, 14.0
"""Range of the loss of density that is painted, HU, ours."""
SWOLLEN_HOURS = 24.0
"""Age at which the phantom's infarct is swollen whole."""
ARTERY_HU = (52.0, 72.0)
"""Density of a dense artery: the first at no length, the second from 20 mm on, HU, ours."""
FAZEKAS = (0.04, 0.3, 0.6, 0.9)
"""White-matter disease of the head (0 to 1) for the grades 0 to 3, ours."""


def stroke_study(truth: Mapping[str, Any], seed: int, *, matrix: int = 512, voxel_mm: float = 1.0) -> Case:
    """Make the study of one patient in memory.

    Parameters
    ----------
    truth : mapping
        One patient's columns of the truth (:meth:`edgehem.export.cohorts.post_intervention.PostIntervention.block`).
    seed : int
        Of everything that the cohort did not plant: the head's shape, noise.
    matrix : int
        Pixels of a row.
    voxel_mm : float
        Resolution of the head's block.
    """
    return make_case(
        seed,
        protocol=Protocol(
            thickness_mm=float(truth["thickness_mm"]),
            tilt_deg=0.0,
            variable_spacing=False,
            matrix=matrix,
            kernel=str(truth["kernel"]),
        ),
        voxel_mm=voxel_mm,
        head=head_fields(truth, seed),
    )


def write_images(truth: Mapping[str, Any], out: Path, seed: int) -> dict[str, str]:
    """Write ``ct/`` (DICOM); see :func:`stroke_study`."""
    case = stroke_study(truth, seed)
    write_series(to_dicom(case), out / "ct")
    return {"ct": "ct"}


def head_fields(truth: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Fields of the phantom's head that are planted, and that nothing else looks like a stroke."""
    rng = np.random.default_rng([seed, 62])
    side = 1 if truth["left"] == 1 else -1
    branch = str(rng.choice(("mca superior", "mca inferior")))
    length = float(truth["tissue_dense_artery_mm"])
    share = min(length / 20, 1.0)
    old = int(truth["old_infarcts"])
    return {
        "age_years": float(truth["age_years"]),
        "sex": str(truth["sex"]),
        "leukoaraiosis": FAZEKAS[int(truth["leukoaraiosis"])],
        "infarct": branch if truth["tissue_occlusion"] == "m2" else "mca",
        "infarct_side": side,
        "infarct_extent": float(np.clip(truth["tissue_core_ml"] / truth["tissue_territory_ml"], 0.02, 1)),
        "infarct_drop_hu": float(np.clip(truth["tissue_drop_hu"], SMALLEST_DROP_HU, LARGEST_DROP_HU)),
        # The phantom closes sulci by the infarct's age, all of them at 24 hours: the planted swelling sets it.
        "infarct_hours": SWOLLEN_HOURS * float(truth["tissue_swelling"]),
        "mca_hu": ARTERY_HU[0] + share * (ARTERY_HU[1] - ARTERY_HU[0]) if length > 0 else 0.0,
        "mca_side": side,
        "old_infarct": str(rng.choice(("pca", "aca", "cerebellar"))) if old > 1 else None,
        "lacunes": old,
        "thrombosis": None,
        "surgery": None,
    }
