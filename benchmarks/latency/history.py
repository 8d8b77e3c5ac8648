"""One line a result, in a file that only grows: ``history.jsonl``."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from edgehem import strict_json
from edgehem.benchmarks.latency.reading import checked
from edgehem.durable import make_folder, sync_folder
from edgehem.errors import UsageError

SCHEMA: Final = "edgehem.latency-history/1"
_log = logging.getLogger(__name__)

Duration = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Of one case, in ms."""

    p50: Duration
    p95: Duration | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a result.

    Parameters
    ----------
    made : str
        When, ISO 8601.
    session, arm, edgehem, revision : str
    machine : str
        CPU, usable CPUs, governor and power mode, in words; nothing that names the machine or its owner.
    engine : str
        Engine and version, graph and arithmetic.
    cases : dict of str to Times
    """

    schema: Literal["edgehem.latency-history/1"] = SCHEMA
    made: str
    session: str
    arm: str
    edgehem: str | None
    revision: str
    machine: str
    engine: str
    cases: dict[str, Times]


def entry(result: Mapping[str, Any]) -> Entry:
    """What is kept of a result of schema ``edgehem.latency/1``.

    Raises
    ------
    UsageError
        If it is not of that schema.
    """
    found = checked(dict(result))
    where, served = found["environment"], found["served"]
    usable = (where.get("cpus") or {}).get("usable")
    machine = [where.get("cpu"), f"{usable} CPUs" if usable else None, where.get("governor"), where.get("power_mode")]
    engine = [served.get(key) for key in ("engine", "engine_version", "graph", "arithmetic")]
    return Entry(
        **{key: found[key] for key in ("made", "session", "arm", "edgehem", "revision")},
        machine=", ".join(str(word) for word in machine if word),
        engine=" ".join(str(word) for word in engine if word),
        cases={case["name"]: Times(p50=case["p50_ms"], p95=case["p95_ms"]) for case in found["cases"]},
    )


def append(path: Path, result: Mapping[str, Any]) -> None:
    """Add a result to a history, and have it on the disk.

    It is added by one write at the end of the file, so that two processes lose nothing of each other. What a lost
    power supply left unfinished stays a damaged line of its own.

    Parameters
    ----------
    path : Path
        Made, with its folder, where it is not there.
    result : dict
        Schema ``edgehem.latency/1``.

    Raises
    ------
    UsageError
        If the result is not of that schema, or the history cannot be written.
    """
    line = json.dumps(msgspec.to_builtins(entry(result)), allow_nan=False).encode() + b"\n"
    try:
        make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            size = os.fstat(handle).st_size
            if size:
                os.lseek(handle, size - 1, os.SEEK_SET)
                line = line if os.read(handle, 1) == b"\n" else b"\n" + line
            if os.write(handle, line) != len(line):
                raise OSError(None, "the disk took a part of the line only")
            os.fsync(handle)
        finally:
            os.close(handle)
        sync_folder(path.parent)
    except OSError as error:
        raise UsageError(f"the history cannot be written: {error.strerror}") from error


def read(path: Path) -> list[Entry]:
    """Every entry that can be read, the oldest first; damaged lines are logged and left out.

    Raises
    ------
    UsageError
        If there is no such file.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"the history cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(strict_json.decode(line, Entry))
        except ValueError as error:
            _log.warning("line %d of the history is left out: %s", number, error)
    # Appended in the order in which runs ended; a file that was put together from two need not be.
    with contextlib.suppress(ValueError):
        found.sort(key=lambda each: _moment(each.made))
    return found


def _moment(made: str) -> float:
    moment = datetime.datetime.fromisoformat(made.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()
