"""Which series is analysed, and why the others are not."""

from __future__ import annotations

import pydicom
import pytest

from edgehem.dicom import read_study
from edgehem.errors import Code, Refusal


def codes(study):
    return {note.code for note in study.notes}


def refused(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value.code


NOT_THE_SCAN = {
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "scout by name": {"SeriesDescription": "Topogram 0.6"},
    "dose page": {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    "capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "reformat": {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]},
    "projection": {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MIP"]},
    "derived": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    "coronal": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    "sagittal": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
}


@pytest.mark.parametrize("tags", NOT_THE_SCAN.values(), ids=NOT_THE_SCAN.keys())
def test_what_is_not_the_scan_is_passed_over(write, study, head, spec, tags):
    write(head[:10], spec(series=2, tags=tags))
    assert refused(study) is Code.NO_AXIAL_SERIES
    write(head)
    result = read_study(study)
    assert codes(result) == set()
    assert len(result.series) == 2
    assert result.series[1].reason


OTHER = {
    "magnetic resonance": ({"Modality": "MR"}, Code.NOT_CT),
    "report": ({"Modality": "SR"}, Code.PIXELS_MISSING),
    "multi-frame": ({"NumberOfFrames": 3}, Code.PIXELS_MISSING),
    "enhanced": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, Code.PIXELS_MISSING),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, Code.PIXELS_MISSING),
    "agent": ({"ContrastBolusAgent": "OMNIPAQUE"}, Code.CONTRAST),
    "angiography": ({"SeriesDescription": "CTA HEAD"}, Code.CONTRAST),
    "post": ({"SeriesDescription": "AX HEAD POST C 5mm"}, Code.CONTRAST),
    "with": ({"SeriesDescription": "HEAD W IV CON"}, Code.CONTRAST),
    "both": ({"SeriesDescription": "HEAD W/WO"}, Code.CONTRAST),
    "both in words": ({"SeriesDescription": "with and without contrast"}, Code.CONTRAST),
    "plus c": ({"SeriesDescription": "Head C+ 5.0"}, Code.CONTRAST),
    "chest": ({"BodyPartExamined": "CHEST"}, Code.NOT_HEAD),
    "study of the spine": ({"StudyDescription": "CT L-SPINE"}, Code.NOT_HEAD),
}


@pytest.mark.parametrize(("tags", "code"), OTHER.values(), ids=OTHER.keys())
def test_other_series_are_refused_and_passed_over(write, study, head, spec, tags, code):
    write(head, spec(series=2, tags=tags))
    assert refused(study) is code
    write(head)
    assert codes(read_study(study)) == set()


@pytest.mark.parametrize(
    "tags",
    [
        {"ContrastBolusAgent": "NONE"},
        {"ContrastBolusAgent": ""},
        {"SeriesDescription": "Head without contrast"},
        {"SeriesDescription": "HEAD W/O CONTRAST 5mm"},
        {"SeriesDescription": "Schädel nativ", "SpecificCharacterSet": "ISO_IR 100"},
        {"SeriesDescription": "NON CON HEAD"},
        {"SeriesDescription": "unenhanced"},
        {"SeriesDescription": "Head C- 5.0"},
        {"SeriesDescription": "HEAD WO"},
        {"StudyDescription": "CT HEAD WITH AND WITHOUT CONTRAST"},
        {"StudyDescription": "CT HEAD CHEST ABDOMEN"},
        {"BodyPartExamined": "HEAD", "StudyDescription": "CT C-SPINE"},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"], "LossyImageCompression": "01"},
        {"RescaleType": "HU"},
    ],
    ids=str,
)
def test_words_that_do_not_speak_against_a_plain_head(write, study, head, spec, tags):
    write(head, spec(tags=tags))
    assert codes(read_study(study)) <= {Code.LOSSY}


def test_two_series_the_usual_one_is_chosen_without_quoting(write, study, heads, head, spec, secret):
    thin = heads(slices=112, size=64, spacing=4.0, step=1.25)
    write(thin, spec(series=1, step=1.25, spacing=(4.0, 4.0), tags={"SeriesDescription": secret}))
    write(head, spec(series=3, tags={"ConvolutionKernel": "BONE", "SeriesDescription": secret}))
    write(head, spec(series=2, tags={"SeriesDescription": secret}))
    result = read_study(study)
    assert codes(result) == {Code.SERIES_CHOSEN}
    (note,) = result.notes
    assert "28 slices, 5 mm thick was" in note.reason
    assert "112 slices, 1.25 mm thick" in note.reason
    assert "bone" not in note.reason
    reasons = [series.reason for series in result.series]
    assert reasons.count("Images for bone (a sharp kernel).") == 1
    assert secret not in repr(result.notes) + repr(result.series)
    assert len(result.series) == 3


def test_a_bone_kernel_does_not_stand_in_for_brain_images_of_something_else(write, study, head, spec):
    """Where the only soft series shows no head, the answer is that, and not the bone series' analysis."""
    write(head[:, :, :] * 0 - 1000, spec(series=2))
    write(head, spec(series=3, tags={"ConvolutionKernel": "BONE"}))
    with pytest.raises(Refusal) as caught:
        read_study(study)
    assert caught.value.code in (Code.NOT_HEAD, Code.HU_IMPLAUSIBLE)


def test_a_bone_kernel_alone_is_not_enough(write, study, head, spec):
    write(head, spec(tags={"ConvolutionKernel": "H60s"}))
    assert refused(study) is Code.NO_AXIAL_SERIES


def test_a_broken_series_beside_a_good_one_is_said(write, study, head, spec):
    files = write(head, spec(series=2))
    files[10].unlink()
    write(head)
    result = read_study(study)
    assert codes(result) == {Code.SERIES_CHOSEN}
    assert "missing" in result.notes[0].reason


def test_a_localizer_inside_the_series_is_left_out(write, study, head, spec):
    def change(ds, i):
        if i == 0:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write(head, spec(change=change))
    result = read_study(study)
    assert codes(result) == {Code.FILES_PASSED_OVER}
    assert len(result.volume.pixels) == 27


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_two_patients_or_examinations_are_refused(write, study, head, spec, keyword):
    write(head)
    write(head, spec(series=2, tags={keyword: "1.2.3.77"}))
    assert refused(study) is Code.GEOMETRY_MIXED


def test_too_many_files(write, study, head, monkeypatch):
    monkeypatch.setattr("edgehem.dicom.scan.MAX_FILES", 27)
    write(head)
    assert refused(study) is Code.TOO_LARGE


def test_images_too_large(write, study, head, spec):
    def change(ds, i):
        ds.Rows = ds.Columns = 2048

    write(head, spec(change=change))
    assert refused(study) is Code.TOO_LARGE


def test_messages_hold_no_identifiers(write, study, head, spec, secret, capfd, caplog):
    for number, (tags, _) in enumerate([*OTHER.values(), *((tags, None) for tags in NOT_THE_SCAN.values())]):
        write(head[:9], spec(series=number + 1, tags={**tags, "ProtocolName": secret}))
        with pytest.raises(Refusal) as caught:
            read_study(study)
        assert secret not in str(caught.value)
        assert "1.2." not in str(caught.value)
        assert ".dcm" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_a_folder_of_reports_only(study):
    ds = pydicom.Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3", "SR"
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.save_as(study / "report.dcm", enforce_file_format=True)
    assert refused(study) is Code.PIXELS_MISSING
