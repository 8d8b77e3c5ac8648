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

import contextlib
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

import edgehem
from edgehem.errors import EdgehemError
from edgehem.machine import usable_cpus

SUPPORTED = os.name == "posix"
"""Limits on a process, and waiting for several at once, are POSIX here. Elsewhere no pool starts."""

START_S = 30.0
"""Seconds for a child to import its task: 0.2 on an idle machine."""
LAST_WORDS_S = 1.0
"""Seconds between a child's pipe closing and the child being gone."""

_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread a child: there is a child for every CPU, and each thread would reserve address space."""
_OUTSIDE = (-signal.SIGTERM, -getattr(signal, "SIGKILL", 9))


class Cause(str, Enum):
    """Why a child had to be given up."""

    CRASH = "crash"
    CPU = "cpu"
    MEMORY = "memory"
    TIME = "time"
    PROTOCOL = "protocol"
    OUTSIDE = "outside"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one child may use.

    Parameters
    ----------
    memory_bytes : int
        Address space beyond what the child has when it is ready.
    cpu_s : int
        CPU time of one job, whole seconds (the kernel's own unit for this limit).
    wall_s : float
        Time of one job.
    jobs : int
        Jobs until a child is replaced by a fresh one.
    """

    memory_bytes: int = 256 * 2**20
    cpu_s: int = 2
    wall_s: float = 4.0
    jobs: int = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One piece of work.

    Parameters
    ----------
    arguments : bytes
        At most 48 bytes, for the task.
    load : callable
        Writes the source into the memory given and returns its length. Called when a child is free for it.
    out : memoryview of bytes
        The result; its size is fixed here.
    """

    arguments: bytes
    load: Callable[[memoryview], int]
    out: memoryview


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
        if not SUPPORTED or not sys.executable:
            raise ChildUnavailableError("child processes with limits are not available here")
        batch = _Batch(self, task, self._limits, deque(_Attempt(job, 1) for job in jobs))
        try:
            batch.work()
        except BaseException:
            batch.abandon()
            raise

    def _borrow(self, task: str, *, wait: bool) -> _Child | None:
        """A child for a task, for the caller alone; None if there is none and the caller does not want to wait."""
        while True:
            spare: _Child | None = None
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
            if fitting and not fitting[-1].has_news():
                return fitting[-1]
            # Idle and dead, or saying what nobody asked for; or made for another task.
            stale = fitting[-1] if fitting else spare
            if stale is not None:
                self._bury(stale, vacate=False)
            try:
                child = _Child(task, self._source_bytes, self._target_bytes, self._limits)
            except BaseException as error:
                self._vacate()
                if isinstance(error, OSError):
                    raise ChildUnavailableError("a child process could not be started") from None
                raise
            with self._free:
                self._all.add(child)
            return child

    def _give_back(self, child: _Child) -> None:
        with self._free:
            self._idle.append(child)
            self._free.notify()

    def _bury(self, child: _Child, *, vacate: bool = True) -> None:
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
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._taken = 0
        self._waiting = 0
        self._end = weakref.finalize(self, _end_all, self._all)

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


def _end_all(children: set[_Child]) -> None:
    for child in list(children):
        child.end()


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
        self._held: dict[int, _Child] = {}
        self._at: dict[int, _Attempt] = {}
        self._starts_left = 1
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
        while len(self._held) < len(self._queue) + len(self._at):
            child = self._pool._borrow(self._task, wait=not self._held)
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
        if status is _Said.NOTHING:
            self._lost(key, child.cause_of_death())
        elif status is _Said.READY:
            return
        elif status is _Said.UNAVAILABLE:
            self._drop(child)
            self._fail(ChildUnavailableError("what a child needs for its task is missing or broken"))
        elif status is _Said.NONSENSE:
            self._lost(key, Cause.PROTOCOL)
        elif status is _Said.OUT_OF_MEMORY:
            self._lost(key, Cause.MEMORY)
        else:
            attempt = self._at.pop(key)
            if status is _Said.FAILED:
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

    def _release(self, child: _Child) -> None:
        self._poll.unregister(child.replies)
        del self._held[child.replies]
        self._pool._give_back(child)

    def _drop(self, child: _Child) -> None:
        self._poll.unregister(child.replies)
        del self._held[child.replies]
        self._pool._bury(child)


class _Said(Enum):
    """What was read from a child."""

    NOTHING = "nothing"
    NONSENSE = "nonsense"
    READY = "ready"
    UNAVAILABLE = "unavailable"
    DONE = "done"
    FAILED = "failed"
    OUT_OF_MEMORY = "out of memory"


_BEFORE_READY = {0: _Said.READY, 4: _Said.UNAVAILABLE}
_WHEN_READY = {1: _Said.DONE, 2: _Said.FAILED, 3: _Said.OUT_OF_MEMORY}
"""Which status a reply may have when, as numbered in :mod:`edgehem.sandbox.worker`."""
_ANSWERS = frozenset(_WHEN_READY.values())


class _Child:
    """One child process: its pipes, its segment, and where it is in its life."""

    def __init__(self, task: str, source_bytes: int, target_bytes: int, limits: Limits) -> None:
        from edgehem.sandbox import worker

        self.task = task
        self.ready = False
        self._wire = worker
        self._limits = limits
        self._number = 0
        self._expected = 0
        self._retire = False
        segment = _memory(source_bytes + target_bytes)
        try:
            self._shared = mmap.mmap(segment, source_bytes + target_bytes)
            self.replies, theirs = os.pipe()
            try:
                alarm = limits.wall_s + LAST_WORDS_S
                arguments = (task, segment, theirs, source_bytes, target_bytes)
                budget = (limits.memory_bytes, limits.cpu_s, alarm)
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", "-c", _program((*arguments, *budget))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    cwd="/",
                    env=_ENVIRONMENT | {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
                    pass_fds=(segment, theirs),
                    start_new_session=True,
                )
            except BaseException:
                os.close(self.replies)
                raise
            finally:
                os.close(theirs)
        finally:
            os.close(segment)
        os.set_blocking(self.replies, False)
        self._source = memoryview(self._shared)[:source_bytes]
        self._target = memoryview(self._shared)[source_bytes:]
        self.deadline = time.monotonic() + START_S

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def retiring(self) -> bool:
        """Whether a fresh child should take its place."""
        return self._retire or self._number >= self._limits.jobs

    def has_news(self) -> bool:
        """Whether it said something or is gone; an idle one that is ready has nothing to say."""
        if not self.ready:
            return False
        listener = select.poll()
        listener.register(self.replies, select.POLLIN)
        return bool(listener.poll(0))

    def begin(self, job: Job) -> None:
        """Give it a job. One that is gone will be noticed by who listens to it."""
        length = job.load(self._source)
        self._number += 1
        self._expected = len(job.out)
        arguments = job.arguments.ljust(self._wire.ARGUMENTS, b"\0")
        message = self._wire.REQUEST.pack(self._wire.MAGIC_REQUEST, self._number, length, self._expected, arguments)
        assert self._process.stdin is not None
        self.deadline = time.monotonic() + self._limits.wall_s
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(message)

    def hear(self) -> tuple[_Said, int]:
        """Read its reply, and the detail that comes with a failure."""
        wire = self._wire
        # Asks for more than a reply has: one that is too long is as wrong as one that is too short.
        message = os.read(self.replies, 4 * wire.REPLY.size)
        if not message:
            return _Said.NOTHING, 0
        if len(message) != wire.REPLY.size:
            return _Said.NONSENSE, 0
        magic, number, status, retire, detail, length = wire.REPLY.unpack(message)
        said = (_BEFORE_READY, _WHEN_READY)[self.ready].get(status)
        right_length = length == (self._expected if said in _ANSWERS else 0)
        if magic != wire.MAGIC_REPLY or number != self._number or said is None or not right_length:
            return _Said.NONSENSE, 0
        self.ready = True
        self.deadline = math.inf
        self._retire = bool(retire)
        return said, detail

    def collect(self, out: memoryview) -> None:
        """Copy the result; from here on the child cannot change it."""
        out[:] = self._target[: len(out)]

    def cause_of_death(self) -> Cause:
        """Why its pipe is closed."""
        try:
            code = self._process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            return Cause.PROTOCOL
        if code in _OUTSIDE:
            return Cause.OUTSIDE
        return {-signal.SIGXCPU: Cause.CPU, -signal.SIGALRM: Cause.TIME}.get(code, Cause.CRASH)

    def end(self) -> None:
        """End it with whatever it started, and free what it had."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._close()

    def let_go(self) -> None:
        """In a fork of this process: close what was inherited; the child belongs to another."""
        self._process.returncode = 0  # says to the object that there is nothing to wait for
        self._close()

    def _close(self) -> None:
        if self.replies >= 0:
            os.close(self.replies)
            self.replies = -1
            assert self._process.stdin is not None
            self._process.stdin.close()
            # In a fork, a thread that is not there any more may have been reading or writing.
            with contextlib.suppress(BufferError):
                self._source.release()
                self._target.release()
                self._shared.close()


def _program(arguments: tuple[object, ...]) -> str:
    """What the child's interpreter runs: it sees the modules that this one sees, and nothing of its environment."""
    place = str(Path(edgehem.__file__).resolve().parent.parent)
    path = [entry or str(Path.cwd()) for entry in sys.path]
    return (
        f"import sys; sys.path[:] = {[*path, place]!r}; from edgehem.sandbox.worker import main; main(*{arguments!r})"
    )


def _memory(size: int) -> int:
    """A descriptor of anonymous memory: it has no name, so nothing of it can be left behind."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    import fcntl

    descriptor = os.memfd_create("edgehem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        # A child that could shorten it would end this process with a bus error.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
