"""Cohorts on disk: the table, the truth beside it, and that neither depends on the machine."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import UNKNOWN, Patients, Variant
from edgehem.export.cohorts.golden import fingerprints
from edgehem.export.cohorts.ich_outcome import IchOutcome
from edgehem.export.cohorts.registry import COHORTS, cohort
from edgehem.export.cohorts.tables import fingerprint, write_cohort

GOLDEN = Path(__file__).with_name("golden.json")


class WithNotes(IchOutcome):
    """Writes small files in the place of images."""

    paths = ("series", "text")

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        (out / "series.json").write_text(json.dumps({"time_min": [0, 5], "sbp": [seed % 7, None]}), encoding="utf-8")
        if row % 2:
            return {"series": "series.json"}
        (out / "note.txt").write_text(f"seed {seed}", encoding="utf-8")
        return {"series": "series.json", "text": "note.txt"}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_what_was_drawn(tmp_path: Path) -> None:
    kind = IchOutcome()
    table = write_cohort(kind, tmp_path / "out", seed=4)
    rows, drawn = read(table), kind.draw(kind.train + kind.test, seed=4)
    assert [row["split"] for row in rows] == ["train"] * kind.train + ["test"] * kind.test
    assert len({row["patient_id"] for row in rows}) == len(rows)
    for column in kind.columns:
        values = drawn.inputs[column.name]
        if column.kind == "category":
            assert [row[column.name] for row in rows] == values.tolist()
        else:
            np.testing.assert_array_equal([float(row[column.name] or "nan") for row in rows], values)
    for label in kind.labels:
        assert [int(row[label.name] or UNKNOWN) for row in rows] == drawn.labels[label.name].tolist()
    assert set(rows[0]) == {"patient_id", "split", *drawn.inputs, *drawn.labels}, "nothing hidden is in the table"


def test_the_truth_lies_apart_and_says_what_it_is(tmp_path: Path) -> None:
    kind = IchOutcome()
    write_cohort(kind, tmp_path / "out", 300)
    truth, drawn = read(tmp_path / "out" / "truth.csv"), kind.draw(300)
    assert {name.partition(".")[0] for name in truth[0]} == {"patient_id", "chance", "complete", "hidden"}
    np.testing.assert_allclose([float(r["chance.mortality_30d"]) for r in truth], drawn.chance["mortality_30d"], 1e-5)
    assert [int(r["complete.mrs_90d"]) for r in truth] == drawn.complete["mrs_90d"].tolist()
    np.testing.assert_allclose([json.loads(r["chance.mrs_90d"]) for r in truth], drawn.chance["mrs_90d"], 1e-5)


def test_the_record_counts_and_digests(tmp_path: Path) -> None:
    kind = IchOutcome()
    table = write_cohort(kind, tmp_path / "out", 600, seed=2, variant=Variant.SHIFTED, test_share=0.25)
    record = json.loads((tmp_path / "out" / "cohort.json").read_text(encoding="utf-8"))
    rows = read(table)
    assert record["split"] == {"train": 450, "test": 150}
    assert (record["variant"], record["seed"], record["version"], record["synthetic"]) == ("shifted", 2, "1", True)
    assert record["sha256"]["table.csv"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert record["sha256"]["truth.csv"] == hashlib.sha256((table.parent / "truth.csv").read_bytes()).hexdigest()
    for label in record["labels"]:
        values = [row[label["name"]] for row in rows]
        assert label["unknown"] == values.count("")
        assert label["patients"] == [values.count(str(value)) for value in range(len(label["patients"]))]
    assert record["labels"][1]["unknown"] > 0
    for column in record["columns"]:
        assert column["missing"] == sum(row[column["name"]] == "" for row in rows)
    assert next(column for column in record["columns"] if column["name"] == "glucose")["unit"] == "mmol/L"


def test_files_and_cases_point_at_each_other(tmp_path: Path) -> None:
    kind = WithNotes()
    table = write_cohort(kind, tmp_path / "out", 11, files=True, cases=True)
    for number, row in enumerate(read(table)):
        assert (table.parent / row["series"]).is_file()
        assert (row["text"] == "") == bool(number % 2)
        folder = (table.parent / row["series"]).parent
        case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        assert case["series"]["time_min"] == [0, 5]
        assert ("text" in case) == bool(row["text"])
        known = {column.name: row[column.name] for column in kind.columns if row[column.name]}
        assert set(case["tabular"]) == set(known)
        for name, value in case["tabular"].items():
            assert value == known[name] if isinstance(value, str) else float(value) == float(known[name])
        assert not {label.name for label in kind.labels} & set(case["tabular"])
        assert case["units"]["sbp"] == "mmHg" if "sbp" in known else True


def test_workers_change_nothing(tmp_path: Path) -> None:
    kind = cohort("ich_outcome_ct")
    one, two = (
        write_cohort(kind, tmp_path / str(workers), 700, seed=1, variant=Variant.NULL, cases=True, workers=workers)
        for workers in (1, 2)
    )
    held = [{p.relative_to(t.parent): p.read_bytes() for p in t.parent.rglob("*") if p.is_file()} for t in (one, two)]
    assert held[0] == held[1]
    assert len(held[0]) == 703
    assert fingerprint(kind, 600, workers=2) == fingerprint(kind, 600)


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("data", encoding="utf-8")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="left as it is"):
            write_cohort(IchOutcome(), out, 5)
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "data"


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> dict[str, str]:
        raise OSError("disk full")

    monkeypatch.setattr(WithNotes, "write_files", fails)
    with pytest.raises(OSError, match="disk full"):
        write_cohort(WithNotes(), tmp_path / "out", 5, files=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"workers": 0}, {"test_share": 1.0}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    asked = {"count": 5} | wrong
    with pytest.raises(UsageError):
        write_cohort(IchOutcome(), tmp_path / "out", **asked)  # type: ignore[arg-type]


def test_there_is_no_such_cohort() -> None:
    with pytest.raises(UsageError, match="choose from ich_outcome"):
        cohort("nonsense")


@pytest.mark.parametrize("name", COHORTS)
def test_the_registry_knows_names(name: str) -> None:
    assert cohort(name).name == name


def test_a_fingerprint_sees_a_change() -> None:
    kind = IchOutcome()
    prints = {fingerprint(kind, 300, seed=seed, variant=v)["table"] for seed in (0, 1) for v in Variant}
    assert len(prints) == 6

    class Raised(IchOutcome):
        version = "2"

    assert fingerprint(Raised(), 300)["table"] not in prints


@pytest.mark.parametrize("name", COHORTS)
def test_cohorts_are_those_of_other_machines(name: str) -> None:
    """If this fails and nothing was meant to change, something depends on the machine; else raise the version."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for versioned, variants in fingerprints((name,)).items():
        assert variants == golden[versioned]


@pytest.mark.skipif(sys.platform != "linux", reason="the variables are NumPy's and OpenBLAS's on x86 Linux")
def test_cohorts_are_those_of_a_machine_with_fewer_instructions() -> None:
    """Without AVX2 and AVX-512 NumPy takes other loops, and OpenBLAS other kernels: the last digits differ."""
    code = (
        "import json, sys; from edgehem.export.cohorts.golden import fingerprints;"
        f"json.dump(fingerprints({tuple(COHORTS)!r}), sys.stdout)"
    )
    masked = {"NPY_DISABLE_CPU_FEATURES": _dispatched(), "OPENBLAS_CORETYPE": "Prescott"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **masked}, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def _dispatched() -> str:
    """What NumPy picks at run time and this machine has; naming another would be a warning."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[attr-defined]

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
