"""``edgehem bench pipelines``: who is timed and who is not, and what is told. Timings decide nothing here."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehem import cli, device, kernels
from edgehem.benchmarks import commands
from edgehem.benchmarks.child import Child, ChildError
from edgehem.benchmarks.peers import pipeline_plain
from edgehem.benchmarks.pipelines import agreement as pipelines_agreement
from edgehem.benchmarks.pipelines import listing as pipelines_list
from edgehem.benchmarks.pipelines import network as pipelines_network
from edgehem.benchmarks.pipelines import report
from edgehem.benchmarks.pipelines import run as pipelines
from edgehem.benchmarks.pipelines.contender import FLOOR, OURS, Choice, Clock, Contender, Job, Study
from edgehem.benchmarks.pipelines.network import Made
from edgehem.errors import MissingExtraError
from edgehem.preprocess import CANONICAL, PreprocessSpec

TESTS = Path(__file__).parent
SPEC = PreprocessSpec(shape=(36, 28, 28), spacing_mm=(4.5, 8.0, 8.0), windows=((40.0, 80.0),), resampling="trilinear")
SMALL = pipelines.Settings(rounds=2, overhead_rounds=2, slices=40, matrix=64, studies=2)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[pipelines_agreement.Case]:
    folder = tmp_path_factory.mktemp("studies")
    return list(pipelines_agreement.written(folder, 2, SPEC, slices=40, matrix=64, seed=0))


def job(**changes: Any) -> Job:
    plain: dict[str, Any] = {
        "shape": SPEC.shape, "spacing_mm": SPEC.spacing_mm, "windows": SPEC.windows, "outputs": ("slice_logits",),
        "bundle": "", "graph": "", "weights": "",
    }  # fmt: skip
    return Job(**plain | changes)


# The grid


def test_a_handed_grid_lies_on_the_series_and_near_the_one_that_was_found(cases: Any) -> None:
    for case in cases:
        own = np.array(pipelines_agreement.place(case.volume, SPEC).target.origin)
        step = np.array(SPEC.spacing_mm[::-1])
        away = (np.array(case.study.origin) - case.volume.origin[0]) / step
        assert np.allclose(away, np.rint(away), atol=1e-9)
        assert (np.abs(np.array(case.study.origin) - own) <= step / 2 + 1e-9).all()
        assert len(case.study.valid) == SPEC.shape[0] and set(case.study.valid) <= {0.0, 1.0}


def test_plain_preprocessing_does_what_is_defined(cases: Any) -> None:
    pytest.importorskip("scipy")
    for case in cases:
        clock = Clock()
        tensor = pipeline_plain.Plain(job())(case.study, clock)
        wanted = kernels.oracle.preprocess(case.volume, SPEC.grid(case.study.origin), SPEC.kernel_windows)[None]
        planes = pipelines_agreement.between(case.volume, SPEC, case.study.origin)
        assert tensor.shape == wanted.shape and tensor.dtype == np.float32
        assert (np.abs(tensor - wanted)[:, planes] <= pipelines_agreement.CLOSE).mean() >= pipelines_agreement.SHARE
        assert set(clock.ms) == {"read", "preprocess"}


# Agreement


def answered(rng: np.random.Generator, planes: int = 20) -> pipelines_agreement.Answered:
    tensor = rng.random((1, planes, 1, 8, 8), np.float32)
    return {"slice_logits": rng.normal(5, 1, (1, planes, 6))}, tensor, np.ones(planes, bool)


def shown(expected: pipelines_agreement.Answered, **changes: Any) -> dict[str, Any]:
    outputs, tensor, _ = expected
    return {"tensor": tensor, "output.slice_logits": outputs["slice_logits"], **changes}


@pytest.fixture
def expected() -> list[pipelines_agreement.Answered]:
    rng = np.random.default_rng(0)
    return [answered(rng), answered(rng)]


def test_who_computes_the_same_agrees(expected: Any) -> None:
    found = pipelines_agreement.compared([shown(one) for one in expected], expected, int8=False)
    assert found == {
        "tensor_share": 1.0, "tensor_mean": 0.0, "logits_db": 200.0, "logits_correlation": pytest.approx(1),
        "why_not": "",
    }  # fmt: skip


def test_without_a_tensor_the_logits_decide(expected: Any) -> None:
    only = [{"output.slice_logits": one[0]["slice_logits"]} for one in expected]
    found = pipelines_agreement.compared(only, expected, int8=False)
    assert found["tensor_share"] is None and found["why_not"] == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tensor": lambda one: one[1] + 0.02}, "only 0.00% of its voxels"),
        ({"tensor": lambda one: one[1][:, :, :, ::-1]}, "of its voxels are within"),
        ({"tensor": lambda one: one[1][:, :-1]}, "its tensor is [1, 19, 1, 8, 8]"),
        ({"output.slice_logits": lambda one: one[0]["slice_logits"] + 0.5}, "dB from the float graph's"),
        ({"output.slice_logits": lambda one: one[0]["slice_logits"][:, ::-1]}, "dB from the float graph's"),
        ({"output.slice_logits": lambda one: one[0]["slice_logits"] * np.nan}, "no numbers"),
        ({"output.slice_logits": lambda one: one[0]["slice_logits"][:, :-1]}, "none of that shape"),
    ],
    ids=["off", "mirrored", "a plane short", "logits off", "upside down", "not numbers", "logits short"],
)
def test_who_computes_something_else_does_not(expected: Any, changes: Any, words: str) -> None:
    """A constant that is added to all logits would leave their plain signal to noise high."""
    other = [shown(one, **{name: change(one) for name, change in changes.items()}) for one in expected]
    assert words in pipelines_agreement.compared(other, expected, int8=False)["why_not"]


def test_what_may_be_quantised_has_another_tolerance(expected: Any) -> None:
    rng = np.random.default_rng(1)
    noisy = [
        shown(one, **{"output.slice_logits": one[0]["slice_logits"] + rng.normal(0, 0.15, (1, 20, 6))})
        for one in expected
    ]
    assert pipelines_agreement.compared(noisy, expected, int8=True)["why_not"] == ""
    assert "20 are wanted" in pipelines_agreement.compared(noisy, expected, int8=False)["why_not"]


def test_planes_near_the_ends_do_not_count_for_logits() -> None:
    planes = np.zeros(20, bool)
    planes[3:18] = True
    assert np.flatnonzero(pipelines_agreement.inside(planes)).tolist() == [7, 8, 9, 10, 11, 12, 13]


# The run, with pretended contenders


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the module of pretended pipelines, which the children import, too."""
    monkeypatch.syspath_prepend(TESTS / "engines")
    importlib.import_module("fake_pipelines")
    return "fake_pipelines"


def fake(name: str, where: str, **changes: Any) -> Contender:
    return Contender(name=name, title=f"a fake, {name}", how="a fake", where=where, **changes)


@pytest.fixture
def made(write_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """What the network's maker would give, without a network: what is expected comes from a formula."""
    from edgehem.bundle import Bundle

    def formula(self: pipelines_agreement.Expected, found: Made, cases: Any) -> None:
        self.studies = [case.study for case in cases]
        rng = np.random.default_rng(0)
        self._answers = {("own"): [answered(rng, 40) for _ in cases]}  # type: ignore[dict-item]
        self.grids = {"slice_logits_correlation": 1.0}

    def of(self: pipelines_agreement.Expected, contender: Contender) -> Any:
        return self._answers["own"]  # type: ignore[index]

    monkeypatch.setattr(pipelines_agreement.Expected, "__init__", formula)
    monkeypatch.setattr(pipelines_agreement.Expected, "of", of)

    def make(folder: Path, *, seed: int, rounds: int, say: Any) -> Made:
        bundle = Bundle(write_bundle(preprocess=SPEC))
        choices = {"auto": Choice(engine="pretended", graph="model.onnx", arithmetic="f32")}
        return Made(
            bundle=bundle, weights=folder / "weights.pt", graph="model.onnx", outputs=("slice_logits",),
            choices=choices, no_nncf="nncf is not installed", about={"network": "none"},
        )  # fmt: skip

    return make


def test_all_take_turns_and_are_told_beside_edgehem(made: Any, fakes: str) -> None:
    contenders = (
        fake("edgehem", f"{fakes}:right", role=OURS, choice="auto", places_itself=True),
        fake("monai", f"{fakes}:slow"),
        fake("monai-tuned", f"{fakes}:missing"),
        fake("wrong", f"{fakes}:wrong"),
        fake("refuses", f"{fakes}:refuses"),
        fake("breaks", f"{fakes}:breaks"),
        fake("dies", f"{fakes}:dies"),
        fake("tires", f"{fakes}:tires"),
        fake("unserved", f"{fakes}:right", choice="openvino"),
        fake("told", f"{fakes}:told", variables=(("EDGEHEM_TEST_TOLD", "yes"),)),
        fake("floor", f"{fakes}:floor", role=FLOOR, choice="auto", places_itself=True),
    )
    steps: list[str] = []
    result = json.loads(json.dumps(pipelines.run(SMALL, contenders=contenders, make=made, say=steps.append)))
    entries = {entry["name"]: entry for entry in result["contenders"]}
    assert {name: entry["state"] for name, entry in entries.items()} == {
        "edgehem": "timed", "monai": "timed", "monai-tuned": "passed over", "wrong": "DISAGREES",
        "refuses": "passed over", "breaks": "passed over", "dies": "passed over", "tires": "passed over",
        "unserved": "passed over", "told": "timed", "floor": "timed",
    }  # fmt: skip
    assert result["schema"] == pipelines.SCHEMA == "edgehem.bench.pipelines/1"
    assert entries["monai-tuned"]["why"] == "no_such_library is not installed"
    assert entries["refuses"]["why"] == "not on a Tuesday"
    assert "ValueError: broken" in entries["breaks"]["why"]
    assert "ended (exit status 3)" in entries["dies"]["why"]
    assert "OSError: tired" in entries["tires"]["why"]
    assert "openvino" in entries["unserved"]["why"]
    for name in ("wrong", "tires", "dies"):
        assert not {"ns", "ms", "over_ours"} & set(entries[name])
    assert len(entries["monai"]["ns"]) == SMALL.rounds
    assert set(entries["monai"]["stages_ms"]) == {"read", "network"}
    assert entries["edgehem"]["over_ours"]["value"] == 1
    assert all(entry["peak_bytes"] > 1e6 for entry in entries.values() if entry["state"] == "timed")
    assert entries["floor"]["overhead"]["ratio"]["value"] == pytest.approx(1.5)
    aims = {(aim["aim"], aim["contender"]): aim["verdict"] for aim in result["aims"]}
    assert aims[pipelines.FASTER_TUNED.words, "monai-tuned"] == "not measured"
    assert aims[pipelines.FASTER_DEFAULT.words, "monai"] in ("met", "not met", "unclear")
    assert aims[pipelines.OVERHEAD.words, "pretended, model.onnx, f32"] == "not met"
    assert "round 2 of 2" in steps

    text = commands.text(result)
    assert max(map(len, text.splitlines())) <= report.WIDTH
    for words in (
        "wrong                DISAGREES: only",
        "monai-tuned          passed over: no_such_library is not installed",
        "edgehem serves model.onnx on pretended in f32",
        "1.50 (1.50 - 1.50)",
        "they do less",
    ):
        assert words in text
    table = commands.markdown(result)
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(contenders) and {line.count("|") for line in rows} == {8}
    assert "| a fake, edgehem | " in table and "| 1.0 (1.0-1.0) | " in table
    assert "40 slices of 64 × 64" in table


def test_where_edgehem_itself_fails_nothing_is_told_in_its_times(made: Any, fakes: str) -> None:
    contenders = (fake("edgehem", f"{fakes}:breaks", role=OURS), fake("monai", f"{fakes}:slow"))
    result = pipelines.run(SMALL, contenders=contenders, make=made)
    assert "over_ours" not in result["contenders"][1] and result["contenders"][1]["ms"] > 0
    assert {aim["verdict"] for aim in result["aims"]} == {"not measured"}
    assert "passed over: failed" in commands.text(result)
    assert commands.markdown(result).count("| a fake") == 2


def test_nobody_left_is_no_error(made: Any, fakes: str) -> None:
    result = pipelines.run(SMALL, contenders=(fake("wrong", f"{fakes}:wrong"),), make=made)
    assert commands.text(result) and commands.markdown(result)


# The protocol


@pytest.fixture
def child(fakes: str) -> Iterator[Child]:
    with Child(pipelines.WORKER) as process:
        yield process


def test_a_child_answers_and_goes(child: Child, fakes: str, tmp_path: Path) -> None:
    import msgspec

    study = msgspec.to_builtins(Study(folder=str(tmp_path), origin=(0, 0, 0), valid=(1,)))
    plain = msgspec.to_builtins(job())
    assert child.ask(do="prepare", where=f"{fakes}:prints", job=plain) == {}
    file = tmp_path / "answer.npz"
    assert child.ask(do="show", study=study, out=str(file)) == {}
    with np.load(file) as stored:
        assert set(stored.files) == {"tensor", "output.slice_logits"}
    reply = child.ask(do="round", study=study)
    assert reply["ns"] > 0 and set(reply["stages_ms"]) == {"network"}
    assert child.ask(do="overhead", study=study, rounds=2) == {}
    assert child.ask(do="end")["peak_bytes"] > 1e6
    with pytest.raises(ChildError, match="KeyError"):
        child.ask(do="nonsense")


# The list


def test_every_contender_can_be_found_and_names_are_unique() -> None:
    names = [contender.name for contender in pipelines_list.CONTENDERS]
    assert len(set(names)) == len(names) == 8
    for contender in pipelines_list.CONTENDERS:
        module, _, name = contender.where.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert contender.title and contender.how


def candidate(engine: str, ratio: float | None, **changes: Any) -> device.Candidate:
    settings = {"graph": "fp32.onnx", "form": "float", "precision": "fp32", "sha256": "0", "arithmetic": "f32"}
    times = None if ratio is None else (ratio, ratio, ratio)
    return device.Candidate(engine=engine, ratio=times, **{**settings, **changes})


def test_each_engine_alone_serves_what_it_would_be_chosen_with() -> None:
    int8 = {"graph": "int8_u8.onnx", "form": "qdq-u8", "precision": "int8"}
    found = (
        candidate("onnxruntime", 1.0),
        candidate("onnxruntime", 1.4, **int8),
        candidate("openvino", 3.0, arithmetic="bf16"),
        candidate("openvino", 9.0, passed_over="another one", **int8),
        candidate("third", None, passed_over="the engine ended"),
    )
    record = device.Record(
        bundle="b", version="0", sha256="0", machine=device.this_machine(), made="", probes={}, reference="", budget={},
        candidates=found, absent={}, chosen=2,
    )  # fmt: skip
    choices = pipelines_network.choices(record)
    assert choices == {
        "auto": Choice(engine="openvino", graph="fp32.onnx", arithmetic="bf16"),
        "onnxruntime": Choice(engine="onnxruntime", graph="int8_u8.onnx", arithmetic="f32", form="qdq-u8"),
        "openvino": Choice(engine="openvino", graph="fp32.onnx", arithmetic="bf16"),
    }
    assert choices["auto"].words == "openvino, fp32.onnx, bf16"


# The command


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines_network.networks.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[export\]"):
        pipelines.run(SMALL)


def test_the_command_hands_on_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch, made: Any, fakes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[pipelines.Settings] = []
    run = pipelines.run

    def pretended(settings: pipelines.Settings, *, say: Any) -> dict[str, Any]:
        asked.append(settings)
        return run(SMALL, contenders=(fake("edgehem", f"{fakes}:right", role=OURS),), make=made)

    monkeypatch.setattr(pipelines, "run", pretended)
    files = [str(tmp_path / name) for name in ("out.json", "out.md")]
    line = ["bench", "pipelines", "--quick", "--slices", "28", "--json", files[0], "--markdown", files[1]]
    assert cli.main(line) == cli.EXIT_DONE
    assert (asked[0].rounds, asked[0].slices) == (pipelines.QUICK_ROUNDS, 28)
    result = json.loads(Path(files[0]).read_bytes())
    assert capsys.readouterr().out == commands.text(result).rstrip("\n") + "\n"
    assert Path(files[1]).read_text(encoding="utf-8") == commands.markdown(result)


def test_a_file_that_cannot_be_written_is_said_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "pipelines", lambda **options: pytest.fail("measured first"))
    assert cli.main(["bench", "pipelines", "--markdown", str(tmp_path)]) == cli.EXIT_USAGE
    assert "--markdown" in capsys.readouterr().err


# With the real libraries


@pytest.mark.torch
@pytest.mark.slow
def test_the_real_ones_agree() -> None:
    """Whoever is installed: the same tensor by definition, and the same logits."""
    for module in ("torch", "onnx", "onnxscript", "monai", "scipy"):
        pytest.importorskip(module)
    result = pipelines.run(pipelines.Settings(rounds=1, overhead_rounds=1, slices=32, matrix=128, studies=1))
    entries = {entry["name"]: entry for entry in result["contenders"]}
    wanted = {"edgehem", "edgehem-onnxruntime", "monai", "monai-tuned", "onnxruntime-plain", "floor"}
    assert {name: entry.get("why") for name, entry in entries.items() if entry["state"] != "timed"}.keys() <= {
        "openvino-nncf-plain"
    }, entries
    assert wanted <= set(entries)
    if util.find_spec("openvino") is None:
        assert result["choices"]["auto"]["engine"] == "onnxruntime"
    # Not 0: a DICOM file holds positions as short decimals.
    assert entries["edgehem"]["agreement"]["tensor_mean"] < 1e-7
    for name in ("monai", "monai-tuned", "onnxruntime-plain"):
        assert entries[name]["agreement"]["logits_db"] > pipelines_agreement.FLOAT_DB
    assert tuple(CANONICAL.shape) == (40, 224, 224)
    assert commands.text(result) and "torch + MONAI" in commands.markdown(result)
    assert os.environ.get("MALLOC_TRIM_THRESHOLD_") is None and "itk" not in sys.modules
