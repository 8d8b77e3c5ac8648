"""The exam: concordances, controls, verdicts, and what they are told of."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehem import cli
from edgehem.errors import MissingExtraError, UsageError
from edgehem.export.cohorts import commands, exam_report
from edgehem.export.cohorts.core import (
    BLOCK,
    UNKNOWN,
    Cohort,
    CohortError,
    Column,
    Label,
    Patients,
    Variant,
    lose,
    sigmoid,
    tidy,
    toss,
)
from edgehem.export.cohorts.discrimination import (
    Interval,
    by_resampling,
    calibration,
    concordance,
    difference,
    of_mean,
    under_chance,
)
from edgehem.export.cohorts.exam import ABOVE, LEAK, WRONG, Row, Size, examine, expected, graded
from edgehem.export.cohorts.reference import MODELS, design, fit
from edgehem.export.cohorts.registry import COHORTS, cohort

SMALL = Size(large=6_000, repeats=3, shuffles=6, other=3_000)
TINY = Size(large=600, repeats=2, shuffles=3, other=400)


class Toy(Cohort):
    """Two causes, one of them hidden; a category and a number that say nothing."""

    name = "toy"
    version = "1"
    what = "A toy."
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="seen", kind="real", what="A cause.", low=-9, high=9, digits=2),
        Column(name="noise", kind="real", what="Nothing.", low=-9, high=9, digits=2),
        Column(name="word", kind="category", what="Nothing.", values=("a", "b")),
        Column(name="hint", kind="binary", what="Nothing, or the outcome."),
    )
    labels: ClassVar[tuple[Label, ...]] = (
        Label(name="ill", what="Or not."),
        Label(name="grade", what="0 to 2.", classes=3),
    )
    train = 200
    test = 100
    told_outcome: ClassVar[float] = 0.0
    """Share of patients whose `hint` is the outcome."""
    said_chance: ClassVar[float] = 1.0
    """What the logit is multiplied by before it is called the chance."""

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        seen, hidden = rng.normal(0, 1, (2, BLOCK))
        logit = 1.2 * seen + 0.7 * hidden - (0.8 if shifted else 0)
        ill = toss(rng, sigmoid(logit))
        worse = sigmoid(logit - 1)
        grade = ill * (1 + toss(rng, worse))
        hint = np.where(rng.random(BLOCK) < self.told_outcome, ill, toss(rng, np.full(BLOCK, 0.5)))
        chance = sigmoid(logit)
        word = lose(rng, np.where(rng.random(BLOCK) < 0.3, "a", "b"), 0.2)
        return Patients(
            inputs=tidy(
                self.columns,
                {"seen": lose(rng, seen, 0.1), "noise": rng.normal(0, 1, BLOCK), "word": word, "hint": hint},
            ),
            labels={"ill": np.where(rng.random(BLOCK) < 0.1, UNKNOWN, ill), "grade": grade},
            complete={"ill": ill},
            chance={
                "ill": sigmoid(self.said_chance * logit),
                "grade": np.column_stack([1 - chance, chance * (1 - worse), chance * worse]),
            },
            truth={"hidden": hidden},
        )


class Tells(Toy):
    told_outcome = 0.5


class Boasts(Toy):
    said_chance = 2.0


class NoNull(Toy):
    """Its null cohort is the planted one: what a harness would look like that forgot the control."""

    def draw(self, count: int, *, seed: int = 0, variant: Variant = Variant.PLANTED, first: int = 0) -> Patients:
        real = Variant.PLANTED if variant is Variant.NULL else variant
        return super().draw(count, seed=seed, variant=real, first=first)


def brute(outcome: list[int], score: list[float]) -> float:
    pairs = [
        0.5 if score[i] == score[j] else float(score[i] > score[j])
        for i in range(len(score)) for j in range(len(score)) if outcome[i] > outcome[j]
    ]  # fmt: skip
    return float(np.mean(pairs)) if pairs else float("nan")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=30))
def test_concordance_counts_pairs(drawn: list[tuple[int, int]]) -> None:
    outcome, score = [o for o, _ in drawn], [float(s) for _, s in drawn]
    value = concordance(np.array(outcome), np.array(score))
    assert value == pytest.approx(brute(outcome, score), nan_ok=True)
    # The order is what counts, and turning it round turns the value round.
    assert concordance(np.array(outcome), np.exp(np.array(score))) == pytest.approx(value, nan_ok=True)
    assert concordance(np.array(outcome), -np.array(score)) == pytest.approx(1 - value, nan_ok=True)


def test_a_score_that_says_nothing_varies_as_is_said() -> None:
    rng = np.random.default_rng(0)
    for outcome in (np.repeat([0, 1], [60, 25]), np.repeat([0, 1, 2, 3], [30, 10, 25, 12])):
        drawn = [concordance(outcome, rng.random(len(outcome))) for _ in range(3000)]
        assert np.std(drawn) == pytest.approx(under_chance(outcome), rel=0.05)
        assert abs(np.mean(drawn) - 0.5) < 0.005
    assert under_chance(np.zeros(9, int)) == np.inf


def test_small_test_cohorts_say_less() -> None:
    drawn = Toy().draw(5000)
    outcome, chance = drawn.outcome("ill"), drawn.chance["ill"]
    wide, narrow = (by_resampling(outcome, chance, size, 0) for size in (18, 400))
    assert wide.value == narrow.value == concordance(outcome, chance)
    assert wide.holds(wide.value)
    assert narrow.holds(narrow.value)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.torch
def test_calibration_tells_true_chances_from_others() -> None:
    pytest.importorskip("scipy")
    rng = np.random.default_rng(1)
    chance = rng.beta(2, 3, 20_000)
    p = [calibration(toss(np.random.default_rng([seed, 2]), chance), chance).p for seed in range(60)]
    assert 0.3 < np.mean(p) < 0.7
    assert min(p) > 1e-4
    off = calibration(toss(rng, chance), chance**1.1)
    assert off.p < 1e-6
    assert 0.01 < off.largest_gap < 0.1


@pytest.mark.torch
def test_the_mean_of_repetitions_has_students_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).normal(0.5, 0.1, 12)
    found = of_mean([*values, float("nan")])
    low, high = stats.t.interval(0.9999, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert of_mean([0.5, 0.5]).holds(0.5)


def test_a_difference_is_of_the_same_patients() -> None:
    rng = np.random.default_rng(4)
    drawn = Toy().draw(4000)
    outcome, chance = drawn.outcome("ill"), drawn.chance["ill"]
    assert difference(outcome, chance, chance, 0) == Interval(value=0, low=0, high=0)
    assert difference(outcome, chance + rng.normal(0, 0.3, 4000), chance, 0).high < 0
    assert difference(outcome, outcome + rng.normal(0, 0.3, 4000), chance, 0).low > 0


def test_the_matrix_has_a_column_for_each_value() -> None:
    kind = Toy()
    drawn = kind.draw(300)
    matrix = design(kind, drawn, {"read": np.arange(300.0)})
    assert matrix.shape == (300, 6)
    words = drawn.inputs["word"]
    np.testing.assert_array_equal(np.isnan(matrix[:, 2]), words == "")
    np.testing.assert_array_equal(matrix[words != "", 2], words[words != ""] == "a")
    np.testing.assert_array_equal(matrix[:, 5], np.arange(300))


@pytest.mark.torch
@pytest.mark.parametrize("model", MODELS)
def test_models_take_what_small_cohorts_hold(model: str) -> None:
    """Columns that nobody has, that never vary, that are known of some: no warning, no failure, finite scores."""
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(5)
    matrix = np.column_stack([rng.normal(0, 1, (40, 2)), np.full(40, np.nan), np.ones(40)])
    matrix[::3, 1] = np.nan
    matrix[5:, 3] = np.nan
    outcome = (matrix[:, 0] > 0).astype(np.int64)
    outcome[:4] = UNKNOWN
    label = Label(name="x", what="")
    score = fit(model, label, matrix, outcome)(rng.normal(0, 1, (30, 4)))
    assert np.isfinite(score).all()
    assert np.ptp(score) > 0
    for nothing in (fit(model, label, matrix, np.ones(40, np.int64)), fit(model, label, matrix[:, 2:3], outcome)):
        assert (nothing(matrix[:7, 2:3]) == 0).all()
    # Lost labels are left out: other values in their rows change nothing.
    other = matrix.copy()
    other[:4] = 99
    np.testing.assert_array_equal(fit(model, label, other, outcome)(matrix), fit(model, label, matrix, outcome)(matrix))


@pytest.fixture(scope="module")
def toy() -> list[Row]:
    pytest.importorskip("sklearn")
    return examine([Toy()], size=SMALL, seed=1)


@pytest.mark.torch
def test_an_honest_cohort_passes(toy: list[Row]) -> None:
    assert [row.label for row in toy] == ["ill", "grade"]
    for row in toy:
        assert row.verdicts == []
        # The hidden cause is out of reach; the seen one is not.
        assert 0.6 < row.reachable < row.ceiling.value - 0.01
        assert row.above_ceiling.high < 0
        for model in MODELS:
            assert row.null[model].holds(0.5)
            assert row.shuffled[model].holds(0.5)
            assert 0.5 < row.own[model].mean < row.ceiling.high
        assert row.shifted_prevalence < row.prevalence
        assert row.ceiling.low < row.ceiling.value < row.ceiling.high
        assert 0.5 < row.by_luck < 0.65
    assert toy[0].calibration is not None
    assert toy[1].calibration is None


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "verdict"), [(Tells, ABOVE), (Boasts, WRONG), (NoNull, LEAK)])
def test_a_dishonest_cohort_fails(kind: type[Cohort], verdict: str) -> None:
    pytest.importorskip("sklearn")
    rows = examine([kind()], size=SMALL, seed=1)
    assert verdict in rows[0].verdicts


@pytest.mark.torch
def test_the_exam_does_not_depend_on_workers() -> None:
    pytest.importorskip("sklearn")
    kinds = [cohort("post_intervention"), cohort("cvt")]
    assert examine(kinds, size=TINY, workers=2) == examine(kinds, size=TINY)


def test_what_is_not_ordered_is_not_graded() -> None:
    class Kinds(Toy):
        labels = (*Toy.labels[:1], replace(Toy.labels[1], ordered=False))

    assert [label.name for label in graded(Kinds())] == ["ill"]
    drawn = Toy().draw(10)
    np.testing.assert_allclose(expected(Toy.labels[1], drawn), drawn.chance["grade"] @ [0, 1, 2])
    with pytest.raises(CohortError, match="no ceiling"):
        expected(Label(name="other", what="", classes=3), drawn)


@pytest.mark.torch
def test_too_few_examined_is_a_fault_of_the_cohort() -> None:
    pytest.importorskip("sklearn")

    class Scarce(Toy):
        examined = 150

    with pytest.raises(CohortError, match="150 patients"):
        examine([Scarce()], size=TINY)


def test_without_scikit_learn_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="export"):
        examine([Toy()], size=TINY)


@pytest.mark.torch
def test_reports_say_all(toy: list[Row]) -> None:
    made = exam_report.report(toy, seed=1, size=SMALL)
    assert exam_report.from_json(exam_report.to_json(made)) == made
    assert made.passed
    failed = exam_report.report([replace(toy[0], verdicts=[LEAK])], seed=1, size=SMALL)
    assert not failed.passed
    for text in (exam_report.to_text(failed), exam_report.to_markdown(failed)):
        assert LEAK in text
        assert f"{toy[0].ceiling.value:.3f} [{toy[0].ceiling.low:.3f}, {toy[0].ceiling.high:.3f}]" in text
    table = [line for line in exam_report.to_markdown(made).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "other"}', "[1]"])
def test_other_files_are_no_report(text: str) -> None:
    with pytest.raises(UsageError):
        exam_report.from_json(text)


@pytest.mark.torch
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(commands, "QUICK", TINY)
    asked = ["exam", "post_intervention", "--quick", "--workers", "1"]
    asked += ["--json", str(tmp_path / "e.json"), "--markdown", str(tmp_path / "e.md")]
    made_code = cli.main(asked)
    out = capsys.readouterr().out
    made = exam_report.from_json((tmp_path / "e.json").read_bytes())
    assert made_code == (0 if made.passed else 4)
    assert [row.label for row in made.rows] == ["post_intervention_hemorrhage", "good_collaterals"]
    assert "good_collaterals" in out
    assert (tmp_path / "e.md").read_text(encoding="utf-8").startswith("| cohort |")
    assert cli.main(["exam", "nonsense"]) == 2


def test_the_command_for_cohorts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cohort"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COHORTS)
    assert cli.main(["cohort", "cvt", str(tmp_path / "c"), "--patients", "20", "--seed", "3", "--variant", "null"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "c" / "table.csv")
    record = json.loads((tmp_path / "c" / "cohort.json").read_text(encoding="utf-8"))
    assert (record["name"], record["variant"], record["seed"], record["patients"]) == ("cvt", "null", 3, 20)
    assert cli.main(["cohort", "cvt"]) == 2
    assert cli.main(["cohort", "cvt", str(tmp_path / "c")]) == 2, "taken"
    (tmp_path / "file").write_text("", encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["cohort", "cvt", str(tmp_path / "file" / "c"), "--patients", "3"]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert cli.main(["cohort", "cvt", str(tmp_path / "many"), "--patients", "10000001"]) == 2
    assert not (tmp_path / "many").exists()
