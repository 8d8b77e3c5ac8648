"""build_plan on a real builder of the TensorRT family, without a GPU: TensorRT for RTX, whose API is that of 11.

It builds ahead of time for a GPU that is named. Its plans are not run here: that needs the GPU.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from edgehem.backends import Build
from edgehem.backends.tensorrt.api import TensorRtApi, load
from edgehem.backends.tensorrt.build import build_plan
from edgehem.bundle import Graph, find
from edgehem.errors import BackendError

MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
pytestmark = [
    pytest.mark.tensorrt,
    # "Timing cache operations are no-ops in TensorRT-RTX."
    pytest.mark.filterwarnings("ignore:.*TensorRT-RTX:DeprecationWarning"),
]
BUNDLE = find("hemorrhagenet")
GRAPHS = [graph for graph in BUNDLE.manifest.graphs if graph.form in ("float", "qdq-s8", "float16", "qdq-s8-f16")]


@pytest.fixture(scope="module")
def api() -> TensorRtApi:
    reasons = []
    for module in MODULES:
        try:
            return load(module)
        except BackendError as error:
            reasons.append(str(error))
    pytest.skip("; ".join(reasons))


@pytest.fixture
def target(api: Any) -> Callable[[Any], None]:
    """For the GPU of a Jetson Orin's generation."""

    def choose(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(api.ComputeCapability.SM86, 0)

    return choose


def content(graph: Graph) -> bytes:
    return (BUNDLE.folder / graph.file).read_bytes()


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.file)
def test_every_graph_that_tensorrt_is_for_is_built(graph: Graph, api: Any, target: Callable[[Any], None]) -> None:
    """Without a warning of consequence; it says how far it is; what went in is recorded."""
    lines: list[str] = []
    built = build_plan(api, content(graph), Build(say=lines.append, level=1), arithmetic="f32", target=target)
    assert len(built.plan) > 100_000 and built.timing
    # Scales in float16 are taken so; TensorRT computes with them in float32, and says so.
    assert all("Converting" in text and "scales to fp32" in text for text in built.warnings)
    assert not built.warnings or graph.form == "qdq-s8-f16"
    assert built.settings["shapes"] == {"image": [1, 40, 3, 224, 224], "valid": [1, 40]}
    assert built.settings["level"] == 1 and not built.settings["timing_cache_used"]
    assert len(lines) > 2 and lines[1].startswith(f"{lines[0]}, 1 of ")


def test_a_graph_in_uint8_is_taken_for_another_with_a_warning(api: Any, target: Callable[[Any], None]) -> None:
    """Why the backend does not list that form: the plan would compute something else."""
    (graph,) = [each for each in BUNDLE.manifest.graphs if each.form == "qdq-u8"]
    built = build_plan(api, content(graph), Build(), arithmetic="f32", target=target)
    assert any("UINT8" in text for text in built.warnings)


@pytest.fixture
def unknown(graph_of: Callable[..., bytes]) -> bytes:
    """A graph with an operator that nobody has."""
    return graph_of().replace(b"\x22\x08Identity", b"\x22\x08Identitz")


def test_an_operator_that_it_does_not_have_is_named(api: Any, target: Callable[[Any], None], unknown: bytes) -> None:
    with pytest.raises(BackendError, match=r"does not take the graph: .*Identitz"):
        build_plan(api, unknown, Build(), arithmetic="f32", target=target)


@pytest.mark.parametrize("size", [0, 1, 1000, 400_000])
def test_half_a_graph_is_refused(size: int, api: Any, target: Callable[[Any], None]) -> None:
    graph = content(GRAPHS[0])[:size]
    with pytest.raises(BackendError, match=r"does not take the graph|cannot build the graph"):
        build_plan(api, graph, Build(), arithmetic="f32", target=target)


def test_a_timing_cache_comes_back(api: Any, target: Callable[[Any], None], sums: bytes) -> None:
    first = build_plan(api, sums, Build(), arithmetic="f32", target=target)
    second = build_plan(api, sums, Build(), arithmetic="tf32", timing=first.timing, target=target)
    assert second.timing and not first.settings["timing_cache_used"]


def test_a_damaged_timing_cache_is_passed_over(api: Any, target: Callable[[Any], None], sums: bytes) -> None:
    """The real one makes an empty one of it, says so in its log, and returns true."""
    built = build_plan(api, sums, Build(), arithmetic="f32", timing=b"what is this", target=target)
    assert built.plan and not built.settings["timing_cache_used"]


def test_a_listener_that_raises_does_not_end_the_process(api: Any, target: Callable[[Any], None], sums: bytes) -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError

    assert build_plan(api, sums, Build(say=gone), arithmetic="f32", target=target).plan


def test_builds_and_refusals_one_after_another(api: Any, sums: bytes, unknown: bytes) -> None:
    """In a process of their own: what crashed here once was an error recorder written in Python."""
    code = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path[:] = %r
from edgehem.backends import Build
from edgehem.backends.tensorrt.api import load
from edgehem.backends.tensorrt.build import build_plan
from edgehem.errors import BackendError
api, graph, unknown = load(%r), %r, %r
def target(config):
    config.num_compute_capabilities = 1
    config.set_compute_capability(api.ComputeCapability.SM86, 0)
timing, refused = b"", 0
for round in range(20):
    timing = build_plan(api, graph, Build(say=str), arithmetic="f32", timing=timing, target=target).timing
    for wrong in (unknown, graph[:60]):
        try:
            build_plan(api, wrong, Build(say=str), arithmetic="f32", timing=b"damaged", target=target)
        except BackendError:
            refused += 1
print("refused", refused)
"""
    names = (sys.path, api.__name__, sums, unknown)
    done = subprocess.run(
        [sys.executable, "-c", code % names], check=False, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "refused 40\n"), done.stderr[-2000:]
