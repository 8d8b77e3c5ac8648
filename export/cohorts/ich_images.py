"""The CT of a patient of the ICH cohorts: a phantom with the row's hematoma and ventricular blood."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgehem.export.cohorts.core import Patients
from edgehem.export.cohorts.ich_admission import LOCATIONS
from edgehem.phantom import Bleed, Case, Protocol, hematoma
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.cases import scan_case
from edgehem.phantom.files import to_dicom, write_nifti, write_series
from edgehem.phantom.head import draw_head

LEAST_ML = 0.3
"""Less ventricular blood than this is not painted, and not minded: it would lie below one voxel's share (ours)."""
LARGEST_VENTRICULAR_ML = 60.0
"""More does not fit into the phantom's ventricles."""
SITES = {
    "deep": ("putamen", "thalamus"),
    "lobar": ("frontal lobe", "parietal lobe", "temporal lobe", "occipital lobe"),
    "brainstem": ("pons",),
    "cerebellum": ("cerebellum",),
}
"""The phantom's sites for each location (ours)."""


def bleeds_of(patients: Patients, row: int, anatomy: Anatomy, seed: int) -> tuple[Bleed, ...]:
    """The hemorrhages of one patient: volume, location, side and ventricular blood are the row's.

    Sites of the location are tried from one that the seed picks, until the clot breaks into the ventricles with no more
    blood than the row has there; else the one with the least is taken. What the row has more is added.
    """
    truth = patients.truth
    wanted = min(float(truth["ventricular_ml"][row]), LARGEST_VENTRICULAR_ML)
    sites = SITES[LOCATIONS[int(truth["location"][row])]]
    start = int(np.random.default_rng([seed, 62]).integers(len(sites)))
    side = 1 if truth["left"][row] else -1
    tried: list[tuple[float, Bleed]] = []
    for site in (*sites[start:], *sites[:start]):
        clot = Bleed(subtype="intraparenchymal", ml=float(truth["volume_ml"][row]), site=site, side=side)
        bled = hematoma.bleed(anatomy, [hematoma.place(anatomy, clot, seed, 0)])
        tried.append((bled.ml.get("intraventricular", 0.0), clot))
        if tried[-1][0] <= wanted + LEAST_ML:
            break
    spilt, clot = min(tried, key=lambda one: one[0]) if tried[-1][0] > wanted + LEAST_ML else tried[-1]
    if wanted - spilt < LEAST_ML:
        return (clot,)
    return clot, Bleed(subtype="intraventricular", ml=wanted - spilt, side=side)


def study(patients: Patients, row: int, seed: int, protocol: Protocol | None = None) -> Case:
    """One patient's study in memory. The head has the row's age and sex; shift and oedema are the phantom's own.

    Parameters
    ----------
    patients : Patients
    row : int
    seed : int
        Of the head, the hematoma's shape and the scan.
    protocol : Protocol, optional
    """
    sex = "F" if patients.inputs["female"][row] else "M"
    anatomy = synthesise(draw_head(seed, age_years=float(patients.inputs["age"][row]), sex=sex))
    return scan_case(anatomy, seed, bleeds=bleeds_of(patients, row, anatomy, seed), protocol=protocol)


def write_images(patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
    """Write ``ct/`` (DICOM) and ``mask.nii.gz``; no truth lies beside them. See :func:`study`."""
    case = study(patients, row, seed)
    slices = to_dicom(case)
    for dataset in slices:
        dataset.PatientAge = f"{round(float(patients.inputs['age'][row])):03d}Y"
    write_series(slices, out / "ct")
    write_nifti(out / "mask.nii.gz", case.mask, case.volume)
    return {"ct": "ct", "mask": "mask.nii.gz"}
