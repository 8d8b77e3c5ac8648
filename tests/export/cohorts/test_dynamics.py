"""Bleeding dynamics: what is planted is there, the confounding is there, and nothing leaks."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import UNKNOWN, Patients, Variant
from edgehem.export.cohorts.dynamics import Dynamics, draw_block, note, region_column
from edgehem.export.cohorts.dynamics_admission import OTHER, USUAL, Admission, Place, Tosses, admit, draw_tosses
from edgehem.export.cohorts.dynamics_body import coma_scale, disturbance
from edgehem.export.cohorts.dynamics_chart import as_series, summaries
from edgehem.export.cohorts.dynamics_course import CHANNELS, WINDOW_H, Course, Intervention, follow, grow
from edgehem.export.cohorts.dynamics_effects import measure
from edgehem.export.cohorts.dynamics_outcome import Outcome, conclude
from edgehem.export.cohorts.dynamics_spread import JUMP, Spread
from edgehem.export.cohorts.notes_concepts import read_notes
from edgehem.regions import load_regions

COHORT = Dynamics()
REGIONS = load_regions()


@cache
def planted() -> Patients:
    return COHORT.draw(3072, seed=5)


@cache
def people(place: Place = USUAL, count: int = 1024) -> tuple[Admission, Tosses, Spread]:
    rng = np.random.default_rng([7, 2])
    drawn = admit(rng, count, place)
    return drawn, draw_tosses(rng, count), Spread.of(drawn.blood)


def world(done: Intervention, place: Place = USUAL) -> tuple[Course, Outcome]:
    drawn, tosses, spread = people(place)
    course = follow(drawn, place, tosses, spread, done)
    return course, conclude(drawn, spread, course, tosses.person["outcome"])


def auc(score: np.ndarray, label: np.ndarray) -> float:
    order = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1
    ones = label == 1
    return float((order[ones].sum() - ones.sum() * (ones.sum() + 1) / 2) / (ones.sum() * (~ones).sum()))


def test_the_same_seed_gives_the_same_patients_however_many() -> None:
    few = COHORT.draw(20, seed=5)
    many = planted().take(slice(0, 20))
    for part in ("inputs", "labels", "chance", "truth"):
        for name, values in getattr(few, part).items():
            np.testing.assert_array_equal(values, getattr(many, part)[name])
    other = COHORT.draw(20, seed=6)
    assert (other.inputs["age"] != few.inputs["age"]).any()
    assert [note(few, row) for row in range(20)] == [note(many, row) for row in range(20)]


def test_prevalences_are_those_of_a_stroke_unit() -> None:
    drawn = planted()
    rate = {name: float((values == 1).mean()) for name, values in drawn.complete.items()}
    assert 0.2 < rate["expansion"] < 0.38
    assert 0.06 < rate["ventricular_extension"] < 0.2
    assert 0.38 < rate["poor_outcome_90d"] < 0.56
    lost = {name: float((values == UNKNOWN).mean()) for name, values in drawn.labels.items()}
    assert all(0.03 < share < 0.08 for share in lost.values())


def test_labels_are_tossed_with_their_chances() -> None:
    drawn = planted()
    for name, chance in drawn.chance.items():
        label = drawn.complete[name]
        for group in np.array_split(np.argsort(chance, kind="stable"), 6):
            error = np.sqrt((chance[group] * (1 - chance[group])).sum()) / len(group)
            assert abs(label[group].mean() - chance[group].mean()) < 4 * error + 1e-9, name


def test_chances_are_the_frequencies_of_futures_from_the_same_present() -> None:
    drawn, tosses, spread = people(count=96)
    course = follow(drawn, USUAL, tosses, spread)
    said = conclude(drawn, spread, course, tosses.person["outcome"]).chance
    rng = np.random.default_rng([8, 3])
    futures = 200
    count: dict[str, np.ndarray] = {name: np.zeros(96) for name in said}
    hazard = course.growth[WINDOW_H][1][:, None]
    past = tosses.tears <= hazard
    for _ in range(futures):
        # Beyond the window all tears are drawn again: the clock of a Poisson process starts anew.
        gaps = np.where(past, 0.0, rng.exponential(1.0, past.shape))
        tears = np.where(past, tosses.tears, hazard + np.cumsum(gaps, axis=1))
        jumps = np.where(past, tosses.jumps, rng.exponential(JUMP, past.shape))
        again = replace(tosses, tears=tears, jumps=jumps)
        grown = grow(drawn, again, course.treated_h, course.reversed_h)
        np.testing.assert_array_equal(grown[WINDOW_H][2], course.growth[WINDOW_H][2])
        ended = conclude(drawn, spread, replace(course, growth=grown), rng.random(96))
        for name, labels in ended.labels.items():
            count[name] += labels
    for name, chance in said.items():
        error = np.sqrt(np.maximum(chance * (1 - chance), 1e-3) / futures)
        assert np.abs((count[name] / futures - chance) / error).max() < 5.5, name
        assert abs((count[name] / futures - chance).sum()) < 4 * np.sqrt((error**2).sum()), name


def test_the_label_is_what_the_regions_did() -> None:
    drawn = planted()
    tissue = ~REGIONS.is_kind("ventricle")
    before = drawn.truth["blood_at_admission"]
    after = drawn.truth["blood_at_24h"]
    grown = (after - before)[:, tissue].sum(1)
    needed = np.minimum(6.0, 0.33 * before[:, tissue].sum(1))
    clear = np.abs(grown - needed) > 1e-9
    np.testing.assert_array_equal((grown >= needed)[clear], drawn.complete["expansion"][clear] == 1)
    more = (after - before)[:, ~tissue].sum(1)
    np.testing.assert_array_equal(more >= 1.0, drawn.complete["ventricular_extension"] == 1)
    assert (np.diff(drawn.truth["tissue_ml"], axis=1) >= -1e-9).all()
    read = np.stack([drawn.inputs[region_column(name)] for name in REGIONS.names], axis=1)
    assert np.corrcoef(read.sum(1), before.sum(1))[0, 1] > 0.97


def test_treatment_helps_and_those_who_get_it_bleed_more() -> None:
    treated, never = (world(Intervention(treatment=done))[1] for done in (True, False))
    seen, observed = world(Intervention())
    with_, without = treated.labels["expansion"], never.labels["expansion"]
    # The same tosses: treatment takes tears away and adds none.
    assert (with_ <= without).all()
    effect = with_.mean() - without.mean()
    assert effect < -0.05
    got = np.isfinite(seen.treated_h)
    assert 0.5 < got.mean() < 0.95
    label = observed.labels["expansion"]
    naive = label[got].mean() - label[~got].mean()
    assert naive > effect + 0.08
    assert naive > 0


@pytest.mark.parametrize("shifted", [False, True])
def test_what_the_chart_says_of_treatment_is_not_what_treatment_does(shifted: bool) -> None:
    found = measure(4, seed=1, shifted=shifted)
    assert found.expansion_by_treatment < -0.05 < 0 < found.expansion_naive
    # What doctors saw accounts for part of it.
    assert found.expansion_adjusted < found.expansion_naive - 0.03
    assert found.gcs_by_sedation < -2
    assert found.poor_by_sedation == 0
    assert found.poor_naive > 0.03


def test_effects_need_patients() -> None:
    with pytest.raises(UsageError, match="a block"):
        measure(0)


def test_knowing_the_tears_is_worth_a_part_of_the_ceiling() -> None:
    drawn = planted()
    label = drawn.complete["expansion"]
    untorn = drawn.truth["expansion_untorn"]
    assert 0.75 < auc(untorn, label) < auc(drawn.chance["expansion"], label) - 0.03


def test_treatment_follows_what_was_charted() -> None:
    course, _ = world(Intervention())
    early = course.treated_h <= 1
    assert course.chart["sbp"][early, 0].mean() > course.chart["sbp"][~early, 0].mean() + 5
    assert course.chart["gcs"][early, 0].mean() < course.chart["gcs"][~early, 0].mean() - 0.3
    after = np.isfinite(course.treated_h) & (course.treated_h < 1.5)
    fall = course.chart["sbp"][:, :1] - course.chart["sbp"][:, -6:]
    assert np.nanmean(fall[after]) > 15
    assert np.nanmean(fall[np.isinf(course.treated_h)]) < 10


def test_a_tear_shows_in_cuff_and_heart() -> None:
    course, _ = world(Intervention(treatment=False))
    torn = course.growth[WINDOW_H][2] - course.growth[WINDOW_H][0]
    late = torn - (course.growth[2.0][2] - course.growth[2.0][0])
    hit, calm = late > 0.2, torn == 0
    for name, rise in (("sbp", 5), ("hr", 3)):
        change = np.nanmean(course.chart[name][hit][:, -6:]) - np.nanmean(course.chart[name][hit][:, :6])
        still = np.nanmean(course.chart[name][calm][:, -6:]) - np.nanmean(course.chart[name][calm][:, :6])
        assert change > still + rise


def test_sedation_changes_scores_and_nothing_else() -> None:
    # With treatment fixed, as orders follow scores.
    asleep, awake = (world(Intervention(treatment=True, sedation=done)) for done in (True, False))
    np.testing.assert_array_equal(asleep[0].body.severity, awake[0].body.severity)
    assert (asleep[0].gcs <= awake[0].gcs).mean() > 0.99
    assert (asleep[0].gcs[:, 0] - awake[0].gcs[:, 0]).mean() < -1.5
    np.testing.assert_array_equal(asleep[0].gcs_undisturbed, awake[0].gcs_undisturbed)
    for name, chance in asleep[1].chance.items():
        np.testing.assert_array_equal(chance, awake[1].chance[name])
        np.testing.assert_array_equal(asleep[1].labels[name], awake[1].labels[name])


def test_sedation_tells_of_the_outcome_only_through_the_severity() -> None:
    drawn = planted()
    asleep = drawn.truth["sedated_h"] <= WINDOW_H
    poor, chance = drawn.complete["poor_outcome_90d"], drawn.chance["poor_outcome_90d"]
    assert poor[asleep].mean() > poor[~asleep].mean() + 0.05
    error = np.sqrt((chance * (1 - chance))[asleep].sum()) / asleep.sum()
    assert abs((poor - chance)[asleep].mean()) < 4 * error


@pytest.mark.parametrize("name", ["alcohol", "seizure"])
def test_drink_and_seizures_lower_scores_at_the_same_severity(name: str) -> None:
    drawn, _, _ = people()
    none = np.zeros(len(drawn), bool)
    nothing = np.zeros(len(drawn))
    off, on = (disturbance(replace(drawn, **{name: value}), 0.0, nothing) for value in (none, ~none))
    assert (on > off).all()
    language, error = np.zeros(len(drawn)), np.zeros((len(drawn), 3))
    low, high = (coma_scale(1.5 + added, language, error).sum(1) for added in (on, off))
    assert (low <= high).all() and (low < high).mean() > 0.3


@pytest.mark.parametrize(
    ("name", "factor", "shift"),
    [("frailty", 1.5, 0.0), ("hold", 1.0, 0.8), ("surge", 1.0, 30.0), ("response", 0.3, 0.0)],
)
def test_what_speeds_growth_raises_its_chance_at_fixed_other_values(name: str, factor: float, shift: float) -> None:
    drawn, tosses, spread = people()
    worse = replace(drawn, **{name: getattr(drawn, name) * factor + shift})
    done = Intervention(treatment=True)
    base, more = (
        conclude(one, spread, follow(one, USUAL, tosses, spread, done), tosses.person["outcome"]).chance["expansion"]
        for one in (drawn, worse)
    )
    assert (more >= base - 1e-12).all()
    assert more.mean() > base.mean() + 0.01


def test_the_last_dose_is_worth_reading() -> None:
    drawn = COHORT.draw(6144, seed=9)
    doac = drawn.inputs["anticoagulant"] == "doac"
    dose = COHORT.features(drawn.take(np.flatnonzero(doac)), 0)["note_last_dose_h"]
    chance = drawn.chance["expansion"][doac]
    assert chance[dose <= 8].mean() > chance[dose >= 18].mean() + 0.05


def test_scores_are_charted_as_wards_do() -> None:
    chart = {name: planted().truth[f"chart_{name}"] for name in CHANNELS}
    for name, highest in (("gcs_eye", 4), ("gcs_verbal", 5), ("gcs_motor", 6)):
        known = chart[name][np.isfinite(chart[name])]
        assert set(np.unique(known)) <= set(range(1, highest + 1))
    whole = chart["gcs_eye"] + chart["gcs_verbal"] + chart["gcs_motor"]
    np.testing.assert_array_equal(whole, chart["gcs"])
    tube = chart["intubated"] == 1
    said = chart["gcs_verbal"][tube]
    assert np.isnan(said).any() and set(np.unique(said[np.isfinite(said)])) == {1.0}
    sick = chart["sbp"][np.isfinite(chart["sbp"])]
    assert sick.min() >= 40 and sick.max() <= 280


def test_null_patients_can_not_be_told_apart() -> None:
    count = 3072
    null = COHORT.draw(count, seed=5, variant=Variant.NULL)
    same = planted()
    for name, chance in same.chance.items():
        np.testing.assert_array_equal(null.inputs["age"], same.inputs["age"])
        label = null.complete[name]
        error = np.sqrt((count + 1) / (12 * label.sum() * (count - label.sum())))
        assert abs(auc(chance, label) - 0.5) < 4 * error
        assert auc(chance, same.complete[name]) > 0.75
        assert np.ptp(null.chance[name]) == 0


def test_the_other_hospital_has_other_habits() -> None:
    here, there = planted(), COHORT.draw(1024, seed=5, variant=Variant.SHIFTED)

    def share(patients: Patients, agent: str) -> float:
        return float((patients.inputs["anticoagulant"] == agent).mean())

    def rows(patients: Patients) -> float:
        return float(np.isfinite(patients.truth["chart_time_min"]).sum(1).mean())

    assert share(there, "doac") > share(here, "doac") + 0.1
    assert rows(there) < rows(here) - 3
    asleep = [float((one.truth["sedated_h"] <= WINDOW_H).mean()) for one in (here, there)]
    assert asleep[1] > asleep[0] + 0.1
    assert "PRESENTING COMPLAINT" in note(there, 0) and "PRESENTING COMPLAINT" not in note(here, 0)
    assert OTHER.styles[:2] == (0, 0) and USUAL.styles[2] == 0


def test_chances_hold_at_the_other_hospital() -> None:
    there = COHORT.draw(2048, seed=12, variant=Variant.SHIFTED)
    for name, chance in there.chance.items():
        error = np.sqrt((chance * (1 - chance)).sum()) / len(chance)
        assert abs(there.complete[name].mean() - chance.mean()) < 4 * error


def test_files_hold_what_the_features_measure(tmp_path: Path) -> None:
    drawn = planted().take(slice(0, 40))
    charts: dict[str, list[list[float]]] = {name: [] for name in CHANNELS}
    texts = []
    for row in range(len(drawn)):
        out = tmp_path / str(row)
        out.mkdir()
        named = COHORT.write_files(drawn, row, out, 0)
        assert set(named) == set(COHORT.paths)
        series = json.loads((out / named["series"]).read_text(encoding="utf-8"), parse_constant=pytest.fail)
        assert tuple(series) == CHANNELS
        time = np.array(series["time_min"])
        assert (np.diff(time) > 0).all() and time[0] == 0 and time[-1] <= 60 * WINDOW_H
        for name, values in series.items():
            assert len(values) == len(time)
            padded = [np.nan if value is None else value for value in values]
            charts[name].append(padded + [np.nan] * (19 - len(padded)))
        texts.append((out / named["text"]).read_text(encoding="utf-8"))
    read = summaries({name: np.array(rows, np.float64) for name, rows in charts.items()}) | read_notes(texts)
    for name, values in COHORT.features(drawn, 0).items():
        np.testing.assert_allclose(read[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_chart_without_a_value_gives_no_summary() -> None:
    empty = {name: np.full((2, 19), np.nan) for name in CHANNELS}
    empty["time_min"][:, 0] = 0
    empty["sbp"][1, 0] = 150.0
    read = summaries(empty)
    assert np.isnan(read["series_sbp_first"][0]) and read["series_sbp_first"][1] == 150
    assert np.isnan(read["series_sbp_slope"]).all()
    assert as_series({name: values[1] for name, values in empty.items()})["sbp"] == [150]


def test_the_page_states_the_constants_of_the_code() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "cohorts_dynamics.md").read_text(encoding="utf-8")
    parts = ("", "_admission", "_body", "_course", "_outcome", "_signs", "_spread")
    modules = [importlib.import_module(f"edgehem.export.cohorts.dynamics{part}") for part in parts]
    stated = re.findall(r"^\| `([A-Z_]+)` \| ([-0-9.e]+) \|", page, re.M)
    assert len(stated) > 35
    for name, value in stated:
        assert {float(getattr(module, name)) for module in modules if hasattr(module, name)} == {float(value)}, name


def test_interventions_keep_the_patients() -> None:
    one, other = (
        draw_block(np.random.default_rng([3, 3]), False, Intervention(treatment=done)) for done in (True, False)
    )
    for name in one.inputs:
        np.testing.assert_array_equal(one.inputs[name], other.inputs[name])
    assert (one.truth["treated_h"] == 0).all() and np.isinf(other.truth["treated_h"]).all()
    assert one.chance["poor_outcome_90d"].mean() < other.chance["poor_outcome_90d"].mean()
