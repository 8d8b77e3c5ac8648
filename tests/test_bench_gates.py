"""``edgehem bench gates``: what is counted, and what counts as right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgehem import cli
from edgehem.benchmarks import gates
from edgehem.errors import Code
from edgehem.phantom.flaws import Flaws


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "MATRIX", 96)
    monkeypatch.setattr(gates, "VOXEL_MM", 3.0)


@pytest.mark.usefixtures("quick")
def test_right_is_the_wanted_code_or_none() -> None:
    scans = (
        gates.SOUND,
        gates.Condition(name="opened", wanted=(Code.POSTOPERATIVE,), flaws=Flaws(craniotomy_mm=90)),
        gates.Condition(name="opened, and nobody wants to know", flaws=Flaws(craniotomy_mm=90)),
    )
    seen: list[tuple[int, int]] = []
    result = gates.run(1, scans=scans, workers=1, progress=lambda done, total: seen.append((done, total)))
    rows = {row["name"]: row for row in result["rows"]}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert set(rows) == {condition.name for condition in scans} | {name for name, _, _ in gates.CHANGES}
    assert rows["opened"]["as_wanted"] == 1
    assert rows["opened"]["codes"] == {"POSTOPERATIVE": 1}
    assert rows["opened, and nobody wants to know"]["as_wanted"] == 0
    assert (rows["one slice black"]["refused"], rows["one slice black"]["flagged"]) == (1, 0)
    assert rows["intercept off by -40"]["codes"] == {"HU_IMPLAUSIBLE": 1}
    assert "opened, and nobody wants to know" in gates.render(result)
    json.dumps(result, allow_nan=False)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = gates.run(0, workers=1)
    asked: list[int] = []

    def run(heads: int, **_: object) -> dict[str, object]:
        asked.append(heads)
        return found

    monkeypatch.setattr(gates, "run", run)
    file = tmp_path / "counts.json"
    assert cli.main(["bench", "gates", "--heads", "3", "--json", str(file)]) == cli.EXIT_DONE
    assert cli.main(["bench", "gates", "--quick"]) == cli.EXIT_DONE
    assert asked == [3, gates.QUICK_HEADS]
    assert json.loads(file.read_text(encoding="utf-8"))["schema"] == gates.SCHEMA
    assert "Right: the wanted code" in capsys.readouterr().out
