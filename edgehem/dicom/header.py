"""The header of one DICOM file, as far as intake looks at it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from edgehem.dicom.elements import UNDEFINED, DamagedError, Elements, walk

HEADER_LIMIT = 16 * 2**20
"""Bytes before the pixels at most: the frame limit of the input gates (16 MiB)."""

_TAGS = {
    "sop_class": 0x00080016,
    "instance_uid": 0x00080018,
    "image_type": 0x00080008,
    "study_date": 0x00080020,
    "modality": 0x00080060,
    "study_description": 0x00081030,
    "series_description": 0x0008103E,
    "patient_name": 0x00100010,
    "patient_id": 0x00100020,
    "birth_date": 0x00100030,
    "age": 0x00101010,
    "contrast_agent": 0x00180010,
    "contrast_sequence": 0x00180012,
    "body_part": 0x00180015,
    "thickness": 0x00180050,
    "kernel": 0x00181210,
    "study_uid": 0x0020000D,
    "series_uid": 0x0020000E,
    "series_number": 0x00200011,
    "concatenation": 0x00209161,
    "part": 0x00209162,
    "parts": 0x00209163,
    "position": 0x00200032,
    "orientation": 0x00200037,
    "samples": 0x00280002,
    "photometric": 0x00280004,
    "frames": 0x00280008,
    "rows": 0x00280010,
    "columns": 0x00280011,
    "spacing": 0x00280030,
    "bits_allocated": 0x00280100,
    "bits_stored": 0x00280101,
    "high_bit": 0x00280102,
    "representation": 0x00280103,
    "padding": 0x00280120,
    "padding_limit": 0x00280121,
    "intercept": 0x00281052,
    "slope": 0x00281053,
    "rescale_type": 0x00281054,
    "lossy": 0x00282110,
}
_WANTED = frozenset(_TAGS.values())

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The header of one image: of a file, or of one frame of a multi-frame file (:mod:`edgehem.dicom.multiframe`).

    Missing or malformed numbers are None: whoever needs them decides what that means.

    Free text and identifiers are kept for comparison only; nothing here is ever put into a message or a log.

    Parameters
    ----------
    size : int
        Where the bytes of the image end: the length of the file, or the end of a compressed frame.
    damaged : bool
        The file ends too early or is malformed; the fields before the damage are filled.
    pixel_offset, pixel_length : int
        As in :class:`edgehem.dicom.elements.Elements`; of a frame, its own bytes.
    position, orientation, spacing, thickness : tuple of float, mm and direction cosines
        Image Position (Patient), Image Orientation (Patient), Pixel Spacing, Slice Thickness.
    padding, padding_limit : int or None
        Pixel Padding Value and Range Limit as 16-bit patterns (0..65535): US or SS, a file may have either VR for
        either pixel representation, and the pattern is the same.
    frame : int
        Index of the frame in a multi-frame file, from 0; -1 where the file is one image, or its frames are not told
        apart.
    stack : str
        Which of several stacks of one multi-frame series a frame is of (Stack ID, temporal position); else empty.
    concatenation, part, parts : str, int or None, int or None
        Which multi-frame object the file is a part of, and how many files make the whole (PS3.3 C.7.6.16.2.2.4).
    """

    path: Path = field(repr=False)
    size: int
    damaged: bool
    syntax: str
    little: bool
    pixel_offset: int
    pixel_length: int
    sop_class: str
    modality: str
    image_type: tuple[str, ...]
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    instance_uid: str = field(repr=False)
    series_number: int | None
    patient: tuple[str, str] = field(repr=False)
    study_date: str = field(repr=False)
    birth_date: str = field(repr=False)
    age: str = field(repr=False)
    study_description: str = field(repr=False)
    series_description: str = field(repr=False)
    body_part: str
    kernel: str
    contrast_agent: str = field(repr=False)
    contrast_sequence: bool
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    samples: int | None
    photometric: str
    frames: int
    rows: int | None
    columns: int | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    representation: int | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    padding: int | None
    padding_limit: int | None
    lossy: str
    frame: int = -1
    stack: str = field(default="", repr=False)
    concatenation: str = field(default="", repr=False)
    part: int | None = None
    parts: int | None = None

    @property
    def has_pixels(self) -> bool:
        """Whether the file carries Pixel Data."""
        return self.pixel_offset >= 0


def parse_header(head: bytes, size: int, path: Path) -> Header:
    """The header of a file from its first bytes.

    Parameters
    ----------
    head : bytes
        The first bytes of the file; more of them are asked for with ``NeedMoreError``.
    size : int
        Length of the whole file, bytes.
    path : Path
        Where the pixels can be read later.

    Returns
    -------
    Header
        With ``damaged`` set where the bytes end too early or are not well-formed.

    Raises
    ------
    NeedMoreError
        If the header reaches beyond ``head`` and the file goes on.
    """
    return parse_elements(head, size, path)[0]


def parse_elements(head: bytes, size: int, path: Path) -> tuple[Header, Elements]:
    """:func:`parse_header`, with the elements that it was made of."""
    found = Elements()
    damaged = False
    try:
        walk(head, size, _WANTED, found)
    except DamagedError:
        damaged = True
    if found.pixel_length != UNDEFINED and found.pixel_offset + found.pixel_length > size:
        damaged = True
    fields = Fields(found.values, _TAGS, little=found.little)
    header = Header(
        path=path,
        size=size,
        damaged=damaged,
        syntax=found.syntax,
        little=found.little,
        pixel_offset=found.pixel_offset,
        pixel_length=found.pixel_length,
        sop_class=fields.text("sop_class") or found.sop_class,
        modality=fields.text("modality").upper(),
        image_type=tuple(part.strip().upper() for part in fields.text("image_type").split("\\")),
        study_uid=fields.text("study_uid"),
        series_uid=fields.text("series_uid"),
        instance_uid=fields.text("instance_uid"),
        series_number=fields.whole("series_number"),
        patient=(fields.text("patient_id"), fields.text("patient_name")),
        study_date=fields.text("study_date"),
        birth_date=fields.text("birth_date"),
        age=fields.text("age"),
        study_description=fields.text("study_description"),
        series_description=fields.text("series_description"),
        body_part=fields.text("body_part"),
        kernel=fields.text("kernel"),
        contrast_agent=fields.text("contrast_agent"),
        contrast_sequence=bool(fields.text("contrast_sequence")),
        position=fields.decimals("position", 3),
        orientation=fields.decimals("orientation", 6),
        spacing=fields.decimals("spacing", 2),
        thickness=fields.decimal("thickness"),
        samples=fields.unsigned("samples"),
        photometric=fields.text("photometric"),
        frames=fields.whole("frames") or 1,
        rows=fields.unsigned("rows"),
        columns=fields.unsigned("columns"),
        bits_allocated=fields.unsigned("bits_allocated"),
        bits_stored=fields.unsigned("bits_stored"),
        high_bit=fields.unsigned("high_bit"),
        representation=fields.unsigned("representation"),
        slope=fields.decimal("slope"),
        intercept=fields.decimal("intercept"),
        rescale_type=fields.text("rescale_type").upper(),
        padding=fields.unsigned("padding"),
        padding_limit=fields.unsigned("padding_limit"),
        lossy=fields.text("lossy"),
        concatenation=fields.text("concatenation"),
        part=fields.unsigned("part"),
        parts=fields.unsigned("parts"),
    )
    return header, found


class Fields(Generic[Key]):
    """Raw values turned into Python's, one field at a time; what cannot be turned is None.

    Parameters
    ----------
    values : mapping of key to bytes
        The key is a tag, or the path to one.
    keys : mapping of str to key
        Names of the fields.
    little : bool
        Byte order of binary values.
    """

    def __init__(self, values: Mapping[Key, bytes], keys: Mapping[str, Key], *, little: bool) -> None:
        self._values = values
        self._keys = keys
        self._order: Literal["little", "big"] = "little" if little else "big"

    def text(self, name: str) -> str:
        """The value as text. Latin-1: every byte is a character, and only ASCII words are ever compared."""
        return self._values.get(self._keys[name], b"").decode("latin-1").strip("\0 \t\r\n")

    def decimals(self, name: str, count: int) -> tuple[float, ...] | None:
        """A Decimal String of exactly ``count`` finite numbers."""
        parts = self._values.get(self._keys[name], b"").rstrip(b"\0").split(b"\\")
        if len(parts) != count:
            return None
        try:
            numbers = tuple(map(float, parts))
        except ValueError:
            return None
        # Python reads "1_000" as a number; DICOM does not.
        return numbers if all(map(math.isfinite, numbers)) and not any(b"_" in part for part in parts) else None

    def decimal(self, name: str) -> float | None:
        numbers = self.decimals(name, 1)
        return numbers[0] if numbers else None

    def whole(self, name: str) -> int | None:
        number = self.decimal(name)
        return int(number) if number is not None and abs(number) < 2**31 else None

    def unsigned(self, name: str) -> int | None:
        """A 16-bit value, whichever of US and SS the file says."""
        value = self._values.get(self._keys[name], b"")
        return int.from_bytes(value, self._order) if len(value) == 2 else None

    def long(self, name: str) -> int | None:
        """A 32-bit value (UL)."""
        value = self._values.get(self._keys[name], b"")
        return int.from_bytes(value, self._order) if len(value) == 4 else None
