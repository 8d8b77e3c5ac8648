"""DICOMDIR: given itself, lying in a folder, and listing what is not there."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from edgehem.dicom import directory, read_study
from edgehem.errors import Code, Refusal


@pytest.fixture
def medium(tmp_path, write, head, spec) -> Path:
    """A medium with a head, its scout, and a report-like stranger beside them."""
    made = FileSet()
    files = write(head)
    files += write(head[:1], spec(series=2, tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}))
    for file in files:
        ds = pydicom.dcmread(file)
        # What a DICOMDIR asks for.
        ds.StudyDate, ds.StudyTime, ds.StudyID = "20260101", "000000", "1"
        made.add(ds)
    root = tmp_path / "medium"
    made.write(root)
    made._stage["t"].cleanup()  # pydicom leaves it to the garbage collector, which warns
    (root / "study").mkdir(exist_ok=True)
    return root


def images(medium):
    """The files of the head, in the order of the directory."""
    records = pydicom.dcmread(medium / "DICOMDIR").DirectoryRecordSequence
    return [
        medium.joinpath(*record.ReferencedFileID)
        for record in records
        if record.DirectoryRecordType == "IMAGE"
    ]  # fmt: skip


def head_images(medium):
    return [file for file in images(medium) if pydicom.dcmread(file, stop_before_pixels=True).SeriesNumber == 1]


def refusal(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value


def codes(study):
    return [note.code for note in study.notes]


def test_a_directory_and_its_folder_are_the_same_study(medium, study):
    plain = read_study(study)
    by_folder, by_file = read_study(medium), read_study(medium / "DICOMDIR")
    assert by_folder.digest == by_file.digest == plain.digest
    assert by_folder.notes == by_file.notes == ()
    assert len(by_folder.series) == len(by_file.series) == 2


def test_its_name_does_not_matter(medium, study):
    (medium / "DICOMDIR").rename(medium / "index.dcm")
    assert read_study(medium / "index.dcm").digest == read_study(study).digest


def test_only_folders_that_it_lists_are_read(medium, head, write, spec):
    for file in write(head, spec(series=7)):
        shutil.move(file, medium / file.name)
    assert codes(read_study(medium)) == [Code.SERIES_CHOSEN]
    assert codes(read_study(medium / "DICOMDIR")) == []


def test_unlisted_slices_beside_listed_ones_are_read(medium, study):
    """A slice that was added after the DICOMDIR was written; other files there are no matter of the directory."""
    ds = pydicom.dcmread(medium / "DICOMDIR")
    last = list(head_images(medium)[-1].relative_to(medium).parts)
    ds.DirectoryRecordSequence = [r for r in ds.DirectoryRecordSequence if r.get("ReferencedFileID") != last]
    ds.save_as(medium / "DICOMDIR")
    folder = medium.joinpath(*last).parent
    (folder / "notes.txt").write_text("a note")
    (folder / ".hidden").write_bytes((medium.joinpath(*last)).read_bytes())
    (folder / "link").symlink_to(medium.joinpath(*last))
    result = read_study(medium / "DICOMDIR")
    assert result.digest == read_study(study).digest
    assert result.notes == ()


def test_a_directory_of_other_uids_tells_by_names(medium, study):
    """A medium made anonymous: its files are those listed, and a lost one is still missed."""
    for number, file in enumerate(images(medium)):
        ds = pydicom.dcmread(file)
        ds.SOPInstanceUID, ds.SeriesInstanceUID = f"1.2.3.77.{number}", f"1.2.3.78.{ds.SeriesNumber}"
        ds.save_as(file)
    for path in (medium, medium / "DICOMDIR"):
        assert codes(read_study(path)) == []
    head_images(medium)[-1].unlink()
    for path in (medium, medium / "DICOMDIR"):
        assert refusal(path).code is Code.SLICE_GAP


def test_names_in_another_case_or_with_a_version(medium, study):
    for file in images(medium):
        file.rename(file.with_name(f"{file.name.lower()}.;1"))
    for folder in sorted((p for p in medium.rglob("*") if p.is_dir()), reverse=True):
        folder.rename(folder.with_name(folder.name.lower()))
    assert read_study(medium / "DICOMDIR").digest == read_study(study).digest


@pytest.mark.parametrize("index", [0, 13, 27])
def test_a_listed_slice_that_is_not_there_is_a_lost_slice(medium, index):
    """The first and the last leave no gap: without the directory nobody would know."""
    head_images(medium)[index].unlink()
    for path in (medium, medium / "DICOMDIR"):
        assert refusal(path).code is Code.SLICE_GAP
    (medium / "DICOMDIR").unlink()
    if index in (0, 27):
        read_study(medium)


def test_files_under_other_names_are_still_there(medium, study):
    for number, file in enumerate(images(medium)):
        file.rename(medium / f"{number}.dcm")
    assert codes(read_study(medium)) == []
    found = refusal(medium / "DICOMDIR")
    assert found.code is Code.UNREADABLE and "None of the images" in found.reason


def test_a_lost_image_of_another_series_is_said(medium):
    (scout,) = set(images(medium)) - set(head_images(medium))
    scout.unlink()
    result = read_study(medium)
    assert codes(result) == [Code.FILES_PASSED_OVER]
    assert "1 images" not in result.notes[0].reason


def bend(medium, change):
    ds = pydicom.dcmread(medium / "DICOMDIR")
    for record in ds.DirectoryRecordSequence:
        change(record)
    ds.save_as(medium / "DICOMDIR")


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    "parts",
    [
        ["..", "outside.dcm"],
        ["../outside.dcm"],
        ["", "..", "outside.dcm"],
        ["/etc", "passwd"],
        ["A"] * 8,
        ["LINK", "X.DCM"],
        ["LINK.DCM"],
        [""],
        ["..."],
    ],
    ids=str,
)
def test_no_name_leads_out_of_the_folder(medium, study, tmp_path, parts):
    outside = next(iter(study.glob("*.dcm")))
    shutil.copy(outside, tmp_path / "outside.dcm")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(outside, tmp_path / "elsewhere" / "x.dcm")
    (medium / "link").symlink_to(tmp_path / "elsewhere")
    (medium / "link.dcm").symlink_to(outside)

    def change(record):
        if record.DirectoryRecordType == "IMAGE":
            record.ReferencedFileID = parts

    bend(medium, change)
    assert refusal(medium / "DICOMDIR").code is Code.UNREADABLE


def test_links_that_lead_in_circles_or_nowhere(medium, study):
    def change(record):
        record.OffsetOfTheNextDirectoryRecord = 400 if record.DirectoryRecordType == "IMAGE" else 0
        if record.DirectoryRecordType == "SERIES":
            record.OffsetOfReferencedLowerLevelDirectoryEntity = 10**9

    bend(medium, change)
    assert read_study(medium / "DICOMDIR").digest == read_study(study).digest
    # Which series a lost image is of cannot be told: it may be any.
    head_images(medium)[0].unlink()
    assert refusal(medium / "DICOMDIR").code is Code.SLICE_GAP


def test_records_out_of_use_are_not_missed(medium):
    last = head_images(medium)[-1]
    name = list(last.relative_to(medium).parts)

    def change(record):
        if record.get("ReferencedFileID") == name:
            record.RecordInUseFlag = 0

    bend(medium, change)
    last.unlink()
    assert codes(read_study(medium)) == []


def test_a_damaged_directory_is_no_damaged_image(medium, study):
    place = medium / "DICOMDIR"
    data = place.read_bytes()
    for end in range(400, len(data) - 1, 997):
        place.write_bytes(data[:end])
        assert refusal(place).code is Code.UNREADABLE
    assert read_study(medium).digest == read_study(study).digest


def test_a_directory_alone(tmp_path, medium):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(medium / "DICOMDIR", alone)
    for path in (alone, alone / "DICOMDIR"):
        found = refusal(path)
        assert found.code is Code.UNREADABLE and "None of the images" in found.reason


def test_too_many_records(medium, monkeypatch):
    monkeypatch.setattr(directory, "MAX_RECORDS", 10)
    assert refusal(medium / "DICOMDIR").code is Code.UNREADABLE


def test_garbage_gets_an_answer(medium):
    """Bytes changed anywhere in the directory give a study or a refusal, never another error."""
    place = medium / "DICOMDIR"
    data = place.read_bytes()
    rng = np.random.default_rng(6)
    for _ in range(60):
        bent = bytearray(data)
        for at in rng.integers(132, len(data), size=rng.integers(1, 5)):
            bent[at] = rng.integers(256)
        place.write_bytes(bent)
        for path in (place, medium):
            with contextlib.suppress(Refusal):
                read_study(path)
