"""Interleaved timing: what is compared is measured side by side, round by round, in changing order."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Subject = TypeVar("Subject")
"""What a pass works on: a stack, or a folder."""

WARM_UP = 2
RESAMPLES = 2000
CONFIDENCE = 0.95
SWEEP_TIMES_CACHE, SWEEP_LEAST, SWEEP_MOST = 4, 64 << 20, 512 << 20


class Sweep:
    """Fills the caches with something else, so that every call finds them alike: cold.

    Parameters
    ----------
    cache : int
        Bytes of the largest cache, 0 where that is not known.
    """

    def __init__(self, cache: int) -> None:
        self.bytes = min(max(cache * SWEEP_TIMES_CACHE, SWEEP_LEAST), SWEEP_MOST)
        self._buffer = np.empty(self.bytes, np.uint8)
        self._buffer.fill(1)

    def __call__(self) -> None:
        """Read it all: lines that were only read cost nobody a write when they are displaced."""
        self._buffer.max()


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and its bootstrap confidence interval."""

    value: float
    low: float
    high: float


def interleave(
    passes: Mapping[str, Callable[[Subject], object]],
    fresh: Callable[[], Subject],
    *,
    rounds: int,
    rng: np.random.Generator,
    sweep: Callable[[], None],
    warm_up: int = WARM_UP,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[int]]:
    """Time every pass once a round, on a stack nobody has seen, in an order drawn anew.

    Parameters
    ----------
    passes : mapping of name to pass
    fresh : callable
        Makes the round's stack; not timed.
    rounds : int
    rng : numpy.random.Generator
        Draws the orders.
    sweep : callable
        Called before every pass; not timed.
    warm_up : int
        Rounds that are not counted.
    progress : callable
        Called after every round that is.

    Returns
    -------
    dict of name to list of int
        Nanoseconds by round: entry i of every list was measured on the same stack.
    """
    taken: dict[str, list[int]] = {name: [] for name in passes}
    names = list(passes)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for i in range(-warm_up, rounds):
            stack = fresh()
            for name in rng.permutation(names):
                sweep()
                begin = time.perf_counter_ns()
                passes[name](stack)
                end = time.perf_counter_ns()
                if i >= 0:
                    taken[name].append(end - begin)
            gc.collect()
            if i >= 0:
                progress()
    finally:
        if collecting:
            gc.enable()
    return taken


def quartiles(ns: Sequence[int]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, in ms."""
    low, middle, high = np.percentile(np.asarray(ns) / 1e6, (25, 50, 75))
    return float(low), float(middle), float(high)


def ratio(numerator: Sequence[int], denominator: Sequence[int], *, seed: int = 0) -> Interval:
    """Median over the rounds of one time divided by another of the same round.

    Parameters
    ----------
    numerator, denominator : sequence of int
        Paired by round.
    seed : int

    Returns
    -------
    Interval
        95 %, by bootstrap over rounds.
    """
    each = np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(each), (RESAMPLES, len(each)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(each[drawn], axis=1), (tail, 100 - tail))
    return Interval(value=float(np.median(each)), low=float(low), high=float(high))
