"""Multi-frame CT: frames that do not add up, and one scan in several files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

from pydicom.dataset import Dataset

from defects.enhanced import LEGACY, enhanced, write
from defects.frames import FRAMES
from defects.given import CANARY, SERIES, Given, assign
from defects.medium import Medium
from edgehem.errors import Code

refused, flagged, read_right = FRAMES.refused, FRAMES.flagged, FRAMES.read_right


# Frames that do not add up.


def _count(value: int | None, given: Given) -> None:
    ds = enhanced(given.slices)
    assign(ds, NumberOfFrames=value)
    write(given, ds)


for _value, _name, _code in (
    (19, "one frame fewer than there are", Code.UNREADABLE),
    (21, "one frame more than there are", Code.UNREADABLE),
    (1, "one frame of many, by its number", Code.UNREADABLE),
    (0, "no frame, by its number", Code.UNREADABLE),
    (None, "no number of frames", Code.UNREADABLE),
    (5000, "5,000 frames, by their number", Code.TOO_LARGE),
):
    refused(_code, _name, "a frame dropped or added, its number not updated")(partial(_count, _value))


@refused(Code.UNREADABLE, "fewer groups than frames", "a converter stopped early")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    del ds.PerFrameFunctionalGroupsSequence[15:]
    write(given, ds)


@refused(Code.PIXELS_MISSING, "no groups for the frames", "a gateway that drops what it does not know")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    del ds.PerFrameFunctionalGroupsSequence
    del ds.SharedFunctionalGroupsSequence
    write(given, ds)


@refused(Code.UNREADABLE, "an Enhanced CT without a frame", "an empty shell")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.NumberOfFrames, ds.PixelData = 0, b""
    ds.PerFrameFunctionalGroupsSequence = []
    write(given, ds)


@refused(Code.UNREADABLE, "an Enhanced CT without pixels", "a header-only transfer")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    del ds.PixelData
    write(given, ds)


def _pixels(change: Callable[[bytes], bytes], given: Given) -> None:
    ds = enhanced(given.slices)
    ds.PixelData = change(ds.PixelData)
    ds["PixelData"].VR = "OW"
    write(given, ds)


for _change, _name, _cause in (
    (lambda data: data[:-8192], "frames shorter by one", "a converter stopped early"),
    (lambda data: data[:-2], "frames shorter by one pixel", "a value lost"),
    (lambda data: data + bytes(1024), "frames padded inside of the pixel data", "written in whole sectors"),
    (lambda data: data + bytes(8192), "frames longer by one", "a frame added, its number not updated"),
):
    refused(Code.UNREADABLE, _name, _cause)(partial(_pixels, _change))


@refused(Code.UNREADABLE, "an Enhanced CT cut off", "a transfer interrupted")
def _(given: Given) -> None:
    write(given, enhanced(given.slices))
    (file,) = given.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-9000])


@read_right("zeros after the frames", "disks written in whole sectors")
def _(given: Given) -> None:
    write(given, enhanced(given.slices))
    (file,) = given.folder.iterdir()
    file.write_bytes(file.read_bytes() + bytes(2048))


@refused(Code.UNREADABLE, "the groups of the frames twice", "two headers merged")
def _(given: Given) -> None:
    write(given, enhanced(given.slices))
    (file,) = given.folder.iterdir()
    data = file.read_bytes()
    at, end = data.index(b"\x00\x52\x30\x92SQ"), data.index(b"\xe0\x7f\x10\x00OW")
    file.write_bytes(data[:end] + data[at:end] + data[end:])


# Several files of one scan.


def _parts(given: Given, total: bool = True, *bounds: int) -> list[Dataset]:
    """The scan as a concatenation."""
    edges = [0, *(bounds or (7, 14)), 20]
    parts = []
    for number, (a, b) in enumerate(pairwise(edges), start=1):
        ds = enhanced(given.slices[a:b], number=number)
        ds.ConcatenationUID, ds.SOPInstanceUIDOfConcatenationSource = f"{SERIES}.1.8", f"{SERIES}.1.7"
        ds.InConcatenationNumber, ds.ConcatenationFrameOffsetNumber = number, a
        if total:
            ds.InConcatenationTotalNumber = len(edges) - 1
        parts.append(ds)
    return parts


@read_right("a scan in three parts", "a concatenation: files kept small")
def _(given: Given) -> None:
    write(given, *_parts(given))


@read_right("a scan in three parts, in another order", "names tell nothing")
def _(given: Given) -> None:
    write(given, *reversed(_parts(given)))


@read_right("a scan in three parts that do not say how many", "allowed")
def _(given: Given) -> None:
    write(given, *_parts(given, False))


for _number, _where in ((0, "first"), (1, "middle"), (2, "last")):

    @refused(Code.SLICE_GAP, f"a scan in three parts, the {_where} lost", "a transfer interrupted")
    def _(given: Given, number: int = _number) -> None:
        parts = _parts(given, True, 4, 14)
        del parts[number]
        write(given, *parts)


@refused(
    Code.SLICE_GAP, "a scan in parts that do not say how many, the first lost", "a transfer interrupted",
)  # fmt: skip
def _(given: Given) -> None:
    write(given, *_parts(given, False, 3, 17)[1:])


@refused(Code.UNREADABLE, "a scan in three parts, the last cut off", "a transfer interrupted")
def _(given: Given) -> None:
    write(given, *_parts(given, True, 3, 17))
    file = max(given.folder.iterdir())
    file.write_bytes(file.read_bytes()[:-5000])


@flagged(Code.DUPLICATES_DROPPED, name="a scan in three parts, one twice", cause="sent again", same=True)
def _(given: Given) -> None:
    parts = _parts(given)
    write(given, *parts, parts[1])


@refused(
    Code.SLICE_GAP, "a scan in three parts, one twice and one lost", "sent again, in vain",
)  # fmt: skip
def _(given: Given) -> None:
    parts = _parts(given, True, 3, 17)
    write(given, *parts[:2], parts[1])


@refused(Code.SLICE_GAP, "a part of a scan on a medium, the last not there", "a scratched disk")
def _(given: Given) -> Path:
    given.written = True
    made = Medium(given.folder)
    files = made.add(_parts(given, False, 3, 17), "S0001")
    place = made.burn()
    files[2].unlink()
    return place


@read_right("two files of one series, each a half", "a scanner that splits at the skull base")
def _(given: Given) -> None:
    write(given, enhanced(given.slices[:10]), enhanced(given.slices[10:], number=2))


@flagged(Code.DUPLICATES_DROPPED, name="an Enhanced CT twice", cause="exported twice to one disk", same=True)
def _(given: Given) -> None:
    write(given, enhanced(given.slices), enhanced(given.slices, number=2))


@refused(Code.GEOMETRY_MIXED, "two Enhanced CT of different patients in one series", "series UIDs reused")
def _(given: Given) -> None:
    other = enhanced(given.slices[10:], number=2)
    other.PatientID = f"{CANARY}OTHER"
    write(given, enhanced(given.slices[:10]), other)


@flagged(Code.SERIES_CHOSEN, name="an Enhanced CT beside its slices", cause="an archive that converts keeps both")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    ds.SeriesInstanceUID = f"{SERIES}.4"
    given.write()
    write(given, ds)
