"""Files that are written whole or not at all, and read once: what is checked afterwards is what was read.

A process may be killed, and a machine may lose power, between any two steps of a write. A file gets its name only after
its bytes are on the disk, and the name is on the disk before the next file is begun.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

_POSIX = os.name == "posix"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def read_once(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """All bytes of a plain file, and what the system says about the very file they came from.

    Parameters
    ----------
    path : Path
        Not a link, a folder, a pipe or a device.
    limit : int
        Bytes the file may have; no more is read.

    Raises
    ------
    OSError
        If there is no such file, it is no plain file, it is too large, or it changed while it was read.
    """
    # Asked before it is opened as well: opening a device may do something.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is a link, a folder or a device; a plain file is expected")
    with os.fdopen(os.open(path, _READ), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes; at most {limit} are expected")
        data = stream.read(found.st_size + 1)
    if len(data) != found.st_size:
        raise OSError(errno.EBUSY, "it changed while it was read")
    return data, found


def write_new(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file that must not be there yet, and have it on the disk.

    Parameters
    ----------
    path : Path
    data : bytes
    mode : int
        Permissions, less the process' mask.

    Raises
    ------
    OSError
        FileExistsError if there is something of that name, a dangling link included. Where writing fails, nothing of
        that name stays.
    """
    handle = os.open(path, _NEW, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or replace one, in one step: whoever reads it gets the old bytes or the new ones.

    A process that is killed leaves at most ``.NAME.….part`` behind, which nobody reads and which may be deleted.

    Raises
    ------
    OSError
        The old file, if there was one, is still there.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    write_new(part, data)
    try:
        os.replace(part, path)  # noqa: PTH105 - atomic by contract
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there, and have that on the disk.

    Raises
    ------
    OSError
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each of them on the disk.

    Raises
    ------
    OSError
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. Systems other than POSIX cannot be asked.

    Raises
    ------
    OSError
    """
    if _POSIX:
        sync(folder)


def sync(path: Path) -> None:
    """Have a file that somebody else wrote on the disk.

    Raises
    ------
    OSError
    """
    handle = os.open(path, os.O_RDONLY if _POSIX else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
