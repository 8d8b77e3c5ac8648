"""Enhanced and Legacy Converted CT: one file with many frames, as one :class:`Header` a frame.

From here on a frame is a slice like any other: geometry, selection and decoding know one path only. Position,
orientation, pixel size and rescale come from the functional groups alone, as the standard has it; where they are
missing, the frame has none, and geometry refuses.

References
----------
DICOM PS3.3 sections C.7.6.16 (Multi-frame Functional Groups), C.8.15 (Enhanced CT); PS3.5 annex A.4 (encapsulation).
"""

from __future__ import annotations

import os
from dataclasses import replace

from edgehem.dicom.elements import FRAME_GROUPS, ITEM, SEQUENCE_END, SHARED_GROUPS, UNDEFINED, DamagedError, Elements
from edgehem.dicom.header import Fields, Header
from edgehem.dicom.items import Item, TagPath, read_items

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_CONVERTED_CT = "1.2.840.10008.5.1.4.1.1.2.2"
MULTIFRAME_CT = (ENHANCED_CT, LEGACY_CONVERTED_CT)

MAX_FRAMES = 4000
"""Frames in one file at most (input gates: 4,000 instances)."""
MAX_FRAGMENTS = 8 * MAX_FRAMES
"""Fragments of compressed frames at most; CT encoders write one a frame."""

_PATHS: dict[str, TagPath] = {
    "position": (0x00209113, 0x00200032),
    "orientation": (0x00209116, 0x00200037),
    "spacing": (0x00289110, 0x00280030),
    "thickness": (0x00289110, 0x00180050),
    "intercept": (0x00289145, 0x00281052),
    "slope": (0x00289145, 0x00281053),
    "rescale_type": (0x00289145, 0x00281054),
    "image_type": (0x00189329, 0x00089007),
    "kernel": (0x00189314, 0x00181210),
    "converted_kernel": (0x00209170, 0x00181210),
    "converted_frame_kernel": (0x00209171, 0x00181210),
    "stack": (0x00209111, 0x00209056),
    "time": (0x00209111, 0x00209128),
}
_WANTED = frozenset(_PATHS.values())


def split_frames(header: Header, found: Elements, head: bytes, descriptor: int) -> tuple[Header, ...]:
    """One header a frame, of a multi-frame CT; of anything else, the header as it is.

    Parameters
    ----------
    header : Header
        Of the whole file.
    found : Elements
        What it was made of.
    head : bytes
        The first bytes of the file, up to the pixels.
    descriptor : int
        The open file, for the places of compressed frames.

    Returns
    -------
    tuple of Header
        The header itself where its frames cannot be told apart: no functional groups, or too many frames. It is
        marked as damaged where the functional groups or the compressed frames are malformed.
    """
    whole = header.damaged or not header.has_pixels or not 1 <= header.frames <= MAX_FRAMES
    if header.sop_class not in MULTIFRAME_CT or FRAME_GROUPS not in found.spans or whole:
        return (header,)
    try:
        groups = read_items(head, found.spans[FRAME_GROUPS], _WANTED, most=header.frames)
        shared = _shared(found, head)
        if len(groups) != header.frames:
            raise DamagedError
        places = _places(header, descriptor)
    except DamagedError:
        return (replace(header, damaged=True),)
    return tuple(
        _frame(header, index, {**shared, **group.values}, place)
        for index, (group, place) in enumerate(zip(groups, places, strict=True))
    )


def _shared(found: Elements, head: bytes) -> dict[TagPath, bytes]:
    """What all frames share."""
    span = found.spans.get(SHARED_GROUPS)
    items: list[Item] = read_items(head, span, _WANTED, most=1) if span else []
    return items[0].values if items else {}


def _frame(header: Header, index: int, values: dict[TagPath, bytes], place: tuple[int, int, int]) -> Header:
    fields = Fields(values, _PATHS, little=header.little)
    kernel = fields.text("kernel") or fields.text("converted_frame_kernel") or fields.text("converted_kernel")
    image_type = fields.text("image_type").upper()
    offset, length, end = place
    return replace(
        header,
        frame=index,
        frames=1,
        stack=f"{fields.text('stack')}/{fields.long('time')}",
        pixel_offset=offset,
        pixel_length=length,
        size=end,
        image_type=tuple(part.strip() for part in image_type.split("\\")) if image_type else header.image_type,
        kernel=kernel or header.kernel,
        position=fields.decimals("position", 3),
        orientation=fields.decimals("orientation", 6),
        spacing=fields.decimals("spacing", 2),
        thickness=fields.decimal("thickness"),
        slope=fields.decimal("slope"),
        intercept=fields.decimal("intercept"),
        rescale_type=fields.text("rescale_type").upper(),
    )


def _places(header: Header, descriptor: int) -> list[tuple[int, int, int]]:
    """For every frame where its pixels start, how long they say they are, and where they end.

    Raises
    ------
    DamagedError
        If the pixel data is not that of so many frames.
    """
    start, count = header.pixel_offset, header.frames
    if header.pixel_length != UNDEFINED:
        length = (header.rows or 0) * (header.columns or 0) * ((header.bits_allocated or 0) // 8)
        # One byte more pads an odd length (PS3.5 section 8.1.1).
        if header.pixel_length not in (length * count, length * count + length * count % 2):
            raise DamagedError
        return [(start + i * length, length, start + (i + 1) * length) for i in range(count)]
    table, fragments, end = _fragments(descriptor, start, header.size)
    if len(fragments) == count:
        firsts = fragments
        # The table may be empty; where it is not, it says the same (PS3.5 A.4).
        if table and table != [first - fragments[0] for first in firsts]:
            raise DamagedError
    elif len(table) == count and table[0] == 0:
        firsts = [fragments[0] + offset for offset in table]
    else:
        raise DamagedError  # fragments without a table: which frame each belongs to is anyone's guess
    if not set(firsts) <= set(fragments) or firsts != sorted(set(firsts)):
        raise DamagedError
    return [(a, UNDEFINED, b) for a, b in zip(firsts, [*firsts[1:], end], strict=True)]


def _fragments(descriptor: int, start: int, size: int) -> tuple[list[int], list[int], int]:
    """Basic Offset Table, place of every fragment's item, and of the delimiter, of encapsulated pixels."""
    table: list[int] = []
    fragments: list[int] = []
    position = start
    for number in range(MAX_FRAGMENTS + 1):
        header = os.pread(descriptor, 8, position)
        if len(header) != 8:
            raise DamagedError
        # Encapsulated pixels are always little-endian.
        tag = int.from_bytes(header[:2], "little") << 16 | int.from_bytes(header[2:4], "little")
        length = int.from_bytes(header[4:], "little")
        if tag == SEQUENCE_END and fragments:
            return table, fragments, position
        if tag != ITEM or position + 8 + length > size:
            raise DamagedError
        if number:
            fragments.append(position)
        else:
            if length > 4 * MAX_FRAMES:
                raise DamagedError
            raw = os.pread(descriptor, length, position + 8)
            table = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]
        position += 8 + length
    raise DamagedError
