"""Comparisons of latency: the statistics, against made-up noise of known truth; what is refused; what CI is told.

No time is measured here.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from edgehem.benchmarks.latency import blocks, compare_commands, reading, replay, report_compare, thresholds, verdict
from edgehem.benchmarks.latency.cases import cases
from edgehem.benchmarks.latency.run import ROUNDS
from edgehem.benchmarks.latency.thresholds import Exemption, Thresholds
from edgehem.errors import UsageError

NOISE = runpy.run_path(str(Path(__file__).parent / "latency_noise.py"))
result: Callable[..., dict[str, Any]] = NOISE["result"]
case: Callable[..., dict[str, Any]] = NOISE["case"]
recording: Callable[..., list[dict[str, Any]]] = NOISE["recording"]
LIMITS = Thresholds()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def pair(
    rng: np.random.Generator, slower: float = 1.0, *, rounds: int = 40, noise: float = 0.02, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two results of one case that share a drift by half."""
    drift = np.linspace(0, 0.4, rounds)
    base, new = (10 * by * np.exp(drift + rng.normal(0, noise, rounds)) for by in (1.0, slower))
    return result({"stage.a": base}), result({"stage.a": new}, **changes)


def only(comparison: dict[str, Any]) -> dict[str, Any]:
    (row,) = comparison["cases"]
    return dict(row)


# The interval


@pytest.mark.parametrize(("rounds", "block"), [(23, 3), (24, 3), (20, 1)])
def test_the_law_of_the_median_is_that_of_many_resamples(rng: np.random.Generator, rounds: int, block: int) -> None:
    values = np.cumsum(rng.normal(size=rounds))
    starts = rng.integers(0, rounds, (40_000, -(-rounds // block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % rounds).reshape(len(starts), -1)[:, :rounds]
    resampled = np.sort(values[drawn], axis=1)
    ordered, lower, upper = blocks._law(values[None], block)
    for law, at in ((lower, (rounds - 1) // 2), (upper, rounds // 2)):
        counted = (resampled[:, at, None] <= np.sort(values)[None]).mean(axis=0)
        assert np.abs(counted - law[0]).max() < 0.012
    assert (ordered[0] == np.sort(values)).all()


@pytest.mark.parametrize("freedom", [1, 2, 5, 6, 9, 14, 59])
@pytest.mark.parametrize("tail", [0.025, 0.001, 1e-6])
def test_students_quantile(freedom: int, tail: float) -> None:
    assert blocks.student(freedom, tail) == pytest.approx(stats.t.isf(tail, freedom), rel=1e-7)


def test_autocorrelation_of_known_series(rng: np.random.Generator) -> None:
    white = rng.normal(size=(2000, 30))
    red = white.copy()
    for i in range(1, 30):
        red[:, i] = 0.6 * red[:, i - 1] + 0.8 * white[:, i]
    # It is cut off at 0, so white noise has a mean of about 0.4 standard errors.
    assert blocks.autocorrelation(white).mean() < 0.09
    assert blocks.autocorrelation(red).mean() == pytest.approx(0.57, abs=0.05)
    assert blocks.autocorrelation(np.ones((1, 30))) == [0]


def test_an_interval_is_wider_for_noise_that_lasts(rng: np.random.Generator) -> None:
    white = rng.normal(size=(300, 60))
    red = white.copy()
    for i in range(1, 60):
        red[:, i] = 0.7 * red[:, i - 1] + np.sqrt(1 - 0.49) * white[:, i]
    widths = [np.median(found.high - found.low) for found in (blocks.median(white, 0.001), blocks.median(red, 0.001))]
    assert widths[1] > 1.7 * widths[0]


@pytest.mark.parametrize(("rounds", "correlated", "at_most"), [(20, 0.0, 0.03), (30, 0.0, 0.05), (30, 0.3, 0.09)])
def test_intervals_of_a_family_hold_together(rounds: int, correlated: float, at_most: float) -> None:
    """25 cases, a family error of 5 %; 20000 intervals tell the rate of a family within a percent or two.

    Of 50000 it is 1.0, 3.0 and 5.9 %: an autocorrelation of 0.3 and only 10 blocks are a little too much.
    """
    rng = np.random.default_rng(4)
    values = rng.normal(size=(20_000, rounds))
    for i in range(1, rounds):
        values[:, i] = correlated * values[:, i - 1] + np.sqrt(1 - correlated**2) * values[:, i]
    parts = [blocks.median(part, 0.05 / 2 / 25) for part in np.array_split(values, 200)]
    missed = np.mean([((part.low > 0) | (part.high < 0)).mean() for part in parts])
    assert 1 - (1 - missed) ** 25 <= at_most


def test_the_difference_of_two_recordings_covers_the_truth(rng: np.random.Generator) -> None:
    found = blocks.difference(rng.normal(1.0, 1, (300, 40)), rng.normal(0.4, 1, (300, 30)), 0.025)
    covered = ((found.low <= 0.6) & (found.high >= 0.6)).mean()
    assert covered > 0.93
    assert np.median(found.high - found.low) < 2.2


def test_many_rounds_are_thinned() -> None:
    values = np.arange(2400.0)
    assert (blocks.thin(values) == np.arange(240) * 10 + 4.5).all()
    assert blocks.thin(values[:240]) is not None and (blocks.thin(values[:240]) == values[:240]).all()


# Verdicts


@pytest.mark.parametrize(
    ("ratio", "low", "high", "expected"),
    [
        (1.10, 1.02, 1.18, "SLOWER"),
        (1.05, 1.001, 1.10, "SLOWER"),
        (1.049, 1.001, 1.10, "AMBIGUOUS"),
        (1.10, 1.0, 1.20, "AMBIGUOUS"),
        (0.90, 0.85, 0.96, "FASTER"),
        (0.953, 0.90, 0.99, "AMBIGUOUS"),
        (0.90, 0.80, 1.0, "AMBIGUOUS"),
        (1.00, 0.96, 1.04, "SAME"),
        (1.02, 1.01, 1.03, "SAME"),
        (1.00, 0.94, 1.04, "AMBIGUOUS"),
        (1.00, 0.96, 1.06, "AMBIGUOUS"),
    ],
)
def test_a_verdict_needs_both_certainty_and_size(ratio: float, low: float, high: float, expected: str) -> None:
    assert verdict.decide(ratio, low, high, 0.05)[0] == expected


@pytest.mark.parametrize(("slower", "expected"), [(1.15, "SLOWER"), (0.85, "FASTER"), (1.0, "SAME"), (1.02, "SAME")])
def test_paired_rounds_see_through_a_drift(rng: np.random.Generator, slower: float, expected: str) -> None:
    base, new = pair(rng, slower)
    row = only(verdict.compare(base, new, LIMITS))
    assert row["verdict"] == expected
    assert row["ratio"] == pytest.approx(slower, rel=0.02)
    assert row["low"] < slower < row["high"]


def test_other_sessions_are_not_paired_and_that_is_said(rng: np.random.Generator) -> None:
    base, new = pair(rng, 1.15, session="other")
    told = verdict.compare(base, new, LIMITS)
    assert not told["paired"] and told["how"] == "unpaired: measured at different times"
    # The drift of 50 % that pairs cancel is noise here.
    assert only(told)["verdict"] == "AMBIGUOUS"
    assert "Unpaired: measured at different times" in report_compare.render(told)
    nameless = [{**each, "session": ""} for each in (base, new)]
    assert not verdict.compare(nameless[0], nameless[1], LIMITS)["paired"]


@pytest.mark.parametrize("session", ["5e55", "other"])
def test_exchanged_sides_give_the_inverse(rng: np.random.Generator, session: str) -> None:
    base, new = pair(rng, 1.3, session=session)
    there, back = only(verdict.compare(base, new, LIMITS)), only(verdict.compare(new, base, LIMITS))
    assert there["ratio"] * back["ratio"] == pytest.approx(1)
    assert there["low"] * back["high"] == pytest.approx(1, rel=1e-6)
    assert {there["verdict"], back["verdict"]} in ({"SLOWER", "FASTER"}, {"AMBIGUOUS"})


def test_more_cases_make_every_interval_wider(rng: np.random.Generator) -> None:
    base, new = pair(rng)
    alone = only(verdict.compare(base, new, LIMITS))
    for each in (base, new):
        each["cases"] += [case(f"stage.{i}", rng.normal(10, 0.1, 40)) for i in range(24)]
    told = verdict.compare(base, new, LIMITS)
    assert told["statistics"]["family"] == 25 and told["statistics"]["each"] == pytest.approx(0.998)
    assert told["cases"][0]["high"] > alone["high"] and told["cases"][0]["low"] < alone["low"]


def test_what_cannot_be_judged_is_no_part_of_the_family(rng: np.random.Generator) -> None:
    base, new = pair(rng)
    for each in (base, new):
        each["cases"] += [case("stage.short", [0.1] * 40), case("stage.few", rng.normal(10, 0.1, 19))]
    told = verdict.compare(base, new, LIMITS)
    assert [row["verdict"] for row in told["cases"]] == ["SAME", "TOO SHORT", "AMBIGUOUS"]
    assert told["statistics"]["family"] == 1
    assert "19 rounds; at least 20" in told["cases"][2]["why"] and told["cases"][2]["low"] is None
    assert verdict.exit_code({**told, "counts": {**told["counts"], "AMBIGUOUS": 0}}, strict=True) == 0


def test_a_case_that_was_short_and_is_not_any_more_is_slower(rng: np.random.Generator) -> None:
    told = verdict.compare(result({"a": [0.1] * 30}), result({"a": rng.normal(5, 0.01, 30)}), LIMITS)
    assert only(told)["verdict"] == "SLOWER"


def test_rounds_that_have_no_partner_are_not_paired(rng: np.random.Generator) -> None:
    base, new = pair(rng)
    new["cases"][0]["samples_ms"].pop()
    row = only(verdict.compare(base, new, LIMITS))
    assert row["verdict"] == "AMBIGUOUS" and "different numbers of rounds" in row["why"]


def test_times_all_alike_are_the_same() -> None:
    row = only(verdict.compare(result({"a": [3.0] * 30}), result({"a": [3.0] * 30}), LIMITS))
    assert (row["verdict"], row["low"], row["high"]) == ("SAME", 1, 1)


def test_thousands_of_rounds_are_judged(rng: np.random.Generator) -> None:
    base, new = pair(rng, 1.1, rounds=5000, noise=0.2)
    row = only(verdict.compare(base, new, LIMITS))
    assert row["verdict"] == "SLOWER" and row["base"]["rounds"] == 5000


def test_the_comparison_is_json_and_changes_nothing(rng: np.random.Generator) -> None:
    base, new = pair(rng, 1.2)
    kept = json.dumps([base, new])
    told = verdict.compare(base, new, LIMITS)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert json.dumps([base, new]) == kept


# What is not compared


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    head, _, rest = place.partition("/")
    return {**content, head: changed(content[head], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("environment/cpu", "Another CPU", "the CPU is Some CPU in the base, Another CPU in the new result"),
        ("environment/cpus/usable", 4, "usable CPUs is 2"),
        ("environment/memory_bytes", 16 << 30, "memory bytes"),
        ("environment/governor", "powersave", "governor is not known in the base, powersave"),
        ("environment/power_mode", "MAXN", "power mode"),
        ("served/engine", "openvino", "engine is onnxruntime"),
        ("served/graph", "int8.onnx", "graph"),
        ("served/arithmetic", "bf16", "arithmetic"),
        ("served/sha256", "cd", "sha256"),
        ("settings/warm_up", 0, "warm up is 3"),
        ("settings/threads", 1, "threads is not known in the base, 1"),
    ],
)
def test_different_conditions_are_refused_unless_allowed(
    rng: np.random.Generator, place: str, value: Any, words: str
) -> None:
    base, new = pair(rng)
    new = changed(new, place, value)
    with pytest.raises(UsageError, match=words) as caught:
        verdict.compare(base, new, LIMITS)
    assert "--allow-different" in str(caught.value)
    told = verdict.compare(base, new, LIMITS, allow_different=True)
    assert len(told["different"]) == 1 and words in told["different"][0]
    assert report_compare.render(told).startswith("NOT THE SAME CONDITIONS")


@pytest.mark.parametrize(
    ("place", "value", "note"),
    [
        ("environment/memory_bytes", (8 << 30) - (64 << 20), ""),
        ("environment/clocks_mhz", [1], ""),
        ("settings/rounds", 60, ""),
        ("environment/numpy", "2.1", "numpy is 2.0 in the base, 2.1 in the new result"),
        ("environment/kernels/implementation", "numpy", "kernels implementation"),
        ("served/engine_version", "1.3", "engine version"),
        ("load/stolen", 0.2, "new: 20% of the CPUs' time"),
    ],
)
def test_what_may_be_the_change_itself_is_told(rng: np.random.Generator, place: str, value: Any, note: str) -> None:
    base, new = pair(rng)
    told = verdict.compare(base, changed(new, place, value), LIMITS)
    assert not told["different"]
    assert len(told["notes"]) == bool(note) and note in " ".join(told["notes"])


def test_missing_cases_fail_and_additional_ones_are_named(rng: np.random.Generator) -> None:
    base, new = pair(rng)
    base["cases"].append(case("stage.gone", [1.0] * 30))
    new["cases"].append(case("stage.fresh", [1.0] * 30))
    new["passed_over"] = {"stage.gone": "no such codec"}
    told = verdict.compare(base, new, LIMITS)
    assert told["missing"] == [{"name": "stage.gone", "why": "no such codec"}]
    assert told["additional"] == [{"name": "stage.fresh", "why": ""}]
    assert verdict.exit_code(told) == 4
    assert "MISSING in the new result: stage.gone: no such codec" in report_compare.render(told)
    del base["cases"][1]
    assert verdict.exit_code(verdict.compare(base, new, LIMITS)) == 0


def test_a_case_that_only_the_base_knows_is_missing_though_neither_measured_it(rng: np.random.Generator) -> None:
    base, new = pair(rng)
    told = verdict.compare({**base, "unmeasured": ["stage.gone"]}, {**new, "unmeasured": ["stage.fresh"]}, LIMITS)
    assert [each["name"] for each in told["missing"]] == ["stage.gone"] and verdict.exit_code(told) == 4
    assert [each["name"] for each in told["additional"]] == ["stage.fresh"]


def test_nothing_in_common_is_missing_altogether() -> None:
    told = verdict.compare(result({"a": [1.0] * 30}), result({"b": [1.0] * 30}), LIMITS)
    assert "No case can be judged" in report_compare.render(told)
    assert told["cases"] == [] and verdict.exit_code(told) == 4
    with pytest.raises(UsageError, match="no cases"):
        verdict.compare(result({}), result({"a": [1.0]}), LIMITS)


@pytest.mark.parametrize(
    ("cases", "strict", "code"),
    [
        ((1.0,), False, 0), ((1.0,), True, 0), ((1.2,), False, 4), ((1.2, None), True, 4), ((1.0, None), False, 0),
        ((1.0, None), True, 5), ((0.8,), True, 0),
    ],
)  # fmt: skip
def test_exit_codes(rng: np.random.Generator, cases: tuple[float | None, ...], strict: bool, code: int) -> None:
    """None is a case too noisy to tell."""
    base, new = result({}), result({})
    for index, slower in enumerate(cases):
        noise = 0.5 if slower is None else 0.01
        for each, by in ((base, 1.0), (new, slower or 1.0)):
            each["cases"].append(case(f"c{index}", 10 * by * np.exp(rng.normal(0, noise, 30))))
    assert verdict.exit_code(verdict.compare(base, new, LIMITS), strict=strict) == code


@pytest.mark.parametrize(
    ("base_mib", "new_mib", "flagged"),
    [(100, 130, True), (100, 109, False), (20, 27, False), (20, 29, True), (130, 100, False), (None, 100, False)],
)
def test_memory_is_flagged_and_only_a_strict_gate_minds(
    rng: np.random.Generator, base_mib: int | None, new_mib: int, flagged: bool
) -> None:
    base, new = pair(rng)
    base["cases"][0]["peak_bytes"] = base_mib and base_mib << 20
    new["cases"][0]["peak_bytes"] = new_mib << 20
    told = verdict.compare(base, new, LIMITS)
    assert told["more_memory"] == (["stage.a"] if flagged else [])
    assert verdict.exit_code(told) == 0 and verdict.exit_code(told, strict=True) == (5 if flagged else 0)
    assert ("+MEMORY" in report_compare.render(told)) == flagged


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "edgehem.bench.kernels/1"}, "no result of schema"),
        ({"cases": [case("a", [1.0]), case("a", [1.0])]}, "case 'a' twice"),
        ({"cases": [{**case("a", [1.0]), "samples_ms": [1.0, 0.0]}]}, "samples_ms"),
        ({"cases": [{**case("a", [1.0]), "samples_ms": [1.0, float("nan")]}]}, "samples_ms"),
        ({"cases": [{**case("a", [1.0]), "p50_ms": None}]}, "p50_ms"),
    ],
)
def test_damaged_results_are_refused(rng: np.random.Generator, change: dict[str, Any], words: str) -> None:
    base, new = pair(rng)
    with pytest.raises(UsageError, match=words) as caught:
        verdict.compare(base, {**new, **change}, LIMITS)
    assert "the new result" in str(caught.value)


def test_a_terminal_shows_all_of_it_in_110_columns(rng: np.random.Generator) -> None:
    base, new = pair(rng, 1.2)
    for each in (base, new):
        each["cases"] += [case("stage." + "x" * 200, np.exp(rng.normal(12, 3, 30)))]
    base["cases"].append(case("whole." + "y" * 90, [1.0] * 30))
    new["environment"] = {**new["environment"], "cpu": "z " * 100, "numpy": "n " * 100}
    text = report_compare.render(verdict.compare(base, new, LIMITS, allow_different=True))
    assert max(map(len, text.splitlines())) <= 110
    assert text.index("▲ stage.a") < text.index("? stage.xxx") and "1 SLOWER, 1 AMBIGUOUS" in text


# Thresholds


def test_the_projects_own_thresholds() -> None:
    own = thresholds.load()
    assert (own.minimum_effect, own.minimum_ms, own.minimum_rounds) == (0.05, 0.2, 20)


def test_exceptions_to_the_thresholds(rng: np.random.Generator) -> None:
    limits = Thresholds(
        cases=(
            Exemption(name="stage.*", why="they are noisy", minimum_effect=0.3),
            Exemption(name="stage.b?", why="shorter ones", minimum_ms=0.0),
            Exemption(name="never.*", why="old"),
        )
    )
    assert limits.of("stage.b1").minimum_effect == 0.3 and limits.of("stage.b1").minimum_ms == 0
    assert limits.of("stage.c").minimum_ms == 0.2 and limits.of("whole").minimum_effect == 0.05
    told = verdict.compare(*pair(rng, 1.15), limits)
    assert only(told)["verdict"] == "SAME" and only(told)["minimum_effect"] == 0.3
    assert told["notes"] == [
        "no case is called stage.b?, which the thresholds name", "no case is called never.*, which the thresholds name"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "edgehem.latency-thresholds/1", "minimal_effect": 0.1}',
        '{"schema": "edgehem.latency-thresholds/1", "minimum_effect": 0}',
        '{"schema": "edgehem.latency-thresholds/1", "minimum_rounds": 3}',
        '{"schema": "edgehem.latency-thresholds/1", "cases": [{"name": "a"}]}',
        '{"schema": "edgehem.latency-thresholds/2"}',
        "[",
    ],
)
def test_thresholds_with_a_mistake_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="thresholds"):
        thresholds.load(path)


# Files of pytest-benchmark


def from_pytest(seconds: list[float] | None, **changes: Any) -> dict[str, Any]:
    stats_ = {"median": 0.010, "mean": 0.010} | ({"data": seconds} if seconds else {})
    entry = {"name": "test_a", "fullname": "suite/test_one.py::test_a", "group": None, "stats": stats_}
    machine = {"cpu": {"brand_raw": "Some CPU", "count": 2}, "machine": "x86_64", "node": "secret-host"}
    return {
        "benchmarks": [entry], "machine_info": machine, "datetime": "2026-11-22T07:00:00",
        "commit_info": {"id": "0123456789abcdef", "dirty": True}, "version": "5.2",
    } | changes  # fmt: skip


def test_files_of_pytest_benchmark_compare(rng: np.random.Generator) -> None:
    base, new = (reading.from_pytest(from_pytest(rng.normal(by, 1e-4, 50).tolist())) for by in (0.010, 0.012))
    told = verdict.compare(base, new, LIMITS)
    assert told["how"].startswith("unpaired") and only(told)["verdict"] == "SLOWER"
    assert only(told)["base"]["p50_ms"] == pytest.approx(10, rel=0.01)
    assert base["revision"] == "0123456789ab+" and "secret-host" not in json.dumps(base)


def test_a_summary_alone_is_ambiguous(rng: np.random.Generator) -> None:
    row = only(verdict.compare(reading.from_pytest(from_pytest(None)), reading.from_pytest(from_pytest(None)), LIMITS))
    assert row["verdict"] == "AMBIGUOUS" and "--benchmark-save-data" in row["why"] and row["ratio"] == 1


def test_another_machine_in_files_of_pytest_benchmark_is_refused() -> None:
    other = from_pytest(None, machine_info={"cpu": {"brand_raw": "Other", "count": 2}, "machine": "x86_64"})
    with pytest.raises(UsageError, match="Other"):
        verdict.compare(reading.from_pytest(from_pytest(None)), reading.from_pytest(other), LIMITS)


def test_tests_of_one_name_keep_their_module() -> None:
    content = from_pytest(None)
    content["benchmarks"].append({**content["benchmarks"][0], "fullname": "suite/test_two.py::test_a"})
    names = [each["name"] for each in reading.from_pytest(content)["cases"]]
    assert names == ["suite/test_one.py::test_a", "suite/test_two.py::test_a"]


@pytest.mark.parametrize("save", [True, False])
def test_a_file_that_pytest_benchmark_wrote(tmp_path: Path, save: bool) -> None:
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "test_it.py").write_text(
        "def test_it(benchmark):\n    benchmark.pedantic(sum, args=(range(1000),), rounds=25)\n"
    )
    file = tmp_path / "out.json"
    options = ["--benchmark-save-data"] if save else []
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py", f"--benchmark-json={file}", *options],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    content = json.loads(file.read_text())
    if not save:
        content["benchmarks"][0]["stats"].pop("data", None)
        file.write_text(json.dumps(content))
    found = reading.read(file)
    assert [len(each["samples_ms"]) for each in found["cases"]] == [25 if save else 0]
    assert found["cases"][0]["p50_ms"] == pytest.approx(1000 * content["benchmarks"][0]["stats"]["median"])
    assert found["environment"]["cpu"] == content["machine_info"]["cpu"].get("brand_raw")


def test_the_suite_of_pytest_benchmark_has_the_cases_of_edgehem_bench(tmp_path: Path) -> None:
    """By the same names; one of them is measured, and its file compares."""
    pytest.importorskip("pytest_benchmark")
    suite, file = Path(__file__).parent.parent / "benchmarks" / "suite" / "test_latency.py", tmp_path / "out.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(suite), "-q"]
    listed = subprocess.run([*command, "--collect-only"], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"test_case\[(.+)\]$", listed, re.M) == [case.name for case in cases()]
    options = [f"--benchmark-json={file}", "--benchmark-save-data"]
    subprocess.run([*command[:-2], f"{suite}::test_case[stage.report/40]", *options], check=True, capture_output=True)
    found = only(reading.read(file))
    assert found["name"] == "stage.report/40" and found["group"] == "stage" and len(found["samples_ms"]) == ROUNDS


# The gate itself


@pytest.mark.parametrize("kind", ["plain", "tails", "correlated", "bursts"])
def test_false_alarms_and_power_of_the_whole_gate(kind: str) -> None:
    """25 cases, 40 rounds, on noise that no model of the comparison has seen."""
    arms = recording(kind, arms=3, cases=25, rounds=1500, seed=7, noise=0.025)
    slowed = replay.slow_down(arms[2], "stage.03", 0.10)
    told = replay.replay(
        arms[:2], [slowed], "stage.03", rounds=40, same_draws=120, slowed_draws=40, limits=LIMITS, seed=1
    )
    assert told["same"]["rate"] <= 0.05 and told["same"]["interval"][1] < 0.1
    assert told["slowed"]["rate"] >= (0.75 if kind == "bursts" else 0.9)
    assert told["slowed"]["others_too"] <= 2
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_replay_says_when_the_gate_fails() -> None:
    """One arm of the base is slower in one case: in half of the draws it comes second, and raises an alarm."""
    arms = recording("plain", arms=2, cases=3, rounds=300, seed=3)
    drifting = replay.slow_down(arms[1], "stage.00", 0.5)
    wrong = replay.slow_down(arms[0], "stage.00", 3.0)
    settings: dict[str, Any] = {"same_draws": 80, "slowed_draws": 10, "limits": LIMITS}
    told = replay.replay([arms[0], drifting], [wrong], "stage.01", **settings)
    assert not told["passes"] and 0.38 < told["same"]["rate"] < 0.62
    assert set(told["same"]["by_case"]) == {"stage.00"}
    assert told["slowed"]["rate"] == 0 and told["slowed"]["others_too"] == 10
    assert replay.replay([arms[0], drifting], [wrong], "stage.01", **settings) == told


def test_what_cannot_be_replayed() -> None:
    arms = recording("plain", arms=3, cases=2, rounds=60, seed=3)
    with pytest.raises(UsageError, match="two arms"):
        replay.replay(arms[:1], arms[1:], "stage.00")
    with pytest.raises(UsageError, match="one session"):
        replay.replay(arms[:2], [{**arms[2], "session": "other"}], "stage.00")
    with pytest.raises(UsageError, match=r"'stage\.77'"):
        replay.replay(arms[:2], arms[2:], "stage.77")


# The command


def test_files_in_and_an_exit_code_out(tmp_path: Path, rng: np.random.Generator) -> None:
    base, new = pair(rng, 1.2)
    files = [tmp_path / name for name in ("base.json", "new.json", "out.json", "out.html")]
    for path, content in zip(files, (base, new), strict=False):
        path.write_text(json.dumps(content))
    said: list[str] = []
    code = compare_commands.compare_files(files[0], files[1], json_file=files[2], html=files[3], tell=said.append)
    assert code == 4 and "SLOWER" in said[0]
    assert json.loads(files[2].read_text())["schema"] == "edgehem.latency-comparison/1"
    assert files[3].read_text().startswith("<!DOCTYPE html>")
    assert compare_commands.compare_files(files[0], files[0], strict=True) == 0


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("{", "no result"), ("{}", "no result of")])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "base.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=f"base.json.*{words}"):
        compare_commands.compare_files(path, path)
