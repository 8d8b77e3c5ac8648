"""One child: what it may do, how it ends, and what is said of it. Each test has a pool that holds no other."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgehem.child import starting
from edgehem.supervise import SUPPORTED, Cause, ChildError, ChildLostError, Job, JobFailedError, Limits, Pool

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
    with Pool(source_bytes=BULK, target_bytes=BULK, limits=limits, size=1) as pool:
        yield pool
        heals(pool)
        (pid,) = pool.children
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)  # a zombie would still count
    gc.collect()
    assert descriptors() == before


def descriptors() -> int:
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.exists() else 0


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def ask(pool: Pool, task: str, size: int = 10) -> bytes:
    """The result of one job."""

    def load(source: memoryview) -> int:
        source[:10] = b"0123456789"
        return 10

    out = bytearray(size)
    pool.run(f"mischief:{task}", [Job(arguments=b"", load=load, out=memoryview(out))])
    return bytes(out)


def heals(pool: Pool) -> None:
    assert [ask(pool, "backwards") for _ in range(3)] == [b"9876543210"] * 3


def lost(pool: Pool, task: str) -> Cause:
    with pytest.raises(ChildLostError) as caught:
        ask(pool, task)
    return caught.value.cause


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
def test_a_job_that_ruins_its_child_is_reported_and_replaced(pool: Pool, task: str, cause: Cause) -> None:
    start = time.monotonic()
    if task == "burn":
        # CPU time is counted in whole seconds; the wall clock must not be first on a busy machine.
        with Pool(source_bytes=BULK, target_bytes=BULK, limits=Limits(cpu_s=1, wall_s=20.0), size=1) as patient:
            assert lost(patient, task) is cause
    else:
        assert lost(pool, task) is cause
    assert time.monotonic() - start < 20
    heals(pool)


@pytest.mark.parametrize("task", ["forks", "forks_quietly"])
def test_what_a_child_starts_is_ended_with_it(pool: Pool, task: str) -> None:
    """Only a superuser's child can start anything; where that keeps the pipe open, nobody waits for it for ever."""
    with pytest.raises(ChildError):
        ask(pool, task)

    def left() -> set[int]:
        running = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        return {pid for pid in running if f"mischief:{task}'" in command(pid)} - set(pool.children)

    patience = time.monotonic() + 10
    while left() and time.monotonic() < patience:
        time.sleep(0.02)
    assert not left()


def test_an_exception_says_nothing_of_its_text(pool: Pool) -> None:
    with pytest.raises(JobFailedError) as caught:
        ask(pool, "stumble")
    assert caught.value.detail == 0
    assert "patient" not in str(caught.value)


def test_what_libraries_print_disturbs_nobody(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(pool, "chatty") == b"9876543210"
    assert capfd.readouterr() == ("", "")


def test_a_child_has_few_rights(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEHEM_SECRET", "key")
    assert ask(pool, "rights", size=100).strip() == b""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="sealed memory is Linux's")
def test_a_child_cannot_take_the_shared_memory_away(pool: Pool) -> None:
    assert ask(pool, "shrink", size=7) == b"it held"


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
sys.path.insert(0, {str(MISCHIEF)!r})
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
