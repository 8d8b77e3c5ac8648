"""What a model is given may know the causes, never the toss: attacks on the cohorts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.export.cohorts.core import Cohort, Float, Patients, Variant
from edgehem.export.cohorts.registry import COHORTS, cohort
from edgehem.export.cohorts.tables import table_text, unknown

SLOW_TO_READ = ("pe_ecg", "pe_lysis")
"""Cohorts whose readings take a second for a hundred patients."""


def residual(outcome: npt.NDArray[np.int64], chance: Float, values: Any) -> float:
    """How far outcomes deviate from chances along some values: a standard normal if they follow from causes only."""
    centred = values - values.mean()
    spread = float(np.sqrt((chance * (1 - chance) * centred**2).sum()))
    return float(((outcome - chance) * centred).sum()) / spread if spread > 0 else 0.0


def ranks(values: Any) -> Float:
    """Ranks; what is unknown is put in the middle."""
    gone = np.isnan(values)
    known = values if gone.all() else np.where(gone, np.nanmedian(values), values)
    return np.argsort(np.argsort(known, kind="stable"), kind="stable").astype(np.float64)


def shown(kind: Cohort, drawn: Patients) -> dict[str, Float]:
    """Everything that can be seen of patients, as numbers [N]: values, gaps, readings, and what lies beside them."""
    seen: dict[str, Float] = {}
    for column in kind.columns:
        values = drawn.inputs[column.name]
        seen[f"{column.name} missing"] = unknown(values).astype(np.float64)
        if column.kind == "category":
            seen |= {f"{column.name} {value}": (values == value).astype(np.float64) for value in column.values}
        else:
            seen[column.name] = ranks(values)
    if kind.name not in SLOW_TO_READ:
        seen |= {f"read {name}": ranks(values) for name, values in kind.features(drawn, 0).items()}
    text = table_text(kind, drawn)
    cells = list(zip(*(text[column.name] for column in kind.columns), strict=True))
    seen["length of the row"] = np.array([sum(map(len, row)) for row in cells], np.float64)
    seen["gaps"] = np.array([row.count("") for row in cells], np.float64)
    seen["place in the table"] = np.arange(len(drawn), dtype=np.float64)
    seen["place in the block"] = np.arange(len(drawn)) % 256.0
    seen |= {"seed": ranks(drawn.seeds.astype(np.float64)), "odd seed": (drawn.seeds % 2).astype(np.float64)}
    return seen


@pytest.mark.parametrize("variant", [Variant.PLANTED, Variant.SHIFTED])
@pytest.mark.parametrize("name", COHORTS)
def test_no_input_knows_the_toss(name: str, variant: Variant) -> None:
    """Given the chance, no value, gap or reading may tell more of the outcome: else the ceiling is none.

    Up to 300 deviates are looked at for a cohort; beyond 4.5 lies one in 150,000.
    """
    kind = cohort(name)
    drawn = kind.draw(4096, seed=17, variant=variant)
    seen = shown(kind, drawn)
    worst = {
        f"{label.name} by {what}": residual(drawn.outcome(label.name), drawn.chance[label.name], values)
        for label in kind.labels
        if label.classes == 2
        for what, values in seen.items()
    }
    beyond = {what: round(z, 1) for what, z in worst.items() if abs(z) > 4.5}
    assert not beyond


def test_the_attack_finds_a_leak() -> None:
    drawn = cohort("cvt").draw(4096, seed=17)
    outcome, chance = drawn.outcome("cvt"), drawn.chance["cvt"]
    told = np.where(np.random.default_rng(0).random(4096) < 0.1, outcome, 0)
    assert residual(outcome, chance, told.astype(np.float64)) > 4.5


@pytest.mark.parametrize("name", COHORTS)
def test_readings_do_not_look_at_labels(name: str) -> None:
    """The null cohort has other people's labels; what is read of its patients is what is read of the planted ones."""
    kind = cohort(name)
    null, planted = (kind.draw(24, seed=5, variant=variant) for variant in (Variant.NULL, Variant.PLANTED))
    label = kind.labels[0].name
    assert (null.outcome(label) != planted.outcome(label)).any()
    np.testing.assert_array_equal(null.seeds, planted.seeds)
    read, other = (kind.features(some, 0) for some in (null, planted))
    assert list(read) == list(other)
    for what, values in read.items():
        np.testing.assert_array_equal(values, other[what])


@pytest.mark.parametrize("name", ["dynamics", "pe_ecg"])
def test_files_do_not_look_at_labels(name: str, tmp_path: Path) -> None:
    kind = cohort(name)
    held = []
    for variant in (Variant.NULL, Variant.PLANTED):
        drawn, out = kind.draw(8, seed=5, variant=variant), tmp_path / variant.value
        for row in range(8):
            (out / str(row)).mkdir(parents=True)
            kind.write_files(drawn, row, out / str(row), int(drawn.seeds[row]))
        held.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert held[0] == held[1]
    assert len(held[0]) == 8 * len(kind.paths)
