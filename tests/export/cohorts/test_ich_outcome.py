"""What the ICH outcome cohort plants, held to the generator and to what was drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.export.cohorts.core import UNKNOWN, Patients, Variant
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.ich_admission import AWAY, HOME, THRESHOLD_ML, Admission, draw_admission, observe
from edgehem.export.cohorts.ich_outcome import (
    DIES_WITHOUT_CARE,
    IchOutcome,
    IchOutcomeCt,
    death_logit,
    growth_chance,
    ich_score,
    survivors_mrs,
    withdrawal_chance,
)

COUNT = 20_000


@pytest.fixture(scope="module")
def planted() -> Patients:
    return IchOutcome().draw(COUNT, seed=11)


@pytest.fixture(scope="module")
def shifted() -> Patients:
    return IchOutcome().draw(COUNT, seed=11, variant=Variant.SHIFTED)


@pytest.fixture(scope="module")
def state() -> Admission:
    return draw_admission(np.random.default_rng(5), HOME, 4000)


def but(state: Admission, **changes: Any) -> Admission:
    """The same people, some of their numbers set for all."""
    return replace(
        state, **{name: np.broadcast_to(np.asarray(value), state.age.shape) for name, value in changes.items()}
    )


def test_labels_agree_with_each_other(planted: Patients) -> None:
    dead, mrs = planted.labels["mortality_30d"], planted.complete["mrs_90d"]
    assert (mrs[dead == 1] == 6).all()
    assert ((mrs == 6) & (dead == 0)).any(), "some die between day 30 and day 90"
    np.testing.assert_array_equal(planted.complete["poor_outcome_90d"], mrs >= 4)
    np.testing.assert_array_equal(planted.labels["poor_outcome_90d"] == UNKNOWN, planted.labels["mrs_90d"] == UNKNOWN)
    assert (dead != UNKNOWN).all()
    assert 0.30 < dead.mean() < 0.40
    assert 0.45 < (mrs >= 4).mean() < 0.60


def test_chances_agree_with_each_other(planted: Patients) -> None:
    mrs = planted.chance["mrs_90d"]
    np.testing.assert_allclose(mrs.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(mrs[:, 4:].sum(axis=1), planted.chance["poor_outcome_90d"], atol=1e-12)
    assert (mrs[:, 6] >= planted.chance["mortality_30d"]).all()
    for value in range(7):  # each class as often as its chances say: within 4 standard errors
        expected, variance = mrs[:, value].sum(), (mrs[:, value] * (1 - mrs[:, value])).sum()
        assert abs((planted.complete["mrs_90d"] == value).sum() - expected) < 4 * np.sqrt(variance)


def test_the_chance_is_the_mixture_of_futures(planted: Patients) -> None:
    """Who is left without care dies with one chance; the others as under full care, on average over growth."""
    truth = planted.truth
    leaves, cared_for = truth["withdrawal_chance"], truth["mortality_30d_under_full_care"]
    mixed = leaves * DIES_WITHOUT_CARE + (1 - leaves) * cared_for
    np.testing.assert_allclose(mixed, planted.chance["mortality_30d"], atol=1e-12)
    dead = planted.labels["mortality_30d"]
    left = truth["withdrawn"] == 1
    assert abs(dead[left].mean() - DIES_WITHOUT_CARE) < 0.02
    # Self-fulfilling: they die more often than they would have, and more often than others as ill.
    assert dead[left].mean() > cared_for[left].mean() + 0.15
    assert dead.mean() > cared_for.mean() + 0.01


def test_death_follows_what_was_planted(state: Admission) -> None:
    def rise(name: str, low: Any, high: Any) -> npt.NDArray[np.float64]:
        return death_logit(but(state, **{name: high}), 0) - death_logit(but(state, **{name: low}), 0)

    older = but(state, age=75.0)
    assert (death_logit(but(older, ml=40.0), 0) > death_logit(but(older, ml=10.0), 0)).all(), "volume"
    assert (rise("depth", 0.0, 3.0) > 0).all(), "unconsciousness"
    assert (rise("premorbid", 0, 4) > 0).all()
    assert (death_logit(state, 1) > death_logit(state, 0)).all(), "growth"
    for name in ("female", "hypertension", "diabetes", "antiplatelet", "witnessed", "ward", "anticoagulant", "inr"):
        assert (rise(name, 0, 1) == 0).all(), f"{name} has no effect of its own"
    # Interactions.
    big, small = but(state, ml=80.0), but(state, ml=5.0)
    by_age = [death_logit(but(s, age=85.0), 0) - death_logit(but(s, age=55.0), 0) for s in (big, small)]
    assert (by_age[0] > by_age[1]).all(), "age times volume"
    by_blood = [
        death_logit(but(state, depth=d, ivh=1), 0) - death_logit(but(state, depth=d, ivh=0), 0) for d in (3.0, 0.0)
    ]
    assert (by_blood[0] > by_blood[1] + 1).all(), "ventricular blood times unconsciousness"
    # A step in volume, at another place for each location: the rise over a doubling is largest across it.
    for location, threshold in enumerate(THRESHOLD_ML):
        at = [
            death_logit(but(state, location=location, age=70.0, ml=threshold * f), 0).mean()
            for f in (0.25, 0.5, 0.7, 1.4, 2.8)
        ]
        assert at[3] - at[2] > 2 * max(at[1] - at[0], at[4] - at[3])
    # U-shapes.
    for name, low, middle, high in (("sbp", 85.0, 155.0, 225.0), ("glucose", 3.5, 7.0, 14.0)):
        assert (rise(name, middle, low) > 0.5).all()
        assert (rise(name, middle, high) > 0.5).all()


def test_anticoagulation_acts_through_volume_and_growth(state: Admission) -> None:
    assert (growth_chance(but(state, anticoagulant=2)) > growth_chance(but(state, anticoagulant=0))).all()
    assert (growth_chance(but(state, hours=1.0)) > growth_chance(but(state, hours=12.0))).all()
    assert np.median(state.ml[state.anticoagulant == 1]) > 1.2 * np.median(state.ml[state.anticoagulant == 0])


def test_survivors_are_worse_off_when_more_was_lost(state: Admission) -> None:
    def mean(some: Admission, grown: int = 0, withdrawn: int = 0) -> npt.NDArray[np.float64]:
        return survivors_mrs(some, grown, withdrawn) @ np.arange(7.0)

    assert (mean(state, 1) > mean(state)).all()
    assert (mean(state, 0, 1) > mean(state)).all()
    assert (mean(but(state, premorbid=4)) > mean(but(state, premorbid=0))).all()
    assert (mean(but(state, deficit=25.0)) > mean(but(state, deficit=2.0))).all()


def test_withdrawal_follows_belief_and_habit(state: Admission) -> None:
    points = np.full(len(state.age), 2)
    assert (withdrawal_chance(state, HOME, points + 2) > withdrawal_chance(state, HOME, points)).all()
    assert (withdrawal_chance(state, AWAY, points) > withdrawal_chance(state, HOME, points)).all()
    deeper = but(state, depth=5.0, ml=100.0)
    assert (withdrawal_chance(deeper, HOME, points) == withdrawal_chance(state, HOME, points)).all(), "belief only"


def test_nothing_is_known_that_is_known_only_later() -> None:
    names = {column.name for column in IchOutcome.columns}
    for later in ("stay", "discharge", "surgery", "withdraw", "dnr", "grown", "expansion", "treat", "ward"):
        assert not [name for name in names if later in name]


def test_columns_without_effect_have_none(planted: Patients) -> None:
    for name in ("weekend", "sodium", "triage_number"):
        values = planted.inputs[name]
        known = ~np.isnan(values)
        r = np.corrcoef(values[known], planted.chance["mortality_30d"][known])[0, 1]
        assert abs(r) < 4 / np.sqrt(known.sum())


def test_what_is_missing_is_not_missing_at_random(planted: Patients) -> None:
    chance = planted.chance["mortality_30d"]
    depth = planted.truth["unconsciousness"]

    def gone(name: str) -> npt.NDArray[np.bool_]:
        return np.isnan(planted.inputs[name])

    assert gone("gcs_verbal")[planted.inputs["intubated"] == 1].all()
    assert chance[gone("gcs_verbal")].mean() > chance[~gone("gcs_verbal")].mean() + 0.3
    middle = (depth > 0.5) & (depth < 2)
    for name in ("glucose", "creatinine", "inr", "platelets"):
        assert gone(name)[depth > 4].mean() > gone(name)[middle].mean() + 0.15
        assert gone(name)[depth < -1].mean() > gone(name)[middle].mean() + 0.08
    by_ward = [gone("nihss")[planted.truth["ward"] == ward].mean() for ward in range(4)]
    assert by_ward == sorted(by_ward)
    assert by_ward[3] > by_ward[0] + 0.4
    assert planted.inputs["hours_since_onset"].dtype == np.float64
    assert 0.2 < gone("hours_since_onset").mean() < 0.3


def test_the_well_are_lost_and_the_dead_never(planted: Patients) -> None:
    lost, mrs = planted.labels["mrs_90d"] == UNKNOWN, planted.complete["mrs_90d"]
    assert not lost[mrs == 6].any()
    assert lost[mrs <= 2].mean() > lost[(mrs == 4) | (mrs == 5)].mean() + 0.04
    known = planted.labels["poor_outcome_90d"][~lost]
    assert known.mean() > planted.complete["poor_outcome_90d"].mean() + 0.015, "so what is known looks worse than it is"


def test_the_ich_score_is_the_published_one() -> None:
    def points(gcs: float, ml: float, ivh: int, location: int, age: float) -> int:
        return int(ich_score(*(np.array([value]) for value in (gcs, ml, ivh, location, age)))[0])

    assert points(15, 29.9, 0, 1, 79) == 0
    assert points(13, 30, 0, 0, 50) == 1
    assert points(12, 5, 1, 0, 50) == points(5, 5, 1, 0, 50) == 2
    assert points(4, 5, 0, 2, 80) == 4
    assert points(3, 40, 1, 3, 85) == 6


def test_the_ich_score_informs_but_is_not_best(planted: Patients) -> None:
    gcs = np.where(np.isnan(planted.inputs["gcs"]), 4, planted.inputs["gcs"])
    points = ich_score(
        gcs, planted.inputs["hematoma_ml"], planted.inputs["ivh"], planted.truth["location"], planted.inputs["age"]
    )
    dead = planted.labels["mortality_30d"]
    reached, ceiling = concordance(dead, points.astype(float)), concordance(dead, planted.chance["mortality_30d"])
    assert reached == pytest.approx(0.84, abs=0.015)
    assert reached < ceiling - 0.03
    rates = [dead[points == value].mean() for value in range(6)]
    assert rates == sorted(rates)


def test_the_reader_errs(planted: Patients) -> None:
    read, true = planted.inputs["hematoma_ml"], planted.truth["volume_ml"]
    known = ~np.isnan(read) & (true > 5)
    assert 0.1 < np.std(np.log(read[known] / true[known])) < 0.14
    missed = (planted.truth["ventricular_ml"] > 0) & (planted.inputs["ivh"] == 0)
    assert 0 < missed.mean() < 0.05


def test_the_other_place_differs_as_said(planted: Patients, shifted: Patients) -> None:
    def mean(patients: Patients, name: str) -> float:
        return float(np.nanmean(patients.inputs[name]))

    assert mean(shifted, "age") > mean(planted, "age") + 4
    assert np.isnan(shifted.inputs["nihss"]).mean() > 0.8 > np.isnan(planted.inputs["nihss"]).mean()
    assert mean(shifted, "intubated") > mean(planted, "intubated") + 0.05
    assert shifted.truth["withdrawn"].mean() > 2 * planted.truth["withdrawn"].mean()
    assert shifted.labels["mortality_30d"].mean() > planted.labels["mortality_30d"].mean() + 0.08
    one = draw_admission(np.random.default_rng(1), HOME, 4000)
    here, there = (observe(np.random.default_rng(2), one, place) for place in (HOME, AWAY))
    both = ~np.isnan(here["creatinine"]) & ~np.isnan(there["creatinine"])
    ratio = np.median(there["creatinine"][both] / one.creatinine[both])
    assert abs(ratio - AWAY.creatinine_gain) < 0.01, "the laboratory reads higher; the unit is one"


def test_without_a_reading_the_image_has_to_be_read() -> None:
    kind = IchOutcomeCt()
    drawn = kind.draw(512)
    assert not {"hematoma_ml", "ivh", "location", "midline_shift_mm"} & set(drawn.inputs)
    read = kind.features(drawn, 0)
    assert "location_deep" in read
    known = ~np.isnan(read["hematoma_ml"])
    assert np.corrcoef(np.log(read["hematoma_ml"][known]), np.log(drawn.truth["volume_ml"][known]))[0, 1] > 0.95
    assert not np.array_equal(read["hematoma_ml"][known], np.round(drawn.truth["volume_ml"][known], 1))


@pytest.mark.slow
def test_the_images_show_the_row(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    nibabel = pytest.importorskip("nibabel")
    kind = IchOutcome()
    drawn = kind.draw(40, seed=2)
    bled = drawn.truth["ventricular_ml"] > 4
    dry = (drawn.truth["ventricular_ml"] == 0) & (drawn.truth["volume_ml"] < 15)
    for row in (int(np.flatnonzero(bled & (drawn.truth["location"] == 0))[0]), int(np.flatnonzero(dry)[0])):
        out = tmp_path / str(row)
        out.mkdir()
        assert kind.write_files(drawn, row, out, int(drawn.seeds[row])) == {"ct": "ct", "mask": "mask.nii.gz"}
        assert {path.name for path in out.iterdir()} == {"ct", "mask.nii.gz"}, "no truth lies beside the images"
        mask = nibabel.load(out / "mask.nii.gz")
        data = np.asarray(mask.dataobj)
        ml = (data == 2).sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        assert ml == pytest.approx(drawn.truth["volume_ml"][row], rel=0.35, abs=1.0)
        ventricular = (data == 3).sum() * abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        assert ventricular == pytest.approx(drawn.truth["ventricular_ml"][row], rel=0.35, abs=1.5)
        header = pydicom.dcmread(next((out / "ct").iterdir()))
        assert header.PatientAge == f"{int(drawn.inputs['age'][row]):03d}Y"
