"""``edgehem bench engines``: who is chosen, who only stands beside, and what is told; no timing decides here."""

from __future__ import annotations

import importlib
import json
import math
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehem import device
from edgehem.backends import Options
from edgehem.backends.onnxruntime import OnnxRuntime, OnnxRuntimeSession
from edgehem.benchmarks import engines, engines_report, networks
from edgehem.benchmarks.networks import LARGE, NO_DECISIONS, Made
from edgehem.benchmarks.peers import nncf
from edgehem.bundle import Bundle, Head
from edgehem.errors import BackendError, MissingExtraError, UsageError

TESTS = Path(__file__).parent
tiny: Callable[..., bytes] = runpy.run_path(str(TESTS / "engines" / "tiny.py"))["model"]
SUM = tiny("Add", total="features")
HEADS = (Head(name="features", kind=NO_DECISIONS, output="features", rules=()),)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of pretended engines, which the children import under the same name."""
    monkeypatch.syspath_prepend(TESTS / "engines")
    return importlib.import_module("fakes")


@pytest.fixture
def make(write_bundle: Callable[..., Path]) -> Callable[..., Any]:
    """Maker of makers: features = a + b, and a peer or none."""

    def maker(peer: Any = None, no_peer: str = "") -> Any:
        def made(name: str, folder: Path, *, batch: int, seed: int, say: Any) -> Made:
            if name == "Absent":
                raise MissingExtraError("the encoder", "export")
            bundle = Bundle(write_bundle(graph=SUM, inputs={"image": "a", "valid": "b"}, heads=HEADS))
            probe = {"a": np.full((batch, 3), 2.0, np.float32), "b": np.ones((batch, 3), np.float32)}
            return Made(bundle=bundle, probes=[probe], peer=peer, no_peer=no_peer)

        return made

    return maker


def measure(make: Any, *, names: tuple[str, ...] = ("DenseNet169",), known: Any = None) -> dict[str, Any]:
    settings = engines.Settings(networks=names, batch=2, rounds=2)
    return engines.run(settings, make=make, engines=known or [OnnxRuntime()])


def test_a_peer_stands_beside_and_is_never_chosen(make: Any, fakes: Any) -> None:
    """It has no part in the first measurement, which chooses."""
    result = measure(make(fakes.FakeTalking()))
    (job,) = result["jobs"]
    assert [(row["engine"], row["peer"]) for row in job["rows"]] == [("onnxruntime", False), ("talking", True)]
    assert (job["chosen"], job["best"], job["peer"]) == (0, 0, 1)
    assert job["rows"][1]["form"] == "its own int8" and job["rows"][1]["sqnr_db"] == 200
    assert job["best_over_chosen"]["value"] == 1 and job["peer_over_chosen"]["value"] > 0
    assert result["over_large"]["networks"] == ["DenseNet169"]
    text = engines_report.render(json.loads(json.dumps(result, allow_nan=False)))
    assert "*    onnxruntime" in text and "peer talking" in text and "the best is the chosen one" in text


def test_what_is_passed_over_is_told(make: Any, fakes: Any) -> None:
    known = [OnnxRuntime(), fakes.FakeWrong(), fakes.FakeAbsent()]
    result = measure(make(no_peer="nncf is not installed"), names=("Compact", "Absent"), known=known)
    compact, absent = result["jobs"]
    assert compact["rows"][compact["chosen"]]["engine"] == compact["rows"][compact["best"]]["engine"] == "onnxruntime"
    assert compact["peer"] is None and compact["peer_over_chosen"] is None
    assert compact["rows"][1]["ms"] is not None and "another one" in compact["rows"][1]["passed_over"]
    assert absent["state"] == "passed over"
    assert [aim["verdict"] for aim in result["aims"]] == ["not measured", "not measured", "met", "not measured"]
    text = engines_report.render(result)
    for words in (
        "passed over: optimised, the graph is another one",
        "NNCF is passed over: nncf is not installed",
        "absent is not here: library not found",
        "Absent: passed over: the encoder needs the [export] extra",
        "none of the large networks",
    ):
        assert words in text


def test_nothing_is_kept(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEHEM_STATE", str(tmp_path / "state"))
    measure(make())
    assert not (tmp_path / "state").exists()
    assert nncf.FOLDER not in os.environ


def test_an_unknown_network_is_an_error_before_anything_is_made() -> None:
    with pytest.raises(UsageError, match=r"'VGG'; there are Compact, "):
        engines.run(engines.Settings(networks=("Compact", "VGG")))


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[export\]"):
        engines.run(engines.Settings(networks=("Compact",)))


def candidate(engine: str, ratio: tuple[float, float, float] | None, **changes: Any) -> device.Candidate:
    settings = {"graph": "fp32.onnx", "form": "float", "precision": "fp32", "sha256": "0", "arithmetic": "f32"}
    return device.Candidate(engine=engine, ratio=ratio, **{**settings, **changes})


def record(*candidates: device.Candidate, chosen: int = 0) -> device.Record:
    return device.Record(
        bundle="b", version="0", sha256="0", machine=device.this_machine(), made="", probes={}, reference="", budget={},
        candidates=candidates, absent={}, chosen=chosen,
    )  # fmt: skip


def test_a_choice_is_told_by_the_second_measurement() -> None:
    """And the best it is held against is one that might have been chosen."""
    int8 = {"graph": "int8.onnx", "form": "qdq-s8", "precision": "int8"}
    first = record(candidate("ort", (1, 1, 1)), candidate("ov", (5, 6, 7)), chosen=1)
    second = record(
        candidate("ort", (1, 1, 1)),
        candidate("ov", (3.8, 4, 4.2)),
        candidate("ov", (4, 5, 6), **int8),
        candidate("ov", (9, 9, 9), arithmetic="bf16", passed_over="another one"),
        candidate("peer", (7, 8, 9), passed_over="another one"),
        candidate("peer", None, passed_over="it quantises itself", **int8),
    )
    found = engines.compared(first, second, peer="peer")
    assert [row["engine"] for row in found["rows"]] == ["ort", "ov", "ov", "ov", "peer"]
    assert (found["chosen"], found["best"], found["peer"]) == (1, 2, 4)
    assert found["chosen_times"] == {"value": 4, "low": 3.8, "high": 4.2}
    assert found["chosen_by"]["times"] == (5, 6, 7)
    assert found["best_over_chosen"] == pytest.approx({"value": 1.25, "low": 4 / 4.2, "high": 6 / 3.8})
    assert found["peer_over_chosen"]["value"] == 2


def test_a_choice_that_does_not_hold_is_said() -> None:
    first = record(candidate("ort", (1, 1, 1)), candidate("ov", (2, 2, 2)), chosen=1)
    second = record(candidate("ort", (1, 1, 1)), candidate("ov", None, passed_over="the engine ended"))
    found = engines.compared(first, second, peer=None)
    assert found["why_not_held"] == "the engine ended"
    assert found["chosen_times"] is None and found["best_over_chosen"] is None


def job(name: str, chosen: float, peer: float | None) -> dict[str, Any]:
    times = [chosen] * 3
    rows = [{"times": times}, {"times": [peer] * 3}]
    return {
        "name": name,
        "rows": rows,
        "chosen_times": {"value": chosen, "low": chosen, "high": chosen},
        "best_over_chosen": engines.over(times, times),
        "peer": None if peer is None else 1,
        "peer_over_chosen": None if peer is None else engines.over([peer] * 3, times),
    }


def test_means_are_geometric_and_over_the_large_networks() -> None:
    jobs = [job(LARGE[0], 2, 4), job(LARGE[1], 8, 4), job(LARGE[2], 4, None), job("Compact", 100, 1)]
    means = engines.over_large(jobs)
    assert means["networks"] == list(LARGE[:3]) and means["networks_with_peer"] == list(LARGE[:2])
    assert means["chosen_times"]["value"] == pytest.approx(4)
    assert means["peer_times"]["value"] == pytest.approx(4)
    assert means["peer_over_chosen"]["value"] == pytest.approx(math.sqrt(2 * 0.5))
    large, peer, *each = engines.judge(jobs, means)
    assert (large["job"], peer["verdict"]) == (engines.LARGE_JOB, "met")
    assert [aim["job"] for aim in each] == [entry["name"] for entry in jobs]


def test_noise_is_smooth_seeded_and_in_range() -> None:
    images = networks.smooth_noise(3, 32, seed=5)
    assert images.shape == (3, 3, 32, 32) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 1
    assert np.array_equal(images, networks.smooth_noise(3, 32, seed=5))
    assert not np.array_equal(images[0], images[1])
    assert np.abs(np.diff(images, axis=-1)).mean() < 0.8 * images.std()  # white noise: 1.13


def test_nncf_has_what_it_quantised_and_nothing_else(tmp_path: Path) -> None:
    engine = nncf.Nncf()
    assert engine.missing() == "it quantised nothing"
    with nncf.offered(tmp_path), pytest.raises(BackendError, match="itself"):
        engine.open(SUM)
    with nncf.offered(None):
        assert nncf.FOLDER not in os.environ


def test_nncf_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nncf.util, "find_spec", lambda name: None)
    images = [np.zeros((1, 3), np.float32)]
    assert nncf.prepare(tmp_path / "g.onnx", SUM, images, tmp_path, batch=1) == "nncf is not installed"


@pytest.mark.torch
@pytest.mark.slow
def test_a_network_becomes_graphs_of_every_form(tmp_path: Path) -> None:
    """Each close to the float graph, NNCF's too where it is installed."""
    for module in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(module)
    made = networks.make("Compact", tmp_path, batch=2, seed=3, size=64)
    graphs = {graph.form: made.bundle.read(graph) for graph in made.bundle.manifest.graphs}
    assert list(graphs) == ["float", "qdq-s8", "qdq-u8"]
    (first, *_) = made.probes
    assert [port.shape for port in OnnxRuntimeSession(graphs["float"]).inputs] == [(2, 3, 64, 64)]
    sessions = {form: OnnxRuntimeSession(data) for form, data in graphs.items()}
    if made.peer is not None:
        assert made.peer_folder is not None
        with nncf.offered(made.peer_folder):
            assert made.peer.missing() == ""
            sessions["nncf"] = made.peer.open(graphs["float"], Options())
    else:
        assert "not installed" in made.no_peer
    exact = sessions.pop("float").run(first)["features"]
    assert exact.shape == (2, 96)
    for session in sessions.values():
        noise = np.square(session.run(first)["features"] - exact).sum() / np.square(exact).sum()
        assert 0 < noise < 10 ** (-20 / 10)
