"""What ``edgehem cohort`` and ``edgehem exam`` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgehem.export.cohorts import exam_report
from edgehem.export.cohorts.core import Variant
from edgehem.export.cohorts.exam import QUICK, Size, examine
from edgehem.export.cohorts.exam_parts import examine_parts
from edgehem.export.cohorts.registry import COHORTS
from edgehem.export.cohorts.registry import cohort as named
from edgehem.export.cohorts.tables import write_cohort

Progress = Callable[[int, int], None]


def listing() -> str:
    """Every cohort: name, version, sizes, labels, what it is."""
    lines = []
    for name in COHORTS:
        kind = named(name)
        labels = ", ".join(label.name for label in kind.labels)
        lines.append(f"{name} {kind.version} ({kind.train} + {kind.test} patients): {kind.what}\n  {labels}")
    return "\n".join(lines)


def cohort(
    name: str,
    out: Path,
    *,
    patients: int | None = None,
    seed: int = 0,
    variant: str = "planted",
    files: bool = False,
    cases: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write a cohort; see ``edgehem cohort --help``. Gives the table."""
    return write_cohort(
        named(name), out, patients, seed=seed, variant=Variant(variant), files=files, cases=cases, workers=workers,
        progress=progress,
    )  # fmt: skip


def exam(
    names: Sequence[str] = (), *, quick: bool = False, seed: int = 0, workers: int = 1, progress: Progress | None = None
) -> exam_report.Report:
    """Examine cohorts, all of them by default; see ``edgehem exam --help``."""
    size = QUICK if quick else Size()
    kinds = [named(name) for name in names or COHORTS]
    rows = examine(kinds, size=size, seed=seed, workers=workers, progress=progress)
    parts = examine_parts(kinds, large=size.large, nearer=size.nearer, seed=seed, workers=workers)
    return exam_report.report(rows, parts, seed=seed, size=size)
