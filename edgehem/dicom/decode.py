"""Stored pixels of a stack: from the files straight into one int16 array [Z, Y, X].

Uncompressed slices are read by the operating system into their place in the array; nothing is copied in between.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.dicom import codec
from edgehem.dicom.elements import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNDEFINED
from edgehem.dicom.geometry import Stack
from edgehem.dicom.header import Header
from edgehem.errors import Code, Refusal

Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]

MAX_SIDE = 1024
"""Rows or columns of a slice at most (input gates)."""
MAX_BYTES = 2 * 2**30
"""Bytes of a decoded series at most (input gates)."""
MAX_RESCALE = 1e5
"""Largest rescale slope or intercept: 16-bit values shifted into any range that CT uses stay below."""
UNCOMPRESSED = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG})

_HU_RESCALE_TYPES = ("", "HU", "US")
"""Rescale Type: HU, or absent, which means HU in a CT image (PS3.3 C.8.2.1); some scanners write US (unspecified)."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Decoded slices.

    Parameters
    ----------
    stored : int16 array [Z, Y, X]
    slope, intercept : float32 arrays [Z]
        HU = stored · slope + intercept.
    padding : tuple of int or None
        Inclusive range of stored values that mean "no measurement"; None where no such pixel exists.
    copies_dropped : int
        Files that were copies of another slice.
    """

    stored: Int16
    slope: Float32
    intercept: Float32
    padding: tuple[int, int] | None
    copies_dropped: int


def refuse_undecodable(headers: Sequence[Header]) -> None:
    """Look at all slices of a series before any memory is taken for them.

    Raises
    ------
    Refusal
        TOO_LARGE, SYNTAX_UNSUPPORTED, RESCALE_MISSING, GEOMETRY_MIXED, PIXELS_MISSING, or UNREADABLE where the pixel
        data does not have the length that the header announces.
    """
    first = headers[0]
    for header in headers:
        if header.rows is None or header.columns is None or min(header.rows, header.columns) == 0:
            raise Refusal(Code.UNREADABLE, "An image of the series does not say how large it is.")
        if max(header.rows, header.columns) > MAX_SIDE:
            raise Refusal(Code.TOO_LARGE, f"The images are larger than {MAX_SIDE} × {MAX_SIDE} pixels.")
        if header.rows * header.columns * 2 * len(headers) > MAX_BYTES:
            raise Refusal(Code.TOO_LARGE, "The series is larger than 2 GiB.")
        if header.syntax not in UNCOMPRESSED:
            codec.refuse_unsupported(header.syntax)
        if header.slope is None or header.intercept is None or header.slope == 0:
            raise Refusal(
                Code.RESCALE_MISSING, "Rescale slope or intercept is missing: pixel values have no Hounsfield units."
            )
        if abs(header.slope) > MAX_RESCALE or abs(header.intercept) > MAX_RESCALE:
            raise Refusal(Code.RESCALE_MISSING, "Rescale slope or intercept is an impossible number.")
        if header.rescale_type not in _HU_RESCALE_TYPES:
            raise Refusal(Code.RESCALE_MISSING, "The pixel values are not Hounsfield units (another rescale type).")
        _refuse_bits(header)
        _refuse_length(header)
        if _form(header) != _form(first):
            raise Refusal(Code.GEOMETRY_MIXED, "The images of the series store their pixels in different forms.")


def decode(stack: Stack) -> Pixels:
    """Read and decode the pixels of a stack that :func:`refuse_undecodable` has let pass.

    Parameters
    ----------
    stack : Stack

    Returns
    -------
    Pixels

    Raises
    ------
    Refusal
        UNREADABLE, SYNTAX_UNSUPPORTED; GEOMETRY_MIXED where two different images lie at the same place.
    """
    first = stack.first
    shape = (len(stack.places), first.rows or 0, first.columns or 0)
    padding = _padding_range(first)
    stored = np.empty(shape, dtype=np.int16)  # [Z, Y, X] stored values
    padded = False
    copies = 0
    scratch: Int16 | None = None
    slices = list(zip(stack.places, stored, strict=True))
    # All at once: they are decoded side by side.
    packed = [(place[0], image) for place, image in slices if place[0].syntax not in UNCOMPRESSED]
    codec.decode_frames([codec.Frame(header=header, out=image) for header, image in packed])
    for place, image in slices:
        if place[0].syntax in UNCOMPRESSED:
            _read_plain(place[0], image)
        _keep_stored_bits(place[0], image, padding)
        if padding is not None and not padded:
            padded = _any_within(image, padding)
        for other in place[1:]:
            scratch = np.empty_like(image) if scratch is None else scratch
            _read_slice(other, scratch, padding)
            same_rescale = (other.slope, other.intercept) == (place[0].slope, place[0].intercept)
            if not same_rescale or not np.array_equal(scratch, image):
                raise Refusal(Code.GEOMETRY_MIXED, "Two different images of the series lie at the same place.")
            copies += 1
    slope = np.array([place[0].slope for place in stack.places])
    intercept = np.array([place[0].intercept for place in stack.places])
    if _shifted(first):
        intercept = intercept + 32768.0 * slope
    return Pixels(
        stored=stored,
        slope=slope.astype(np.float32),
        intercept=intercept.astype(np.float32),
        padding=padding if padded else None,
        copies_dropped=copies,
    )


def _form(header: Header) -> tuple[int | None, ...]:
    """How pixels are stored; one for all slices of a series."""
    return (
        header.bits_allocated,
        header.bits_stored,
        header.representation,
        header.padding,
        header.padding_limit,
    )


def _shifted(header: Header) -> bool:
    """Whether stored values need the whole unsigned 16-bit range, and so are held less 32768."""
    return header.bits_stored == 16 and header.representation == 0


def _refuse_bits(header: Header) -> None:
    """Refuse depths that CT images do not have."""
    allocated, stored = header.bits_allocated, header.bits_stored
    high = header.high_bit if header.high_bit is not None else (stored or 0) - 1
    if (
        allocated not in (8, 16)
        or stored is None
        or not 8 <= stored <= allocated
        or high != stored - 1
        or header.representation not in (0, 1)
    ):
        raise Refusal(Code.PIXELS_MISSING, "The pixels are stored in a depth that CT images do not have.")
    if allocated == 8 and header.syntax == EXPLICIT_BIG:
        raise Refusal(Code.SYNTAX_UNSUPPORTED, "8-bit images in big-endian order are not supported.")


def _refuse_length(header: Header) -> None:
    """Refuse pixel data whose length is not what rows, columns and depth make."""
    frame = _frame_bytes(header)
    if header.syntax in UNCOMPRESSED:
        # One byte more pads an odd length (PS3.5 section 8.1.1).
        right = header.pixel_length in (frame, frame + frame % 2)
    else:
        # Compression may fail to compress, but not by more than its own headers.
        right = header.pixel_length == UNDEFINED and header.size - header.pixel_offset <= 2 * frame + 2**16
    if not right:
        raise Refusal(Code.UNREADABLE, "The pixel data of an image does not have the announced length.")


def _frame_bytes(header: Header) -> int:
    return (header.rows or 0) * (header.columns or 0) * ((header.bits_allocated or 0) // 8)


def _as_stored(header: Header, pattern: int) -> int:
    """A 16-bit pattern as a stored value in the array's own domain."""
    if header.representation == 0:
        if header.bits_stored == 16:
            return pattern - 32768
        if pattern < 1 << (header.bits_stored or 16):
            return pattern
    # Signed; or a marker outside of the bits stored (63536 in 12-bit data), kept apart from every measured value.
    return pattern - 65536 if pattern >= 32768 else pattern


def _padding_range(header: Header) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2) as an inclusive range of stored values."""
    if header.padding is None:
        return None
    value = _as_stored(header, header.padding)
    limit = value if header.padding_limit is None else _as_stored(header, header.padding_limit)
    return min(value, limit), max(value, limit)


def _any_within(image: Int16, bounds: tuple[int, int]) -> bool:
    low, high = bounds
    if low == high:
        return bool((image == low).any())
    return bool(((image >= low) & (image <= high)).any())


def _read_slice(header: Header, out: Int16, padding: tuple[int, int] | None) -> None:
    """Decode one slice into ``out`` (int16 array [Y, X], contiguous)."""
    if header.syntax in UNCOMPRESSED:
        _read_plain(header, out)
    else:
        codec.decode_frames([codec.Frame(header=header, out=out)])
    _keep_stored_bits(header, out, padding)


def _read_plain(header: Header, out: Int16) -> None:
    """Read an uncompressed slice into ``out`` as it lies in the file."""
    if header.bits_allocated == 8:
        narrow = np.frombuffer(_read_bytes(header, out.size), dtype=np.int8 if header.representation else np.uint8)
        out[...] = narrow.reshape(out.shape)
        return
    _read_into(header, out.data.cast("B"))
    # The bytes are now in the file's order; the host's may differ.
    if header.little != (sys.byteorder == "little"):
        out.byteswap(inplace=True)


def _keep_stored_bits(header: Header, image: Int16, padding: tuple[int, int] | None) -> None:
    """Drop what is above Bits Stored (overlays, garbage) in place, and give the rest its sign."""
    stored = header.bits_stored or 16
    if stored == 16:
        if header.representation == 0:
            np.bitwise_xor(image, np.int16(-32768), out=image)
        return
    marker: npt.NDArray[np.bool_] | None = None
    if padding is not None and not _fits(padding[0], stored, header.representation == 1):
        marker = (image >= padding[0]) & (image <= padding[1])
    if header.representation == 0:
        kept = image & np.int16((1 << stored) - 1)
    else:
        kept = (image << np.int16(16 - stored)) >> np.int16(16 - stored)
    if marker is not None:
        kept[marker] = image[marker]
    image[...] = kept


def _fits(value: int, bits: int, signed: bool) -> bool:
    return -(1 << (bits - 1)) <= value < 1 << (bits - 1) if signed else 0 <= value < 1 << bits


def _read_bytes(header: Header, count: int) -> bytearray:
    buffer = bytearray(count)
    _read_into(header, memoryview(buffer))
    return buffer


def _read_into(header: Header, target: memoryview) -> None:
    """Fill ``target`` with the first bytes of a file's pixel data."""
    try:
        with header.path.open("rb", buffering=0) as stream:
            stream.seek(header.pixel_offset)
            while target and (count := stream.readinto(target)):
                target = target[count:]
    except OSError:
        raise Refusal(Code.UNREADABLE, "A file could not be opened or read from its disk.") from None
    if target:
        raise Refusal(Code.UNREADABLE, "A file became shorter while it was read.")
