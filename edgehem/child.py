"""One child process: its pipes, the memory shared with it, its limits, and how it ended.

A child belongs to one task and handles one job at a time. It knows tasks by name only: what they do, and what the
bytes of a job mean, is between the task and whoever asks for it. Which child gets which job is decided in
:mod:`edgehem.supervise`; the child's own side is :mod:`edgehem.sandbox.worker`.
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
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import edgehem

START_S = 30.0
"""Seconds for a child to import its task: 0.1 on an idle machine."""
LAST_WORDS_S = 1.0
"""Seconds between a child's pipe closing and the child being gone."""

_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread a child: there is a child for every CPU, and each thread would reserve address space."""
_LOOK_EVERY_S = 0.001
_ABOVE_STANDARD = 3
"""Descriptors below are standard input, output and error, and are replaced in a child."""

starting = threading.RLock()
"""Held while a child is made. A fork of this process waits for it, so that none inherits pipes that nobody knows of
yet: a pipe that stays open there would keep the child from noticing that its parent is gone."""


class Cause(str, Enum):
    """Why a child had to be given up."""

    CRASH = "crash"
    CPU = "cpu"
    MEMORY = "memory"
    TIME = "time"
    PROTOCOL = "protocol"
    OUTSIDE = "outside"


class Said(Enum):
    """What was read from a child."""

    NOTHING = "nothing"
    NONSENSE = "nonsense"
    READY = "ready"
    UNAVAILABLE = "unavailable"
    DONE = "done"
    FAILED = "failed"
    OUT_OF_MEMORY = "out of memory"


_OUTSIDE = tuple(getattr(signal, name, None) for name in ("SIGKILL", "SIGTERM"))
_ITS_LIMITS = {getattr(signal, "SIGXCPU", None): Cause.CPU, getattr(signal, "SIGALRM", None): Cause.TIME}
"""Signals that tell why a child is gone."""
_BEFORE_READY = {0: Said.READY, 4: Said.UNAVAILABLE}
_WHEN_READY = {1: Said.DONE, 2: Said.FAILED, 3: Said.OUT_OF_MEMORY}
"""Which status a reply may have when, as numbered in :mod:`edgehem.sandbox.worker`."""
_ANSWERS = frozenset(_WHEN_READY.values())


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
        At most :data:`edgehem.sandbox.worker.ARGUMENTS` of them, for the task.
    load : callable
        Writes the source into the memory given and returns its length. Called when a child is free for it.
    out : memoryview of bytes
        The result; its size is fixed here.
    """

    arguments: bytes
    load: Callable[[memoryview], int]
    out: memoryview


class Child:
    """One child process: its pipes, its segment, and where it is in its life.

    It is started when it is made, and is ready some time later (:attr:`ready`, once :meth:`hear` has been told so).

    Parameters
    ----------
    task : str
        ``module:factory``, see :func:`edgehem.sandbox.worker.main`.
    source_bytes, target_bytes : int
        Sizes of the two parts of the shared memory, whole pages.
    limits : Limits

    Attributes
    ----------
    replies : int
        The descriptor to wait at.
    deadline : float
        When it will have taken too long, s of ``time.monotonic``; infinite while nothing is asked of it.

    Raises
    ------
    OSError
        If the system has no process, memory or descriptor left.
    """

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
            self.replies, theirs = map(_raised, os.pipe())
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

    @property
    def fit(self) -> bool:
        """Whether it can be given work: it is there, and says nothing that nobody asked for."""
        if not self.ready:
            return self._status() is None  # what it has to say is still to be heard
        listener = select.poll()
        listener.register(self.replies, select.POLLIN)
        return not listener.poll(0)

    def begin(self, job: Job) -> None:
        """Give it a job. One that is gone will be noticed by who listens to it.

        Raises
        ------
        ValueError
            If the job is larger than what this child was made for.
        """
        if len(job.arguments) > self._wire.ARGUMENTS or len(job.out) > len(self._target):
            raise ValueError("the arguments or the result of a job are larger than what its pool was made for")
        length = job.load(self._source)
        if not 0 <= length <= len(self._source):
            raise ValueError("the source of a job is larger than what its pool was made for")
        self._number += 1
        self._expected = len(job.out)
        arguments = job.arguments.ljust(self._wire.ARGUMENTS, b"\0")
        message = self._wire.REQUEST.pack(self._wire.MAGIC_REQUEST, self._number, length, self._expected, arguments)
        assert self._process.stdin is not None
        self.deadline = time.monotonic() + self._limits.wall_s
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(message)

    def hear(self) -> tuple[Said, int]:
        """Read its reply, and the detail that comes with a failure."""
        wire = self._wire
        # Asks for more than a reply has: one that is too long is as wrong as one that is too short.
        message = os.read(self.replies, 4 * wire.REPLY.size)
        if not message:
            return Said.NOTHING, 0
        if len(message) != wire.REPLY.size:
            return Said.NONSENSE, 0
        magic, number, status, retire, detail, length = wire.REPLY.unpack(message)
        said = (_BEFORE_READY, _WHEN_READY)[self.ready].get(status)
        right_length = length == (self._expected if said in _ANSWERS else 0)
        if magic != wire.MAGIC_REPLY or number != self._number or said is None or not right_length:
            return Said.NONSENSE, 0
        self.ready = True
        self.deadline = math.inf
        self._retire = bool(retire)
        return said, detail

    def collect(self, out: memoryview) -> None:
        """Copy the result; from here on the child cannot change it."""
        out[:] = self._target[: len(out)]

    def cause_of_death(self) -> Cause:
        """Why its pipe is closed."""
        patience = time.monotonic() + LAST_WORDS_S
        while (status := self._status()) is None:
            if time.monotonic() > patience:
                return Cause.PROTOCOL  # it closed its pipe and lives
            time.sleep(_LOOK_EVERY_S)
        return Cause.OUTSIDE if -status in _OUTSIDE else _ITS_LIMITS.get(-status, Cause.CRASH)

    def kill(self) -> None:
        """End it with whatever it started. Its memory and its pipes stay, for whoever may be at them."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """End it with whatever it started, and free what it had."""
        self.kill()
        self._close()

    def let_go(self) -> None:
        """In a fork of this process: close what was inherited; the child belongs to another."""
        self._process.returncode = 0  # says to the object that there is nothing to wait for
        self._close()

    def _status(self) -> int | None:
        """How it ended: its exit status, or less a signal's number; None while it runs.

        It is left for :meth:`kill` to take: until then its process id, which is also that of the group of all it
        started, is given to no other.
        """
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll()
        try:
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # somebody else waits for every child of this process
            return self._process.poll() or 0
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

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
            return _raised(os.dup(file.fileno()))
    import fcntl

    descriptor = _raised(os.memfd_create("edgehem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        os.ftruncate(descriptor, size)
        # A child that could shorten it would end this process with a bus error.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _raised(descriptor: int) -> int:
    """A descriptor above those of standard input, output and error, where a service that closed them gets its next."""
    if descriptor >= _ABOVE_STANDARD:
        return descriptor
    import fcntl

    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STANDARD)
    finally:
        os.close(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=starting.acquire, after_in_parent=starting.release, after_in_child=starting.release)
