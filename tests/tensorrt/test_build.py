"""From ONNX to a plan, with fake releases of TensorRT 10 and 11; test_real_build.py has a real builder."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgehem.backends import Build
from edgehem.backends.tensorrt import api as apis
from edgehem.backends.tensorrt.api import Ears, ears, load
from edgehem.backends.tensorrt.build import MIB, Built, build_plan
from edgehem.backends.tensorrt.session import TensorRtSession
from edgehem.errors import BackendError, BackendMemoryError

Maker = Callable[..., Any]
RELEASES = {
    "10.3": {"version": "10.3.0.26"},
    "10.13": {"version": "10.13.3.9"},
    "11": {"version": "11.1.0.106"},
    "11 without the flag": {"version": "11.1.0.106", "strongly_typed": None},
}


@pytest.fixture
def build(trt: Any, lane: Any) -> Callable[..., Built]:
    """build_plan on the lane."""

    def work(graph: bytes, settings: Build | None = None, **more: Any) -> Built:
        def inside() -> Built:
            with lane.entered("building a plan"):
                return build_plan(load(), graph, settings or Build(), **{"arithmetic": "f32", **more})

        built: Built = lane.do(inside)
        return built

    return work


def header(built: Built) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(built.plan.removeprefix(b"fake plan ").partition(b"\n")[0])
    return found


# Building


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_builds_and_runs_by_the_same_path(release: str, make_trt: Maker, sums: bytes) -> None:
    """Nothing is used that one of them does not have, and no flag by its number."""
    from edgehem.backends import lane as lanes

    make_trt(**RELEASES[release])
    here = lanes.lane()

    def inside() -> Built:
        with here.entered("building a plan"):
            return build_plan(load(), sums, Build(say=print), arithmetic="f32")

    built = here.do(inside)
    assert header(built)["version"] == RELEASES[release]["version"]
    session = TensorRtSession(load(), here, built.plan)
    ones = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(session.run({"a": ones, "b": ones})["total"], ones + ones)
    assert session.describe()["types"] == {"INT8": 1, "FP32": 1}
    session.close()


def test_what_the_builder_was_told(build: Maker, sums: bytes, trt: Any) -> None:
    built = build(sums, Build(workspace_mib=7, level=5))
    assert trt.told == {"known timing": False, "flags": [], "workspace": 7 * MIB, "level": 5}
    assert built.settings == {
        "shapes": {"a": [1, 3], "b": [1, 3]},  # N is 1
        "workspace_mib": 7,
        "level": 5,
        "tf32": False,
        "dla_core": None,
        "strongly_typed": True,
        "timing_cache_used": False,
    }
    assert header(built)["detailed"] and built.warnings == ()


@pytest.mark.parametrize(("arithmetic", "flags"), [("f32", []), ("f16", ["TF32"]), ("tf32", ["TF32"])])
def test_tensor_float_32_only_where_it_was_asked_for(
    arithmetic: str, flags: list[str], build: Maker, sums: bytes, trt: Any
) -> None:
    """In float16 graphs there is hardly a float32 operator; what there is may round as the others do."""
    built = build(sums, arithmetic=arithmetic)
    assert trt.told["flags"] == flags and built.settings["tf32"] is bool(flags)
    assert built.settings["level"] == 3


def test_a_dla_core_gets_what_it_can_take(build: Maker, sums: bytes, trt: Any) -> None:
    trt.dla_cores = 2
    built = build(sums, dla_core=1)
    assert header(built)["dla"] == 1 and trt.told["flags"] == ["GPU_FALLBACK"]


@pytest.mark.parametrize("core", [0, -1])
def test_a_dla_core_that_is_not_there(core: int, build: Maker, sums: bytes) -> None:
    with pytest.raises(BackendError, match=f"has 0 deep learning accelerators, no {core}"):
        build(sums, dla_core=core)


def test_more_may_be_set_for_a_builder_without_a_device(build: Maker, sums: bytes, trt: Any) -> None:
    built = build(sums, target=lambda config: setattr(config, "builder_optimization_level", 1))
    assert built.settings["level"] == 1 and trt.told["level"] == 1


def test_warnings_are_kept_once_and_not_without_end(build: Maker, sums: bytes, trt: Any) -> None:
    trt.failures["parser warns"] = ["UINT8 is taken as INT8", "UINT8 is taken as INT8", "other"]
    assert build(sums).warnings == ("UINT8 is taken as INT8", "other")
    trt.failures["build warns"] = [f"warning {n}" for n in range(80)]
    warnings = build(sums).warnings
    assert len(warnings) == Ears.MOST and warnings[0] == "UINT8 is taken as INT8"
    trt.failures.clear()
    assert build(sums).warnings == ()  # of this build alone


# Progress


def test_it_says_how_far_it_is(build: Maker, sums: bytes) -> None:
    """The outermost phases; inner ones are thousands."""
    lines: list[str] = []
    build(sums, Build(say=lines.append))
    assert lines == ["Building engine", "Building engine, 1 of 2", "Building engine, 2 of 2"]


def test_a_listener_that_went_away_stops_nothing(build: Maker, sums: bytes) -> None:
    """TensorRT calls it from C++, where an exception ends the process."""

    def gone(line: str) -> None:
        raise BrokenPipeError

    assert build(sums, Build(say=gone)).plan


# Refusals


def test_a_refused_graph_names_its_operators(build: Maker, sums: bytes, trt: Any) -> None:
    """The first four, and no more than a thousand characters."""
    trt.failures["parse"] = [("MyOp", "layer3/op", "no importer"), ("", "", "the rest")]
    with pytest.raises(BackendError, match=r"does not take the graph: MyOp layer3/op: no importer; the rest$"):
        build(sums)
    trt.failures["parse"] = [("Op", f"n{n}", "x" * 400) for n in range(9)]
    with pytest.raises(BackendError) as caught:
        build(sums)
    assert "n2" in str(caught.value) and len(str(caught.value)) < 1100


def test_a_refusal_without_a_word_repeats_the_log(build: Maker, sums: bytes, trt: Any) -> None:
    trt.failures["parse"] = []
    with pytest.raises(BackendError, match="does not take the graph: it gives no reason"):
        build(sums)


def test_what_is_no_graph_is_refused(build: Maker, sums: bytes) -> None:
    with pytest.raises(BackendError, match="Failed to parse the ONNX model"):
        build(sums[:40])


@pytest.mark.parametrize(
    ("what", "says", "words"),
    [
        (
            "builder",
            "CUDA initialization failure with error: 35",
            "cannot build the graph: CUDA initialization failure",
        ),
        ("network", True, "cannot build the graph: unknown network flags"),
        ("profile", "MIN<=OPT<=MAX", "does not take the inputs' shapes: MIN<=OPT<=MAX"),
        ("build", "Could not find any implementation for node x.\nat 12", "cannot build.*: Could not find .* node x.$"),
        ("build", "", "cannot build the graph: it gives no reason"),
    ],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(
    what: str, says: Any, words: str, build: Maker, sums: bytes, trt: Any
) -> None:
    """And the next one succeeds. What was made is freed where it was made, not with the error."""
    trt.failures[what] = says
    with pytest.raises(BackendError, match=words) as caught:
        build(sums)
    assert type(caught.value) is BackendError
    assert not trt.alive
    trt.failures.clear()
    assert build(sums).plan


def test_a_build_that_lacks_memory_has_its_own_type(build: Maker, sums: bytes, trt: Any) -> None:
    trt.failures["build"] = "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (Requested 1 GiB)"
    with pytest.raises(BackendMemoryError, match="OutOfMemory"):
        build(sums)


def test_a_failure_is_told_with_its_own_reason(build: Maker, sums: bytes, trt: Any) -> None:
    trt.failures["build"] = "out of memory"
    with pytest.raises(BackendMemoryError):
        build(sums)
    trt.failures["build"] = "no kernel"
    with pytest.raises(BackendError, match="no kernel") as caught:
        build(sums)
    assert type(caught.value) is BackendError


# The timing cache


def test_a_timing_cache_goes_from_build_to_build(build: Maker, sums: bytes, trt: Any) -> None:
    first = build(sums)
    second = build(sums, timing=first.timing)
    assert second.settings["timing_cache_used"] and trt.told["known timing"]
    assert not first.settings["timing_cache_used"]


@pytest.mark.parametrize("makes_none", [False, True])
def test_a_damaged_timing_cache_is_passed_over(makes_none: bool, build: Maker, sums: bytes, trt: Any) -> None:
    """TensorRT makes an empty one of it and complains in its log, which is no reason for anything that fails later."""
    trt.failures["timing"] = makes_none
    built = build(sums, timing=b"what is this")
    assert not built.settings["timing_cache_used"] and built.timing.startswith(b"fake timing ")
    trt.failures["build"] = "no kernel"
    with pytest.raises(BackendError, match="no kernel"):
        build(sums, timing=b"what is this")


def test_a_timing_cache_of_another_device_is_passed_over(build: Maker, sums: bytes, trt: Any, cuda: Any) -> None:
    timing = build(sums).timing.replace(b"sm_90", b"sm_87")
    built = build(sums, timing=timing)
    assert not built.settings["timing_cache_used"] and not trt.told["known timing"]


# Which TensorRT


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("10.2.0.19", "TensorRT 10.2.0.19 is none of 10.3 to 11"),
        ("8.6.1", "TensorRT 8.6.1 is none of"),
        ("12.0.0.1", "TensorRT 12.0.0.1 is none of"),
        ("", "TensorRT of no version is none of"),
        ("dev", "TensorRT dev is none of"),
    ],
)
def test_other_releases_are_refused(version: str, words: str, make_trt: Maker) -> None:
    make_trt().module.__version__ = version
    with pytest.raises(BackendError, match=words):
        load()


@pytest.mark.parametrize("release", RELEASES)
def test_known_releases_are_taken(release: str, make_trt: Maker) -> None:
    trt = make_trt(**RELEASES[release])
    assert load() is trt.module


def test_a_lean_runtime_is_not_enough(trt: Any) -> None:
    del trt.module.Builder, trt.module.OnnxParser
    with pytest.raises(BackendError, match="has no Builder, OnnxParser: the whole package is needed"):
        load()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError(name="tensorrt"), "tensorrt is not installed"),
        (ModuleNotFoundError(name="tensorrt_libs"), "tensorrt needs tensorrt_libs, which is not installed"),
        (ModuleNotFoundError("?"), "tensorrt needs None"),
        (OSError("/opt/nvidia/libnvinfer.so.10: no such file"), r"tensorrt cannot be imported \(OSError\)"),
        (RuntimeError("no"), r"tensorrt cannot be imported \(RuntimeError\)"),
    ],
)
def test_what_keeps_it_from_being_imported_is_said(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without paths."""

    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(apis, "import_module", fail)
    with pytest.raises(BackendError, match=words) as caught:
        load()
    assert "/opt" not in str(caught.value)


def test_it_is_not_installed_here() -> None:
    """No fake: where TensorRT is, this test says nothing."""
    if importlib.util.find_spec("tensorrt") is None and "tensorrt" not in sys.modules:
        with pytest.raises(BackendError, match="tensorrt is not installed"):
            load()


# What it says


def test_there_is_one_logger_and_it_notes_errors(trt: Any) -> None:
    heard = ears(load())
    assert ears(load()) is heard
    severity = trt.module.ILogger.Severity
    heard.logger.log(severity.INFO, "x")
    heard.logger.log(severity.VERBOSE, "out of memory")
    assert not heard.errors and not heard.warnings and str(heard) == "it gives no reason"
    for n in range(100):
        heard.logger.log(severity.ERROR if n % 2 else severity.INTERNAL_ERROR, f"\n\nerror {n}\nat line {n}")
    assert len(heard.errors) == Ears.MOST and str(heard) == "error 0" and not heard.out_of_memory
    heard.forget()
    heard.logger.log(severity.ERROR, "\n")
    assert str(heard) == ""


def test_nothing_leaves_the_logger(trt: Any) -> None:
    """TensorRT calls it from C++."""

    class Unspeakable:
        def __str__(self) -> str:
            raise ValueError

    heard = ears(load())
    heard.logger.log(trt.module.ILogger.Severity.ERROR, Unspeakable())
    assert not heard.errors


def test_another_module_has_ears_of_its_own(make_trt: Maker) -> None:
    first = ears(make_trt().module)
    assert ears(make_trt().module) is not first


def test_errors_of_ours_pass_through(trt: Any) -> None:
    heard = ears(load())
    with pytest.raises(BackendMemoryError, match=r"^full$"), heard.typed("TensorRT"):
        raise BackendMemoryError("full")
    with pytest.raises(BackendError, match="TensorRT: ValueError"), heard.typed("TensorRT"):
        raise ValueError
    with pytest.raises(KeyError), heard.typed("TensorRT"):
        raise KeyError
