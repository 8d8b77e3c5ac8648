"""Ways to spoil a study as a whole: slices, series, patients, pixels, media, multi-frame files, archives.

Each takes a folder of files and gives another; files that pydicom cannot read are left as they are. What comes out is
sound in every byte and wrong in its meaning: what bytes changed by chance never reach.
"""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

Files = dict[str, bytes]
Stored = npt.NDArray[np.int64]

STUDY_ZIP = "study.zip"
DIRECTORY = "DICOMDIR"
RIGHT = 10
"""From this number on, no fault is put into a DICOMDIR."""
UID = "1.2.840.99999.5"
ENHANCED = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
MOVED = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleIntercept",
    "RescaleSlope", "RescaleType",
)  # fmt: skip
PLACES = ("../{}", "/etc/{}", "a/{}", ".{}", "__MACOSX/{}", "{}/")
LABELS: tuple[tuple[str, object], ...] = (
    ("PatientAge", "005Y"), ("PatientAge", "003D"), ("LossyImageCompression", "01"),
    ("LossyImageCompression", "01"), ("BodyPartExamined", "CHEST"),
    ("BodyPartExamined", "NECK"), ("ContrastBolusAgent", "IOHEXOL"), ("ContrastBolusAgent", "NONE"),
    ("SeriesDescription", "Topogram"), ("SeriesDescription", "CTA Head"), ("SeriesDescription", "Bone"),
    ("SeriesDescription", "Dose Report"), ("ConvolutionKernel", "H60s"), ("ConvolutionKernel", ["Hr40", "3"]),
    ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), ("ImageType", ["DERIVED", "SECONDARY", "MPR"]),
    ("ImageType", ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]), ("PhotometricInterpretation", "MONOCHROME1"),
    ("RescaleType", "OD"), ("PatientID", "other"), ("StudyInstanceUID", f"{UID}.99"), ("Modality", "MR"),
)  # fmt: skip


def spoil(files: Files, rng: random.Random) -> Files:
    """One change to a whole study."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            change = unpack if list(files) == [STUDY_ZIP] else rng.choices(_CHANGES, _WEIGHTS)[0]
            return change(files, rng)
        except Exception:
            return files  # spoilt too much before: pydicom cannot read or write it any more


def read(files: Files) -> dict[str, Dataset]:
    """The CT slices among the files, from the lowest to the highest."""
    found = {}
    for name, content in files.items():
        if content[128:132] != b"DICM":
            continue
        try:
            ds = pydicom.dcmread(io.BytesIO(content))
            ds.ImagePositionPatient = [float(mm) for mm in ds.ImagePositionPatient]
            if len(ds.ImagePositionPatient) == 3:
                found[name] = ds
        except Exception:
            continue
    return dict(sorted(found.items(), key=lambda entry: entry[1].ImagePositionPatient[2]))


def write(ds: Dataset) -> bytes:
    """The bytes of a slice, in its own transfer syntax."""
    out = io.BytesIO()
    syntax = ds.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(
        out, ds, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=syntax != "1.2.840.10008.1.2.2",
        enforce_file_format=False,
    )  # fmt: skip
    data = out.getvalue()
    return data if data[128:132] == b"DICM" else bytes(128) + b"DICM" + data


def _put(files: Files, slices: dict[str, Dataset]) -> Files:
    return files | {name: write(ds) for name, ds in slices.items()}


def crop(files: Files, rng: random.Random) -> Files:
    """Keep a part of the stack: a scan stopped, or a part of it sent."""
    names = list(read(files))
    a, b = sorted(rng.sample(range(len(names) + 1), 2))
    if rng.random() < 0.6:  # little is missing, at one end
        count = rng.randint(1, max(1, len(names) // 2))
        a, b = (0, len(names) - count) if rng.random() < 0.5 else (count, len(names))
    lost = set(names) - set(names[a:b])
    return {name: content for name, content in files.items() if name not in lost}


def lose(files: Files, rng: random.Random) -> Files:
    """Lose slices inside: a run of them, or every n-th."""
    names = list(read(files))
    at = rng.randrange(len(names))
    lost = set(names[at :: rng.randint(2, 4)] if rng.random() < 0.4 else names[at : at + rng.randint(1, 3)])
    return {name: content for name, content in files.items() if name not in lost}


def move(files: Files, rng: random.Random) -> Files:
    """Stretch, bend, tilt, mirror or shuffle positions."""
    slices = read(files)
    kind = rng.randrange(6)
    factor, at = rng.choice((0.05, 0.4, 0.8, 1.2, 2.0, 4.0)), rng.randrange(len(slices))
    angle = np.radians(rng.choice((3, 10, 25, 38, 60)))
    places = [ds.ImagePositionPatient for ds in slices.values()]
    if kind == 5:
        rng.shuffle(places)
    for number, ds in enumerate(slices.values()):
        x, y, z = places[number]
        if kind == 0:
            z *= factor
        elif kind == 1 and number > at:
            edge = places[at][2]
            z, ds.SliceThickness = edge + (z - edge) * factor, float(ds.get("SliceThickness") or 5) * factor
        elif kind == 2:
            cosine, sine = round(float(np.cos(angle)), 7), round(float(np.sin(angle)), 7)
            ds.ImageOrientationPatient = [1, 0, 0, 0, cosine, -sine]
        elif kind == 3 and (at or number % 2):
            ds.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
        elif kind == 4 and number > at:
            y += factor * 3
        ds.ImagePositionPatient = [round(x, 4), round(y, 4), round(z, 4)]
    return _put(files, slices)


def label(files: Files, rng: random.Random) -> Files:
    """Give slices another label, or take one away."""
    slices = read(files)
    keyword, value = rng.choice(LABELS)
    names = list(slices) if rng.random() < 0.7 else rng.sample(list(slices), rng.randint(1, len(slices)))
    gone = rng.random() < 0.15
    for name in names:
        if gone and keyword in slices[name]:
            delattr(slices[name], keyword)
        elif not gone:
            setattr(slices[name], keyword, value)
    return _put(files, slices)


def again(files: Files, rng: random.Random) -> Files:
    """A second series: another reconstruction, patient, examination, modality; whole or in part; or in the first."""
    slices = read(files)
    number = rng.randrange(1000)
    kind = rng.randrange(7)
    names = list(slices)[:: rng.choice((1, 1, 2))][rng.choice((0, 0, 3)) :]
    added = {}
    for name in names:
        ds = deepcopy(slices[name])
        ds.SOPInstanceUID = f"{UID}.{number}.{len(added)}"
        if kind:
            ds.SeriesInstanceUID = f"{UID}.{number}"
        if kind == 2:
            ds.PatientID = f"other {number}"
        elif kind == 3:
            ds.StudyInstanceUID = f"{UID}.{number}.1"
        elif kind == 4:
            ds.ConvolutionKernel = "H60s"
        elif kind == 5:
            ds.Modality = "MR"
        elif kind == 6:
            ds.SliceThickness = 1
        added[f"again{number}_{name}"] = write(ds)
    return files | added


def pixels(files: Files, rng: random.Random) -> Files:
    """Paint into the images what patients and scanners do."""
    slices = {
        name: ds
        for name, ds in read(files).items()
        if ds.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1") and ds.BitsAllocated == 16
    }
    kind = rng.randrange(10)
    percent = rng.choice((80, 95, 99, 102, 105, 130))
    offset = rng.choice((-60, -20, -8, 8, 15, 60, 90))
    shift = rng.choice((-3, -2, 2, 3))
    at, middle = rng.randrange(len(slices)), ds_side(slices) // 2
    level = rng.choice((60, 90, 300, 3000))
    for number, ds in enumerate(slices.values()):
        kept = "<i2" if ds.PixelRepresentation else "<u2"
        values: Stored = np.frombuffer(ds.PixelData, kept).reshape(ds.Rows, ds.Columns).astype(np.int64)
        zero = -int(ds.RescaleIntercept)
        y, x = np.ogrid[: ds.Rows, : ds.Columns]
        if kind == 0:  # metal, or a bleed as dense
            values[middle - 1 : middle + 2, middle + 4 : middle + 7] = zero + level
        elif kind == 1 and number >= at:  # the patient moved
            values = np.roll(values, (shift, shift), axis=(0, 1))
        elif kind == 2:  # vessels with contrast
            spots = (y * 7 + x * 13 + number) % 11 == 0
            values[spots & (values > zero + 10) & (values < zero + 60)] = zero + 250
        elif kind == 3:  # bone taken away on one side
            values[:, : middle // 2 + 4][values[:, : middle // 2 + 4] > zero + 200] = zero + 30
        elif kind == 4:  # grey values of 8 bits
            values, ds.RescaleSlope = values // 8, 8
        elif kind == 5:  # padding outside of the field of view
            values[(y - middle) ** 2 + (x - middle) ** 2 > middle**2] = 4095
            ds.add_new("PixelPaddingValue", "US", 4095)
        elif kind == 6 and ds.PixelRepresentation == 0:  # stored as Hounsfield units
            values, ds.RescaleIntercept, ds.PixelRepresentation = values - zero, 0, 1
            ds.BitsStored, ds.HighBit = 16, 15
        elif kind == 7:  # another scale
            values = values * percent // 100
        elif kind == 9:  # a little aside of where Hounsfield units are
            values = np.clip(values + offset, 0, 4095)
        elif kind == 8 and number >= at:  # black, or cut
            values[: rng.choice((ds.Rows, middle))] = 0
        ds.PixelData = (values & 0xFFFF).astype("<u2").tobytes()
    return _put(files, slices)


def ds_side(slices: dict[str, Dataset]) -> int:
    """The shorter side of the first slice, pixels."""
    first = next(iter(slices.values()))
    return int(min(first.Rows, first.Columns))


def swap(files: Files, rng: random.Random) -> Files:
    """Exchange an element between two slices."""
    slices = read(files)
    a, b = (slices[name] for name in rng.sample(list(slices), 2))
    keyword = rng.choice((*MOVED, "PixelData", "SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber", "Rows"))
    one, other = a[keyword], b[keyword]
    a[keyword], b[keyword] = other, one
    return _put(files, slices)


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"SQ", b"OB")
    return head + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def medium(files: Files, rng: random.Random, *, right: bool = False) -> Files:
    """Give the folder a DICOMDIR: sometimes right, else with names of what is not there, or links to nowhere."""
    slices = read(files)
    kind = RIGHT if right else rng.randrange(RIGHT + 4)
    names = [(name, str(ds.SOPInstanceUID)) for name, ds in slices.items()]
    series = str(next(iter(slices.values())).SeriesInstanceUID)
    if kind == 0:
        names += [("GONE\\I1", f"{UID}.1")] * rng.randint(1, 3)
    elif kind == 1:
        names = [(rng.choice(("..\\{}", "C:\\{}", "/{}", "{};1", "X\\{}", "{0}\\{0}")).format(n), u) for n, u in names]
    elif kind == 2:
        names = [(name, f"{UID}.{i}") for i, (name, _) in enumerate(names)]
    elif kind == 3:
        names = [(name, "") for name, _ in names]
    elif kind == 4:
        names = names[: rng.randrange(len(names))]
    elif kind == 5:
        names = names * 2
    records = [_record(b"SERIES", _element(0x0020000E, b"UI", series.encode()))]
    records += [
        _record(b"IMAGE", _element(0x00041500, b"CS", name.encode()) + _element(0x00041511, b"UI", uid.encode()))
        for name, uid in names
    ]
    syntax = _element(0x00020002, b"UI", b"1.2.840.10008.1.3.10") + _element(0x00020010, b"UI", b"1.2.840.10008.1.2.1")
    head = bytes(128) + b"DICM" + _element(0x00020000, b"UL", struct.pack("<I", len(syntax))) + syntax
    at, offsets = len(head) + 12, []
    for record in records:
        offsets.append(at)
        at += len(record)
    linked = []
    for number, record in enumerate(records):
        following = offsets[number + 1] if number and number + 1 < len(offsets) else 0
        lower = offsets[1] if not number and len(offsets) > 1 else 0
        if kind in (6, 7):
            following = rng.choice((0, offsets[0], offsets[-1], 0xFFFFFFFF, 7)) if kind == 6 else offsets[number]
        in_use = 0 if kind == 8 and rng.random() < 0.2 else 0xFFFF
        linked.append(record[:8] + _links(following, in_use, lower) + record[8 + len(_links(0, 0, 0)) :])
    whole = head + _element(0x00041220, b"SQ", b"".join(linked))
    return files | {DIRECTORY: whole[: rng.randrange(len(whole))] if kind == 9 else whole}


def _links(following: int, in_use: int, lower: int) -> bytes:
    return (
        _element(0x00041400, b"UL", struct.pack("<I", following))
        + _element(0x00041410, b"US", struct.pack("<H", in_use))
        + _element(0x00041420, b"UL", struct.pack("<I", lower))
    )


def _record(kind: bytes, more: bytes) -> bytes:
    inside = _links(0, 0xFFFF, 0) + _element(0x00041430, b"CS", kind) + more
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside


def joined(slices: list[Dataset], *, sop: str = ENHANCED[0], number: int = 1) -> Dataset:
    """An Enhanced CT of slices."""
    ds, first = deepcopy(slices[0]), slices[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop
    ds.SOPInstanceUID = f"{UID}.7.{number}"
    ds.ImageType, ds.NumberOfFrames = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], len(slices)
    shared = _item(
        PixelMeasuresSequence=[_item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=first.ImageOrientationPatient)],
        PixelValueTransformationSequence=[
            _item(RescaleIntercept=first.RescaleIntercept, RescaleSlope=first.RescaleSlope, RescaleType="HU")
        ],
        CTImageFrameTypeSequence=[_item(FrameType=ds.ImageType)],
    )
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=other.ImagePositionPatient)],
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=i + 1, DimensionIndexValues=[1, i + 1])],
        )
        for i, other in enumerate(slices)
    ]
    for keyword in MOVED:
        if keyword in ds:
            delattr(ds, keyword)
    ds.PixelData = b"".join(other.PixelData for other in slices)
    ds["PixelData"].VR = "OW"
    return ds


def _item(**tags: object) -> Dataset:
    ds = Dataset()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def join(files: Files, rng: random.Random) -> Files:
    """Make one multi-frame file of the slices, or a few; then spoil its groups, or lose a part."""
    slices = list(read(files).values())
    if rng.random() < 0.3:
        rng.shuffle(slices)
    cuts = [0, *sorted(rng.sample(range(1, len(slices)), rng.choice((0, 0, 1, 2)))), len(slices)]
    parts = []
    for number, (a, b) in enumerate(pairwise(cuts), start=1):
        ds = joined(slices[a:b], sop=rng.choice(ENHANCED), number=number)
        if len(cuts) > 2 and rng.random() < 0.7:
            ds.ConcatenationUID, ds.InConcatenationNumber = f"{UID}.8", number
            ds.InConcatenationTotalNumber = len(cuts) - 1
        parts.append(ds)
    for _ in range(rng.choice((0, 1, 1, 2))):
        _spoil_groups(rng.choice(parts), rng)
    if len(parts) > 1 and rng.random() < 0.3:
        parts.pop(rng.randrange(len(parts)))
    return {f"joined{number}.dcm": write(ds) for number, ds in enumerate(parts)}


def _spoil_groups(ds: Dataset, rng: random.Random) -> None:  # noqa: PLR0912 (a list of faults)
    frames = list(ds.PerFrameFunctionalGroupsSequence)
    shared = ds.SharedFunctionalGroupsSequence[0]
    frame = rng.choice(frames)
    kind = rng.randrange(12)
    if kind == 0:
        ds.NumberOfFrames = rng.choice((0, 1, len(frames) - 1, len(frames) + 1, 4001, 2**31 - 1))
    elif kind == 1:
        group = rng.choice((shared, frame))
        del group[rng.choice(list(group.keys()))]
    elif kind == 2:
        ds.PixelData = ds.PixelData[: rng.randrange(len(ds.PixelData))]
    elif kind == 3:
        frame.FrameContentSequence[0].StackID = "2"
    elif kind == 4:
        for number, other in enumerate(frames):
            other.FrameContentSequence[0].TemporalPositionIndex = number % rng.choice((1, 2, 50))
    elif kind == 5:
        kinds = rng.choice((["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"], ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]))
        rng.choice((shared, frame)).CTImageFrameTypeSequence = [_item(FrameType=kinds)]
    elif kind == 6:
        frame.PlanePositionSequence = [frame.PlanePositionSequence[0]] * rng.choice((0, 2, 2000))
    elif kind == 7:
        slope = rng.choice((0, 1, 1, 2, -1))
        frame.PixelValueTransformationSequence = [_item(RescaleIntercept=-1024, RescaleSlope=slope, RescaleType="HU")]
    elif kind == 8:
        shared.ContrastBolusUsageSequence = [_item(ContrastBolusAgentAdministered=rng.choice(("YES", "NO")))]
    elif kind == 9:
        ds.PerFrameFunctionalGroupsSequence = frames[: rng.randrange(len(frames))]
    elif kind == 10:
        other = rng.choice(frames)
        frame.PlanePositionSequence = other.PlanePositionSequence
    else:
        deep = frame
        for _ in range(rng.choice((3, 30, 150))):
            inner = _item(FrameLaterality="U")
            deep.FrameAnatomySequence = [inner]
            deep = inner


def pack(files: Files, rng: random.Random) -> Files:
    """Put the folder into a zip file; sometimes one that is damaged, hostile, or holds another."""
    kind = rng.randrange(8)
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2 if kind == 1 else 0))
    with zipfile.ZipFile(out, "w", method) as archive:
        for number, (name, content) in enumerate(files.items()):
            place = (
                name
                if kind != 2
                else rng.choice(("../{}", "/etc/{}", "a/{}", ".{}", "__MACOSX/{}", "{}/")).format(name)
            )
            archive.writestr(zipfile.ZipInfo(place), content, compress_type=method)
            if kind == 3 and number < 3:
                archive.writestr(zipfile.ZipInfo(place), content[::-1])
    data = bytearray(out.getvalue())
    if kind == 4:
        del data[rng.randrange(len(data)) :]
    elif kind == 5:
        for _ in range(4):
            data[-rng.randrange(1, min(len(data), 1200))] = rng.randrange(256)
    elif kind == 6:
        return {"inner.zip": bytes(data)} | files
    return {STUDY_ZIP: bytes(data)}


def unpack(files: Files, rng: random.Random) -> Files:
    """Take a zip file apart, and change what is in it."""
    with zipfile.ZipFile(io.BytesIO(files[STUDY_ZIP])) as archive:
        inside = {name.rpartition("/")[2] or "x": archive.read(name) for name in archive.namelist()[:40]}
    return pack(rng.choices(_CHANGES, _WEIGHTS)[0](inside, rng), rng)


Change = Callable[[Files, random.Random], Files]
_CHANGES: tuple[Change, ...] = (crop, lose, move, label, again, pixels, swap, medium, join, pack)
_WEIGHTS = (4, 1, 2, 2, 2, 3, 1, 2, 2, 0.7)
