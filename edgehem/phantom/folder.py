"""The folder of a study: made whole or not at all, and never over what somebody else put there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgehem.errors import UsageError

TRUTH = "truth.json"
UNFINISHED = "unfinished.phantom"
"""Folder that a study is written into, before what it holds is moved to its place."""


def check_room(out: Path, replaceable: tuple[str, ...]) -> None:
    """Refuse a place that holds what somebody else put there.

    Raises
    ------
    UsageError
        If `out` is a file, or a folder that holds anything but a study of `replaceable` files, or what an earlier run
        left behind when it was stopped.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; a folder is needed")
    held = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if held and not (held <= set(replaceable) and held & {TRUTH, UNFINISHED}):
        raise UsageError(f"{out} is not empty and not a phantom study; it is left as it is")


@contextmanager
def finished(out: Path, replaceable: tuple[str, ...]) -> Iterator[Path]:
    """A folder to write a study into, which comes to `out` when all of it is there.

    Whoever is stopped half way leaves a folder :data:`UNFINISHED`, and no study that looks whole: the truth of an
    earlier one goes first, that of the new one comes last.

    Raises
    ------
    UsageError
        See :func:`check_room`; or if `out` cannot be made.
    """
    check_room(out, replaceable)
    folder = out / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written to: {error.strerror}") from error
    for path in sorted(out.iterdir(), key=lambda path: path.name != TRUTH):
        if path != folder:
            _remove(path)
    for path in folder.iterdir():
        _remove(path)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for path in sorted(folder.iterdir(), key=lambda path: path.name == TRUTH):
        path.rename(out / path.name)
    folder.rmdir()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
