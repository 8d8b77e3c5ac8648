"""The backend on a fake GPU: its key, its cache, its words, and a study through a plan that was qualified."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehem import gpu
from edgehem import state as states
from edgehem.backends import Backend, Build, Options
from edgehem.backends import lane as lanes
from edgehem.backends import tensorrt as backend
from edgehem.backends.onnxruntime import OnnxRuntime
from edgehem.backends.tensorrt import TensorRt, TensorRtDla
from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError, PlanError
from edgehem.plans import PlanStore, Record

Maker = Callable[..., Any]
FIGURES = {"shift": 0.001, "flips": 0, "sqnr_db": 41.5, "fidelity_db": 60.0}
ONES = {"a": np.ones((1, 3), np.float32), "b": np.full((1, 3), 2, np.float32)}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "plans"


@pytest.fixture
def options(cache: Path) -> Options:
    return Options(cache=cache, bundle="b" * 64)


@pytest.fixture
def engine(trt: Any) -> TensorRt:
    return TensorRt()


@pytest.fixture
def compiled(engine: TensorRt, options: Options) -> Callable[..., Record]:
    """Build a plan and let it serve, as ``edgehem compile`` does."""

    def make(graph: bytes, which: TensorRt | None = None, **changes: Any) -> Record:
        chosen = which or engine
        session = chosen.open(graph, replace(options, build=Build(), **changes))
        assert options.cache is not None
        store = PlanStore(options.cache)
        store.qualify(session.plan, reference="onnxruntime", probes={"count": 1}, figures=FIGURES)
        session.close()
        (record,) = [each for each in store.records() if each.id == session.plan]
        return record

    return make


# Whether it is there


def test_it_is_a_backend(engine: TensorRt) -> None:
    known: Backend = engine
    assert known.missing() == "" and known.name == "tensorrt" and not known.on_request
    assert TensorRtDla().on_request and TensorRtDla().missing() == ""


def test_what_is_missing_is_said(engine: TensorRt, trt: Any, cuda: Any) -> None:
    trt.module.__version__ = "12.1"
    assert engine.missing() == "TensorRT 12.1 is none of 10.3 to 11"
    trt.module.__version__ = "10.3.0"
    cuda.devices = 0
    assert engine.missing() == "no CUDA device"
    with pytest.raises(BackendError, match="no CUDA device"):
        engine.arithmetics()


def test_looking_opens_nothing(engine: TensorRt, trt: Any, cuda: Any) -> None:
    """For ``edgehem doctor``."""
    assert engine.look() == "" and not cuda.calls["retain"] and not cuda.calls["module"]
    cuda.devices = 0
    assert engine.look() == "no CUDA device"
    trt.module.__version__ = "9.0"
    assert engine.look() == "TensorRT 9.0 is none of 10.3 to 11"


@pytest.mark.parametrize("installed", ["tensorrt", "tensorrt-cu13", None])
def test_its_version_is_that_of_the_package(installed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing it."""

    def version(name: str) -> str:
        if name == installed:
            return "10.13"
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    assert TensorRt().version() == ("10.13" if installed else "")


@pytest.mark.parametrize(
    ("capability", "can"),
    [((7, 5), ("f32",)), ((8, 0), ("f32", "tf32")), ((8, 7), ("f32", "tf32")), ((12, 1), ("f32", "tf32"))],
)
def test_tensor_float_32_from_ampere_on(
    capability: tuple[int, int], can: tuple[str, ...], engine: TensorRt, cuda: Any, sums: bytes
) -> None:
    cuda.capability = capability
    assert engine.arithmetics() == can


# A plan's life


def test_a_qualified_plan_serves_in_the_next_process(
    compiled: Maker, options: Options, sums: bytes, trt: Any, cuda: Any
) -> None:
    """It is not built again; it computes what ONNX Runtime computes."""
    record = compiled(sums)
    lanes.close_lanes()
    session = TensorRt().open(sums, options)
    assert session.plan == record.id and trt.calls["build"] == 1
    found, right = session.run(ONES), OnnxRuntime().open(sums).run(ONES)
    assert found.keys() == right.keys() and all(np.array_equal(found[name], right[name]) for name in right)
    session.close()


def test_a_study_from_raw_slices_through_the_cache(
    compiled: Maker,
    options: Options,
    graph_of: Maker,
    stack: Maker,
    target: Any,
    windows: Maker,
    expected: Maker,
    engine: TensorRt,
) -> None:
    """Preprocessing kernel and engine, against oracle and ONNX Runtime, bit for bit."""
    graph, valid = graph_of(), np.ones((1, 5), np.float32)
    compiled(graph)
    session = engine.open(graph, options)
    found, _ = session.analyse(stack(), target, windows(), image="image", inputs={"valid": valid})
    right = expected(graph, stack(), target, windows(), valid)
    for name, array in right.items():
        np.testing.assert_array_equal(found[name].view("u4"), array.view("u4"))
    session.close()


def test_a_build_that_was_not_compared_does_not_serve(
    engine: TensorRt, options: Options, sums: bytes, trt: Any
) -> None:
    session = engine.open(sums, replace(options, build=Build()))
    session.close()
    with pytest.raises(PlanError, match="never compared with the reference; run edgehem compile"):
        engine.open(sums, options)
    assert trt.calls["build"] == 1


def test_wrong_numbers_show_in_the_comparison_and_the_plan_before_serves_on(
    compiled: Maker, engine: TensorRt, options: Options, sums: bytes, trt: Any
) -> None:
    """Two builds of one graph do not compute the same: the second fails its qualification, and is left as it is."""
    good = compiled(sums)
    trt.traits = {"off": 0.25}
    wrong = engine.open(sums, replace(options, build=Build()))
    off = wrong.run(ONES)["total"] - OnnxRuntime().open(sums).run(ONES)["total"]
    np.testing.assert_array_equal(off, np.full((1, 3), 0.25, np.float32))
    assert wrong.plan != good.id
    wrong.close()
    session = engine.open(sums, options)
    assert session.plan == good.id
    np.testing.assert_array_equal(session.run(ONES)["total"], ONES["a"] + ONES["b"])
    session.close()


def test_what_is_kept_with_a_plan(compiled: Maker, sums: bytes, trt: Any, options: Options) -> None:
    trt.failures["parser warns"] = ["UINT8 is taken as INT8"]
    record = compiled(sums)
    assert record.engine == "tensorrt" and record.qualified is not None
    assert record.key == {
        "graph": hashlib.sha256(sums).hexdigest(),
        "bundle": "b" * 64,
        "arithmetic": "f32",
        "TensorRT": "10.3.0.26",
        "accelerator": "GPU",
        "batch": "1",
        "GPU": "Fake GPU",
        "compute capability": "9.0",
        "multiprocessors": "16",
        "CUDA of the driver": "13.0",
        "driver": "550.54.15",
    }
    assert record.details["types"] == {"INT8": 1, "FP32": 1}
    assert record.details["warnings"] == ["UINT8 is taken as INT8"]
    assert record.settings["shapes"] == {"a": [1, 3], "b": [1, 3]}


def test_without_a_cache_nothing_is_kept_and_nothing_serves(engine: TensorRt, sums: bytes, options: Options) -> None:
    session = engine.open(sums, Options(build=Build()))
    assert session.plan == "" and session.run(ONES)
    session.close()
    with pytest.raises(PlanError, match="serves only plans that were made and compared before"):
        engine.open(sums, Options())


# What makes a plan stale


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("driver", "driver was 550.54.15, is 570.86.10"),
        ("no driver file", "driver was 550.54.15, is unknown"),
        ("CUDA", "CUDA of the driver was 13.0, is 12.6"),
        ("TensorRT", "TensorRT was 10.3.0.26, is 10.13.3.9"),
        ("capability", "compute capability was 9.0, is 8.7"),
        ("power mode", "multiprocessors was 16, is 8"),
        ("arithmetic", "arithmetic was f32, is tf32"),
        ("bundle", "it is of another bundle"),
        ("graph", "none was made"),
        ("DLA", "none was made"),
        ("two", "driver was 550.54.15, is 570.86.10; multiprocessors was 16, is 8"),
    ],
)
def test_a_plan_of_another_machine_or_software_is_refused_by_word(
    change: str, words: str, compiled: Maker, options: Options, sums: bytes, trt: Any, cuda: Any, make_trt: Maker
) -> None:
    """And no plan is built in its place."""
    compiled(sums)
    graph, engine = sums, TensorRt()
    if change in ("driver", "two"):
        gpu.DRIVER_FILE.write_text(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (dvs-builder@U16)\n"
        )
    if change in ("power mode", "two"):
        cuda.multiprocessors = 8
    if change == "no driver file":
        gpu.DRIVER_FILE.unlink()
    elif change == "CUDA":
        cuda.driver_version = 12060
    elif change == "TensorRT":
        make_trt(version="10.13.3.9")
    elif change == "capability":
        cuda.capability = (8, 7)
    elif change == "arithmetic":
        options = replace(options, arithmetic="tf32")
    elif change == "bundle":
        options = replace(options, bundle="c" * 64)
    elif change == "graph":
        graph = sums + b"\x12\x01x"
    elif change == "DLA":
        engine = TensorRtDla()
    builds = trt.calls["build"]
    with pytest.raises(PlanError, match=f"here: {words}; run edgehem compile"):
        engine.open(graph, options)
    assert trt.calls["build"] == builds


def test_a_damaged_plan_never_reaches_tensorrt(
    compiled: Maker, engine: TensorRt, options: Options, sums: bytes
) -> None:
    """The fake would run it, and says so."""
    record = compiled(sums)
    assert options.cache is not None
    path = options.cache / f"{record.id}.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PlanError, match="it is damaged; run edgehem compile"):
        engine.open(sums, options)


def test_a_plan_that_tensorrt_does_not_take_is_another_error(
    compiled: Maker, engine: TensorRt, options: Options, sums: bytes, trt: Any
) -> None:
    compiled(sums)
    trt.failures["deserialize"] = "Platform specific tag mismatch detected"
    with pytest.raises(BackendError, match="does not load the plan: Platform specific tag") as caught:
        engine.open(sums, options)
    assert not isinstance(caught.value, PlanError)


# Asked for what it cannot do


def test_what_it_cannot_do(engine: TensorRt, options: Options, sums: bytes, cuda: Any) -> None:
    with pytest.raises(BackendError, match="cannot run a graph without optimising it"):
        engine.open(sums, replace(options, optimise=False))
    cuda.capability = (7, 5)
    with pytest.raises(BackendError, match="computes in f32 on this GPU, not in tf32"):
        engine.open(sums, replace(options, arithmetic="tf32"))


def test_a_graph_in_float16_is_run_in_float16(
    compiled: Maker, engine: TensorRt, options: Options, graph_of: Maker
) -> None:
    graph = graph_of("float16")
    record = compiled(graph, arithmetic="f16")
    session = engine.open(graph, replace(options, arithmetic="f16"))
    assert record.settings["tf32"] and session.inputs["image"].dtype == "float16"
    session.close()


def test_the_deep_learning_accelerator(compiled: Maker, options: Options, sums: bytes, make_trt: Maker) -> None:
    """Where there is one; its plans are its own, and go back to their core."""
    trt = make_trt(dla_cores=1)
    record = compiled(sums, TensorRtDla())
    assert record.engine == "tensorrt-dla" and record.key["accelerator"] == "DLA 0"
    session = TensorRtDla().open(sums, options)
    assert session.run(ONES)
    session.close()
    trt.dla_cores = 0
    with pytest.raises(BackendError, match="has 0 deep learning accelerators"):
        TensorRtDla().open(sums, replace(options, build=Build()))


# Builds that fail


@pytest.mark.parametrize(
    ("what", "says", "kind"),
    [
        ("parse", [("MyOp", "x", "no importer")], BackendError),
        ("build", "no kernel", BackendError),
        ("build", "out of memory", BackendMemoryError),
        ("context", "cudaErrorMemoryAllocation", BackendMemoryError),
        ("late", "nan", BackendError),
        ("fault", "an illegal memory access was encountered", DeviceLostError),
    ],
)
def test_a_build_that_fails_keeps_no_plan(
    what: str, says: Any, kind: type[Exception], engine: TensorRt, options: Options, sums: bytes, trt: Any
) -> None:
    trt.failures[what] = says
    with pytest.raises(kind) as caught:
        engine.open(sums, replace(options, build=Build()))
    assert type(caught.value) is kind
    assert options.cache is not None and PlanStore(options.cache).records() == []


def test_a_plan_that_cannot_be_kept_is_an_error(
    engine: TensorRt, options: Options, sums: bytes, trt: Any, cuda: Any
) -> None:
    """A folder that others may write to: nothing is put there, and nothing stays on the device."""
    assert options.cache is not None
    options.cache.mkdir(mode=0o755)
    with pytest.raises(BackendError, match=r"the plan cannot be kept \(.*mode 0700"):
        engine.open(sums, replace(options, build=Build()))
    assert not trt.alive and not cuda.memory
    assert list(options.cache.iterdir()) == []


def test_layers_that_cannot_be_told_leave_no_session(
    engine: TensorRt, options: Options, sums: bytes, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BackendError("no inspector")

    monkeypatch.setattr("edgehem.backends.tensorrt.session.layers", fail)
    with pytest.raises(BackendError, match="no inspector"):
        engine.open(sums, replace(options, build=Build()))
    assert not trt.alive


# The timing cache


@pytest.fixture
def timings(cache: Path) -> Callable[[], list[Path]]:
    return lambda: sorted(cache.glob("timing-*.cache"))


def test_the_timing_cache_is_shared_by_graphs_of_one_device(
    engine: TensorRt, options: Options, sums: bytes, graph_of: Maker, trt: Any, timings: Callable[[], list[Path]]
) -> None:
    """And by arithmetics, and bundles. Another TensorRT has its own."""
    build = replace(options, build=Build())
    for graph, changes in ((sums, {}), (graph_of(), {"bundle": "c" * 64}), (sums, {"arithmetic": "tf32"})):
        engine.open(graph, replace(build, **changes)).close()
    assert trt.told["known timing"] and len(timings()) == 1
    trt.version = trt.module.__version__ = "10.4.0"
    engine.open(sums, build).close()
    assert not trt.told["known timing"] and len(timings()) == 2


@pytest.mark.parametrize("how", ["damaged", "another's", "unknown", "link"])
def test_a_timing_cache_that_cannot_be_believed_is_not(
    how: str,
    engine: TensorRt,
    options: Options,
    sums: bytes,
    trt: Any,
    timings: Callable[[], list[Path]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    build = replace(options, build=Build())
    engine.open(sums, build).close()
    (path,) = timings()
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:-3])
    elif how == "another's":
        path.write_bytes(b"\n")
    elif how == "unknown":
        states.write_sealed(path, b"what is this")
    else:
        content = path.with_suffix(".elsewhere")
        path.rename(content)
        path.symlink_to(content)
    with caplog.at_level(logging.WARNING):
        engine.open(sums, build).close()
    assert not trt.told["known timing"]
    assert ("timing cache is not used" in caplog.text) == (how != "unknown")
    engine.open(sums, build).close()
    assert trt.told["known timing"]  # mended


def test_a_timing_cache_that_cannot_be_kept_costs_nothing_else(
    engine: TensorRt,
    options: Options,
    sums: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(states, "write_sealed", full)
    session = engine.open(sums, replace(options, build=Build()))
    assert session.plan and "timing cache is not kept" in caplog.text
    session.close()


def test_timing_caches_do_not_become_more_and_more(
    engine: TensorRt, options: Options, sums: bytes, trt: Any, timings: Callable[[], list[Path]]
) -> None:
    for release in range(3, 10):
        trt.version = trt.module.__version__ = f"10.{release}"
        engine.open(sums, replace(options, build=Build())).close()
    assert len(timings()) == backend.MOST_TIMINGS


def test_an_empty_timing_cache_is_not_written(cache: Path) -> None:
    backend._Timing(cache, {}).write(b"")
    assert not cache.exists()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No warning but those a test asks for by name."""
    yield
    said = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert all("timing cache" in text for text in said), said
