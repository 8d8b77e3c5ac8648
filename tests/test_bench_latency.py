"""``edgehem bench``: cases measured in processes of their own, one install or two in turns. No time decides here."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from edgehem import cli, cli_bench
from edgehem.benchmarks.child import ChildError
from edgehem.benchmarks.latency import floors, run, verdict, worker
from edgehem.benchmarks.latency.bare import agree, under
from edgehem.benchmarks.latency.cases import Case, Ready, cases
from edgehem.benchmarks.latency.run import Arm, Settings, measure, measure_arms
from edgehem.bundle import find
from edgehem.errors import BackendError, UsageError

FEW = ("stage.read/28", "stage.decide/40")


@pytest.fixture(scope="module")
def both() -> list[dict]:
    """The same install twice."""
    arms = [Arm(name="base"), Arm(name="new")]
    return measure_arms(arms, Settings(cases=FEW, rounds=7))


def test_names_are_unique_and_say_what_they_measure() -> None:
    found = cases()
    assert len({case.name for case in found}) == len(found)
    assert {case.group for case in found} == {"stage", "engine", "whole"} and all(case.what for case in found)


def test_two_installs_take_turns(both: list[dict]) -> None:
    base, new = both
    assert (base["arm"], new["arm"]) == ("base", "new") and base["session"] == new["session"]
    for result in both:
        assert result["schema"] == run.SCHEMA and [case["name"] for case in result["cases"]] == list(FEW)
        assert all(len(case["samples_ms"]) == 7 and min(case["samples_ms"]) > 0 for case in result["cases"])
        assert all(case["peak_bytes"] > 2**20 for case in result["cases"])
        json.dumps(result, allow_nan=False)
    assert base["served"]["engine"] in run.render(base)


def test_turns_of_two_installs_are_paired(both: list[dict]) -> None:
    base, new = both
    told = verdict.compare(base, new)
    assert told["paired"] and {row["name"] for row in told["cases"]} == set(FEW)


def test_a_case_that_is_slowed_waits_in_its_timed_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test: the case moves it on by 1 ms, and waits for another 2 where it is slowed threefold."""
    now = [0]

    def read() -> int:
        now[0] += 1_000
        return now[0]

    def work() -> None:
        now[0] += 1_000_000

    monkeypatch.setattr(worker.time, "perf_counter_ns", read)
    monkeypatch.setattr(worker.gc, "disable", lambda: None)
    monkeypatch.setattr(
        "edgehem.benchmarks.latency.cases.cases",
        lambda bundle: [
            Case(name=name, group="stage", what="", slices=0, make=lambda folder, settings: Ready(calls={"": work}))
            for name in ("slowed", "other")
        ],
    )
    monkeypatch.setenv(worker.INJECTED, "slowed=2")
    told = {"bundle": "", "backend": "auto", "precision": "auto", "folder": ".", "seed": 0, "warm_up": 1}
    found = {}
    for name in ("slowed", "other"):
        asked = worker.Worker()
        asked.answer({"do": "prepare", "case": name, **told})
        found[name] = asked.answer({"do": "round"})["ms"][""]
    assert found == pytest.approx({"slowed": 3.0, "other": 1.0}, abs=0.02)


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="no case is called 'nonsense'"):
        measure(Settings(cases=("stage.*", "nonsense"), rounds=1))


def test_an_install_is_found_by_its_folder_or_its_python(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert Arm.of("base", tmp_path).python == str(tmp_path / "bin" / "python")
    assert Arm.of("base", tmp_path / "bin" / "python").python == str(tmp_path / "bin" / "python")
    with pytest.raises(UsageError, match="neither"):
        Arm.of("base", tmp_path / "nowhere")


def test_a_process_that_ends_is_said(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(ChildError, match="exit status 3"):
        measure_arms([Arm(python=str(python))], Settings(cases=FEW, rounds=1))


def test_a_case_that_one_install_cannot_run_is_missing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not lost: the other one says that it was left out, and a comparison calls it missing."""

    def ask(self: run.Worker, **message: object) -> dict:
        reply = whole(self, **message)
        if message["do"] == "prepare" and self.arm.name == "new" and message["case"] == "stage.read/28":
            return {"passed_over": "no decoder"}
        return reply

    whole = run.Worker.ask
    monkeypatch.setattr(run.Worker, "ask", ask)
    base, new = measure_arms([Arm(name="base"), Arm(name="new")], Settings(cases=FEW, rounds=3))
    assert new["passed_over"] == {"stage.read/28": "no decoder"} and base["unmeasured"] == ["stage.read/28"]
    told = verdict.compare(base, new)
    assert [case["name"] for case in told["missing"]] == ["stage.read/28"]
    assert verdict.exit_code(told) == verdict.EXIT_SLOWER


def test_ours_is_held_against_the_bare_library() -> None:
    """They compute the same; the bare call is a yardstick, which no comparison judges."""
    result = measure(Settings(cases=("engine.onnxruntime.fp32",), rounds=3))
    assert [(case["name"], case["group"]) for case in result["cases"]] == [
        ("engine.onnxruntime.fp32", "engine"), ("engine.onnxruntime.fp32.bare", "yardstick"),
    ]  # fmt: skip
    assert [row["name"] for row in verdict.compare(result, result)["cases"]] == ["engine.onnxruntime.fp32"]
    assert under(object()) is None  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        agree({"x": [1.0]}, {"x": [2.0]})


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (["bench"], ["bench", "latency"]),
        (["bench", "stage.*"], ["bench", "latency", "stage.*"]),
        (["bench", "--quick"], ["bench", "latency", "--quick"]),
        (["bench", "kernels", "--quick"], ["bench", "kernels", "--quick"]),
        (["bench", "-h"], ["bench", "-h"]),
        (["triage", "bench"], ["triage", "bench"]),
    ],
)
def test_bench_alone_means_latency(line: list[str], meant: list[str]) -> None:
    assert cli_bench.spelled_out(line) == meant


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured, kept, compared with itself, drawn."""
    names = ("a.json", "a.html", "a.md", "history.jsonl", "c.json", "c.html", "t.svg")
    files = {name: tmp_path / name for name in names}
    line = ["bench", "stage.decide/40", "--rounds", "4", "--json", str(files["a.json"]), "--html", str(files["a.html"])]
    line += ["--markdown", str(files["a.md"]), "--history", str(files["history.jsonl"])]
    assert cli.main(line) == 0
    assert "stage.decide/40" in capsys.readouterr().out
    both = [str(files["a.json"])] * 2
    assert cli.main(["bench", "compare", *both, "--json", str(files["c.json"]), "--html", str(files["c.html"])]) == 0
    assert "stage.decide/40" in capsys.readouterr().out
    assert cli.main(["bench", "trend", str(files["history.jsonl"]), str(files["t.svg"])]) == 0
    assert all(path.stat().st_size > 100 for path in files.values())
    here = str(Path(sys.prefix))
    assert cli.main(["bench", "ab", here, here, "stage.decide/40", "--rounds", "4", "--out", str(tmp_path)]) in (0, 4)
    assert json.loads((tmp_path / "new.json").read_text())["arm"] == "new"
    assert cli.main(["bench", "nonsense"]) == cli.EXIT_USAGE
    assert cli.main(["bench", "ab", here, here, "--out", str(tmp_path / "nowhere")]) == cli.EXIT_USAGE


def test_a_recording_is_replayed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Counts of comparisons whose answer is known; how many are right depends on the machine."""
    line = ["bench", "replay", "stage.report/40", "--slowed", "stage.decide/40", "--share", "3"]
    kept = ["--recording", str(tmp_path / "kept.json"), "--json", str(tmp_path / "r.json")]
    assert cli.main([*line, "--rounds", "20", "--record", "24", *kept]) == 0
    assert "stage.decide/40 slower by 300%" in capsys.readouterr().out
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["cases"] == 2 and told["slowed"]["comparisons"] == 100 and told["same"]["comparisons"] == 200
    # Kept, it is replayed without measuring again.
    assert cli.main(["bench", "replay", "--rounds", "20", *kept]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == told
    (tmp_path / "kept.json").write_text("{}")
    assert cli.main(["bench", "replay", *kept]) == cli.EXIT_USAGE
    assert "no recording" in capsys.readouterr().err


def test_a_case_that_cannot_be_made_ready_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an engine says against a graph is passed over with its words."""
    asked = worker.Worker()
    told = {"bundle": "hemorrhagenet", "backend": "auto", "precision": "auto", "seed": 0, "warm_up": 1}

    def refuse(*_: object, **__: object) -> None:
        raise BackendError("it says no")

    monkeypatch.setattr("edgehem.backends.choose", refuse)
    reply = asked.answer({"do": "prepare", "case": "engine.onnxruntime.fp32", "folder": ".", **told})
    assert reply == {"passed_over": "it says no"}


@pytest.mark.torch
def test_the_floor_of_engines_counts_the_network_that_ships() -> None:
    """Multiply-accumulates of every convolution, by the shapes that ONNX infers."""
    onnx = pytest.importorskip("onnx")
    bundle = find("hemorrhagenet")
    graph = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(bundle.read(bundle.graph("fp32"))), data_prop=True
    ).graph
    planes = bundle.manifest.preprocess.shape[0]
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            # The first dimension is the batch: of planes in two dimensions, of studies in one.
            shape, kernel = shapes[node.output[0]], weights[node.input[1]]
            total += math.prod(shape[1:]) * math.prod(kernel[1:]) * (planes if len(shape) == 4 else 1)
    assert total == floors.MACS[bundle.manifest.system]
    engine, stage = {"group": "engine", "bytes_moved": None}, {"group": "stage", "bytes_moved": 4_000}
    known = {"float32_macs_per_s": total * 100.0, "copy_bytes_per_s": 1e6}
    assert floors.floor_ms(engine, known, bundle.manifest.system) == pytest.approx(10)
    assert floors.floor_ms(engine, known, "a system of one's own") is None
    assert floors.floor_ms(stage, known, "any") == pytest.approx(4)
