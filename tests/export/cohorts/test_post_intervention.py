"""What the post-intervention cohort plants: its sums held to other ways to them, its directions, its null."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from edgehem.export.cohorts import post_intervention_tissue as tissue_module
from edgehem.export.cohorts.core import BLOCK, Variant
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.post_intervention import PostIntervention, PostInterventionLarge
from edgehem.export.cohorts.post_intervention_people import PLACES
from edgehem.export.cohorts.post_intervention_risk import hemorrhage_chance, lysis_chance
from edgehem.export.cohorts.post_intervention_tissue import (
    COLLATERALS,
    OCCLUSIONS,
    REGIONS,
    Tissue,
    draw_tissue,
    expect,
    lost_regions,
    posterior,
)

COUNT = 32 * BLOCK
LABELS = ("post_intervention_hemorrhage", "good_collaterals")


@pytest.fixture(scope="module")
def planted():
    return PostIntervention().draw(COUNT, seed=5)


@pytest.fixture(scope="module")
def shifted():
    return PostIntervention().draw(COUNT, seed=5, variant=Variant.SHIFTED)


def _tissue(**changes) -> Tissue:
    """One patient: an M1 occlusion two hours ago, nothing extreme."""
    values = {
        "minutes": 120.0, "expected": 0.1, "rate_per_min": 0.001, "territory_ml": 190.0, "core_ml": 40.0,
        "drop_hu": 3.0, "swelling": 0.3, "dense_artery_mm": 12.0, "nihss": 16.0,
    } | changes  # fmt: skip
    return Tissue(occlusion=np.array([1]), **{name: np.array([value]) for name, value in values.items()})


def test_sizes():
    assert PostIntervention.train + PostIntervention.test == 58
    assert PostInterventionLarge.train + PostInterventionLarge.test > 40 * 58
    small, large = PostIntervention().draw(50), PostInterventionLarge().draw(50)
    assert not np.array_equal(small.inputs["glucose"], large.inputs["glucose"])
    assert small.inputs.keys() == large.inputs.keys()


@pytest.mark.parametrize("place", ["planted", "shifted"])
@pytest.mark.parametrize("label", LABELS)
def test_the_chance_is_true(place, label, request):
    patients = request.getfixturevalue(place)
    chance, outcome = patients.chance[label], patients.labels[label]
    for part in np.array_split(np.argsort(chance), 12):
        error = np.sqrt((chance[part] * (1 - chance[part])).sum()) / len(part)
        assert abs(outcome[part].mean() - chance[part].mean()) < 4 * error


def test_the_posterior_of_collaterals_by_weighted_drawing():
    """Bayes' rule once more: collaterals drawn from the prior, each weighted by the likelihood, written with scipy."""
    m = tissue_module
    patient = _tissue()
    drawn = np.random.default_rng(0).normal(patient.expected[0], 1, 400_000)
    log = stats.norm.logpdf(np.log(0.001 / m.GROWTH_PER_MIN), m.GROWTH[0] * drawn, m.GROWTH[1])
    loss = np.log(1.2 + 5.5 * (1 - np.exp(-120 / 240)))
    log += stats.norm.logpdf(np.log(3.0), loss + m.DROP[0] * drawn, m.DROP[1])
    log += stats.norm.logpdf(np.log(0.3 / 0.7), -1.8 + 3.5 * 40 / 190 + m.SWELLING[0] * drawn, m.SWELLING[1])
    log += stats.bernoulli.logpmf(1, 1 / (1 + np.exp(-(0.2 + m.DENSE * drawn))))
    log += stats.norm.logpdf(np.log(12.0), np.log(11) + m.CLOT[0] * drawn, m.CLOT[1])
    mean = 15.0 + 1.5 + m.SEVERITY[0] * drawn
    whole = sum(stats.norm.pdf(score, mean, m.SEVERITY[1]) for score in range(43))
    log += stats.norm.logpdf(16, mean, m.SEVERITY[1]) - np.log(whole)
    weight = np.exp(log - log.max())
    belief = posterior(patient, np.array([1.0]))[0]
    assert belief.sum() == pytest.approx(1)
    assert belief @ COLLATERALS == pytest.approx((weight @ drawn) / weight.sum(), abs=0.01)
    assert belief[COLLATERALS > 0].sum() == pytest.approx(weight[drawn > 0].sum() / weight.sum(), abs=0.01)


def test_the_chance_of_hemorrhage_by_drawing_what_comes_after():
    patient = _tissue(core_ml=90.0)
    belief = posterior(patient, np.array([0.0]))
    rng = np.random.default_rng(1)
    count = 400_000
    collaterals = COLLATERALS[np.searchsorted(np.cumsum(belief[0])[:-1], rng.random(count))]
    delay = 95 * np.exp(0.4 * rng.standard_normal(count))
    reperfused = rng.random(count) < 1 / (1 + np.exp(-(1.5 + 0.3 * collaterals)))
    logit = -0.5 - 0.45 * collaterals + reperfused * (0.25 * ((120 + delay) / 60 - 4) + 0.8)
    found = hemorrhage_chance(np.array([-0.5]), patient, belief, 95.0)
    assert found[0] == pytest.approx((1 / (1 + np.exp(-logit))).mean(), abs=0.002)


@pytest.mark.parametrize(
    ("evidence", "worse"),
    [
        ("rate_per_min", {"rate_per_min": 0.003}),
        ("drop_hu", {"drop_hu": 5.0}),
        ("swelling", {"swelling": 0.6}),
        ("dense_artery_mm", {"dense_artery_mm": 20.0}),
        ("nihss", {"nihss": 25.0}),
        ("expected", {"expected": -0.8}),
    ],
)
def test_each_sign_speaks_against_good_collaterals(evidence, worse):
    left = np.array([1.0])
    good = posterior(_tissue(), left)[0, COLLATERALS > 0].sum()
    bad = posterior(_tissue(**worse), left)[0, COLLATERALS > 0].sum()
    assert bad < good - 0.02, evidence


def test_the_risk_of_hemorrhage_at_fixed_other_values():
    belief = np.full((1, len(COLLATERALS)), 1 / len(COLLATERALS))
    logit = np.array([-1.0])

    def chance(patient, belief=belief, delay=95.0):
        return float(hemorrhage_chance(logit, patient, belief, delay)[0])

    assert chance(_tissue(minutes=400.0)) > chance(_tissue()) > chance(_tissue(minutes=40.0))
    assert chance(_tissue(), delay=180.0) > chance(_tissue())
    assert chance(_tissue(core_ml=71.0)) > chance(_tissue(core_ml=69.0)) + 0.05
    good, poor = (np.where((COLLATERALS > 0) == side, 1.0, 0.0)[None] for side in (True, False))
    assert chance(_tissue(), good / good.sum()) < chance(_tissue(), poor / poor.sum()) - 0.05


def test_good_collaterals_slow_the_core_down():
    count = 4000
    causes = (np.ones(count, np.int64), np.zeros(count))
    minutes, expected = np.full(count, 180.0), np.zeros(count)
    good, poor = (
        draw_tissue(np.random.default_rng(2), np.full(count, c), expected, minutes, *causes) for c in (1.0, -1.0)
    )
    # The same random numbers: each patient's own core is smaller.
    assert np.all(good.core_ml < poor.core_ml)
    assert np.all(good.drop_hu < poor.drop_hu)
    assert np.all(good.swelling < poor.swelling)
    assert (good.dense_artery_mm > 0).mean() < (poor.dense_artery_mm > 0).mean()
    later = draw_tissue(np.random.default_rng(2), np.full(count, 1.0), expected, minutes * 2, *causes)
    assert np.all(later.core_ml > good.core_ml)
    assert np.all(good.core_ml < good.territory_ml)


def test_who_has_good_collaterals():
    one = {"age": np.array([70.0]), "leukoaraiosis": np.array([1.0]), "diabetes": np.array([0.0])}
    base = expect(**one, occlusion=np.array([1]))[0]
    for change in ({"age": np.array([85.0])}, {"leukoaraiosis": np.array([3.0])}, {"diabetes": np.array([1.0])}):
        assert expect(**{**one, **change}, occlusion=np.array([1]))[0] < base
    assert expect(**one, occlusion=np.array([0]))[0] < base < expect(**one, occlusion=np.array([2]))[0]


def test_regions_follow_the_core_alone(planted):
    t = planted.truth
    assert np.array_equal(t["aspects"], 10 - t["regions"].sum(axis=1))
    deep = [REGIONS.index(name) for name in ("L", "C", "IC")]
    assert not t["regions"][t["tissue_occlusion"] == "m2"][:, deep].any()
    assert 6 <= np.median(t["aspects"]) <= 9
    tissue = replace(_tissue(), occlusion=np.array([1]))
    rows = {field: np.repeat(getattr(tissue, field), 2000) for field in Tissue.__dataclass_fields__}
    small, large = (
        lost_regions(np.random.default_rng(0), Tissue(**{**rows, "core_ml": np.full(2000, ml)})) for ml in (10.0, 90.0)
    )
    assert np.all(large >= small)
    assert large.sum() > 3 * small.sum()


def test_what_happens_afterwards_is_no_input(planted):
    names = {column.name for column in PostIntervention.columns}
    after = {"ct_to_reperfusion_min", "reperfused", "lysed", "grade", "collaterals"}
    assert after <= planted.truth.keys()
    assert names.isdisjoint(after)
    assert set(PostIntervention().features(planted, 0)).isdisjoint(after)
    bled = planted.labels["post_intervention_hemorrhage"]
    chance = planted.chance["post_intervention_hemorrhage"]
    # The delay matters to the outcome, and neither the inputs nor the chance know it.
    late = planted.truth["ct_to_reperfusion_min"]
    flowing = planted.truth["reperfused"] == 1
    assert stats.pearsonr(late[flowing], (bled - chance)[flowing]).statistic > 3 / np.sqrt(flowing.sum())
    for values in planted.inputs.values():
        known = ~np.isnan(values)
        assert abs(stats.spearmanr(values[known], late[known]).statistic) < 4.5 / np.sqrt(known.sum())
    assert concordance(bled, planted.truth["chance_afterwards"]) > concordance(bled, chance)


def test_grades_are_merged(planted):
    bled, grade = planted.labels["post_intervention_hemorrhage"], planted.truth["grade"]
    assert np.array_equal(bled == 1, grade != "none")
    assert set(np.unique(grade).tolist()) == {"none", "HI1", "HI2", "PH1", "PH2"}


def test_lysis_by_the_clinics_rule(planted):
    t = planted.truth
    x = planted.inputs
    may = (x["onset_to_ct_min"] <= 270) & (x["anticoagulant"] == 0) & (x["sbp"] <= 185)
    assert t["lysed"][may].mean() == pytest.approx(0.85, abs=0.03)
    assert t["lysed"][~may].mean() == pytest.approx(0.04, abs=0.02)
    assert np.all(t["chance_if_lysed"] > t["chance_if_not_lysed"])
    person = {"onset_to_ct_min": np.array([100.0]), "anticoagulant": np.array([0.0]), "sbp": np.array([150.0])}
    assert lysis_chance(person, np.array([True]), PLACES[0])[0] < lysis_chance(person, np.array([False]), PLACES[0])[0]
    chance = planted.chance["post_intervention_hemorrhage"]
    assert np.all((chance >= t["chance_if_not_lysed"]) & (chance <= t["chance_if_lysed"]))


def test_an_onset_that_nobody_saw_is_empty(planted):
    missing = np.isnan(planted.inputs["onset_to_ct_min"])
    assert missing.mean() == pytest.approx(0.16, abs=0.02)
    assert all(not np.isnan(v).any() for name, v in planted.inputs.items() if name != "onset_to_ct_min")
    assert np.isfinite(planted.truth["tissue_minutes"]).all()


def test_ceilings_leave_room_and_can_be_reached_in_part(planted):
    read = PostIntervention().features(planted, 0)
    for label, low, high in zip(LABELS, (0.76, 0.85), (0.86, 0.93), strict=True):
        ceiling = concordance(planted.labels[label], planted.chance[label])
        assert low < ceiling < high
        for values in read.values():
            one = concordance(planted.labels[label], values)
            assert max(one, 1 - one) < ceiling
    # Lower ASPECTS: more hemorrhage, poorer collaterals.
    assert concordance(planted.labels[LABELS[0]], -read["ct_aspects"]) > 0.65
    assert concordance(planted.labels[LABELS[1]], read["ct_aspects"]) > 0.65


def test_eighteen_patients_tell_little(planted):
    """The point of the exam: even the oracle's AUC is anywhere, at the published size."""
    outcome, chance = planted.labels[LABELS[0]], planted.chance[LABELS[0]]
    drawn = [concordance(outcome[k : k + 18], chance[k : k + 18]) for k in range(0, COUNT - 18, 18)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    assert high - low > 0.35
    large = [concordance(outcome[k : k + 800], chance[k : k + 800]) for k in range(0, COUNT - 800, 800)]
    assert np.ptp(large) < 0.1


def test_nothing_can_be_learned_from_the_null_cohort():
    null = PostIntervention().draw(COUNT, seed=5, variant=Variant.NULL)
    scores = {**null.inputs, **PostIntervention().features(null, 0)}
    for label in LABELS:
        labels = null.labels[label]
        half = 4 * np.sqrt((1 / labels.sum() + 1 / (1 - labels).sum()) / 12)
        for name, values in scores.items():
            known = ~np.isnan(values)
            assert abs(concordance(labels[known], values[known]) - 0.5) < half * 1.2, name


def test_the_other_hospital(planted, shifted):
    assert shifted.truth["tissue_minutes"].mean() > planted.truth["tissue_minutes"].mean() + 40
    assert shifted.inputs["age"].mean() > planted.inputs["age"].mean() + 2
    bled = [p.labels["post_intervention_hemorrhage"].mean() for p in (planted, shifted)]
    assert bled[1] > bled[0] + 0.08
    assert shifted.truth["lysed"].mean() < planted.truth["lysed"].mean() - 0.15
    assert shifted.truth["thickness_mm"].max() < planted.truth["thickness_mm"].min()


def test_a_reader_misses_early_cores(planted):
    t = planted.truth
    read = PostIntervention().features(planted, 0)
    early, late = t["tissue_drop_hu"] < 2.5, t["tissue_drop_hu"] > 5
    wide = t["aspects"] <= 6
    overlooked = read["ct_aspects"] - t["aspects"]
    assert overlooked[early & wide].mean() > overlooked[late & wide].mean() + 1
    assert ((read["ct_dense_artery_mm"] == 0) | (read["ct_dense_artery_mm"] >= 4)).all()
    assert all(np.isfinite(values).all() for values in read.values())


def test_a_patient_is_the_same_in_every_cut():
    cohort = PostIntervention()
    whole, part = cohort.draw(600, seed=9), cohort.draw(90, seed=9, first=290)
    for name, values in part.truth.items():
        np.testing.assert_array_equal(values, whole.truth[name][290:380])
    read = cohort.features(whole, 0)
    for name, values in cohort.features(part, 0).items():
        np.testing.assert_array_equal(values, read[name][290:380])


def test_occlusions_have_names(planted):
    assert set(np.unique(planted.truth["tissue_occlusion"]).tolist()) == set(OCCLUSIONS)
