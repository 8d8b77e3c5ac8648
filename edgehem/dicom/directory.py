"""DICOMDIR: which images a medium says it holds, and where.

A DICOMDIR names files and tells which were meant to be there. The files themselves say everything else, so nothing
more is read of it. Slices that it lists and nobody finds are the one kind of loss that geometry cannot see: at the
vertex or at the base a stack simply ends earlier. Likewise a slice that lies there and is not listed: whoever gives
the DICOMDIR means its medium.

References
----------
DICOM PS3.3 annex F (Basic Directory), PS3.10 section 8 (File IDs).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edgehem.dicom.elements import DIRECTORY_RECORDS, PREAMBLE, DamagedError, Elements, looks_like_dicom
from edgehem.dicom.header import Fields, Header
from edgehem.dicom.items import TagPath, read_items

DIRECTORY_SOP = "1.2.840.10008.1.3.10"
MAX_RECORDS = 20_000
"""Records at most: 4,000 images, and what stands above and beside them."""
_MAX_PARTS = 8
"""Components of a File ID at most (PS3.10 section 8.2)."""

_PATHS: dict[str, TagPath] = {
    "next": (0x00041400,),
    "in_use": (0x00041410,),
    "lower": (0x00041420,),
    "type": (0x00041430,),
    "file": (0x00041500,),
    "instance": (0x00041511,),
    "series": (0x0020000E,),
}
_WANTED = frozenset(_PATHS.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One image that a DICOMDIR lists. Empty where the directory does not say."""

    file: tuple[str, ...] = field(repr=False)
    instance_uid: str = field(repr=False)
    series_uid: str = field(repr=False)


def is_directory(header: Header) -> bool:
    """Whether a file is a DICOMDIR, whatever its name."""
    return header.sop_class == DIRECTORY_SOP


def listed_images(found: Elements, head: bytes) -> tuple[Listed, ...]:
    """The images that a DICOMDIR lists.

    Parameters
    ----------
    found : Elements
        Of the DICOMDIR.
    head : bytes
        All its bytes.

    Returns
    -------
    tuple of Listed

    Raises
    ------
    DamagedError
        If there are no records, or they are malformed.
    """
    if DIRECTORY_RECORDS not in found.spans:
        raise DamagedError
    items = read_items(head, found.spans[DIRECTORY_RECORDS], _WANTED, most=MAX_RECORDS)
    records = {item.offset: Fields(item.values, _PATHS, little=found.little) for item in items}
    series = _series_of(records)
    return tuple(
        Listed(
            file=_parts(record.text("file")),
            instance_uid=record.text("instance"),
            series_uid=series.get(offset, ""),
        )
        for offset, record in records.items()
        if record.text("type") == "IMAGE" and record.unsigned("in_use") != 0
    )


def _parts(text: str) -> tuple[str, ...]:
    """The components of a File ID. Some programs write slashes, or begin at the root or at a dot."""
    parts = (part.strip() for part in text.replace("/", "\\").split("\\"))
    return tuple(part for part in parts if part not in ("", "."))


def _series_of(records: dict[int, Fields[TagPath]]) -> dict[int, str]:
    """Series Instance UID of every record that a series record points to, by the record's offset.

    The order in which records are stored means nothing; only their links do. Each is followed once.
    """
    series: dict[int, str] = {}
    for record in records.values():
        if record.text("type") != "SERIES":
            continue
        uid = record.text("series")
        link = record.long("lower")
        while link and link in records and link not in series:
            series[link] = uid
            link = records[link].long("next")
    return series


def find_files(root: Path, images: Iterable[Listed]) -> list[Path]:
    """The listed files that are there, and DICOM files that lie beside them unlisted, in a fixed order.

    Media are mounted with names in either case and sometimes with a version (``IM1.;1``): names are compared without.
    Every component must be the name of an entry of the folder before it and no link, so that no File ID leads
    elsewhere.
    """

    @cache
    def entries(folder: Path) -> dict[str, Path]:
        try:
            with os.scandir(folder) as found:
                return {_plain(entry.name): Path(entry.path) for entry in sorted(found, key=lambda entry: entry.name)}
        except OSError:
            return {}

    def locate(parts: tuple[str, ...]) -> Path | None:
        place: Path | None = root
        for number, part in enumerate(parts):
            place = entries(place).get(_plain(part)) if place else None
            mode = _mode(place)
            if not (stat.S_ISREG(mode) if number == len(parts) - 1 else stat.S_ISDIR(mode)):
                return None
        return place

    located = (locate(image.file) for image in images if 0 < len(image.file) <= _MAX_PARTS)
    places = {place for place in located if place is not None}
    beside = {file for folder in {place.parent for place in places} for file in entries(folder).values()}
    return sorted(places | {file for file in beside - places if _is_dicom(file)})


def _is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its first bytes; no link, and nothing that an operating system hides."""
    if file.name.startswith(".") or not stat.S_ISREG(_mode(file)):
        return False
    try:
        with file.open("rb") as stream:
            return looks_like_dicom(stream.read(PREAMBLE + 4))
    except OSError:
        return True  # whoever reads it says what is wrong


def _mode(place: Path | None) -> int:
    try:
        return place.lstat().st_mode if place else 0
    except OSError:
        return 0


def _plain(name: str) -> str:
    return name.partition(";")[0].rstrip(".").casefold()


def missing_images(images: Iterable[Listed], headers: Sequence[Header]) -> dict[str, int]:
    """How many listed images are not among those found, by Series Instance UID.

    Told by SOP Instance UID first: files that were copied elsewhere under other names are still there. Told by name
    where the UIDs of a series are not those of its files (a medium made anonymous, an archive's own UIDs) or where
    records have none: a file that lies where it should, and is none of the other listed images, is the one meant.

    Parameters
    ----------
    images : iterable of Listed
    headers : sequence of Header
        Of all images found.

    Returns
    -------
    dict of str to int
        Series with none missing are left out. Where the files of a series have another Series Instance UID than the
        directory says, theirs.
    """
    listed = {(image.instance_uid, image.file if not image.instance_uid else ()): image for image in images}
    known = {image.instance_uid for image in listed.values()}
    there = {header.instance_uid: header for header in headers}
    depths = {len(image.file) for image in listed.values()} - {0}
    by_name: dict[tuple[str, ...], Header] = {}
    for header in headers:
        if header.instance_uid not in known:
            parts = tuple(_plain(part) for part in header.path.parts)
            by_name.update((parts[-depth:], header) for depth in depths)

    found: dict[str, set[str]] = {}
    lost: dict[str, int] = {}
    for image in listed.values():
        meant = there.get(image.instance_uid) if image.instance_uid else None
        meant = meant or by_name.get(tuple(_plain(part) for part in image.file))
        if meant is not None:
            found.setdefault(image.series_uid, set()).add(meant.series_uid)
        elif image.instance_uid or image.file:
            lost[image.series_uid] = lost.get(image.series_uid, 0) + 1
    without = {image.series_uid for image in listed.values() if not image.instance_uid}
    missing: dict[str, int] = {}
    for series, count in lost.items():
        # Records without UIDs, and none of their files under its name: all were renamed, and nothing is known.
        if series in without and series not in found and headers:
            continue
        for actual in found.get(series, {series}):
            missing[actual] = missing.get(actual, 0) + count
    return missing
