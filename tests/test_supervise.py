"""The owner of children: whatever one of them does, the others' work goes on and nothing is left behind."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgehem import supervise
from edgehem.child import Child
from edgehem.errors import EdgehemError
from edgehem.supervise import (
    SUPPORTED,
    Cause,
    ChildLostError,
    ChildUnavailableError,
    Job,
    JobFailedError,
    Limits,
    Pool,
)

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="children with limits need a POSIX system")

BULK = 2**20
MISCHIEF = Path(__file__).parent / "children"
"""Where the module is that has the tasks."""


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(MISCHIEF)


@pytest.fixture
def pool() -> Iterator[Pool]:
    limits = Limits(memory_bytes=64 * 2**20, cpu_s=1, wall_s=2.0)
    before = descriptors()
    with Pool(source_bytes=BULK, target_bytes=BULK, limits=limits, size=2) as pool:
        yield pool
        heals(pool)
        pids = pool.children
        assert len(pids) <= 2
    assert pool.children == ()
    assert not [pid for pid in pids if alive(pid)]  # a zombie would still count
    gc.collect()
    assert descriptors() == before


def descriptors() -> int:
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.exists() else 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def job(content: bytes = b"0123456789", out: bytearray | None = None, size: int = 10) -> Job:
    def load(source: memoryview) -> int:
        source[: len(content)] = content
        return len(content)

    return Job(arguments=b"", load=load, out=memoryview(bytearray(size) if out is None else out))


def heals(pool: Pool) -> None:
    """Three jobs done right."""
    outs = [bytearray(10) for _ in range(3)]
    pool.run("mischief:backwards", [job(b"012345678%d" % i, out) for i, out in enumerate(outs)])
    assert outs == [b"%d876543210" % i for i in range(3)]


def lost(pool: Pool, task: str, **kwargs: int) -> Cause:
    with pytest.raises(ChildLostError) as caught:
        pool.run(f"mischief:{task}", [job(**kwargs)])
    return caught.value.cause


def test_many_jobs_on_few_children_that_stay(pool: Pool) -> None:
    outs = [bytearray(1000) for _ in range(50)]
    contents = [bytes([i]) + bytes(range(250)) * 3 + bytes(249) for i in range(50)]
    for _ in range(2):
        pool.run("mischief:backwards", [job(content, out) for content, out in zip(contents, outs, strict=True)])
        first = pool.children
    assert [bytes(out) for out in outs] == [content[::-1] for content in contents]
    heals(pool)
    assert pool.children == first and len(first) == 2
    pool.run("mischief:backwards", [])


def test_jobs_run_side_by_side(pool: Pool) -> None:
    outs = [bytearray(8) for _ in range(40)]
    pool.run("mischief:pid", [job(out=out) for out in outs])
    assert {int.from_bytes(out, "little") for out in outs} == set(pool.children)


def test_a_failure_ends_the_batch_and_spares_the_others_of_the_pool(pool: Pool) -> None:
    outs = [bytearray(10) for _ in range(30)]
    loaded = []

    def load(source: memoryview) -> int:
        loaded.append(1)
        return 0

    with pytest.raises(JobFailedError) as caught:
        pool.run("mischief:say_no", [Job(arguments=b"", load=load, out=memoryview(out)) for out in outs])
    assert caught.value.detail == 7
    assert len(loaded) <= 3
    assert isinstance(caught.value, EdgehemError)


def test_a_child_that_leaks_is_replaced(pool: Pool) -> None:
    outs = [bytearray(8) for _ in range(12)]
    pool.run("mischief:leak", [job(out=out) for out in outs])
    assert len({bytes(out) for out in outs}) >= 6


def test_a_child_is_replaced_after_its_jobs() -> None:
    with Pool(source_bytes=BULK, target_bytes=BULK, limits=Limits(jobs=5), size=1) as pool:
        outs = [bytearray(8) for _ in range(20)]
        pool.run("mischief:pid", [job(out=out) for out in outs])
        assert len({bytes(out) for out in outs}) == 4


@pytest.mark.parametrize("task", ["mischief:broken", "mischief:dies", "mischief:nothing", "no_such_module:task"])
def test_a_task_that_cannot_start(pool: Pool, task: str) -> None:
    with pytest.raises(ChildUnavailableError):
        pool.run(task, [job()])


def test_an_interpreter_that_is_not_there(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "gone"))
        with pytest.raises(ChildUnavailableError):
            pool.run("mischief:backwards", [job()])
        patch.setattr(sys, "executable", None)
        with pytest.raises(ChildUnavailableError):
            pool.run("mischief:backwards", [job()])


def test_children_killed_while_idle_are_replaced_unnoticed(pool: Pool) -> None:
    for _ in range(3):
        heals(pool)
        for pid in pool.children:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    heals(pool)


def test_a_child_killed_at_work_by_somebody_else_is_replaced_once(pool: Pool) -> None:
    """Its job is given to another; when that one is killed too, the job fails."""
    killed: list[int] = []

    def kill(times: int) -> None:
        while len(killed) < times:
            for pid in set(pool.children) - set(killed):
                if Path(f"/proc/{pid}/cmdline").exists():
                    time.sleep(0.5)  # until it is at work
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, args=(2,))
    killer.start()
    assert lost(pool, "sleep") is Cause.OUTSIDE
    killer.join()
    assert len(set(killed)) == 2


def test_fewer_children_than_wanted_do_all_the_work(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no process or descriptor left for a second one."""
    made: list[Child] = []

    def start(*arguments: Any) -> Child:
        if made:
            raise BlockingIOError
        made.append(Child(*arguments))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(supervise, "Child", start)
        heals(pool)
        assert len(pool.children) == 1


def test_a_job_that_no_child_has_room_for(pool: Pool) -> None:
    for wrong in (
        job(size=BULK + mmap.PAGESIZE),
        replace(job(), arguments=bytes(49)),
        replace(job(), load=lambda _: -1),
    ):
        with pytest.raises(ValueError, match="larger"):
            pool.run("mischief:backwards", [wrong])


def test_a_source_that_cannot_be_loaded_reaches_the_caller(pool: Pool) -> None:
    def load(source: memoryview) -> int:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        pool.run("mischief:backwards", [job(), Job(arguments=b"", load=load, out=memoryview(bytearray(1)))])


def test_threads_share_the_children(pool: Pool) -> None:
    wrong: list[object] = []

    def use(number: int) -> None:
        for turn in range(10):
            content = bytes([number, turn]) * 50
            outs = [bytearray(100) for _ in range(5)]
            try:
                if number == 7 and turn % 5 == 0:
                    assert lost(pool, "crash") is Cause.CRASH
                task = "mischief:backwards" if number % 2 else "mischief:chatty"
                pool.run(task, [job(content, out) for out in outs])
            except BaseException as error:
                wrong.append(error)
            wrong.extend(out for out in outs if out != content[::-1])
            if len(pool.children) > 2:
                wrong.append(pool.children)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_has_a_pool_of_its_own(pool: Pool) -> None:
    heals(pool)
    pids = pool.children
    fork = os.fork()
    if fork == 0:
        code = 1
        try:
            if pool.children == ():
                heals(pool)
                code = 0 if set(pool.children).isdisjoint(pids) else 2
                pool.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    assert pool.children == pids
    heals(pool)
    assert pool.children == pids


@pytest.mark.parametrize("end", ["returns", "forgets", "leaves a thread at work", "is killed", "is killed at work"])
def test_no_child_outlives_its_parent(end: str) -> None:
    program = f"""
import os, sys, threading, time
sys.path.insert(0, {str(MISCHIEF)!r})
from edgehem.supervise import Job, Limits, Pool
pool = Pool(source_bytes=4096, target_bytes=4096, size=2, limits=Limits(wall_s=1.0))
jobs = [Job(arguments=b"", load=lambda source: 0, out=memoryview(bytearray(8))) for _ in range(4)]
pool.run("mischief:pid", jobs)
print(*pool.children, flush=True)
if {end!r} == "forgets":
    del pool
elif {end!r} == "leaves a thread at work":
    threading.Thread(target=pool.run, args=("mischief:sleep", jobs), daemon=True).start()
    time.sleep(0.3)
elif {end!r} == "is killed":
    os.kill(os.getpid(), 9)
elif {end!r} == "is killed at work":
    threading.Timer(0.5, os.kill, (os.getpid(), 9)).start()
    pool.run("mischief:sleep", jobs)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    patience = time.monotonic() + 20
    while [pid for pid in pids if alive(pid) and "mischief" in command(pid)] and time.monotonic() < patience:
        time.sleep(0.02)
    assert not [pid for pid in pids if alive(pid) and "mischief" in command(pid)]
