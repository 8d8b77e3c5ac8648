"""Phantoms on disk: DICOM series, truth.json, the hematoma mask, and cohorts with their training table."""

from __future__ import annotations

import csv
import gzip
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from edgehem.phantom.bleeds import SUBTYPES, Bleed
from edgehem.phantom.cases import LABELS, VERSION, Case, Protocol, draw_bleeds, make_case
from edgehem.phantom.dicom_image import About, decimal, slice_object, type_2
from edgehem.phantom.folder import TRUTH, UNFINISHED, check_room, finished
from edgehem.phantom.head import Head
from edgehem.phantom.materials import FINDINGS
from edgehem.volume import Volume
from edgehem.workers import ordered

TABLE = "table.csv"
FINDINGS_FILE = "findings.nii.gz"
STUDY_FILES = ("dicom", "mask.nii.gz", FINDINGS_FILE, TRUTH, UNFINISHED)


def write_study(
    out: Path,
    *,
    seed: int = 0,
    bleeds: tuple[Bleed, ...] = (),
    protocol: Protocol | None = None,
    head: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Write one phantom study: ``dicom/``, ``mask.nii.gz``, ``truth.json``; ``findings.nii.gz`` where there are any.

    Parameters
    ----------
    out : Path
        Created. A phantom study that is there already is replaced; anything else is not touched.
    seed : int
    bleeds : tuple of Bleed
    protocol : Protocol, optional
    head
        See :func:`edgehem.phantom.cases.make_case`.

    Returns
    -------
    dict
        The truth, as written.

    Raises
    ------
    UsageError
        If `out` is a file, or a folder that holds anything but a phantom study.
    """
    check_room(out, STUDY_FILES)
    case = make_case(seed, bleeds=bleeds, protocol=protocol, head=head)
    with finished(out, STUDY_FILES) as folder:
        return write_case(case, folder)


def write_series(datasets: Iterable[Dataset], folder: Path) -> None:
    """Write DICOM objects as 0001.dcm, 0002.dcm, ... into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets, start=1):
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def write_case(case: Case, out: Path) -> dict[str, Any]:
    """Write a case that was made in memory; see :func:`write_study`."""
    write_series(to_dicom(case), out / "dicom")
    write_nifti(out / "mask.nii.gz", case.mask, case.volume)
    if case.found is not None:
        write_nifti(out / FINDINGS_FILE, case.found, case.volume)
    truth = describe(case)
    (out / TRUTH).write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return truth


def describe(case: Case) -> dict[str, Any]:
    """What is known about a case: labels, volumes, slices with blood, scan."""
    blood = {
        name: [int(i) for i in np.flatnonzero((case.mask == value).any(axis=(1, 2)))]
        for value, name in enumerate(SUBTYPES, start=1)
        if name in case.ml
    }
    return {
        "synthetic": True,
        "generator": f"edgehem phantom {VERSION}",
        "seed": case.seed,
        "labels": case.labels,
        "volume_ml": {name: round(ml, 3) for name, ml in case.ml.items()},
        "visible_ml": {name: round(ml, 3) for name, ml in case.visible_ml.items()},
        "slices_with_blood": blood,
        "midline_shift_mm": round(case.midline_shift_mm, 2),
        "age_years": round(case.age_years, 1),
        "scan": {
            "slices": len(case.scan.positions),
            "tilt_deg": case.scan.tilt_deg,
            "thickness_mm": sorted({round(t, 4) for t in case.scan.thickness_mm}),
            "noise_hu": round(case.scan.noise_hu, 2),
            "intercept": case.scan.intercept,
            "bits": case.scan.bits,
            "padding": case.scan.padding,
        },
        "mask_values": {str(value): name for value, name in enumerate(SUBTYPES, start=1)},
        "finding_values": {str(value): name for name, value in FINDINGS.items()},
        "hemorrhages": [dict(item) for item in case.hemorrhages],
        "head": known(case.head),
        "findings": findings(case.head),
        "optics": _rounded(asdict(case.optics)),
        "support": _rounded(asdict(case.couch)),
    }


def _rounded(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}


def known(head: Head) -> dict[str, Any]:
    """The fields of a head, as the truth tells them."""
    return {name: value for name, value in _rounded(asdict(head)).items() if name not in {"seed", "offset"}}


def findings(head: Head) -> list[str]:
    """What a head has that is no blood, in words."""
    side = {1: "left", -1: "right"}
    acute = head.infarct is not None and head.infarct_drop_hu > 0
    named = [
        (acute, f"acute infarct: {side[head.infarct_side]} {head.infarct}"),
        (head.old_infarct is not None, f"old infarct: {side[head.old_infarct_side]} {head.old_infarct}"),
        (head.lacunes > 0, "lacunes"),
        (head.leukoaraiosis > 0.3, "leukoaraiosis"),
        (head.thrombosis is not None, f"dense sinus: {head.thrombosis}"),
        (head.thrombosis is None and head.sinus_hu > 64, "dense sinuses: haemoconcentration"),
        (head.mca_hu > 0, f"dense middle cerebral artery: {side[head.mca_side]}"),
        (head.surgery is not None, f"surgery: {side[head.surgery_side]} {head.surgery}"),
        (head.cavum_mm > 0, "cavum septi pellucidi"),
        (head.cisterna_magna > 0, "mega cisterna magna"),
        (head.hyperostosis_mm > 0, "hyperostosis frontalis"),
        *(
            (getattr(head, f"{name}_hu") > 0, f"calcification: {name.replace('_', ' ')}")
            for name in ("choroid", "pineal", "basal_ganglia", "falx", "tentorium", "dentate", "carotid")
        ),
    ]
    return [words for there, words in named if there]


def to_dicom(case: Case) -> list[Dataset]:
    """One CT Image Storage object per slice, ready to be saved. UIDs follow from the seed and the content."""
    v, scan = case.volume, case.scan
    identity = f"{VERSION}/{case.seed}/{scan}/{sorted(case.ml.items())}"
    identity += f"/{case.head}/{case.optics}/{case.couch}/{case.hemorrhages}"
    about = About(
        seed=case.seed,
        age_years=case.age_years,
        sex=case.head.sex,
        modality="CT",
        sop_class=CTImageStorage,
        study=identity,
        series=identity,
        description="HEAD",
        number=2,
    )
    signed = scan.intercept == 0 or bool((v.pixels < 0).any())
    datasets = []
    for i in range(len(v.pixels)):
        d = slice_object(about, v, i, bits=16 if signed or scan.bits == 16 else 12, signed=signed)
        type_2(d)
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.KVP, d.ConvolutionKernel = "120", case.optics.kernel.upper()
        d.SliceThickness = decimal(scan.thickness_mm[i])
        d.GantryDetectorTilt = decimal(scan.tilt_deg)
        d.WindowCenter, d.WindowWidth = "40", "80"
        d.RescaleIntercept, d.RescaleSlope, d.RescaleType = str(scan.intercept), "1", "HU"
        if scan.padding is not None:
            d.add_new("PixelPaddingValue", "SS" if signed else "US", scan.padding)
        datasets.append(d)
    return datasets


def write_nifti(path: Path, mask: npt.NDArray[np.uint8], volume: Volume) -> None:
    """Write a mask as NIfTI-1 (gzip), voxel (column, row, slice).

    The affine is the stack's own, shear of a tilted gantry included; where slice distances vary it holds the mean
    distance, so pair slices by index, not by position. The header is that of the NIfTI-1.1 standard.
    """
    slices, rows, columns = mask.shape
    row_mm, column_mm = volume.pixel_spacing
    step = (volume.origin[-1] - volume.origin[0]) / max(1, slices - 1)
    affine = np.column_stack([volume.row_cosines * column_mm, volume.column_cosines * row_mm, step, volume.origin[0]])
    affine[:2] *= -1  # DICOM's LPS to NIfTI's RAS
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, columns, rows, slices, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # uint8
    struct.pack_into("<8f", header, 76, 1, column_mm, row_mm, float(np.linalg.norm(step)) or 1.0, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)  # data offset, slope, intercept
    header[123] = 2  # millimetres
    struct.pack_into("<2h", header, 252, 0, 1)  # the affine is the sform, in scanner coordinates
    struct.pack_into("<12f", header, 280, *affine.ravel())
    header[344:348] = b"n+1\0"
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=4) as file:
        file.write(bytes(header))
        file.write(np.ascontiguousarray(mask).tobytes())


def cohort_case(index: int, seed: int) -> tuple[int, tuple[Bleed, ...]]:
    """Seed and hemorrhages of the index-th study of a cohort: every second one bleeds."""
    case_seed = seed * 1_000_003 + index
    return case_seed, draw_bleeds(case_seed) if index % 2 else ()


def _write_cohort_case(job: tuple[Path, int, int, Protocol, float]) -> dict[str, Any]:
    out, index, seed, protocol, voxel_mm = job
    case_seed, bleeds = cohort_case(index, seed)
    name = f"case{index:05d}"
    case = make_case(case_seed, bleeds=bleeds, protocol=protocol, voxel_mm=voxel_mm)
    truth = write_case(case, out / name)
    return {
        "patient_id": name,
        "ct": f"{name}/dicom",
        "mask": f"{name}/mask.nii.gz",
        **truth["labels"],
        "age": round(truth["age_years"], 1),
        **{f"{subtype}_ml": round(truth["volume_ml"].get(subtype, 0.0), 3) for subtype in SUBTYPES},
    }


def write_cohort(
    out: Path,
    count: int,
    *,
    seed: int = 0,
    protocol: Protocol | None = None,
    voxel_mm: float = 1.0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort: one folder a study, half of them bleeding, and the training table.

    Parameters
    ----------
    out : Path
        Created; must be empty.
    count : int
    seed : int
        The same seed gives the same cohort, whatever the number of workers.
    protocol : Protocol, optional
        What is fixed for all; the rest varies.
    voxel_mm : float
        Resolution of the heads' blocks.
    workers : int
        Processes.
    progress : callable, optional
        Called with (done, count).

    Returns
    -------
    Path
        The table: patient_id, ct, mask, the labels, age, and the volume of every subtype.

    Raises
    ------
    UsageError
        If `out` is not empty.
    """
    check_room(out, ())
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(out, index, seed, protocol or Protocol(), voxel_mm) for index in range(count)]
    rows: list[dict[str, Any]] = []
    for row in ordered(_write_cohort_case, jobs, workers):
        rows.append(row)
        if progress:
            progress(len(rows), count)
    table = out / TABLE
    temporary = table.with_suffix(".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["patient_id", "ct", "mask", *LABELS, "age", *(f"{s}_ml" for s in SUBTYPES)])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, table)  # noqa: PTH105 - atomic by contract
    return table
