"""``edgehem compile``: the fastest that stays true is kept; what is wrong, hangs or crashes is passed over by word."""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgehem import backends, device, state
from edgehem.backends import Options
from edgehem.backends.onnxruntime import OnnxRuntime, Port
from edgehem.backends.openvino import OpenVino
from edgehem.bundle import MANIFEST, Bundle, Graph, Head, LabelRule, find
from edgehem.errors import BackendError, BudgetError, BundleError, UsageError
from edgehem.export import probes as probing
from edgehem.export.compile import compile_bundle, document, table
from edgehem.export.contender import FIDELITY_DB
from edgehem.export.deviation import BORDERLINE, MOST_DB, compare
from edgehem.export.probes import draw_probes
from edgehem.export.trial import Trial

TESTS = Path(__file__).parent
tiny: Callable[..., bytes] = runpy.run_path(str(TESTS / "engines" / "tiny.py"))["model"]
SUM = tiny("Add", total="logits", columns=2)
PATIENCE_S = 10.0
"""For one that hangs; the others take a second on a busy machine."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv(state.VARIABLE, str(folder))
    return folder


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of pretended engines, which the children import under the same name."""
    monkeypatch.syspath_prepend(TESTS / "engines")
    return importlib.import_module("fakes")


@pytest.fixture
def bundle(write_bundle: Callable[..., Path]) -> Bundle:
    """logits = a + b, two labels."""
    return Bundle(write_bundle(graph=SUM, inputs={"image": "a", "valid": "b"}))


@pytest.fixture
def probes() -> list[dict[str, np.ndarray]]:
    """Clear answers: yes and no."""
    return [{"a": np.full((1, 2), value, np.float32), "b": np.ones((1, 2), np.float32)} for value in (4, -4, 3)]


def outcome(record: device.Record) -> dict[str, str]:
    """Why each engine was passed over."""
    return {each.engine: each.passed_over for each in record.candidates}


def test_what_is_wrong_hangs_or_crashes_is_passed_over(
    bundle: Bundle, probes: list[dict[str, np.ndarray]], fakes: Any
) -> None:
    """By word, while the others are measured. No engine's own message is repeated: it may hold a path."""
    kinds = (
        fakes.FakeWrong, fakes.FakeSlightlyOff, fakes.FakeHanging, fakes.FakeCrashing, fakes.FakeCrashingLater,
        fakes.FakeRaising, fakes.FakeTalking, fakes.FakeWithoutNumbers, fakes.FakeAbsent,
    )  # fmt: skip
    record = compile_bundle(
        bundle,
        probes=probes,
        engines=[OnnxRuntime(), *(kind() for kind in kinds)],
        rounds=3,
        patience_s=PATIENCE_S,
    )
    said = outcome(record)
    assert said["onnxruntime"] == said["talking"] == ""
    assert "another one" in said["wrong"]
    assert said["off"]
    assert said["hanging"] == "compiling took longer than 10 s"
    assert "while compiling" in said["crashing"] and "SIGSEGV" in said["crashing"]
    assert "while running" in said["later"] and "SIGKILL" in said["later"]
    assert said["raising"] == "the engine failed (RuntimeError)"
    assert "not a number" in said["nan"]
    assert record.absent == {"absent": "library not found"} and "absent" not in said
    assert record.choice.engine in ("onnxruntime", "talking")
    for each in record.candidates:
        assert (each.ratio is None) == (each.engine in ("hanging", "crashing", "later", "raising"))
    text = table(record)
    assert "not installed: absent: library not found" in text and "passed over: compiling took longer" in text


def test_what_was_learnt_is_kept_for_auto(
    bundle: Bundle, probes: list[dict[str, np.ndarray]], folder: Path, tmp_path: Path
) -> None:
    """And nothing is left in the temporary folder."""
    lines: list[str] = []
    record = compile_bundle(bundle, probes=probes, engines=[OnnxRuntime()], rounds=2, say=lines.append)
    assert record.choice.ratio == (1.0, 1.0, 1.0) and record.choice.shift == 0.0 and record.choice.flips == 0
    assert record.probes == {"kind": "given", "count": 3}
    assert msgspec.json.decode(document(record), type=device.Record) == record
    assert lines
    assert device.place(bundle, record.machine).is_file()


def test_nothing_is_written_unless_it_is_to_be_kept(
    bundle: Bundle, probes: list[dict[str, np.ndarray]], folder: Path
) -> None:
    compile_bundle(bundle, probes=probes, engines=[OnnxRuntime()], rounds=1, keep=False)
    assert not folder.exists()


def test_only_the_named_engine_may_be_chosen(bundle: Bundle, probes: list[dict[str, np.ndarray]], fakes: Any) -> None:
    """ONNX Runtime is measured for comparison."""
    engines = [OnnxRuntime(), fakes.FakeTalking(), fakes.Fake()]
    record = compile_bundle(bundle, backend="talking", probes=probes, engines=engines, rounds=2, keep=False)
    assert record.choice.engine == "talking"
    assert outcome(record) == {"onnxruntime": "only talking was asked for", "talking": ""}


def test_a_named_engine_that_is_not_there_is_an_error(
    bundle: Bundle, probes: list[dict[str, np.ndarray]], fakes: Any
) -> None:
    engines = [OnnxRuntime(), fakes.FakeAbsent()]
    with pytest.raises(BackendError, match="absent: library not found"):
        compile_bundle(bundle, backend="absent", probes=probes, engines=engines)
    with pytest.raises(BackendError, match="known: auto, onnxruntime, absent"):
        compile_bundle(bundle, backend="tpu", probes=probes, engines=engines)


def test_a_named_engine_that_is_wrong_is_an_error_and_changes_nothing(
    bundle: Bundle, probes: list[dict[str, np.ndarray]], fakes: Any, folder: Path
) -> None:
    with pytest.raises(BudgetError, match=r"wrong model\.onnx f32: "):
        compile_bundle(bundle, backend="wrong", probes=probes, engines=[OnnxRuntime(), fakes.FakeWrong()], rounds=1)
    assert not folder.exists()


def test_a_bundle_without_a_float_graph_cannot_be_judged(write_bundle: Callable[..., Path]) -> None:
    folder = write_bundle(graph=SUM)
    graph = msgspec.structs.replace(Bundle(folder).manifest.graphs[0], form="qdq-s8", precision="int8")
    only = Bundle(write_bundle(graph=SUM, graphs=(graph,)))
    with pytest.raises(UsageError, match="no float graph"):
        compile_bundle(only, engines=[OnnxRuntime()])


def test_a_tampered_graph_is_not_measured(bundle: Bundle) -> None:
    (bundle.folder / "model.onnx").write_bytes(SUM + b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        compile_bundle(bundle, engines=[OnnxRuntime()])


def test_a_graph_that_cannot_run_ends_it(write_bundle: Callable[..., Path]) -> None:
    broken = Bundle(write_bundle(graph=b"no graph"))
    with pytest.raises(BackendError, match="refuses"):
        compile_bundle(broken, engines=[OnnxRuntime()])


def test_every_graph_of_the_bundle_is_a_candidate(
    write_bundle: Callable[..., Path], probes: list[dict[str, np.ndarray]]
) -> None:
    """A second graph that says something else is passed over, though every engine runs it truly."""
    other = tiny("Sub", total="logits", columns=2)
    folder = write_bundle(graph=SUM, files={"other.onnx": other})
    manifest = Bundle(folder).manifest
    second = Graph(
        precision="int8", form="qdq-s8", file="other.onnx", sha256=manifest.files["other.onnx"], bytes=len(other)
    )
    both = msgspec.structs.replace(
        manifest, graphs=(*manifest.graphs, second), files={}, inputs={"image": "a", "valid": "b"}
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(both))
    record = compile_bundle(Bundle(folder), probes=probes, engines=[OnnxRuntime()], rounds=1, keep=False)
    assert [each.graph for each in record.candidates] == ["model.onnx", "other.onnx"]
    assert "moved by" in record.candidates[1].passed_over
    assert record.candidates[1].fidelity_db == MOST_DB


# Children


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_child_that_hangs_is_ended_with_all_it_started(
    fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"
    monkeypatch.setenv("NOTE", str(note))
    with Trial(fakes.FakeWithHelper()) as trial, pytest.raises(BackendError, match="compiling took longer than 5 s"):
        trial.open(SUM, Options(), patience_s=5)
    stat = Path(f"/proc/{note.read_text()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in ("Z", "X")


def test_a_child_ends_when_nobody_asks_any_more(fakes: Any) -> None:
    trial = Trial(fakes.Fake())
    assert trial.examine() == ("", ("f32",))
    trial._process.stdin.close()
    assert trial._process.wait(30) == 0
    trial.end()


# Probes


def test_probes_of_a_graph_of_images_are_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other one bleeds; seeds are recorded; a seed that is refused is left out."""
    manifest = find("hemorrhagenet").manifest
    ports = tuple(Port(name=name, shape=(), dtype="float32") for name in ("image", "valid"))
    drawn = draw_probes(manifest, ports, count=2)
    assert drawn.record["seeds"] == [0, 1] and drawn.record["kind"] == "phantoms"
    assert [inputs["image"].shape for inputs in drawn.inputs] == [(1, 40, 3, 224, 224)] * 2
    assert not np.array_equal(drawn.inputs[0]["image"], drawn.inputs[1]["image"])


def test_probes_of_any_other_graph_are_numbers_of_its_shapes() -> None:
    """The same each time; 1 where a dimension is free."""
    manifest = find("hemorrhagenet").manifest
    ports = (
        Port(name="leads", shape=(None, 12, 50), dtype="float32"),
        Port(name="sex", shape=(None,), dtype="int64"),
    )
    first, again = draw_probes(manifest, ports, count=2), draw_probes(manifest, ports, count=2)
    for inputs, same in zip(first.inputs, again.inputs, strict=True):
        assert inputs["leads"].shape == (1, 12, 50) and inputs["sex"].dtype == np.int64
        assert all(np.array_equal(inputs[name], same[name]) for name in inputs)
    assert not np.array_equal(first.inputs[0]["leads"], first.inputs[1]["leads"])


def test_a_graph_that_no_phantom_can_be_shown_to_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgehem.errors import Code, Refusal

    def refuse(*_: object, **__: object) -> None:
        raise Refusal(Code.NOT_HEAD, "no head")

    monkeypatch.setattr(probing, "prepare", refuse)
    monkeypatch.setattr(probing, "make_case", lambda *_, **__: type("Case", (), {"volume": None}))
    ports = tuple(Port(name=name, shape=(), dtype="float32") for name in ("image", "valid"))
    with pytest.raises(UsageError, match="refuses the phantoms"):
        draw_probes(find("hemorrhagenet").manifest, ports)


# Deviation

HEAD = Head(
    name="ich",
    kind="hierarchical-binary",
    output="logits",
    rules=(LabelRule(label="any"), LabelRule(label="subdural")),
)


def logits(*values: float) -> dict[str, np.ndarray]:
    return {"logits": np.array([values], np.float32), "map": np.ones((1, 4), np.float32)}


def test_answers_that_agree_have_no_noise() -> None:
    found = compare([logits(2, 1)], [logits(2, 1)], [HEAD])
    assert (found.shift, found.flips, found.sqnr_db, found.fidelity_db) == (0, 0, MOST_DB, MOST_DB)


def test_a_shift_is_of_probabilities_and_the_worst() -> None:
    found = compare([logits(0, 0), logits(5, 0)], [logits(0.4, 0), logits(5.4, 0)], [HEAD])
    assert found.shift == pytest.approx(1 / (1 + np.exp(-0.4)) - 0.5)


def test_a_decision_that_turns_counts_unless_it_was_borderline() -> None:
    near = float(np.log((0.5 + BORDERLINE / 2) / (0.5 - BORDERLINE / 2)))
    assert compare([logits(near, -9)], [logits(-1, -9)], [HEAD]).flips == 0
    assert compare([logits(1, -9)], [logits(-1, -9)], [HEAD]).flips == 1
    # Without a hemorrhage there is no subdural one: both turn.
    assert compare([logits(3, 3)], [logits(-3, 3)], [HEAD]).flips == 2


def test_noise_in_any_output_counts_for_fidelity_and_in_the_heads_for_sqnr() -> None:
    noisy = logits(2, 1)
    noisy["map"] = noisy["map"] * 1.1
    found = compare([logits(2, 1)], [noisy], [HEAD])
    assert found.sqnr_db == MOST_DB and found.fidelity_db == pytest.approx(20, abs=0.01)
    assert found.fidelity_db >= FIDELITY_DB - 0.01


@pytest.mark.parametrize("given", [{}, {"logits": np.zeros((1, 3), np.float32)}, {"logits": np.full((1, 2), np.inf)}])
def test_outputs_that_cannot_be_compared_are_an_error(given: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match="output 'logits'"):
        compare([logits(2, 1)], [{**logits(2, 1), "logits": np.zeros(0), **given}], [HEAD])


# The whole of it


def test_compile_imports_with_the_runtime_alone() -> None:
    """It runs on the device: no torch, no onnx, and no engine in the parent before a child has tried it."""
    code = """
import sys
for name in ("torch", "onnx", "onnxscript", "scipy", "openvino"):
    sys.modules[name] = None
import edgehem.export.compile
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(bool(OpenVino().missing()), reason="openvino is not installed")
def test_the_shipped_bundle_with_both_engines(tmp_path: Path, folder: Path) -> None:
    """In an empty home: what is left is the device file and one plan. No candidate is silently wrong."""
    code = (
        "import sys; from edgehem.bundle import find; from edgehem.export.compile import compile_bundle, document\n"
        "record = compile_bundle(find('hemorrhagenet'), rounds=2)\n"
        "sys.stdout.write(document(record))"
    )
    home = tmp_path / "home"
    home.mkdir()
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "USERPROFILE", "LOCALAPPDATA")
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **dict.fromkeys(names, str(home))},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    record = msgspec.json.decode(done.stdout, type=device.Record)
    assert list(home.rglob("*")) == []
    left = sorted(path.parent.name for path in folder.rglob("*") if path.is_file())
    assert left == ["devices", "plans"] if record.choice.engine == "openvino" else ["devices"]
    assert {each.engine for each in record.candidates} == {engine.name for engine in backends.engines()}
    assert all(each.ratio for each in record.candidates)
    assert device.load(find("hemorrhagenet")) == record
