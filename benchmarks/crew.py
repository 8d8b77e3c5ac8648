"""Threads that share one piece of work, for libraries that compute without holding Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise


class Crew:
    """`threads` threads, of which the caller is one; the others wait between calls.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def runs(self, count: int) -> list[tuple[int, int]]:
        """0..count as one run for each thread that gets any: first, behind the last."""
        edges = [count * i // self.threads for i in range(self.threads + 1)]
        return [(first, end) for first, end in pairwise(edges) if first < end]

    def __call__(self, work: Callable[[int, int], None], count: int) -> None:
        """Do ``work(first, end)`` for every run of 0..count, all at once."""
        *rest, own = self.runs(count)
        waiting = [self._others.submit(work, *run) for run in rest] if self._others else []
        work(*own)
        for future in waiting:
            future.result()
