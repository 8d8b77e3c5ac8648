"""ONNX Runtime's GPU providers, on a FAKE onnxruntime (tests/engines/fake_onnxruntime_gpu.py): no GPU ran any of this.

The last tests are real: the TensorRT-RTX plugin where it is installed, on a machine without a GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgehem import backends, gpu
from edgehem.backends import BF16, F16, F32, TF32, Backend, Build, Options
from edgehem.backends.onnxruntime_gpu import OnnxRuntimeCuda, OnnxRuntimeTensorRt, OnnxRuntimeTensorRtRtx, runtime
from edgehem.backends.onnxruntime_gpu.graph import facts
from edgehem.bundle import find
from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError, PlanError
from edgehem.kernels.errors import KernelUnavailableError
from edgehem.plans import PlanStore

HERE = Path(__file__).parent
TINY = runpy.run_path(str(HERE / "engines" / "tiny.py"))
FAKE = runpy.run_path(str(HERE / "engines" / "fake_onnxruntime_gpu.py"))
model: Callable[..., bytes] = TINY["model"]
field: Callable[..., bytes] = TINY["field"]
tensor: Callable[..., bytes] = TINY["tensor"]
FakeOnnxRuntime: Any = FAKE["FakeOnnxRuntime"]
Fail, EPFail = FAKE["Fail"], FAKE["EPFail"]
CUDA, TENSORRT, RTX, CPU = FAKE["CUDA"], FAKE["TENSORRT"], FAKE["RTX"], FAKE["CPU"]

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)
ROW = {"a": A[:1], "b": B[:1]}
SECRET = "/home/somebody/patient-4711.onnx with value 0.123"
HALF = field(1, 8) + field(
    7,
    field(1, field(1, "x") + field(2, "y") + field(4, "Identity"))
    + field(2, "half")
    + field(11, field(1, "x") + field(2, field(1, field(1, 10) + field(2, field(1, field(1, 1))))))
    + field(12, field(1, "y") + field(2, field(1, field(1, 10) + field(2, field(1, field(1, 1)))))),
) + field(8, field(1, "") + field(2, 13))  # fmt: skip
"""y = Identity(x), one float16."""

PLUGIN_SOURCE = """
import os
os.environ["LD_LIBRARY_PATH"] = "/somewhere"
{first}
def get_ep_name(): return "NvTensorRTRTXExecutionProvider"
def get_library_path(): return {path!r}
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which no provider was started, on a machine with one pretended GPU."""
    monkeypatch.setattr(runtime, "_registered", set())
    monkeypatch.setattr(runtime, "started", set())
    monkeypatch.setattr(runtime, "_preloaded", False)
    for name in ("NVIDIA_TF32_OVERRIDE", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, runtime.PLUGIN, raising=False)
    _pretend_gpu(monkeypatch)


def _pretend_gpu(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    parts = {"GPU": "Pretended", "compute capability": "8.7", "multiprocessors": "8", "driver": "1"} | changes
    monkeypatch.setattr(gpu, "key_parts", lambda ordinal=0: dict(parts))


def _pretend_packages(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Only these are installed; underscores stand for hyphens."""
    known = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(runtime.metadata, "version", version)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Puts a fake onnxruntime in place: with these providers, and the plugin's devices."""

    def put(*providers: str, devices: int = 0, version: str = "10.3.0") -> Any:
        fake = FakeOnnxRuntime(*providers)
        fake.devices = [SimpleNamespace(ep_name=RTX) for _ in range(devices)]
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        _pretend_packages(
            monkeypatch, onnxruntime_gpu="1.31.1", tensorrt=version, onnxruntime_ep_nv_tensorrt_rtx_cu13="0.5.0"
        )
        return fake

    return put


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a pretended plugin package."""

    def write(first: str = "") -> Path:
        folder = tmp_path / "site"
        folder.mkdir()
        library = folder / "libplugin.so"
        (folder / "libcudart.so.13.0.1").write_text("not a library: nothing comes of it")
        (folder / f"{runtime.PLUGIN}.py").write_text(PLUGIN_SOURCE.format(first=first, path=str(library)))
        monkeypatch.syspath_prepend(folder)
        return library

    return write


@pytest.fixture(params=["cuda", "tensorrt", "rtx"])
def opened(request: pytest.FixtureRequest, install: Any, plugin: Any) -> tuple[Backend, Any, Options]:
    """Each engine, its fake, and options that open a graph."""
    if request.param == "rtx":
        plugin()
        return OnnxRuntimeTensorRtRtx(), install(devices=1), Options(arithmetic=TF32, build=Build())
    fake = install(TENSORRT, CUDA)
    if request.param == "cuda":
        return OnnxRuntimeCuda(), fake, Options()
    return OnnxRuntimeTensorRt(), fake, Options(arithmetic=TF32, build=Build())


@pytest.fixture(params=["tensorrt", "rtx"])
def compiling(request: pytest.FixtureRequest, install: Any, plugin: Any) -> tuple[Backend, Any]:
    """Each engine that compiles, and its fake."""
    if request.param == "rtx":
        plugin()
        return OnnxRuntimeTensorRtRtx(), install(devices=1)
    return OnnxRuntimeTensorRt(), install(TENSORRT, CUDA)


# What all three have in common


def test_they_are_known_after_the_others_and_none_is_taken_by_itself() -> None:
    names = [engine.name for engine in backends.engines()]
    assert names[0] == "onnxruntime"
    assert names[-3:] == ["onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx"]


def test_each_says_what_it_is(opened: tuple[Backend, Any, Options]) -> None:
    engine, _, _ = opened
    assert engine.missing() == ""
    assert engine.version()[0].isdigit()
    assert not engine.on_request
    assert "float" in engine.forms and "float16" in engine.forms
    assert not any(form.startswith("qdq-u8") for form in engine.forms)
    assert (engine.patience_s, engine.needs_plan) == ((60, False) if "cuda" in engine.name else (1800, True))


def test_a_graph_runs_with_fresh_inputs_each_time(opened: tuple[Backend, Any, Options]) -> None:
    """And the answers belong to the caller."""
    engine, _, options = opened
    session = engine.open(model("Add"), options)
    a = A[:1].copy()
    first = session.run({"b": B[:1], "a": a})
    a += 100
    second = session.run({"a": a, "b": B[:1]})
    second["copy"][:] = -1
    np.testing.assert_array_equal(first["total"], A[:1] + B[:1])
    np.testing.assert_array_equal(second["total"], A[:1] + 100 + B[:1])
    np.testing.assert_array_equal(a, A[:1] + 100)


def test_onnx_runtime_is_not_let_to_fall_back_or_to_talk(opened: tuple[Backend, Any, Options]) -> None:
    """Its own fallback to the CPU is off at opening and at a run, and so is what it would print."""
    engine, fake, options = opened
    engine.open(model("Add"), Options(arithmetic=options.arithmetic, build=options.build, threads=3))
    assert fake.opened
    for session in fake.opened:
        assert session.rest == {"enable_fallback": 0, "read_config_from_model": 0}
        assert session.settings.log_severity_level == 4
        assert session.settings.use_deterministic_compute
        assert session.settings.inter_op_num_threads == 1
    assert fake.opened[-1].settings.intra_op_num_threads == 3


@pytest.mark.parametrize(
    "inputs",
    [
        {"a": A[:1]},
        {**ROW, "c": B[:1]},
        {"a": A[:1], "b": B[:1, :2]},
        {"a": A[:1], "b": B[:1].astype(np.float64)},
        {"a": A[:1], "b": B[0]},
    ],
    ids=["one missing", "one too many", "wrong shape", "wrong type", "wrong rank"],
)  # fmt: skip
def test_inputs_that_do_not_fit_do_not_reach_the_device(
    opened: tuple[Backend, Any, Options], inputs: dict[str, np.ndarray]
) -> None:
    engine, fake, options = opened
    session = engine.open(model("Add"), options)
    fake.run_error = Fail("the device was reached")
    with pytest.raises(BackendError, match="failed: the graph reads"):
        session.run(inputs)
    with pytest.raises(BackendError, match=r"reads b as float32 (any|1)×3, and was given float32 single value"):
        session.run({"a": A[:1], "b": np.float32(1)})


def test_a_graph_is_not_run_operator_by_operator(opened: tuple[Backend, Any, Options]) -> None:
    engine, _, options = opened
    with pytest.raises(BackendError, match="without optimising"):
        engine.open(model("Add"), Options(arithmetic=options.arithmetic, build=options.build, optimise=False))


def test_arithmetic_that_is_not_there_is_refused(opened: tuple[Backend, Any, Options]) -> None:
    engine, _, _ = opened
    for arithmetic in {F32, TF32, BF16} - set(engine.arithmetics()):
        with pytest.raises(BackendError, match=f"not in {arithmetic}"):
            engine.open(model("Add"), Options(arithmetic=arithmetic, build=Build()))


def test_float16_is_what_a_graph_is_written_in(opened: tuple[Backend, Any, Options]) -> None:
    """A float32 graph is not called float16, nor the other way round."""
    engine, _, options = opened
    half = engine.open(HALF, Options(arithmetic=F16, build=options.build))
    assert half.run({"x": np.ones(1, np.float16)})["y"] == 1
    with pytest.raises(BackendError, match="written in, float16, not in"):
        engine.open(HALF, options)
    with pytest.raises(BackendError, match="written in, float32, not in f16"):
        engine.open(model("Add"), Options(arithmetic=F16, build=options.build))


@pytest.mark.parametrize("graph", [b"", b"not a graph", model("NoSuchOperator"), model("Add")[:-10]])
def test_what_is_no_graph_is_refused(opened: tuple[Backend, Any, Options], graph: bytes) -> None:
    engine, _, options = opened
    with pytest.raises(BackendError, match="refuses the graph"):
        engine.open(graph, options)


def test_tf32_can_be_turned_off_for_the_whole_process(
    opened: tuple[Backend, Any, Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _, options = opened
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert engine.arithmetics() == (F32,)
    engine.open(model("Add"), Options(build=options.build))
    with pytest.raises(BackendError, match=r"not in tf32 \(NVIDIA_TF32_OVERRIDE"):
        engine.open(model("Add"), Options(arithmetic=TF32, build=options.build))


# Never another provider in its place


@pytest.mark.parametrize("way", ["drop", "raise"])
@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_is_listed_and_does_not_start_is_missing(install: Any, provider: str, way: str) -> None:
    """ONNX Runtime goes on with the CPU, or raises, by version and environment; #23372."""
    fake = install(TENSORRT, CUDA)
    fake.broken = {provider: way}
    engine = OnnxRuntimeTensorRt()
    reason = engine.missing()
    assert "did not start" in reason if way == "drop" else reason == "a trial (Fail)"
    assert (provider in reason) == (way == "drop")
    with pytest.raises(BackendError, match="a trial"):
        engine.open(model("Add"), Options(arithmetic=TF32, build=Build()))
    assert len(fake.opened) == 2, "opening must not get past the trial"
    assert OnnxRuntimeCuda().missing() == ("" if provider == TENSORRT else reason)


def test_a_provider_that_stops_to_start_after_the_trial_is_noticed(install: Any) -> None:
    """By each session, not by the trial alone."""
    fake = install(CUDA)
    engine = OnnxRuntimeCuda()
    assert engine.missing() == ""
    fake.broken = {CUDA: "drop"}
    with pytest.raises(BackendError, match="CUDAExecutionProvider did not start"):
        engine.open(model("Add"))


def test_providers_in_another_order_are_not_what_was_asked_for(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(TENSORRT, CUDA)
    monkeypatch.setattr(fake.InferenceSession, "get_providers", lambda self: [CUDA, TENSORRT, CPU])
    assert "TensorrtExecutionProvider did not start" in OnnxRuntimeTensorRt().missing()


def test_a_build_without_the_provider_says_what_to_install(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    _pretend_packages(monkeypatch, onnxruntime="1.31.1")
    for engine, named in ((OnnxRuntimeCuda(), CUDA), (OnnxRuntimeTensorRt(), f"{TENSORRT} and {CUDA}")):
        assert engine.version() == ""
        reason = engine.missing()
        assert f"built without {named}" in reason and "install onnxruntime-gpu" in reason
        with pytest.raises(BackendError, match="built without"):
            engine.open(model("Add"), Options(arithmetic=engine.arithmetics()[0], build=Build()))
        with pytest.raises(BackendError, match=f"{engine.name}: this onnxruntime was built without"):
            backends.choose(engine.name)


def test_packages_over_each_other_are_told_of_where_they_do_harm(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """edgehem itself asks for onnxruntime, so both are often there, and work while the one for GPUs came last."""
    fake = install(CUDA)
    both = {"onnxruntime": "1.31.1", "onnxruntime_gpu": "1.30.0"}
    _pretend_packages(monkeypatch, **both)
    assert OnnxRuntimeCuda().missing() == ""
    assert OnnxRuntimeCuda().version() == "1.30.0, onnxruntime 1.31.1"
    fake.broken = {CUDA: "drop"}
    monkeypatch.setattr(runtime, "started", set())
    assert "onnxruntime and onnxruntime-gpu are installed over each other" in OnnxRuntimeCuda().missing()
    install()
    _pretend_packages(monkeypatch, **both)
    reason = OnnxRuntimeCuda().missing()
    assert "built without" in reason and "installed over each other" in reason


def test_an_onnxruntime_that_cannot_be_imported_or_is_too_old_is_no_engine(
    install: Any, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin()
    fake = install(TENSORRT, CUDA, devices=1)
    engines = (OnnxRuntimeCuda(), OnnxRuntimeTensorRt(), OnnxRuntimeTensorRtRtx())
    monkeypatch.delattr(fake.InferenceSession, runtime.ASSIGNMENT)
    assert all("1.24 or newer is needed" in engine.missing() for engine in engines)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert all("cannot be imported (ModuleNotFoundError)" in engine.missing() for engine in engines)


def test_what_onnx_runtime_prints_while_it_looks_for_libraries_is_not_heard(
    install: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = install(CUDA)
    OnnxRuntimeCuda().missing()
    OnnxRuntimeCuda().open(model("Add"))
    assert fake.preloaded == 1
    assert capsys.readouterr() == ("", "")


def test_an_operator_on_the_cpu_is_an_error(opened: tuple[Backend, Any, Options]) -> None:
    engine, fake, options = opened
    engine.missing()
    fake.places = lambda operator, own: CPU
    with pytest.raises(BackendError, match="takes none of the graph's operators"):
        engine.open(model("Add"), options)
    fake.places = lambda operator, own: CPU if operator == "Pow" else own
    with pytest.raises(BackendError, match="would leave Pow to the CPU"):
        engine.open(model("Pow"), options)


def test_arithmetic_on_shapes_may_be_on_the_cpu(install: Any) -> None:
    """The shipped network has some, and ONNX Runtime puts it there whatever was asked for."""
    fake = install(CUDA)
    shapes = {"Shape", "Gather", "Unsqueeze", "Concat"}
    fake.places = lambda operator, own: CPU if operator in shapes else own
    bundle = find("hemorrhagenet")
    session = OnnxRuntimeCuda().open(bundle.read(bundle.graph("fp32")))
    assert session.operators[CPU] > 0 and session.operators[CUDA] > 50
    assert [port.name for port in session.inputs] == ["image", "valid"]


# CUDA


@pytest.mark.parametrize(("arithmetic", "tf32"), [(F32, "0"), (TF32, "1")])
def test_cuda_is_told_everything_that_changes_its_answers(install: Any, arithmetic: str, tf32: str) -> None:
    """TensorFloat-32 is on by default in ONNX Runtime, and algorithms are chosen by a race."""
    fake = install(CUDA)
    session = OnnxRuntimeCuda().open(model("Add"), Options(arithmetic=arithmetic))
    assert session.plan == ""
    used = fake.opened[-1]
    assert used.asked == [CUDA]
    assert used.options == [
        {
            "device_id": "0",
            "use_tf32": tf32,
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
            "do_copy_in_default_stream": "1",
        }
    ]
    assert used.settings.graph_optimization_level == fake.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_cuda_takes_any_batch_and_keeps_nothing(install: Any, tmp_path: Path) -> None:
    install(CUDA)
    session = OnnxRuntimeCuda().open(model("Add"), Options(cache=tmp_path / "plans", build=Build()))
    for rows in (1, 2):
        np.testing.assert_array_equal(session.run({"a": A[:rows], "b": B[:rows]})["total"], A[:rows] + B[:rows])
    assert not (tmp_path / "plans").exists()


# Plans


def test_nothing_is_compiled_without_leave(compiling: tuple[Backend, Any], tmp_path: Path) -> None:
    engine, fake = compiling
    engine.missing()
    before = len(fake.opened)
    for cache in (None, tmp_path / "plans"):
        with pytest.raises(PlanError, match="edgehem compile"):
            engine.open(model("Add"), Options(arithmetic=TF32, cache=cache))
    assert len(fake.opened) == before
    assert not (tmp_path / "plans").exists()


def test_a_plan_serves_after_it_was_qualified(compiling: tuple[Backend, Any], tmp_path: Path) -> None:
    """From the bytes that were kept; the graph itself is not looked at again."""
    engine, fake = compiling
    folder = tmp_path / "plans"
    graph = model("Add")
    made = Options(arithmetic=TF32, cache=folder, bundle="b" * 64, build=Build(workspace_mib=64, level=5))
    session = engine.open(graph, made)
    np.testing.assert_array_equal(session.run(ROW)["total"], A[:1] + B[:1])
    (record,) = PlanStore(folder).records()
    kept = (folder / f"{record.id}.bin").read_bytes()
    assert session.plan == record.id
    assert fake.opened[-1].content == kept
    assert facts(kept).engines == 1
    assert sum(record.details["operators"].values()) == 2
    later = Options(arithmetic=TF32, cache=folder, bundle="b" * 64)
    with pytest.raises(PlanError, match="never compared"):
        engine.open(graph, later)
    figures = {"shift": 0.0, "flips": 0, "sqnr_db": 100.0, "fidelity_db": 100.0}
    PlanStore(folder).qualify(record.id, reference="test", probes={}, figures=figures)
    count = len(fake.opened)
    served = engine.open(graph, later)
    assert served.plan == record.id
    assert [each.content for each in fake.opened[count:]] == [kept]
    np.testing.assert_array_equal(served.run(ROW)["total"], A[:1] + B[:1])
    used = fake.opened[-1].settings
    assert used.graph_optimization_level == fake.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert used.entry("ep.context_enable") == ""


def test_a_damaged_plan_is_not_loaded(compiling: tuple[Backend, Any], tmp_path: Path) -> None:
    engine, fake = compiling
    options = Options(arithmetic=TF32, cache=tmp_path / "plans", build=Build())
    plan = engine.open(model("Add"), options).plan
    figures = {"shift": 0.0, "flips": 0, "sqnr_db": 100.0, "fidelity_db": 100.0}
    PlanStore(tmp_path / "plans").qualify(plan, reference="test", probes={}, figures=figures)
    path = tmp_path / "plans" / f"{plan}.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    count = len(fake.opened)
    with pytest.raises(PlanError, match="damaged"):
        engine.open(model("Add"), Options(arithmetic=TF32, cache=tmp_path / "plans"))
    assert len(fake.opened) == count


def test_everything_that_decides_a_plan_is_in_its_key(
    compiling: tuple[Backend, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A qualified plan stops to fit when any of it changes."""
    engine, fake = compiling
    folder = tmp_path / "plans"
    plan = engine.open(model("Add"), Options(arithmetic=TF32, cache=folder, bundle="b", build=Build())).plan
    figures = {"shift": 0.0, "flips": 0, "sqnr_db": 100.0, "fidelity_db": 100.0}
    PlanStore(folder).qualify(plan, reference="test", probes={}, figures=figures)
    (record,) = PlanStore(folder).records()
    assert record.key["graph"] == hashlib.sha256(model("Add")).hexdigest()
    assert record.key["onnxruntime"] == fake.__version__
    assert json.loads(record.key["settings"]) == fake.opened[-1].options

    def reason(graph: bytes = model("Add"), bundle: str = "b", arithmetic: str = TF32) -> str:
        with pytest.raises(PlanError) as refused:
            engine.open(graph, Options(arithmetic=arithmetic, cache=folder, bundle=bundle))
        return str(refused.value)

    assert "none was made" in reason(graph=model("Sub"))
    assert "another bundle" in reason(bundle="c")
    for name, value in {"GPU": "Other", "multiprocessors": "4", "driver": "2", "compute capability": "8.9"}.items():
        _pretend_gpu(monkeypatch, **{name: value})
        assert f"{name} was" in reason()
    _pretend_gpu(monkeypatch)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert "arithmetic was tf32, is f32" in reason(arithmetic=F32)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    monkeypatch.setattr(type(fake), "__version__", "9.9")
    assert "onnxruntime was" in reason()


def test_a_new_compiler_makes_plans_unfit(
    compiling: tuple[Backend, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = compiling
    engine.open(model("Add"), Options(arithmetic=TF32, cache=tmp_path / "plans", build=Build()))
    _pretend_packages(
        monkeypatch, onnxruntime_gpu="1.31.1", tensorrt="10.4.0", onnxruntime_ep_nv_tensorrt_rtx_cu13="0.6.0"
    )
    with pytest.raises(PlanError, match=r"TensorRT.* was (10\.3\.0, is 10\.4\.0|0\.5\.0, is 0\.6\.0)"):
        engine.open(model("Add"), Options(arithmetic=TF32, cache=tmp_path / "plans"))


def test_without_a_folder_a_fresh_plan_runs_and_nothing_is_kept(
    compiling: tuple[Backend, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = compiling
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    session = engine.open(model("Add"), Options(arithmetic=TF32, build=Build()))
    assert session.plan == ""
    np.testing.assert_array_equal(session.run(ROW)["total"], A[:1] + B[:1])
    assert sorted(tmp_path.iterdir()) == before


def test_a_plan_is_for_one_study_at_a_time(compiling: tuple[Backend, Any]) -> None:
    """Free dimensions are fixed where the engine is built, and another size is refused before the device."""
    engine, fake = compiling
    session = engine.open(model("Add"), Options(arithmetic=TF32, build=Build()))
    assert [port.shape for port in session.inputs] == [(1, 3), (1, 3)]
    with pytest.raises(BackendError, match="reads a as float32 1×3, and was given float32 2×3"):
        session.run({"a": A, "b": B})
    built = next(each for each in fake.opened if each.settings.entry("ep.context_enable") == "1")
    assert built.shapes == [[1, 3], [1, 3]]
    assert built.settings.graph_optimization_level == fake.GraphOptimizationLevel.ORT_ENABLE_BASIC


def test_a_free_dimension_without_a_name_cannot_be_fixed(compiling: tuple[Backend, Any]) -> None:
    engine, _ = compiling
    with pytest.raises(BackendError, match="no name"):
        engine.open(model("Add").replace(field(2, "N"), field(3, "N")), Options(arithmetic=TF32, build=Build()))


@pytest.mark.parametrize(
    ("writes", "message"),
    [
        ("nothing", "writes no plan"),
        ("outside", "without its engine inside"),
        ("engineless", "without its engine inside"),
        ("part", "a part of the graph only: it answers"),
        ("rest", "a part of the graph only: it reads"),
    ],
)
def test_a_plan_that_is_not_whole_is_not_kept(
    compiling: tuple[Backend, Any], tmp_path: Path, writes: str, message: str
) -> None:
    """An engine in another file would be read unverified; and older releases write down the part they took."""
    engine, fake = compiling
    fake.writes = writes
    with pytest.raises(BackendError, match=message):
        engine.open(model("Add"), Options(arithmetic=TF32, cache=tmp_path / "plans", build=Build()))
    assert not (tmp_path / "plans").exists()


def test_a_plan_that_cannot_be_kept_or_read_is_an_error(
    compiling: tuple[Backend, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = compiling
    folder = tmp_path / "plans"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(BackendError, match=r"cannot be kept .*open to others"):
        engine.open(model("Add"), Options(arithmetic=TF32, cache=folder, build=Build()))
    monkeypatch.setattr("edgehem.backends.onnxruntime_gpu.MOST_PLAN_BYTES", 10)
    with pytest.raises(BackendError, match="plan cannot be read"):
        engine.open(model("Add"), Options(arithmetic=TF32, build=Build()))


def test_float32_is_what_older_gpus_compute_in(compiling: tuple[Backend, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = compiling
    assert engine.arithmetics() == (TF32,)
    _pretend_gpu(monkeypatch, **{"compute capability": "7.5"})
    assert engine.arithmetics() == (F32,)
    engine.open(model("Add"), Options(build=Build()))


def test_a_gpu_that_does_not_say_what_it_is_is_missing(
    compiling: tuple[Backend, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans could not be kept under anything."""

    def key_parts(ordinal: int = 0) -> dict[str, str]:
        raise KernelUnavailableError("pycuda is not installed")

    engine, _ = compiling
    monkeypatch.setattr(gpu, "key_parts", key_parts)
    assert engine.missing() == "pycuda is not installed"
    with pytest.raises(BackendError, match="pycuda"):
        engine.arithmetics()


# TensorRT


def test_tensorrt_keeps_no_cache_of_its_own_and_gets_the_types_of_the_graph(install: Any) -> None:
    """Its caches are read unverified."""
    fake = install(TENSORRT, CUDA)
    engine = OnnxRuntimeTensorRt()
    engine.open(model("Add"), Options(arithmetic=TF32, build=Build(workspace_mib=64, level=5)))
    built, served = fake.opened[-2:]
    assert built.asked == served.asked == [TENSORRT, CUDA]
    wanted = {
        "device_id": "0",
        "trt_fp16_enable": "False",
        "trt_int8_enable": "False",
        "trt_engine_cache_enable": "False",
        "trt_timing_cache_enable": "False",
        "trt_dump_subgraphs": "False",
    }
    assert built.options[0] == wanted | {"trt_max_workspace_size": str(64 << 20), "trt_builder_optimization_level": "5"}
    assert served.options[0] == wanted
    assert built.options[1]["use_tf32"] == served.options[1]["use_tf32"] == "1"
    engine.open(HALF, Options(arithmetic=F16, build=Build()))
    assert fake.opened[-1].options[0]["trt_fp16_enable"] == "True"
    assert fake.opened[-1].options[1]["use_tf32"] == "0"
    bundle = find("hemorrhagenet")
    engine.open(bundle.read(bundle.graph("int8", ("qdq-s8",))), Options(arithmetic=TF32, build=Build()))
    assert fake.opened[-1].options[0]["trt_int8_enable"] == "True"
    assert "trt_builder_optimization_level" not in fake.opened[-2].options[0]


def test_trying_tensorrt_builds_no_engine(install: Any) -> None:
    fake = install(TENSORRT, CUDA)
    assert OnnxRuntimeTensorRt().missing() == OnnxRuntimeTensorRt().missing() == ""
    (trial,) = fake.opened
    assert trial.options[0] == {"device_id": "0", "trt_min_subgraph_size": "1000000"}


def test_the_loaded_tensorrt_says_its_version(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a package beside it; JetPack's has none."""
    install(TENSORRT, CUDA)
    maps = tmp_path / "maps"
    monkeypatch.setattr(runtime, "MAPS", maps)
    assert runtime.tensorrt_version() == "10.3.0"
    maps.write_text(
        "7f00-7f01 r-xp 00 08:01 1 /usr/lib/libnvinfer_plugin.so.10.9.9\n"
        "7f00-7f01 r-xp 00 08:01 1 /usr/lib/libnvinfer.so.10.13.3\n"
        "7f00-7f01 r-xp 00 08:01 1 /usr/lib/libc.so.6\n"
    )
    assert runtime.tensorrt_version() == "10.13.3"
    maps.unlink()
    _pretend_packages(monkeypatch)
    assert OnnxRuntimeTensorRt().missing() == "TensorRT does not say its version"


# TensorRT for RTX


def test_the_plugin_is_registered_once_and_its_device_asked_for(install: Any, plugin: Any) -> None:
    library = plugin()
    fake = install(devices=1)
    engine = OnnxRuntimeTensorRtRtx()
    assert engine.missing() == engine.missing() == ""
    engine.open(model("Add"), Options(arithmetic=TF32, build=Build(workspace_mib=64)))
    assert fake.registered == [(RTX, str(library))]
    assert fake.opened[-1].asked == [RTX]
    assert fake.opened[-2].options == [{"nv_max_workspace_size": str(64 << 20)}]
    assert fake.opened[-1].options == [{}], "no cache of its own, which would be read unverified"
    assert fake.attempts == 1
    assert "LD_LIBRARY_PATH" not in os.environ, "children would look there for every library of theirs"


def test_a_search_path_that_was_there_is_put_back(install: Any, plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin()
    install(devices=1)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    assert OnnxRuntimeTensorRtRtx().missing() == ""
    assert os.environ["LD_LIBRARY_PATH"] == "/mine"


def test_a_plugin_that_the_program_registered_before_is_used(install: Any, plugin: Any) -> None:
    plugin()
    fake = install(devices=1)
    fake.register_execution_provider_library(RTX, "elsewhere")
    assert OnnxRuntimeTensorRtRtx().missing() == ""
    assert len(fake.registered) == 1


@pytest.mark.parametrize(("devices", "message"), [(0, "no NVIDIA RTX GPU"), (2, "2 GPUs: .*CUDA_VISIBLE_DEVICES")])
def test_the_plugin_needs_one_gpu(install: Any, plugin: Any, devices: int, message: str) -> None:
    plugin()
    install(devices=devices)
    engine = OnnxRuntimeTensorRtRtx()
    with pytest.raises(BackendError, match=message):
        engine.open(model("Add"), Options(arithmetic=TF32, build=Build()))
    assert engine.missing()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"Failed to load library {SECRET} with error: libcuda.so.1: cannot open shared object file: No such file",
            "its plugin cannot be loaded: libcuda.so.1 is not here, which NVIDIA's driver brings",
        ),
        (
            f"Failed to load library {SECRET} with error: libz.so.1: cannot open shared object file: No such file",
            "its plugin cannot be loaded: libz.so.1 is not here",
        ),
        (f"Failed to load library {SECRET}", "its plugin cannot be loaded: Fail"),
    ],
)
def test_a_plugin_whose_library_does_not_load_says_what_is_missing(
    install: Any, plugin: Any, text: str, message: str
) -> None:
    plugin()
    fake = install(devices=1)
    fake.register_error = Fail(text)
    assert OnnxRuntimeTensorRtRtx().missing() == message
    fake.register_error = None
    assert OnnxRuntimeTensorRtRtx().missing() == "", "a failure is not remembered"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (None, "is not installed: pip install"),
        ("import no_such_module_at_all", "its plugin needs no_such_module_at_all"),
        ("raise OSError('libtensorrt_rtx.so')", r"cannot be imported \(OSError\)"),
    ],
)
def test_a_plugin_that_is_absent_or_broken_says_so(install: Any, plugin: Any, first: str | None, message: str) -> None:
    install(devices=1)
    if first is not None:
        plugin(first)
    elif importlib.util.find_spec(runtime.PLUGIN):
        pytest.skip("it is installed here")
    with pytest.raises(BackendError, match=message):
        OnnxRuntimeTensorRtRtx().open(model("Add"), Options(arithmetic=TF32, build=Build()))
    assert OnnxRuntimeTensorRtRtx().missing()
    assert "LD_LIBRARY_PATH" not in os.environ


def test_a_plugin_without_a_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_packages(monkeypatch)
    assert OnnxRuntimeTensorRtRtx().version() == ""


# Failures


def test_a_lost_device_stays_lost(opened: tuple[Backend, Any, Options]) -> None:
    """The session does not go near it again, and says the same."""
    engine, fake, options = opened
    session = engine.open(model("Add"), options)
    fake.run_error = EPFail(f"CUDA failure 700: an illegal memory access was encountered {SECRET}")
    with pytest.raises(DeviceLostError, match="cudaErrorIllegalAddress") as first:
        session.run(ROW)
    fake.run_error = None
    with pytest.raises(DeviceLostError) as second:
        session.run(ROW)
    assert str(first.value) == str(second.value)


@pytest.mark.parametrize(("text", "kind"), [("out of memory", BackendMemoryError), ("odd", BackendError)])
def test_other_failures_pass(opened: tuple[Backend, Any, Options], text: str, kind: type[BackendError]) -> None:
    engine, fake, options = opened
    session = engine.open(model("Add"), options)
    fake.run_error = EPFail(f"{text} {SECRET}")
    with pytest.raises(BackendError, match="failed while running") as failed:
        session.run(ROW)
    assert type(failed.value) is kind
    fake.run_error = None
    np.testing.assert_array_equal(session.run(ROW)["total"], A[:1] + B[:1])


@pytest.mark.parametrize(
    ("text", "kind"), [("CUDA failure 2", BackendMemoryError), ("CUDA failure 719", DeviceLostError)]
)
def test_opening_tells_failures_apart_too(
    opened: tuple[Backend, Any, Options], text: str, kind: type[BackendError]
) -> None:
    engine, fake, options = opened
    engine.missing()
    fake.open_error = Fail(f"{text}: {SECRET}")
    with pytest.raises(kind, match="refuses the graph"):
        engine.open(model("Add"), options)


def test_what_onnx_runtime_says_is_nowhere_in_a_traceback(
    opened: tuple[Backend, Any, Options], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It may quote values and paths; no cause and no context brings it along either."""
    engine, fake, options = opened
    session = engine.open(model("Add"), options)
    for place in ("run_error", "open_error"):
        setattr(fake, place, Fail(SECRET))
        with pytest.raises(BackendError) as failed:
            _ = session.run(ROW) if place == "run_error" else engine.open(model("Add"), options)
        assert failed.value.__cause__ is failed.value.__context__ is None
        assert "4711" not in "".join(traceback.format_exception(failed.value))
    assert "4711" not in caplog.text + "".join(capfd.readouterr())


def test_the_graph_that_providers_are_tried_with_is_one() -> None:
    """With the real onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(runtime.PROBE, providers=[CPU])
    assert session.run(None, {"x": np.ones(1, np.float32)})[0] == 1


# Real: what is asked of onnxruntime exists, and the plugin where there is no GPU


def test_the_real_onnxruntime_has_what_the_fake_pretends() -> None:
    import onnxruntime

    for name in ("get_available_providers", "get_ep_devices", "register_execution_provider_library", "preload_dlls"):
        assert callable(getattr(onnxruntime, name))
    assert callable(onnxruntime.SessionOptions.add_provider_for_devices)
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    settings.add_free_dimension_override_by_name("N", 1)
    session = onnxruntime.InferenceSession(
        model("Add"), settings, providers=[CPU], provider_options=[{}], enable_fallback=0, read_config_from_model=0
    )
    found = [
        (part.ep_name, each.op_type) for part in getattr(session, runtime.ASSIGNMENT)() for each in part.get_nodes()
    ]
    assert sorted(found) == [(CPU, "Add"), (CPU, "Identity")]
    assert [port.shape for port in session.get_inputs()] == [[1, 3], [1, 3]]


def test_on_the_cpu_wheel_the_providers_are_missing() -> None:
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built for GPUs")
    assert "built without CUDAExecutionProvider" in OnnxRuntimeCuda().missing()
    assert "built without TensorrtExecutionProvider" in OnnxRuntimeTensorRt().missing()


WATCHED = """
import json, os, socket, sys

def refuse(*_, **__):
    raise SystemExit("a socket was opened")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

from edgehem.backends.onnxruntime_gpu import OnnxRuntimeTensorRtRtx
engine = OnnxRuntimeTensorRtRtx()
print(json.dumps([engine.missing(), engine.missing(), engine.version(), os.environ.get("LD_LIBRARY_PATH")]))
"""


@pytest.mark.skipif(not importlib.util.find_spec(runtime.PLUGIN), reason="the TensorRT-RTX plugin is not installed")
def test_the_real_plugin_without_a_gpu_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU")
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    environment = {**os.environ, **dict.fromkeys(names, str(tmp_path))}
    environment.pop("LD_LIBRARY_PATH", None)
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second, version, search_path = json.loads(done.stdout)
    assert first == second
    assert "libcuda.so.1 is not here, which NVIDIA's driver brings" in first or "no NVIDIA RTX GPU" in first
    assert version[0].isdigit()
    assert search_path is None
    assert list(tmp_path.rglob("*")) == []
