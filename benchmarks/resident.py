"""Memory of a process that does much the same again and again: how much it has, and whether that goes on growing.

Resident memory rises in steps. Each study larger than all before it needs more, and a process that keeps what it frees
(:func:`edgehem.workers.keep_freed_memory`) falls back only where it gives that back. Such steps become rare, those of a
leak do not. So what is allocated once a study is done is read as well, where the C library tells it: a leak shows
there, a large head does not.

References
----------
H. Theil, A Rank-Invariant Method of Linear and Polynomial Regression Analysis (1950).
P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, JASA 63 (1968).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.environment import peak_memory
from edgehem.benchmarks.growth import MB
from edgehem.benchmarks.latency.blocks import thin
from edgehem.errors import UsageError

Floats = npt.NDArray[np.float64]

TOLERANCE_MB = 10.0
"""Growth of a process over 1,000 studies that is called none: ours, some 2 % of what such a process has."""
SETTLING, SETTLING_LEAST = 0.1, 30
"""Share of a process's studies that is left out at the beginning, and how many at least: ours. Caches and pools fill,
and every few studies one is larger than all before it."""
LEAST = 20
"""Fewer studies than this, the first ones left out, tell nothing: ours."""
RESAMPLES = 1000
CONFIDENCE = 0.95
PER = 100
"""Studies that a slope is told for."""
FLAT, GROWING, UNCLEAR = "does not grow", "grows", "unclear"

STATUS = Path("/proc/self/status")


class _Mallinfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``, malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Memory of a process at one moment, MB.

    Parameters
    ----------
    process : int
        Its number on this machine.
    resident_mb, peak_mb : float
        Now, and at most so far.
    allocated_mb : float or None
        In use by what was allocated through the C library, which Python's own small objects are not; None where that
        is not glibc 2.33 or later.
    threads : int
    """

    process: int
    resident_mb: float
    peak_mb: float
    allocated_mb: float | None
    threads: int


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the memory of a process went on, the first studies left out.

    Parameters
    ----------
    studies : int
        That were counted.
    slope_mb, low_mb, high_mb : float or None
        MB for each :data:`PER` studies, and its interval; None where there are too few studies.
    rise_mb : float or None
        From the first counted study to the last; None where none is.
    verdict : str
        :data:`FLAT`, :data:`GROWING` or :data:`UNCLEAR`.
    """

    studies: int
    slope_mb: float | None
    low_mb: float | None
    high_mb: float | None
    rise_mb: float | None
    verdict: str


def read() -> Reading:
    """Read this process's memory.

    Raises
    ------
    UsageError
        Where the system does not tell it: elsewhere than on Linux.
    """
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
        resident, threads = int(lines["VmRSS"].split()[0]), int(lines["Threads"])
    except (OSError, KeyError) as error:
        raise UsageError("resident memory can be read on Linux only") from error
    return Reading(
        process=os.getpid(),
        resident_mb=resident * 1024 / MB,
        peak_mb=peak_memory() / MB,
        allocated_mb=_allocated(),
        threads=threads,
    )


def _allocated() -> float | None:
    try:
        tell = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    tell.restype = _Mallinfo2
    found = tell()
    return float(found.uordblks + found.hblkhd) / MB


def growth(memory_mb: Sequence[float], *, processes: int = 1, seed: int = 0) -> Growth:
    """Slope of a process's memory by study, the first ones left out (:data:`SETTLING`), and whether that is growth.

    The slope is Theil and Sen's, the median of the slopes between all pairs, which a few large studies do not move. Its
    interval is that of a bootstrap of blocks of the residuals, as memory after one study is mostly that after the last
    one; a block is as long as the root of their number, longer than usual, because steps last long.

    Parameters
    ----------
    memory_mb : sequence of float
        After each study, in their order.
    processes : int
        How many are judged together: all of their intervals hold at once with 95 % (Bonferroni).
    seed : int
        Of the bootstrap.

    Returns
    -------
    Growth
        It grows if all of the interval lies above :data:`TOLERANCE_MB`, it does not if none does. Steps that lie in
        less than half of the pairs move the slope little: see `rise_mb` for them.
    """
    values = np.asarray(memory_mb, np.float64)
    first = max(int(np.ceil(SETTLING * len(values))), SETTLING_LEAST)
    counted = values[first:]  # [studies] MB
    rise = float(counted[-1] - counted[0]) if len(counted) else None
    if len(counted) < LEAST:
        return Growth(studies=len(counted), slope_mb=None, low_mb=None, high_mb=None, rise_mb=rise, verdict=UNCLEAR)
    at, level = thin(np.arange(len(counted), dtype=np.float64)), thin(counted)
    one, other = np.triu_indices(len(at), 1)
    apart = at[other] - at[one]

    def slope_of(line: Floats) -> float:
        return float(np.median((line[other] - line[one]) / apart)) * PER

    slope = slope_of(level)
    fitted = slope / PER * at
    residuals = level - fitted
    rng = np.random.default_rng([seed, 0])
    block = max(1, round(len(at) ** 0.5))
    starts = rng.integers(0, len(at), (RESAMPLES, -(-len(at) // block)))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, : len(at)] % len(at)
    tail = (1 - CONFIDENCE) / 2 / processes
    low, high = np.quantile([slope_of(fitted + residuals[order]) for order in drawn], (tail, 1 - tail))
    most = TOLERANCE_MB * PER / 1000
    return Growth(
        studies=len(counted),
        slope_mb=slope,
        low_mb=float(low),
        high_mb=float(high),
        rise_mb=rise,
        verdict=FLAT if high <= most else GROWING if low > most else UNCLEAR,
    )
