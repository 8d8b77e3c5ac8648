"""A medium with a DICOMDIR, as burning programs write it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from defects.given import CANARY, SERIES, Given, assign, raw, save

DIRECTORY = "1.2.840.10008.1.3.10"


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
        self.parents: list[tuple[Dataset, list[Dataset]]] = []

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
            leaf = record_of(
                kind, ReferencedFileID=name, ReferencedSOPClassUIDInFile=ds.SOPClassUID,
                ReferencedSOPInstanceUIDInFile=ds.SOPInstanceUID,
                ReferencedTransferSyntaxUIDInFile=ExplicitVRLittleEndian, InstanceNumber=i + 1,
            )  # fmt: skip
            leaves.append(leaf)
        if listed:
            patient = record_of("PATIENT", PatientID=first.PatientID, PatientName=first.PatientName)
            study = record_of("STUDY", StudyInstanceUID=first.StudyInstanceUID, StudyDescription=f"{CANARY} STUDY")
            series = record_of("SERIES", SeriesInstanceUID=first.SeriesInstanceUID, Modality=first.Modality)
            self.parents += [(patient, [study]), (study, [series]), (series, leaves)]
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
        for parent, children in self.parents:
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


def record_of(kind: str, **tags: object) -> Dataset:
    """A directory record, not linked to others."""
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
