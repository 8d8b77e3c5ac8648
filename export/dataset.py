"""Training data: studies on the canonical grid, in Hounsfield units, with labels and (where known) where the blood is.

Two sources fill the same cache: a table of studies on disk (DESIGN: one row a patient) and phantoms made in memory.
Both go
through the runtime's own head finder and resampler, so a network is trained on exactly what it will be given.
"""

from __future__ import annotations

import csv
import ctypes
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem import kernels
from edgehem.errors import MissingExtraError, Refusal, UsageError
from edgehem.export.progress import Progress, say
from edgehem.phantom.anatomy import synthesise
from edgehem.phantom.bleeds import SUBTYPES, midline_shift
from edgehem.phantom.cases import LABELS, Case, Protocol, draw_bleeds, make_case, scan_case
from edgehem.phantom.files import cohort_case
from edgehem.phantom.head import draw_head
from edgehem.preprocess import CANONICAL, PreprocessSpec, locate_head, place_grid, plane_validity
from edgehem.volume import Volume

MAP_STEP = 4
"""The blood map has one cell per 4 × 4 pixels."""
UNKNOWN = -1
"""Label value of an empty table cell."""
PRESENT_MM2 = 30.0
"""A plane counts as showing blood from this area on; between 0 and this it is left out of the slice loss."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One study on the grid.

    Parameters
    ----------
    group : int
        Samples of one group are the same head (with and without blood).
    hu : int16 array [Z, Y, X]
    valid : float32 array [Z]
    labels : int8 array [6]
        1, 0 or :data:`UNKNOWN`, in the order of LABELS.
    blood : uint8 array [Z, Y / 4, X / 4]
        Share of blood per cell, 0..255; all zero and `mapped` False where no mask is known.
    area_mm2 : float32 array [Z, 5]
        Blood per plane and subtype.
    mapped : bool
    """

    group: int
    hu: npt.NDArray[np.int16]
    valid: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    blood: npt.NDArray[np.uint8]
    area_mm2: npt.NDArray[np.float32]
    mapped: bool


def sample(
    volume: Volume,
    labels: dict[str, int],
    mask: npt.NDArray[np.uint8] | None,
    *,
    group: int,
    spec: PreprocessSpec = CANONICAL,
) -> Sample:
    """Put a study on the grid.

    Parameters
    ----------
    volume : Volume
    labels : dict of label to 0, 1 or UNKNOWN
    mask : uint8 array [Z, Y, X] or None
        On the volume's own slices: 1 + index into SUBTYPES.
    group : int
    spec : PreprocessSpec

    Raises
    ------
    Refusal
        If no head is found.
    """
    target = place_grid(locate_head(volume), spec)
    hu, covered = kernels.resample(volume, target)
    planes, rows, columns = spec.shape
    blood = np.zeros((planes, rows // MAP_STEP, columns // MAP_STEP), np.uint8)
    area = np.zeros((planes, len(SUBTYPES)), np.float32)
    if mask is not None:
        total = np.zeros(spec.shape, np.float32)
        for value in np.unique(mask[mask > 0]):
            share = _mask_on_grid(volume, mask == value, target)
            area[:, int(value) - 1] = share.sum(axis=(1, 2)) * spec.spacing_mm[1] * spec.spacing_mm[2]
            total += share
        cells = total.reshape(planes, rows // MAP_STEP, MAP_STEP, columns // MAP_STEP, MAP_STEP).mean(axis=(2, 4))
        blood = np.rint(np.minimum(cells, 1) * 255).astype(np.uint8)
    return Sample(
        group=group,
        hu=np.rint(hu).astype(np.int16),
        valid=plane_validity(covered),
        labels=np.array([labels.get(name, UNKNOWN) for name in LABELS], np.int8),
        blood=blood,
        area_mm2=area,
        mapped=mask is not None,
    )


def _mask_on_grid(volume: Volume, mask: npt.NDArray[np.bool_], target: kernels.Target) -> npt.NDArray[np.float32]:
    """Share of the mask per grid voxel: the mask goes through the resampler as if it were an image of 0 and 1000 HU."""
    scale = 1000
    image = replace(
        volume,
        pixels=(mask * scale).astype(np.int16),
        slope=np.ones(len(mask), np.float32),
        intercept=np.zeros(len(mask), np.float32),
        padding=None,
    )
    share, _ = kernels.resample(image, target)
    return np.asarray(np.clip(share / scale, 0, 1), np.float32)


class Cache:
    """Samples on disk, read through memory maps: a cohort is larger than memory.

    Parameters
    ----------
    folder : Path
        Holds ``hu.npy`` and its companions, and ``cache.json``, which is written last.
    """

    def __init__(self, folder: Path) -> None:
        record = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
        self.folder, self.count = folder, int(record["count"])
        self.record: dict[str, Any] = record
        self.hu = np.load(folder / "hu.npy", mmap_mode="r")[: self.count]
        self.blood = np.load(folder / "blood.npy", mmap_mode="r")[: self.count]
        small = np.load(folder / "small.npz")
        self.valid, self.labels, self.area_mm2 = small["valid"], small["labels"], small["area_mm2"]
        self.group, self.mapped = small["group"], small["mapped"]

    def __len__(self) -> int:
        return self.count


def build_cache(
    folder: Path,
    samples: Iterable[Sample],
    capacity: int,
    *,
    record: dict[str, Any],
    spec: PreprocessSpec = CANONICAL,
    title: str = "samples",
) -> Cache:
    """Write samples as they come, with progress on stderr; an interrupted build leaves no cache behind.

    Raises
    ------
    UsageError
        If no sample came.
    """
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    planes, rows, columns = spec.shape
    hu = np.lib.format.open_memmap(part / "hu.npy", mode="w+", dtype=np.int16, shape=(capacity, *spec.shape))
    cells = (capacity, planes, rows // MAP_STEP, columns // MAP_STEP)
    blood = np.lib.format.open_memmap(part / "blood.npy", mode="w+", dtype=np.uint8, shape=cells)
    small: dict[str, list[Any]] = {"valid": [], "labels": [], "area_mm2": [], "group": [], "mapped": []}
    count, bar = 0, Progress(title, capacity)
    for item in samples:
        hu[count], blood[count] = item.hu, item.blood
        for name, column in small.items():
            column.append(getattr(item, name))
        count += 1
        bar.show(count)
    bar.close()
    if not count:
        shutil.rmtree(part, ignore_errors=True)
        raise UsageError("no study of the table could be used")
    hu.flush()
    blood.flush()
    arrays: dict[str, Any] = {name: np.stack(column) for name, column in small.items()}
    np.savez(part / "small.npz", **arrays)
    (part / "cache.json").write_text(json.dumps({**record, "count": count}, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)  # noqa: PTH105 - atomic by contract
    return Cache(folder)


# Phantoms in memory.

TRAINING_MATRIX = 256
"""Training phantoms are scanned on a coarser matrix than hospitals use: what a 512 matrix is reduced to on the grid."""
TRAINING_VOXEL_MM = 1.25


def _case_sample(case: Case, group: int) -> Sample:
    return sample(case.volume, case.labels, case.mask, group=group)


def _head_group(job: tuple[int, int]) -> list[Sample]:
    """One head: once without blood, once with a small hemorrhage, once with one of any size."""
    number, seed = job
    base = seed * 1_000_003 + number
    rng = np.random.default_rng([base, 8])
    # A quarter of the heads has its midline pushed: without blood that is a tumour or an infarct, and must not count.
    bleeds = [(), draw_bleeds(base + 1, largest_ml=8), draw_bleeds(base + 2)]
    shift = float(rng.normal(0, 5)) if rng.random() < 0.25 else midline_shift(bleeds[2], base + 2)
    anatomy = synthesise(draw_head(base, midline_shift=shift), TRAINING_VOXEL_MM)
    protocol = Protocol(matrix=TRAINING_MATRIX)
    cases = [scan_case(anatomy, base + k, bleeds=b, protocol=protocol) for k, b in enumerate(bleeds)]
    return [_case_sample(case, number) for case in cases]


def _cohort_sample(job: tuple[int, int]) -> list[Sample]:
    number, seed = job
    case_seed, bleeds = cohort_case(number, seed)
    case = make_case(case_seed, bleeds=bleeds, protocol=Protocol(matrix=TRAINING_MATRIX), voxel_mm=TRAINING_VOXEL_MM)
    return [_case_sample(case, number)]


def _parallel(
    function: Callable[[tuple[int, int]], list[Sample]], jobs: list[tuple[int, int]], workers: int
) -> Iterator[Sample]:
    # One thread a process: matrix libraries would otherwise start as many in each as the machine has cores.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        pool = multiprocessing.get_context("spawn").Pool(workers, initializer=keep_freed_memory)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    with pool:
        for batch in pool.imap(function, jobs):
            yield from batch


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks: page faults otherwise take longer than the arithmetic (glibc only)."""
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, -1)


def phantom_heads(folder: Path, heads: int, *, seed: int, workers: int = 2) -> Cache:
    """A training cache of phantoms: three scans of every head, one without blood and two with.

    Parameters
    ----------
    folder : Path
        Reused when it holds the same cohort already.
    heads : int
    seed : int
    workers : int
        Processes; the cohort does not depend on it.
    """
    record = {"source": "phantom heads", "heads": heads, "seed": seed}
    if _holds(folder, record):
        return Cache(folder)
    jobs = [(4 * number, seed) for number in range(heads)]  # seeds of one head are 4 apart from the next head's
    return build_cache(folder, _parallel(_head_group, jobs, workers), 3 * heads, record=record, title="phantom scans")


def phantom_cohort(folder: Path, count: int, *, seed: int, workers: int = 2) -> Cache:
    """A cache of the cohort that ``edgehem phantom --cohort`` writes with this seed: every second study bleeds."""
    record = {"source": "phantom cohort", "studies": count, "seed": seed}
    if _holds(folder, record):
        return Cache(folder)
    jobs = [(number, seed) for number in range(count)]
    return build_cache(folder, _parallel(_cohort_sample, jobs, workers), count, record=record, title="phantom cohort")


def open_source(source: str, folder: Path, *, split: str | None = None, workers: int = 2) -> Cache:
    """A cache from what a command was given.

    Parameters
    ----------
    source : str
        A training table's path; or ``phantoms:COUNT:SEED``, the cohort of that seed; or
        ``phantom-heads:COUNT:SEED``, three scans
        of every head for training.
    folder : Path
        Where the cache goes; one that holds the same phantoms already is used again.
    split : str, optional
        Of a table.
    workers : int

    Raises
    ------
    UsageError
        If the source is malformed, or no study of it could be used.
    """
    phantoms = phantom_source(source)
    if phantoms is None:
        return table_cache(folder, Path(source), split=split)
    kind, count, seed = phantoms
    make = phantom_cohort if kind == "phantoms" else phantom_heads
    return make(folder, count, seed=seed, workers=workers)


def phantom_source(source: str) -> tuple[str, int, int] | None:
    """Kind, count and seed of a phantom source; None for anything else.

    Raises
    ------
    UsageError
        If it begins like one and is none.
    """
    kind, _, rest = source.partition(":")
    if kind not in ("phantoms", "phantom-heads"):
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


# Studies on disk.


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a training table: paths resolved, labels 1, 0 or UNKNOWN."""

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


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read a hematoma mask: NIfTI on the series' own slices, uint8 [Z, Y, X].

    Raises
    ------
    MissingExtraError
        If nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("reading masks", "export") from error
    data = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    return np.ascontiguousarray(data.transpose(2, 1, 0).astype(np.uint8))


def _table_samples(rows: list[Row]) -> Iterator[Sample]:
    from edgehem.dicom import read_study

    for number, row in enumerate(rows):
        try:
            volume = read_study(row.ct).volume
            mask = read_mask(row.mask) if row.mask else None
            if mask is not None and mask.shape != volume.pixels.shape:
                raise UsageError(f"row {number + 1}: the mask has shape {mask.shape}, the series {volume.pixels.shape}")
            yield sample(volume, row.labels, mask, group=number)
        except Refusal as refusal:
            say(f"row {number + 1} left out: {refusal.code.value}: {refusal.reason}")


def table_cache(folder: Path, table: Path, *, split: str | None = None) -> Cache:
    """A cache of the studies of a table; rows that get no result are named and left out.

    Parameters
    ----------
    folder : Path
    table : Path
    split : str, optional
        Take only rows of this split.
    """
    rows = [row for row in read_table(table) if split is None or row.split == split]
    if not rows:
        raise UsageError(f"{table.name} has no rows of split {split!r}")
    return build_cache(folder, _table_samples(rows), len(rows), record={"source": "table"}, title="studies")
