"""A fake GPU with a fake TensorRT on it, and studies for them. Nothing here runs on a GPU."""

from __future__ import annotations

import gc
import importlib.util
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem import gpu
from edgehem.backends import lane as lanes
from edgehem.backends.lane import Lane
from edgehem.backends.tensorrt import api, session
from edgehem.kernels import Target, Windows, oracle
from edgehem.volume import Volume

TESTS = Path(__file__).resolve().parent.parent
SHAPE = (5, 19, 37)


def loaded(name: str, path: Path) -> ModuleType:
    """A module by its file: tests are no packages."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_kernels = loaded("conftest_of_kernels", TESTS / "kernels" / "conftest.py")
cuda_on_host, fake_cuda = _kernels.cuda_on_host, _kernels.fake_cuda
_fake = loaded("fake_tensorrt", TESTS / "tensorrt" / "fake_tensorrt.py")
tiny: dict[str, Any] = runpy.run_path(str(TESTS / "engines" / "tiny.py"))


@pytest.fixture
def cuda(fake_cuda: Callable[..., Any]) -> Any:
    """A fake GPU."""
    return fake_cuda()


@pytest.fixture
def make_trt(cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """The maker of fake installations of TensorRT (fake_tensorrt.py) on the fake GPU.

    At the end every lane is closed; then nothing may be left on the device, and nothing may have been misused.
    """
    monkeypatch.setattr(lanes, "_lanes", {})
    monkeypatch.setattr(api, "_ears", {})
    monkeypatch.setattr(lanes, "CLOSE_S", 10.0)
    monkeypatch.setattr(gpu, "DRIVER_FILE", tmp_path / "driver")
    monkeypatch.setattr(gpu, "TEGRA_FILE", tmp_path / "tegra")
    (tmp_path / "driver").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    made: list[Any] = []

    def make(**release: Any) -> Any:
        trt = _fake.FakeTensorRt(cuda, **release)
        monkeypatch.setitem(sys.modules, "tensorrt", trt.module)
        made.append(trt)
        return trt

    yield make
    lanes.close_lanes()
    if any(trt.alive for trt in made):
        gc.collect()  # tracebacks of the errors a test looked at
    for trt in made:
        trt.settled()
    if made and cuda.fault is None:
        assert not cuda.memory, f"{len(cuda.memory)} allocations are left on the device"


@pytest.fixture
def trt(make_trt: Callable[..., Any]) -> Any:
    """TensorRT 10.3, which JetPack 6.1 has."""
    return make_trt()


@pytest.fixture
def lane(trt: Any) -> Lane:
    return lanes.lane()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job hangs after a second."""
    monkeypatch.setitem(Lane.do.__kwdefaults__, "patience_s", 1.0)
    monkeypatch.setattr(lanes, "LOOK_S", 0.02)


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., bytes]:
    """The maker of graphs that read an image and its valid planes; see tests/engines/tiny.py."""

    def make(dtype: str = "float32", *, batch: int | str = 1, shape: tuple[int, int, int] = SHAPE) -> bytes:
        kinds = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16", "int8": "INT8"}
        graph: bytes = tiny["study"](shape, tiny[kinds[dtype]], batch=batch)
        return graph

    return make


@pytest.fixture(scope="session")
def sums() -> bytes:
    """total = a + b, copy = a; a, b [N, 3]."""
    graph: bytes = tiny["model"]("Add")
    return graph


@pytest.fixture(scope="session")
def target() -> Target:
    return Target(shape=SHAPE, spacing_mm=(3.1, 1.3, 1.2), origin=(-20.0, -13.0, -6.0))


@pytest.fixture(scope="session")
def windows() -> Callable[..., Windows]:
    def make(dtype: str = "float32") -> Windows:
        return Windows(level_width=((40, 80), (80, 200), (600, 2800)), mean=0.2, std=0.4, dtype=dtype, scale=0.02)

    return make


@pytest.fixture
def stack(stack_of: Callable[..., Volume]) -> Callable[..., Volume]:
    """The maker of stacks of noise."""

    def make(seed: int = 1, *, slices: int = 4, size: tuple[int, int] = (30, 34)) -> Volume:
        def noise(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.random.default_rng(seed).integers(-1024, 3000, points.shape[:-1]).astype(np.float64)

        distances = tuple(3.0 * (n - slices / 2) for n in range(slices))
        return stack_of(noise, size=size, spacing=(1.0, 1.1), distances=distances)

    return make


@pytest.fixture
def expected() -> Callable[..., dict[str, npt.NDArray[Any]]]:
    """What a study has to give: the oracle's tensor, through the graph in ONNX Runtime."""
    import onnxruntime

    def compute(
        graph: bytes, volume: Volume, target: Target, windows: Windows, valid: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        reference = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        image = oracle.preprocess(volume, target, windows)[None]
        values = reference.run(None, {"image": image, "valid": valid})
        return dict(zip([output.name for output in reference.get_outputs()], values, strict=True))

    return compute


@pytest.fixture
def open_plan(trt: Any, lane: Lane) -> Iterator[Callable[..., Any]]:
    """The maker of sessions from a graph: build and open, as the backend does. They are closed at the end."""
    from edgehem.backends import Build
    from edgehem.backends.tensorrt.build import build_plan

    opened: list[session.TensorRtSession] = []

    def make(graph: bytes, *, on: Lane | None = None, **traits: Any) -> session.TensorRtSession:
        here = on or lane
        trt.traits = traits

        def work() -> bytes:
            with here.entered("building a plan"):
                return build_plan(api.load(), graph, Build(), arithmetic="f32").plan

        opened.append(session.TensorRtSession(api.load(), here, here.do(work)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
