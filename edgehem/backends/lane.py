"""The one thread of a process that works on a GPU.

A CUDA context, its stream and what TensorRT makes of them belong to one thread here, the lane. Whoever wants something
done hands a job over and waits. So studies follow each other without locks, several graphs of a bundle share one stream
and one tensor, objects are freed where they were made, and a device that does not answer is noticed: the one who waits
gives up and says so, while the thread stays behind.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Generic, Protocol, TypeVar

from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError
from edgehem.kernels.cuda import CudaPreprocessor
from edgehem.kernels.errors import ContextLostError, KernelError, KernelMemoryError

RUN_S = 30.0
"""A job that is not done by then, from when it began, hangs: a study takes milliseconds."""
START_S = 300.0
"""To open a device: where no kernels were compiled before, that is done now."""
CLOSE_S = 5.0
LOOK_S = 0.1
"""How often one who waits looks whether the thread hangs."""

T = TypeVar("T")


class Closable(Protocol):
    """What was opened on a lane, and is freed on its thread."""

    def close(self) -> None: ...


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], T], patience_s: float) -> None:
        self.work, self.patience_s, self.done = work, patience_s, Future[T]()


class _Clock:
    """Until when the job that runs may run; for ever where none does."""

    until, patience_s = math.inf, 0.0


class Lane:
    """A thread with a CUDA context, a stream and the preprocessing kernels.

    Parameters
    ----------
    ordinal : int
        Of the device.

    Raises
    ------
    BackendError
        If there is no device, no pycuda, or no kernels for it.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self.ordinal = ordinal
        self._lost = ""
        self._held: list[Any] = []  # the preprocessor, then what was opened: its thread's alone
        self._clock = _Clock()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        arguments = (self._jobs, self._clock)
        self._thread = threading.Thread(target=_work, args=arguments, name=f"edgehem-gpu-{ordinal}", daemon=True)
        self._thread.start()
        # Before the interpreter takes its modules apart: pycuda frees only on the thread that allocated.
        self._end = weakref.finalize(self, _end, self._jobs, self._thread, self._held)
        try:
            self.do(lambda: self._held.append(CudaPreprocessor(device=ordinal)), patience_s=START_S)
        except BaseException:
            self._end()
            raise

    @property
    def lost(self) -> str:
        """Why nothing can be done any more; empty while all is well."""
        return self._lost

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, or the thread stayed behind in the process this one was forked from."""
        return not (self._end.alive and self._thread.is_alive())

    @property
    def preprocessor(self) -> CudaPreprocessor:
        """The kernels on this lane's stream: for jobs alone."""
        if not self._held:
            raise BackendError("this GPU lane is closed")
        found: CudaPreprocessor = self._held[0]
        return found

    def hold(self, opened: Closable) -> None:
        """Close something before the thread ends, unless it was let go before: for jobs alone."""
        self._held.append(opened)

    def let_go(self, opened: Closable) -> None:
        """The opposite: for jobs alone."""
        self._held[1:] = [held for held in self._held[1:] if held is not opened]

    def do(self, work: Callable[[], T], *, patience_s: float = RUN_S) -> T:
        """Have the thread do something, and wait for it.

        Parameters
        ----------
        work : callable
        patience_s : float
            After it ran for this long the device counts as lost. Time behind other jobs does not count.

        Raises
        ------
        BackendMemoryError
            If the device's memory does not suffice.
        DeviceLostError
            If the device failed for good, now or before, or does not answer.
        BackendError
        """
        if threading.current_thread() is self._thread:
            return work()
        if self._lost:
            raise DeviceLostError(f"the GPU is lost to this process: {self._lost}")
        if self.closed:
            raise BackendError("this GPU lane is closed")
        job = _Job(work, patience_s)
        self._jobs.put(job)
        try:
            return self._awaited(job)
        except ContextLostError as error:
            self._lost = str(error)
            raise DeviceLostError(f"the GPU is lost to this process: {error}") from error
        except DeviceLostError as error:
            self._lost = self._lost or str(error)
            raise
        except KernelMemoryError as error:
            raise BackendMemoryError(str(error)) from error
        except KernelError as error:
            raise BackendError(str(error)) from error
        finally:
            del job  # as below

    def post(self, work: Callable[[], object]) -> None:
        """Have the thread do something, without waiting and without an answer. Never raises; any thread may call it."""
        if not self._lost:
            self._jobs.put(_Job(work, RUN_S))

    def _awaited(self, job: _Job[T]) -> T:
        try:
            while True:
                try:
                    return job.done.result(LOOK_S)
                except FutureTimeoutError:
                    if job.done.done():
                        return job.done.result()
                    if not self._lost and time.monotonic() > self._clock.until:
                        self._lost = f"it did not answer for {self._clock.patience_s:g} s"
                    if self._lost or not self._thread.is_alive():
                        break
            job.done.cancel()  # should the thread ever come back: nobody wants it any more
        finally:
            del job  # with its error and this frame it would be a circle, and freed who knows where
        if self._lost:
            raise DeviceLostError(f"the GPU is lost to this process: {self._lost}")
        raise BackendError("this GPU lane is closed")

    @contextlib.contextmanager
    def entered(self, doing: str) -> Iterator[CudaPreprocessor]:
        """The context is current inside: for jobs alone."""
        with self.preprocessor.entered(doing):
            try:
                yield self.preprocessor
            except BaseException as error:
                empty_frames(error)  # what they made of the context goes while it is current
                raise

    def close(self) -> None:
        """Close what was opened on this lane, free the device and end the thread. Twice is as good as once."""
        self._end()


def _work(jobs: queue.SimpleQueue[_Job[Any] | None], clock: _Clock) -> None:
    """The thread. It keeps nothing of a job: an exception's frames would hold what must be freed."""
    while (job := jobs.get()) is not None:
        clock.patience_s = job.patience_s
        clock.until = time.monotonic() + job.patience_s
        if job.done.set_running_or_notify_cancel():
            try:
                result = job.work()
            except BaseException as error:
                empty_frames(error)
                job.done.set_exception(error)
                del error
            else:
                job.done.set_result(result)
                del result
        clock.until = math.inf
        del job


def _end(jobs: queue.SimpleQueue[_Job[Any] | None], thread: threading.Thread, held: list[Any]) -> None:
    def close_all() -> None:
        while held:
            last = held.pop()  # the preprocessor is the first: the others need it to the end
            with contextlib.suppress(Exception):  # a lost device: the process ends, and its memory with it
                last.close()
            del last

    jobs.put(_Job(close_all, CLOSE_S))
    jobs.put(None)
    thread.join(CLOSE_S)


def empty_frames(error: BaseException | None) -> None:
    """Let go of what the calls behind an error and its causes held: builders, engines, memory.

    Else it would be freed with the error, by the thread that caught it, without a context.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


_lanes: dict[tuple[int, int], Lane] = {}
_making = threading.Lock()


def lane(ordinal: int = 0) -> Lane:
    """This process's lane on a device; a new one after the last was lost or closed.

    Raises
    ------
    BackendError
        As :class:`Lane`.
    DeviceLostError
        If the device was lost to this process: a CUDA context that failed stays failed.
    """
    key = (os.getpid(), ordinal)  # a fork has no thread and no context
    with _making:
        found = _lanes.get(key)
        if found is not None and found.lost:
            raise DeviceLostError(f"the GPU is lost to this process: {found.lost}")
        if found is None or found.closed:
            found = _lanes[key] = Lane(ordinal)
        return found


def close_lanes() -> None:
    """Close every lane of this process, with what was opened on it. One that was lost stays lost."""
    with _making:
        for (process, _), found in list(_lanes.items()):
            if process == os.getpid():
                found.close()
