"""Where the time of a study goes, warm: every stage by itself, then whole studies. Run: make bench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import edgehem
from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.bundle import find
from edgehem.model import Model
from edgehem.preprocess import CANONICAL, fill, locate_head, place
from edgehem.result import Verdict

Folder = Callable[[int], Path]
SLICES = (28, 40, 64)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request: pytest.FixtureRequest) -> Model:
    return edgehem.load("hemorrhagenet", precision=request.param)


@pytest.mark.parametrize("slices", SLICES)
def test_read_select_decode(benchmark: BenchmarkFixture, study_folder: Folder, slices: int) -> None:
    study = benchmark(edgehem.read_study, study_folder(slices))
    assert len(study.volume.pixels) == slices


@pytest.mark.parametrize("slices", SLICES)
def test_locate_head(benchmark: BenchmarkFixture, study_folder: Folder, slices: int) -> None:
    volume = edgehem.read_study(study_folder(slices)).volume
    benchmark(locate_head, volume)


@pytest.mark.parametrize("slices", SLICES)
def test_preprocess(benchmark: BenchmarkFixture, study_folder: Folder, slices: int) -> None:
    volume = edgehem.read_study(study_folder(slices)).volume
    tensor = benchmark(lambda: fill(volume, place(volume, CANONICAL), CANONICAL))
    assert tensor.shape == (1, 40, 3, 224, 224)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_network(benchmark: BenchmarkFixture, precision: str) -> None:
    """The bare engine call on a fresh random tensor; its size does not depend on the number of slices."""
    bundle = find("hemorrhagenet")
    session = OnnxRuntimeSession(bundle.read(bundle.graph(precision)))
    planes = CANONICAL.shape[0]
    image = np.random.default_rng(3).random((1, planes, len(CANONICAL.windows), *CANONICAL.shape[1:]), np.float32)
    outputs = benchmark(session.run, {"image": image, "valid": np.ones((1, planes), np.float32)})
    assert np.isfinite(outputs["logits"]).all()


@pytest.mark.parametrize("slices", SLICES)
def test_warm_study(benchmark: BenchmarkFixture, study_folder: Folder, model: Model, slices: int) -> None:
    """From the folder to the result, with the model loaded and the files in the page cache."""
    folder = study_folder(slices)
    result, _ = benchmark(model.triage_path, folder)
    assert result.verdict in (Verdict.ACCEPT, Verdict.FLAG)
    benchmark.extra_info["timings_ms"] = result.timings_ms
    benchmark.extra_info["precision"] = result.bundle.precision
