"""Media with a DICOMDIR: records that say something else than the files, and what else there is on a disk."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from pydicom.dataset import Dataset

from defects.given import CANARY, SERIES, Given, assign, put, save, stored
from defects.media import MEDIA
from defects.medium import Medium, medium, record_of
from edgehem.errors import Code

refused, flagged, read_right = MEDIA.refused, MEDIA.flagged, MEDIA.read_right

REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


def _report(given: Given) -> Dataset:
    ds = given.copy(9)[0]
    assign(ds, PixelData=None, Rows=None, Columns=None, Modality="SR", SOPClassUID=REPORT)
    ds.file_meta = deepcopy(ds.file_meta)
    ds.file_meta.MediaStorageSOPClassUID = REPORT
    return ds


# Records that do not fit the files.


@read_right("a medium made anonymous, the DICOMDIR left as it was", "common in research and teaching")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    for i, ds in enumerate(given.slices):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{SERIES}.7", f"{SERIES}.7.1"
        ds.SOPInstanceUID = f"{SERIES}.7.1.{i}"
        save(ds, made.file(i))
    return place


@refused(
    Code.SLICE_GAP, "a medium made anonymous, and its highest slice lost", "the DICOMDIR tells by names only"
)  # fmt: skip
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    for i, ds in enumerate(given.slices):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{SERIES}.7", f"{SERIES}.7.1"
        ds.SOPInstanceUID = f"{SERIES}.7.1.{i}"
        save(ds, made.file(i))
    made.file(19).unlink()
    return place


@read_right("other instance UIDs in the records", "an archive that gives its own on the way out")
def _(given: Given) -> None:
    made = medium(given)
    for i, record in enumerate(made.images):
        record.ReferencedSOPInstanceUIDInFile = f"{SERIES}.8.{i}"
    made.burn()


@read_right("names in the records exchanged", "a burning program that lost count")
def _(given: Given) -> Path:
    made = medium(given)
    names = [list(record.ReferencedFileID) for record in made.images]

    def change(_: list[Dataset]) -> None:
        for record, name in zip(made.images, reversed(names), strict=True):
            record.ReferencedFileID = name

    return made.burn(change=change)


@read_right("every image listed twice", "a disk written in two sessions")
def _(given: Given) -> Path:
    made = medium(given)
    made.records += deepcopy(made.images)
    return made.burn()


@flagged(Code.DUPLICATES_DROPPED, name="every image on the medium twice", cause="a disk written twice", same=True)
def _(given: Given) -> Path:
    made = medium(given)
    made.add(given.slices, "S0101")
    return made.burn()


@read_right("an image that is the DICOMDIR itself", "hostile")
def _(given: Given) -> Path:
    made = medium(given)
    made.records.append(record_of("IMAGE", ReferencedFileID=["DICOMDIR"]))
    return made.burn()


@read_right("a deleted series, its records out of use", "an edited medium")
def _(given: Given) -> Path:
    made = medium(given)
    count = len(made.records)
    for file in made.add(given.copy(), "S0002"):
        file.unlink()
    for record in made.records[count:]:
        record.RecordInUseFlag = 0
    return made.burn()


@refused(Code.SLICE_GAP, "a deleted slice, its record out of use", "an edited medium")
def _(given: Given) -> Path:
    made = medium(given)
    made.images[9].RecordInUseFlag = 0
    made.file(9).unlink()
    return made.burn()


# Links between records.


def _ring(records: list[Dataset]) -> None:
    last = records[-1]
    last.OffsetOfTheNextDirectoryRecord = records[2].OffsetOfReferencedLowerLevelDirectoryEntity


def _far(records: list[Dataset]) -> None:
    for record in records:
        record.OffsetOfTheNextDirectoryRecord = 0xFFFFFFF0
        record.OffsetOfReferencedLowerLevelDirectoryEntity = 10**9


def _none(records: list[Dataset]) -> None:
    for record in records:
        record.OffsetOfTheNextDirectoryRecord = record.OffsetOfReferencedLowerLevelDirectoryEntity = 0


def _shifted(records: list[Dataset]) -> None:
    for record in records:
        for keyword in ("OffsetOfTheNextDirectoryRecord", "OffsetOfReferencedLowerLevelDirectoryEntity"):
            setattr(record, keyword, getattr(record, keyword) + 14)


for _name, _cause, _change in (
    ("links in a circle between records", "hostile, or a program that lost count", _ring),
    ("links past the end of the DICOMDIR", "a program that counts from elsewhere", _far),
    ("no links between records", "a program that writes a list", _none),
    ("links that miss their records", "the file meta was rewritten", _shifted),
):

    @read_right(_name, _cause)
    def _(given: Given, change: Callable[[list[Dataset]], None] = _change) -> Path:
        return medium(given).burn(change=change)

    @refused(Code.SLICE_GAP, f"{_name}, the highest slice lost", "a scratched disk besides")
    def _(given: Given, change: Callable[[list[Dataset]], None] = _change) -> Path:
        made = medium(given)
        place = made.burn(change=change)
        made.file(19).unlink()
        return place


# What else a medium holds.


@refused(Code.GEOMETRY_MIXED, "head CTs of two patients on one disk", "a disk for a conference, or a mistake")
def _(given: Given) -> Path:
    made = medium(given)
    others = given.copy()
    for ds in others:
        ds.PatientID, ds.StudyInstanceUID = f"{CANARY}OTHER", f"{SERIES}.999"
    made.add(others, "S0002")
    return made.burn()


@refused(Code.GEOMETRY_MIXED, "a head CT and its prior on one disk", "usual for transfers between hospitals")
def _(given: Given) -> Path:
    made = medium(given)
    others = given.copy()
    for ds in others:
        ds.StudyInstanceUID = f"{SERIES}.999"
    made.add(others, "S0002")
    return made.burn()


@read_right("MR, a bone kernel and a report on the same disk", "usual for transfers between hospitals")
def _(given: Given) -> Path:
    made = medium(given)
    mr, bone = given.copy(3), given.copy(4)
    for ds in mr:
        assign(ds, Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", StudyInstanceUID=f"{SERIES}.999")
    for ds in bone:
        ds.ConvolutionKernel = "H60s"
    made.add(mr, "S0003")
    made.add(bone, "S0004")
    made.add([_report(given)], "S0009", kind="SR DOCUMENT")
    return made.burn()


@refused(Code.UNREADABLE, "a DICOMDIR that lists only a report", "the images are on another disk")
def _(given: Given) -> Path:
    given.written = True
    made = Medium(given.folder)
    made.add([_report(given)], "S0009", kind="SR DOCUMENT")
    return made.burn()


@refused(Code.PIXELS_MISSING, "a medium with only a report", "the images are on another disk")
def _(given: Given) -> None:
    given.written = True
    made = Medium(given.folder)
    made.add([_report(given)], "S0009", kind="SR DOCUMENT")
    made.burn()


@read_right("two media in one folder", "two disks of one patient were copied")
def _(given: Given) -> None:
    medium(given, given.folder / "A").burn()
    other = Medium(given.folder / "B")
    chest = given.copy(2)
    for ds in chest:
        assign(ds, BodyPartExamined="CHEST", SeriesDescription=f"{CANARY} CHEST")
    other.add(chest, "S0001")  # the same names as on the first
    other.burn()


@refused(Code.SLICE_GAP, "two media in one folder, a slice of the first lost", "the same names are on the second")
def _(given: Given) -> None:
    made = medium(given, given.folder / "A")
    made.burn()
    made.file(19).unlink()
    other = Medium(given.folder / "B")
    others = given.copy(2)
    for ds in others:
        assign(ds, BodyPartExamined="CHEST", SeriesDescription=f"{CANARY} CHEST")
    other.add(others, "S0001")
    other.burn()


# The DICOMDIR as a file.


@refused(Code.UNREADABLE, "a DICOMDIR without records", "a burning program that stopped")
def _(given: Given) -> Path:
    made = medium(given)
    made.records.clear()
    return made.burn()


@read_right("a medium whose DICOMDIR has no records", "a burning program that stopped")
def _(given: Given) -> None:
    made = medium(given)
    made.records.clear()
    made.burn()


@refused(Code.NO_DICOM, "an empty DICOMDIR", "a full disk")
def _(given: Given) -> Path:
    place = medium(given).burn()
    place.write_bytes(b"")
    return place


@flagged(Code.FILES_PASSED_OVER, name="a medium with an empty DICOMDIR", cause="a full disk", same=True)
def _(given: Given) -> None:
    medium(given).burn().write_bytes(b"")


@refused(Code.UNREADABLE, "a DICOMDIR cut off", "a scratched disk")
def _(given: Given) -> Path:
    place = medium(given).burn()
    place.write_bytes(place.read_bytes()[:-1000])
    return place


@read_right("a medium whose DICOMDIR is cut off", "a scratched disk")
def _(given: Given) -> None:
    place = medium(given).burn()
    place.write_bytes(place.read_bytes()[:-1000])


@flagged(
    Code.FILES_PASSED_OVER, name="a DICOMDIR of 4,000 images, 20 here", cause="one folder of an archive", same=True
)
def _(given: Given) -> Path:
    made = medium(given)
    made.records += [
        record_of("IMAGE", ReferencedFileID=["ELSE", f"I{i}"], ReferencedSOPInstanceUIDInFile=f"{SERIES}.6.{i}")
        for i in range(4000)
    ]
    parent = record_of("SERIES", SeriesInstanceUID=f"{SERIES}.6")
    made.parents.append((parent, made.records[-4000:]))
    made.records.append(parent)
    return made.burn()


@refused(Code.UNREADABLE, "a DICOMDIR of 25,000 records", "hostile, or a whole archive's")
def _(given: Given) -> Path:
    place = medium(given).burn()
    data = place.read_bytes()
    at = data.index(b"\x04\x00\x20\x12SQ")
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    place.write_bytes(
        data[:at] + b"\x04\x00\x20\x12SQ\0\0" + (len(item) * 25_000).to_bytes(4, "little") + item * 25_000
    )
    return place


@refused(Code.UNREADABLE, "a DICOMDIR of 20 MB", "hostile, or a whole archive's")
def _(given: Given) -> Path:
    made = medium(given)
    made.records[0].add_new(0x00091001, "OB", bytes(20_000_000))
    return made.burn()


@refused(Code.COVERAGE, "a medium with a part of the scan only, and a whole DICOMDIR of that part", "one of two disks")
def _(given: Given) -> Path:
    del given.slices[:10]
    return medium(given).burn()


@flagged(Code.SERIES_CHOSEN, name="two head series on one medium", cause="a scan repeated after motion")
def _(given: Given) -> Path:
    made = medium(given)
    others = given.copy()
    for ds in others:
        put(ds, stored(ds) + 1)
    made.add(others, "S0002")
    return made.burn()
