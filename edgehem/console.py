"""What the commands share at the console: words on stderr, and files that are written whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgehem.errors import UsageError


def say(message: str) -> None:
    """A line for people, on stderr."""
    print(f"edgehem: {message}", file=sys.stderr)


def progress(done: int, count: int) -> None:
    """A counter that stays on its line, for people only: a log needs no line for every study."""
    if sys.stderr.isatty():
        print(f"\r{done} of {count}", end="\n" if done == count else "", file=sys.stderr, flush=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write to that becomes ``path`` in one step, or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def leave(*files: tuple[Path | None, Callable[[], str]]) -> None:
    """Write what was asked for, each file in one step."""
    for path, content in files:
        if path is not None:
            with whole(path) as part:
                part.write_text(content(), encoding="utf-8")


def ask_for_file(option: str, path: Path | None) -> None:
    """Ask whether a result can be written before the minutes that it takes, not after them."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UsageError(f"{option} needs a file in a folder that exists")
