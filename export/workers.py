"""Worker processes for phantoms: one thread each, results in order."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Matrix libraries would otherwise start as many threads in each process as the machine has cores."""


def ordered(function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int) -> Iterator[Answer]:
    """Run a function over jobs in worker processes; answers come in the order of the jobs.

    Parameters
    ----------
    function : callable
        Importable by name.
    jobs : sequence
    workers : int
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        pool = multiprocessing.get_context("spawn").Pool(max(1, min(workers, len(jobs))), keep_freed_memory)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    with pool:
        yield from pool.imap(function, jobs)


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks: page faults otherwise take longer than the arithmetic (glibc only)."""
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, -1)
