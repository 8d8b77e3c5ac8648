"""From a patient of the CVT cohort to a phantom CT and the mask of the hematoma."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.phantom import SUBTYPES, Bleed, Case, Protocol, make_case
from edgehem.phantom.files import to_dicom, write_nifti, write_series

SITES = {
    "frontal": "frontal lobe",
    "parietal": "parietal lobe",
    "temporal": "temporal lobe",
    "occipital": "occipital lobe",
    "putamen": "putamen",
    "caudate": "caudate",
    "thalamus": "thalamus",
    "cerebellum": "cerebellum",
    "pons": "pons",
}
"""The cohort's sites in the phantom's words."""
LARGEST_ML = {"pons": 6.0, "caudate": 15.0, "cerebellum": 30.0, "thalamus": 30.0, "putamen": 90.0}
"""What a site holds, mL, ours: a larger hematoma is painted with this volume. The table says what was drawn."""
THROMBUS_HU = (68.0, 78.0)
"""Range of a thrombosed sinus, HU, ours."""
THICK_BLOOD_HU = (64.0, 72.0)
"""Range of all sinuses in thick blood, HU, ours."""
SINUS_HU = (48.0, 58.0)
"""Range of sinuses that are not dense, HU, ours."""
SMALLER = (0.10, 0.35)
"""Volume of a second and third hematoma by that of the first, ours."""
CONVEXITY_ML = (1.5, 5.0)
VENTRICULAR_ML = (1.5, 8.0)


def hematoma_study(truth: Mapping[str, Any], seed: int, *, matrix: int = 512, voxel_mm: float = 1.0) -> Case:
    """Make the study of one patient in memory.

    Parameters
    ----------
    truth : mapping
        One patient's columns of the truth (:meth:`edgehem.export.cohorts.cvt.Cvt.block`).
    seed : int
        Of everything that the cohort did not plant: the head's shape, the hematoma's outline, noise.
    matrix : int
        Pixels of a row.
    voxel_mm : float
        Resolution of the head's block.
    """
    return make_case(
        seed,
        bleeds=hemorrhages(truth, seed),
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
    """Write ``ct/`` (DICOM) and ``mask.nii.gz`` (1 in every intraparenchymal hematoma); see :func:`hematoma_study`."""
    case = hematoma_study(truth, seed)
    write_series(to_dicom(case), out / "ct")
    write_nifti(out / "mask.nii.gz", hematoma_mask(case), case.volume)
    return {"ct": "ct", "mask": "mask.nii.gz"}


def hematoma_mask(case: Case) -> npt.NDArray[np.uint8]:
    """The intraparenchymal part of a phantom's mask, uint8 array [Z, Y, X] of 0 and 1."""
    return np.asarray(case.mask == 1 + SUBTYPES.index("intraparenchymal"), np.uint8)


def hemorrhages(truth: Mapping[str, Any], seed: int) -> tuple[Bleed, ...]:
    """The hematomas of a patient, and blood over the convexity and in the ventricles; the planted hematoma is first."""
    rng, side = np.random.default_rng([seed, 61]), side_of(truth)
    site, ml = str(truth["site"]), float(truth["volume_ml"])
    first = min(ml, LARGEST_ML.get(site, ml))
    bleeds = [_hematoma(truth, first, SITES[site], side)]
    for _ in range(int(truth["hematomas"]) - 1):
        lobe = str(rng.choice(("frontal lobe", "parietal lobe", "temporal lobe")))
        share = float(rng.uniform(*SMALLER))
        bleeds.append(_hematoma(truth, max(1.0, share * first), lobe, side if rng.random() < 0.5 else -side))
    if truth["ventricular_blood"] == 1:
        bleeds.append(Bleed(subtype="intraventricular", ml=float(rng.uniform(*VENTRICULAR_ML))))
    if truth["convexity_blood"] == 1:
        ml = float(rng.uniform(*CONVEXITY_ML))
        bleeds.append(Bleed(subtype="subarachnoid", ml=ml, site="convexity", side=side))
    return tuple(bleeds)


def _hematoma(truth: Mapping[str, Any], ml: float, site: str, side: int) -> Bleed:
    return Bleed(
        subtype="intraparenchymal",
        ml=ml,
        site=site,
        side=side,
        hu=float(truth["hematoma_hu"]),
        mottle_hu=float(truth["mottle_hu"]),
        mottle_mm=float(truth["mottle_mm"]),
        irregularity=float(truth["irregularity"]),
        oedema_mm=float(truth["oedema_mm"]),
    )


def side_of(truth: Mapping[str, Any]) -> int:
    """+1 where the planted hematoma lies on the patient's left, -1 on the right."""
    return -1 if truth["right"] == 1 else 1


def head_fields(truth: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Fields of the phantom's head that are planted, and that nothing else looks like a thrombosis."""
    rng = np.random.default_rng([seed, 62])
    hand = "left" if side_of(truth) > 0 else "right"
    sinus = {"superior_sagittal": "superior sagittal", "transverse": f"transverse {hand}", "straight": "straight"}
    dense = str(truth["dense_sinus"])
    thick, thin = float(rng.uniform(*THICK_BLOOD_HU)), float(rng.uniform(*SINUS_HU))
    return {
        "age_years": float(truth["age_years"]),
        "sex": str(truth["sex"]),
        "sinus_hu": thick if dense == "all" else thin,
        "thrombosis": sinus.get(dense),
        "thrombosis_hu": float(rng.uniform(*THROMBUS_HU)) if dense in sinus else 0.0,
        "infarct": None,
        "mca_hu": 0.0,
        "surgery": None,
    }
