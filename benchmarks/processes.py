"""Work that is counted, not timed, in as many processes as there are processors."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def answers(function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int) -> Iterator[Answer]:
    """A function of every job, in their order; with one worker, in this process."""
    if workers == 1:
        yield from map(function, jobs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the children's matrix library, not ours
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, jobs)
