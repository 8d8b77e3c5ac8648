"""The one thread on a fake GPU: who waits, who gives up, what is freed where."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edgehem.backends import lane as lanes
from edgehem.backends.lane import Lane, close_lanes
from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError
from edgehem.kernels.errors import ContextLostError, KernelError, KernelMemoryError

pytestmark = pytest.mark.usefixtures("trt")


def raising(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_jobs_run_one_after_another_on_one_thread(lane: Lane) -> None:
    seen: list[int] = []

    def work(number: int) -> int:
        def inside() -> int:
            begun = len(seen)
            time.sleep(0.001)
            assert len(seen) == begun
            seen.append(threading.get_ident())
            return number

        return lane.do(inside)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == list(range(40))
    assert len(set(seen)) == 1 and threading.get_ident() not in seen


def test_a_job_may_ask_for_another(lane: Lane) -> None:
    """It is on the thread already: a second wait would never end."""
    assert lane.do(lambda: lane.do(lambda: 3) + 1) == 4


@pytest.mark.parametrize(
    ("error", "kind", "lost"),
    [
        (ContextLostError("gone"), DeviceLostError, True),
        (DeviceLostError("gone"), DeviceLostError, True),
        (KernelMemoryError("full"), BackendMemoryError, False),
        (KernelError("no"), BackendError, False),
        (BackendError("no"), BackendError, False),
        (ValueError("an empty stack"), ValueError, False),
        (TimeoutError("the work's own"), TimeoutError, False),
    ],
)
def test_errors_come_out_by_their_type(error: Exception, kind: type[Exception], lost: bool, lane: Lane) -> None:
    with pytest.raises(kind, match=str(error)) as caught:
        lane.do(raising(error))
    assert type(caught.value) is kind and bool(lane.lost) == lost
    if lost:
        with pytest.raises(DeviceLostError, match="the GPU is lost to this process: gone"):
            lane.do(lambda: None)
        with pytest.raises(DeviceLostError, match="lost to this process"):
            lanes.lane()
        lane.post(raising(AssertionError("a lost lane takes no jobs")))
        close_lanes()
        with pytest.raises(DeviceLostError, match="lost to this process"):
            lanes.lane()  # a CUDA context that failed stays failed
    else:
        assert lane.do(lambda: 1) == 1


def test_one_that_waits_gives_up_and_the_thread_stays_behind(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LOOK_S", 0.01)
    release, late = threading.Event(), []
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(lane.do, lambda: release.wait(30), patience_s=0.2)
        time.sleep(0.05)
        behind = pool.submit(lane.do, lambda: late.append(1))
        for each in (hanging, behind):
            with pytest.raises(DeviceLostError, match=r"did not answer for 0\.2 s"):
                each.result(10)
    release.set()
    close_lanes()
    assert late == []  # nobody wanted it any more


def test_time_behind_another_job_does_not_count(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that waits while a large plan is loaded is no sign of a lost device."""
    monkeypatch.setattr(lanes, "LOOK_S", 0.01)
    with ThreadPoolExecutor(2) as pool:
        opening = pool.submit(lane.do, lambda: time.sleep(0.6), patience_s=20)
        time.sleep(0.05)
        assert pool.submit(lambda: lane.do(lambda: 5, patience_s=0.2)).result(10) == 5
        opening.result(10)
    assert not lane.lost


def test_what_a_failed_job_held_is_freed_on_the_thread(lane: Lane) -> None:
    """The error is at hand and its traceback too, but not what its frames held; nor is it a circle."""

    class Thing:
        def __del__(self) -> None:
            freed.append(threading.current_thread().name)

    def work() -> None:
        thing = Thing()
        try:
            raise ValueError(f"made a {type(thing).__name__}")
        except ValueError as error:
            raise BackendError("outer") from error

    freed: list[str] = []
    with pytest.raises(BackendError) as caught:
        lane.do(work)
    assert freed == ["edgehem-gpu-0"]
    assert caught.traceback


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_an_error_is_no_circle(how: str, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a study gave to the job, its pixels above all, goes with the error, not when a collector comes by."""
    monkeypatch.setattr(lanes, "LOOK_S", 0.01)

    class Pixels: ...

    release = threading.Event()

    def ask(pixels: Pixels) -> None:
        def work() -> None:
            if how == "hangs":
                release.wait(30)
            raise BackendError(f"of {pixels}")

        with contextlib.suppress(BackendError):
            lane.do(work, patience_s=0.05)

    pixels = Pixels()
    seen = weakref.ref(pixels)
    gc.disable()
    try:
        ask(pixels)
        release.set()
        del pixels
        close_lanes()
        assert seen() is None
    finally:
        gc.enable()


def test_a_result_is_not_kept(lane: Lane) -> None:
    class Thing: ...

    result = lane.do(Thing)
    lane.do(lambda: None)
    seen = weakref.ref(result)
    gc.disable()
    try:
        del result
        assert seen() is None
    finally:
        gc.enable()


# Beginning and end


def test_a_process_has_one_lane_for_a_device(lane: Lane, cuda: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: lanes.lane(), range(20))) == {lane}
    assert lane.ordinal == 0 and cuda.calls["retain"] == 1


def test_a_closed_lane_says_so_and_the_next_is_new(lane: Lane, cuda: Any) -> None:
    lane.do(lambda: lane.preprocessor.reserve((4, 32, 32), _target(), None))
    assert cuda.memory
    lane.close()
    lane.close()
    assert not cuda.memory and lane.closed
    with pytest.raises(BackendError, match="closed"):
        lane.do(lambda: None)
    with pytest.raises(BackendError, match="closed"):
        _ = lane.preprocessor
    second = lanes.lane()
    assert second is not lane and second.do(lambda: 7) == 7


def _target() -> Any:
    from edgehem.kernels import Target

    return Target(shape=(2, 4, 4), spacing_mm=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))


def test_a_job_that_came_while_it_closed_does_not_wait_for_ever(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question whether it is open and its turn."""
    monkeypatch.setattr(lanes, "LOOK_S", 0.01)
    lane.close()
    with monkeypatch.context() as patch, pytest.raises(BackendError, match="closed"):
        patch.setattr(Lane, "closed", False)
        lane.do(lambda: None)


def test_a_lane_of_another_process_is_left_alone(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "_lanes", {(os.getpid() + 1, 0): lane})
        close_lanes()
        assert not lane.closed and lane.do(lambda: 1) == 1


def test_opening_a_device_may_take_longer_than_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels may have to be compiled."""
    made = lanes.CudaPreprocessor

    def slow(device: int) -> Any:
        time.sleep(0.3)
        return made(device=device)

    monkeypatch.setattr(lanes, "CudaPreprocessor", slow)
    monkeypatch.setattr(lanes, "LOOK_S", 0.01)
    monkeypatch.setitem(Lane.do.__kwdefaults__, "patience_s", 0.05)
    assert not lanes.lane().lost


def test_closing_closes_what_was_opened(lane: Lane, open_plan: Callable[..., Any], sums: bytes, cuda: Any) -> None:
    """The last first; a session of a closed lane says so, and closing it is quiet."""
    first, second = open_plan(sums), open_plan(sums)
    second.close()
    close_lanes()
    assert not cuda.memory
    with pytest.raises(BackendError, match="closed"):
        first.describe()
    first.close()


def test_what_cannot_be_closed_keeps_nothing_else_open(lane: Lane, cuda: Any) -> None:
    closed: list[str] = []

    class Opened:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            raise BackendError("no")

    for name in ("first", "let go", "last"):
        opened = Opened(name)
        lane.do(lambda opened=opened: lane.hold(opened))
        if name == "let go":
            lane.do(lambda opened=opened: lane.let_go(opened))
            lane.do(lambda opened=opened: lane.let_go(opened))
    lane.do(lambda: lane.preprocessor.reserve((4, 32, 32), _target(), None))
    lane.close()
    assert closed == ["last", "first"] and not cuda.memory


def test_a_device_that_is_not_there(cuda: Any) -> None:
    """No thread stays."""
    before = threading.active_count()
    with pytest.raises(BackendError, match="CUDA device 3"):
        lanes.lane(3)
    assert threading.active_count() == before
    cuda.devices = 0
    with pytest.raises(BackendError, match="no CUDA device"):
        lanes.lane()


def test_no_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(BackendError, match="pycuda"):
        lanes.lane()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_has_no_lane(lane: Lane) -> None:
    """Its thread stayed in the parent: the child is told at once, and does not wait for one that is not there."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            lane.do(lambda: None, patience_s=5)
            os.write(writing, b"it ran")
        except BackendError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert told.read() == b"this GPU lane is closed"
    assert lane.do(lambda: 1) == 1


def test_the_end_of_the_interpreter_frees_what_was_left_open() -> None:
    """On its thread, before modules are taken apart: pycuda and TensorRT complain loudly otherwise."""
    code = """
import threading
from edgehem.backends import lane as lanes

class Preprocessor:
    def __init__(self, device): ...
    def close(self): print("preprocessor", threading.current_thread().name, flush=True)

class Session:
    def close(self): print("session", threading.current_thread().name, flush=True)

lanes.CudaPreprocessor = Preprocessor
here = lanes.lane()
here.do(lambda: here.hold(Session()))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:2] == ["session edgehem-gpu-0", "preprocessor edgehem-gpu-0"]
