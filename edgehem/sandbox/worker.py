"""The child's side of :mod:`edgehem.supervise`: import one task, give up what it does not need, answer jobs.

A child is never believed. It reads requests of one fixed size from standard input and writes replies of one fixed
size to a pipe of its own (libraries print to standard output); bulk data lies in a segment of memory whose size the
parent fixed. A child ends by itself when its input closes, so none outlives its parent; one that is at work then is
ended by its own alarm.
"""

from __future__ import annotations

import importlib
import math
import mmap
import os
import resource
import signal
from collections.abc import Callable
from struct import Struct

Run = Callable[[bytes, memoryview, memoryview], None]
"""One job: arguments, source bytes, and where the result goes (all of it, or an exception)."""

REQUEST = Struct("<4sIII48s")
"""Magic, number of the job, bytes of its source, bytes of its result, arguments (the task's own affair)."""
REPLY = Struct("<4sIBBHI")
"""Magic, number of the job, status, 1 if the child wants to be replaced, detail, bytes of the result."""
MAGIC_REQUEST = b"EHrq"
MAGIC_REPLY = b"EHre"
ARGUMENTS = 48

READY, DONE, FAILED, OUT_OF_MEMORY, UNAVAILABLE = range(5)
"""Status of a reply. READY and UNAVAILABLE come once, before the first job."""

GROWTH_ALLOWED = 4
"""A child that keeps more than a quarter of its memory budget after a job leaks: it asks to be replaced."""
NICENESS = 5


class TaskError(Exception):
    """A task's own way to fail, with a number that says how (1..65535; its parent knows what it means)."""

    def __init__(self, detail: int) -> None:
        super().__init__(detail)
        self.detail = detail


def main(
    task: str, segment: int, replies: int, source_bytes: int, target_bytes: int, memory: int, cpu_s: int, wall_s: float
) -> None:
    """Serve jobs until standard input closes.

    Parameters
    ----------
    task : str
        ``module:factory``. The factory imports what the task needs and returns the function that does a job.
    segment, replies : int
        Descriptors: the memory shared with the parent (source, then target), and the pipe for replies.
    source_bytes, target_bytes : int
        Sizes of the two parts of the segment.
    memory : int
        Address space that jobs may take beyond what the child has once it is ready, bytes.
    cpu_s, wall_s : int, float
        Budget of one job.
    """
    _hear_signals()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    os.nice(NICENESS)
    shared = mmap.mmap(segment, source_bytes + target_bytes)
    os.close(segment)
    source = memoryview(shared)[:source_bytes]
    target = memoryview(shared)[source_bytes:]
    try:
        module, _, factory = task.partition(":")
        run: Run = getattr(importlib.import_module(module), factory)()
    except Exception:  # a missing or broken library raises whatever it likes
        _reply(replies, 0, UNAVAILABLE)
        return
    occupied = _Occupied()
    _give_up(occupied.now() and occupied.now() + memory)
    ready = occupied.now()
    _reply(replies, 0, READY)
    while (request := _next_request()) is not None:
        magic, number, length, wanted, arguments = REQUEST.unpack(request)
        if magic != MAGIC_REQUEST or length > source_bytes or wanted > target_bytes:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = math.ceil(used.ru_utime + used.ru_stime + cpu_s)
        _limit(resource.RLIMIT_CPU, limit, for_good=False)
        signal.setitimer(signal.ITIMER_REAL, wall_s)  # its default is to end the process, whatever that is doing
        status, detail = _do(run, arguments, source[:length], target[:wanted])
        signal.setitimer(signal.ITIMER_REAL, 0)
        retire = (occupied.now() - ready) * GROWTH_ALLOWED > memory
        _reply(replies, number, status, retire=retire, detail=detail, length=wanted)


def _do(run: Run, arguments: bytes, source: memoryview, target: memoryview) -> tuple[int, int]:
    try:
        run(arguments, source, target)
    except TaskError as error:
        return FAILED, error.detail
    except MemoryError:
        return OUT_OF_MEMORY, 0
    except Exception:  # decoders raise whatever their authors chose
        return FAILED, 0
    return DONE, 0


def _hear_signals() -> None:
    """Let limits end this process, even where its parent ignores or blocks their signals: both are inherited."""
    for number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _give_up(memory: int) -> None:
    """Limit the address space (unless 0), and take back the right to open files and sockets and to start anything."""
    if memory:
        _limit(resource.RLIMIT_AS, memory)
    # No new descriptor of any kind; those that are open stay usable.
    _limit(resource.RLIMIT_NOFILE, 0)
    # No new process or thread. The kernel does not hold a superuser to it.
    _limit(resource.RLIMIT_NPROC, 0)


def _limit(which: int, value: int, *, for_good: bool = True) -> None:
    """Set a limit, within what the process was started with."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value if for_good else hard))


def _next_request() -> bytes | None:
    parts = b""
    while len(parts) < REQUEST.size:
        part = os.read(0, REQUEST.size - len(parts))
        if not part:
            return None
        parts += part
    return parts


def _reply(replies: int, number: int, status: int, *, retire: bool = False, detail: int = 0, length: int = 0) -> None:
    os.write(replies, REPLY.pack(MAGIC_REPLY, number, status, retire, detail, length))


class _Occupied:
    """Address space of this process, read from a file that stays open when no other can be opened."""

    def __init__(self) -> None:
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:  # not Linux
            self._statm = -1
        self._page = resource.getpagesize()

    def now(self) -> int:
        """Bytes; 0 where the system does not say."""
        return int(os.pread(self._statm, 64, 0).split()[0]) * self._page if self._statm >= 0 else 0
