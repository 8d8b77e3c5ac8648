"""Results from files: edgehem's own, and those of ``pytest --benchmark-json``. Nothing in them is taken on trust."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from edgehem import strict_json
from edgehem.errors import UsageError

SCHEMA = "edgehem.latency/1"
MOST_BYTES = 256 << 20
PERCENTILES = (50, 90, 95, 99)
NO_SAMPLES = "the file holds a summary only; pytest needs --benchmark-save-data"

Duration = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
"""Milliseconds. Nothing takes none: a 0 is a clock that did not tick."""


class _Case(msgspec.Struct, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    group: str
    what: str
    samples_ms: list[Duration]
    p50_ms: Duration
    p90_ms: Duration | None
    p95_ms: Duration | None
    p99_ms: Duration | None
    peak_bytes: Annotated[int, msgspec.Meta(ge=0)] | None
    bytes_moved: Annotated[int, msgspec.Meta(ge=0)] | None
    details: dict[str, Any]


class _Load(msgspec.Struct, kw_only=True):
    stolen: float | None


class _Result(msgspec.Struct, kw_only=True):
    schema: Literal["edgehem.latency/1"]
    made: str
    session: str
    arm: str
    edgehem: str | None
    revision: str
    environment: dict[str, Any]
    load: _Load
    served: dict[str, Any]
    settings: dict[str, Any]
    cases: list[_Case]
    passed_over: dict[str, str] = {}
    unmeasured: list[str] = []


class _Stats(msgspec.Struct, kw_only=True):
    """Seconds, as pytest-benchmark has them."""

    median: Annotated[float, msgspec.Meta(gt=0)]
    data: list[Annotated[float, msgspec.Meta(gt=0)]] = []


class _Benchmark(msgspec.Struct, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    stats: _Stats
    fullname: str = ""
    group: str | None = None


class _Cpu(msgspec.Struct, kw_only=True):
    brand_raw: str | None = None
    count: int | None = None


class _Machine(msgspec.Struct, kw_only=True):
    cpu: _Cpu = msgspec.field(default_factory=_Cpu)
    machine: str | None = None
    system: str | None = None
    release: str | None = None
    python_version: str | None = None


class _Commit(msgspec.Struct, kw_only=True):
    id: str | None = None
    dirty: bool | None = None


class _Pytest(msgspec.Struct, kw_only=True):
    benchmarks: list[_Benchmark]
    machine_info: _Machine = msgspec.field(default_factory=_Machine)
    commit_info: _Commit = msgspec.field(default_factory=_Commit)
    datetime: str = ""


def read(path: Path) -> dict[str, Any]:
    """A result from a file.

    Parameters
    ----------
    path : Path
        JSON of schema ``edgehem.latency/1``, or of ``pytest --benchmark-json``.

    Returns
    -------
    dict
        Schema ``edgehem.latency/1``.

    Raises
    ------
    UsageError
        If it cannot be read, or is neither. The file is named: it is the caller's own, and no study.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path.name} is larger than {MOST_BYTES >> 20} MiB; no result is")
        content = strict_json.decode(path.read_bytes(), dict[str, Any])
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path.name} is no result: {error}") from error
    try:
        return from_pytest(content) if "benchmarks" in content and "schema" not in content else checked(content)
    except UsageError as error:
        raise UsageError(f"{path.name}: {error}") from error


def checked(result: dict[str, Any]) -> dict[str, Any]:
    """The same result, looked through.

    Raises
    ------
    UsageError
        If it is not of schema ``edgehem.latency/1``, holds a time that is none, or a case twice.
    """
    try:
        found = msgspec.convert(result, _Result)
    except msgspec.ValidationError as error:
        raise UsageError(f"it is no result of schema {SCHEMA}: {error}") from error
    if twice := [name for name, count in Counter(case.name for case in found.cases).items() if count > 1]:
        raise UsageError(f"it holds the case {twice[0]!r} twice")
    return result


def from_pytest(content: dict[str, Any]) -> dict[str, Any]:
    """What ``pytest --benchmark-json`` wrote, as a result.

    Parameters
    ----------
    content : dict
        Its file.

    Returns
    -------
    dict
        Schema ``edgehem.latency/1``, of no session: rounds of pytest-benchmark follow each other in one process, and
        lie beside nobody else's. A case without its single times has no samples, and its comparison is AMBIGUOUS.

    Raises
    ------
    UsageError
        If it is not such a file.
    """
    try:
        found = msgspec.convert(content, _Pytest)
    except msgspec.ValidationError as error:
        raise UsageError(f"it is no file of pytest-benchmark: {error}") from error
    named = Counter(entry.name for entry in found.benchmarks)
    machine, commit = found.machine_info, found.commit_info
    return checked({
        "schema": SCHEMA,
        "made": found.datetime,
        "session": "",
        "arm": "",
        "edgehem": None,
        "revision": f"{(commit.id or '')[:12]}{'+' if commit.dirty else ''}",
        "environment": {
            "cpu": machine.cpu.brand_raw,
            "cpus": {"usable": None, "present": machine.cpu.count},
            "machine": machine.machine,
            "platform": " ".join(filter(None, (machine.system, machine.release))) or None,
            "python": machine.python_version,
        },
        "load": {"before": None, "after": None, "stolen": None},
        "served": {},
        "settings": {"runner": "pytest-benchmark"},
        # Two modules may have a test of one name.
        "cases": [_case(entry, entry.name if named[entry.name] == 1 else entry.fullname) for entry in found.benchmarks],
    })  # fmt: skip


def _case(entry: _Benchmark, name: str) -> dict[str, Any]:
    samples = [1000 * seconds for seconds in entry.stats.data]
    figures = [float(value) for value in np.percentile(samples, PERCENTILES)] if samples else [
        1000 * entry.stats.median, None, None, None
    ]  # fmt: skip
    return {
        "name": name,
        "group": entry.group or "pytest",
        "what": entry.fullname or name,
        "samples_ms": samples,
        **{f"p{number}_ms": figure for number, figure in zip(PERCENTILES, figures, strict=True)},
        "peak_bytes": None,
        "bytes_moved": None,
        "details": {} if samples else {"why_no_samples": NO_SAMPLES},
    }
