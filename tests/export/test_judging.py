"""Figures of merit and decision rules, against what can be computed by hand or simulated."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgehem.decide import probabilities
from edgehem.errors import UsageError
from edgehem.export.calibrate import CONFORMAL_ERROR, FALSE_POSITIVES, fit_rules, platt
from edgehem.export.evaluate import Judged, auc, auc_interval, render, summarise
from edgehem.phantom.cases import LABELS
from edgehem.result import BundleInfo, Finding, Result, Verdict


def test_auc_by_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 4  # with ties
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    assert auc(labels, scores) == pytest.approx(np.mean(pairs))
    assert auc(labels, -scores) == pytest.approx(1 - np.mean(pairs))
    assert np.isnan(auc(np.zeros(3), np.zeros(3)))


def test_auc_interval_covers_and_is_seeded() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 100)
    scores = rng.normal(labels * 1.5, 1)
    low, high = auc_interval(labels, scores)
    assert low < auc(labels, scores) < high
    assert (low, high) == auc_interval(labels, scores)


def test_platt_recovers_a_known_distortion() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 2, 20000)
    labels = (rng.random(20000) < 1 / (1 + np.exp(-truth))).astype(int)
    scale, offset = platt((truth - 0.7) * 2.5, labels)
    assert scale == pytest.approx(0.4, abs=0.02)
    assert offset == pytest.approx(0.7, abs=0.06)


def test_platt_stays_finite_on_separated_data() -> None:
    scale, offset = platt(np.r_[np.full(50, -8.0), np.full(50, 8.0)], np.repeat([0, 1], 50))
    assert 0 < scale < 5 and abs(offset) < 1


def judged(any_: int, **p: float | None) -> Judged:
    """A study with a label and, by precision, a probability; None has no result."""
    bundle = BundleInfo(name="b", version="0", sha256="0", precision="fp32", backend="b", demonstration=True)
    results = {}
    for precision, value in p.items():
        findings = () if value is None else tuple(
            Finding(label=name, probability=value, positive=value >= 0.5, prediction_set=()) for name in LABELS
        )  # fmt: skip
        verdict = Verdict.NO_RESULT if value is None else Verdict.ACCEPT
        results[precision] = Result(system="s", verdict=verdict, findings=findings, bundle=bundle)
    return Judged(labels={"any": any_}, ml={}, results=results)


def test_a_cohort_is_summarised_by_counting() -> None:
    """One flip, one study without a result; labels that nobody knows have no area."""
    cohort = [judged(1, fp32=0.9, int8=0.8), judged(1, fp32=0.6, int8=0.4), judged(1, fp32=None, int8=None)]
    cohort += [judged(0, fp32=0.1, int8=0.1), judged(0, fp32=0.2, int8=0.3)]
    summary = summarise(cohort)
    assert (summary["studies"], summary["bleeding"]) == (5, 3)
    float_, int8 = summary["precisions"]["fp32"], summary["precisions"]["int8"]
    assert float_["auc"]["any"][0] == pytest.approx(4 / 6, abs=1e-4)
    assert float_["auc"]["subdural"] is None
    assert float_["sensitivity"][::3] == [0.6667, 3] and int8["sensitivity"][::3] == [0.3333, 3]
    assert float_["specificity"][::3] == [1.0, 2] and float_["no_result"] == 1
    assert int8["against_fp32"] == {"flips": 1, "flip_rate": 0.2, "worst_shift": 0.2, "auc_difference": 0.0}
    text = render(summary)
    assert "1 decisions flipped (20.0%)" in text and "one class is missing" in text


def test_figures_without_a_class_are_still_json() -> None:
    summary = summarise([judged(1, fp32=0.9, int8=0.8), judged(1, fp32=0.6, int8=0.4)])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert "one class is missing" in render(summary)


def simulated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a plausible network: [N, 6] each."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, len(LABELS)), int)
    labels[:, 0] = rng.integers(0, 2, count)
    subtype = rng.integers(1, len(LABELS), count)
    labels[np.arange(count), subtype] = labels[:, 0]
    return rng.normal((2 * labels - 1) * 1.8, 1.0), labels


def test_fitted_rules_keep_their_promises_on_new_data() -> None:
    """Operating point and conformal bounds hold on fresh draws from the same source, within sampling error."""
    head = fit_rules(*simulated(20000, 3))
    logits, labels = simulated(30000, 4)
    p = probabilities(logits.astype(np.float32), head)
    first = head.rules[0]
    free = p[labels[:, 0] == 0, 0]
    assert first.threshold >= 0.5
    assert (free >= first.threshold).mean() < FALSE_POSITIVES + 0.01
    for column, rule in enumerate(head.rules):
        with_it, without = p[labels[:, column] == 1, column], p[labels[:, column] == 0, column]
        assert (with_it < rule.present_from).mean() == pytest.approx(CONFORMAL_ERROR, abs=0.02), rule.label
        assert (without > rule.absent_until).mean() == pytest.approx(CONFORMAL_ERROR, abs=0.02), rule.label


def test_too_few_studies_give_no_rules() -> None:
    with pytest.raises(UsageError, match="at least 50"):
        fit_rules(*simulated(50, 5))
