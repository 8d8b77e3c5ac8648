"""From logits to decisions: calibration, hierarchy, operating points, prediction sets, and when to say "uncertain"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehem.bundle import Head, LabelRule
from edgehem.decide import ABSENT, PRESENT, decide, prediction_set, probabilities
from edgehem.errors import BundleError, Code


def head(*rules: LabelRule, **changes: Any) -> Head:
    default = (LabelRule(label="any"), LabelRule(label="subdural"), LabelRule(label="epidural"))
    return Head(
        **{"name": "ich", "kind": "hierarchical-binary", "output": "logits", "rules": rules or default, **changes}
    )


def logits(*probability: float) -> npt.NDArray[np.float32]:
    """Logits of probabilities."""
    return np.array([math.log(p / (1 - p)) for p in probability], np.float32)


LOGIT = st.floats(-1e6, 1e6, width=32)


def test_a_subtype_is_conditional_on_the_first_label() -> None:
    """P(subdural) = P(any) · P(subdural | any)."""
    np.testing.assert_allclose(probabilities(logits(0.8, 0.5, 0.25), head()), [0.8, 0.4, 0.2], rtol=1e-6)


@given(values=st.tuples(LOGIT, LOGIT, LOGIT))
def test_no_subtype_is_likelier_than_hemorrhage(values: tuple[float, float, float]) -> None:
    """And every probability is one, also for logits beyond what an exponential can hold."""
    p = probabilities(np.array(values, np.float32), head())
    assert ((p >= 0) & (p <= 1)).all()
    assert (p[1:] <= p[0]).all()


@given(low=LOGIT, high=LOGIT, scale=st.floats(0.01, 10), offset=st.floats(-5, 5))
def test_calibration_keeps_the_order(low: float, high: float, scale: float, offset: float) -> None:
    rule = LabelRule(label="any", scale=scale, offset=offset)
    low, high = sorted((low, high))
    p = probabilities(np.array([[low], [high]], np.float32), head(rule))
    assert p[0, 0] <= p[1, 0]


def test_calibration_is_platts() -> None:
    rule = LabelRule(label="any", scale=2.0, offset=-1.0)
    assert probabilities(np.array([0.75], np.float32), head(rule))[0] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_a_batch_is_decided_like_its_members() -> None:
    batch = np.stack([logits(0.8, 0.5, 0.25), logits(0.1, 0.9, 0.6)])
    for row, expected in zip(probabilities(batch, head()), batch, strict=True):
        np.testing.assert_array_equal(row, probabilities(expected, head()))


def test_the_operating_point_itself_is_positive() -> None:
    (finding,), _ = decide(np.zeros(1, np.float32), head(LabelRule(label="any", threshold=0.5)))
    assert finding.probability == 0.5 and finding.positive


def test_no_subtype_is_positive_without_hemorrhage() -> None:
    """A low operating point of a subtype does not contradict the first label."""
    rules = (LabelRule(label="any", threshold=0.6), LabelRule(label="subdural", threshold=0.1))
    findings, _ = decide(logits(0.5, 0.9), head(*rules))
    assert [f.positive for f in findings] == [False, False]
    findings, _ = decide(logits(0.7, 0.9), head(*rules))
    assert [f.positive for f in findings] == [True, True]
    assert [f.label for f in findings] == ["any", "subdural"]


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.1, (ABSENT,)), (0.3, (PRESENT, ABSENT)), (0.5, (PRESENT, ABSENT)), (0.6, (PRESENT, ABSENT)), (0.9, (PRESENT,))],
)
def test_overlapping_bounds_leave_both_answers(probability: float, expected: tuple[str, ...]) -> None:
    assert prediction_set(probability, LabelRule(label="any", present_from=0.3, absent_until=0.6)) == expected


def test_bounds_with_a_gap_leave_no_answer() -> None:
    assert prediction_set(0.5, LabelRule(label="any", present_from=0.7, absent_until=0.4)) == ()


SURE = {"threshold": 0.5, "present_from": 0.7, "absent_until": 0.3}


@pytest.mark.parametrize(
    ("probability", "bounds", "uncertain"),
    [
        (0.9, SURE, False),
        (0.1, SURE, False),
        (0.5, SURE, True),  # neither answer fits
        (0.5, {"threshold": 0.5, "present_from": 0.3, "absent_until": 0.7}, True),  # both answers fit
        (0.6, {"threshold": 0.8, "present_from": 0.5, "absent_until": 0.4}, True),  # "present", below the threshold
        (0.3, {"threshold": 0.2, "present_from": 0.5, "absent_until": 0.4}, True),  # "absent", above the threshold
    ],
)
def test_a_person_must_decide_where_the_model_cannot(
    probability: float, bounds: dict[str, float], uncertain: bool
) -> None:
    findings, notes = decide(logits(probability), head(LabelRule(label="any", **bounds)))
    assert [note.code for note in notes] == ([Code.UNCERTAIN] if uncertain else [])
    assert findings[0].probability == pytest.approx(probability, abs=1e-6)


def test_doubt_about_a_subtype_alone_is_no_reason_for_review() -> None:
    rules = (LabelRule(label="any", **SURE), LabelRule(label="subdural", **SURE))
    findings, notes = decide(logits(0.95, 0.5), head(*rules))
    assert findings[1].prediction_set == ()
    assert notes == ()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_answer(value: float) -> None:
    with pytest.raises(BundleError, match="not a number"):
        decide(np.array([0.0, value, 0.0], np.float32), head())


def test_another_number_of_labels_is_refused() -> None:
    with pytest.raises(BundleError, match="3 labels"):
        decide(np.zeros(2, np.float32), head())


def test_an_unknown_kind_of_head_is_refused() -> None:
    with pytest.raises(BundleError, match="regression"):
        decide(np.zeros(3, np.float32), head(kind="regression"))
