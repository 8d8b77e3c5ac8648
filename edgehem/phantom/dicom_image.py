"""What the DICOM objects of CT and MR phantoms have in common: patient, study, equipment, plane and pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from edgehem.volume import Volume


@dataclass(frozen=True, kw_only=True)
class About:
    """What the objects of a series share.

    Parameters
    ----------
    seed : int
        Names the patient.
    age_years : float
    sex : str
        ``M``, ``F`` or ``O``.
    modality : str
    sop_class : UID
    study, series : str
        What the identifiers of the study (and its frame of reference), and of the series and its objects, follow from.
    description : str
        Of the series.
    number : int
        Of the series.
    """

    seed: int
    age_years: float
    sex: str
    modality: str
    sop_class: UID
    study: str
    series: str
    description: str
    number: int


def slice_object(about: About, volume: Volume, i: int, *, bits: int, signed: bool) -> Dataset:
    """The object of one slice, without what only its modality has.

    Parameters
    ----------
    about : About
    volume : Volume
    i : int
        Slice, from 0.
    bits : int
        Stored.
    signed : bool

    Returns
    -------
    Dataset
        Ready to be saved once the modality's own attributes are in.
    """
    d, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID = about.sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[about.series, str(i)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta = meta
    d.SOPClassUID, d.SOPInstanceUID = about.sop_class, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID = generate_uid(entropy_srcs=[about.study, "study"])
    d.FrameOfReferenceUID = generate_uid(entropy_srcs=[about.study, "frame"])
    d.SeriesInstanceUID = generate_uid(entropy_srcs=[about.series, "series"])
    d.StudyDate, d.StudyTime, d.AccessionNumber = "20260101", "000000", ""
    d.Modality, d.Manufacturer = about.modality, "edgehem phantom"
    d.StudyDescription, d.SeriesDescription = "SYNTHETIC HEAD PHANTOM", about.description
    d.BodyPartExamined = "HEAD"
    d.PatientName, d.PatientID = "PHANTOM^SYNTHETIC", f"PHANTOM-{about.seed}"
    d.PatientBirthDate, d.PatientSex, d.PatientAge = "", about.sex, f"{round(about.age_years):03d}Y"
    d.PatientPosition = "HFS"
    d.ImageComments = "Synthetic image. Not a patient."
    d.SeriesNumber, d.InstanceNumber, d.AcquisitionNumber = about.number, i + 1, 1
    d.ImagePositionPatient = [decimal(c) for c in volume.origin[i]]
    d.ImageOrientationPatient = [decimal(c) for c in (*volume.row_cosines, *volume.column_cosines)]
    d.PixelSpacing = [decimal(s) for s in volume.pixel_spacing]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = volume.pixels.shape[1:]
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, bits, bits - 1, int(signed)
    d.PixelData = volume.pixels[i].astype(np.dtype("<i2")).tobytes()
    d["PixelData"].VR = "OW"
    return d


def type_2(d: Dataset) -> None:
    """Add attributes that the standard wants to be there, empty where nothing is known (PS3.3, type 2), in place."""
    d.ReferringPhysicianName, d.StudyID, d.PositionReferenceIndicator = "", "", ""


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as the DS value representation asks."""
    return f"{value:.10g}"[:16]
