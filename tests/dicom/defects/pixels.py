"""How pixels are stored: lengths, depths, colours, padding."""

from __future__ import annotations

import numpy as np
from pydicom.uid import RLELossless

from defects.given import Family, Given, hounsfield, put, stored
from edgehem.errors import Code

PIXELS = Family("pixels")
refused, flagged, read_right = PIXELS.refused, PIXELS.flagged, PIXELS.read_right


@refused(Code.UNREADABLE, "a slice cut off", "a full disk, a broken transfer")
def _(given: Given) -> None:
    file = given.write()[11]
    file.write_bytes(file.read_bytes()[:-3000])


@refused(Code.UNREADABLE, "the last byte missing", "an off-by-one in a gateway")
def _(given: Given) -> None:
    file = given.write()[11]
    file.write_bytes(file.read_bytes()[:-1])


@refused(Code.UNREADABLE, "pixel data shorter than the matrix", "a slice cropped, its size not updated")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.PixelData = ds.PixelData[:-128]


@refused(Code.UNREADABLE, "pixel data longer than the matrix", "two frames in one single-frame object")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.PixelData = ds.PixelData * 2


@refused(Code.UNREADABLE, "an odd length of 16-bit pixels", "a byte lost and the length made to fit")
def _(given: Given) -> None:
    file = given.write()[3]
    data = file.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW") + 8
    file.write_bytes(data[:at] + (8191).to_bytes(4, "little") + data[at + 4 : -1])


@flagged(
    Code.COARSE_VALUES,
    name="an odd number of 8-bit pixels, padded",
    cause="allowed: the standard asks for even lengths",
)
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, (np.clip(hounsfield(ds), -1024, 1000)[1:, 1:] + 1024) / 8, bits=8)
        ds.PixelData += b"\0"
        ds.RescaleSlope = "8"


@refused(Code.UNREADABLE, "no pixel data on one slice", "a header-only transfer")
def _(given: Given) -> None:
    del given.slices[4].PixelData


@refused(Code.UNREADABLE, "empty pixel data", "a database kept the header, the archive lost the image")
def _(given: Given) -> None:
    given.slices[4].PixelData = b""


@refused(Code.UNREADABLE, "no matrix size", "an anonymiser with a short list")
def _(given: Given) -> None:
    given.each(Rows=None)


@refused(Code.UNREADABLE, "a matrix of zero rows", "a converter's default")
def _(given: Given) -> None:
    given.each(Rows=0)


@refused(Code.TOO_LARGE, "a matrix of 65535 x 65535", "a hostile header: gigabytes before a pixel is read")
def _(given: Given) -> None:
    given.each(Rows=65535, Columns=65535)


@read_right("12 bits, unsigned", "usual")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, stored(ds), bits=12)


@read_right("16 bits, signed", "usual")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, stored(ds), signed=True)


@read_right("16 bits, unsigned, above 32767", "scanners with another zero")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, stored(ds) + 40000)
        ds.RescaleIntercept = "-41024"


@read_right("intercept -1024 on values at the end of int16", "overflows 16-bit arithmetic")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, stored(ds) - 32768, signed=True)
        ds.RescaleIntercept = "31744"


@flagged(Code.COARSE_VALUES, name="8 bits", cause="a small archive's format: 8 HU a step")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, (np.clip(hounsfield(ds), -1024, 1000) + 1024) / 8, bits=8)
        ds.RescaleSlope = "8"


@flagged(Code.INTERCEPT_ZERO, Code.COARSE_VALUES, name="8 bits, signed", cause="never seen, allowed")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, (np.clip(hounsfield(ds), -1024, 1000) + 1024) / 8 - 128, bits=8, signed=True)
        ds.RescaleSlope, ds.RescaleIntercept = "8", "0"


@refused(Code.HU_IMPLAUSIBLE, "8 bits of a brain window", "a window burned in by a viewer's export")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, np.clip(hounsfield(ds) / 80 * 255, 0, 255), bits=8)
        ds.RescaleSlope, ds.RescaleIntercept = str(80 / 255)[:16], "0"


for _name, _cause, _tags in (
    ("32 bits", "a research tool", {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}),
    ("1 bit", "a mask filed as an image", {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}),
    ("more bits stored than allocated", "a corrupt header", {"BitsStored": 24}),
    ("high bit not the last one stored", "pre-1993 packing", {"BitsStored": 12, "HighBit": 15}),
    ("pixel representation of 2", "a corrupt header", {"PixelRepresentation": 2}),
    ("no bit depth", "an anonymiser with a short list", {"BitsAllocated": None, "BitsStored": None}),
    ("MONOCHROME1", "an inverted film copy", {"PhotometricInterpretation": "MONOCHROME1"}),
    ("RGB", "a fused or annotated picture", {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}),
    ("a colour palette", "a perfusion map", {"PhotometricInterpretation": "PALETTE COLOR"}),
    ("three samples of grey, by plane", "a video frame", {"SamplesPerPixel": 3, "PlanarConfiguration": 1}),
    ("no photometric interpretation", "an anonymiser with a short list", {"PhotometricInterpretation": None}),
):

    @refused(Code.PIXELS_MISSING, _name, _cause)
    def _(given: Given, tags: dict[str, object] = _tags) -> None:
        given.each(**tags)


@refused(Code.GEOMETRY_MIXED, "signed and unsigned slices", "two gateways, one series")
def _(given: Given) -> None:
    for ds in given.slices[::2]:
        put(ds, stored(ds), signed=True)


@read_right("garbage above the bits stored", "a scanner's private marks")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        put(ds, stored(ds) | (i % 16) << 12)
        ds.BitsStored, ds.HighBit = 12, 11


@read_right("an overlay in the unused bits", "retired graphics of the 1990s")
def _(given: Given) -> None:
    for ds in given.slices:
        text = np.zeros((64, 64), np.int64)
        text[4:9, 4:40] = 1 << 12
        put(ds, stored(ds) | text)
        ds.BitsStored, ds.HighBit = 12, 11
        ds.add_new(0x60000100, "US", 16)
        ds.add_new(0x60000102, "US", 12)


def _outside(given: Given, value: int, *, signed: bool = True, bits: int = 16) -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    for ds in given.slices:
        hu = hounsfield(ds) if signed else stored(ds)
        hu[np.hypot(y, x) > 31] = value
        put(ds, hu, signed=signed, bits=bits)
        if signed:
            ds.RescaleIntercept = "0"


@flagged(Code.PADDING, Code.INTERCEPT_ZERO, name="padding outside the circle", cause="usual: GE's -2000")
def _(given: Given) -> None:
    _outside(given, -2000)
    for ds in given.slices:
        ds.add_new("PixelPaddingValue", "SS", -2000)


@flagged(Code.PADDING, Code.INTERCEPT_ZERO, name="signed padding written as unsigned", cause="63536 for -2000")
def _(given: Given) -> None:
    _outside(given, -2000)
    for ds in given.slices:
        ds.add_new("PixelPaddingValue", "US", 63536)


@flagged(Code.PADDING, name="padding outside the bits stored", cause="63536 in data of 12 bits")
def _(given: Given) -> None:
    _outside(given, 63536, signed=False)
    for ds in given.slices:
        ds.BitsStored, ds.HighBit = 12, 11
        ds.add_new("PixelPaddingValue", "US", 63536)


@flagged(Code.PADDING, Code.INTERCEPT_ZERO, name="a range of padding", cause="Pixel Padding Range Limit")
def _(given: Given) -> None:
    _outside(given, -1800)
    for ds in given.slices:
        ds.add_new("PixelPaddingValue", "SS", -2000)
        ds.add_new("PixelPaddingRangeLimit", "SS", -1500)


@read_right("padding announced and not there", "usual")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.add_new("PixelPaddingValue", "US", 5000)


@refused(Code.HU_IMPLAUSIBLE, "a padding value that is brain", "a default of 1064 in a converter")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.add_new("PixelPaddingValue", "US", 1064)


@refused(Code.HU_IMPLAUSIBLE, "a range of padding over everything", "limits swapped or unset")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.add_new("PixelPaddingValue", "US", 0)
        ds.add_new("PixelPaddingRangeLimit", "US", 4095)


@refused(Code.GEOMETRY_MIXED, "padding that differs between slices", "two gateways, one series")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        ds.add_new("PixelPaddingValue", "US", 5000 + i % 2)


for _name, _black in (
    ("one slice black", [14]),
    ("two slices in a row black", [9, 10]),
    ("the lowest slice black", [0]),
):

    @refused(Code.HU_IMPLAUSIBLE, _name, "a sparse file: the disk was full and nobody said so")
    def _(given: Given, black: list[int] = _black) -> None:
        for i in black:
            put(given.slices[i], np.zeros((64, 64)))


@refused(Code.HU_IMPLAUSIBLE, "the lower half of one slice black", "a transfer that ended and was filled up")
def _(given: Given) -> None:
    values = stored(given.slices[14])
    values[32:] = 0
    put(given.slices[14], values)


@refused(Code.HU_IMPLAUSIBLE, "one slice of another patient's chest, unlabelled", "a swap in an archive")
def _(given: Given) -> None:
    values = stored(given.slices[14])
    put(given.slices[14], np.where(values > 900, 200, 1064))


@refused(Code.HU_IMPLAUSIBLE, "inverted values", "a film copy that says MONOCHROME2")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, 4095 - stored(ds))


@refused(Code.HU_IMPLAUSIBLE, "bytes in the wrong order", "a big-endian workstation's raw export")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").byteswap().tobytes()


@read_right("RLE", "usual: ultrasound-minded archives")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.compress(RLELossless, generate_instance_uid=False)


@refused(Code.UNREADABLE, "RLE with a damaged slice", "a bad block on a disk")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.compress(RLELossless, generate_instance_uid=False)
    file = given.write()[11]
    data = bytearray(file.read_bytes())
    at = data.index(b"\xe0\x7f\x10\x00OB") + 12 + 8 + 8
    data[at + 200 : at + 1200] = b"\x80" * 1000
    file.write_bytes(data)


@refused(Code.UNREADABLE, "RLE that asks for 64 GiB", "a hostile header")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.compress(RLELossless, generate_instance_uid=False)
    for file in given.write():
        data = bytearray(file.read_bytes())
        at = data.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")
        data[at : at + 64] = (15).to_bytes(4, "little") + b"\xf0\xff\xff\xff" * 15
        file.write_bytes(data)


@refused(Code.UNREADABLE, "pixels said to be compressed that are not", "a gateway that changed the label only")
def _(given: Given) -> None:
    for file in given.write():
        file.write_bytes(file.read_bytes().replace(b"\x14\x001.2.840.10008.1.2.1\0", b"\x14\x001.2.840.10008.1.2.5\0"))


for _name, _uid in (
    ("lossy JPEG of 8 bits", b"1.2.840.10008.1.2.4.50"),
    ("lossy JPEG of 12 bits", b"1.2.840.10008.1.2.4.51"),
    ("a video codec", b"1.2.840.10008.1.2.4.102"),
    ("a private compression", b"1.2.840.113619.5.2.99"),
    ("a syntax that is no UID", b"CANARY"),
):

    @refused(Code.SYNTAX_UNSUPPORTED, _name, "an archive's setting")
    def _(given: Given, uid: bytes = _uid) -> None:
        for ds in given.slices:
            ds.compress(RLELossless, generate_instance_uid=False)
        padded = uid + b"\0" * (len(uid) % 2)
        for file in given.write():
            here = b"UI" + (20).to_bytes(2, "little") + b"1.2.840.10008.1.2.5\0"
            file.write_bytes(file.read_bytes().replace(here, b"UI" + len(padded).to_bytes(2, "little") + padded, 1))
