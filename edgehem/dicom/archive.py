"""A study that comes as one zip file: unpacked within limits into a private folder, which is always removed.

Nothing a zip says of itself is trusted. Names are used for order and suffix only, so that none can point anywhere;
declared sizes are looked at first, to refuse a bomb before a byte is inflated, and what is inflated is counted. A
member that does not start like DICOM is inflated no further than its first bytes.

Members go to a folder and not to memory: slices are then read into their place like those of any other folder, and
the memory of intake stays that of the volume. ``TMPDIR`` says where the folder is made; what becomes of it when the
process is killed is in :mod:`edgehem.dicom.private_folder`.

References
----------
PKWARE APPNOTE 6.3.10; DICOM PS3.10 section 7.1; Fifield, A better zip bomb (WOOT 2019), on overlapping members.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from edgehem.dicom.elements import MAGIC, PREAMBLE, looks_like_dicom
from edgehem.dicom.private_folder import PrivateFolder, remove_leftovers
from edgehem.errors import Code, Refusal

MAX_MEMBERS = 4000
"""Files in one archive at most (input gates: 4,000 instances)."""
MAX_TOTAL = 2 * 2**30
"""Bytes of all files unpacked at most (input gates: 2 GiB)."""
MAX_MEMBER = 2**30
"""Bytes of one file unpacked at most: an Enhanced CT of 2,000 slices of 512 × 512."""
MAX_RATIO = 100
"""Unpacked to packed size at most: CT slices deflate to a half or a third, and empty ones to a hundredth."""
RATIO_FROM = 64 * 2**20
"""Archives that unpack to less than this may have any ratio: phantoms without noise do."""
MAX_DIRECTORY = MAX_MEMBERS * 2**10
"""Bytes of the archive's central directory at most: zipfile reads it whole, and makes an object of every entry."""

_HEAD = 4096
"""First bytes of a member, which tell what it is; a stranger is inflated no further."""
_BLOCK = 2**20
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Packing methods of DICOM archives (PS3.10 asks for deflate). LZMA can ask for gigabytes of memory."""
_ENCRYPTED = 0x1
_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
_KEPT_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Where a study can be read: the path itself, or, of a zip file, a folder with what is in it.

    Parameters
    ----------
    path : Path
        Anything. A zip file is told by its first bytes, not by its name.

    Yields
    ------
    Path
        The folder of an archive is removed when the context ends, however it ends.

    Raises
    ------
    Refusal
        TOO_LARGE; UNREADABLE if the archive is damaged, encrypted, or packed by another method than deflate.
    """
    if not _is_zip(path):
        yield path
        return
    remove_leftovers()
    try:
        private = PrivateFolder()
    except OSError:
        raise _no_room() from None
    with private as folder:
        try:
            with _CappedFile(path) as raw, zipfile.ZipFile(raw) as archive:
                _unpack(archive, folder)
        except (Refusal, MemoryError):
            raise
        except OSError:
            raise _no_room() from None
        except Exception:
            # zipfile answers hostile bytes with half a dozen exceptions, and their texts quote names of members.
            raise Refusal(Code.UNREADABLE, "The zip archive is damaged or cut off; send it again.") from None
        yield folder


def _is_zip(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(PREAMBLE + 4)
    except (OSError, ValueError):
        return False  # whoever looks for DICOM here says what is wrong
    # A preamble may hold anything, even the start of a zip: the file is then DICOM all the same.
    return head.startswith(_SIGNATURES) and head[PREAMBLE:] != MAGIC


class _CappedFile(io.FileIO):
    """A file whose central directory cannot make zipfile read more than :data:`MAX_DIRECTORY` at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            here = self.tell()
            size = self.seek(0, io.SEEK_END) - here
            self.seek(here)
        if size > MAX_DIRECTORY:
            raise Refusal(Code.TOO_LARGE, f"The zip archive lists far more than {MAX_MEMBERS} files.")
        return super().read(size) or b""


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write every member that may matter to a name of our own, in the order of their names."""
    members = sorted((m for m in archive.infolist() if _is_file(m)), key=lambda m: (m.filename, m.header_offset))
    _refuse_members(members)
    left = MAX_TOTAL
    for number, member in enumerate(members):
        suffix = PurePosixPath(member.filename).suffix.lower()
        target = folder / f"{number:05d}{suffix if suffix in _KEPT_SUFFIXES else ''}"
        with archive.open(member) as packed, target.open("xb") as out:
            left -= _copy(packed, out, min(left, MAX_MEMBER))


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a file to look at: no folder, no link, nothing that an operating system hides."""
    if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
        return False
    parts = PurePosixPath(member.filename).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return not hidden and "__MACOSX" not in parts


def _refuse_members(members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive by what it declares, before anything of it is inflated."""
    if len(members) > MAX_MEMBERS:
        raise Refusal(Code.TOO_LARGE, f"The zip archive holds more than {MAX_MEMBERS} files; a head CT has far fewer.")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL or any(member.file_size > MAX_MEMBER for member in members):
        raise _too_large()
    if total > RATIO_FROM and total > MAX_RATIO * sum(member.compress_size for member in members):
        raise Refusal(
            Code.TOO_LARGE, "The zip archive would grow more than a hundredfold; no CT does, and it was not unpacked."
        )
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise Refusal(Code.UNREADABLE, "The zip archive is protected by a password; send it without one.")
    if any(member.compress_type not in _METHODS for member in members):
        raise Refusal(Code.UNREADABLE, "The zip archive is packed by an unusual method; pack it as plain zip.")


def _copy(packed: IO[bytes], out: IO[bytes], limit: int) -> int:
    """Inflate one member; no more than its first bytes where it is not DICOM. Returns the bytes written.

    Raises
    ------
    Refusal
        TOO_LARGE once more than ``limit`` bytes come out, whatever size was declared.
    """
    block = packed.read(_HEAD)
    goes_on = looks_like_dicom(block)
    count = 0
    while block:
        count += len(block)
        if count > limit:
            raise _too_large()
        out.write(block)
        block = packed.read(_BLOCK) if goes_on else b""
    return count


def _too_large() -> Refusal:
    return Refusal(Code.TOO_LARGE, "The zip archive holds more than 2 GiB, or one file of more than 1 GiB.")


def _no_room() -> Refusal:
    return Refusal(
        Code.UNREADABLE, "The zip archive could not be unpacked: it is damaged, or the disk failed or is full."
    )
