"""Folders of unpacked studies: none outlives its process for long, and none is taken from a process that lives."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgehem.dicom import private_folder
from edgehem.dicom.archive import unpacked
from edgehem.dicom.private_folder import PREFIX, UNLOCKED_PREFIX, PrivateFolder, remove_leftovers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are a thing of POSIX here")

HOUR_S = 3600.0

IN_USE = """
import os, subprocess, sys, tempfile
from pathlib import Path
from edgehem.dicom.archive import unpacked
with unpacked(Path(sys.argv[1])) as place:
    if sys.argv[2:] == ["with children"]:
        subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False, stderr=subprocess.DEVNULL)
        if os.fork() == 0:
            print(place, flush=True)  # said by the fork: by now it has closed what it must not keep
            sys.stdin.readline()
            os._exit(0)
    else:
        print(place, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory."""
    room = tmp_path / "tmp"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    return room


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A zip file."""
    with zipfile.ZipFile(tmp_path / "CANARY.zip", "w") as out:
        out.writestr("CANARY.dcm", bytes(128) + b"DICM" + bytes(1000))
    return tmp_path / "CANARY.zip"


@pytest.fixture
def reader(room: Path, packed: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """Starts processes that are reading a zip file, and says where each unpacked it; they get old at once."""
    with contextlib.ExitStack() as started:

        def start(*arguments: str) -> tuple[subprocess.Popen[str], Path]:
            process = subprocess.Popen(
                [sys.executable, "-c", IN_USE, str(packed), *arguments],
                env={**os.environ, "TMPDIR": str(room)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            started.enter_context(process)  # closes its pipes, which ends its children, and waits for it
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip()).parent
            age(folder)
            return process, folder

        yield start


def age(folder: Path, seconds: float = HOUR_S) -> Path:
    then = time.time() - seconds
    os.utime(folder, (then, then))
    return folder


def leftover(room: Path, name: str = "0123456789abcdef") -> Path:
    """What a killed process leaves."""
    folder = room / f"{PREFIX}{name}"
    folder.mkdir(mode=0o700)
    (folder / "lock").touch()
    (folder / "study").mkdir(mode=0o700)
    (folder / "study" / "00000.dcm").write_bytes(b"a patient")
    return age(folder)


@pytest.mark.parametrize("children", [(), ("with children",)])
def test_what_a_killed_process_leaves_is_removed_by_the_next(reader, packed, room, children):
    """Also when its children live: neither what it started nor a fork keeps its lock."""
    process, folder = reader(*children)
    process.kill()
    process.wait()
    assert [file.name for file in (folder / "study").iterdir()] == ["00000.dcm"]
    with unpacked(packed) as place:
        assert list(room.iterdir()) == [place.parent]
    assert list(room.iterdir()) == []


def test_what_a_living_process_uses_stays(reader, packed, caplog):
    process, folder = reader()
    caplog.set_level(logging.INFO)
    with unpacked(packed):
        assert (folder / "study" / "00000.dcm").exists()
    assert caplog.records == []
    process.communicate("\n", timeout=20)
    assert not folder.exists()


def test_what_this_process_uses_stays(packed):
    with unpacked(packed) as first, unpacked(packed) as second:
        age(first.parent), age(second.parent)
        remove_leftovers()
        assert first != second and len(list(first.iterdir())) == len(list(second.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_takes_nothing_from_its_parent(packed):
    """It comes to the end of the context, too; the folder is its parent's."""
    me = os.getpid()
    code = 1
    try:
        with unpacked(packed) as place:
            fork = os.fork()
            if fork:
                assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
                age(place.parent)
                remove_leftovers()
                assert len(list(place.iterdir())) == 1
        if os.getpid() != me and place.exists():
            code = 0
    finally:
        if os.getpid() != me:
            os._exit(code)
    assert not place.parent.exists()


def test_what_is_young_stays(room):
    folder = age(leftover(room), 30)
    remove_leftovers()
    assert (folder / "study" / "00000.dcm").exists()
    age(folder, 90)
    remove_leftovers()
    assert not folder.exists()


def test_what_was_not_made_here_stays(room, tmp_path, monkeypatch):
    target = leftover(tmp_path)
    (room / f"{PREFIX}{1:016x}").symlink_to(target)
    (room / f"{PREFIX}{2:016x}").touch(mode=0o600)
    for name in (f"{PREFIX}{3:017x}", f"{PREFIX}ours-it-is-not-1", f"{UNLOCKED_PREFIX}{4:016x}"):
        leftover(room).rename(room / name)
    leftover(room, f"{5:016x}").chmod(0o755)
    for file in room.iterdir():
        if not file.is_symlink():
            age(file)
    before = sorted(room.rglob("*"))
    remove_leftovers()
    assert sorted(room.rglob("*")) == before and len(list(target.iterdir())) == 2
    leftover(room, f"{6:016x}")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    remove_leftovers()
    assert len(list(room.iterdir())) == 7


def test_a_link_in_a_leftover_leads_nowhere(room, tmp_path):
    """Only the link goes, not what it points to; one in place of the lock is not followed either."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    folder = leftover(room)
    (folder / "study" / "link").symlink_to(kept)
    other = leftover(room, f"{7:016x}")
    (other / "lock").unlink()
    (other / "lock").symlink_to(kept / "file")
    age(folder), age(other)
    remove_leftovers()
    assert not folder.exists() and other.exists() and (kept / "file").exists()


def test_a_process_killed_before_it_had_a_lock(room):
    (room / f"{PREFIX}0123456789abcdef").mkdir(mode=0o700)
    age(room / f"{PREFIX}0123456789abcdef")
    remove_leftovers()
    assert list(room.iterdir()) == []


def test_the_log_tells_and_names_nothing(room, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    remove_leftovers()
    assert caplog.records == []
    leftover(room)
    remove_leftovers()
    leftover(room)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        remove_leftovers()
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "WARNING"] and "1 folder" in caplog.text and str(room) not in caplog.text
    remove_leftovers()
    assert list(room.iterdir()) == []


def test_a_folder_that_cannot_be_removed_is_said(packed, room, monkeypatch, caplog):
    with monkeypatch.context() as patch, unpacked(packed):
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "could not be removed" in record.message
    assert "CANARY" not in record.message and str(room) not in record.message


def test_only_some_are_removed_at_once(room, monkeypatch):
    monkeypatch.setattr(private_folder, "MAX_LEFTOVERS", 3)
    for number in range(5):
        leftover(room, f"{number:016x}")
    remove_leftovers()
    assert len(list(room.iterdir())) == 2
    remove_leftovers()
    assert list(room.iterdir()) == []


def test_no_temporary_directory(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    remove_leftovers()
    assert "could not be searched" in caplog.text


@pytest.mark.parametrize("supported", [True, False])
def test_where_nothing_can_be_locked_nobody_looks_for_folders(room, monkeypatch, supported):
    """Some network file systems; systems other than POSIX."""
    import fcntl

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(private_folder, "_SUPPORTED", supported)
    with PrivateFolder() as place:
        (place / "slice").touch()
        assert list(room.iterdir()) == [place.parent] and not place.parent.name.startswith(PREFIX)
        monkeypatch.undo()
        age(place.parent)
        remove_leftovers()
        assert (place / "slice").exists()
    assert list(room.iterdir()) == []


def test_many_at_once(room):
    """Threads that make, use and clear away: nobody loses a folder that is in use, and nothing stays."""
    for number in range(40):
        leftover(room, f"{number:016x}")
    lost: list[Path] = []

    def use() -> None:
        for _ in range(10):
            remove_leftovers()
            with PrivateFolder() as place:
                (place / "slice").touch()
                age(place.parent)
                remove_leftovers()
                if not (place / "slice").exists():
                    lost.append(place)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == [] and list(room.iterdir()) == [] and private_folder._noted == set()


@pytest.mark.parametrize("where", ["mkdir", "touch", "lstat", "rmtree"])
def test_stopped_at_any_step_it_removes_what_it_made(packed, room, monkeypatch, where):
    """As SIGTERM does at the command line: the step is done, and then the process ends."""
    owner = shutil if where == "rmtree" else Path
    whole = getattr(owner, where)

    def stop(*arguments: object, **options: object) -> object:
        done = whole(*arguments, **options)
        if PREFIX in str(arguments[0]):
            monkeypatch.undo()
            monkeypatch.setattr(tempfile, "tempdir", str(room))
            raise SystemExit(143)
        return done

    monkeypatch.setattr(owner, where, stop)
    with pytest.raises(SystemExit), unpacked(packed):
        pass
    gc.collect()
    assert list(room.iterdir()) == [] and private_folder._noted == set()
