"""Where slices lie: positions, directions, sizes."""

from __future__ import annotations

from functools import partial

import numpy as np

from defects.given import SERIES, Family, Given, put, raw, stored
from edgehem.errors import Code

GEOMETRY = Family("geometry")
refused, flagged, read_right = GEOMETRY.refused, GEOMETRY.flagged, GEOMETRY.read_right


def _set(given: Given, keyword: str, value: bytes | None, which: slice = slice(5, 6)) -> None:
    for ds in given.slices[which]:
        if value is None:
            delattr(ds, keyword)
        else:
            raw(ds, keyword, value)


POSITION, ORIENTATION, SPACING = "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"
for _keyword, _what in ((POSITION, "position"), (ORIENTATION, "orientation"), (SPACING, "pixel size")):
    for _name, _cause, _value in (
        ("missing", "an anonymiser removed the tag from one slice", None),
        ("empty", "a gateway keeps the tag and drops its value", b""),
        ("not a number", "a converter wrote what it computed", b"nan\\nan\\nan\\nan\\nan\\nan"),
        ("infinite", "a converter divided by zero", b"1e400\\1e400\\1e400"),
        ("with decimal commas", "a converter in a country with commas", b"1,5\\0,5\\1,0"),
    ):
        _made = partial(_set, keyword=_keyword, value=_value)
        refused(Code.GEOMETRY_MISSING, f"{_what} {_name}", _cause)(_made)  # type: ignore[arg-type]

for _name, _cause, _keyword, _value in (
    ("position a light year away", "an overflow in a converter", POSITION, b"1e16\\0\\0"),
    ("position of two numbers", "a value cut off by a database field", POSITION, b"1.0\\2.0"),
    ("orientation all zero", "a screen capture tool fills tags", ORIENTATION, b"0\\0\\0\\0\\0\\0"),
    ("orientation not orthogonal", "rounding in a converter", ORIENTATION, b"1\\0\\0\\0.6\\0.8\\0"),
    ("orientation of huge numbers", "an overflow in a converter", ORIENTATION, b"1e200\\0\\0\\0\\1e200\\0"),
    ("pixel size zero", "a converter's default", SPACING, b"0\\0"),
    ("pixel size negative", "a flip written into the spacing", SPACING, b"-3.7\\3.7"),
    ("pixel size of a telescope", "micrometres for millimetres", SPACING, b"3700\\3700"),
):
    refused(Code.GEOMETRY_MISSING, _name, _cause)(
        partial(_set, keyword=_keyword, value=_value, which=slice(None))  # type: ignore[arg-type]
    )


@refused(Code.GEOMETRY_MISSING, "only the detector's pixel size", "a radiography gateway knows no other")
def _(given: Given) -> None:
    given.each(ImagerPixelSpacing=[3.7, 3.7], PixelSpacing=None)


@refused(Code.GEOMETRY_MIXED, "one slice in another direction", "a reformat filed under the scan's series")
def _(given: Given) -> None:
    given.slices[9].ImageOrientationPatient = [1, 0, 0, 0, 0.9961947, -0.0871557]


@refused(Code.GEOMETRY_MIXED, "one slice mirrored", "a workstation flipped and saved one image")
def _(given: Given) -> None:
    given.slices[9].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


@refused(Code.GEOMETRY_MIXED, "pixel sizes swapped on some slices", "rows and columns confused by a converter")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        ds.PixelSpacing = [3.5, 3.9] if i % 2 else [3.9, 3.5]


@refused(Code.GEOMETRY_MIXED, "slices of two sizes", "two reconstructions under one series")
def _(given: Given) -> None:
    for ds in given.slices[::2]:
        put(ds, stored(ds)[:, :48])


@refused(Code.GEOMETRY_MIXED, "a foreign patient in the series", "a burned disk mixed two patients")
def _(given: Given) -> None:
    given.slices[12].PatientID = "CANARYOTHER"


@refused(Code.GEOMETRY_MIXED, "a foreign study in the series", "series UIDs reused by a scanner")
def _(given: Given) -> None:
    given.slices[12].StudyInstanceUID = f"{SERIES}.999"


@refused(Code.GEOMETRY_MIXED, "two patients in the folder", "an export of two examinations into one place")
def _(given: Given) -> None:
    others = given.copy()
    for ds in others:
        ds.PatientID, ds.StudyInstanceUID = "CANARYOTHER", f"{SERIES}.999"
    given.write()
    given.write(others, prefix="B")


@refused(Code.SLICE_GAP, "one slice lost", "a transfer interrupted")
def _(given: Given) -> None:
    del given.slices[13]


@refused(Code.SLICE_GAP, "every second slice lost", "one of two associations failed")
def _(given: Given) -> None:
    del given.slices[1::2]


@refused(Code.SLICE_GAP, "three slices lost together", "a bad block on a disk")
def _(given: Given) -> None:
    del given.slices[8:11]


@flagged(Code.DUPLICATES_DROPPED, name="a slice twice", cause="sent again after a time-out", same=True)
def _(given: Given) -> None:
    given.write()
    given.write([given.slices[7]], prefix="AGAIN")


@flagged(Code.DUPLICATES_DROPPED, name="the whole series twice", cause="exported twice to one disk", same=True)
def _(given: Given) -> None:
    given.write()
    given.write(prefix="AGAIN")


@refused(Code.GEOMETRY_MIXED, "two different slices at one place", "two time points under one series")
def _(given: Given) -> None:
    (other,) = given.copy(1)[7:8]
    other.SeriesInstanceUID = given.slices[0].SeriesInstanceUID
    put(other, stored(other) + 3)
    given.write()
    given.write([other], prefix="AGAIN")


@refused(Code.GEOMETRY_MIXED, "the same pixels with another rescale", "a gateway rewrote one copy's tags")
def _(given: Given) -> None:
    (other,) = given.copy(1)[7:8]
    other.SeriesInstanceUID = given.slices[0].SeriesInstanceUID
    other.RescaleIntercept = "-1000"
    given.write()
    given.write([other], prefix="AGAIN")


@refused(Code.NO_AXIAL_SERIES, "a coronal series", "a reformat without its labels")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-118, 5.0 * i, 80]


@refused(Code.NO_AXIAL_SERIES, "a sagittal series", "a reformat without its labels")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [5.0 * i, -118, 80]


@refused(Code.GEOMETRY_MIXED, "a tilt that is not consistent", "table play, or positions from another scan")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [x, round(y + 6 * (i % 3), 3), z]


@refused(Code.GEOMETRY_MIXED, "slices that advance sideways", "positions computed with a wrong axis")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImagePositionPatient = [round(x + 5 * i, 3), y, z]


@flagged(Code.TILT_CORRECTED, name="a tilted gantry", cause="usual: spares the eyes")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0.9659258, -0.2588190]


@read_right("a tilt in the tag, none in the geometry", "scanners that write the planned tilt")
def _(given: Given) -> None:
    given.each(GantryDetectorTilt="22.5")


@flagged(Code.SPACING_VARIABLE, name="thin slices below, thick above", cause="usual in older head protocols")
def _(given: Given) -> None:
    z = float(given.slices[0].ImagePositionPatient[2])
    for i, ds in enumerate(given.slices):
        thick = 5.5 if i < 10 else 9.0
        ds.ImagePositionPatient = [*map(float, ds.ImagePositionPatient[:2]), round(z, 3)]
        ds.SliceThickness = str(thick)
        z += thick


@refused(Code.TOO_FEW_SLICES, "one slice", "a key image sent for advice")
def _(given: Given) -> None:
    del given.slices[1:]


@refused(Code.TOO_FEW_SLICES, "seven slices", "a transfer stopped early")
def _(given: Given) -> None:
    del given.slices[7:]


@refused(Code.TOO_FEW_SLICES, "all slices at one place", "a gateway copied one position to all")
def _(given: Given) -> None:
    given.each(ImagePositionPatient=[-118, -118, 0])


@refused(Code.COVERAGE, "slices a millimetre apart that are not", "spacing lost by a converter")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        ds.ImagePositionPatient = [-118, -118, float(i)]


@read_right("slices in reverse order", "sorted from the vertex down")
def _(given: Given) -> None:
    given.slices.reverse()
    for i, ds in enumerate(given.slices):
        ds.InstanceNumber = i + 1


@read_right("names and numbers in no order", "media with hashed names")
def _(given: Given) -> None:
    order = np.random.default_rng(3).permutation(len(given.slices))
    for ds, number in zip(given.slices, order, strict=True):
        ds.InstanceNumber = int(number)
        ds.SliceLocation = str(number)
    given.write([given.slices[i] for i in np.random.default_rng(4).permutation(len(given.slices))])


@read_right("no numbers, thickness or locations", "an anonymiser with a short list")
def _(given: Given) -> None:
    given.each(InstanceNumber=None, SliceThickness=None, GantryDetectorTilt=None, PatientPosition=None)


@read_right("feet first", "the patient lies the other way round", same=False)
def _(given: Given) -> None:
    for ds in given.slices:
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.PatientPosition = "FFS"
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [-1, 0, 0, 0, 1, 0], [-x, y, z]
        put(ds, stored(ds)[:, ::-1])
