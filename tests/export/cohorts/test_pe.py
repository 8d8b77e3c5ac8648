"""Pulmonary embolism: what is planted in diagnosis and in thrombolysis, that chances are right, and the files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest

from edgehem.dicom.kinds import Kind, what_is_at
from edgehem.export.cohorts.core import BLOCK, UNKNOWN, Cohort, Patients, Variant, sigmoid
from edgehem.export.cohorts.discrimination import calibration, concordance, under_chance
from edgehem.export.cohorts.ecg_features import FEATURES
from edgehem.export.cohorts.pe_columns import COLUMNS, contraindications
from edgehem.export.cohorts.pe_ecg import PREVALENCE, PeEcg, posterior
from edgehem.export.cohorts.pe_lysis import FATAL, PeLysis, bleeding_logit, death_logit
from edgehem.export.cohorts.pe_patients import STRAIN, draw_patients
from edgehem.export.cohorts.pe_recordings import recording_of
from edgehem.export.cohorts.pe_scores import bacs, pesi, riete, spesi
from edgehem.export.cohorts.pe_strain import (
    FASTEST,
    GRID,
    RATE_SD,
    SIGNS,
    SLOWEST,
    beta_mixture,
    draw_rate,
    draw_signs,
    draw_strain,
    rate_log_mean,
    signs_log_likelihood,
)

NAMES = [sign.name for sign in SIGNS]
MANY = 60 * BLOCK
COHORTS = (PeEcg(), PeLysis())


@cache
def drawn(kind: type[Cohort], variant: Variant = Variant.PLANTED) -> Patients:
    return kind().draw(MANY, seed=11, variant=variant)


# What both share


@pytest.mark.parametrize(
    ("kind", "label"), [(PeEcg, "pe"), (PeLysis, "death"), (PeLysis, "bleeding")], ids=["pe", "death", "bleeding"]
)
@pytest.mark.parametrize("variant", [Variant.PLANTED, Variant.SHIFTED])
def test_chances_are_frequencies(kind: type[Cohort], label: str, variant: Variant) -> None:
    patients = drawn(kind, variant)
    assert calibration(patients.outcome(label), patients.chance[label]).p > 1e-3


@pytest.mark.parametrize(
    ("kind", "label", "low", "high"),
    [(PeEcg, "pe", 0.72, 0.75), (PeLysis, "death", 0.79, 0.83), (PeLysis, "bleeding", 0.70, 0.74)],
    ids=["pe", "death", "bleeding"],
)
def test_ceilings_are_where_they_are_said_to_be(kind: type[Cohort], label: str, low: float, high: float) -> None:
    patients = drawn(kind)
    assert low < concordance(patients.outcome(label), patients.chance[label]) < high


@pytest.mark.parametrize("kind", [PeEcg, PeLysis])
def test_nothing_tells_the_labels_of_the_null_cohort(kind: type[Cohort]) -> None:
    patients, planted = drawn(kind, Variant.NULL), drawn(kind)
    for name in planted.chance:
        outcome = patients.outcome(name)
        assert abs(outcome.mean() - planted.outcome(name).mean()) < 0.02
        if patients.chance[name].ndim > 1:
            continue
        margin = 4 * under_chance(outcome)
        assert abs(concordance(outcome, planted.chance[name]) - 0.5) < margin
        assert abs(concordance(outcome, patients.truth["strain"]) - 0.5) < margin


@pytest.mark.parametrize("cohort", COHORTS, ids=["pe_ecg", "pe_lysis"])
def test_a_patient_is_the_same_however_the_cohort_is_cut(cohort: Cohort) -> None:
    whole, part = cohort.draw(600, seed=3), cohort.draw(3, seed=3, first=299)
    for name, values in part.inputs.items():
        assert np.array_equal(values, whole.inputs[name][299:302], equal_nan=values.dtype.kind == "f")
    rows = np.array([301, 299])
    features = cohort.features(whole.take(rows), 0)
    again = cohort.features(part, 5)
    assert list(features) == list(FEATURES)
    for name in features:
        assert np.array_equal(features[name], again[name][[2, 0]], equal_nan=True)


@pytest.mark.parametrize("variant", [Variant.PLANTED, Variant.SHIFTED])
@pytest.mark.parametrize("cohort", COHORTS, ids=["pe_ecg", "pe_lysis"])
def test_the_file_holds_the_signal_that_features_are_read_from(
    cohort: Cohort, variant: Variant, tmp_path: Path
) -> None:
    patients = cohort.draw(2, seed=4, variant=variant)
    seed = int(patients.seeds[1])
    assert cohort.write_files(patients, 1, tmp_path, seed) == {"ecg": "ecg.dcm"}
    recording = recording_of(patients, 1, seed)
    read = pydicom.dcmread(tmp_path / "ecg.dcm")
    group = read.WaveformSequence[0]
    assert np.array_equal(np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T, recording.counts)
    assert group.SamplingFrequency == (1000 if variant is Variant.SHIFTED else 500)
    assert [part.kind for part in what_is_at(tmp_path)] == [Kind.WAVEFORM]
    again = tmp_path / "again"
    again.mkdir()
    cohort.write_files(patients, 1, again, seed)
    assert (again / "ecg.dcm").read_bytes() == (tmp_path / "ecg.dcm").read_bytes()


def test_readings_follow_the_rate_that_was_planted() -> None:
    patients = PeEcg().draw(60, seed=6)
    found = PeEcg().features(patients, 0)["ecg_rate"]
    assert np.mean(np.abs(found - patients.truth["ecg_rate"]) < 0.08 * patients.truth["ecg_rate"]) > 0.85


@pytest.mark.parametrize(
    ("variant", "digest"),
    [
        (Variant.PLANTED, "e368a866d69aa61462224b8ccdd97719724103865d2e6ecabfee52d449f9ae0c"),
        (Variant.SHIFTED, "c173054c491b5b8098bfff39e9ffb661db817712c62dd5fdc1b84dc6c5e4cc24"),
    ],
)
def test_signals_are_those_of_this_version(variant: Variant, digest: str) -> None:
    """Another digest is another ECG: raise the version of both cohorts."""
    patients = PeEcg().draw(4, seed=1, variant=variant)
    counts = [recording_of(patients, row, int(patients.seeds[row])).counts for row in range(4)]
    assert hashlib.sha256(np.stack(counts).astype("<i2").tobytes()).hexdigest() == digest


# Strain and signs


def test_weights_are_those_of_the_mixture() -> None:
    weights = beta_mixture(((1.0, 3.0, 3.0),))
    assert weights.sum() == pytest.approx(1) and weights @ GRID == pytest.approx(0.5)
    some = draw_strain(np.random.default_rng(0), np.broadcast_to(STRAIN, (40_000, len(GRID))))
    assert np.isin(some, GRID).all() and some.mean() == pytest.approx(STRAIN @ GRID, abs=0.006)


def test_every_sign_is_more_frequent_with_strain_and_present_without() -> None:
    count, zeros = 40_000, np.zeros(40_000)
    rng = np.random.default_rng(1)
    without, with_strain = (
        draw_signs(rng, np.full(count, strain), zeros, zeros, zeros + 60).mean(axis=0) for strain in (0.0, 0.9)
    )
    assert (with_strain > without).all() and (without > 0.003).all() and (with_strain < 0.9).all()
    marked = [NAMES.index(name) for name in ("s1q3t3", "t_inversion", "qr_v1")]
    assert (with_strain[marked] > 5 * without[marked]).all()


def test_a_complete_block_hides_an_incomplete_one() -> None:
    signs = drawn(PeEcg).truth["signs"]
    assert not (signs[:, NAMES.index("rbbb_complete")] & signs[:, NAMES.index("rbbb_incomplete")]).any()


# Diagnosis


def test_embolism_is_as_frequent_as_the_students_figures_imply() -> None:
    implied = (0.854 - 0.6745) / (0.854 - 0.419)
    assert implied == pytest.approx(PREVALENCE, abs=0.005)
    assert drawn(PeEcg).labels["pe"].mean() == pytest.approx(PREVALENCE, abs=0.015)
    assert drawn(PeEcg, Variant.SHIFTED).labels["pe"].mean() < 0.25


def test_each_mark_of_strain_raises_the_chance_of_embolism() -> None:
    plain = np.zeros((1, len(SIGNS)), bool)
    age, rate = np.array([60.0]), np.array([85.0])
    before = posterior(plain, rate, age, False)[0]
    for name in ("s1q3t3", "t_inversion", "rbbb_incomplete", "qr_v1"):
        signs = plain.copy()
        signs[0, NAMES.index(name)] = True
        assert posterior(signs, rate, age, False)[0] > before + 0.05
    assert posterior(plain, np.array([120.0]), age, False)[0] > before
    assert posterior(plain, rate, age, True)[0] < before  # it is rarer there


def test_the_posterior_is_that_of_counting() -> None:
    """Among patients with the same signs, embolism is as frequent as the posterior says: Bayes checked by a census."""
    patients = PeEcg().draw(160 * BLOCK, seed=1)
    outcome, signs = patients.labels["pe"], patients.truth["signs"]
    code = signs @ (2 ** np.arange(len(SIGNS)))
    values, counts = np.unique(code, return_counts=True)
    checked = values[counts > 300]
    assert len(checked) > 8
    for value in checked:
        rows = code == value
        error = 4 * 0.5 / np.sqrt(rows.sum())
        assert outcome[rows].mean() == pytest.approx(patients.chance["pe"][rows].mean(), abs=error)


def test_strain_itself_knows_more_than_its_signs() -> None:
    patients = drawn(PeEcg)
    outcome = patients.labels["pe"]
    assert concordance(outcome, patients.truth["strain"]) > concordance(outcome, patients.chance["pe"]) + 0.05


# Thrombolysis: causes and outcomes


def person(**changes: float | str) -> dict[str, np.ndarray]:
    """One ordinary patient, changed."""
    usual: dict[str, float | str] = {column.name: 0.0 for column in COLUMNS}
    usual |= {
        "age": 60, "weight": 75, "sbp": 120, "spo2": 95, "hemoglobin": 13.5, "platelets": 220, "creatinine": 80,
        "lactate": 1.5, "inr": 1.0, "lysis_dose": "full", "lysis_agent": "alteplase", "anticoagulant": "heparin",
        "heart_rate": 90, "respiratory_rate": 18, "temperature": 36.8,
    }  # fmt: skip
    return {name: np.array([value]) for name, value in (usual | changes).items()}


def bleeding(**changes: float | str) -> float:
    return float(bleeding_logit(person(**changes))[0])


def death(strain: float = 0.4, **changes: float | str) -> float:
    return float(death_logit(person(**changes), np.array([strain]))[0])


def test_the_full_dose_matters_most_in_the_old_and_light() -> None:
    def full_less_reduced(**who: float) -> float:
        return bleeding(**who) - bleeding(**who, lysis_dose="reduced")

    usual, old, light = full_less_reduced(), full_less_reduced(age=82), full_less_reduced(weight=50)
    assert usual == pytest.approx(old) == pytest.approx(light)
    assert full_less_reduced(age=82, weight=50) > usual + 1


def test_platelets_and_creatinine_matter_beyond_a_bend_only() -> None:
    assert bleeding(platelets=400) == bleeding(platelets=170) < bleeding(platelets=100) < bleeding(platelets=50)
    assert bleeding(creatinine=60) == bleeding(creatinine=100) < bleeding(creatinine=160)
    assert death(creatinine=60) == death(creatinine=105) < death(creatinine=200)


def test_lactate_matters_more_in_low_pressure_and_strain_more_with_lactate() -> None:
    assert death(lactate=5, sbp=80) - death(sbp=80) > death(lactate=5) - death() + 0.5
    assert death(0.9, lactate=5) - death(0.1, lactate=5) > death(0.9) - death(0.1) > 3


def test_contraindications_are_no_part_of_the_risk() -> None:
    flags = {"contraindication_absolute": 1.0, "contraindication_relative": 1.0}
    assert bleeding(**flags) == bleeding() and death(**flags) == death()


def test_classes_put_death_before_bleeding_and_chances_add_up() -> None:
    patients = drawn(PeLysis)
    died, bled, outcome = (patients.outcome(name) for name in ("death", "bleeding", "outcome"))
    assert np.array_equal(outcome, np.where(died == 1, 2, bled))
    assert ((died == 1) & (bled == 1)).any()
    chance = patients.chance["outcome"]
    assert np.allclose(chance.sum(axis=1), 1) and np.allclose(chance[:, 2], patients.chance["death"])
    assert np.allclose(chance.mean(axis=0), np.bincount(outcome) / len(outcome), atol=0.01)


def test_outcomes_are_rare_and_a_bleeding_kills() -> None:
    patients = drawn(PeLysis)
    died, bled = patients.outcome("death"), patients.outcome("bleeding")
    assert 0.08 < died.mean() < 0.10 and 0.09 < bled.mean() < 0.12
    # In the same people, by chances: more than the odds ratio that was planted would leave at a quarter of it.
    assert died[bled == 1].mean() > 1.5 * died[bled == 0].mean()
    assert sigmoid(np.float64(FATAL - 2)) > 1.5 * sigmoid(np.float64(-2))


def test_some_are_lost_and_nothing_tells_who() -> None:
    patients = drawn(PeLysis)
    lost = patients.labels["death"] == UNKNOWN
    assert 0.015 < lost.mean() < 0.026
    assert all(np.array_equal(lost, labels == UNKNOWN) for labels in patients.labels.values())
    assert abs(concordance(lost.astype(np.int64), patients.chance["death"]) - 0.5) < 0.06


def test_the_posterior_of_strain_covers_it() -> None:
    """Strain's rank in its own posterior is uniform: what every value says of it was counted once, and rightly."""
    rng = np.random.default_rng(8)
    for shifted in (False, True):
        people = draw_patients(rng, 6000, shifted)
        place = np.searchsorted(GRID, people.strain - 1e-9)
        upto = np.cumsum(people.posterior, axis=1)[np.arange(6000), place]
        own = people.posterior[np.arange(6000), place]
        rank = upto - own * rng.random(6000)
        counts = np.histogram(rank, 10, (0, 1))[0]
        assert ((counts - 600) ** 2 / 600).sum() < 27.9  # chi-square with 9 degrees of freedom, p = 0.001


# Thrombolysis: what is recorded


def test_labs_go_together_through_strain_and_kidneys() -> None:
    people = draw_patients(np.random.default_rng(2), 8000, False).true

    def together(a: str, b: str) -> float:
        return float(np.corrcoef(np.log(people[a]), np.log(people[b]))[0, 1])

    assert together("troponin", "nt_probnp") > 0.08
    assert together("creatinine", "nt_probnp") > 0.15
    assert together("lactate", "sbp") < -0.1
    assert together("temperature", "platelets") > 0.1


def test_what_is_measured_depends_on_how_sick_somebody_is() -> None:
    patients = drawn(PeLysis)
    lactate, sbp, strain = (patients.truth[name] for name in ("true_lactate", "true_sbp", "strain"))
    known = ~np.isnan(patients.inputs["lactate"])
    assert 0.3 < known.mean() < 0.6
    assert np.median(lactate[known]) > 1.1 * np.median(lactate[~known])
    assert sbp[known].mean() < sbp[~known].mean() - 2
    for name in ("troponin", "rv_lv_ratio", "nt_probnp"):
        measured = ~np.isnan(patients.inputs[name])
        assert strain[measured].mean() > strain[~measured].mean() + 0.02
    # At the same pressure, too: it depends on the value that nobody sees.
    usual = (sbp > 115) & (sbp < 125)
    assert np.median(lactate[known & usual]) > 1.1 * np.median(lactate[~known & usual])


def test_diseases_are_undercoded_and_some_units_are_wrong() -> None:
    people = draw_patients(np.random.default_rng(3), 30_000, False)
    coded, there = people.recorded["cancer"] == 1, people.true["cancer"] == 1
    assert 0.06 < 1 - coded[there].mean() < 0.10 and 0 < coded[~there].mean() < 0.01
    ratio = people.recorded["weight"] / people.true["weight"]
    pounds = ratio > 2
    assert 0.003 < pounds.mean() < 0.009 and np.allclose(ratio[pounds], 2.2046, atol=0.01)
    assert np.nanmax(people.recorded["hemoglobin"]) > 80 and np.nanmin(people.recorded["creatinine"]) < 3


def test_contraindications_follow_from_the_record_alone() -> None:
    patients = drawn(PeLysis)
    again = contraindications(patients.inputs)
    for name, values in again.items():
        assert np.array_equal(values, patients.inputs[name]) and 0.05 < values.mean() < 0.35
    one = person(platelets=40)
    assert contraindications(one)["contraindication_absolute"] == 1
    assert contraindications(person())["contraindication_absolute"] == 0
    assert contraindications(person(sbp=190))["contraindication_relative"] == 1
    assert contraindications(person(anticoagulant="doac"))["contraindication_relative"] == 1
    assert contraindications(person(anticoagulant="heparin"))["contraindication_relative"] == 0


def test_dose_is_confounded() -> None:
    patients = drawn(PeLysis)
    reduced = patients.inputs["lysis_dose"] == "reduced"
    age, sbp = patients.inputs["age"], patients.truth["true_sbp"]
    assert age[reduced].mean() > age[~reduced].mean() + 2 and sbp[reduced].mean() > sbp[~reduced].mean()
    bled = patients.outcome("bleeding")
    naive = bled[~reduced].mean() - bled[reduced].mean()
    v = draw_patients(np.random.default_rng(4), 6000, False).true
    doses = [sigmoid(bleeding_logit(v | {"lysis_dose": np.full(6000, dose)})).mean() for dose in ("full", "reduced")]
    assert doses[0] - doses[1] > naive + 0.01  # the full dose does more harm than it seems to


def test_the_other_place_measures_other_things_otherwise() -> None:
    here, there = drawn(PeLysis), drawn(PeLysis, Variant.SHIFTED)
    assert np.nanmedian(there.inputs["troponin"]) < 0.5 * np.nanmedian(here.inputs["troponin"])
    for name in ("lactate", "troponin", "bilirubin", "rv_lv_ratio"):
        assert np.isnan(there.inputs[name]).mean() > np.isnan(here.inputs[name]).mean() + 0.08
    assert there.inputs["age"].mean() > here.inputs["age"].mean() + 2
    assert (there.inputs["lysis_dose"] == "reduced").mean() > (here.inputs["lysis_dose"] == "reduced").mean() + 0.1


# Scores, and fusion


def test_scores_have_the_points_of_their_papers() -> None:
    sick = person(
        age=81, male=1, cancer=1, heart_failure=1, chronic_lung_disease=1, heart_rate=110, sbp=99, respiratory_rate=30,
        temperature=35.9, altered_mentation=1, spo2=89, recent_major_bleeding=1, syncope=1, hemoglobin=12.9,
        creatinine=107,
    )  # fmt: skip
    assert pesi(sick) == 81 + 10 + 30 + 10 + 10 + 20 + 30 + 20 + 20 + 60 + 20
    assert (spesi(sick), bacs(sick), riete(sick)) == (6, 6, 2 + 1.5 + 1.5 + 1 + 1 + 1)
    assert (pesi(person()), spesi(person()), bacs(person()), riete(person())) == (60, 0, 0, 1)
    unknown = person(respiratory_rate=np.nan, temperature=np.nan, spo2=np.nan, hemoglobin=np.nan, creatinine=np.nan)
    assert (pesi(unknown), spesi(unknown), riete(unknown)) == (60, 0, 1)
    assert riete(person(hemoglobin=12.5)) == 1 and riete(person(hemoglobin=12.5, male=1)) == 2.5


@pytest.mark.parametrize(
    ("label", "score"), [("death", pesi), ("death", spesi), ("bleeding", bacs), ("bleeding", riete)]
)
def test_scores_tell_something_and_not_all(label: str, score: object) -> None:
    patients = drawn(PeLysis)
    outcome = patients.outcome(label)
    found = concordance(outcome, score(patients.inputs))  # type: ignore[operator]
    assert 0.57 < found < concordance(outcome, patients.chance[label]) - 0.05


@pytest.mark.torch
def test_record_and_ecg_together_tell_more_of_death_than_either_alone() -> None:
    pytest.importorskip("sklearn")
    from edgehem.export.cohorts.pe_effects import gains

    found = gains(15_000)
    patients = drawn(PeLysis)
    outcome = patients.outcome("death")
    assert found["both"] > found["record"] + 0.02 and found["both"] > found["ecg"] + 0.03
    assert min(found["record"], found["ecg"]) > 0.68
    assert found["record"] > concordance(outcome, pesi(patients.inputs)) + 0.02
    assert found["both"] < concordance(outcome, patients.chance["death"]) + 0.01


def test_rates_at_the_ends_of_their_range_stand_for_all_beyond() -> None:
    """By counting: many people of one strain each, and how many of them are held to the fastest rate."""
    rng, count = np.random.default_rng(9), 200_000
    healthy, nobody = np.zeros(count), np.zeros((count, len(SIGNS)), bool)
    at_end = {}
    for place in (20, 40):
        rate = draw_rate(rng, np.full(count, GRID[place]), healthy, healthy, nobody)
        assert ((rate >= SLOWEST) & (rate <= FASTEST)).all()
        at_end[place] = (rate == FASTEST).mean()
    none = np.zeros(1)
    said = signs_log_likelihood(nobody[:1], np.array([FASTEST]), none, none, none + 65)[0]
    rest = signs_log_likelihood(nobody[:1], np.array([100.0]), none, none, none + 65)[0]
    # What the signs say is the same for both rates, and so is what the density at 100 is known to be.
    density = -0.5 * ((np.log(100.0) - rate_log_mean(GRID, none, none, none)) / RATE_SD) ** 2
    tail = np.exp(said - rest + density)
    assert tail[40] / tail[20] == pytest.approx(at_end[40] / at_end[20], rel=0.25)
