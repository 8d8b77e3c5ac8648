"""The simple reader of ECGs, against what was planted and on what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.ecg import record
from edgehem.export.cohorts.ecg_features import FEATURES, read_features
from edgehem.export.cohorts.ecg_heart import Heart
from edgehem.export.cohorts.ecg_machine import QUIET, Flaws, Machine, draw_flaws
from edgehem.export.cohorts.ecg_rhythm import Rhythm
from edgehem.export.cohorts.pe_recordings import OTHER_MACHINE

REST = Heart(rhythm=Rhythm(rate=70.0))


def read(
    heart: Heart = REST, *, machine: Machine | None = None, flaws: Flaws | None = None, seed: int = 0
) -> dict[str, float]:
    rng = np.random.default_rng([seed, 8])
    recording = record(heart, machine=machine or Machine(), flaws=flaws or draw_flaws(rng), rng=rng)
    return read_features(recording.millivolts(), recording.machine.hertz)


def middle(heart: Heart, name: str, seeds: range = range(15)) -> float:
    """Median reading over noise, chests and beats."""
    return float(np.nanmedian([read(heart, seed=seed)[name] for seed in seeds]))


@cache
def at_rest() -> list[dict[str, float]]:
    return [read(seed=seed) for seed in range(15)]


@pytest.mark.parametrize("machine", [Machine(), OTHER_MACHINE], ids=["A", "B"])
def test_rate_is_read_within_two_beats(machine: Machine) -> None:
    for rate in np.linspace(45, 165, 25):
        for kind in (False, True):
            heart = Heart(rhythm=Rhythm(rate=float(rate), fibrillation=kind, scatter=0.12))
            found = read(heart, machine=machine, flaws=Flaws(), seed=int(rate))["ecg_rate"]
            assert found == pytest.approx(rate, abs=2 if not kind else 0.15 * rate)


def test_beats_are_found_through_ordinary_noise() -> None:
    found = np.array([read(seed=seed)["ecg_rate"] for seed in range(60)])
    assert np.mean(np.abs(found - 70) < 3) >= 0.95


def test_axis_follows_the_planted_turn() -> None:
    turns = np.array([-60.0, -30.0, 0.0, 30.0, 60.0])
    found = np.array([middle(replace(REST, axis_deg=turn), "ecg_axis_deg", range(7)) for turn in turns])
    assert (
        np.diff(found) > 10
    ).all()  # septum and base do not turn with the rest, and the leads are not at right angles
    assert found[0] < -20 and 40 < found[2] < 75 and found[4] > 90


def test_width_of_qrs_is_read_within_a_few_samples() -> None:
    for heart in (
        replace(REST, width=0.9),
        REST,
        replace(REST, rbbb=0.6, rbbb_ms=112.0),
        replace(REST, rbbb=1, rbbb_ms=140.0),
    ):
        assert middle(heart, "ecg_qrs_ms") == pytest.approx(heart.qrs_ms(), abs=14)


def test_a_normal_beat_at_600_ms_is_regular_and_fibrillation_is_not() -> None:
    assert middle(REST, "ecg_rr_irregularity") < 0.04
    assert middle(Heart(rhythm=Rhythm(rate=90.0, fibrillation=True)), "ecg_rr_irregularity") > 0.08


@pytest.mark.parametrize(
    ("change", "name", "sign"),
    [
        (lambda h: replace(h, s1=1.0), "ecg_s_i", 1),
        (lambda h: replace(h, q3=1.0), "ecg_q_iii", 1),
        (lambda h: replace(h, t3=1.0), "ecg_t_iii", -1),
        (lambda h: replace(h, t_inversion=1.0), "ecg_t_v1", -1),
        (lambda h: replace(h, t_inversion=1.0), "ecg_t_v2", -1),
        (lambda h: replace(h, t_inversion=1.0), "ecg_t_v3", -1),
        (lambda h: replace(h, t_inversion=1.0), "ecg_t_v4", -1),
        (lambda h: replace(h, rbbb=0.6), "ecg_r_end_v1", 1),
        (lambda h: replace(h, qr_v1=1.0), "ecg_q_v1", 1),
        (lambda h: replace(h, p_right=1.5), "ecg_p_ii", 1),
        (lambda h: replace(h, voltage=0.36), "ecg_limb_voltage", -1),
        (lambda h: replace(h, turn_deg=42.0), "ecg_transition", 1),
        (lambda h: replace(h, turn_deg=42.0), "ecg_s_v5", 1),
    ],
)
def test_each_sign_moves_its_reading_beyond_what_varies_without_it(
    change: Callable[[Heart], Heart], name: str, sign: int
) -> None:
    without = np.array([found[name] for found in at_rest()])
    with_sign = np.array([read(change(REST), seed=seed)[name] for seed in range(15)])
    assert np.mean(sign * with_sign > np.nanpercentile(sign * without, 90)) >= 0.8


def test_the_tall_p_is_above_a_quarter_of_a_millivolt_and_none_is_read_in_fibrillation() -> None:
    assert middle(replace(REST, p_right=1.8), "ecg_p_ii") > 0.2 > middle(REST, "ecg_p_ii") > 0.08
    assert middle(Heart(rhythm=Rhythm(rate=80.0, fibrillation=True)), "ecg_p_ii") < 0.06


def test_a_real_ecg_is_read_as_its_machine_read_it() -> None:
    folder = os.environ.get("EDGEHEM_TEST_DATA")
    if not folder:
        pytest.skip("EDGEHEM_TEST_DATA is not set")
    file = pydicom.dcmread(Path(folder) / "ecg" / "12lead_1khz.dcm")
    said = {
        annotation.ConceptNameCodeSequence[0].CodeMeaning: float(annotation.NumericValue)
        for annotation in file.WaveformAnnotationSequence
        if "ConceptNameCodeSequence" in annotation and "NumericValue" in annotation
    }
    found = read_features(file.waveform_array(0).T / 1000, 1000)  # uV in the file
    assert found["ecg_rate"] == pytest.approx(60_000 / said["RR Interval"], abs=1)
    assert found["ecg_axis_deg"] == pytest.approx(said["QRS Axis"], abs=10)
    assert found["ecg_qrs_ms"] == pytest.approx(said["QRS Duration"], abs=12)
    assert found["ecg_t_v4"] > 0.3 and found["ecg_q_iii"] < 0.05 and 3 < found["ecg_transition"] < 4


def test_premature_beats_do_not_enter_the_typical_beat() -> None:
    ectopic = Heart(rhythm=Rhythm(rate=70.0, ventricular=0.2))
    assert middle(ectopic, "ecg_odd_beats") > 0.05
    assert middle(ectopic, "ecg_qrs_ms") == pytest.approx(middle(REST, "ecg_qrs_ms"), abs=6)


def test_a_flat_lead_is_unknown_and_the_others_are_read() -> None:
    found = read(flaws=replace(QUIET, off="V1"))
    assert np.isnan([found["ecg_t_v1"], found["ecg_q_v1"], found["ecg_r_end_v1"], found["ecg_transition"]]).all()
    assert not np.isnan([found["ecg_t_v2"], found["ecg_axis_deg"], found["ecg_qrs_ms"]]).any()


def test_both_rates_of_sampling_read_alike() -> None:
    heart = replace(REST, s1=0.8, t_inversion=0.8)
    slow, fast = (read(heart, machine=Machine(hertz=hertz), flaws=QUIET, seed=3) for hertz in (500, 1000))
    for name in ("ecg_rate", "ecg_axis_deg", "ecg_s_i", "ecg_t_v2"):
        assert slow[name] == pytest.approx(fast[name], rel=0.03, abs=0.03)


def test_silence_and_noise_are_unknown_or_harmless() -> None:
    silent = read_features(np.zeros((12, 5000)), 500)
    assert list(silent) == list(FEATURES) and np.isnan(list(silent.values())).all()
    noise = read_features(np.random.default_rng(1).normal(0, 0.05, (12, 5000)), 500)
    assert list(noise) == list(FEATURES)


@pytest.mark.parametrize(("shape", "hertz"), [((8, 5000), 500), ((12, 5000), 360), ((12, 800), 500), ((5000,), 500)])
def test_another_shape_or_rate_is_refused(shape: tuple[int, ...], hertz: int) -> None:
    with pytest.raises(UsageError):
        read_features(np.zeros(shape), hertz)
