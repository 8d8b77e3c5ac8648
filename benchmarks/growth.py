"""How the pass grows: with slices, with windows, with the size of the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edgehem.benchmarks import ours, timing
from edgehem.benchmarks.case import ANTIALIASED, Case
from edgehem.benchmarks.memcpy import Copy
from edgehem.volume import Volume

SLICES, CHANNELS, SIZES = (20, 40, 80, 160, 320, 600), (1, 2, 3, 4, 5, 6), (128, 192, 256, 384, 512)
QUICK_SLICES, QUICK_CHANNELS, QUICK_SIZES = (20, 160), (1, 6), (128, 512)
FULL_MATRIX = 512
"""Grid sizes are of this; with another matrix they shrink as it does."""
MB = 1e6


def points(case: Case, *, quick: bool) -> list[tuple[str, int, Case]]:
    """What grows, its value, and the case that has it. Thin slices fill the same length as thick ones."""
    slices, channels, sizes = (QUICK_SLICES, QUICK_CHANNELS, QUICK_SIZES) if quick else (SLICES, CHANNELS, SIZES)
    found = [("slices", n, replace(case, slices=n)) for n in slices]
    found += [("windows", n, replace(case, channels=n)) for n in channels]
    scaled = [max(1, n * case.matrix // FULL_MATRIX) for n in sizes]
    return found + [("size", n, replace(case, size=n)) for n in dict.fromkeys(scaled)]


def measure(
    case: Case,
    *,
    quick: bool,
    rounds: int,
    threads: int,
    rng: np.random.Generator,
    sweep: Callable[[], None],
) -> Iterator[dict[str, Any]]:
    """Each point beside a memcpy of its own bytes, one dict a point.

    Parameters
    ----------
    case : Case
        What does not grow.
    quick : bool
        Only the ends.
    rounds, threads : int
    rng : numpy.random.Generator
    sweep : callable
        See :func:`edgehem.benchmarks.timing.interleave`.
    """
    for what, value, grown in points(case, quick=quick):
        moved = grown.bytes_moved()
        passes: dict[str, Callable[[Volume], object]] = {
            ours.REFERENCE: ours.into_buffer(grown, ANTIALIASED, threads),
            "memcpy": Copy(moved, threads, sets=2),
        }
        taken = timing.interleave(passes, grown.stacks(rng), rounds=rounds, rng=rng, sweep=sweep, warm_up=1)
        over = timing.ratio(taken[ours.REFERENCE], taken["memcpy"])
        low, middle, high = timing.quartiles(taken[ours.REFERENCE])
        yield {
            "what": what,
            "value": value,
            "bytes_moved": moved,
            "ms": middle,
            "quartiles_ms": [low, high],
            "ms_per_mb": middle / (moved / MB),
            "memcpy_ms": timing.quartiles(taken["memcpy"])[1],
            "over_memcpy": {"value": over.value, "low": over.low, "high": over.high},
            "ns": taken,
        }
