"""The folder in which edgehem keeps what it learned about this device: private to the user, written in whole files.

What lies there decides which engine runs, and may be code an engine executes. So nothing is believed that another user
could have written, and a reader finds all of a file or none of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from edgehem.durable import make_folder, read_once, write_whole

VARIABLE = "EDGEHEM_STATE"
SEAL = b"edgehem-sealed/1"
PRIVATE = os.name == "posix"
"""Whether owners and modes say who could have written a file. Elsewhere they are not asked."""


def state_folder() -> Path:
    """``$EDGEHEM_STATE``, else ``$XDG_STATE_HOME/edgehem``, else ``~/.local/state/edgehem``. It need not exist.

    Raises
    ------
    OSError
        If there is no home.

    References
    ----------
    XDG Base Directory Specification 0.8: relative paths in its variables are ignored.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    base = os.environ.get("XDG_STATE_HOME", "")
    if Path(base).is_absolute():
        return Path(base) / "edgehem"
    try:
        return Path.home() / ".local" / "state" / "edgehem"
    except RuntimeError as error:
        raise OSError(f"no folder for it: set {VARIABLE}") from error


def make_private(folder: Path) -> None:
    """Make a folder with mode 0700, or make sure that the one there is like that.

    Raises
    ------
    OSError
        If it cannot be made; PermissionError if it is another user's, open to others, or a link.
    """
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    check_private(folder)


def check_private(folder: Path) -> None:
    """Raise PermissionError unless a folder is this user's and closed to all others; OSError if it is not there."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder.name} is not a folder")
    if PRIVATE and (found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)):
        raise PermissionError(f"the folder {folder.name} is another user's, or open to others (mode 0700 is expected)")


def read_private(path: Path, *, most: int) -> bytes:
    """Read a file that only this user can have written.

    Parameters
    ----------
    path : Path
    most : int
        Bytes it may have.

    Raises
    ------
    OSError
        If it cannot be read or is too large; PermissionError if another user could have written it.
    """
    check_private(path.parent)
    content, found = read_once(path, most)
    if PRIVATE and found.st_uid != os.geteuid():
        raise PermissionError(f"{path.name} is another user's")
    return content


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step, and have it on the disk before this returns. Of two writers at once, one wins.

    Raises
    ------
    OSError
        The old file, if there was one, is still there. PermissionError if its folder is open to others.
    """
    make_private(path.parent)
    write_whole(path, content)


def read_sealed(path: Path, *, most: int) -> bytes:
    """Read a file that :func:`write_sealed` wrote.

    Raises
    ------
    OSError
        As :func:`read_private`; also if it is not what was written: its first line holds the SHA-256 of the rest.
    """
    head, _, content = read_private(path, most=most).partition(b"\n")
    if head != _seal(content):
        raise OSError(f"{path.name} is damaged")
    return content


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file that tells when it is damaged; see :func:`write_private`."""
    write_private(path, _seal(content) + b"\n" + content)


def _seal(content: bytes) -> bytes:
    return b"%b %b" % (SEAL, hashlib.sha256(content).hexdigest().encode())


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Remove the oldest files of a pattern, so that a folder does not grow for ever. Says nothing where it cannot."""
    with contextlib.suppress(OSError):
        aged = sorted(folder.glob(pattern), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
        for path in aged[count:]:
            path.unlink(missing_ok=True)
