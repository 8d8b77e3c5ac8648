"""The exam: for every cohort and label what could be reached, what simple models reach, and what must not be reached.

Columns of a row, all concordances (the area under the ROC curve; of ordered labels (1 + Somers' D) / 2):

- *ceiling*: the score is the chance that the outcome was tossed with, or the expected class;
- *reachable*: the better reference model, trained on a large draw: what can be told from what is observed;
- *own size*: reference models at the cohort's own numbers of patients, repeated;
- *null* and *shuffled*: labels of others, and training labels permuted: 0.5, or something leaks;
- *shifted*: the same models at the other place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import UNKNOWN, Cohort, CohortError, Float, Label, Patients, Variant
from edgehem.export.cohorts.discrimination import (
    NOT_SO_LIKELY,
    SURE,
    Calibration,
    Interval,
    by_resampling,
    calibration,
    concordance,
    difference,
    of_mean,
    under_chance,
)
from edgehem.export.cohorts.reference import MODELS, ask_for_sklearn, design, fit
from edgehem.workers import ordered

SCHEMA = "edgehem.exam/2"
LEAK, ABOVE, WRONG = "LEAK", "ABOVE CEILING", "CHANCES WRONG"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work an exam is.

    Parameters
    ----------
    large : int
        Most patients of a large draw.
    repeats, shuffles : int
    other : int
        Most patients of the null training, and of the draw at the other place.
    nearer : int
        Patients that a nearer bound is computed for.
    """

    large: int = 25_000
    repeats: int = 10
    shuffles: int = 20
    other: int = 10_000
    nearer: int = 2_048


QUICK = Size(large=4_000, repeats=4, shuffles=8, other=4_000, nearer=512)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation over repetitions."""

    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One label of one cohort.

    Parameters
    ----------
    prevalence : float
        Of class 1, or the mean class of an ordered label; nobody being lost.
    ceiling : Interval
        Of the chances, over the large draw; the interval is the middle 95 % of test cohorts of the own size.
    by_luck : float
        What a score that says nothing reaches on one of 40 test cohorts of the own size.
    reachable, reachable_by
        The better reference model on a large draw.
    above_ceiling : Interval
        Its concordance less the ceiling's on the same patients; it cannot truly be above 0.
    own, shifted_own : mapping of model to Spread
        Trained at the own size; tested at the own size here, and at the other place.
    null, shuffled : mapping of model to Interval
        99.99 %.
    shifted_prevalence, shifted_foreseen : float
        At the other place, and what the better reference model expects there.
    calibration : Calibration or None
        Of the chances; None for ordered labels.
    verdicts : list of str
        What is wrong; empty when nothing is.
    """

    cohort: str
    version: str
    label: str
    classes: int
    train: int
    test: int
    prevalence: float
    ceiling: Interval
    by_luck: float
    reachable: float
    reachable_by: str
    above_ceiling: Interval
    own: dict[str, Spread]
    null: dict[str, Interval]
    shuffled: dict[str, Interval]
    shifted_prevalence: float
    shifted_foreseen: float
    shifted_ceiling: float
    shifted_reachable: float
    shifted_own: dict[str, Spread]
    calibration: Calibration | None
    verdicts: list[str]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Patients and what reference models see of them, float64 [N, columns]."""

    patients: Patients
    matrix: Float


def examine(
    cohorts: Sequence[Cohort],
    *,
    size: Size | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Examine cohorts.

    Parameters
    ----------
    cohorts : sequence of Cohort
    size : Size, optional
    seed : int
    workers : int
        Processes, each with a cohort at a time; the result does not depend on them.
    progress : callable, optional
        Called with (done, count) of cohorts.

    Returns
    -------
    list of Row
        One for each label of two classes, and for each ordered one whose chances are known.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    """
    ask_for_sklearn()
    jobs = [(cohort, size or Size(), seed) for cohort in cohorts]
    rows: list[Row] = []
    for done, some in enumerate(ordered(_examine, jobs, workers) if workers > 1 else map(_examine, jobs), start=1):
        rows += some
        if progress:
            progress(done, len(jobs))
    return rows


def graded(cohort: Cohort) -> list[Label]:
    """Labels that an exam has a row for: of classes without an order no single concordance speaks."""
    return [label for label in cohort.labels if label.classes == 2 or label.ordered]


def _examine(job: tuple[Cohort, Size, int]) -> list[Row]:
    cohort, size, seed = job
    large = min(size.large, cohort.examined)
    if large < max(cohort.train, cohort.test):
        raise CohortError(f"cohort {cohort.name} is examined on {large} patients, fewer than it trains or tests on")
    streams = [10 * seed + purpose for purpose in range(3)]
    train = draw(cohort, large, streams[0], Variant.PLANTED)
    test = draw(cohort, large, streams[1], Variant.PLANTED)
    shifted = draw(cohort, min(large, size.other), streams[2], Variant.SHIFTED)
    # The null cohort of a seed has the inputs of the planted one: only labels have to be drawn.
    null = [cohort.draw(large, seed=stream, variant=Variant.NULL) for stream in streams[:2]]
    return [_grade(cohort, label, train, test, shifted, null, size, seed) for label in graded(cohort)]


def _grade(
    cohort: Cohort,
    label: Label,
    train: Drawn,
    test: Drawn,
    shifted: Drawn,
    null: list[Patients],
    size: Size,
    seed: int,
) -> Row:
    outcome, target = test.patients.outcome(label.name), train.patients.labels[label.name]
    best = expected(label, test.patients)
    everyone = np.concatenate([outcome, train.patients.outcome(label.name)])
    foreseen = np.concatenate([best, expected(label, train.patients)])
    ceiling = by_resampling(everyone, foreseen, cohort.test, seed)

    models = {name: fit(name, label, train.matrix, target) for name in MODELS}
    scores = {name: model(test.matrix) for name, model in models.items()}
    reached = {name: concordance(outcome, score) for name, score in scores.items()}
    champion = max(reached, key=reached.__getitem__)
    above = difference(outcome, scores[champion], best, seed)
    elsewhere = shifted.patients.outcome(label.name)
    moved = models[champion](shifted.matrix)

    rng = np.random.default_rng([seed, 73])
    own: dict[str, list[float]] = {name: [] for name in MODELS}
    away: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(size.repeats):
        rows, judged, there = (
            rng.choice(len(held.matrix), count, replace=False)
            for held, count in ((train, cohort.train), (test, cohort.test), (shifted, min(cohort.test, len(elsewhere))))
        )
        for name in MODELS:
            model = fit(name, label, train.matrix[rows], target[rows])
            own[name].append(concordance(outcome[judged], model(test.matrix[judged])))
            away[name].append(concordance(elsewhere[there], model(shifted.matrix[there])))

    nulled: dict[str, Interval] = {}
    shuffled: dict[str, Interval] = {}
    few = slice(0, size.other)
    strangers = null[1].outcome(label.name)
    for name in MODELS:
        value = concordance(
            strangers, fit(name, label, train.matrix[few], null[0].labels[label.name][few])(test.matrix)
        )
        margin = SURE * under_chance(strangers)
        nulled[name] = Interval(value=value, low=value - margin, high=value + margin)
        shuffled[name] = of_mean(_shuffles(name, label, cohort.train, train, test, size, seed))

    truth = calibration(everyone, foreseen) if label.classes == 2 else None
    verdicts = []
    if not all(control.holds(0.5) for control in (*nulled.values(), *shuffled.values())):
        verdicts.append(LEAK)
    if above.low > 0:
        verdicts.append(ABOVE)
    if truth is not None and truth.p < NOT_SO_LIKELY:
        verdicts.append(WRONG)
    return Row(
        cohort=cohort.name,
        version=cohort.version,
        label=label.name,
        classes=label.classes,
        train=cohort.train,
        test=cohort.test,
        prevalence=float(everyone.mean()),
        ceiling=ceiling,
        by_luck=0.5 + 1.96 * _luck(everyone, cohort.test),
        reachable=reached[champion],
        reachable_by=champion,
        above_ceiling=above,
        own={name: spread(values) for name, values in own.items()},
        null=nulled,
        shuffled=shuffled,
        shifted_prevalence=float(elsewhere.mean()),
        shifted_ceiling=concordance(elsewhere, expected(label, shifted.patients)),
        shifted_foreseen=float(moved.mean()),
        shifted_reachable=concordance(elsewhere, moved),
        shifted_own={name: spread(values) for name, values in away.items()},
        calibration=truth,
        verdicts=verdicts,
    )


def _shuffles(name: str, label: Label, count: int, train: Drawn, test: Drawn, size: Size, seed: int) -> list[float]:
    """Concordances on true labels of models that were trained on permuted ones.

    One such model may be right or wrong by luck, on any number of patients: its direction is random. So there are many,
    each with patients and a permutation of its own.
    """
    rng = np.random.default_rng([seed, 74])
    target = train.patients.labels[label.name]
    some = slice(0, size.other)
    values = []
    for _ in range(size.shuffles):
        rows = rng.choice(len(target), count, replace=False)
        rows = rows[target[rows] != UNKNOWN]
        score = fit(name, label, train.matrix[rows], rng.permutation(target[rows]))(test.matrix[some])
        values.append(concordance(test.patients.outcome(label.name)[some], score))
    return values


def expected(label: Label, patients: Patients) -> Float:
    """The best score: the chance of class 1, or the expected class, float64 [N].

    Raises
    ------
    CohortError
        If an ordered label has no chances.
    """
    if label.name not in patients.chance:
        raise CohortError(f"{label.name} is ordered, and its chances are not known: no ceiling can be given")
    chance = patients.chance[label.name]
    return chance if label.classes == 2 else chance @ np.arange(label.classes, dtype=np.float64)


def _luck(outcome: npt.NDArray[np.int64], size: int) -> float:
    """Standard error of a score that says nothing in a cohort of a size, with the classes' usual shares."""
    shares = np.bincount(outcome) / len(outcome)
    counts = np.maximum(np.round(shares * size), 1).astype(np.int64)
    return under_chance(np.repeat(np.arange(len(counts)), counts))


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation; repetitions without both classes are left out."""
    known = np.array(values)[~np.isnan(values)]
    return Spread(mean=float(known.mean()), sd=float(known.std(ddof=1)))


def draw(cohort: Cohort, count: int, seed: int, variant: Variant) -> Drawn:
    """Draw patients with their readings."""
    patients = cohort.draw(count, seed=seed, variant=variant)
    return Drawn(patients=patients, matrix=design(cohort, patients, cohort.features(patients, seed)))
