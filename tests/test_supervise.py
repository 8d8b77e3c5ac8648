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
from edgehem.child import Child, starting
from edgehem.errors import EdgehemError
from edgehem.supervise import (
    SUPPORTED,
    Cause,
    ChildError,
    ChildLostError,
    ChildUnavailableError,
    Job,
    JobFailedError,
    Limits,
    Pool,
)

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="children with limits need a POSIX system")

BULK = 2**20

TASKS = '''
import os, resource, signal, socket, sys, time
from edgehem.sandbox.worker import TaskError

def _task(run):
    return lambda: run

@_task
def backwards(arguments, source, target):
    target[:] = bytes(reversed(source))

@_task
def pid(arguments, source, target):
    time.sleep(0.01)
    target[:] = os.getpid().to_bytes(8, "little")

@_task
def sleep(arguments, source, target):
    time.sleep(60)

@_task
def burn(arguments, source, target):
    while True:
        pass

@_task
def grow(arguments, source, target):
    kept = [bytearray(2**20) for _ in range(4096)]

@_task
def crash(arguments, source, target):
    os.kill(os.getpid(), signal.SIGSEGV)

@_task
def leave(arguments, source, target):
    os._exit(0)

@_task
def say_no(arguments, source, target):
    raise TaskError(7)

@_task
def stumble(arguments, source, target):
    raise RuntimeError("patient name")

@_task
def chatty(arguments, source, target):
    os.write(1, b"x" * 100_000)
    os.write(2, b"x" * 100_000)
    target[:] = bytes(reversed(source))

@_task
def rights(arguments, source, target):
    got = []
    for name, attempt in (("file", lambda: open("/etc/hostname")), ("socket", socket.socket), ("pipe", os.pipe)):
        try:
            attempt()
        except OSError:
            continue
        got.append(name)
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        got.append("core")
    if resource.getrlimit(resource.RLIMIT_FSIZE) != (0, 0):
        got.append("files grow")
    if any("SECRET" in name for name in os.environ):
        got.append("environment")
    if "onnxruntime" in sys.modules or "numpy" in sys.modules:
        got.append("modules")
    target[:] = ",".join(got).encode().ljust(len(target))

def _speaker(words, stay=True):
    """Says `words` instead of a reply, on the pipe for replies."""
    def factory():
        pipes = [int(n) for n in os.listdir("/proc/self/fd") if n.isdigit() and int(n) > 2]
        pipes = [n for n in pipes if os.path.exists(f"/proc/self/fd/{n}")]
        pipes = [n for n in pipes if os.readlink(f"/proc/self/fd/{n}").startswith("pipe:")]
        def run(arguments, source, target):
            os.write(pipes[0], words)
            time.sleep(60)
        return run
    return factory

garbage = _speaker(b"\\xff" * 16)
too_short = _speaker(b"EHre\\1")
too_long = _speaker(b"EHre" * 400)
other_number = _speaker(b"EHre" + (77).to_bytes(4, "little") + b"\\1\\0\\0\\0" + (10).to_bytes(4, "little"))
other_length = _speaker(b"EHre" + (1).to_bytes(4, "little") + b"\\1\\0\\0\\0" + (11).to_bytes(4, "little"))
other_status = _speaker(b"EHre" + (1).to_bytes(4, "little") + b"\\11\\0\\0\\0" + (10).to_bytes(4, "little"))

def shrink():
    """Tries to pull the shared memory away from under the parent."""
    links = [(n, f"/proc/self/fd/{n}") for n in range(3, 50) if os.path.exists(f"/proc/self/fd/{n}")]
    segment = os.dup(next(n for n, link in links if "memfd" in os.readlink(link)))
    def run(arguments, source, target):
        try:
            os.ftruncate(segment, 0)
        except PermissionError:
            target[:] = b"it held ..."[:len(target)]
    return run

def leak():
    kept = []
    def run(arguments, source, target):
        kept.append(bytearray(20 * 2**20))
        target[:] = os.getpid().to_bytes(8, "little")
    return run

def closes_its_pipe():
    def run(arguments, source, target):
        os.closerange(3, 100)
        time.sleep(60)
    return run

def forks():
    def run(arguments, source, target):
        if os.fork() == 0:
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGSEGV)
    return run

def forks_quietly():
    def run(arguments, source, target):
        if os.fork() == 0:
            os.closerange(0, 100)
            time.sleep(60)
        os._exit(0)
    return run

def broken():
    import a_library_that_is_not_there

def dies():
    os._exit(3)
'''


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mischief.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)


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


@pytest.mark.parametrize(
    ("task", "cause"),
    [
        ("crash", Cause.CRASH),
        ("leave", Cause.CRASH),
        ("sleep", Cause.TIME),
        ("burn", Cause.CPU),
        ("grow", Cause.MEMORY),
        ("garbage", Cause.PROTOCOL),
        ("too_short", Cause.PROTOCOL),
        ("too_long", Cause.PROTOCOL),
        ("other_number", Cause.PROTOCOL),
        ("other_length", Cause.PROTOCOL),
        ("other_status", Cause.PROTOCOL),
        ("closes_its_pipe", Cause.PROTOCOL),
    ],
)
def test_a_job_that_ruins_its_child_is_reported_and_the_pool_heals(pool: Pool, task: str, cause: Cause) -> None:
    start = time.monotonic()
    if task == "burn":
        # CPU time is counted in whole seconds; the wall clock must not be first on a busy machine.
        with Pool(source_bytes=BULK, target_bytes=BULK, limits=Limits(cpu_s=1, wall_s=20.0)) as patient:
            assert lost(patient, task) is cause
    else:
        assert lost(pool, task) is cause
    assert time.monotonic() - start < 20
    heals(pool)


@pytest.mark.parametrize("task", ["forks", "forks_quietly"])
def test_what_a_child_starts_is_ended_with_it(pool: Pool, task: str) -> None:
    """Only a superuser's child can start anything; where that keeps the pipe open, nobody waits for it for ever."""
    with pytest.raises(ChildError):
        pool.run(f"mischief:{task}", [job()])

    def left() -> set[int]:
        running = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        return {pid for pid in running if f"mischief:{task}'" in command(pid)} - set(pool.children)

    patience = time.monotonic() + 10
    while left() and time.monotonic() < patience:
        time.sleep(0.02)
    assert not left()


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


def test_an_exception_says_nothing_of_its_text(pool: Pool) -> None:
    with pytest.raises(JobFailedError) as caught:
        pool.run("mischief:stumble", [job()])
    assert caught.value.detail == 0
    assert "patient" not in str(caught.value)


def test_what_libraries_print_disturbs_nobody(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    out = bytearray(10)
    pool.run("mischief:chatty", [job(out=out)])
    assert out == b"9876543210"
    assert capfd.readouterr() == ("", "")


def test_a_child_has_few_rights(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEHEM_SECRET", "key")
    out = bytearray(100)
    pool.run("mischief:rights", [job(out=out)])
    assert out.strip() == b""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="sealed memory is Linux's")
def test_a_child_cannot_take_the_shared_memory_away(pool: Pool) -> None:
    out = bytearray(7)
    pool.run("mischief:shrink", [job(out=out)])
    assert out == b"it held"


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


def test_children_started_early_are_the_ones_that_work(pool: Pool) -> None:
    pool.warm("mischief:backwards", 1)
    (first,) = pool.children
    pool.warm("mischief:backwards", 9)
    pids = pool.children
    assert first in pids and len(pids) == 2
    heals(pool)
    pool.warm("mischief:backwards", 2)
    heals(pool)
    assert pool.children == pids


def test_children_started_early_that_are_killed_before_they_work(pool: Pool) -> None:
    for _ in range(3):
        pool.warm("mischief:backwards", 2)
        for pid in pool.children:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    heals(pool)


@pytest.mark.parametrize("task", ["mischief:broken", "no_such_module:task"])
def test_starting_early_what_cannot_start_is_said_with_the_first_job(pool: Pool, task: str) -> None:
    pool.warm(task, 2)
    time.sleep(0.2)
    pool.warm(task, 2)
    with pytest.raises(ChildUnavailableError):
        pool.run(task, [job()])


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


def test_a_parent_that_ignores_signals(pool: Pool) -> None:
    """What it ignores or blocks is inherited, and must not keep limits from ending a child."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGXCPU, signal.SIGCHLD)}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGXCPU})
    try:
        with Pool(source_bytes=BULK, target_bytes=BULK, limits=Limits(cpu_s=1, wall_s=20.0), size=1) as patient:
            heals(patient)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            assert lost(patient, "burn") is Cause.CPU
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            heals(patient)
            assert lost(patient, "crash") is Cause.CRASH
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGXCPU})
        for number, handler in before.items():
            signal.signal(number, handler)


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


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_until_a_child_is_made(pool: Pool) -> None:
    """Pipes that nobody has noted yet would stay open in the fork."""
    held = threading.Event()
    made: list[bool] = []

    def make() -> None:
        with starting:
            held.set()
            time.sleep(0.2)
            made.append(True)

    maker = threading.Thread(target=make)
    maker.start()
    held.wait()
    fork = os.fork()
    if fork == 0:
        os._exit(0 if made and starting.acquire(timeout=1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    maker.join()


def test_a_service_without_standard_input_and_output(tmp_path: Path) -> None:
    """The first descriptors it gets are 0, 1 and 2, which are replaced in every child."""
    program = f"""
import os, sys
sys.path.insert(0, {str(tmp_path)!r})
os.closerange(0, 3)
from edgehem.supervise import Job, Pool
out = bytearray(3)
def load(source):
    source[:3] = b"abc"
    return 3
with Pool(source_bytes=4096, target_bytes=4096, size=1) as pool:
    pool.run("mischief:backwards", [Job(arguments=b"", load=load, out=memoryview(out))])
open({str(tmp_path / "said")!r}, "wb").write(out)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == 0
    assert (tmp_path / "said").read_bytes() == b"cba"


@pytest.mark.parametrize("end", ["returns", "forgets", "leaves a thread at work", "is killed", "is killed at work"])
def test_no_child_outlives_its_parent(tmp_path: Path, end: str) -> None:
    program = f"""
import os, sys, threading, time
sys.path.insert(0, {str(tmp_path)!r})
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
