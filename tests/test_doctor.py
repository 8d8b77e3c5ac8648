"""The doctor tells the truth about this machine, and about one with gaps."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgehem import cli, doctor
from edgehem.dicom import codec
from edgehem.doctor import Requirement, examine, render_examination
from edgehem.kernels import fused


def test_examination_is_json_and_complete() -> None:
    examination = json.loads(json.dumps(examine()))
    assert examination["schema"] == doctor.SCHEMA
    assert examination["edgehem"] == metadata.version("edgehem")
    assert 1 <= examination["cpus"]["usable"] <= examination["cpus"]["present"]
    assert all(examination["packages"].values())
    assert examination["onnxruntime"]["ready"]
    assert doctor.USED_PROVIDER in examination["onnxruntime"]["providers"]
    kernels = examination["kernels"]
    assert [entry["name"] for entry in kernels["candidates"]] == [
        "cuda prebuilt",
        "cuda compiled here",
        "native",
        "numpy",
    ]
    ready = {entry["name"] for entry in kernels["candidates"] if entry["ready"]}
    assert {"numpy", kernels["cpu"], kernels["gpu"]} <= ready and not kernels["why_not"]
    codecs = {entry["name"]: entry for entry in examination["codecs"]}
    assert codecs["RLE lossless"]["ready"]
    assert codecs["JPEG baseline (8 bit)"]["why_not"].startswith("refused")
    assert all(entry["ready"] is not bool(entry["why_not"]) for entry in codecs.values())
    assert {entry["uid"] for entry in codecs.values()} >= codec.LOSSLESS | codec.LOSSY


def test_every_declared_extra_is_examined_and_explained() -> None:
    declared = set(metadata.metadata("edgehem").get_all("Provides-Extra") or [])
    extras = {extra["name"]: extra for extra in examine()["extras"]}
    assert set(extras) == declared
    assert all(extra["brings"] for extra in extras.values())


def test_text_names_every_package_and_stays_narrow() -> None:
    text = render_examination(examine())
    for words in (*doctor.REQUIRED, *doctor.BRINGS, "usable of", "Preprocessing kernels", "an engine on the CPU takes"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= doctor.WIDTH


def test_gaps_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version_of
    versions = {"pillow": None, "onnx": "1.2.0"}
    monkeypatch.setattr(doctor, "version_of", lambda name: versions.get(name, "99") if name in versions else real(name))
    examination = examine()
    extras = {extra["name"]: extra for extra in examination["extras"]}
    assert extras["report"]["missing"] == ["pillow"]
    assert "pillow" in extras["dev"]["missing"]  # through edgehem[test]
    assert any(gap.startswith("onnx 1.2.0 is older than") for gap in extras["export"]["missing"])
    text = render_examination(examination)
    assert "missing: pillow" in text
    assert "pip install 'edgehem[report]'" in text


def test_a_broken_engine_is_a_finding_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    examination = examine()
    assert examination["onnxruntime"] == {
        "ready": False,
        "providers": [],
        "why_not": "cannot be imported: ModuleNotFoundError",
    }
    assert "cannot be imported" in render_examination(examination)


def test_kernels_that_cannot_run_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice that cannot be served, and a package that cannot be imported."""
    monkeypatch.setenv(fused.CHOICE, "cuda-please")
    fused.implementation.cache_clear()
    try:
        kernels = examine()["kernels"]
        assert kernels["cpu"] is None and "cuda-please" in kernels["why_not"]
        assert "none runs: EDGEHEM_KERNELS=cuda-please" in render_examination(examine())
    finally:
        fused.implementation.cache_clear()
    monkeypatch.setitem(sys.modules, "edgehem.kernels.selection", None)
    assert examine()["kernels"]["candidates"] == []
    assert "none runs: cannot be imported" in render_examination(examine())


def test_a_damaged_bundle_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, manifest in (("good", '{"version": "1.0", "demonstration": true}'), ("bad", "{"), ("empty", None)):
        (tmp_path / name).mkdir()
        if manifest is not None:
            (tmp_path / name / "bundle.json").write_text(manifest)
    monkeypatch.setattr(doctor.resources, "files", lambda _: tmp_path)
    bundles = {bundle["name"]: bundle for bundle in examine()["bundles"]}
    assert set(bundles) == {"good", "bad"}
    assert bundles["good"] == {"name": "good", "version": "1.0", "demonstration": True, "why_not": ""}
    assert bundles["bad"]["why_not"].startswith("its manifest cannot be read")
    assert "not for patients" in render_examination(examine())


def test_requirement_lines() -> None:
    assert Requirement.parse("numpy>=1.26") is None
    assert Requirement.parse("pillow>=10; extra == 'report'") == Requirement(
        distribution="pillow", lowest="10", extra="report"
    )
    assert Requirement.parse('edgehem[test,bench]; extra == "dev"') == Requirement(
        distribution="edgehem", lowest="", extra="dev", parts=("test", "bench")
    )


def test_command_prints_text_or_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("edgehem ")
    assert cli.main(["doctor", "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed)["schema"] == doctor.SCHEMA
