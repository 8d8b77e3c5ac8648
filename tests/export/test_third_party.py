"""Networks that nobody here trained: a module with a state dict, a ready ONNX, to a bundle that runs. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

import edgehem  # noqa: E402
from edgehem import cli  # noqa: E402
from edgehem.bundle import Bundle  # noqa: E402
from edgehem.errors import UsageError  # noqa: E402
from edgehem.export import commands  # noqa: E402
from edgehem.export.interface import Interface, read  # noqa: E402
from edgehem.phantom import Bleed, Protocol, write_study  # noqa: E402

NETWORK = """
import torch
from torch import nn

class Theirs(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )
        self.answer = nn.Linear(width, 2)

    def forward(self, volume):
        n, z = volume.shape[:2]
        x = self.body(volume.reshape(-1, *volume.shape[2:])).mean(dim=(2, 3))
        return self.answer(x.reshape(n, z, -1).mean(dim=1))
"""
INTERFACE: dict[str, Any] = {
    "system": "theirs",
    "intended_use": "A test.",
    "preprocess": {"shape": [12, 48, 48], "spacing_mm": [12.0, 5.0, 5.0], "windows": [[40.0, 80.0]]},
    "inputs": {"image": "volume"},
    "outputs": ["scores"],
    "head": "scores",
    "labels": ["bleeding", "large"],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with their code, weights and description."""
    (tmp_path / "their_code.py").write_text(NETWORK, encoding="utf-8")
    (tmp_path / "interface.json").write_text(json.dumps(INTERFACE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "their_code"}
    exec(NETWORK, scope)  # the test's own text
    torch.manual_seed(3)
    torch.save({"model": {f"net.{k}": v for k, v in scope["Theirs"](width=8).state_dict().items()}}, "theirs.pt")
    return tmp_path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "s"
    bleeds = (Bleed(subtype="intraparenchymal", ml=40),)
    write_study(
        out, seed=5, bleeds=bleeds, protocol=Protocol(slices=28, matrix=128, tilt_deg=0, variable_spacing=False)
    )
    return out / "dicom"


def export(*more: str) -> int:
    line = "--interface interface.json --trained-on patients --out bundle"
    return cli.main(["export", *more, *line.split()])


def test_a_module_of_ones_own_runs(place: Path, study: Path) -> None:
    """With its own grid, window, names and labels, without a map of where the answer came from."""
    assert export("theirs.pt", "--factory", "their_code:Theirs", "--set", "width=8", "--here") == 0
    opened = Bundle(place / "bundle")
    opened.verify()
    assert (opened.manifest.system, opened.manifest.demonstration) == ("theirs", False)
    record = json.loads((place / "bundle/records/export.json").read_text(encoding="utf-8"))
    assert record["checkpoint"]["prefix"] == "net." and record["folded_batch_norms"] == 2
    assert max(record["parity"].values()) < 1e-4
    result = edgehem.load(place / "bundle").triage_path(study)[0]
    assert result.system == "theirs"
    assert [finding.label for finding in result.findings] == ["bleeding", "large"]
    assert result.key_slices == ()


def test_a_ready_onnx_runs_the_same(place: Path, study: Path) -> None:
    assert export("theirs.pt", "--factory", "their_code:Theirs", "--set", "width=8", "--here") == 0
    first = edgehem.load(place / "bundle").triage_path(study)[0]
    (place / "bundle").rename(place / "first")
    assert export("first/fp32.onnx") == 0
    second = edgehem.load(place / "bundle").triage_path(study)[0]
    assert second.findings == first.findings
    same = [(place / name / "fp32.onnx").read_bytes() for name in ("first", "bundle")]
    assert same[0] == same[1]


def test_any_onnx_is_quantised_and_its_worst_answer_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("theirs.pt", "--factory", "their_code:Theirs", "--set", "width=8", "--here") == 0
    inputs = place / "inputs"
    inputs.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        level = rng.uniform(0.2, 1)
        np.savez(inputs / f"{number}.npz", volume=level * rng.random((1, 12, 1, 48, 48), np.float32))
    line = "quantize bundle/fp32.onnx --calibration inputs --out q"
    assert cli.main(line.split()) == 0
    record = json.loads((place / "q/records/quantization.json").read_text(encoding="utf-8"))
    assert record["figures"]["studies"] == 4
    assert record["figures"]["worst_study_db"] <= record["figures"]["sqnr_db"]["scores"] + 1e-6
    assert record["figures"]["worst_sqnr_db"] > 15
    assert set(record["graphs"]) == {"int8.onnx", "int8_u8.onnx"}
    assert "on the worst of 4 inputs" in capsys.readouterr().err
    before = {name: (place / "q" / name).read_bytes() for name in record["graphs"]}
    assert cli.main(["quantize", "bundle/fp32.onnx", "--calibration", "inputs", "--out", "elsewhere/q"]) == 0
    assert before == {name: (place / "elsewhere/q" / name).read_bytes() for name in before}
    strict = "quantize bundle/fp32.onnx --calibration inputs --out r --least-db 200"
    assert cli.main(strict.split()) == cli.EXIT_INTERNAL


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": {"valid": "v"}}, "no input for image"),
        ({"inputs": {"image": "volume", "sound": "s"}}, "unknown kind sound"),
        ({"head": "other"}, "none of the outputs"),
        ({"labels": []}, "needs labels"),
        ({"labels": ["a", "a"]}, "each once"),
        ({"extra": 1}, "does not describe"),
        ({"preprocess": {"shape": [0, 1, 1], "spacing_mm": [1, 1, 1], "windows": [[1, 1]]}}, "does not describe"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = tmp_path / "interface.json"
    file.write_text(json.dumps({**INTERFACE, **change}), encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        read(file)


def test_a_network_that_is_not_what_was_described_is_refused(place: Path) -> None:
    wrong = {**INTERFACE, "preprocess": {**INTERFACE["preprocess"], "shape": [12, 64, 64]}}
    assert export("theirs.pt", "--factory", "their_code:Theirs", "--set", "width=8", "--here") == 0
    (place / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
    options: dict[str, Any] = {"interface": place / "wrong.json", "trained_on": "patients"}
    with pytest.raises(UsageError, match="of shape"):
        commands.export(place / "bundle/fp32.onnx", out=place / "w", **options)
    with pytest.raises(UsageError, match="no output more"):
        commands.export(
            place / "bundle/fp32.onnx", out=place / "x", trained_on="patients",
            interface=_written(place, {**INTERFACE, "outputs": ["scores", "more"]}),
        )  # fmt: skip
    with pytest.raises(UsageError, match="--factory"):
        commands.export(place / "theirs.pt", out=place / "y", **options)
    with pytest.raises(UsageError, match="name a system"):
        commands.export(place / "theirs.pt", out=place / "z", trained_on="patients")


def _written(place: Path, content: dict[str, Any]) -> Path:
    path = place / "other.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_what_is_not_said_has_defaults() -> None:
    plain = Interface(system="s", inputs={"image": "x"}, outputs=("y",), head="y", labels=("any",))
    assert plain.shapes() == {"x": (40, 3, 224, 224)}
    assert plain.evidence is None and "Not a medical device" in plain.intended_use
