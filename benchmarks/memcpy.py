"""The floor: copying as many bytes as a pass has to move."""

from __future__ import annotations

import numpy as np

from edgehem.benchmarks.buffers import buffer
from edgehem.benchmarks.crew import Crew
from edgehem.volume import Volume

SETS = 3


class Copy:
    """A memcpy by several threads that reads and writes `moved` bytes in all, so copies half as many.

    Parameters
    ----------
    moved : int
    threads : int
    sets : int
        Pairs of buffers, used in turn.
    """

    def __init__(self, moved: int, threads: int, sets: int = SETS) -> None:
        count = moved // 2
        self._pairs = [(buffer((count,), "uint8"), buffer((count,), "uint8")) for _ in range(sets)]
        for i, (source, _) in enumerate(self._pairs):
            source.fill(i + 1)
        self._crew = Crew(threads)

    def __call__(self, _: Volume | None = None) -> object:
        """Copy once. Takes a stack, as every contender does, and leaves it alone."""
        self._pairs.append(self._pairs.pop(0))
        source, target = self._pairs[0]

        def copy(first: int, end: int) -> None:
            np.copyto(target[first:end], source[first:end])

        self._crew(copy, len(source))
        return target
