"""Figures of merit and decision rules, against what can be computed by hand or simulated."""

from __future__ import annotations

import numpy as np
import pytest

from edgehem.decide import probabilities
from edgehem.errors import UsageError
from edgehem.export.calibrate import CONFORMAL_ERROR, FALSE_POSITIVES, fit_rules, platt
from edgehem.export.evaluate import auc, auc_interval, wilson
from edgehem.phantom.cases import LABELS


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


def test_wilson_interval_of_a_textbook_case() -> None:
    """Newcombe (1998), method 3: 81 of 263 gives 0.2553 to 0.3662."""
    low, high = wilson(81, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=2e-4), pytest.approx(0.3662, abs=2e-4))
    assert wilson(0, 0) == (0.0, 1.0)


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
    with pytest.raises(UsageError, match="at least 40"):
        fit_rules(*simulated(50, 5))
