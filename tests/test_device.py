"""The device file: what was measured here is used here, and nothing else is believed."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgehem import device, state
from edgehem.bundle import Bundle
from edgehem.device import Candidate, Machine, Record, choice, load, pick, place, save, this_machine


def candidate(ratio: float | None = 1.0, **changes: object) -> Candidate:
    """ONNX Runtime on the float graph, as fast as itself."""
    values = {
        "engine": "onnxruntime",
        "graph": "model.onnx",
        "form": "float",
        "precision": "fp32",
        "sha256": "0" * 64,
        "arithmetic": "f32",
        "ratio": None if ratio is None else (ratio, ratio, ratio),
    }
    return Candidate(**values | changes)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own for each test."""
    folder = tmp_path / "state"
    monkeypatch.setenv(state.VARIABLE, str(folder))
    return folder


@pytest.fixture
def bundle(write_bundle: Callable[..., Path]) -> Bundle:
    return Bundle(write_bundle())


@pytest.fixture
def record(bundle: Bundle) -> Record:
    """Three candidates for the bundle's one graph, of which the second was chosen, and the third was wrong."""
    (graph,) = bundle.manifest.graphs
    return Record(
        bundle="tiny",
        version="1.2",
        sha256=bundle.sha256,
        machine=this_machine(),
        made="2026-01-02T03:04:05+00:00",
        probes={"kind": "given", "count": 1},
        reference="",
        budget={},
        candidates=(
            candidate(1.0, sha256=graph.sha256),
            candidate(2.0, sha256=graph.sha256, engine="openvino", arithmetic="bf16"),
            candidate(9.0, sha256=graph.sha256, engine="openvino", passed_over="wrong"),
        ),
        absent={},
        chosen=1,
    )


# Picking


def test_the_fastest_that_may_be_chosen_is_picked() -> None:
    assert pick([candidate(1.0), candidate(3.0), candidate(9.0, passed_over="wrong"), candidate(None)]) == 1
    assert pick([candidate(9.0, passed_over="wrong"), candidate(None)]) is None
    assert pick([]) is None


@pytest.mark.parametrize(
    "other",
    [{"form": "qdq-s8"}, {"engine": "openvino"}, {"arithmetic": "bf16"}],
    ids=["int8", "another engine", "bfloat16"],
)
def test_of_those_that_are_as_fast_the_simplest_is_picked(other: dict[str, str]) -> None:
    """Within 3 %, in whatever order they come; beyond that, speed decides."""
    plain, near, far = candidate(2.0), candidate(2.05, **other), candidate(2.1, **other)
    assert pick([plain, near]) == 0 and pick([near, plain]) == 1
    assert pick([plain, far]) == 1


def test_float_on_another_engine_is_simpler_than_int8() -> None:
    int8 = candidate(2.02, form="qdq-s8", precision="int8")
    assert pick([int8, candidate(2.0, engine="openvino", arithmetic="bf16")]) == 1


# Reading and writing


def test_what_was_written_is_read_and_chosen(bundle: Bundle, record: Record, folder: Path) -> None:
    path = save(bundle, record)
    assert path == place(bundle, record.machine) and path.is_relative_to(folder)
    assert load(bundle) == record
    chosen = choice(bundle)
    assert chosen is not None
    assert (chosen.engine, chosen.graph, chosen.options.arithmetic) == ("openvino", "model.onnx", "bf16")
    assert chosen.options.cache == folder / "plans"
    if os.name == "posix":
        assert path.parent.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_choice_keeps_to_what_was_asked_for(bundle: Bundle, record: Record) -> None:
    """The fastest of a named engine, or of a precision; never one that was passed over."""
    save(bundle, record)
    named = choice(bundle, backend="onnxruntime")
    assert named is not None and (named.engine, named.options.arithmetic) == ("onnxruntime", "f32")
    also = choice(bundle, precision="fp32")
    assert also is not None and also.engine == "openvino"
    assert choice(bundle, precision="int8") is None
    assert choice(bundle, backend="tensorrt") is None


def test_without_a_file_there_is_no_choice(bundle: Bundle, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, and nothing is made."""
    assert choice(bundle) is None
    assert not caplog.text and not folder.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engines": {"onnxruntime": "0.1"}}, "onnxruntime 0.1, now"),
        ({"engines": {"onnxruntime": "0.1", "tensorrt": "10.3"}}, "tensorrt 10.3, now not installed"),
        ({"edgehem": "0.0.1"}, "edgehem 0.0.1"),
        ({"cpu": "another"}, "cpu another"),
        ({"flags": ("mmx",)}, "flags"),
        ({"cpus": 1000}, "cpus 1000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_was_measured_elsewhere_or_before_an_upgrade_is_not_used(
    change: dict[str, object], said: str, bundle: Bundle, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with a sentence that says what has changed."""
    path = save(bundle, record)
    old = msgspec.structs.replace(record, machine=msgspec.structs.replace(record.machine, **change))
    path.write_bytes(msgspec.json.encode(old))
    with caplog.at_level(logging.WARNING):
        assert choice(bundle) is None
    assert said in caplog.text and "run edgehem compile again" in caplog.text


def test_machines_that_share_a_home_do_not_share_a_file(bundle: Bundle, record: Record) -> None:
    """Hardware is in the name of the file, versions are not: an upgrade is said, another machine is another file."""
    machine = record.machine
    other = msgspec.structs.replace(machine, cpu="another")
    assert place(bundle, other) != place(bundle, machine)
    assert place(bundle, msgspec.structs.replace(machine, edgehem="9")) == place(bundle, machine)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b'{"schema": "edgehem.device/1"',
        b"[" * 100_000,
        b" " * (device.MOST_BYTES + 1),
    ],
    ids=["empty", "nothing in it", "null", "no text", "cut", "deep", "too large"],
)
def test_a_damaged_file_is_passed_over(
    content: bytes, bundle: Bundle, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(bundle, record)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert choice(bundle) is None
    assert "not used" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": 2},
        {"chosen": 3},
        {"chosen": -1},
        {"schema": "edgehem.device/2"},
        {"sha256": "f" * 64},
        {"candidates": (candidate(sha256="f" * 64),), "chosen": 0},
        {"candidates": (candidate(graph="../other.onnx"),), "chosen": 0},
    ],
    ids=["passed over", "beyond", "negative", "schema", "another bundle", "another graph", "outside"],
)
def test_a_file_that_chooses_what_it_must_not_is_passed_over(
    change: dict[str, object], bundle: Bundle, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(bundle, record)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, **change)))
    with caplog.at_level(logging.WARNING):
        assert choice(bundle) is None
    assert "not used" in caplog.text


def test_an_arithmetic_from_the_future_is_passed_over(bundle: Bundle, record: Record) -> None:
    (graph,) = bundle.manifest.graphs
    strange = msgspec.structs.replace(record, candidates=(candidate(sha256=graph.sha256, arithmetic="f4"),), chosen=0)
    save(bundle, strange)
    assert choice(bundle) is None


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")
def test_what_others_could_have_written_is_passed_over(
    bundle: Bundle, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An open folder, another owner, a link, a folder or a pipe in the file's place."""
    path = save(bundle, record)
    path.parent.chmod(0o770)
    assert choice(bundle) is None and "open to others" in caplog.text
    path.parent.chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(state.os, "geteuid", lambda: os.getuid() + 1)
        assert choice(bundle) is None and "another user" in caplog.text
    assert choice(bundle) is not None
    elsewhere = tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert choice(bundle) is None
    path.unlink()
    path.mkdir()
    assert choice(bundle) is None
    path.rmdir()
    os.mkfifo(path)
    assert choice(bundle) is None


def test_a_folder_that_cannot_be_made_is_an_error_for_who_writes_and_none_for_who_reads(
    bundle: Bundle, record: Record, folder: Path
) -> None:
    folder.write_text("a file in its place")
    assert choice(bundle) is None
    with pytest.raises(OSError):
        save(bundle, record)


def test_without_a_home_there_is_no_choice(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv(state.VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setattr(Path, "home", no_home)
    assert choice(bundle) is None


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(state.VARIABLE, str(tmp_path / "a"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "b"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "c")
    assert state.state_folder() == tmp_path / "a"
    monkeypatch.delenv(state.VARIABLE)
    assert state.state_folder() == tmp_path / "b" / "edgehem"
    monkeypatch.setenv("XDG_STATE_HOME", "b")
    assert state.state_folder() == tmp_path / "c" / ".local" / "state" / "edgehem"


def test_two_writers_at_once_leave_one_whole_file(bundle: Bundle, record: Record) -> None:
    """Readers meanwhile find a whole file, of either."""
    records = [msgspec.structs.replace(record, made=str(number) * 10_000) for number in range(4)]
    save(bundle, record)
    wrong = []

    def write(own: Record) -> None:
        for _ in range(10):
            save(bundle, own)
            if load(bundle) not in records:
                wrong.append(own.made[0])

    threads = [threading.Thread(target=write, args=(own,)) for own in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(list(place(bundle, record.machine).parent.iterdir())) == 1


def test_the_oldest_files_go(bundle: Bundle, record: Record) -> None:
    """A folder does not grow for ever."""
    path = save(bundle, record)
    for number in range(device.MOST_FILES + 5):
        old = path.with_name(f"{number:032x}-0.json")
        old.write_bytes(b"{}")
        os.utime(old, (number, number))
    save(bundle, record)
    left = sorted(entry.name for entry in path.parent.iterdir())
    assert len(left) == device.MOST_FILES
    assert path.name in left and f"{0:032x}-0.json" not in left


# The machine


def test_a_machine_is_known_by_its_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "CPU_INFO", info)
    info.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name\t: Other\n")
    machine = this_machine()
    assert (machine.cpu, machine.flags) == ("Some CPU", ("avx2", "avx512_vnni"))
    info.write_text("processor : 0\nFeatures : fp asimd asimddp bf16\nCPU implementer : 0x41\nCPU part : 0xd42\n")
    machine = this_machine()
    assert (machine.cpu, machine.flags) == ("0x41 0xd42", ("asimd", "asimddp", "bf16"))
    info.unlink()
    assert this_machine().cpu
    assert isinstance(machine, Machine) and machine.engines["onnxruntime"]
