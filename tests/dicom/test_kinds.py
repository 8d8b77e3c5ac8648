"""What is not a head CT is called by its name, and no mask beside a CT is a stranger."""

from __future__ import annotations

import gzip
import shutil
import struct
import zipfile

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from edgehem.dicom import read_study
from edgehem.dicom.archive import unpacked
from edgehem.dicom.kinds import Kind, Weighting, what_is_at
from edgehem.errors import Code, Refusal, UsageError

ECG_SOP = "1.2.840.10008.5.1.4.1.1.9.1.1"
SEG_SOP = "1.2.840.10008.5.1.4.1.1.66.4"


def refusal(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value


def kinds(path):
    return [(part.kind, part.images) for part in what_is_at(path)]


def nifti(version=1, order="<"):
    if version == 2:
        return struct.pack(f"{order}i", 540) + b"n+2\0\r\n\x1a\n" + bytes(600)
    return struct.pack(f"{order}i", 348) + bytes(340) + b"n+1\0" + bytes(200)


def save(path, *, modality, sop, **values):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, sop
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = sop, "1.2.3.8", f"1.2.3.8.{len(sop)}"
    if modality:
        ds.Modality = modality
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=False)
    return path


def test_a_head_ct(write, study, head):
    files = write(head)
    (part,) = what_is_at(study)
    assert (part.kind, part.images, set(part.files)) == (Kind.CT, 28, set(files))
    assert kinds(files[0]) == [(Kind.CT, 1)]
    with pytest.raises(UsageError):
        what_is_at(study / "absent")


MR = {
    "T1": ({"ScanningSequence": "SE", "EchoTime": 9, "RepetitionTime": 500}, Weighting.T1),
    "T1 gradient": ({"ScanningSequence": ["GR", "IR"], "EchoTime": 3, "InversionTime": 900}, Weighting.T1),
    "T2": ({"ScanningSequence": "SE", "EchoTime": 100, "RepetitionTime": 5000}, Weighting.T2),
    "T2*": ({"ScanningSequence": "GR", "EchoTime": 20}, Weighting.T2_STAR),
    "T2* by name": ({"SeriesDescription": "t2_fl2d_tra_hemo"}, Weighting.T2_STAR),
    "SWI": ({"ScanningSequence": "GR", "EchoTime": 20, "SeriesDescription": "Ax SWI 3D"}, Weighting.SWI),
    "SWAN": ({"ProtocolName": "SWAN"}, Weighting.SWI),
    "SWI by type": ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI"]}, Weighting.SWI),
    "FLAIR": ({"ScanningSequence": ["SE", "IR"], "EchoTime": 120, "InversionTime": 2500}, Weighting.FLAIR),
    "FLAIR by name": ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, Weighting.FLAIR),
    "DWI": ({"ScanningSequence": "EP", "SeriesDescription": "ep2d_diff_b1000"}, Weighting.DWI),
    "DWI by b": ({"ScanningSequence": "EP", "EchoTime": 90, "DiffusionBValue": 1000.0}, Weighting.DWI),
    "between": ({"ScanningSequence": "SE", "EchoTime": 45}, Weighting.UNKNOWN),
    "nothing": ({}, Weighting.UNKNOWN),
    "no number": ({"ScanningSequence": "GR", "EchoTime": None}, Weighting.UNKNOWN),
}


@pytest.mark.parametrize(("tags", "weighting"), MR.values(), ids=MR.keys())
def test_an_mr_series(write, study, head, spec, tags, weighting):
    write(head[:9], spec(tags={"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", **tags}))
    (part,) = what_is_at(study)
    assert (part.kind, part.images, part.weighting) == (Kind.MR, 9, weighting)
    found = refusal(study)
    assert found.code is Code.NOT_CT and "MR series" in found.reason


def test_each_series_is_a_part(write, study, head, spec):
    write(head[:9], spec(series=2, tags={"Modality": "MR", "SeriesDescription": "SWI"}))
    write(head[:8], spec(series=3, tags={"Modality": "MR", "SeriesDescription": "FLAIR"}))
    write(head)
    save(study / "ecg.dcm", modality="ECG", sop=ECG_SOP)
    (study / "m.nii").write_bytes(nifti())
    assert sorted(kinds(study)) == [
        (Kind.CT, 28), (Kind.MR, 8), (Kind.MR, 9), (Kind.NIFTI, 1), (Kind.WAVEFORM, 1),
    ]  # fmt: skip
    result = read_study(study)
    assert result.notes == ()
    reasons = [series.reason for series in result.series]
    assert sum("MR series" in reason for reason in reasons) == 2
    assert any("ECG" in reason for reason in reasons) and any("NIfTI" in reason for reason in reasons)


OTHERS = {
    "ECG": ("ECG", ECG_SOP, Kind.WAVEFORM, Code.NOT_CT, "ECG"),
    "ECG by class": ("", ECG_SOP, Kind.WAVEFORM, Code.NOT_CT, "ECG"),
    "segmentation": ("SEG", SEG_SOP, Kind.SEGMENTATION, Code.NOT_CT, "segmentation"),
    "report": ("SR", "1.2.840.10008.5.1.4.1.1.88.33", Kind.REPORT, Code.PIXELS_MISSING, "reports"),
    "presentation": ("", "1.2.840.10008.5.1.4.1.1.11.1", Kind.REPORT, Code.PIXELS_MISSING, "reports"),
    "plan": ("RTPLAN", "1.2.840.10008.5.1.4.1.1.481.5", Kind.OTHER, Code.PIXELS_MISSING, "not CT"),
    "x-ray": ("CR", "1.2.840.10008.5.1.4.1.1.1", Kind.OTHER, Code.PIXELS_MISSING, "not CT"),
}


@pytest.mark.parametrize(("modality", "sop", "kind", "code", "word"), OTHERS.values(), ids=OTHERS.keys())
def test_other_objects(study, write, head, modality, sop, kind, code, word):
    file = save(study / "x", modality=modality, sop=sop)
    assert kinds(file) == [(kind, 1)]
    found = refusal(file)
    assert found.code is code and word in found.reason
    # Beside a CT it changes nothing, and is in the list of what was found.
    write(head)
    result = read_study(study)
    assert result.notes == () and len(result.series) == 2 and word in result.series[1].reason


@pytest.mark.parametrize("data", [nifti(), nifti(2), nifti(order=">"), gzip.compress(nifti()), gzip.compress(nifti(2))])
def test_nifti_is_told_by_its_bytes(study, write, head, data):
    (study / "image").write_bytes(data)
    assert kinds(study) == kinds(study / "image") == [(Kind.NIFTI, 1)]
    for path in (study, study / "image"):
        found = refusal(path)
        assert found.code is Code.NO_DICOM and "NIfTI" in found.reason
    write(head)
    result = read_study(study)
    assert result.notes == () and result.series[1].modality == "NIFTI"


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", gzip.compress(b"text"), gzip.compress(nifti())[:20], nifti()[:300]])
def test_what_only_starts_like_it_is_a_stranger(study, data):
    (study / "image.nii.gz").write_bytes(data)
    assert kinds(study) == []
    assert refusal(study).code is Code.NO_DICOM


def test_a_gzip_bomb_is_not_inflated(study):
    (study / "bomb.nii.gz").write_bytes(gzip.compress(nifti() + bytes(2**24)))
    assert kinds(study) == [(Kind.NIFTI, 1)]


def test_inside_a_zip(tmp_path, write, study, head):
    write(head)
    (study / "mask.nii.gz").write_bytes(gzip.compress(nifti()))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as out:
        for file in study.iterdir():
            out.write(file, file.name)
    assert read_study(tmp_path / "s.zip").notes == ()
    with unpacked(tmp_path / "s.zip") as place:
        assert kinds(place) == [(Kind.CT, 28), (Kind.NIFTI, 1)]


def test_damage_is_not_judged(write, study, head):
    for number, file in enumerate(write(head)):
        if number % 2:
            file.write_bytes(file.read_bytes()[: 100 * number + 200])
    assert sum(images for _, images in kinds(study)) == 28


def test_a_waveform_of_a_hospital(test_data):
    assert kinds(test_data / "ecg" / "12lead_1khz.dcm") == [(Kind.WAVEFORM, 1)]
    found = refusal(test_data / "ecg" / "12lead_1khz.dcm")
    assert found.code is Code.NOT_CT and "ECG" in found.reason


def test_real_masks_beside_a_real_head(test_data, tmp_path):
    shutil.copytree(test_data / "ct_head_tilt", tmp_path / "s", ignore=shutil.ignore_patterns("LICENSE*"))
    plain = read_study(tmp_path / "s")
    shutil.copy(test_data / "ibsi" / "mask.nii.gz", tmp_path / "s")
    shutil.copy(test_data / "atlas" / "atlas_template_space.nii.gz", tmp_path / "s")
    beside = read_study(tmp_path / "s")
    assert (beside.digest, beside.notes) == (plain.digest, plain.notes)
    assert beside.series[-1].modality == "NIFTI" and beside.series[-1].slices == 2
