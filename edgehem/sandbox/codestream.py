"""What a compressed image says of itself, held against what its DICOM header says, before anything is decoded.

References
----------
DICOM PS3.5 annex A.4 (encapsulation) and G (RLE); ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS),
T.800 annex A and T.814 (JPEG 2000, HTJ2K).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from edgehem.sandbox.worker import TaskError

DAMAGED, CONTRADICTION = 1, 2
"""Details of a failure: the bytes are not a whole image; they are one of another size, depth or kind than announced."""

MAX_TILES = 1024
"""Tiles of a JPEG 2000 image: every one costs memory, and 32² of them divide the largest slice into 32² pixels."""

_FORM = Struct("<HHBBBBB")
_ITEM = Struct("<HHL")
_FRAGMENT = (0xFFFE, 0xE000)
_END = (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What a frame must be, by the DICOM header.

    Parameters
    ----------
    rows, columns, allocated, stored : int
    signed : bool
        Pixel Representation.
    lossless : bool
        Whether the transfer syntax promises values that went through unchanged.
    bare : bool
        The source holds the frame's fragments and nothing else; otherwise it is the whole value of Pixel Data, offset
        table first and delimiter last.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    lossless: bool
    bare: bool

    def pack(self) -> bytes:
        numbers = (self.rows, self.columns, self.allocated, self.stored)
        return _FORM.pack(*numbers, self.signed, self.lossless, self.bare)

    @classmethod
    def unpack(cls, arguments: bytes) -> Form:
        rows, columns, allocated, stored, signed, lossless, bare = _FORM.unpack_from(arguments)
        return cls(
            rows=rows,
            columns=columns,
            allocated=allocated,
            stored=stored,
            signed=bool(signed),
            lossless=bool(lossless),
            bare=bool(bare),
        )

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def joined(source: memoryview, *, bare: bool) -> bytes:
    """The fragments of one frame as one piece.

    Raises
    ------
    TaskError
        DAMAGED where items do not follow each other to the end of the source or to the delimiter.
    """
    parts: list[memoryview] = []
    position = 0
    while position + _ITEM.size <= len(source):
        group, element, length = _ITEM.unpack_from(source, position)
        position += _ITEM.size
        if (group, element) == _END and not bare:
            if length != 0 or not parts:
                break
            return b"".join(parts[1:])  # the first item is the offset table
        if (group, element) != _FRAGMENT or length == _UNDEFINED or position + length > len(source):
            break
        parts.append(source[position : position + length])
        position += length
        if bare and position == len(source):
            return b"".join(parts)
    raise TaskError(DAMAGED)


def rle_segments(data: bytes, form: Form) -> list[bytes]:
    """The segments of an RLE image: one for each byte of a pixel, the most significant first."""
    if len(data) < 64:
        raise TaskError(DAMAGED)
    count, *offsets = Struct("<16L").unpack_from(data)
    if count != form.allocated // 8:
        raise TaskError(CONTRADICTION)
    starts = offsets[:count]
    ends = [*starts[1:], len(data)]
    if starts[0] != 64 or any(start >= end for start, end in zip(starts, ends, strict=True)):
        raise TaskError(DAMAGED)
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def check_jpeg(data: bytes, form: Form) -> int:
    """Look at a JPEG lossless image (T.81 process 14). Returns its precision, bits."""
    frame = None
    for marker, body in _jpeg_segments(data):
        if marker == 0xC3:
            frame = body
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise TaskError(CONTRADICTION)  # another process of JPEG, all of them lossy or never seen in DICOM
    precision = _jpeg_frame(frame, form)
    _refuse_other_end(data)
    return precision


def check_jpeg_ls(data: bytes, form: Form) -> int:
    """Look at a JPEG-LS image. Returns its precision, bits."""
    frame = None
    near = -1
    for marker, body in _jpeg_segments(data):
        if marker == 0xF7:
            frame = body
        elif marker == 0xDA and len(body) >= 6:
            near = body[3]
    precision = _jpeg_frame(frame, form)
    if near < 0:
        raise TaskError(DAMAGED)
    if near > 0 and form.lossless:
        raise TaskError(CONTRADICTION)
    _refuse_other_end(data)
    return precision


def check_jpeg_2000(data: bytes, form: Form) -> int:
    """Look at a JPEG 2000 codestream, with or without HT blocks. Returns its precision, bits."""
    size = Struct(">HHHHLLLLLLLLHBBB")
    if len(data) < size.size or data[:4] != b"\xff\x4f\xff\x51":
        raise TaskError(DAMAGED)
    _, _, _, _, right, bottom, left, top, wide, high, tile_left, tile_top, components, depth, dx, dy = size.unpack_from(
        data
    )
    shape = (right, bottom, left, top, components, dx, dy)
    if shape != (form.columns, form.rows, 0, 0, 1, 1, 1) or tile_left or tile_top:
        raise TaskError(CONTRADICTION)
    if not wide or not high or -(-right // wide) * -(-bottom // high) > MAX_TILES:
        raise TaskError(DAMAGED)
    transforms = [body[at] for body, at in _jpeg_2000_styles(data) if len(body) > at]
    if not transforms:
        raise TaskError(DAMAGED)
    if form.lossless and any(transform != 1 for transform in transforms):
        raise TaskError(CONTRADICTION)
    precision = (int(depth) & 0x7F) + 1
    _refuse_other_sign(precision, bool(depth & 0x80), form)
    _refuse_other_end(data)
    return precision


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of a JPEG or JPEG-LS image with their segments, up to the first scan."""
    if data[:2] != b"\xff\xd8":
        raise TaskError(DAMAGED)
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise TaskError(DAMAGED)
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise TaskError(DAMAGED)
        yield marker, data[position + 4 : end]
        if marker == 0xDA:
            return
        position = end
    raise TaskError(DAMAGED)


def _jpeg_frame(body: bytes | None, form: Form) -> int:
    """Hold a frame header (T.81 B.2.2) against the DICOM header. Returns the precision, bits."""
    if body is None or len(body) < 6:
        raise TaskError(DAMAGED)
    precision, rows, columns, components = Struct(">BHHB").unpack_from(body)
    if (rows, columns, components) != (form.rows, form.columns, 1):
        raise TaskError(CONTRADICTION)
    # The values have no sign of their own. Where they have fewer bits than are stored, there is no telling whether
    # the highest of them was meant as one.
    if not 2 <= precision <= form.allocated or (form.signed and precision < form.stored):
        raise TaskError(CONTRADICTION)
    return int(precision)


def _jpeg_2000_styles(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The coding style segments of the main header, and where in each the wavelet is named (T.800 A.6.1, A.6.2)."""
    position = 2
    while position + 4 <= len(data):
        marker = data[position : position + 2]
        if marker == b"\xff\x90":  # the first tile
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker[0] != 0xFF or length < 2:
            raise TaskError(DAMAGED)
        body = data[position + 4 : position + 2 + length]
        if marker == b"\xff\x52":
            yield body, 9
        elif marker == b"\xff\x53":
            yield body, 6
        position += 2 + length
    raise TaskError(DAMAGED)


def _refuse_other_sign(precision: int, signed: bool, form: Form) -> None:
    """Values with another sign than stored ones mean something only where all their bits are the stored ones."""
    pattern = form.signed and not signed and precision == form.stored
    # Fewer than nine bits come in bytes, whose sign would have to be carried into 16-bit pixels.
    narrow = signed and precision <= 8 < form.allocated
    if precision > form.allocated or narrow or (signed != form.signed and not pattern):
        raise TaskError(CONTRADICTION)


def _refuse_other_end(data: bytes) -> None:
    """The last marker says that the image is whole; decoders fill up what is missing. Padding may follow."""
    if data[-64:].rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise TaskError(DAMAGED)
