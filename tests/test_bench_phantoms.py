"""``edgehem bench phantoms``: memory that grows is told from memory that does not, and every study is counted once."""

from __future__ import annotations

import copy
import json
import mmap
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from edgehem import cli
from edgehem.benchmarks import phantoms, phantoms_report, resident
from edgehem.errors import UsageError

STUDIES = 400
TINY = ["--matrix", "64", "--slices", "4", "--voxel", "4"]


def level(studies: int = STUDIES, *, sd: float = 2.0, seed: int = 0) -> npt.NDArray[np.float64]:
    """Memory that goes up and down about 400 MB."""
    return 400 + np.random.default_rng([seed, 1]).normal(0, sd, studies)


# Growth


@pytest.mark.parametrize("seed", range(5))
def test_noise_about_a_level_does_not_grow(seed: int) -> None:
    found = resident.growth(level(seed=seed), processes=3)
    assert found.verdict == resident.FLAT
    assert found.studies == STUDIES - 40
    assert found.low_mb is not None and found.high_mb is not None
    assert found.low_mb < 0 < found.high_mb


@pytest.mark.parametrize("per_study", [0.05, 0.5])
def test_a_leak_grows_by_what_it_leaks(per_study: float) -> None:
    found = resident.growth(level() + per_study * np.arange(STUDIES), processes=3)
    assert found.verdict == resident.GROWING
    assert found.low_mb is not None and found.high_mb is not None
    assert found.low_mb < 100 * per_study < found.high_mb
    assert found.slope_mb == pytest.approx(100 * per_study, abs=0.5)


def test_a_leak_below_the_tolerance_is_none() -> None:
    assert resident.growth(level(sd=0.2) + 0.002 * np.arange(STUDIES)).verdict == resident.FLAT


def test_a_leak_in_steps_grows() -> None:
    """A pool that takes 20 MB more every 50 studies."""
    assert resident.growth(level(sd=0.5) + 20 * (np.arange(STUDIES) // 50)).verdict == resident.GROWING


def test_steps_while_the_first_studies_are_made_are_no_growth() -> None:
    at = np.arange(STUDIES)
    steps = 300 + 40 * (at > 3) + 30 * (at > 12) + 20 * (at > 35)
    found = resident.growth(steps.astype(float))
    assert (found.verdict, found.slope_mb, found.rise_mb) == (resident.FLAT, 0.0, 0.0)


def test_a_step_at_the_end_is_told() -> None:
    """One large study late is no slope; the rise says that it was there."""
    found = resident.growth(np.where(np.arange(STUDIES) < 380, 400.0, 460.0))
    assert (found.verdict, found.rise_mb) == (resident.FLAT, 60.0)


def test_what_cannot_be_told_is_not_told() -> None:
    few = resident.growth(level(resident.SETTLING_LEAST + resident.LEAST - 1))
    assert (few.verdict, few.slope_mb, few.studies) == (resident.UNCLEAR, None, resident.LEAST - 1)
    assert resident.growth([400.0]).rise_mb is None
    assert resident.growth(level(80, sd=20)).verdict == resident.UNCLEAR


def test_more_processes_take_wider_intervals_and_the_seed_decides() -> None:
    one, many, again = (resident.growth(level(), processes=count, seed=4) for count in (1, 8, 1))
    assert one == again
    assert one.low_mb is not None and one.high_mb is not None
    assert many.low_mb is not None and many.high_mb is not None
    assert many.low_mb < one.low_mb < one.high_mb < many.high_mb


def test_long_series_keep_their_slope() -> None:
    """More studies than are paired one by one are thinned."""
    found = resident.growth(level(2000) + 0.03 * np.arange(2000))
    assert found.slope_mb == pytest.approx(3, abs=0.2)


# Reading


def test_memory_that_is_held_is_read() -> None:
    before = resident.read()
    with mmap.mmap(-1, 64 << 20) as fresh:  # never memory that was freed before
        fresh.write(b"\1" * (64 << 20))
        held = resident.read()
    assert held.resident_mb - before.resident_mb == pytest.approx(67, abs=8)
    assert held.peak_mb >= held.resident_mb - 1


def test_memory_that_is_allocated_is_told_from_freed_memory_that_is_kept() -> None:
    before = resident.read().allocated_mb
    if before is None:
        pytest.skip("glibc alone tells it")
    block = np.ones(64 << 20, np.uint8)
    held = resident.read().allocated_mb
    assert block.all()
    del block
    freed = resident.read().allocated_mb
    assert held is not None and held - before == pytest.approx(67, abs=4)
    assert freed == pytest.approx(before, abs=4)


def test_elsewhere_than_on_linux_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "STATUS", tmp_path / "none")
    with pytest.raises(UsageError, match="Linux only"):
        resident.read()


# The whole


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """A short run of small studies."""
    asked = phantoms.Settings(studies=9, workers=2, timed=3, timed_mr=1, slices=4, seed=5, matrix=64, voxel_mm=4.0)
    seen: list[tuple[int, int]] = []
    result = phantoms.run(asked, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 19) for done in range(1, 20)]  # 3 that are not counted, 3 + 3 + 1 that are, and 9
    return result


def test_each_kind_is_timed_on_one_thread(measured: dict[str, Any]) -> None:
    assert measured["threads"] == 1
    assert [row["kind"] for row in measured["times"]] == list(phantoms.KINDS)
    assert [len(row["generate"]["cpu_s"]) for row in measured["times"]] == [3, 3, 1]
    for row in measured["times"]:
        made, written = row["generate"], row["write"]
        assert all(both > one > 0 for one, both in zip(made["cpu_s"], written["cpu_s"], strict=True))
        assert made["median"]["low"] <= made["median"]["value"] <= made["median"]["high"] <= made["worst"]
        assert made["mean"] == pytest.approx(np.mean(made["cpu_s"]))


def test_every_study_is_some_workers(measured: dict[str, Any]) -> None:
    *workers, parent = measured["memory"]
    assert len(workers) == 2
    assert sorted(number for row in workers for number in row["study"]) == list(range(1, 10))
    assert parent["study"] == list(range(10))
    for row in measured["memory"]:
        assert len(row["resident_mb"]) == len(row["study"])
        assert row["peak_mb"] >= max(row["resident_mb"]) - 1
        assert row["resident"]["verdict"] == resident.UNCLEAR  # nine studies tell nothing


def test_other_studies_than_the_usual_meet_no_aim(measured: dict[str, Any]) -> None:
    verdicts = [aim["verdict"] for aim in measured["aims"]]
    assert verdicts[:4] == ["not measured"] * 4
    assert set(verdicts[4:]) <= {"unclear", "not measured"}


def test_aims_follow_from_what_was_measured(measured: dict[str, Any]) -> None:
    usual = phantoms.Settings()
    assert usual.usual and not phantoms.Settings(slices=30).usual
    times = copy.deepcopy(measured["times"])
    for row, (low, high) in zip(times, ((1.2, 1.9), (1.9, 2.1), (9, 9)), strict=True):
        row["generate"]["median"] = {"value": low, "low": low, "high": high}
        row["generate"]["p95"] = {"value": 3 * low, "low": 3 * low, "high": 3 * high}
    found = phantoms._time_aims(times, usual)
    assert [aim["verdict"] for aim in found] == ["met", "not met", "unclear", "not met"]


@pytest.mark.parametrize(
    ("leak", "verdict"), [(0.0, "met"), (0.1, "not met")], ids=["all flat", "one worker of three leaks"]
)
def test_the_worst_process_decides(leak: float, verdict: str) -> None:
    rows = []
    for number in range(3):
        series = level(seed=number, sd=0.5) + (number == 1) * leak * np.arange(STUDIES)
        readings = [
            resident.Reading(process=number, resident_mb=value, peak_mb=value, allocated_mb=30.0, threads=1)
            for value in series
        ]
        rows.append(phantoms._process(f"worker {number}", enumerate(readings), processes=3, seed=0))
    by_level, by_held = phantoms._memory_aims(rows)
    assert (by_level["verdict"], by_held["verdict"]) == (verdict, "met")
    for row in rows:
        row["allocated"] = row["allocated_mb"] = None
    assert phantoms._memory_aims(rows)[1]["verdict"] == "not measured"


def test_words_table_and_picture(measured: dict[str, Any]) -> None:
    text, table = phantoms_report.render(measured), phantoms_report.markdown(measured)
    for words in (*phantoms.KINDS, "worker 1", "worker 2", "parent", "one thread", "too few studies"):
        assert words in text and words in table
    assert max(map(len, text.splitlines())) <= 150
    assert {line.count("|") for line in table.splitlines() if line.startswith("| CT") and "written" in line} == {9}
    svg = ElementTree.fromstring(phantoms_report.drawing(measured))
    lines = svg.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) in (3, 6)  # two workers and the parent; allocated memory where it is known
    assert len(lines[2].attrib["points"].split()) == 10
    unknown = copy.deepcopy(measured)
    for row in unknown["memory"]:
        row["allocated"] = row["allocated_mb"] = None
    assert "not known" in phantoms_report.render(unknown)
    assert "not known here" in phantoms_report.drawing(unknown)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "plot")}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    counts = ["--studies", "2", "--workers", "1", "--timed", "1", "--seed", "3"]
    assert cli.main(["bench", "phantoms", *TINY, *counts, *options]) == cli.EXIT_DONE
    told = json.loads(files["json"].read_text(encoding="utf-8"))
    assert told["schema"] == phantoms.SCHEMA
    assert told["settings"] == {
        "studies": 2, "workers": 1, "timed": 1, "timed_mr": 1, "slices": 4, "seed": 3, "matrix": 64,
        "voxel_mm": 4.0,
    }  # fmt: skip
    assert capsys.readouterr().out == phantoms_report.render(told)
    assert files["markdown"].read_text(encoding="utf-8") == phantoms_report.markdown(told)
    assert files["plot"].read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--studies", "0"], "above 0"),
        (["--workers", "-1"], "above 0"),
        (["--slices", "x"], "above 0"),
        (["--seed", "-1"], "0 or more"),
        (["--plot", "."], "--plot needs a file"),
        (["--json", "nowhere/out.json"], "--json needs a file"),
    ],
)
def test_what_the_command_refuses(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(["bench", "phantoms", *options])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == cli.EXIT_USAGE
    assert re.search(words, capsys.readouterr().err)


def test_usual_numbers() -> None:
    usual, quick = phantoms.settings(workers=3), phantoms.settings(quick=True, workers=1, slices=None, seed=7)
    assert (usual.studies, usual.workers, usual.timed, usual.timed_mr, usual.slices) == (1000, 3, 40, 6, 40)
    assert (quick.studies, quick.timed, quick.timed_mr, quick.slices, quick.seed) == (30, 4, 4, 40, 7)
    with pytest.raises(UsageError, match="above 0"):
        phantoms.Settings(studies=0)
