"""The owner of child processes: warm, limited, disposable ones that work on data nobody vouches for.

A :class:`Pool` starts children at the first job and keeps them. Each belongs to one task, has a segment of memory that
it shares with this process alone, and handles one job at a time. What a child says is not believed: replies have one
fixed form, results one size, both known beforehand, and are copied out of the segment before anybody looks at them,
so that a child cannot change what has been checked.

A job that ends its child (crash, CPU, memory, time) has failed, and is not tried again: it would do the same to the
next. Only where a child was ended from outside (SIGKILL or SIGTERM that this process did not send: the system ran
short of memory, an operator) is the job given to a fresh child, once. A child that is found dead while idle is
replaced without anybody noticing.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from edgehem.child import Cause, Child, Job, Limits, Said, starting
from edgehem.errors import EdgehemError
from edgehem.machine import usable_cpus

__all__ = [
    "SUPPORTED",
    "Cause",
    "ChildError",
    "ChildLostError",
    "ChildUnavailableError",
    "Job",
    "JobFailedError",
    "Limits",
    "Pool",
]

SUPPORTED = os.name == "posix"
"""Limits on a process, and waiting for several at once, are POSIX here. Elsewhere no pool starts."""


class ChildError(EdgehemError, RuntimeError):
    """A job could not be done in a child. Says nothing of its content."""


class JobFailedError(ChildError):
    """The child did its work and says that the job cannot be done.

    Parameters
    ----------
    detail : int
        The task's number for why; 0 where it has none.
    """

    def __init__(self, detail: int) -> None:
        super().__init__(f"a child could not do its job (detail {detail})")
        self.detail = detail


class ChildLostError(ChildError):
    """The job ended its child, or ran into a limit.

    Parameters
    ----------
    cause : Cause
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(f"a child was lost at its job ({cause.value})")
        self.cause = cause


class ChildUnavailableError(ChildError):
    """No child can be started for a task: what it needs is missing or broken here. Not the job's fault."""


class Pool:
    """Children for jobs, at most one a CPU. Safe to use from several threads; a context manager.

    A fork of this process starts with an empty pool of its own. Children that are still there when the pool is
    collected or the interpreter ends are ended.

    Parameters
    ----------
    source_bytes, target_bytes : int
        Largest source and largest result of a job.
    limits : Limits, optional
    size : int, optional
        Children at most; by default the CPUs this process may use.
    """

    def __init__(
        self, *, source_bytes: int, target_bytes: int, limits: Limits | None = None, size: int | None = None
    ) -> None:
        self._source_bytes = _whole_pages(source_bytes)
        self._target_bytes = _whole_pages(target_bytes)
        self._limits = limits or Limits()
        self._size = size or usable_cpus()
        self._forget()
        _pools.add(self)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every child. The pool starts new ones if it is used again."""
        with self._free:
            idle = list(self._idle)
            self._idle.clear()
        for child in idle:
            self._bury(child)

    @property
    def children(self) -> tuple[int, ...]:
        """Process ids of the children there are."""
        with self._free:
            return tuple(sorted(child.pid for child in self._all))

    def run(self, task: str, jobs: Iterable[Job]) -> None:
        """Do jobs, as many at a time as there are children for them.

        Parameters
        ----------
        task : str
            ``module:factory``, see :func:`edgehem.sandbox.worker.main`.
        jobs : iterable of Job

        Raises
        ------
        JobFailedError, ChildLostError, ChildUnavailableError
            For the first job that went wrong; jobs not begun by then are not begun.
        """
        _refuse_other_systems()
        batch = _Batch(self, task, self._limits, deque(_Attempt(job, 1) for job in jobs))
        try:
            batch.work()
        except BaseException:
            batch.abandon()
            raise

    def _borrow(self, task: str, *, wait: bool) -> Child | None:
        """A child for a task, for the caller alone; None if there is none and the caller does not want to wait."""
        while True:
            spare: Child | None = None
            with self._free:
                while not (fitting := [child for child in self._idle if child.task == task]):
                    if self._taken < self._size:
                        self._taken += 1
                        break
                    if self._idle:
                        spare = self._idle.pop(0)
                        break
                    if not wait:
                        return None
                    self._waiting += 1
                    try:
                        self._free.wait()
                    finally:
                        self._waiting -= 1
                if fitting:
                    # The one used last: its memory is warm.
                    self._idle.remove(fitting[-1])
            if fitting and fitting[-1].fit:
                return fitting[-1]
            # Idle and dead, or saying what nobody asked for; or made for another task.
            stale = fitting[-1] if fitting else spare
            if stale is not None:
                self._bury(stale, vacate=False)
            try:
                return self._start(task)
            except BaseException:
                self._vacate()
                raise

    def _start(self, task: str) -> Child:
        if not self._end.alive:
            raise ChildUnavailableError("the interpreter is about to end")
        with starting:
            try:
                child = Child(task, self._source_bytes, self._target_bytes, self._limits)
            except OSError:
                raise ChildUnavailableError("a child process could not be started") from None
            with self._free:
                self._all.add(child)
        return child

    def _give_back(self, child: Child) -> None:
        with self._free:
            self._idle.append(child)
            self._free.notify()

    def _bury(self, child: Child, *, vacate: bool = True) -> None:
        child.end()
        with self._free:
            self._all.discard(child)
        if vacate:
            self._vacate()

    def _vacate(self) -> None:
        with self._free:
            self._taken -= 1
            self._free.notify()

    @property
    def _wanted_elsewhere(self) -> bool:
        return self._waiting > 0

    def _forget(self) -> None:
        """Start with nothing: at first, and in a fork of this process, whose children these are not."""
        self._free = threading.Condition()
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._taken = 0
        self._waiting = 0
        self._end = weakref.finalize(self, _end_all, self._all, self._idle)

    def _after_fork(self) -> None:
        self._end.detach()
        for child in self._all:
            child.let_go()
        self._forget()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _end_all(children: set[Child], idle: list[Child]) -> None:
    """End every child: nobody has the pool any more, or the interpreter ends."""
    for child in list(children):
        if child in idle:
            child.end()
        else:
            # Its pipes are left to the daemon thread that waits at them: another file might get their numbers.
            child.kill()


@dataclass
class _Attempt:
    job: Job
    left: int
    """How often the job may still be given to a fresh child."""


class _Batch:
    """The jobs of one call and the children that work for it: one thread waits for all of them."""

    def __init__(self, pool: Pool, task: str, limits: Limits, queue: deque[_Attempt]) -> None:
        self._pool = pool
        self._task = task
        self._limits = limits
        self._queue = queue
        self._held: dict[int, Child] = {}
        self._at: dict[int, _Attempt] = {}
        self._starts_left = 1
        self._no_more = False
        self._poll = select.poll()
        self._failure: ChildError | None = None

    def work(self) -> None:
        while self._queue or self._at:
            self._take_children()
            self._hand_out()
            if self._held:
                self._listen()
            if self._failure is not None:
                self._queue.clear()
        for child in list(self._held.values()):
            self._release(child)
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """End what is at work; nobody waits for it any more."""
        for key, child in list(self._held.items()):
            if key in self._at:
                self._drop(child)
            else:
                self._release(child)

    def _take_children(self) -> None:
        while len(self._held) < len(self._queue) + len(self._at) and not (self._held and self._no_more):
            try:
                child = self._pool._borrow(self._task, wait=not self._held)
            except ChildUnavailableError:
                if not self._held:
                    raise
                self._no_more = True  # those that could be started do it
                return
            if child is None:
                return
            self._held[child.replies] = child
            self._poll.register(child.replies, select.POLLIN)

    def _hand_out(self) -> None:
        """Give jobs to the children that are ready; those without one go back, or on to who waits for them."""
        for key, child in list(self._held.items()):
            if not child.ready or key in self._at:
                continue
            if not self._queue or (len(self._held) > 1 and self._pool._wanted_elsewhere):
                self._release(child)
                continue
            child.begin(self._queue[0].job)
            self._at[key] = self._queue.popleft()

    def _listen(self) -> None:
        """Wait until a child says something, is gone, or has taken too long."""
        now = time.monotonic()
        patience = max(0.0, min(child.deadline for child in self._held.values()) - now)
        for key, _ in self._poll.poll(math.ceil(patience * 1e3)):
            self._hear(key)
        now = time.monotonic()
        for key, child in list(self._held.items()):
            if child.deadline <= now:
                self._lost(key, Cause.TIME)

    def _hear(self, key: int) -> None:
        child = self._held[key]
        status, detail = child.hear()
        if status is Said.NOTHING:
            self._lost(key, child.cause_of_death())
        elif status is Said.READY:
            return
        elif status is Said.UNAVAILABLE:
            self._drop(child)
            self._fail(ChildUnavailableError("what a child needs for its task is missing or broken"))
        elif status is Said.NONSENSE:
            self._lost(key, Cause.PROTOCOL)
        elif status is Said.OUT_OF_MEMORY:
            self._lost(key, Cause.MEMORY)
        else:
            attempt = self._at.pop(key)
            if status is Said.FAILED:
                self._fail(JobFailedError(detail))
            else:
                child.collect(attempt.job.out)
            if child.retiring:
                self._drop(child)

    def _lost(self, key: int, cause: Cause) -> None:
        """A child is gone or must go; decide about its job."""
        started = self._held[key].ready
        self._drop(self._held[key])
        attempt = self._at.pop(key, None)
        if attempt is not None and cause is Cause.OUTSIDE and attempt.left:
            attempt.left -= 1
            self._queue.appendleft(attempt)
        elif attempt is not None:
            self._fail(ChildLostError(cause))
        elif not started and self._starts_left:
            self._starts_left -= 1
        elif not started:
            self._fail(ChildUnavailableError("a child process does not start"))

    def _fail(self, error: ChildError) -> None:
        self._failure = self._failure or error

    def _release(self, child: Child) -> None:
        self._poll.unregister(child.replies)
        del self._held[child.replies]
        self._pool._give_back(child)

    def _drop(self, child: Child) -> None:
        self._poll.unregister(child.replies)
        del self._held[child.replies]
        self._pool._bury(child)


def _refuse_other_systems() -> None:
    if not SUPPORTED or not sys.executable:
        raise ChildUnavailableError("child processes with limits are not available here")


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
