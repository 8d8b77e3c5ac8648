"""Finding the DICOM files of a study and reading their headers. Pixels stay on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgehem.dicom.elements import NeedMoreError, looks_like_dicom
from edgehem.dicom.header import HEADER_LIMIT, Header, parse_header
from edgehem.errors import Code, Refusal, UsageError

MAX_FILES = 4000
"""Files in one study at most (input gates: 4,000 instances)."""

_FIRST_READ = 32 * 2**10
"""Bytes read of a file at first: CT headers take 2-12 KiB."""
_SECOND_READ = 2**20

_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
"""A file so named that does not start like DICOM is a damaged slice, not a stranger."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a folder holds.

    Parameters
    ----------
    headers : tuple of Header
        One for every DICOM file, damaged ones included, in the order of their paths.
    strangers : int
        Files that are not DICOM.
    """

    headers: tuple[Header, ...]
    strangers: int


def scan(path: Path) -> Scan:
    """Read the header of every DICOM file at a place.

    Hidden files (``.DS_Store``, ``._IM1.dcm``) are what operating systems leave behind: not looked at, not counted.

    Parameters
    ----------
    path : Path
        A folder, searched with all its subfolders (links to folders are not followed), or one file.

    Returns
    -------
    Scan

    Raises
    ------
    UsageError
        If there is nothing at ``path``.
    Refusal
        NO_DICOM, UNREADABLE (a file cannot be opened, or only starts like DICOM by its name), TOO_LARGE.
    """
    headers: list[Header] = []
    strangers = suspects = 0
    for number, file in enumerate(_files(path)):
        if number >= MAX_FILES:
            raise Refusal(Code.TOO_LARGE, f"There are more than {MAX_FILES} files; a head CT has far fewer.")
        try:
            header = _read_header(file)
            suspect = header is None and _should_be_dicom(file)
        except OSError:
            raise Refusal(Code.UNREADABLE, "A file could not be opened or read from its disk.") from None
        if header is not None:
            headers.append(header)
        elif suspect:
            suspects += 1
        else:
            strangers += 1
    if suspects:
        raise Refusal(
            Code.UNREADABLE,
            f"{suspects} of the files should be DICOM images but are damaged from their first bytes; "
            "send the study again.",
        )
    if not headers:
        raise Refusal(Code.NO_DICOM, "No DICOM file was found here.")
    return Scan(headers=tuple(headers), strangers=strangers)


def _files(path: Path) -> Iterator[Path]:
    """Regular files at a path, in a fixed order."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UsageError("There is no file or folder at the given path.") from error
    if stat.S_ISREG(mode):
        yield path
        return
    if not stat.S_ISDIR(mode):
        raise UsageError("The given path is neither a file nor a folder.")

    def unreadable(error: OSError) -> None:
        raise Refusal(Code.UNREADABLE, "A folder of the study could not be opened.") from None

    for folder, subfolders, names in os.walk(path, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            # A pipe or a device would block or never end.
            if not name.startswith(".") and file.is_file():
                yield file


def _read_header(file: Path) -> Header | None:
    """The header of a file, or None where the file does not start like DICOM."""
    with file.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_FIRST_READ)
        if not looks_like_dicom(head):
            return None
        header = _parse(head, size, file)
        for limit in (_SECOND_READ, HEADER_LIMIT):
            if header is None:
                head += _read(stream.fileno(), limit - len(head))
                header = _parse(head, size, file)
    # Where the bytes end for us, the header counts as cut off.
    return header or parse_header(head, len(head), file)


def _parse(head: bytes, size: int, file: Path) -> Header | None:
    """The header, or None where it needs more bytes."""
    try:
        return parse_header(head, size, file)
    except NeedMoreError:
        return None


def _read(descriptor: int, count: int) -> bytes:
    """Up to ``count`` bytes; fewer only at the end of the file."""
    parts = []
    while count > 0 and (part := os.read(descriptor, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _should_be_dicom(file: Path) -> bool:
    """Whether a file that does not start like DICOM was meant to: by its name, or cut off inside the empty preamble."""
    if file.suffix.lower() in _DICOM_SUFFIXES:
        return True
    with file.open("rb", buffering=0) as stream:
        head = stream.read(133)
    return 0 < len(head) <= 132 and not any(head[:128])
