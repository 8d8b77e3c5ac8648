"""A folder for one unpacked study: only for the user who runs edgehem, and removed, if need be by the next process.

A process that is killed, or whose machine loses power, removes nothing. So each holds a lock on its folder, which the
kernel drops when the process is gone, and looks for folders whose lock it can get before it makes its own. Process ids,
which are used again and differ between containers, are not asked for.

The lock is a file in the folder and not the folder itself: on network file systems only files are locked for all
machines. Where nothing can be locked (other systems than POSIX, some network file systems) the folder has a name that
nobody looks for.

References
----------
flock(2), section NFS details.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

PREFIX = "edgehem-study-"
"""How the names of folders begin that may be removed once nobody holds their lock."""
UNLOCKED_PREFIX = "edgehem-"
"""How they begin where nothing can be locked."""
OLD_S = 60.0
"""Seconds until a folder is looked at: one that was just made may not be locked yet."""
MAX_LEFTOVERS = 64
"""Folders looked at in one go at most; the others are left to the next study."""
MAX_ENTRIES = 100_000
"""Names in the temporary directory looked at in one go at most: less than 0.1 s."""

_SUPPORTED = os.name == "posix"
_NAME = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")
_STUDY, _LOCK = "study", "lock"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_log = logging.getLogger(__name__)

_noting = threading.RLock()
"""Held while a lock is opened or closed. A fork of this process waits for it, so that none inherits a descriptor that
is not noted: a lock is held as long as any copy of its descriptor is open."""
_noted: set[int] = set()
"""Descriptors of locks. A program that is started does not get them, and a fork closes them."""


@dataclass
class _Folder:
    """A folder that is made, or about to be, and the descriptor of its lock."""

    path: Path
    lock: int | None = None


class PrivateFolder:
    """A folder that is there until the context ends, the object is collected or the interpreter ends.

    Not in a fork of this process, to which the folder does not belong.

    Attributes
    ----------
    place : Path
        Where the study goes, mode 0700.

    Raises
    ------
    OSError
        If there is no temporary directory, or no room in it.
    """

    def __init__(self) -> None:
        folder = _Folder(path=_somewhere(PREFIX if _SUPPORTED else UNLOCKED_PREFIX))
        # Before there is anything to remove: a signal may end the process at any step from here on.
        self._end = weakref.finalize(self, _end, folder, os.getpid())
        try:
            _make(folder)
        except BaseException:
            self._end()
            raise
        self.place = folder.path / _STUDY

    def __enter__(self) -> Path:
        return self.place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


def remove_leftovers() -> None:
    """Remove the folders of processes that are gone. Raises nothing; says in the log what came of it."""
    if not _SUPPORTED:
        return
    removed = failed = 0
    try:
        for folder in islice(_old_folders(Path(tempfile.gettempdir())), MAX_LEFTOVERS):
            try:
                gone = _remove(folder, _lock(folder))
            except BlockingIOError:
                continue  # its process lives, or another one removes it
            except FileNotFoundError:
                gone = _removed_if_empty(folder)
            except OSError:
                gone = False
            removed += gone
            failed += not gone
    except OSError:
        _log.warning("The temporary directory could not be searched for studies that a killed process left unpacked.")
    if removed:
        _log.info("Removed %d folder(s) that killed processes had unpacked studies to.", removed)
    if failed:
        _log.warning("Could not remove %d folder(s) that killed processes had unpacked studies to.", failed)


def _old_folders(where: Path) -> Iterator[Path]:
    """What looks like a folder made here, by the same user, some time ago; a link never does."""
    with os.scandir(where) as entries:
        for entry in islice(entries, MAX_ENTRIES):
            if not _NAME.fullmatch(entry.name):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            private = stat.S_ISDIR(found.st_mode) and not found.st_mode & _OTHERS and found.st_uid == os.geteuid()
            if private and time.time() - found.st_mtime > OLD_S:
                yield where / entry.name


def _somewhere(prefix: str) -> Path:
    """A path in the temporary directory that nobody has, by 64 random bits."""
    return Path(tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(8)}"


def _make(folder: _Folder) -> None:
    """Make and lock it; under another name where nothing can be locked."""
    if _SUPPORTED:
        folder.path.mkdir(mode=0o700)
        try:
            (folder.path / _LOCK).touch(mode=0o600)
            folder.lock = _lock(folder.path)
        except OSError:
            # Nothing can be locked here; or a clock was set, and another process took the folder for a leftover.
            shutil.rmtree(folder.path, ignore_errors=True)
            folder.path = _somewhere(UNLOCKED_PREFIX)
    if folder.lock is None:
        folder.path.mkdir(mode=0o700)
    (folder.path / _STUDY).mkdir(mode=0o700)


def _end(folder: _Folder, owner: int) -> None:
    if os.getpid() != owner:
        return
    try:
        gone = _remove(folder.path, folder.lock)
    except OSError:
        gone = False
    except BaseException:  # told to stop, or Ctrl-C: not before it is gone
        _remove(folder.path, folder.lock)
        raise
    if not gone:
        _log.warning("The folder %s, to which a study was unpacked, could not be removed.", folder.path.name)


def _remove(folder: Path, lock: int | None) -> bool:
    """Remove a folder, the study first and its lock last. Returns whether it is gone."""
    try:
        shutil.rmtree(folder / _STUDY, ignore_errors=True)
    finally:
        if lock is not None:
            _unlock(lock)  # before its file is removed, which network file systems ask for
    if not (folder / _STUDY).exists():  # or whoever finds it next could not lock it
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _removed_if_empty(folder: Path) -> bool:
    """Remove a folder without a lock: its process was gone before there was one, or after it was removed."""
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
    return True


def _lock(folder: Path) -> int:
    """A descriptor that holds a folder's lock.

    Raises
    ------
    OSError
        BlockingIOError if another holds it; FileNotFoundError if there is no lock.
    """
    import fcntl

    file = folder / _LOCK
    with _noting:
        lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        _noted.add(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), file.lstat()):
            raise FileNotFoundError(f"{_LOCK} was replaced")
    except BaseException:
        _unlock(lock)
        raise
    return lock


def _unlock(lock: int) -> None:
    with _noting:
        if lock in _noted:
            _noted.discard(lock)
            os.close(lock)


def _let_go() -> None:
    """In a fork of this process: close what was inherited, or the locks would outlive their process."""
    for lock in _noted:
        with contextlib.suppress(OSError):
            os.close(lock)
    _noted.clear()
    _noting.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_noting.acquire, after_in_parent=_noting.release, after_in_child=_let_go)
