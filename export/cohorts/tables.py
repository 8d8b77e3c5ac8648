"""Cohorts on disk: the training table, the hidden truth beside it, and what both are made of.

The text of a cohort is the same on every machine and for every number of workers: values were rounded when they were
drawn, rows are in the order of drawing, lines end in a line feed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import BLOCK, UNKNOWN, Cohort, Column, Patients, Values, Variant
from edgehem.workers import ordered

TABLE, TRUTH, RECORD, CASE = "table.csv", "truth.csv", "cohort.json", "case.json"
FOLDER = "patients"
"""Holds a folder for each patient, where files are written."""
SCHEMA = "edgehem.cohort/1"
MOST = 10_000_000
"""Patients of a cohort: an id has seven digits."""
WITH_FILES = 8
"""Patients of one job where files are written; else a job is a block."""
TRUTH_DIGITS = 6
"""Significant digits of hidden numbers: more would show which machine wrote them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some patients of a cohort, for a worker."""

    cohort: Cohort
    out: Path
    first: int
    count: int
    trained_on: int
    seed: int
    variant: Variant
    files: bool
    cases: bool


def write_cohort(
    cohort: Cohort,
    out: Path,
    count: int | None = None,
    *,
    seed: int = 0,
    variant: Variant = Variant.PLANTED,
    files: bool = False,
    cases: bool = False,
    test_share: float | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort: ``table.csv``, ``truth.csv``, ``cohort.json`` and, if asked for, files and cases.

    The folder appears when it is complete. ``truth.csv`` holds what nobody may train on: the chances that outcomes were
    tossed with, outcomes of those lost to follow-up, and hidden causes.

    Parameters
    ----------
    cohort : Cohort
    out : Path
        Must not exist, or be empty.
    count : int, optional
        Patients; by default those of the cohort's own training and test set.
    seed : int
    variant : Variant
    files : bool
        Write images, waveforms and texts, too: slow.
    cases : bool
        Write a ``case.json`` for each patient.
    test_share : float, optional
        Share of patients in the test split, the last ones; by default the cohort's own.
    workers : int
        Processes. The result does not depend on them.
    progress : callable, optional
        Called with (done, count).

    Returns
    -------
    Path
        The table: patient_id, split, paths (with `files`), labels, inputs.

    Raises
    ------
    UsageError
        If `out` is taken, or a number is impossible.
    """
    total = cohort.train + cohort.test if count is None else count
    share = cohort.test / (cohort.train + cohort.test) if test_share is None else test_share
    if not 1 <= total <= MOST or workers < 1 or seed < 0 or not 0 <= share < 1:
        raise UsageError(
            f"a cohort needs 1 to {MOST:,} patients, a worker, a seed of 0 or more, and a test share in [0, 1)"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already and not an empty folder; it is left as it is")
    step = WITH_FILES if files else BLOCK
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    trained_on = total - round(total * share)
    jobs = [
        Job(
            cohort=cohort, out=part, first=first, count=min(step, total - first), trained_on=trained_on, seed=seed,
            variant=variant, files=files, cases=cases,
        )
        for first in range(0, total, step)
    ]  # fmt: skip
    try:
        _make(part, out)
        sums = Sums(cohort)
        with (part / TABLE).open("wb") as table, (part / TRUTH).open("wb") as truth:
            for rows, hidden, counts in ordered(write_rows, jobs, workers) if workers > 1 else map(write_rows, jobs):
                table.write(rows)
                truth.write(hidden)
                sums.add(rows, hidden, counts)
                if progress:
                    progress(sums.patients, total)
        record = describe(cohort, jobs[0], total, sums)
        (part / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out / TABLE


def _make(part: Path, out: Path) -> None:
    """Make the folder that is to become `out`."""
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be made: {error.strerror}") from error


def write_rows(job: Job) -> tuple[bytes, bytes, dict[str, Any]]:
    """Draw a job's patients, write their files, and give their lines of both tables, and counts."""
    cohort = job.cohort
    patients = cohort.draw(job.count, seed=job.seed, variant=job.variant, first=job.first)
    names = [patient_id(job.first + row) for row in range(job.count)]
    paths: list[dict[str, str]] = []
    for row, name in enumerate(names):
        folder = job.out / FOLDER / name
        if job.files or job.cases:
            folder.mkdir(parents=True)
        written = cohort.write_files(patients, row, folder, int(patients.seeds[row])) if job.files else {}
        paths.append({kind: f"{FOLDER}/{name}/{file}" for kind, file in written.items()})
        if job.cases:
            case = as_case(cohort, patients, row, written, folder)
            (folder / CASE).write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    head = {
        "patient_id": names,
        "split": ["train" if job.first + row < job.trained_on else "test" for row in range(job.count)],
    }
    if job.files:
        head |= {kind: [files.get(kind, "") for files in paths] for kind in cohort.paths}
    first = job.first == 0
    rows = csv_bytes({**head, **table_text(cohort, patients)}, header=first)
    hidden = csv_bytes({"patient_id": names, **truth_text(patients)}, header=first)
    counts = {
        "patients": job.count,
        "missing": {column.name: int(unknown(patients.inputs[column.name]).sum()) for column in cohort.columns},
        "labels": {
            label.name: np.bincount(patients.labels[label.name] + 1, minlength=label.classes + 1).tolist()
            for label in cohort.labels
        },
    }
    return rows, hidden, counts


class Sums:
    """Counts and digests of a cohort, added up job by job."""

    def __init__(self, cohort: Cohort) -> None:
        self.patients = 0
        self.digests = {TABLE: hashlib.sha256(), TRUTH: hashlib.sha256()}
        self.missing = dict.fromkeys((column.name for column in cohort.columns), 0)
        self.labels = {label.name: [0] * (label.classes + 1) for label in cohort.labels}

    def add(self, rows: bytes, hidden: bytes, counts: dict[str, Any]) -> None:
        """Add those of one job."""
        self.patients += counts["patients"]
        self.digests[TABLE].update(rows)
        self.digests[TRUTH].update(hidden)
        for name, number in counts["missing"].items():
            self.missing[name] += number
        for name, numbers in counts["labels"].items():
            self.labels[name] = [a + b for a, b in zip(self.labels[name], numbers, strict=True)]


def describe(cohort: Cohort, job: Job, total: int, sums: Sums) -> dict[str, Any]:
    """What ``cohort.json`` holds."""
    return {
        "schema": SCHEMA,
        "synthetic": True,
        "name": cohort.name,
        "version": cohort.version,
        "what": cohort.what,
        "variant": job.variant.value,
        "seed": job.seed,
        "patients": total,
        "split": {"train": job.trained_on, "test": total - job.trained_on},
        "paths": list(cohort.paths) if job.files else [],
        "columns": [{**_about(column), "missing": sums.missing[column.name]} for column in cohort.columns],
        "labels": [
            {
                "name": label.name,
                "what": label.what,
                "ordered": label.ordered,
                "patients": sums.labels[label.name][1:],
                "unknown": sums.labels[label.name][0],
            }
            for label in cohort.labels
        ],
        "sha256": {name: digest.hexdigest() for name, digest in sums.digests.items()},
    }


def _about(column: Column) -> dict[str, Any]:
    about: dict[str, Any] = {"name": column.name, "kind": column.kind, "source": column.source, "what": column.what}
    if column.report_only:
        about["report_only"] = True
    if column.kind == "category":
        about["values"] = list(column.values)
    elif column.kind != "binary":
        about |= {"unit": column.unit, "digits": column.digits if column.kind == "real" else 0}
        about["range"] = [bound if np.isfinite(bound) else None for bound in (column.low, column.high)]
    return about


def patient_id(number: int) -> str:
    """The id of a patient by number: it says nothing but the order of drawing."""
    return f"p{number:07d}"


def unknown(values: Values) -> Values:
    """Where an input was not measured: bool [N]."""
    return values == "" if values.dtype.kind in "US" else np.isnan(values)


def table_text(cohort: Cohort, patients: Patients) -> dict[str, Sequence[str]]:
    """Labels and inputs as the table's text, column by column."""
    text: dict[str, Sequence[str]] = {
        label.name: ["" if value == UNKNOWN else str(value) for value in patients.labels[label.name].tolist()]
        for label in cohort.labels
    }
    for column in cohort.columns:
        values = patients.inputs[column.name].tolist()
        if column.kind == "category":
            text[column.name] = values
        else:
            digits = column.digits if column.kind == "real" else 0
            text[column.name] = ["" if math.isnan(value) else f"{value:.{digits}f}" for value in values]
    return text


def truth_text(patients: Patients) -> dict[str, Sequence[str]]:
    """What is hidden, as text: chances, outcomes of those lost, causes. Arrays of a patient are JSON."""
    hidden: dict[str, Values] = {f"chance.{name}": values for name, values in patients.chance.items()}
    hidden |= {f"complete.{name}": values for name, values in patients.complete.items()}
    hidden |= {f"hidden.{name}": values for name, values in patients.truth.items()}
    return {name: [_exact(value) for value in values.tolist()] for name, values in hidden.items()}


def _exact(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{TRUTH_DIGITS}g}"
    if isinstance(value, list):
        return "[" + ",".join(_exact(entry) or "null" for entry in value) + "]"
    return str(int(value)) if isinstance(value, bool) else str(value)


def csv_bytes(columns: dict[str, Sequence[str]], *, header: bool) -> bytes:
    """Columns of text as CSV, UTF-8, lines ending in a line feed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def as_case(cohort: Cohort, patients: Patients, row: int, written: dict[str, str], folder: Path) -> dict[str, Any]:
    """One patient as ``case.json`` has it: what was measured, with units; series in place; no label."""
    case: dict[str, Any] = dict(written)
    if "series" in case:
        case["series"] = json.loads((folder / case["series"]).read_text(encoding="utf-8"))
    kinds: dict[str, Callable[[Any], Any]] = {"real": float, "count": int, "binary": bool, "category": str}
    tabular: dict[str, Any] = {}
    for column in cohort.columns:
        values = patients.inputs[column.name]
        if not unknown(values[row : row + 1])[0]:
            tabular[column.name] = kinds[column.kind](values[row].item())
    units = {column.name: column.unit for column in cohort.columns if column.unit and column.name in tabular}
    return {**case, "tabular": tabular, "units": units}


def fingerprint(
    cohort: Cohort, count: int = 2 * BLOCK, *, seed: int = 0, variant: Variant = Variant.PLANTED, workers: int = 1
) -> dict[str, str]:
    """SHA-256 of the first patients' tables as text: the same version and seed give it on every machine.

    Parameters
    ----------
    cohort : Cohort
    count : int
    seed : int
    variant : Variant
    workers : int

    Returns
    -------
    dict
        ``table`` (labels and inputs) and ``truth``.
    """
    digests = {"table": hashlib.sha256(), "truth": hashlib.sha256()}
    for table, truth in _texts(cohort, count, seed, variant, workers):
        digests["table"].update(table)
        digests["truth"].update(truth)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _texts(cohort: Cohort, count: int, seed: int, variant: Variant, workers: int) -> Iterator[tuple[bytes, bytes]]:
    jobs = [(cohort, first, min(BLOCK, count - first), seed, variant) for first in range(0, count, BLOCK)]
    yield from ordered(_text, jobs, workers) if workers > 1 else map(_text, jobs)


def _text(job: tuple[Cohort, int, int, int, Variant]) -> tuple[bytes, bytes]:
    cohort, first, count, seed, variant = job
    patients = cohort.draw(count, seed=seed, variant=variant, first=first)
    return (
        csv_bytes(table_text(cohort, patients), header=first == 0),
        csv_bytes(truth_text(patients), header=first == 0),
    )
