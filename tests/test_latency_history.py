"""The history of results: nothing is lost, damage is passed over aloud, and the picture says what changed."""

from __future__ import annotations

import json
import logging
import os
import runpy
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgehem.benchmarks.latency import compare_commands, history, trend
from edgehem.errors import UsageError

NOISE = runpy.run_path(str(Path(__file__).parent / "latency_noise.py"))
result: Callable[..., dict[str, Any]] = NOISE["result"]
SVG = "{http://www.w3.org/2000/svg}"


def run(day: int, ms: float = 10.0, **changes: Any) -> dict[str, Any]:
    """A result of that day."""
    times = {"stage.a": [ms, ms, 2 * ms], "whole.b": [50 * ms] * 3}
    return result(times, made=f"2026-11-{day:02}T07:00:00+00:00", session=f"s{day}", **changes)


def test_an_entry_holds_what_a_trend_needs(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history.jsonl"
    history.append(path, run(1))
    (found,) = history.read(path)
    assert found.machine == "Some CPU, 2 CPUs" and found.engine == "onnxruntime 1.2 fp32.onnx fp32"
    assert found.revision == "0123456789ab" and found.session == "s1"
    assert found.cases["stage.a"].p50 == 10 and found.cases["stage.a"].p95 == pytest.approx(19)
    assert len(path.read_text().splitlines()) == 1 and "samples" not in path.read_text()


def test_entries_are_read_in_the_order_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for day in (3, 1, 2):
        history.append(path, run(day))
    assert [each.session for each in history.read(path)] == ["s1", "s2", "s3"]


def test_a_time_that_is_none_leaves_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for each in (run(3), {**run(1), "made": "yesterday"}, run(2)):
        history.append(path, each)
    assert [each.session for each in history.read(path)] == ["s3", "s1", "s2"]


@pytest.mark.parametrize(
    "damage",
    [
        b'{"schema": "edgehem.latency-hist',
        b"\xff\xfe\n",
        b"[]\n",
        b'{"schema": "edgehem.latency-history/2"}\n',
        b"{" * 9,
    ],
)
def test_damaged_lines_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """A line without an end is what a lost power supply leaves: what comes next must not be glued to it."""
    path = tmp_path / "history.jsonl"
    history.append(path, run(1))
    with path.open("ab") as stream:
        stream.write(damage)
    history.append(path, run(2))
    with caplog.at_level(logging.WARNING):
        assert [each.session for each in history.read(path)] == ["s1", "s2"]
    assert "line 2 of the history is left out" in caplog.text
    assert len(path.read_bytes().splitlines()) == 3


def test_a_result_that_is_none_is_not_appended(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with pytest.raises(UsageError, match="no result"):
        history.append(path, {"schema": "edgehem.bench.kernels/1"})
    assert not path.exists()


def test_two_who_append_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one writes after the first has looked for the file's end, and before it writes."""
    path = tmp_path / "history.jsonl"
    history.append(path, run(1))
    write = os.write

    def late(handle: int, line: bytes) -> int:
        monkeypatch.setattr(history.os, "write", write)
        history.append(path, run(3))
        return write(handle, line)

    monkeypatch.setattr(history.os, "write", late)
    history.append(path, run(2))
    assert [each.session for each in history.read(path)] == ["s1", "s2", "s3"]


def test_what_was_appended_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(history.os, "fsync", synced.append)
    monkeypatch.setattr(history, "sync_folder", lambda folder: synced.append(-1))
    history.append(tmp_path / "history.jsonl", run(1))
    assert len(synced) == 2 and synced[-1] == -1


def test_a_history_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        history.append(tmp_path, run(1))
    with pytest.raises(UsageError, match="cannot be read"):
        history.read(tmp_path / "none.jsonl")


# The picture


def entries(*results: dict[str, Any]) -> list[history.Entry]:
    return [history.entry(each) for each in results]


def drawn(*results: dict[str, Any]) -> ET.Element:
    return ET.fromstring(trend.draw(entries(*results)))


def words(picture: ET.Element) -> str:
    return " | ".join(text.text or "" for text in picture.iter(f"{SVG}text"))


def test_a_panel_for_each_case(tmp_path: Path) -> None:
    picture = drawn(*(run(day) for day in (1, 2, 3)))
    assert len(list(picture.iter(f"{SVG}g"))) == 2
    lines = [line.attrib["points"].split() for line in picture.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [3, 3] and len({point.split(",")[1] for point in lines[0]}) == 1
    assert "stage.a" in words(picture) and "3 runs, 2026-11-01 to 2026-11-03" in words(picture)


def test_longer_times_are_drawn_higher() -> None:
    line = next(drawn(run(1, 10), run(2, 15)).iter(f"{SVG}polyline")).attrib["points"].split()
    heights = [float(point.split(",")[1]) for point in line]
    bottom = trend.PANEL - trend.BOTTOM
    assert (bottom - heights[1]) / (bottom - heights[0]) == pytest.approx(1.5, rel=0.02)


def test_changes_of_machine_and_engine_are_marked() -> None:
    other = run(3, served={**NOISE["SERVED"], "engine": "openvino"})
    moved = run(4, environment={**NOISE["ENVIRONMENT"], "cpu": "<Other> & CPU"}, served=other["served"])
    runs = [run(1), run(2), other, moved]
    assert [(mark.at, mark.letter) for mark in trend.marks(entries(*runs))] == [(2, "A"), (3, "B")]
    text = words(drawn(*runs))
    assert "A: 2026-11-03, engine from onnxruntime 1.2 fp32.onnx fp32 to openvino" in text
    assert "machine from Some CPU, 2 CPUs to <Other> & CPU" in text
    assert trend.marks(entries(run(1), run(2))) == []


def test_a_line_does_not_run_across_runs_that_lack_the_case() -> None:
    gap = run(3)
    gap["cases"] = gap["cases"][1:]
    lines = [line.attrib["points"].split() for line in drawn(run(1), run(2), gap, run(4)).iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [2, 1, 4]


def test_an_arm_that_another_was_held_against_is_left_out() -> None:
    assert "2 runs" in words(drawn(run(1), run(2, arm="base"), run(2, arm="new")))
    with pytest.raises(UsageError, match="no runs"):
        trend.draw(entries(run(1, arm="base")))


def test_one_run_and_a_strange_name_make_a_picture() -> None:
    strange = result({'<b>"&\x01' + "n" * 60: [1.0]})
    assert '<b>"&?nnn' in words(drawn(strange))


def test_the_command_draws_a_file(tmp_path: Path) -> None:
    path, out = tmp_path / "history.jsonl", tmp_path / "trend.svg"
    for day in (1, 2):
        compare_commands.remember(run(day), path)
    assert compare_commands.trend_file(path, out) == 2
    assert ET.fromstring(out.read_text()).tag == f"{SVG}svg"
    assert json.loads(path.read_text().splitlines()[0])["schema"] == "edgehem.latency-history/1"
