"""``edgehem bench phantoms``: how long a phantom study takes on one core, and whether memory grows over many of them.

Studies are made where commands make them, in worker processes of :func:`edgehem.workers.ordered`: one thread
each, and what is freed is kept. First some of each kind in one such process, in mixed order, for their time; then many
in several, for their memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgehem.benchmarks import environment, resident
from edgehem.benchmarks.aims import Aim
from edgehem.benchmarks.timing import CONFIDENCE, RESAMPLES
from edgehem.errors import UsageError
from edgehem.machine import usable_cpus
from edgehem.phantom.cases import Protocol, make_case
from edgehem.phantom.files import cohort_case, write_case
from edgehem.phantom.mr import make_mr
from edgehem.phantom.mr_files import write_mr_case

SCHEMA = "edgehem.bench.phantoms/1"
STUDIES, QUICK_STUDIES = 1000, 30
TIMED, QUICK_TIMED = 40, 4
TIMED_MR = 6
"""An MR study takes several times as long as a CT, and nothing is aimed at."""
SEED = 92
"""Of the cohort that studies come from: no network was trained, calibrated or judged on it."""
SOUND, BLED, MR = "CT, no hemorrhage", "CT, hemorrhage", "MR, four series"
KINDS = (SOUND, BLED, MR)
SLICES = 40
MOST_S = 2.0
"""CPU time that a CT study of :data:`SLICES` slices may take on one core."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is made.

    Parameters
    ----------
    studies : int
        CT for the memory, every second with a hemorrhage.
    workers : int
        Processes that make them.
    timed, timed_mr : int
        Studies of each kind of CT, and of MR, for the times.
    slices : int
        Of each CT.
    seed : int
        Of the cohort (:func:`edgehem.phantom.files.cohort_case`) and of all intervals.
    matrix : int, optional
        Rows and columns of all images; the phantom's own without it.
    voxel_mm : float
        Resolution of the heads' blocks.
    """

    studies: int = STUDIES
    workers: int = 1
    timed: int = TIMED
    timed_mr: int = TIMED_MR
    slices: int = SLICES
    seed: int = SEED
    matrix: int | None = None
    voxel_mm: float = 1.0

    def __post_init__(self) -> None:
        if min(self.studies, self.workers, self.timed, self.timed_mr, self.slices) < 1:
            raise UsageError("studies, workers, timed studies and slices are whole numbers above 0")

    @property
    def usual(self) -> bool:
        """Whether these are studies that :data:`MOST_S` is aimed at."""
        return self.slices == SLICES and self.matrix is None and self.voxel_mm == 1.0


def settings(
    *,
    studies: int | None = None,
    workers: int | None = None,
    timed: int | None = None,
    quick: bool = False,
    **others: Any,
) -> Settings:
    """Settings of a command line, where None is the usual number."""
    timed = timed or (QUICK_TIMED if quick else TIMED)
    return Settings(
        studies=studies or (QUICK_STUDIES if quick else STUDIES),
        workers=workers or usable_cpus(),
        timed=timed,
        timed_mr=min(timed, TIMED_MR),
        **{name: value for name, value in others.items() if value is not None},
    )


def run(asked: Settings, *, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Time studies of each kind, then make many in parallel.

    Parameters
    ----------
    asked : Settings
    progress : callable
        Called with (done, all) after each study.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.phantoms/1``), ready for JSON.

    Raises
    ------
    UsageError
        Where resident memory cannot be read.
    """
    from edgehem.workers import ordered

    parent = [resident.read()]
    jobs = _timed_jobs(asked)
    total = len(jobs) + asked.studies
    before, began = environment.load(), time.perf_counter()
    timed = []
    for done, row in enumerate(ordered(_time, jobs, 1), start=1):
        timed.append(row)
        progress(done, total)
    made, start = [], time.perf_counter()
    for done, row in enumerate(ordered(_make, [(index, asked) for index in range(asked.studies)], asked.workers)):
        made.append(row)
        parent.append(resident.read())
        progress(len(jobs) + done + 1, total)
    parallel_s = time.perf_counter() - start
    after = environment.load()
    times = [_summary(kind, timed, asked.seed) for kind in KINDS]
    memory = _memory(made, parent, asked.seed)
    return {
        "schema": SCHEMA,
        "environment": environment.describe(),
        "load": {"before": before, "after": after, "stolen": environment.stolen(before, after)},
        "seconds": time.perf_counter() - began,
        "settings": asdict(asked),
        "threads": max(row["threads"] for row in timed),
        "times": times,
        "parallel": {
            "seconds": parallel_s,
            "seconds_a_study": parallel_s / asked.studies,
            "cpu_s": float(np.mean([row["cpu_s"] for row in made])),
        },
        "memory": memory,
        "aims": [*_time_aims(times, asked), *_memory_aims(memory)],
    }


def _timed_jobs(asked: Settings) -> list[tuple[str, int, bool, Settings]]:
    """Kind, index, and whether it counts: first one of each kind that does not, then the others in mixed order."""
    count = {SOUND: asked.timed, BLED: asked.timed, MR: asked.timed_mr}
    counted = [(kind, index, True, asked) for kind in KINDS for index in range(count[kind])]
    order = np.random.default_rng([asked.seed, 1]).permutation(len(counted))
    return [(kind, count[kind], False, asked) for kind in KINDS] + [counted[place] for place in order]


def _time(job: tuple[str, int, bool, Settings]) -> dict[str, Any]:
    """Make and write one study; CPU time of the process and time on the clock, of both."""
    kind, index, counts, asked = job
    seed, bleeds = cohort_case(2 * index + (kind != SOUND), asked.seed)
    marks = [(time.process_time(), time.perf_counter())]
    with tempfile.TemporaryDirectory() as folder:
        if kind == MR:
            study = make_mr(seed, bleeds=bleeds, voxel_mm=asked.voxel_mm, matrix=asked.matrix)
            marks.append((time.process_time(), time.perf_counter()))
            write_mr_case(study, Path(folder))
        else:
            case = make_case(seed, bleeds=bleeds, voxel_mm=asked.voxel_mm, protocol=_protocol(asked))
            marks.append((time.process_time(), time.perf_counter()))
            write_case(case, Path(folder))
        marks.append((time.process_time(), time.perf_counter()))
    (cpu, clock), (cpu_made, clock_made), (cpu_written, clock_written) = marks
    return {
        "kind": kind,
        "counts": counts,
        "threads": resident.read().threads,
        "generate": {"cpu_s": cpu_made - cpu, "clock_s": clock_made - clock},
        "write": {"cpu_s": cpu_written - cpu, "clock_s": clock_written - clock},
    }


def _make(job: tuple[int, Settings]) -> dict[str, Any]:
    """Make one study and drop it; this process's memory thereafter."""
    index, asked = job
    start = time.process_time()
    seed, bleeds = cohort_case(index, asked.seed)
    make_case(seed, bleeds=bleeds, voxel_mm=asked.voxel_mm, protocol=_protocol(asked))
    return {"cpu_s": time.process_time() - start, "memory": resident.read()}


def _protocol(asked: Settings) -> Protocol:
    return Protocol(slices=asked.slices, matrix=asked.matrix or Protocol.matrix)


def _summary(kind: str, timed: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Times of a kind, alone and with the files written."""
    rows = [row for row in timed if row["kind"] == kind]
    (first,) = (row for row in rows if not row["counts"])
    row: dict[str, Any] = {"kind": kind, "first_cpu_s": first["generate"]["cpu_s"]}
    for what in ("generate", "write"):
        cpu = np.array([other[what]["cpu_s"] for other in rows if other["counts"]])
        drawn = np.random.default_rng([seed, 2]).integers(0, len(cpu), (RESAMPLES, len(cpu)))
        row[what] = {
            "median": _estimate(np.median(cpu), np.median(cpu[drawn], axis=1)),
            "p95": _estimate(np.percentile(cpu, 95), np.percentile(cpu[drawn], 95, axis=1)),
            "mean": float(cpu.mean()),
            "worst": float(cpu.max()),
            "clock_median": float(np.median([other[what]["clock_s"] for other in rows if other["counts"]])),
            "share_in_time": float((cpu <= MOST_S).mean()),
            "cpu_s": cpu.tolist(),
        }
    return row


def _estimate(value: Any, resampled: Any) -> dict[str, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return {"value": float(value), "low": float(low), "high": float(high)}


def _memory(made: Sequence[dict[str, Any]], parent: Sequence[resident.Reading], seed: int) -> list[dict[str, Any]]:
    """Every process's memory by study, and its growth: workers in the order of their first study, then the parent."""
    series: dict[int, list[tuple[int, resident.Reading]]] = {}
    for number, row in enumerate(made, start=1):
        series.setdefault(row["memory"].process, []).append((number, row["memory"]))
    named = [(f"worker {number}", read) for number, read in enumerate(series.values(), start=1)]
    named.append(("parent", list(enumerate(parent))))
    return [_process(name, read, processes=len(named), seed=seed) for name, read in named]


def _process(name: str, read: Iterable[tuple[int, resident.Reading]], *, processes: int, seed: int) -> dict[str, Any]:
    numbers, readings = zip(*read, strict=True)
    levels = [reading.resident_mb for reading in readings]
    allocated = [reading.allocated_mb for reading in readings if reading.allocated_mb is not None]
    told = len(allocated) == len(readings)
    return {
        "name": name,
        "study": list(numbers),
        "resident_mb": levels,
        "peak_mb": readings[-1].peak_mb,
        "allocated_mb": allocated if told else None,
        "resident": asdict(resident.growth(levels, processes=processes, seed=seed)),
        "allocated": asdict(resident.growth(allocated, processes=processes, seed=seed)) if told else None,
    }


def _time_aims(times: Sequence[dict[str, Any]], asked: Settings) -> list[dict[str, Any]]:
    found = []
    for row in times:
        for part, words in (("median", "half"), ("p95", "95 %")):
            if row["kind"] == MR:
                continue
            aim = Aim(words=f"{words} of studies in {MOST_S:g} s of CPU", library="edgehem", bound=MOST_S, at_most=True)
            measured = row["generate"][part] if asked.usual else None
            verdict = aim.verdict(measured["low"], measured["high"]) if measured else "not measured"
            found.append(_told(row["kind"], aim.words, MOST_S, measured, verdict))
    return found


def _memory_aims(memory: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst process decides: all must stay flat."""
    verdicts = {resident.FLAT: "met", resident.UNCLEAR: "unclear", resident.GROWING: "not met"}
    found = []
    for what in ("resident", "allocated"):
        rows = [row[what] for row in memory]
        words = f"{what} memory does not grow (MB per {resident.PER} studies)"
        bound = resident.TOLERANCE_MB * resident.PER / 1000
        if None in rows:
            found.append(_told("memory", words, bound, None, "not measured"))
            continue
        worst = max(rows, key=lambda row: (list(verdicts).index(row["verdict"]), row["slope_mb"] or 0.0))
        known = worst["slope_mb"] is not None
        measured = {"value": worst["slope_mb"], "low": worst["low_mb"], "high": worst["high_mb"]} if known else None
        found.append(_told("memory", words, bound, measured, verdicts[worst["verdict"]]))
    return found


def _told(job: str, words: str, bound: float, measured: dict[str, float] | None, verdict: str) -> dict[str, Any]:
    return {"job": job, "aim": words, "bound": bound, "contender": "", "measured": measured, "verdict": verdict}
