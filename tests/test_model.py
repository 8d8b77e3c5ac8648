"""The main flow, with a fake engine: what is analysed, flagged, refused, and what is an error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edgehem.backends import DEFAULT, OPEN_S, DeviceTiming, Options
from edgehem.bundle import Bundle, StageBudget
from edgehem.dicom import Study
from edgehem.errors import BackendError, BackendMemoryError, BundleError, Code, DeviceLostError, UsageError
from edgehem.model import Model, load, triage
from edgehem.phantom import Protocol, make_case
from edgehem.phantom.files import write_case
from edgehem.report.text import render_text
from edgehem.result import Note, Verdict
from edgehem.volume import Volume

F64 = npt.NDArray[np.float64]
Outputs = dict[str, npt.NDArray[np.float32]]

PLANES = 12
STAGES = {"preprocess", "infer", "decide", "total"}
TILTED = Note(code=Code.TILT_CORRECTED, reason="The gantry was tilted.")
YOUNG = Note(code=Code.AGE_UNDER_18, reason="The patient is young.")


class FakeEngine:
    """An engine, and its session, that answers what it is told to and remembers what it was given."""

    name = "fake"
    forms = ("float", "qdq-s8")
    patience_s = OPEN_S
    on_request = False
    needs_plan = False

    def __init__(self) -> None:
        self.graphs: list[bytes] = []
        self.inputs: list[dict[str, npt.NDArray[Any]]] = []
        self.error: Exception | None = None
        attention = np.zeros((1, PLANES), np.float32)
        attention[0, 6] = 0.8
        self.outputs: Outputs = {
            "logits": np.array([[3.0, 1.0]], np.float32),
            "attention": attention,
            "map": np.full((1, PLANES, 4, 4), 2.0, np.float32),
        }

    def missing(self) -> str:
        return ""

    def open(self, graph: bytes, options: Options = DEFAULT) -> FakeEngine:
        self.graphs.append(graph)
        return self

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Outputs:
        self.inputs.append(dict(inputs))
        if self.error:
            raise self.error
        return self.outputs


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The one engine there is."""
    fake = FakeEngine()
    monkeypatch.setattr("edgehem.serving.choose", lambda name: fake)
    return fake


@pytest.fixture
def model(engine: FakeEngine, write_bundle: Callable[..., Path]) -> Model:
    return load(write_bundle(graph="the graph"))


def head(points: F64) -> F64:
    """An ellipsoid of bone around brain, its vertex at z = 80."""
    r = np.linalg.norm(points / (72, 88, 80), axis=-1)
    return np.select([r < 0.92, r < 1], [35.0, 900.0], -1000.0)


@pytest.fixture(scope="module")
def volume(stack_of: Callable[..., Volume]) -> Volume:
    return stack_of(head, size=(64, 64), spacing=(4, 4), distances=np.arange(-85, 96, 5.0))


@pytest.fixture
def study(volume: Volume) -> Study:
    return Study(volume=volume, digest="d" * 64, timings_ms={"read": 40.0, "select": 2.0, "decode": 8.0})


def cut(volume: Volume, low: float, high: float) -> Volume:
    """The slices from z = low to z = high."""
    keep = (volume.origin[:, 2] >= low) & (volume.origin[:, 2] <= high)
    return replace(
        volume,
        pixels=volume.pixels[keep],
        slope=volume.slope[keep],
        intercept=volume.intercept[keep],
        origin=volume.origin[keep],
    )


# Loading


def test_the_engine_gets_the_verified_graph(model: Model, engine: FakeEngine) -> None:
    assert engine.graphs == [(model.bundle.folder / "model.onnx").read_bytes()]
    assert (model.info.name, model.info.version, model.info.precision) == ("tiny", "1.2", "fp32")
    assert (model.info.backend, model.info.demonstration) == ("fake", True)
    assert model.info.sha256 == model.bundle.sha256


def test_the_precision_is_the_one_measured_as_best_for_the_engine(
    engine: FakeEngine, write_bundle: Callable[..., Path]
) -> None:
    """Asked for or by default; one that is not there is an error, not the other one."""
    folder = write_bundle(default_precision={"fake": "int8", "other": "fp32"})
    with pytest.raises(BundleError, match="no int8 graph"):
        load(folder)
    assert load(folder, precision="fp32").info.precision == "fp32"


def test_a_tampered_graph_never_reaches_the_engine(engine: FakeEngine, write_bundle: Callable[..., Path]) -> None:
    folder = write_bundle(graph="the graph")
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b"the graph", b"xhe graph"))
    with pytest.raises(BundleError, match="SHA-256"):
        load(folder)
    assert not engine.graphs


# Verdicts


def test_a_clear_answer_on_a_whole_head_is_accepted(model: Model, engine: FakeEngine, study: Study) -> None:
    result = model.triage(study)
    assert result.verdict is Verdict.ACCEPT
    assert result.codes == () and result.reasons == ()
    assert [(f.label, f.positive) for f in result.findings] == [("any", True), ("subdural", True)]
    (key,) = result.key_slices
    assert key.weight == pytest.approx(0.8) and key.box is not None
    assert (result.system, result.bundle, result.input) == ("tinynet", model.info, study.info)
    (inputs,) = engine.inputs
    assert {name: array.shape for name, array in inputs.items()} == {
        "x": (1, PLANES, 1, 16, 16),
        "v": (1, PLANES),
    }


def test_a_negative_answer_is_an_answer(model: Model, engine: FakeEngine, study: Study) -> None:
    engine.outputs["logits"] = np.array([[-4.0, 2.0]], np.float32)
    result = model.triage(study)
    assert result.verdict is Verdict.ACCEPT
    assert not any(finding.positive for finding in result.findings)


def test_reasons_for_review_come_in_the_order_they_were_found(
    model: Model, engine: FakeEngine, study: Study, volume: Volume
) -> None:
    """Reading, then coverage, then the decision; a sentence for each code."""
    engine.outputs["logits"] = np.zeros((1, 2), np.float32)
    result = model.triage(replace(study, volume=cut(volume, -20, 95), notes=(TILTED, YOUNG)))
    assert result.verdict is Verdict.FLAG
    assert result.codes == (Code.TILT_CORRECTED, Code.AGE_UNDER_18, Code.COVERAGE_PARTIAL, Code.UNCERTAIN)
    assert result.reasons[:2] == (TILTED.reason, YOUNG.reason)
    assert len(result.reasons) == len(result.codes)
    assert result.findings


@pytest.mark.parametrize(
    ("solid", "low", "code"),
    [(lambda p: np.full(p.shape[:-1], -1000.0), -85, Code.NOT_HEAD), (head, 35, Code.COVERAGE)],
    ids=["air", "the uppermost slices of a head"],
)
def test_what_cannot_be_analysed_has_no_result(
    solid: Callable[[F64], F64],
    low: float,
    code: Code,
    model: Model,
    engine: FakeEngine,
    study: Study,
    stack_of: Callable[..., Volume],
) -> None:
    """A code and a sentence, then what reading had to say; no finding, and the engine is not asked."""
    shown = stack_of(solid, size=(64, 64), spacing=(4, 4), distances=np.arange(low, 96, 5.0))
    study = replace(study, volume=shown, notes=(TILTED,))
    result = model.triage(study)
    assert result.verdict is Verdict.NO_RESULT
    assert result.codes == (code, Code.TILT_CORRECTED)
    assert len(result.reasons) == 2 and all(result.reasons)
    assert (result.findings, result.key_slices, result.measurements) == ((), (), {})
    assert result.input == study.info
    assert set(result.timings_ms) == {"read", "select", "decode", "preprocess", "total"}
    assert not engine.inputs


def test_a_study_that_cannot_be_read_has_no_result(model: Model, tmp_path: Path) -> None:
    """No exception for bad data: a folder without DICOM, a file of noise; nothing is known of the input."""
    empty, noise = tmp_path / "empty", tmp_path / "noise.dcm"
    empty.mkdir()
    noise.write_bytes(bytes(range(256)) * 40)
    for path, code in ((empty, Code.NO_DICOM), (noise, Code.UNREADABLE)):
        result, study = model.triage_path(path)
        assert (result.verdict, result.codes) == (Verdict.NO_RESULT, (code,))
        assert study is None and result.input is None
        assert set(result.timings_ms) == {"total"}
        json.loads(result.to_json())


def test_a_path_that_is_not_there_is_the_callers_mistake(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        model.triage_path(tmp_path / "absent")


def test_from_files_to_the_answer(engine: FakeEngine, write_bundle: Callable[..., Path], tmp_path: Path) -> None:
    """A phantom in DICOM through the whole flow, also by the function for single use."""
    case = make_case(5, protocol=Protocol(slices=16, matrix=64, tilt_deg=12.0), voxel_mm=4.0)
    write_case(case, tmp_path / "study")
    folder = write_bundle()
    result = triage(tmp_path / "study" / "dicom", folder)
    assert result.verdict is Verdict.FLAG and result.codes[0] is Code.TILT_CORRECTED
    assert result.input is not None and result.input.tilt_deg == pytest.approx(12, abs=0.01)
    assert set(result.timings_ms) == STAGES | {"read", "select", "decode"}
    again, study = load(folder).triage_path(tmp_path / "study" / "dicom")
    assert again.findings == result.findings and study is not None


# Errors that are not the data's


@pytest.mark.parametrize("output", ["logits", "attention", "map"])
def test_an_output_that_is_no_number_is_the_bundles_mistake(
    output: str, model: Model, engine: FakeEngine, study: Study
) -> None:
    engine.outputs[output].reshape(-1)[-1] = np.nan
    with pytest.raises(BundleError, match="not a number"):
        model.triage(study)


@pytest.mark.parametrize("output", ["logits", "attention", "map"])
def test_an_output_that_is_not_there_is_the_bundles_mistake(
    output: str, model: Model, engine: FakeEngine, study: Study
) -> None:
    del engine.outputs[output]
    with pytest.raises(BundleError, match=output):
        model.triage(study)


def test_a_failing_engine_is_reported_as_such(model: Model, engine: FakeEngine, study: Study) -> None:
    """Never as a NO-RESULT: the study is not to blame."""
    engine.error = BackendError("out of memory")
    with pytest.raises(BackendError, match="out of memory"):
        model.triage(study)


# Times, and what is kept


def test_every_stage_is_timed_and_the_total_holds_them(model: Model, study: Study) -> None:
    """A study that was read before brings the time that reading took."""
    result = model.triage(study)
    times = result.timings_ms
    assert set(times) == STAGES | {"read", "select", "decode"}
    assert times["read"] == 40.0
    assert times["total"] >= sum(times[stage] for stage in times if stage != "total") - 0.01
    assert study.timings_ms == {"read": 40.0, "select": 2.0, "decode": 8.0}


def test_the_total_counts_from_where_the_caller_began(model: Model, study: Study) -> None:
    begun = time.perf_counter() - 10
    assert 10_000 <= model.triage(study, begun=begun).timings_ms["total"] < 20_000


def test_the_same_study_gives_the_same_answer_and_is_not_changed(model: Model, study: Study) -> None:
    before = study.volume.pixels.tobytes()
    first, again = model.triage(study), model.triage(study)
    assert study.volume.pixels.tobytes() == before
    assert replace_times(first) == replace_times(again)


def replace_times(result: Any) -> dict[str, Any]:
    """The result as JSON has it, without its times."""
    content: dict[str, Any] = json.loads(result.to_json())
    assert content.pop("timings_ms")
    return content


def test_a_stage_that_overran_its_budget_is_named(
    engine: FakeEngine, write_bundle: Callable[..., Path], study: Study
) -> None:
    """Budgets grow with the slices; a stage without one, and one within it, say nothing. It changes no verdict."""
    few = len(study.volume.pixels) - 1
    budgets = {
        "infer": StageBudget(ms=0.0),
        "decode": StageBudget(ms=8.0),
        "select": StageBudget(ms=1.0, per_slice_ms=1 / few),
        "read": StageBudget(ms=1.0, per_slice_ms=1.0),
    }
    result = load(write_bundle(graph="the graph", budgets=budgets)).triage(study)
    assert set(result.overran) == {"infer", "read"} and result.verdict is Verdict.ACCEPT
    assert render_text(result).count("over its budget") == 2


@pytest.mark.parametrize("budget", [StageBudget(ms=-1.0), StageBudget(ms=1.0, per_slice_ms=-1.0)])
def test_a_budget_is_a_time(budget: StageBudget, engine: FakeEngine, write_bundle: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="no time"):
        load(write_bundle(graph="the graph", budgets={"infer": budget}))


# On a device, and when it fails


class FakeDeviceEngine(FakeEngine):
    """An engine whose device runs the preprocessing, too."""

    name = "faraway"
    forms = ("float16", "float")

    def __init__(self) -> None:
        super().__init__()
        self.analysed: list[dict[str, Any]] = []

    def analyse(
        self, stack: Any, target: Any, windows: Any, *, image: str, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> tuple[Outputs, DeviceTiming]:
        self.analysed.append({"stack": stack, "target": target, "windows": windows, image: None, **inputs})
        if self.error:
            raise self.error
        time.sleep(0.02)
        return self.outputs, DeviceTiming(preprocess_ms=5.0, infer_ms=9.0, fetch_ms=1.0)


@pytest.fixture
def faraway(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> FakeDeviceEngine:
    """What ``auto`` takes; by the name of ONNX Runtime there is the other fake."""
    fake = FakeDeviceEngine()
    engine.name = "onnxruntime"
    monkeypatch.setattr("edgehem.serving.choose", lambda name: engine if name == "onnxruntime" else fake)
    return fake


def test_raw_slices_go_to_a_device_that_preprocesses(
    faraway: FakeDeviceEngine, write_bundle: Callable[..., Path], study: Study
) -> None:
    """The host places the grid; its own pass does not run. What the device spent on that counts as preprocessing."""
    result = load(write_bundle(graph="the graph")).triage(study)
    (asked,) = faraway.analysed
    assert asked["stack"] is study.volume and asked["target"].shape[0] == PLANES
    assert set(asked) == {"stack", "target", "windows", "x", "v"}
    assert faraway.inputs == []
    assert result.bundle.backend == "faraway" and result.bundle.fallback == ""
    assert result.timings_ms["preprocess"] >= 5 and result.timings_ms["infer"] >= 14


def test_a_graph_in_float16_gets_its_image_so(
    engine: FakeEngine, write_bundle: Callable[..., Path], study: Study
) -> None:
    """From either side: the host's pass, or the device's windows."""
    engine.forms = ("float16",)
    folder = write_bundle(graph="the graph")
    (graph,) = Bundle(folder).manifest.graphs
    half = msgspec.structs.replace(graph, form="float16", precision="fp16")
    model = load(write_bundle(graph="the graph", graphs=(half,)), precision="fp16")
    assert model.triage(study).bundle.arithmetic == "f16"
    assert engine.inputs[0]["x"].dtype == np.float16


@pytest.mark.parametrize(
    "error", [DeviceLostError("it is gone"), BackendMemoryError("no room"), BackendError("it says no")]
)
def test_a_device_that_fails_is_stood_in_for_loudly(
    error: Exception,
    faraway: FakeDeviceEngine,
    engine: FakeEngine,
    write_bundle: Callable[..., Path],
    study: Study,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The study gets its answer. A lost device is not asked again; one that was out of memory is."""
    model = load(write_bundle(graph="the graph"))
    faraway.error = error
    with caplog.at_level("ERROR"):
        result = model.triage(study)
    assert result.verdict is not Verdict.NO_RESULT and len(engine.inputs) == 1
    assert (result.bundle.backend, result.bundle.fallback) == ("onnxruntime", f"faraway: {error}")
    assert "faraway cannot analyse" in caplog.text
    faraway.error = None
    again = model.triage(study)
    lost = isinstance(error, DeviceLostError)
    assert again.bundle.backend == ("onnxruntime" if lost else "faraway")
    assert model.info.fallback == (f"faraway: {error}" if lost else "")
    assert len(faraway.analysed) == (1 if lost else 2)
    assert render_text(result).count("in place of faraway") == 1


def test_an_engine_that_was_asked_for_by_name_is_never_stood_in_for(
    faraway: FakeDeviceEngine, engine: FakeEngine, write_bundle: Callable[..., Path], study: Study
) -> None:
    model = load(write_bundle(graph="the graph"), backend="faraway")
    faraway.error = DeviceLostError("it is gone")
    with pytest.raises(DeviceLostError, match="it is gone"):
        model.triage(study)
    assert engine.inputs == []


def test_a_stand_in_that_fails_as_well_is_an_error(
    faraway: FakeDeviceEngine, engine: FakeEngine, write_bundle: Callable[..., Path], study: Study
) -> None:
    """A graph that no engine can run is a mistake to be mended."""
    model = load(write_bundle(graph="the graph"))
    faraway.error, engine.error = BackendError("a wrong shape"), BackendError("a wrong shape here, too")
    with pytest.raises(BackendError, match="here, too"):
        model.triage(study)
