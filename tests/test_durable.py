"""Files that are written whole or not at all, whenever the writer is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgehem import durable
from edgehem.durable import read_once, remove, write_new, write_whole

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills by POSIX signals")

STEPS = ("open", "replace", "fsync", "unlink", "mkdir", "close", "write")
"""System calls before which the writer is killed, each time it makes one."""

KILLED = f"""
import hashlib, json, os, random, shutil, signal, sys, time
from collections import Counter
from pathlib import Path

import msgspec

from edgehem.bundle import Bundle
from edgehem.errors import BundleError
from edgehem.export.bundling import graph_entry, write_atomic, write_manifest, write_record

folder, work, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


def graph(version):
    \"\"\"A model of an empty graph and 64,000 bytes of doc_string.\"\"\"
    text = hashlib.sha256(version.encode()).digest() * 2000
    return bytes.fromhex("32 80f403") + text + bytes.fromhex("3a 00")


def write(place, version):
    \"\"\"As a stage of the export does: graph, record, card, manifest.\"\"\"
    manifest = Bundle(place).manifest
    write_atomic(place / "model.onnx", graph(version))
    write_record(place, "export", {{"version": version}})
    entry = graph_entry(place, "model.onnx", "fp32", "float")
    write_manifest(place, msgspec.structs.replace(manifest, version=version, graphs=(entry,)))


def look(place):
    \"\"\"Which version loads: the graph, and each file, must be of the version that the manifest says.\"\"\"
    try:
        bundle = Bundle(place)
        data = bundle.read(bundle.graph("fp32"))
    except BundleError:
        return "refused"
    version = bundle.manifest.version
    if data != graph(version):
        return "MIXED"
    try:
        bundle.verify()
    except BundleError:
        return "loads, other files refused"
    if msgspec.json.decode((place / "records/export.json").read_bytes()) != {{"version": version}}:
        return "MIXED"
    return version


def doomed(place, last):
    \"\"\"Write in a process that kills itself before its `last`-th step; whether it got to the end.\"\"\"
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    count = 0

    def step(plain):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **kwargs)
        return call

    for name in {STEPS!r}:
        setattr(os, name, step(getattr(os, name)))
    write(place, "new")
    os._exit(0)


def fresh():
    place = work / "bundle"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    return place


write(folder, "old")
assert look(folder) == "old"
seen = Counter()
if mode == "steps":
    last, done = 0, False
    while not done:
        last += 1
        place = fresh()
        done = doomed(place, last)
        seen[look(place)] += 1
        write(place, "newer")  # what was left behind disturbs nobody
        assert look(place) == "newer", look(place)
else:
    rng = random.Random(8)
    place = fresh()
    for _ in range(60):
        ready, begun = os.pipe()
        child = os.fork()
        if not child:
            os.write(begun, b"!")
            while True:
                write(place, "new")
                write(place, "old")
        os.read(ready, 1)  # on a busy machine a child takes longer to start than to write
        os.close(ready), os.close(begun)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen[look(place)] += 1
        write(place, "old")
        assert look(place) == "old"
print(json.dumps(seen))
sys.exit("MIXED" in seen)
"""


@pytest.mark.parametrize("mode", ["steps", "moments"])
def test_a_killed_writer_leaves_the_old_bundle_the_new_one_or_none(
    mode: str, write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGKILL before every system call of a write, and at 60 random moments: never a mixture."""
    folder = write_bundle(files={"records/export.json": b"{}"})
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", KILLED, folder, tmp_path / "work", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    print(seen)
    assert sum(seen.values()) >= 30
    assert seen.keys() <= {"old", "new", "refused", "loads, other files refused"}
    assert seen["old"] and seen["new"]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves depends on the order: file, rename, folder."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        steps.append("folder" if os.path.isdir(f"/dev/fd/{handle}") else "file")  # noqa: PTH112
        sync(handle)

    def rename(old: Path, new: Path) -> None:
        assert old.parent == new.parent
        steps.append("rename")
        replace(old, new)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    monkeypatch.setattr(durable.os, "replace", rename)
    write_whole(tmp_path / "a", b"x")
    assert steps[0] == "file" and steps[-2:] == ["rename", "folder"]
    steps.clear()
    write_whole(tmp_path / "new" / "folder" / "a", b"x")
    assert steps[:3] == ["folder", "folder", "file"] and steps[-2:] == ["rename", "folder"]
    steps.clear()
    remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert steps == ["folder"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "a", b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_new_file_takes_nobodys_place(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"old", mode=0o600)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and not (tmp_path / "nowhere").exists()


def test_only_plain_files_of_the_expected_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_once(tmp_path / "a", 5)[0] == b"12345"
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    for path, limit in ((tmp_path / "a", 4), (tmp_path / "link", 9), (tmp_path / "pipe", 9), (tmp_path, 9),
                        (Path("/dev/zero"), 9), (tmp_path / "none", 9)):  # fmt: skip
        with pytest.raises(OSError, match=r"."):
            read_once(path, limit)
