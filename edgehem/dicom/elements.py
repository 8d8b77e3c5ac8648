"""The bytes of a DICOM file as data elements: a strict, bounded walk over a header, up to the pixels.

Why not ``pydicom.dcmread`` here: it answers a file cut off inside a value with a shorter value, reports damage as
process-wide warnings that quote values and file names, and recurses into nested sequences. The walk below reports any
missing byte, never recurses, interprets no sequence, and takes about a tenth of the time. pydicom is the oracle this
walk is tested against.

References
----------
DICOM PS3.5 sections 7.1 (data elements), 7.5 (sequences), 6.2.2 (UN of undefined length); PS3.10 section 7.1.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

PREAMBLE = 128
MAGIC = b"DICM"
UNDEFINED = 0xFFFFFFFF
MAX_ELEMENTS = 50_000
"""More elements than any CT header has (about 80-400): the walk over a hostile header stays short."""
MAX_FRAME_ELEMENTS = 500_000
"""The same for a file of 4,000 frames (or a DICOMDIR of 4,000 files): each adds some 30-100 elements."""
MAX_VALUE = 1024
"""Bytes kept of a value. Every field that intake reads is far shorter."""

MEDIA_SOP_CLASS = 0x00020002
TRANSFER_SYNTAX = 0x00020010
PIXEL_DATA = 0x7FE00010
SHARED_GROUPS = 0x52009229
FRAME_GROUPS = 0x52009230
DIRECTORY_RECORDS = 0x00041220
_SPANNED = frozenset({SHARED_GROUPS, FRAME_GROUPS, DIRECTORY_RECORDS})
"""Sequences that are looked into (:mod:`edgehem.dicom.items`): where each lies is kept."""
_META = frozenset({MEDIA_SOP_CLASS, TRANSFER_SYNTAX})
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
_DELIMITERS = 0xFFFE

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

# Value representations with a 2-byte length, and with a 4-byte length after 2 reserved bytes.
_SHORT_VR = frozenset({b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"})
_SHORT_VR |= {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
_LONG_VR = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})

_EXPLICIT = {True: Struct("<HH2sH"), False: Struct(">HH2sH")}
_IMPLICIT = {True: Struct("<HHL"), False: Struct(">HHL")}
_LENGTH = {True: Struct("<L"), False: Struct(">L")}


class DamagedError(Exception):
    """The bytes are not a whole DICOM header. Caught inside this package; never reaches a caller."""


class NeedMoreError(Exception):
    """The header goes on after the bytes at hand. Caught by whoever read them."""


class Span(NamedTuple):
    """Where the items of a sequence lie in the bytes of a header.

    ``end`` is None where the sequence ends with a delimiter.
    """

    start: int
    end: int | None
    encoding: Encoding


class Encoding(NamedTuple):
    """How elements are written."""

    little: bool
    implicit: bool


@dataclass(kw_only=True)
class Elements:
    """What the walk found. Filled as it goes, so that a damaged file still says what came before the damage.

    Parameters
    ----------
    sop_class : str
        Media Storage SOP Class UID: what kind of object the file is, told before everything else.
    syntax : str
        Transfer syntax UID; guessed from the first element where the file does not name one.
    little : bool
        Byte order of the data set.
    values : dict
        Raw value by tag, for the tags asked for. A sequence is kept as ``b"1"`` when it holds an item.
    pixel_offset, pixel_length : int
        Where the value of Pixel Data starts and how long it says it is; -1 without Pixel Data. A compressed image
        has the length :data:`UNDEFINED`.
    spans : dict
        Where the sequences lie that are looked into later, by tag; their bytes are at hand.
    count : int
        Elements that were walked over, nested ones included.
    """

    sop_class: str = ""
    syntax: str = ""
    little: bool = True
    values: dict[int, bytes] = field(default_factory=dict)
    pixel_offset: int = -1
    pixel_length: int = -1
    spans: dict[int, Span] = field(default_factory=dict)
    count: int = 0


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, with the preamble or (old files) without it."""
    if head[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return True
    if len(head) < 16 or head[1] != 0 or head[3] != 0 or head[0] not in (2, 8):
        return False
    explicit = head[4:6] in _SHORT_VR or head[4:6] in _LONG_VR
    return explicit or _LENGTH[True].unpack_from(head, 4)[0] <= 256


def walk(data: bytes, size: int, wanted: Set[int], found: Elements) -> None:
    """Read the elements of a file up to Pixel Data.

    Parameters
    ----------
    data : bytes
        The first bytes of the file.
    size : int
        Length of the whole file, bytes.
    wanted : set of int
        Tags (group << 16 | element) whose values are kept.
    found : Elements
        Filled in place.

    Raises
    ------
    NeedMoreError
        If the header reaches beyond ``data`` and the file goes on.
    DamagedError
        If an element is cut off, malformed, or contradicts an earlier one.
    """
    cursor = Cursor(data, size)
    try:
        _walk_file(cursor, wanted, found)
    finally:
        found.count = cursor.elements


def _walk_file(cursor: Cursor, wanted: Set[int], found: Elements) -> None:
    data = cursor.data
    position = PREAMBLE + 4 if data[PREAMBLE : PREAMBLE + 4] == MAGIC else 0
    try:
        position = _walk_level(cursor, position, Encoding(True, False), _META, found)
    finally:
        found.sop_class = _uid(found, MEDIA_SOP_CLASS)
        named = _uid(found, TRANSFER_SYNTAX)
    cursor.need(position, 8)
    explicit = data[position + 4 : position + 6] in _SHORT_VR | _LONG_VR
    found.syntax = named or (EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE)
    if found.syntax == DEFLATED:
        return
    found.little = found.syntax != EXPLICIT_BIG
    _walk_level(cursor, position, Encoding(found.little, found.syntax == IMPLICIT_LITTLE), wanted, found)


def _uid(found: Elements, tag: int) -> str:
    return found.values.pop(tag, b"").rstrip(b"\0 ").decode("latin-1")


class Cursor:
    """The bytes at hand, and what may still be read of them."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data = data
        self.size = size
        self.elements = 0
        self.limit = MAX_ELEMENTS

    def need(self, position: int, count: int) -> None:
        """Make sure that ``count`` bytes can be read at ``position``."""
        if position + count > len(self.data):
            if position + count > self.size:
                raise DamagedError
            raise NeedMoreError

    def element(self, position: int, encoding: Encoding, *, strict: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR (empty if implicit), length, and where the value starts, of the element at ``position``.

        Items and delimiters have no VR in any encoding. Some writers switch to implicit VR inside the items of an
        explicit file: accepted unless ``strict``.
        """
        self.elements += 1
        if self.elements > self.limit:
            raise DamagedError
        self.need(position, 8)
        group: int
        element: int
        length: int
        if not encoding.implicit:
            group, element, vr, length = _EXPLICIT[encoding.little].unpack_from(self.data, position)
            if vr in _SHORT_VR and group != _DELIMITERS:
                return group << 16 | element, vr, length, position + 8
            if vr in _LONG_VR and group != _DELIMITERS:
                self.need(position, 12)
                (length,) = _LENGTH[encoding.little].unpack_from(self.data, position + 8)
                return group << 16 | element, vr, length, position + 12
            if strict:
                raise DamagedError
        group, element, length = _IMPLICIT[encoding.little].unpack_from(self.data, position)
        return group << 16 | element, b"", length, position + 8


def _walk_level(cursor: Cursor, position: int, encoding: Encoding, wanted: Set[int], found: Elements) -> int:
    """Top-level elements: those of group 2 if ``wanted`` is of it, else up to Pixel Data. Returns where it stopped."""
    data, size = cursor.data, cursor.size
    meta = TRANSFER_SYNTAX in wanted
    group_2 = b"\x02\x00"
    while position != size:
        if meta and data[position : position + 2] != group_2:
            return position
        tag, vr, length, start = cursor.element(position, encoding, strict=True)
        if tag == PIXEL_DATA:
            found.pixel_offset, found.pixel_length = start, length
            return start
        # What a UN of undefined length holds is implicit (PS3.5 section 6.2.2).
        inside = encoding._replace(implicit=True) if vr == b"UN" else encoding
        if tag in _SPANNED:
            _span(cursor, tag, start, length, inside, found)
        if length == UNDEFINED:
            position = skip_sequence(cursor, start, inside)
            filled = position > start + 8
        else:
            position = start + length
            filled = length > 0
        if position > size:
            raise DamagedError
        if tag in wanted:
            kept = min(length, MAX_VALUE)
            if vr == b"SQ" or length == UNDEFINED:
                value = b"1" if filled else b""
            else:
                cursor.need(start, kept)
                value = data[start : start + kept]
            # Two different values for one field: there is no telling which is meant.
            if found.values.setdefault(tag, value) != value:
                raise DamagedError
    return position


def _span(cursor: Cursor, tag: int, start: int, length: int, inside: Encoding, found: Elements) -> None:
    """Keep where a sequence lies that is looked into later, and make sure that its bytes are at hand."""
    if tag in found.spans:
        raise DamagedError
    cursor.limit = MAX_FRAME_ELEMENTS
    found.spans[tag] = Span(start, None if length == UNDEFINED else start + length, inside)
    if length != UNDEFINED:
        cursor.need(start, length)


def skip_sequence(cursor: Cursor, position: int, encoding: Encoding) -> int:
    """Position after a sequence (or fragments) of undefined length, however deep it nests, without recursion."""
    levels = [(False, encoding)]  # (inside an item?, its encoding), innermost last
    while levels:
        in_item, encoding = levels[-1]
        tag, vr, length, position = cursor.element(position, encoding, strict=False)
        if tag == (ITEM_END if in_item else SEQUENCE_END):
            levels.pop()
        elif not in_item and tag != ITEM:
            raise DamagedError
        elif length == UNDEFINED:
            # An item holds elements; an element of undefined length holds items (in UN: implicit ones).
            levels.append((not in_item, encoding._replace(implicit=encoding.implicit or vr == b"UN")))
        else:
            position += length
        if position > cursor.size:
            raise DamagedError
    return position
