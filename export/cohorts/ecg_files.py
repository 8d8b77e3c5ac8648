"""Synthetic ECG as DICOM: 12-lead ECG Waveform Storage, as machines write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

from edgehem.export.cohorts.ecg_leads import LEADS
from edgehem.export.cohorts.ecg_machine import Recording

_CODES = dict(zip(LEADS, ("1", "2", "61", "62", "63", "64", "3", "4", "5", "6", "7", "8"), strict=True))
"""Numbers of the leads in ISO/IEEE 11073-10102, which both coding schemes use (DICOM PS3.16, CID 3001)."""
_SCHEMES = {"MDC": ("2:", None), "SCPECG": ("5.6.3-9-", "1.3")}
_UNITS = {"mV": ("millivolt", 1.0), "uV": ("microvolt", 1000.0)}


def to_dicom(recording: Recording, *, identity: str, age: float | None = None) -> Dataset:
    """A 12-lead ECG Waveform Storage object, ready to be saved (DICOM PS3.3, A.34.3 and C.10.9).

    Parameters
    ----------
    recording : Recording
    identity : str
        UIDs follow from it: the same one, the same file.
    age : float, optional
        Years.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = TwelveLeadECGWaveformStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[identity, "instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = Dataset()
    d.file_meta = meta
    d.SOPClassUID, d.SOPInstanceUID = TwelveLeadECGWaveformStorage, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID = (
        generate_uid(entropy_srcs=[identity, kind]) for kind in ("study", "series")
    )
    d.StudyDate = d.ContentDate = "20260101"
    d.StudyTime = d.ContentTime = "000000"
    d.AcquisitionDateTime = "20260101000000"
    d.AccessionNumber, d.ReferringPhysicianName, d.StudyID = "", "", ""
    d.Modality, d.Manufacturer, d.ManufacturerModelName = "ECG", "edgehem phantom", recording.machine.name
    d.StudyDescription, d.SeriesDescription = "SYNTHETIC ECG", "Synthetic signal. Not a patient."
    d.PatientName, d.PatientID = "PHANTOM^SYNTHETIC", "PHANTOM"
    d.PatientBirthDate, d.PatientSex = "", "O"
    if age is not None:
        d.PatientAge = f"{round(age):03d}Y"
    d.SeriesNumber, d.InstanceNumber = 1, 1
    d.AcquisitionContextSequence = Sequence()
    d.WaveformSequence = Sequence([_group(recording)])
    return d


def _group(recording: Recording) -> Dataset:
    """The one multiplex group: channels, and samples channel by channel within each time."""
    machine = recording.machine
    g = Dataset()
    g.MultiplexGroupTimeOffset, g.TriggerTimeOffset = "0", "0"
    g.WaveformOriginality = "ORIGINAL"
    g.NumberOfWaveformChannels, g.NumberOfWaveformSamples = recording.counts.shape
    g.SamplingFrequency = str(machine.hertz)
    g.MultiplexGroupLabel = "RHYTHM"
    g.ChannelDefinitionSequence = Sequence([_channel(name, recording) for name in LEADS])
    g.WaveformBitsAllocated, g.WaveformSampleInterpretation = 16, "SS"
    g.WaveformData = np.ascontiguousarray(recording.counts.T).astype("<i2").tobytes()
    g["WaveformData"].VR = "OW"
    return g


def _channel(lead: str, recording: Recording) -> Dataset:
    machine = recording.machine
    prefix, version = _SCHEMES[machine.scheme]
    meaning, per_mv = _UNITS[machine.unit]
    c = Dataset()
    name = "Lead I (Einthoven)" if lead == "I" and machine.scheme == "SCPECG" else f"Lead {lead}"
    c.ChannelSourceSequence = Sequence([_code(prefix + _CODES[lead], machine.scheme, name, version)])
    c.ChannelSensitivity = f"{recording.lsb_mv * per_mv:.10g}"
    c.ChannelSensitivityUnitsSequence = Sequence([_code(machine.unit, "UCUM", meaning, "1.4")])
    c.ChannelSensitivityCorrectionFactor, c.ChannelBaseline = "1", "0"
    c.ChannelSampleSkew = "0"
    c.WaveformBitsStored = 16
    c.FilterLowFrequency, c.FilterHighFrequency = f"{machine.high_pass:g}", f"{machine.low_pass:g}"
    c.NotchFilterFrequency = f"{machine.mains:g}" if machine.notch else "0"
    return c


def _code(value: str, scheme: str, meaning: str, version: str | None) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    if version:
        code.CodingSchemeVersion = version
    return code


def write_ecg(path: Path, recording: Recording, *, identity: str, age: float | None = None) -> None:
    """Write a recording as a DICOM file; see :func:`to_dicom`."""
    to_dicom(recording, identity=identity, age=age).save_as(path, enforce_file_format=True)
