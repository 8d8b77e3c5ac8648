"""What a defect is made from and how it is listed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgehem.errors import Code
from edgehem.result import Verdict

CANARY = "CANARY"
"""Stands in every identifier, free text, folder and file name of the studies made here; no output may hold it."""
BIRTH_DATE = "19690203"
"""Likewise."""
SERIES = "1.2.840.99999.77.3"
"""Stem of the UIDs, likewise."""

Stored = npt.NDArray[np.int64]


class Given:
    """A sound head CT that a defect is put into, and the folder that is then read.

    Parameters
    ----------
    folder : Path
        Empty.
    slices : list of Dataset
        20 axial slices of 64 x 64, 12 bits in 16, unsigned, intercept -1024: fresh, to be changed at will.
    data : Path or None
        Real files, where they are at hand.
    """

    def __init__(self, folder: Path, slices: list[Dataset], data: Path | None) -> None:
        self.folder = folder
        self.slices = slices
        self.data = data
        self.written = False
        self.meanwhile: Callable[[], None] | None = None
        """Done between reading the headers and reading the pixels."""

    def write(self, slices: list[Dataset] | None = None, prefix: str = "IM", **how: Any) -> list[Path]:
        """Write slices (all by default) as files, in their order."""
        self.written = True
        chosen = self.slices if slices is None else slices
        return [save(ds, self.folder / f"{CANARY}_{prefix}{i:04d}.dcm", **how) for i, ds in enumerate(chosen)]

    def copy(self, series: int = 2) -> list[Dataset]:
        """The slices again, as another series of the same study."""
        copies = []
        for i, ds in enumerate(self.slices):
            other = deepcopy(ds)
            other.SeriesInstanceUID = f"{SERIES}.{series}"
            other.SeriesNumber = series
            other.SOPInstanceUID = f"{SERIES}.{series}.{i + 1}"
            copies.append(other)
        return copies

    def each(self, **tags: Any) -> None:
        """Set the same tags on every slice; None removes one."""
        for ds in self.slices:
            assign(ds, **tags)


def assign(ds: Dataset, **tags: Any) -> None:
    """Set tags; None removes one."""
    for keyword, value in tags.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)


def raw(ds: Dataset, keyword: str, value: bytes, vr: str = "") -> None:
    """Set a tag to bytes as they are, whatever they are."""
    tag = Tag(tag_for_keyword(keyword))
    value += b" " * (len(value) % 2)
    ds._dict[tag] = RawDataElement(tag, vr or dictionary_VR(tag), len(value), value, 0, False, True)


def stored(ds: Dataset) -> Stored:
    """Stored values [Y, X] of an uncompressed little-endian slice of 16 bits."""
    kind = "<i2" if ds.PixelRepresentation else "<u2"
    return np.frombuffer(ds.PixelData, kind).reshape(ds.Rows, ds.Columns).astype(np.int64)


def hounsfield(ds: Dataset) -> Stored:
    """HU [Y, X] of a sound slice."""
    return stored(ds) + int(ds.RescaleIntercept)


def put(ds: Dataset, values: npt.ArrayLike, *, bits: int = 16, signed: bool = False) -> None:
    """Replace the pixels by stored values [Y, X]; patterns above 16 bits are cut."""
    array = np.rint(np.asarray(values)).astype(np.int64)
    wide = bits > 8
    ds.Rows, ds.Columns = array.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = (16 if wide else 8), bits, bits - 1
    ds.PixelRepresentation = int(signed)
    ds.PixelData = (array & (0xFFFF if wide else 0xFF)).astype("<u2" if wide else "u1").tobytes()
    ds["PixelData"].VR = "OW" if wide else "OB"


def save(ds: Dataset, file: Path, *, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write one file, without pydicom's objections."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = syntax
    written = ds.file_meta.TransferSyntaxUID
    implicit = written == ImplicitVRLittleEndian
    little = written != "1.2.840.10008.1.2.2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of everything that is wrong on purpose
        pydicom.dcmwrite(file, ds, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    if file.read_bytes()[128:132] != b"DICM":
        file.write_bytes(bytes(128) + b"DICM" + file.read_bytes())
    return file


def insert(file: Path, element: bytes) -> None:
    """Put bytes before group 0010 of an explicit little-endian file."""
    data = file.read_bytes()
    at = data.index(b"\x10\x00\x10\x00PN")
    file.write_bytes(data[:at] + element + data[at:])


Maker = Callable[[Given], Path | None]


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One kind.

    Parameters
    ----------
    family, name, cause : str
    verdict : Verdict
        Of the intake: ACCEPT where it has nothing to say; the model may add a doubt of its own.
    codes : tuple of Code
        All of the intake's, in any order; for NO-RESULT its only one.
    make : callable
        Puts the defect into a :class:`Given`; says what is read, if that is not the whole folder.
    same : bool
        Whether what is read must be the sound study to the last Hounsfield unit.
    real : bool
        Made from real files, where they are at hand.
    unmet : str
        What comes of it today, where that is not yet what must; empty otherwise.
    """

    family: str
    name: str
    cause: str
    verdict: Verdict
    codes: tuple[Code, ...]
    make: Maker
    same: bool
    real: bool
    unmet: str = ""


REGISTRY: dict[str, Defect] = {}


class Family:
    """Registers the defects of one module."""

    def __init__(self, name: str, *, real: bool = False) -> None:
        self.name = name
        self.real = real

    def refused(self, code: Code, name: str, cause: str, *, unmet: str = "") -> Callable[[Maker], Maker]:
        """NO-RESULT."""
        return self._add(Verdict.NO_RESULT, (code,), name, cause, same=False, unmet=unmet)

    def flagged(
        self, *codes: Code, name: str, cause: str, same: bool = False, unmet: str = ""
    ) -> Callable[[Maker], Maker]:
        """FLAG."""
        return self._add(Verdict.FLAG, codes, name, cause, same=same, unmet=unmet)

    def read_right(self, name: str, cause: str, *, same: bool = True, unmet: str = "") -> Callable[[Maker], Maker]:
        """ACCEPT, and by default the same Hounsfield units as without the defect."""
        return self._add(Verdict.ACCEPT, (), name, cause, same=same, unmet=unmet)

    def _add(
        self, verdict: Verdict, codes: tuple[Code, ...], name: str, cause: str, *, same: bool, unmet: str = ""
    ) -> Callable[[Maker], Maker]:
        def register(make: Maker) -> Maker:
            if name in REGISTRY:
                raise ValueError(f"two defects are called {name!r}")
            REGISTRY[name] = Defect(
                family=self.name, name=name, cause=cause, verdict=verdict, codes=codes, make=make, same=same,
                real=self.real, unmet=unmet,
            )  # fmt: skip
            return make

        return register
