"""Where samples come from: a training table of studies on disk, or phantoms made in memory; one cache for both."""

from __future__ import annotations

import atexit
import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import MissingExtraError, Refusal, UsageError
from edgehem.export.progress import say
from edgehem.export.samples import UNKNOWN, Cache, Sample, build_cache, sample
from edgehem.phantom.anatomy import synthesise
from edgehem.phantom.bleeds import SUBTYPES
from edgehem.phantom.cases import LABELS, VERSION, Case, Protocol, draw_bleeds, make_case, scan_case
from edgehem.phantom.files import cohort_case
from edgehem.phantom.head import draw_head
from edgehem.preprocess import CANONICAL
from edgehem.volume import Volume
from edgehem.workers import ordered

TRAINING_MATRIX = 256
"""Training phantoms are scanned on a coarser matrix than hospitals use: what a 512 matrix is reduced to on the grid."""
TRAINING_VOXEL_MM = 1.25
PARALLEL = 0.95
"""Cosine from which two axes are one: a mask of a stack tilted by 18° and held on an upright grid is refused."""

MADE_WITH = {
    "generator": VERSION,
    "matrix": TRAINING_MATRIX,
    "voxel_mm": TRAINING_VOXEL_MM,
    "grid": list(CANONICAL.shape),
}
"""A cache made with others than these is made anew."""


def _case_sample(case: Case, group: int) -> Sample:
    return sample(case.volume, case.labels, case.mask, group=group)


def _protocol(thick: bool, rng: np.random.Generator) -> Protocol:
    """Any scan; or one as older protocols ask for: tilted, 4 to 5 mm through the skull base, 7 to 9 mm above."""
    if not thick:
        return Protocol(matrix=TRAINING_MATRIX)
    return Protocol(
        matrix=TRAINING_MATRIX,
        variable_spacing=True,
        thickness_mm=float(rng.uniform(3.8, 5.0)),
        tilt_deg=float(rng.uniform(8, 24)),
    )


def _head_group(job: tuple[int, int, bool]) -> list[Sample]:
    """One head: once without blood, once with a small hemorrhage, once with one of any size."""
    number, seed, thick = job
    base = seed * 1_000_003 + number
    rng = np.random.default_rng([base, 8])
    # A quarter of the heads has its midline pushed, the scan without blood too, as by a tumour: a shift by itself must
    # not count.
    bleeds = [(), draw_bleeds(base + 1, largest_ml=8), draw_bleeds(base + 2)]
    shift = float(rng.normal(0, 5)) if rng.random() < 0.25 else 0.0
    anatomy = synthesise(draw_head(base, midline_shift=shift), TRAINING_VOXEL_MM)
    cases = [scan_case(anatomy, base + k, bleeds=b, protocol=_protocol(thick, rng)) for k, b in enumerate(bleeds)]
    return [_case_sample(case, number) for case in cases]


def _cohort_sample(job: tuple[int, int]) -> list[Sample]:
    number, seed = job
    case_seed, bleeds = cohort_case(number, seed)
    case = make_case(case_seed, bleeds=bleeds, protocol=Protocol(matrix=TRAINING_MATRIX), voxel_mm=TRAINING_VOXEL_MM)
    return [_case_sample(case, number)]


def phantom_heads(folder: Path, heads: int, *, seed: int, workers: int = 2, thick: bool = False) -> Cache:
    """A training cache of phantoms: three scans of every head, one without blood and two with.

    Parameters
    ----------
    folder : Path
        Reused when it holds the same cohort already.
    heads : int
    seed : int
    workers : int
        Processes; the cohort does not depend on it.
    thick : bool
        Scan all of them tilted, in thick and uneven slices.
    """
    source = "phantom heads, thick slices" if thick else "phantom heads"
    record = {"source": source, "heads": heads, "seed": seed, **MADE_WITH}
    if _holds(folder, record):
        return Cache(folder)
    jobs = [(4 * number, seed, thick) for number in range(heads)]  # seeds of one head are 4 apart from the next head's
    return build_cache(
        folder,
        chain.from_iterable(ordered(_head_group, jobs, workers)),
        3 * heads,
        record=record,
        title="phantom scans",
    )


def phantom_cohort(folder: Path, count: int, *, seed: int, workers: int = 2) -> Cache:
    """A cache of the heads and hemorrhages of ``edgehem phantom --cohort`` with this seed, scanned on a coarser matrix.

    Every second study bleeds.
    """
    record = {"source": "phantom cohort", "studies": count, "seed": seed, **MADE_WITH}
    if _holds(folder, record):
        return Cache(folder)
    jobs = [(number, seed) for number in range(count)]
    return build_cache(
        folder,
        chain.from_iterable(ordered(_cohort_sample, jobs, workers)),
        count,
        record=record,
        title="phantom cohort",
    )


def open_source(source: str, folder: Path, *, split: str | None = None, workers: int = 2) -> Cache:
    """A cache from what a command was given.

    Parameters
    ----------
    source : str
        A training table's path; or ``phantoms:COUNT:SEED``, the cohort of that seed; or ``phantom-heads:COUNT:SEED``,
        three scans of every head for training; or ``phantom-thick:COUNT:SEED``, the same in thick, tilted slices.
    folder : Path
        Where phantoms are cached; a folder that holds the same ones already is used again. Studies of a table go into a
        temporary folder that is removed when the process ends: they are patients' images.
    split : str, optional
        Rows of a table to take, where its ``split`` column holds anything: ``train``, ``validation`` or ``test``.
    workers : int

    Raises
    ------
    UsageError
        If the source is malformed, or no study of it could be used.
    """
    phantoms = phantom_source(source)
    if phantoms is None:
        temporary = Path(tempfile.mkdtemp(prefix="edgehem-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return table_cache(temporary / "cache", Path(source), split=split)
    kind, count, seed = phantoms
    if kind == "phantoms":
        return phantom_cohort(folder, count, seed=seed, workers=workers)
    return phantom_heads(folder, count, seed=seed, workers=workers, thick=kind == "phantom-thick")


def phantom_source(source: str) -> tuple[str, int, int] | None:
    """Kind, count and seed of a phantom source; None for anything else.

    Raises
    ------
    UsageError
        If it begins like one and is none.
    """
    kind, _, rest = source.partition(":")
    if kind not in ("phantoms", "phantom-heads", "phantom-thick"):
        return None
    count, _, seed = rest.partition(":")
    if not (count.isdecimal() and seed.isdecimal() and int(count) > 0):
        raise UsageError(f"{source!r} is not of the form {kind}:COUNT:SEED")
    return kind, int(count), int(seed)


def _holds(folder: Path, record: dict[str, Any]) -> bool:
    try:
        found = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(found.get(key) == value for key, value in record.items())


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a training table: paths resolved, labels 1, 0 or UNKNOWN."""

    line: int
    """Where it stands in the table: what messages name, as patients' identifiers belong in none."""
    patient_id: str
    ct: Path
    mask: Path | None
    labels: dict[str, int]
    split: str


def read_table(path: Path) -> list[Row]:
    """Read a training table (CSV): ``patient_id``, ``ct``, optional ``mask`` and ``split``, label columns.

    Parameters
    ----------
    path : Path
        Paths inside the table are relative to it.

    Raises
    ------
    UsageError
        If the table is missing, or a column or a value is not what it must be; says which line.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        for name in ("patient_id", "ct", "any"):
            if name not in columns:
                raise UsageError(
                    f"{path.name} has no column {name!r}; it needs patient_id, ct, and labels ({', '.join(LABELS)})"
                )
        rows = []
        for line, record in enumerate(reader, start=2):
            labels = {}
            for name in LABELS:
                cell = (record.get(name) or "").strip()
                if cell not in ("", "0", "1"):
                    raise UsageError(f"{path.name}, line {line}: column {name!r} must be 0, 1 or empty")
                labels[name] = int(cell) if cell else UNKNOWN
            if not record["ct"]:
                raise UsageError(f"{path.name}, line {line}: no path in column 'ct'")
            mask = (record.get("mask") or "").strip()
            rows.append(
                Row(
                    line=line,
                    patient_id=record["patient_id"] or "",
                    ct=path.parent / record["ct"],
                    mask=path.parent / mask if mask else None,
                    labels=labels,
                    split=(record.get("split") or "").strip(),
                )
            )
    if not rows:
        raise UsageError(f"{path.name} has no rows")
    return rows


def rows_of_split(table: Path, split: str | None) -> list[Row]:
    """The rows of a table that belong to a split; all of them where the table does not divide itself.

    Raises
    ------
    UsageError
        If the table names splits, and none of its rows belongs to this one.
    """
    rows = read_table(table)
    if split is None or not any(row.split for row in rows):
        return rows
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        raise UsageError(f"{table.name} has a column 'split', and no row of {split!r}")
    return chosen


def read_mask(path: Path, volume: Volume) -> npt.NDArray[np.uint8]:
    """Read a hematoma mask: NIfTI with a voxel for every pixel of the series.

    Axes that run against the series' (as some converters write them) are turned round by the affine; a mask on another
    grid is refused.

    Parameters
    ----------
    path : Path
    volume : Volume
        The series the mask belongs to.

    Returns
    -------
    uint8 array [Z, Y, X]
        0, or 1 + index into SUBTYPES, as ``edgehem phantom`` writes them.

    Raises
    ------
    MissingExtraError
        If nibabel is not installed.
    UsageError
        If a value is none of these, or the mask does not lie on the series' pixels.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("reading masks", "export") from error
    if not path.is_file():
        raise UsageError(f"the mask {path.name} does not exist")
    image: Any = nibabel.load(path)
    data = np.asanyarray(image.dataobj)
    if data.ndim != 3 or not np.isin(data, np.arange(len(SUBTYPES) + 1)).all():
        meanings = ", ".join(f"{value} {name}" for value, name in enumerate(SUBTYPES, start=1))
        raise UsageError(f"{path.name} is no mask of hemorrhages: three axes of values 0 none, {meanings} are expected")
    if data.shape[::-1] != volume.pixels.shape:
        raise UsageError(f"{path.name} has {data.shape[::-1]} voxels, the series {volume.pixels.shape} pixels")
    axes = np.diag([-1.0, -1.0, 1.0]) @ image.affine[:3, :3]  # NIfTI's RAS to LPS; columns: column, row, slice
    advance = volume.origin[-1] - volume.origin[0]
    for axis, direction in enumerate((volume.row_cosines, volume.column_cosines, advance)):
        cosine = axes[:, axis] @ direction / (np.linalg.norm(axes[:, axis]) * np.linalg.norm(direction) + 1e-12)
        if abs(cosine) < PARALLEL:
            raise UsageError(
                f"{path.name} lies on another grid than the series: its axes are turned against the slices"
            )
        data = np.flip(data, axis) if cosine < 0 else data
    return np.ascontiguousarray(data.transpose(2, 1, 0).astype(np.uint8))


def _table_samples(rows: list[Row]) -> Iterator[Sample]:
    from edgehem.dicom import read_study

    for number, row in enumerate(rows):
        try:
            volume = read_study(row.ct).volume
            mask = read_mask(row.mask, volume) if row.mask else None
            yield sample(volume, row.labels, mask, group=number)
        except Refusal as refusal:
            say(f"line {row.line} left out: {refusal.code.value}: {refusal.reason}")
        except UsageError as error:
            raise UsageError(f"line {row.line}: {error}") from error


def table_cache(folder: Path, table: Path, *, split: str | None = None) -> Cache:
    """A cache of the studies of a table; rows that get no result are named and left out.

    Parameters
    ----------
    folder : Path
    table : Path
    split : str, optional
        See :func:`rows_of_split`.
    """
    rows = rows_of_split(table, split)
    return build_cache(folder, _table_samples(rows), len(rows), record={"source": "table"}, title="studies")
