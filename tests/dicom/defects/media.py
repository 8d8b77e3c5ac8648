"""Media with a DICOMDIR: burned disks, memory sticks, and what copying and anonymising leave of them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from defects.given import CANARY, SERIES, Family, Given, assign, put, raw, save, stored
from edgehem.errors import Code

MEDIA = Family("media with a DICOMDIR")
refused, flagged, read_right = MEDIA.refused, MEDIA.flagged, MEDIA.read_right

DIRECTORY = "1.2.840.10008.1.3.10"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


class Medium:
    """A medium with the given slices on it, and its directory, which is written by :meth:`burn`.

    Parameters
    ----------
    root : Path
        Where the DICOMDIR lies; a folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: list[Dataset] = []
        self._parents: list[tuple[Dataset, list[Dataset]]] = []

    @property
    def place(self) -> Path:
        """The DICOMDIR."""
        return self.root / "DICOMDIR"

    @property
    def images(self) -> list[Dataset]:
        """The records of images, in the order of the slices."""
        return [record for record in self.records if record.DirectoryRecordType == "IMAGE"]

    def file(self, number: int) -> Path:
        """The file that the record of an image was made for."""
        return self.root.joinpath(*self.images[number].ReferencedFileID)

    def add(self, slices: Sequence[Dataset], folder: str, *, kind: str = "IMAGE", listed: bool = True) -> list[Path]:
        """Write objects of one series into a folder, and list them."""
        first = slices[0]
        files = []
        leaves = []
        for i, ds in enumerate(slices):
            name = [CANARY, folder, f"I{i:04d}"]
            files.append(save(ds, self.root.joinpath(*name)))
            leaf = _record(
                kind, ReferencedFileID=name, ReferencedSOPClassUIDInFile=ds.SOPClassUID,
                ReferencedSOPInstanceUIDInFile=ds.SOPInstanceUID,
                ReferencedTransferSyntaxUIDInFile=ExplicitVRLittleEndian, InstanceNumber=i + 1,
            )  # fmt: skip
            leaves.append(leaf)
        if listed:
            patient = _record("PATIENT", PatientID=first.PatientID, PatientName=first.PatientName)
            study = _record("STUDY", StudyInstanceUID=first.StudyInstanceUID, StudyDescription=f"{CANARY} STUDY")
            series = _record("SERIES", SeriesInstanceUID=first.SeriesInstanceUID, Modality=first.Modality)
            self._parents += [(patient, [study]), (study, [series]), (series, leaves)]
            self.records += [patient, study, series, *leaves]
        return files

    def burn(
        self,
        *,
        change: Callable[[list[Dataset]], None] | None = None,
        syntax: UID = ExplicitVRLittleEndian,
        undefined: bool = False,
    ) -> Path:
        """Write the DICOMDIR; ``change`` sees the records when their links are right."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(DIRECTORY), UID(f"{SERIES}.0")
        meta.TransferSyntaxUID = syntax
        ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        ds.FileSetID, ds.FileSetConsistencyFlag = CANARY[:6], 0
        ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
        ds.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
        ds.DirectoryRecordSequence = self.records
        ds["DirectoryRecordSequence"].is_undefined_length = undefined
        for record in self.records:
            record.is_undefined_length_sequence_item = undefined
        self._write(ds)  # offsets do not change the lengths
        found = pydicom.dcmread(self.place).get("DirectoryRecordSequence") or []
        at = {id(record): there.seq_item_tell for record, there in zip(self.records, found, strict=True)}
        for parent, children in self._parents:
            here = [child for child in children if id(child) in at]
            if here:
                parent.OffsetOfReferencedLowerLevelDirectoryEntity = at[id(here[0])]
            for child, following in pairwise(here):
                child.OffsetOfTheNextDirectoryRecord = at[id(following)]
        if change is not None:
            change(self.records)
        self._write(ds)
        return self.place

    def _write(self, ds: Dataset) -> None:
        implicit = ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(self.place, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=False)


def _record(kind: str, **tags: object) -> Dataset:
    ds = Dataset()
    ds.OffsetOfTheNextDirectoryRecord, ds.RecordInUseFlag = 0, 0xFFFF
    ds.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    ds.DirectoryRecordType = kind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assign(ds, **tags)
    return ds


def medium(given: Given, root: Path | None = None) -> Medium:
    """The scan on a medium, with its directory not yet written."""
    given.written = True
    made = Medium(root or given.folder)
    made.add(given.slices, "S0001")
    return made


def address(record: Dataset, parts: list[str]) -> None:
    """Give a File ID, whatever is in it."""
    raw(record, "ReferencedFileID", "\\".join(parts).encode())


def named(records: list[Dataset], rename: Callable[[list[str]], list[str]]) -> None:
    """Other File IDs."""
    for record in records:
        if "ReferencedFileID" in record:
            address(record, rename(list(record.ReferencedFileID)))


def _report(given: Given) -> Dataset:
    ds = given.copy(9)[0]
    assign(ds, PixelData=None, Rows=None, Columns=None, Modality="SR", SOPClassUID=REPORT)
    ds.file_meta = deepcopy(ds.file_meta)
    ds.file_meta.MediaStorageSOPClassUID = REPORT
    return ds


# The medium as it should be, and in other letters.


@read_right("a medium: the folder is given", "usual")
def _(given: Given) -> None:
    medium(given).burn()


@read_right("a medium: its DICOMDIR is given", "usual")
def _(given: Given) -> Path:
    return medium(given).burn()


@read_right("a medium as a zip file", "usual for web portals")
def _(given: Given) -> Path:
    medium(given).burn()
    return Path(shutil.make_archive(str(given.folder.parent / f"{CANARY}_disk"), "zip", given.folder))


@read_right("a DICOMDIR in implicit VR", "not allowed, and met")
def _(given: Given) -> Path:
    return medium(given).burn(syntax=ImplicitVRLittleEndian)


@read_right("a DICOMDIR with undefined lengths", "usual")
def _(given: Given) -> Path:
    return medium(given).burn(undefined=True)


@read_right("lower-case names on the medium", "Linux mounts disks so")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    (made.root / CANARY).rename(made.root / CANARY.lower())
    for file in (made.root / CANARY.lower() / "S0001").iterdir():
        file.rename(file.with_name(file.name.lower()))
    return place


@read_right("lower-case names in the DICOMDIR", "a memory stick written by a viewer")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: [part.lower() for part in parts]))


@read_right("versions after the names on the medium", "ISO 9660 mounted without translation")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    for number in range(len(made.images)):
        made.file(number).rename(f"{made.file(number)};1")
    return place


@read_right("versions after the names in the DICOMDIR", "a list of a disk's names was taken over")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: [*parts[:-1], f"{parts[-1]};1"]))


@read_right("slashes between the parts of a name", "a burning program of another system")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: ["/".join(parts)]))


@read_right("names that begin at the root of the medium", "a burning program that writes \\\\IMAGES\\\\I1")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: ["", *parts]))


@read_right("names that begin with a dot", "a burning program that writes .\\\\IMAGES\\\\I1")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: [".", *parts]))


@read_right("long names with suffixes and blanks", "a memory stick written by a viewer")
def _(given: Given) -> Path:
    made = medium(given)
    for number, record in enumerate(made.images):
        name = [CANARY, f"{CANARY} head without", f"{CANARY} image {number:04d}.dcm"]
        target = made.root.joinpath(*name)
        target.parent.mkdir(exist_ok=True)
        made.file(number).rename(target)
        address(record, name)
    return made.burn()


@read_right("the DICOMDIR under another name", "exports of some workstations")
def _(given: Given) -> Path:
    return medium(given).burn().rename(given.folder / f"{CANARY}.dir")


# Names that lead elsewhere.


@refused(Code.UNREADABLE, "names with a drive: the DICOMDIR is given", "a list of the burning machine's files")
def _(given: Given) -> Path:
    return medium(given).burn(change=lambda records: named(records, lambda parts: ["D:", "EXPORT", *parts]))


@read_right("names with a drive: the folder is given", "a list of the burning machine's files")
def _(given: Given) -> None:
    medium(given).burn(change=lambda records: named(records, lambda parts: ["D:", "EXPORT", *parts]))


def _outside(given: Given, rename: Callable[[list[str]], list[str]]) -> Path:
    """The images lie beside the medium."""
    made = medium(given)
    made.burn(change=lambda records: named(records, rename))
    inner = given.folder / "MEDIUM"
    inner.mkdir()
    return Path(shutil.move(made.place, inner / "DICOMDIR"))


@refused(Code.UNREADABLE, "names that climb out of the medium", "hostile, or a copy of one folder of a disk")
def _(given: Given) -> Path:
    return _outside(given, lambda parts: ["..", *parts])


@refused(Code.UNREADABLE, "names that climb out of the medium, in one piece", "hostile")
def _(given: Given) -> Path:
    return _outside(given, lambda parts: ["../" + "/".join(parts)])


@refused(Code.UNREADABLE, "absolute names", "hostile, or a list of the burning machine's files")
def _(given: Given) -> Path:
    return _outside(given, lambda parts: [*str(given.folder).split("/"), *parts])


@refused(Code.UNREADABLE, "names through a link", "hostile")
def _(given: Given) -> Path:
    place = _outside(given, lambda parts: ["LINK", *parts])
    (place.parent / "LINK").symlink_to(given.folder)
    return place


@refused(Code.UNREADABLE, "a DICOMDIR without its medium", "the one file was sent")
def _(given: Given) -> Path:
    made = medium(given)
    shutil.rmtree(made.root / CANARY)
    return made.burn()


@refused(Code.UNREADABLE, "a folder with nothing but a DICOMDIR", "the one file was copied")
def _(given: Given) -> None:
    made = medium(given)
    shutil.rmtree(made.root / CANARY)
    made.burn()


# Files that are not there, and files that are not listed.


for _number, _where in ((0, "lowest"), (9, "middle"), (19, "highest")):
    for _whole in (False, True):
        _given = "folder" if _whole else "DICOMDIR"

        @refused(Code.SLICE_GAP, f"the {_where} slice is not on the medium: the {_given} is given", "a scratched disk")
        def _(given: Given, number: int = _number, whole: bool = _whole) -> Path:
            made = medium(given)
            place = made.burn()
            made.file(number).unlink()
            return made.root if whole else place


@refused(Code.SLICE_GAP, "the highest slice is not in the zip file of a medium", "a scratched disk was packed")
def _(given: Given) -> Path:
    made = medium(given)
    made.burn()
    made.file(19).unlink()
    return Path(shutil.make_archive(str(given.folder.parent / f"{CANARY}_disk"), "zip", given.folder))


@refused(Code.SLICE_GAP, "the highest slice is a copy of its neighbour", "a burning program that lost count")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    shutil.copy(made.file(18), made.file(19))
    return place


@refused(Code.SLICE_GAP, "the highest slice on the medium is empty", "a scratched disk was copied")
def _(given: Given) -> Path:
    made = medium(given)
    place = made.burn()
    made.file(19).write_bytes(b"")
    return place


@refused(Code.SLICE_GAP, "the highest slice is not there, and records have no UIDs", "an old burning program")
def _(given: Given) -> Path:
    made = medium(given)
    for record in made.images:
        del record.ReferencedSOPInstanceUIDInFile
    place = made.burn()
    made.file(19).unlink()
    return place


@read_right("records without UIDs", "an old burning program")
def _(given: Given) -> Path:
    made = medium(given)
    for record in made.images:
        del record.ReferencedSOPInstanceUIDInFile
    return made.burn()


@flagged(Code.FILES_PASSED_OVER, name="the scout is not on the medium", cause="a scratched disk", same=True)
def _(given: Given) -> Path:
    made = medium(given)
    scout = given.copy(5)[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    (file,) = made.add([scout], "S0005")
    file.unlink()
    return made.burn()


@flagged(Code.FILES_PASSED_OVER, name="one disk of two", cause="the DICOMDIR lists both", same=True)
def _(given: Given) -> None:
    made = medium(given)
    for file in made.add(given.copy(5), "S0005"):
        file.unlink()
    made.burn()


@read_right("slices beside the listed ones", "sent again after the DICOMDIR was written")
def _(given: Given) -> Path:
    made = medium(given)
    gone = made.images[17:]
    made.records = [record for record in made.records if all(record is not other for other in gone)]
    return made.burn()


@read_right("a series that is not listed: the DICOMDIR is given", "other files on a memory stick")
def _(given: Given) -> Path:
    made = medium(given)
    made.add(given.copy(), "S0002", listed=False)
    return made.burn()


@flagged(Code.SERIES_CHOSEN, name="a series that is not listed: the folder is given", cause="files on a memory stick")
def _(given: Given) -> None:
    made = medium(given)
    made.add(given.copy(), "S0002", listed=False)
    made.burn()


@read_right("files under other names than listed", "copied by a program that gives names of its own")
def _(given: Given) -> None:
    made = medium(given)
    made.burn()
    for number in range(len(made.images)):
        made.file(number).rename(made.root / f"{CANARY}{97 * number % 101:03d}.dcm")


@read_right("a viewer's folder beside the images: the DICOMDIR is given", "usual on disks")
def _(given: Given) -> Path:
    made = medium(given)
    (made.root / "VIEWER").mkdir()
    (made.root / "VIEWER" / "START.EXE").write_bytes(b"MZ" + bytes(5000))
    (made.root / "AUTORUN.INF").write_text(CANARY)
    return made.burn()


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
    made.records.append(_record("IMAGE", ReferencedFileID=["DICOMDIR"]))
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
        _record("IMAGE", ReferencedFileID=["ELSE", f"I{i}"], ReferencedSOPInstanceUIDInFile=f"{SERIES}.6.{i}")
        for i in range(4000)
    ]
    parent = _record("SERIES", SeriesInstanceUID=f"{SERIES}.6")
    made._parents.append((parent, made.records[-4000:]))
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
