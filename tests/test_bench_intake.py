"""``edgehem bench intake``: who reads the same values is timed, with its memory; timing decides nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgehem import cli
from edgehem.benchmarks import commands, intake, readers
from edgehem.benchmarks.readers import READERS, Reader

SLICES, MATRIX = 24, 64


def measure(*found: Reader, rounds: int = 1) -> dict[str, Any]:
    return intake.run(intake.Settings(rounds=rounds, slices=(SLICES,), matrix=MATRIX), readers=found)


def fake(name: str, change: Any) -> Reader:
    return Reader(
        name=name, library="fake", how="a fake", module="numpy", make=readers.OURS.make,
        hounsfield=lambda study: change(readers.OURS.hounsfield(study)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda hu: hu + 1, "off by up to 1 HU"), (lambda hu: hu[::-1], "off by"), (lambda hu: hu[1:], "its stack is")],
    ids=["one Hounsfield unit", "upside down", "a slice short"],
)
def test_who_reads_other_values_gets_no_timing(change: Any, words: str) -> None:
    (entry,) = measure(fake("wrong", change))["jobs"][0]["contenders"]
    assert entry["state"] == "DISAGREES"
    assert words in entry["why"]
    assert not {"ns", "ms"} & set(entry)


def test_a_missing_reader_is_passed_over_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("SimpleITK", "dicom2nifti"):
        monkeypatch.setitem(sys.modules, module, None)
    result = measure(*READERS)
    states = {entry["name"]: entry["state"] for entry in result["jobs"][0]["contenders"]}
    assert states == {
        "edgehem": "timed", "pydicom-loop": "timed", "simpleitk-series": "passed over", "dicom2nifti": "passed over",
    }  # fmt: skip
    assert "passed over: SimpleITK is not installed" in commands.text(result)


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    line = ["bench", "intake", "--rounds", "2", "--size", f"{SLICES}x{MATRIX}", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "edgehem.cli", *line], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_bytes())
    assert result["schema"] == intake.SCHEMA == "edgehem.bench.intake/1"
    assert done.stdout == commands.text(result).rstrip("\n") + "\n"
    (job,) = result["jobs"]
    for entry in job["contenders"]:
        assert entry["name"] in done.stdout
        if entry["state"] == "timed":
            assert len(entry["ns"]) == 2
            assert entry["memory_bytes"] is not None
        else:
            assert entry["why"].endswith("is not installed"), entry
    assert {entry["name"] for entry in job["contenders"] if entry["state"] == "timed"} >= {"edgehem", "pydicom-loop"}
    assert {aim["verdict"] for aim in result["aims"]} <= {"met", "not met", "unclear", "not measured"}


def test_the_series_is_what_was_written(tmp_path: Path) -> None:
    truth = intake.write_series(tmp_path, SLICES, MATRIX)
    assert truth.shape == (SLICES, MATRIX, MATRIX)
    assert np.array_equal(readers.OURS.hounsfield(readers.OURS.make()(tmp_path)), truth)


def test_a_file_that_cannot_be_written_is_said_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "intake", lambda **options: pytest.fail("measured first"))
    assert cli.main(["bench", "intake", "--json", str(tmp_path)]) == cli.EXIT_USAGE
    assert "--json" in capsys.readouterr().err
