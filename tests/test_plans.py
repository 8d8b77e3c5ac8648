"""The plan store: what may serve, what may not and in which words, and several processes at once."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehem import plans
from edgehem import state as states
from edgehem.errors import PlanError
from edgehem.plans import MOST_BUILDS, PlanStore, Record

KEY = {"graph": "g" * 64, "bundle": "b" * 64, "GPU": "Fake GPU", "driver": "550.54.15", "TensorRT": "10.3.0.26"}
FIGURES = {"shift": 0.001, "flips": 1, "sqnr_db": 41.5, "fidelity_db": 60.0}
PLAN = b"a plan" * 100


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "state" / "plans")


def keep(store: PlanStore, plan: bytes = PLAN, engine: str = "tensorrt", **changes: str) -> str:
    return store.keep(engine, {**KEY, **changes}, plan, settings={"level": 3}, details={"count": 7})


def qualify(store: PlanStore, id: str) -> None:
    store.qualify(id, reference="onnxruntime", probes={"kind": "given", "count": 3}, figures=FIGURES)


def age(store: PlanStore, id: str, seconds: int) -> None:
    """Make a record older: file systems keep times in steps."""
    path = store.folder / f"{id}.json"
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))


# A build's life


def test_a_build_serves_after_it_was_qualified(store: PlanStore) -> None:
    id = keep(store)
    with pytest.raises(PlanError, match=r"no plan of tensorrt .*: it was never compared with the reference; run"):
        store.load("tensorrt", KEY)
    qualify(store, id)
    plan, record = store.load("tensorrt", dict(reversed(KEY.items())))
    assert plan == PLAN and record.id == id and record.key == KEY
    assert (record.sha256, record.bytes) == (hashlib.sha256(PLAN).hexdigest(), len(PLAN))
    assert (record.settings, record.details) == ({"level": 3}, {"count": 7})
    shown = record.qualified
    assert shown is not None and (shown.shift, shown.flips, shown.sqnr_db, shown.fidelity_db) == (0.001, 1, 41.5, 60.0)
    assert (shown.reference, shown.probes) == ("onnxruntime", {"kind": "given", "count": 3})
    assert record.made <= shown.made


def test_the_newest_qualified_build_serves(store: PlanStore) -> None:
    first, second, third = (keep(store, bytes([n])) for n in range(3))
    for id in (first, second):
        qualify(store, id)
    age(store, first, 10)
    age(store, second, 5)
    assert len({first, second, third}) == 3
    assert store.load("tensorrt", KEY)[1].id == second
    assert [record.id for record in store.records()] == [third, second, first]


def test_the_same_bytes_again_have_to_be_qualified_again(store: PlanStore) -> None:
    """Whoever built them may find that they do not compute what they should."""
    id = keep(store)
    qualify(store, id)
    assert keep(store) == id
    with pytest.raises(PlanError, match="never compared"):
        store.load("tensorrt", KEY)


def test_everything_lies_in_a_folder_of_this_user_alone(store: PlanStore) -> None:
    id = keep(store)
    assert sorted(path.name for path in store.folder.iterdir()) == [f"{id}.bin", f"{id}.json"]
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_an_empty_store_is_not_made_by_looking(store: PlanStore) -> None:
    assert store.records() == []
    with pytest.raises(PlanError, match="here: none was made; run edgehem compile"):
        store.load("tensorrt", KEY)
    assert not store.folder.exists()


# Stale


@pytest.mark.parametrize("part", ["GPU", "driver", "TensorRT"])
def test_what_differs_is_said(part: str, store: PlanStore) -> None:
    qualify(store, keep(store, **{part: "another"}))
    with pytest.raises(PlanError, match=f"here: {part} was another, is {KEY[part]}; run"):
        store.load("tensorrt", KEY)


@pytest.mark.parametrize(
    ("kept", "asked", "words"),
    [
        ({"bundle": "c" * 64}, {}, "it is of another bundle"),
        ({"bundle": "c" * 64, "driver": "1"}, {}, "it is of another bundle; driver was 1, is 550.54.15"),
        ({"graph": "c" * 64}, {}, "none was made"),
        ({}, {"DLA": "0"}, "DLA was absent, is 0"),
        ({"DLA": "0"}, {}, "DLA was 0, is absent"),
    ],
)
def test_what_differs_is_said_in_words(
    kept: dict[str, str], asked: dict[str, str], words: str, store: PlanStore
) -> None:
    """No hash is shown where a word says as much."""
    qualify(store, keep(store, **kept))
    with pytest.raises(PlanError, match=f"here: {words}; run"):
        store.load("tensorrt", {**KEY, **asked})


def test_the_nearest_build_is_told(store: PlanStore) -> None:
    builds = ({"driver": "1", "GPU": "x"}, {"driver": "2"}, {"GPU": "y", "TensorRT": "z"})
    for number, changes in enumerate(builds):
        qualify(store, keep(store, bytes([number]), **changes))
    with pytest.raises(PlanError, match=r"here: driver was 2, is 550\.54\.15; run"):
        store.load("tensorrt", KEY)


def test_keys_that_read_alike_are_two(store: PlanStore) -> None:
    """A part's value may hold whatever a driver calls its device."""
    qualify(store, keep(store, GPU="x\nH=1"))
    with pytest.raises(PlanError, match="there is no plan"):
        store.load("tensorrt", {**KEY, "GPU": "x", "H": "1"})
    assert store.load("tensorrt", {**KEY, "GPU": "x\nH=1"})[0] == PLAN


def test_another_engines_build_is_not_told(store: PlanStore) -> None:
    qualify(store, keep(store, engine="tensorrt-dla"))
    with pytest.raises(PlanError, match=r"no plan of tensorrt that .* here: none was made"):
        store.load("tensorrt", KEY)


# Damage


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a byte", "it is damaged"),
        ("shorter", "it is damaged"),
        ("empty", "it is damaged"),
        ("gone", r"it cannot be read \(No such file"),
        ("link", r"it cannot be read \(it is a link"),
        ("folder", "it cannot be read"),
        ("too large", r"it cannot be read \(it has 600 bytes; at most 599"),
    ],
)
def test_a_damaged_plan_does_not_serve(how: str, words: str, store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor can it be qualified. The build before it serves."""
    id = keep(store)
    qualify(store, id)
    path = store.folder / f"{id}.bin"
    if how == "a byte":
        path.write_bytes(PLAN[:-1] + b"\x00")
    elif how == "shorter":
        path.write_bytes(PLAN[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "too large":
        monkeypatch.setattr(plans, "MOST_PLAN_BYTES", len(PLAN) - 1)
    else:
        path.unlink()
        if how == "link":
            other = store.folder / "elsewhere"
            other.write_bytes(PLAN)
            path.symlink_to(other)
        elif how == "folder":
            path.mkdir()
    with pytest.raises(PlanError, match=f"here: {words}"):
        store.load("tensorrt", KEY)
    with pytest.raises(PlanError, match=f"plan {id} (cannot be read|is not the one)"):
        qualify(store, id)
    older = keep(store, b"older")
    qualify(store, older)
    age(store, older, 60)
    assert store.load("tensorrt", KEY)[0] == b"older"


def rewritten(content: bytes, how: str) -> bytes:
    record = msgspec.json.decode(content)
    if how == "another key":
        record["key"]["driver"] = "1"
    elif how == "another hash":
        record["sha256"] = "0" * 64
    elif how == "another schema":
        record["schema"] = "edgehem.plan/9"
    elif how == "more":
        record["more"] = 1
    elif how == "deep":
        return b'{"details":' + b"[" * 100_000
    elif how == "half":
        return content[: len(content) // 2]
    elif how == "not text":
        return content.replace(b"tensorrt", b"tensor\xff\xfe")
    elif how == "empty":
        return b""
    return bytes(msgspec.json.encode(record))


@pytest.mark.parametrize(
    "how", ["another key", "another hash", "another schema", "more", "deep", "half", "not text", "empty"]
)
def test_a_damaged_record_is_passed_over(how: str, store: PlanStore) -> None:
    """It says nothing, not even why nothing serves. Its name has to be that of what it says."""
    id = keep(store)
    qualify(store, id)
    path = store.folder / f"{id}.json"
    path.write_bytes(rewritten(path.read_bytes(), how))
    assert store.records() == []
    with pytest.raises(PlanError, match="none was made"):
        store.load("tensorrt", KEY)
    with pytest.raises(PlanError, match=f"the record of plan {id} is damaged"):
        qualify(store, id)


def test_a_record_that_is_a_link_is_passed_over(store: PlanStore) -> None:
    id = keep(store)
    qualify(store, id)
    path = store.folder / f"{id}.json"
    path.rename(store.folder / "elsewhere")
    path.symlink_to(store.folder / "elsewhere")
    assert store.records() == []


@pytest.mark.parametrize("id", ["", "x", "../x", "tensorrt-" + "0" * 32, "a/b-" + "0" * 32 + "-" + "0" * 16])
def test_what_is_no_plans_name_is_refused(id: str, store: PlanStore) -> None:
    with pytest.raises(PlanError, match="that is no plan's name"):
        qualify(store, id)


def test_a_plan_that_is_not_there_cannot_be_qualified(store: PlanStore) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        qualify(store, "tensorrt-" + "0" * 32 + "-" + "0" * 16)


def test_other_files_in_the_folder_do_no_harm(store: PlanStore) -> None:
    id = keep(store)
    (store.folder / "notes.json").write_text("{}")
    (store.folder / ".x.json.0123.part").write_text("{")
    (store.folder / "timing-0.cache").write_bytes(b"x")
    (store.folder / f"{id[:-1]}.json").mkdir()
    assert [record.id for record in store.records()] == [id]


@pytest.mark.parametrize("name", ["shift", "sqnr_db", "fidelity_db"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_qualify_nothing(name: str, value: float, store: PlanStore) -> None:
    """JSON has no word for them: the record would be a damaged one."""
    id = keep(store)
    with pytest.raises(PlanError, match="no number"):
        store.qualify(id, reference="onnxruntime", probes={}, figures={**FIGURES, name: value})
    assert [record.qualified for record in store.records()] == [None]


# Others on this machine


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
@pytest.mark.skipif(not states.PRIVATE, reason="no modes here")
def test_a_folder_that_is_open_to_others_is_not_believed(
    mode: int, store: PlanStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither read nor written."""
    id = keep(store)
    qualify(store, id)
    store.folder.chmod(mode)
    with caplog.at_level(logging.WARNING), pytest.raises(PlanError, match="none was made"):
        store.load("tensorrt", KEY)
    assert "Plans are not used" in caplog.text and str(store.folder) not in caplog.text
    assert store.records() == []
    with pytest.raises(PermissionError):
        keep(store, b"another")
    with pytest.raises(PlanError, match="cannot be read"):
        qualify(store, id)


def test_a_folder_that_is_a_link_is_not_believed(store: PlanStore, tmp_path: Path) -> None:
    qualify(store, keep(store))
    elsewhere = tmp_path / "elsewhere"
    store.folder.rename(elsewhere)
    store.folder.symlink_to(elsewhere)
    assert store.records() == []
    with pytest.raises(PermissionError):
        keep(store)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["folder", "record", "plan"])
def test_what_another_user_could_have_written_is_not_believed(which: str, store: PlanStore) -> None:
    id = keep(store)
    qualify(store, id)
    names = {"folder": "", "record": f"{id}.json", "plan": f"{id}.bin"}
    os.chown(store.folder / names[which], 12345, 12345)
    with pytest.raises(PlanError, match="none was made" if which != "plan" else "is another user's"):
        store.load("tensorrt", KEY)


# Room


def test_the_oldest_builds_go(store: PlanStore) -> None:
    """With their plans, and damaged ones too."""
    ids = []
    for number in range(MOST_BUILDS + 3):
        ids.append(keep(store, bytes([number])))
        age(store, ids[-1], 1000 - number)
        if number == 1:
            (store.folder / f"{ids[1]}.json").write_text("{")
            age(store, ids[1], 1000 - number)
    left = {path.stem for path in store.folder.iterdir()}
    assert left == set(ids[-MOST_BUILDS:])
    assert len(list(store.folder.iterdir())) == 2 * MOST_BUILDS


def test_what_cannot_be_removed_stays(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to fail: the build was kept."""
    monkeypatch.setattr(plans, "MOST_BUILDS", 1)
    first = keep(store, b"1")
    age(store, first, 10)
    (store.folder / f"{first}.bin").unlink()
    (store.folder / f"{first}.bin").mkdir()  # unlink refuses
    second = keep(store, b"2")
    assert (store.folder / f"{second}.bin").is_file() and not (store.folder / f"{first}.json").exists()


def test_no_room_leaves_what_was_there(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, at the plan: its record says nothing, and the build before it serves."""
    first = keep(store)
    qualify(store, first)
    write = states.write_private

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".bin":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(states, "write_private", full)
    with pytest.raises(OSError, match="No space left"):
        keep(store, b"another")
    assert store.load("tensorrt", KEY)[1].id == first


# Several at once


def child(store: PlanStore, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, with the store's folder as its first argument."""
    head = f"KEY, FIGURES = {KEY}, {FIGURES}\nimport sys, time\nfrom pathlib import Path\n"
    head += "from edgehem.plans import PlanStore\n"
    command = [sys.executable, "-c", head + code, str(store.folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


BUILDER = """
store, number, same = PlanStore(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3] == "same"
print("ready", flush=True)
for round in range(12):
    plan = (b"%d " % round if same else b"%d %d " % (number, round)) * 20000
    id = store.keep("tensorrt", KEY, plan, settings={}, details={})
    store.qualify(id, reference="r", probes={}, figures=FIGURES)
"""


@pytest.mark.parametrize("bytes_of", ["same", "own"])
def test_two_processes_build_while_a_third_reads(bytes_of: str, store: PlanStore) -> None:
    """Every build that is read is whole; in the end each one's is there. No part file is left."""
    builders = [child(store, BUILDER, str(number), bytes_of) for number in range(2)]
    seen: list[Record] = []
    while any(builder.poll() is None for builder in builders):
        try:
            plan, record = store.load("tensorrt", KEY)
        except PlanError as error:
            assert "damaged" not in str(error)
        else:
            words = set(plan.split(b" ")[:-1]) if bytes_of == "same" else {plan[: len(plan) // 20000]}
            assert len(words) == 1 and hashlib.sha256(plan).hexdigest() == record.sha256
            seen.append(record)
    for builder in builders:
        said, wrong = builder.communicate(timeout=60)
        assert (builder.returncode, said, wrong) == (0, "ready\n", "")
    assert seen and all(record.qualified for record in seen)
    records = store.records()
    assert len(records) == (12 if bytes_of == "same" else 24) and all(record.qualified for record in records)
    assert not [path for path in store.folder.iterdir() if path.suffix not in (".json", ".bin")]


def test_many_threads_keep_qualify_and_load(store: PlanStore) -> None:
    def work(number: int) -> None:
        plan = b"%d" % number * 1000
        id = keep(store, plan, driver=str(number % 3))
        qualify(store, id)
        found, record = store.load("tensorrt", {**KEY, "driver": str(number % 3)})
        assert hashlib.sha256(found).hexdigest() == record.sha256

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(18)))
    assert len(store.records()) == 18


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_process_that_is_killed_between_record_and_plan(store: PlanStore) -> None:
    """It leaves a record that says nothing, which the next build of the same bytes makes whole."""
    qualify(store, keep(store, b"before"))
    code = """
from edgehem import state
write = state.write_private
def slow(path, content):
    if path.suffix == ".bin":
        print("between", flush=True)
        time.sleep(60)
    write(path, content)
state.write_private = slow
PlanStore(Path(sys.argv[1])).keep("tensorrt", KEY, b"after", settings={}, details={})
"""
    builder = child(store, code)
    assert builder.stdout is not None and builder.stdout.readline() == "between\n"
    builder.kill()
    builder.communicate(timeout=30)
    assert len(store.records()) == 2
    (lost,) = [record.id for record in store.records() if record.qualified is None]
    with pytest.raises(PlanError, match="cannot be read"):
        qualify(store, lost)
    assert store.load("tensorrt", KEY)[0] == b"before"
    assert keep(store, b"after") == lost
    qualify(store, lost)
    age(store, store.records()[-1].id, 10)
    assert store.load("tensorrt", KEY)[0] == b"after"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_process_that_is_killed_while_it_qualifies(store: PlanStore) -> None:
    """At any moment: the build is qualified or it is not, and its record is whole."""
    id = keep(store)
    code = """
store = PlanStore(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    store.qualify(sys.argv[2], reference="r", probes={"pad": "x" * 100000}, figures=FIGURES)
"""
    for pause in (0.0, 0.02, 0.05):
        worker = child(store, code, id)
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        time.sleep(pause)
        worker.kill()
        worker.communicate(timeout=30)
        assert [record.id for record in store.records()] == [id]


def test_pruning_under_a_readers_feet(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that goes between its record and its plan is one that cannot be read; the next one serves."""
    kept, gone = keep(store, b"kept"), keep(store, b"gone")
    for id in (kept, gone):
        qualify(store, id)
    age(store, kept, 10)
    read = states.read_private

    def racing(path: Path, *, most: int) -> bytes:
        if path.name == f"{gone}.bin":
            path.unlink()
        return read(path, most=most)

    monkeypatch.setattr(states, "read_private", racing)
    assert store.load("tensorrt", KEY)[0] == b"kept"


def test_a_record_that_goes_while_the_folder_is_listed(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep(store, b"kept")
    glob: Callable[..., Any] = Path.glob
    gone = "tensorrt-" + "0" * 32 + "-" + "1" * 16 + ".json"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*glob(self, pattern), self / gone])
    assert [record.id for record in store.records()] == [kept]
