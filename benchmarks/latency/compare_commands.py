"""What ``edgehem bench compare`` and ``edgehem bench trend`` do, behind the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgehem.benchmarks.latency import history, page, reading, report_compare, thresholds, trend, verdict
from edgehem.durable import write_whole
from edgehem.errors import UsageError


def compare_files(base: Path, new: Path, **how: Any) -> int:
    """Compare two files of results: of schema ``edgehem.latency/1``, or of ``pytest --benchmark-json``.

    See :func:`compare`, also for what else is told; UsageError too if a file cannot be read.
    """
    return compare(reading.read(base), reading.read(new), **how)


def compare(
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    allow_different: bool = False,
    strict: bool = False,
    json_file: Path | None = None,
    html: Path | None = None,
    limits: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> int:
    """Compare two results.

    Parameters
    ----------
    before, after : dict
        Of schema ``edgehem.latency/1``.
    allow_different : bool
        Compare results of different machines, engines or settings all the same.
    strict : bool
        AMBIGUOUS cases, and grown peaks of memory, do not pass.
    json_file, html : Path, optional
        Where to write the comparison.
    limits : Path, optional
        A file of thresholds; by default the project's own.
    tell : callable
        Gets the comparison as text.

    Returns
    -------
    int
        0 nothing is slower; 4 a case is SLOWER or missing; 5 none is, but `strict` wants to know more.

    Raises
    ------
    UsageError
        If a file cannot be written, or the results are not comparable.
    """
    rules = thresholds.load(limits)
    told = verdict.compare(before, after, rules, allow_different=allow_different)
    # Said before it is written: a full disk must not swallow a verdict.
    tell(report_compare.render(told))
    if json_file is not None:
        _write("--json", json_file, json.dumps(told, allow_nan=False) + "\n")
    if html is not None:
        _write("--html", html, page.comparison(told, before, after))
    return verdict.exit_code(told, strict=strict)


def remember(result: dict[str, Any], path: Path) -> None:
    """Add a result to a history; see :func:`edgehem.benchmarks.latency.history.append`."""
    history.append(path, result)


def trend_file(path: Path, out: Path) -> int:
    """Draw a history.

    Parameters
    ----------
    path : Path
        ``history.jsonl``.
    out : Path
        SVG.

    Returns
    -------
    int
        The number of runs in it.

    Raises
    ------
    UsageError
        If the history cannot be read, holds nothing, or the picture cannot be written.
    """
    entries = history.read(path)
    _write("--out", out, trend.draw(entries))
    return len(entries)


def _write(option: str, path: Path, text: str) -> None:
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"{option} cannot be written: {error.strerror}") from error
