"""Worker processes for what is made or counted many times over: one thread each, answers in order."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from typing import TypeVar

from edgehem.errors import EdgehemError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Matrix libraries would otherwise start as many threads in each process as the machine has cores."""
TRIM_EVERY = 10
"""Jobs after which a process gives back what it has freed: large blocks that are kept and cut up anew leave more and
more gaps between them, and giving back after every job would cost the page faults again."""
AHEAD = 4
"""Jobs for each process that are handed out before the oldest is answered: answers that wait cost memory."""


def ordered(function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int) -> Iterator[Answer]:
    """Run a function over jobs in worker processes; answers come in the order of the jobs.

    Parameters
    ----------
    function : callable
        Importable by name. What it raises is raised here.
    jobs : sequence
    workers : int
        Processes; never more than there are jobs.

    Raises
    ------
    EdgehemError
        If a process is ended from outside.
    """
    workers = max(1, min(workers, len(jobs)))
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned, initializer=keep_freed_memory) as pool:
        waiting: deque[Future[Answer]] = deque()
        try:
            for job in jobs:
                waiting.append(_handed_out(pool, function, job))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise EdgehemError("a worker process was ended from outside, as where memory runs out") from error
        finally:
            for future in waiting:
                future.cancel()


def _handed_out(pool: ProcessPoolExecutor, function: Callable[[Job], Answer], job: Job) -> Future[Answer]:
    """Hand out a job. Processes start with their first job, and read how many threads they may have from here."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        return pool.submit(_worked, function, job)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


_DONE = count(1)
"""Jobs of a worker process so far."""


def _worked(function: Callable[[Job], Answer], job: Job) -> Answer:
    """A job, as a worker process does it."""
    answer = function(job)
    if next(_DONE) % TRIM_EVERY == 0:
        give_back_freed_memory()
    return answer


def give_back_freed_memory() -> None:
    """Let the C library return the pages of all freed blocks to the system (glibc only)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(ctypes.c_size_t(0))


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks: page faults otherwise take longer than the arithmetic (glibc only)."""
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, -1)
