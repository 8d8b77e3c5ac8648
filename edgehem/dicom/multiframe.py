"""Enhanced and Legacy Converted CT: one file with many frames, as one :class:`Header` a frame.

From here on a frame is a slice like any other: geometry, selection and decoding know one path only. Position,
orientation, pixel size and rescale come from the functional groups alone, as the standard has it; where they are
missing, the frame has none, and geometry refuses. Where all frames share one value and a frame has another, there is
no telling which is meant. What speaks against reading a frame (contrast, another body part, a projection) counts
wherever it stands, in the file or in the frame.

References
----------
DICOM PS3.3 sections C.7.6.16 (Multi-frame Functional Groups), C.8.15 (Enhanced CT), C.8.16 (frame types); PS3.5 annex
A.4 (encapsulation).
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
    "technique": (0x00189329, 0x00089207),
    "contrast_given": (0x00189341, 0x00189342),
    "converted_agent": (0x00209170, 0x00180010),
    "converted_frame_agent": (0x00209171, 0x00180010),
    "anatomy": (0x00209071, 0x00082218, 0x00080104),
    "converted_body_part": (0x00209170, 0x00180015),
    "kernel": (0x00189314, 0x00181210),
    "converted_kernel": (0x00209170, 0x00181210),
    "converted_frame_kernel": (0x00209171, 0x00181210),
    "stack": (0x00209111, 0x00209056),
    "time": (0x00209111, 0x00209128),
}
_WANTED = frozenset(_PATHS.values())
_ONE_VALUE = ("position", "orientation", "spacing", "intercept", "slope", "rescale_type", "contrast_given")
"""Shared by all frames or each frame's own, never both (PS3.3 C.7.6.16.1.1)."""

_CONTRASTS = frozenset({
    "ADDITION", "DIVISION", "ENERGY_PROP_WT", "FILTERED", "MASKED", "MAXIMUM", "MEAN", "MEDIAN", "MINIMUM", "MIXED",
    "MULTIPLICATION", "NONE", "QUANTITY", "RESAMPLED", "STD_DEVIATION", "SUBTRACTION",
})  # fmt: skip
"""Derived Pixel Contrast, the fourth value of a frame type (PS3.3 C.8.16.1.4). Legacy Converted CT copies the image
type of its slices instead, whose fourth value is the scanner's own (``HELIX``)."""
_FLAVORS_WITH_CONTRAST = frozenset({"ANGIO", "ANGIO_TIME", "PERFUSION"})
"""Image flavors, the third value of a frame type, that there are with contrast only (PS3.3 C.8.16.1.3)."""


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
        if len(groups) != header.frames or any(_contradict(shared, group.values) for group in groups):
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


def _contradict(shared: dict[TagPath, bytes], own: dict[TagPath, bytes]) -> bool:
    """Whether a frame says otherwise than all frames together."""
    paths = (_PATHS[name] for name in _ONE_VALUE)
    return any(path in shared and path in own and shared[path].strip() != own[path].strip() for path in paths)


def _frame(header: Header, index: int, values: dict[TagPath, bytes], place: tuple[int, int, int]) -> Header:
    fields = Fields(values, _PATHS, little=header.little)
    kernel = fields.text("kernel") or fields.text("converted_frame_kernel") or fields.text("converted_kernel")
    kinds = _kinds(header, fields)
    given = "YES" in fields.text("contrast_given").upper() or not _FLAVORS_WITH_CONTRAST.isdisjoint(kinds)
    agents = (header.contrast_agent, fields.text("converted_agent"), fields.text("converted_frame_agent"))
    offset, length, end = place
    return replace(
        header,
        frame=index,
        frames=1,
        stack=f"{fields.text('stack')}/{fields.long('time')}",
        pixel_offset=offset,
        pixel_length=length,
        size=end,
        image_type=kinds,
        body_part=header.body_part or fields.text("anatomy") or fields.text("converted_body_part"),
        # Several different words are none of those that mean "no contrast".
        contrast_agent="\\".join(dict.fromkeys(agent for agent in agents if agent)),
        contrast_sequence=header.contrast_sequence or given,
        kernel=kernel or header.kernel,
        position=fields.decimals("position", 3),
        orientation=fields.decimals("orientation", 6),
        spacing=fields.decimals("spacing", 2),
        thickness=fields.decimal("thickness"),
        slope=fields.decimal("slope"),
        intercept=fields.decimal("intercept"),
        rescale_type=fields.text("rescale_type").upper(),
    )


def _kinds(header: Header, fields: Fields[TagPath]) -> tuple[str, ...]:
    """The image type of a frame: its own, unless that of the whole file says more against it."""
    text = fields.text("image_type").upper()
    whole = _of_slices(header, header.image_type)
    own = _of_slices(header, tuple(part.strip() for part in text.split("\\"))) if text else whole
    if "MIXED" not in whole and (whole[0] == "DERIVED" or "LOCALIZER" in whole or whole[3:4] not in ((), ("NONE",))):
        own = whole if own[0] == "ORIGINAL" and "LOCALIZER" not in own else own
    # A calculation over a volume is a reformat or a projection (PS3.3 C.8.16.2.1.4).
    computed = fields.text("technique").upper() not in ("", "NONE", "MIXED")
    return (*own, "REFORMATTED") if computed else own


def _of_slices(header: Header, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """An image type as frames have it, where Legacy Converted CT copied that of its slices."""
    if header.sop_class == LEGACY_CONVERTED_CT and len(kinds) > 3 and kinds[3] not in _CONTRASTS:
        return (*kinds[:3], "NONE", *kinds[3:])
    return kinds


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
