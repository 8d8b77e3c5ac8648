"""MR phantoms on disk: one DICOM series a folder, a mask for each, and truth.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from edgehem.phantom.bleeds import SUBTYPES, Bleed
from edgehem.phantom.cases import VERSION
from edgehem.phantom.dicom_image import About, decimal, slice_object, type_2
from edgehem.phantom.files import findings, known, write_nifti, write_series
from edgehem.phantom.folder import TRUTH, UNFINISHED, check_room, finished
from edgehem.phantom.mr import MR_VERSION, MrCase, MrSeries, make_mr
from edgehem.phantom.mr_field import LARMOR_MHZ_PER_T
from edgehem.phantom.mr_signal import DEFAULT_KINDS, KINDS

DICOM = "dicom"
STUDY_FILES = (DICOM, TRUTH, UNFINISHED, *(f"mask_{kind}.nii.gz" for kind in KINDS))
DESCRIPTIONS = {
    "t2star": "AX T2* GRE",
    "flair": "AX FLAIR",
    "t1": "AX T1",
    "swi": "AX SWI",
    "t2": "AX T2 TSE",
    "swi_minip": "AX MINIP_SWI",
}
"""Series Description (0008,103E)."""


def write_mr_study(
    out: Path,
    *,
    seed: int = 0,
    bleeds: tuple[Bleed, ...] = (),
    age: str | Mapping[str, str] | None = None,
    kinds: Sequence[str] = DEFAULT_KINDS,
    field_t: float | None = None,
    microbleeds: int | None = None,
    head: Mapping[str, Any] | None = None,
    voxel_mm: float = 1.0,
    matrix: int | None = None,
) -> dict[str, Any]:
    """Write one MR study: ``dicom/KIND/``, ``mask_KIND.nii.gz`` and ``truth.json``.

    Parameters
    ----------
    out : Path
        Created. An MR study of the phantom that is there already is replaced; anything else is not touched.
    seed, bleeds, age, kinds, field_t, microbleeds, head, voxel_mm, matrix
        See :func:`edgehem.phantom.mr.make_mr`.

    Returns
    -------
    dict
        The truth, as written.

    Raises
    ------
    UsageError
        If `out` is a file, or a folder that holds anything but an MR study of the phantom; or if what is asked for is
        not possible.
    """
    check_room(out, STUDY_FILES)
    case = make_mr(
        seed,
        bleeds=bleeds,
        age=age,
        kinds=kinds,
        field_t=field_t,
        microbleeds=microbleeds,
        head=head,
        voxel_mm=voxel_mm,
        matrix=matrix,
    )
    with finished(out, STUDY_FILES) as folder:
        return write_mr_case(case, folder)


def write_mr_case(case: MrCase, out: Path) -> dict[str, Any]:
    """Write a study that was made in memory; see :func:`write_mr_study`."""
    for kind, series in case.series.items():
        write_series(to_mr_dicom(case, series), out / DICOM / kind)
        write_nifti(out / f"mask_{kind}.nii.gz", series.mask, series.volume)
    truth = describe_mr(case)
    (out / TRUTH).write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return truth


def describe_mr(case: MrCase) -> dict[str, Any]:
    """What is known about a study: labels, volumes, ages of blood, microbleeds, and how each series was measured."""
    return {
        "synthetic": True,
        "generator": f"edgehem MR phantom {MR_VERSION}, head version {VERSION}",
        "seed": case.seed,
        "labels": case.labels,
        "volume_ml": {name: round(ml, 3) for name, ml in case.ml.items()},
        "stage": case.stages,
        "hemorrhages": list(case.hemorrhages),
        "microbleeds": [
            {
                "centre_mm": [round(c, 2) for c in spot.centre_mm],
                "diameter_mm": spot.diameter_mm,
                "place": spot.place,
            }
            for spot in case.microbleeds
        ],
        "midline_shift_mm": round(case.midline_shift_mm, 2),
        "age_years": round(case.age_years, 1),
        "field_t": case.field_t,
        "series": {kind: _describe_series(series) for kind, series in case.series.items()},
        "mask_values": {str(value): name for value, name in enumerate(SUBTYPES, start=1)},
        "coordinates": "DICOM patient coordinates, those of the CT phantom of the same seed, head and hemorrhages",
        "head": known(case.head),
        "findings": findings(case.head),
    }


def _describe_series(series: MrSeries) -> dict[str, Any]:
    pulses, scan = series.pulses, series.scan
    return {
        "dicom": f"{DICOM}/{series.kind}",
        "mask": f"mask_{series.kind}.nii.gz",
        "visible_ml": {name: round(ml, 3) for name, ml in series.visible_ml.items()},
        "slices_with_blood": {
            name: [int(i) for i in np.flatnonzero((series.mask == value).any(axis=(1, 2)))]
            for value, name in enumerate(SUBTYPES, start=1)
            if name in series.visible_ml
        },
        "slices": len(scan.positions),
        "thickness_mm": scan.thickness_mm,
        "spacing_mm": round(series.spacing_mm, 3),
        "tilt_deg": scan.tilt_deg,
        "te_ms": pulses.te,
        "tr_ms": pulses.tr,
        "ti_ms": pulses.ti,
        "flip_deg": pulses.flip_deg,
        "matrix": [scan.matrix, scan.lines],
        "noise_share": round(scan.noise, 6),
        "channels": scan.coil.channels,
        "normalised": scan.coil.normalised,
        "motion_mm": round(scan.motion_mm, 2),
        "bits": series.bits,
    }


def to_mr_dicom(case: MrCase, series: MrSeries) -> list[Dataset]:
    """One MR Image Storage object per slice, ready to be saved. UIDs follow from the seed and the content."""
    v, scan = series.volume, series.scan
    # Rounded, so that another machine's last digits change no identifier.
    blood = sorted((name, round(ml, 3), case.stages[name]) for name, ml in case.ml.items())
    visit = f"mr/{MR_VERSION}/{case.seed}/{case.head}/{case.field_t}/{blood}/{len(case.microbleeds)}/{case.voxel_mm}"
    about = About(
        seed=case.seed,
        age_years=case.age_years,
        sex=case.head.sex,
        modality="MR",
        sop_class=MRImageStorage,
        study=visit,
        series=f"{visit}/{series.kind}/{series.volume.pixels.shape}",
        description=DESCRIPTIONS[series.kind],
        number=1 + KINDS.index(series.kind),
    )
    high = float(np.percentile(v.pixels[::2, ::4, ::4], 99.5))
    datasets = []
    for i in range(len(v.pixels)):
        d = slice_object(about, v, i, bits=series.bits, signed=False)
        type_2(d)
        d.SeriesDate, d.SeriesTime = d.AcquisitionDate, d.AcquisitionTime = d.StudyDate, d.StudyTime
        d.ContentDate, d.ContentTime = d.StudyDate, d.StudyTime
        d.ProtocolName = about.description
        d.ManufacturerModelName, d.SoftwareVersions = "MR phantom", MR_VERSION
        _pulse_attributes(d, series)
        d.SliceThickness, d.SpacingBetweenSlices = decimal(scan.thickness_mm), decimal(series.spacing_mm)
        d.SliceLocation = decimal(float(v.distances[i]))
        d.WindowCenter, d.WindowWidth = decimal(high / 2), decimal(max(high, 1))
        datasets.append(d)
    return datasets


def _pulse_attributes(d: Dataset, series: MrSeries) -> None:
    """The MR Image Module (PS3.3 C.8.3.1): how a series was excited and read, in place."""
    pulses, scan = series.pulses, series.scan
    swi = series.kind in {"swi", "swi_minip"}
    derived = series.kind == "swi_minip"
    d.ImageType = [
        "DERIVED" if derived else "ORIGINAL",
        "PRIMARY",
        "MNIP" if derived else "M",
        "SWI" if swi else "ND",
        *(["NORM"] if scan.coil.normalised else []),
    ]
    if derived:
        d.DerivationDescription = f"Minimum intensity over {decimal(scan.thickness_mm)} mm"
    if pulses.physics == "gradient_echo":
        d.ScanningSequence, d.SequenceVariant = "GR", "SP"
    elif pulses.physics == "inversion_recovery":
        d.ScanningSequence, d.SequenceVariant = ["SE", "IR"], ["SK", "SP", "MP"]
    else:
        d.ScanningSequence, d.SequenceVariant = "SE", "SK" if pulses.echo_train > 1 else "NONE"
    d.ScanOptions = "FC" if swi else ""
    d.MRAcquisitionType = "3D" if swi else "2D"
    d.RepetitionTime, d.EchoTime = decimal(pulses.tr), decimal(pulses.te)
    if pulses.ti:
        d.InversionTime = decimal(pulses.ti)
    d.FlipAngle, d.EchoTrainLength, d.EchoNumbers = decimal(pulses.flip_deg), pulses.echo_train, 1
    d.MagneticFieldStrength = decimal(pulses.field_t)
    d.ImagingFrequency, d.ImagedNucleus = decimal(LARMOR_MHZ_PER_T * pulses.field_t), "1H"
    d.NumberOfAverages, d.VariableFlipAngleFlag = "1", "N"
    d.ReceiveCoilName = "HEAD QUADRATURE" if scan.coil.channels == 1 else "HEAD ARRAY"
    # Phases are encoded along rows: frequency rows, frequency columns, phase rows, phase columns.
    d.InPlanePhaseEncodingDirection = "ROW"
    d.AcquisitionMatrix = [scan.matrix, 0, 0, scan.lines]
    d.NumberOfPhaseEncodingSteps = scan.lines
    d.PercentSampling, d.PercentPhaseFieldOfView = decimal(100 * scan.lines / scan.matrix), "100"
