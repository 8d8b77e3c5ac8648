"""Finding the DICOM files of a study and reading their headers. Pixels stay on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgehem.dicom.directory import Listed, find_files, is_directory, listed_images, missing_images
from edgehem.dicom.elements import PREAMBLE, DamagedError, NeedMoreError, looks_like_dicom
from edgehem.dicom.foreign import Foreign, kind_of_bytes
from edgehem.dicom.header import HEADER_LIMIT, Header, parse_elements
from edgehem.dicom.multiframe import split_frames
from edgehem.errors import Code, Refusal, UsageError

MAX_FILES = 4000
"""Files, and images in them, in one study at most (input gates: 4,000 instances)."""

MAX_ELEMENTS_OF_STUDY = 1_500_000
"""Header elements of all files together: 4,000 slices with 375 each. One file may hold 50,000; many such would keep a
reader busy for minutes."""

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
        One for every image, damaged ones included, in the order of their paths; several for a multi-frame CT.
    strangers : int
        Files that are not DICOM, and nothing else that belongs to the work with CT.
    suspects : int
        Files that should be DICOM but do not start like it.
    nifti : tuple of Path
        NIfTI images: masks or conversions that lie beside the scan.
    missing : dict of str to int
        Images that a DICOMDIR lists and that are not here, by Series Instance UID.
    """

    headers: tuple[Header, ...]
    strangers: int
    suspects: int = 0
    nifti: tuple[Path, ...] = field(default=(), repr=False)
    missing: dict[str, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What one file is: images, a directory of images, something foreign, or nothing known."""

    headers: tuple[Header, ...] = ()
    directory: bool = False
    listed: tuple[Listed, ...] | None = None
    foreign: Foreign | None = None
    suspect: bool = False
    elements: int = 0


def scan(path: Path) -> Scan:
    """Read the header of every DICOM file at a place.

    Hidden files (``.DS_Store``, ``._IM1.dcm``) are what operating systems leave behind: not looked at, not counted.

    Parameters
    ----------
    path : Path
        A folder, searched with all its subfolders (links to folders are not followed); a DICOMDIR, for the files that
        it lists and the DICOM files beside them; or one file.

    Returns
    -------
    Scan

    Raises
    ------
    UsageError
        If there is nothing at ``path``.
    Refusal
        NO_DICOM, UNREADABLE (a file cannot be opened, or is DICOM by its name only; a DICOMDIR leads nowhere),
        TOO_LARGE.
    """
    found = gather(path)
    if found.suspects:
        raise Refusal(
            Code.UNREADABLE,
            f"{found.suspects} of the files should be DICOM images but are damaged from their first bytes; "
            "send the study again.",
        )
    if found.headers:
        return found
    if found.missing:
        raise Refusal(Code.UNREADABLE, "None of the images that the DICOMDIR lists is here; give the whole medium.")
    if found.nifti:
        raise Refusal(
            Code.NO_DICOM,
            "This is a NIfTI image, which does not keep what a scanner writes into DICOM; give the DICOM files.",
        )
    raise Refusal(Code.NO_DICOM, "No DICOM file was found here.")


def gather(path: Path) -> Scan:
    """:func:`scan` without a judgement on what was found; it refuses only what cannot be read, or is too much."""
    headers: list[Header] = []
    listed: list[Listed] = []
    nifti: list[Path] = []
    strangers = suspects = elements = 0
    for number, (file, seen) in enumerate(_look_at_all(path)):
        headers += seen.headers
        listed += seen.listed or ()
        if max(number + 1, len(headers)) > MAX_FILES:
            raise Refusal(Code.TOO_LARGE, f"There are more than {MAX_FILES} files or images; a head CT has far fewer.")
        elements += seen.elements
        if elements > MAX_ELEMENTS_OF_STUDY:
            raise Refusal(Code.TOO_LARGE, "The files' headers are longer than those of any head CT.")
        if seen.headers or seen.directory:
            continue
        if seen.foreign is Foreign.NIFTI:
            nifti.append(file)
        elif seen.suspect:
            suspects += 1
        else:
            strangers += 1
    return Scan(
        headers=tuple(headers),
        strangers=strangers,
        suspects=suspects,
        nifti=tuple(nifti),
        missing=missing_images(listed, headers) if listed else {},
    )


def _look_at_all(path: Path) -> Iterator[tuple[Path, _Seen]]:
    files = _files(path)
    if path.is_file():
        seen = _look(path)
        yield path, seen
        if not seen.directory:
            return
        if not seen.listed:
            raise Refusal(
                Code.UNREADABLE, "The DICOMDIR is damaged or lists no images; give the folder with the images."
            )
        files = iter(find_files(path.parent, seen.listed))
    for file in files:
        yield file, _look(file)


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


def _look(file: Path) -> _Seen:
    """What a file is, from its first bytes; the whole header where it is DICOM."""
    try:
        with file.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(_FIRST_READ)
            if not looks_like_dicom(head):
                foreign = kind_of_bytes(head)
                return _Seen(foreign=foreign, suspect=foreign is None and _should_be_dicom(file, head))
            for limit in (_FIRST_READ, _SECOND_READ, HEADER_LIMIT):
                head += _read(stream.fileno(), limit - len(head))
                with suppress(NeedMoreError):
                    return _images(head, size, file, stream.fileno())
            # Where the bytes end for us, the header counts as cut off.
            return _images(head, len(head), file, stream.fileno())
    except OSError:
        raise Refusal(Code.UNREADABLE, "A file could not be opened or read from its disk.") from None


def _images(head: bytes, size: int, file: Path, descriptor: int) -> _Seen:
    """The images of a DICOM file. Raises NeedMoreError where its header goes on after ``head``."""
    header, found = parse_elements(head, size, file)
    if is_directory(header):
        try:
            return _Seen(directory=True, listed=listed_images(found, head), elements=found.count)
        except DamagedError:
            return _Seen(directory=True, elements=found.count)
    return _Seen(headers=split_frames(header, found, head, descriptor), elements=found.count)


def _read(descriptor: int, count: int) -> bytes:
    """Up to ``count`` bytes; fewer only at the end of the file."""
    parts = []
    while count > 0 and (part := os.read(descriptor, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _should_be_dicom(file: Path, head: bytes) -> bool:
    """Whether a file that does not start like DICOM was meant to: by its name, or cut off inside the empty preamble."""
    return file.suffix.lower() in _DICOM_SUFFIXES or (0 < len(head) <= PREAMBLE + 4 and not any(head[:PREAMBLE]))
