"""What the CVT cohort plants: by its tables, by draws with fixed seeds, and by its null and shifted variants."""

from __future__ import annotations

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import BLOCK, Variant
from edgehem.export.cohorts.cvt import SEEN, Cvt
from edgehem.export.cohorts.cvt_causes import CAUSES, LOBES, PREVALENCE, network
from edgehem.export.cohorts.cvt_effects import epilepsy_gain
from edgehem.export.cohorts.cvt_factors import IMAGE
from edgehem.export.cohorts.discrimination import concordance

COUNT = 80 * BLOCK


@pytest.fixture(scope="module")
def planted():
    return Cvt().draw(COUNT, seed=3)


@pytest.fixture(scope="module")
def shifted():
    return Cvt().draw(COUNT, seed=3, variant=Variant.SHIFTED)


def test_counts_are_those_of_the_publication():
    assert (Cvt.train, Cvt.test) == (46 + 146, 24 + 59)
    assert PREVALENCE == (46 / (46 + 146), 24 / (24 + 59))


@pytest.mark.parametrize("centre", ["planted", "shifted"])
def test_the_chance_is_true(centre, request):
    patients = request.getfixturevalue(centre)
    labels, share = patients.labels["cvt"], PREVALENCE[centre == "shifted"]
    assert labels.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / COUNT))
    for name in (None, "clinical", "table", "image", "image_epilepsy", "texture_location"):
        chance = patients.chance["cvt"] if name is None else patients.truth[f"chance_{name}"]
        for part in np.array_split(np.argsort(chance, kind="stable"), 12):
            expected = chance[part].mean()
            error = np.sqrt((chance[part] * (1 - chance[part])).sum()) / len(part)
            assert abs(labels[part].mean() - expected) < 4 * error + 1e-9, name


def test_the_ceilings_are_ordered_and_where_they_were_meant_to_be(planted):
    labels = planted.labels["cvt"]
    ceiling = {
        k.removeprefix("chance_"): concordance(labels, v) for k, v in planted.truth.items() if k.startswith("chance_")
    }
    whole = concordance(labels, planted.chance["cvt"])
    assert 0.85 < ceiling["texture_location"] < 0.92
    assert ceiling["texture_location"] < ceiling["image"] < ceiling["image_epilepsy"] < whole
    assert ceiling["table"] < ceiling["clinical"] < whole
    assert 0.80 < ceiling["clinical"] < 0.92
    assert whole < 0.985


def test_epilepsy_adds_less_than_a_test_of_83_can_show(planted):
    """The published gain of 0.007 lies inside the interval; ours is as small."""
    labels = planted.labels["cvt"]
    gains, scores = [], []
    for first in range(0, COUNT - 83, 83):
        rows = slice(first, first + 83)
        with_it, without = (
            concordance(labels[rows], planted.truth[f"chance_{k}"][rows]) for k in ("image_epilepsy", "image")
        )
        gains.append(with_it - without)
        scores.append(with_it)
    assert 0.001 < np.mean(gains) < 0.012
    low, high = np.percentile(scores, (2.5, 97.5))
    assert high - low > 0.1
    assert np.mean(np.asarray(gains) <= 0) > 0.15


def test_the_signs_of_a_thrombosis(planted):
    sick = planted.labels["cvt"] == 1
    t, x = planted.truth, planted.inputs
    for name in ("mottle_hu", "irregularity", "oedema_mm", "hematomas"):
        assert t[name][sick].mean() > t[name][~sick].mean()
    assert t["hematoma_hu"][sick].mean() < t["hematoma_hu"][~sick].mean()
    assert np.isin(t["site"], LOBES)[sick].mean() > 0.7 > np.isin(t["site"], LOBES)[~sick].mean()
    assert x["epilepsy"][sick].mean() > 1.5 * x["epilepsy"][~sick].mean()
    assert x["age"][sick].mean() < x["age"][~sick].mean() - 5
    # The thrombosed sinus drains the hematoma's site more often than not.
    dense = sick & (t["dense_sinus"] == "transverse")
    assert (t["site"][dense] == "temporal").mean() > (t["site"][sick] == "temporal").mean() + 0.1
    # Amyloid angiopathy is lobar, too, and has convexity blood as often: location alone does not do.
    old = t["cause"] == "amyloid"
    assert abs(t["convexity_blood"][old].mean() - t["convexity_blood"][sick].mean()) < 0.07


def test_a_dense_sinus_in_thick_blood_says_nothing():
    net = network(0)
    thick = np.flatnonzero(_values(net, "hematocrit") >= 48)[:1]
    everywhere = _values(net, "dense_sinus").tolist().index("all")
    drawn = {"hematocrit": thick, "site": np.zeros(1, np.int64), "dense_sinus": np.array([everywhere])}
    np.testing.assert_allclose(
        net.posterior(drawn, ("hematocrit", "site", "dense_sinus")), net.posterior(drawn, ("hematocrit", "site"))
    )


def test_a_parent_of_two_features_is_summed_over():
    net = network(0)
    pregnant = {"pregnancy": np.array([1])}
    female = {f.name: f.chances for f in net.factors}["female"][:, 1]
    age = {f.name: f.chances for f in net.factors}["age"]
    years = _values(net, "age")
    fertile = female * age[:, (years >= 16) & (years < 50)].sum(axis=1)
    weight = net.prior * fertile * {f.name: f.chances for f in net.factors}["pregnancy"][1, :, 1]
    np.testing.assert_allclose(net.posterior(pregnant, ("pregnancy",))[0], weight / weight.sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="one feature is seen and one not"):
        net.posterior({**pregnant, "age": np.array([20])}, ("pregnancy", "age"))


def _values(net, name):
    return next(factor.values for factor in net.factors if factor.name == name)


def test_the_sides_and_the_grain_of_a_clot_say_almost_nothing(planted):
    net = network(0)
    right = next(f for f in net.factors if f.name == "right")
    np.testing.assert_allclose(right.chances, 0.5)
    assert abs(concordance(planted.labels["cvt"], planted.truth["mottle_mm"]) - 0.5) < 0.06


def test_only_women_of_an_age_are_asked(planted):
    x = planted.inputs
    fertile = (x["female"] == 1) & (x["age"] < 50)
    assert x["pregnancy"][~fertile].max() == 0
    assert np.nanmax(x["contraceptives"][~fertile]) == 0
    assert not np.isnan(x["contraceptives"][~fertile]).any()
    assert 0.15 < np.isnan(x["contraceptives"][fertile]).mean() < 0.35


def test_what_is_missing_follows_from_what_is_seen(planted):
    x, sick = planted.inputs, planted.labels["cvt"] == 1
    slurred, young = x["gcs"] < 13, x["age"] < 55
    unasked, unordered = np.isnan(x["headache_days"]), np.isnan(x["d_dimer"])
    assert unasked[slurred].mean() > unasked[~slurred].mean() + 0.3
    assert unordered[~young].mean() > unordered[young].mean() + 0.2
    for missing, seen in ((unasked, slurred), (unordered, young)):
        for part in (seen, ~seen):
            n = min((part & sick).sum(), (part & ~sick).sum())
            assert abs(missing[part & sick].mean() - missing[part & ~sick].mean()) < 4 / np.sqrt(n) * 0.7


def test_nothing_can_be_learned_from_the_null_cohort():
    null = Cvt().draw(COUNT, seed=3, variant=Variant.NULL)
    labels = null.labels["cvt"]
    half = 4 * np.sqrt(1 / (12 * labels.sum()) + 1 / (12 * (1 - labels).sum()))
    scores = {**null.inputs, **Cvt().features(null, 0)}
    scores |= {name: values for name, values in null.truth.items() if name.startswith("chance_")}
    assert len(scores) > 30
    for name, values in scores.items():
        known = ~np.isnan(values)
        assert abs(concordance(labels[known], values[known]) - 0.5) < half * max(1.0, (~known).mean() * 3), name
    assert np.unique(null.chance["cvt"]).size == 1


def test_shuffled_labels_leave_the_oracle_at_a_half(planted):
    shuffled = np.random.default_rng(7).permutation(planted.labels["cvt"])
    assert abs(concordance(shuffled, planted.chance["cvt"]) - 0.5) < 0.02


def test_the_external_centre_measures_otherwise(planted, shifted):
    read, there = Cvt().features(planted, 0), Cvt().features(shifted, 0)
    assert set(planted.truth["thickness_mm"].tolist()) == {4.5, 5.0}
    assert set(shifted.truth["thickness_mm"].tolist()) == {2.5, 3.0}
    assert set(shifted.truth["kernel"].tolist()) == {"standard", "fine"}
    # The same mottle reads as more: noise adds to it, and thin slices keep it.
    for low in (3.0, 5.0, 7.0):
        here, other = (np.abs(p.truth["mottle_hu"] - low) < 0.5 for p in (planted, shifted))
        assert there["ct_sd_hu"][other].mean() > read["ct_sd_hu"][here].mean() + 1
    well = [p.labels["cvt"] == 0 for p in (planted, shifted)]
    assert np.nanmedian(shifted.inputs["d_dimer"][well[1]]) > 1.15 * np.nanmedian(planted.inputs["d_dimer"][well[0]])
    sick = [p.labels["cvt"] == 1 for p in (planted, shifted)]
    assert shifted.inputs["epilepsy"][sick[1]].mean() < planted.inputs["epilepsy"][sick[0]].mean() - 0.03
    assert (shifted.truth["cause"] == "anticoagulation").mean() > (planted.truth["cause"] == "anticoagulation").mean()


def test_a_reader_errs_as_stated_and_never_reads_the_truth(planted):
    read, t = Cvt().features(planted, 0), planted.truth
    for name, there in (
        ("dense_sinus", t["dense_sinus"] != "none"),
        ("ventricular_blood", t["ventricular_blood"] == 1),
        ("several_hematomas", t["hematomas"] > 1),
    ):
        sensitivity, alarm = SEEN[name]
        assert read[f"ct_{name}"][there].mean() == pytest.approx(sensitivity, abs=0.03)
        assert read[f"ct_{name}"][~there].mean() == pytest.approx(alarm, abs=0.01)
    assert np.std(read["ct_mean_hu"] - t["hematoma_hu"]) == pytest.approx(1.0, abs=0.03)
    sites = np.stack([read[f"ct_site_{name}"] for name in LOBES])
    assert set(sites.sum(axis=0).tolist()) == {0.0, 1.0}
    assert all(np.isfinite(values).all() and values.dtype == np.float64 for values in read.values())
    # What a reader's columns say together stays below the image's ceiling: each finding does, alone.
    for values in read.values():
        assert concordance(planted.labels["cvt"], values) < concordance(planted.labels["cvt"], t["chance_image"])


def test_a_patient_is_the_same_in_every_cut():
    cohort = Cvt()
    whole = cohort.draw(600, seed=9)
    part = cohort.draw(100, seed=9, first=300)
    read = cohort.features(whole, 0)
    for name, values in cohort.features(part, 0).items():
        np.testing.assert_array_equal(values, read[name][300:400])
    for name, values in part.truth.items():
        np.testing.assert_array_equal(values, whole.truth[name][300:400])
    assert not np.array_equal(cohort.draw(100, seed=10).inputs["age"], cohort.draw(100, seed=9).inputs["age"])


def test_every_cause_and_feature_has_a_name():
    for centre in (0, 1):
        net = network(centre)
        assert net.causes == CAUSES
        assert net.prior.sum() == pytest.approx(1)
        assert set(net.names("clinical")) == {column.name for column in Cvt.columns}
        assert set(net.names(*IMAGE)).isdisjoint(net.names("clinical"))


def test_a_gain_by_epilepsy_is_small_and_one_test_cohort_cannot_show_it():
    gain = epilepsy_gain(8_000, tests=300)
    assert 0.001 < gain.of_all < 0.01
    assert gain.low < 0 < gain.of_all < gain.high
    assert 0.2 < gain.no_gain < 0.5
    with pytest.raises(UsageError, match="83 patients"):
        epilepsy_gain(20)
