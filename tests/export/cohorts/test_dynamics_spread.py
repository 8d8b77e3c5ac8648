"""The closed forms of the dynamics, against the recurrence and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehem.export.cohorts.dynamics_spread import (
    JUMP,
    MOST_GROWTH,
    Spread,
    drive_of,
    growth,
    jumps_at_least,
    planted_rates,
)
from edgehem.regions import load_regions

REGIONS = load_regions()


def blood(*origins: str, ml: float = 12.0) -> np.ndarray:
    out = np.zeros((len(origins), len(REGIONS)))
    for row, name in enumerate(origins):
        out[row, REGIONS.index(name)] = ml
    return out


def test_rates_are_not_negative_and_follow_contact() -> None:
    rates = planted_rates()
    apart = (REGIONS.contact() == 0) & ~np.eye(len(REGIONS), dtype=bool)
    assert (rates >= 0).all()
    assert (rates[apart] == 0).all()
    assert rates[:, ~REGIONS.is_kind("ventricle")].sum(0) == pytest.approx(1)
    assert (rates[:, REGIONS.is_kind("ventricle")] == 0).all()


def test_blood_goes_where_it_is_led() -> None:
    rates = planted_rates()

    def to(target: str, source: str) -> float:
        return float(rates[REGIONS.index(target), REGIONS.index(source)])

    # Thalamus: the ventricle first, though the temporal lobe touches it, too. Its mirror is spared.
    assert to("ventricles", "left_thalamus") > 3 * to("left_temporal", "left_thalamus")
    assert to("right_thalamus", "left_thalamus") < 0.1 * to("ventricles", "left_thalamus")
    # The tentorium: the occipital lobe touches the cerebellum as it touches the ventricles.
    assert to("left_cerebellum", "left_occipital") < 0.1 * to("left_parietal", "left_occipital")
    # A small nucleus spills more than a lobe.
    own = np.diag(rates)
    assert own[REGIONS.index("left_thalamus")] < own[REGIONS.index("left_frontal")]


def test_the_series_is_the_recurrence_in_small_steps() -> None:
    start = blood("left_thalamus", "right_frontal", "vermis")
    spread, rates = Spread.of(start), planted_rates()
    drive, steps = 0.8, 4000
    stepped = start
    for _ in range(steps):
        stepped = stepped + stepped @ rates.T * float(growth(np.array(drive))) / steps
    assert spread.at(np.full(3, drive)) == pytest.approx(stepped, rel=1e-3, abs=1e-6)


def test_blood_rises_with_the_drive_and_levels_off() -> None:
    spread = Spread.of(blood("left_lentiform"))
    drives = np.linspace(0, 12, 60)[None]
    course = spread.at(drives)[0]
    assert (np.diff(course, axis=0) >= 0).all()
    assert course[0].sum() == pytest.approx(12)
    assert course[-1].sum() < 12 * np.exp(MOST_GROWTH)
    assert float(growth(np.array(1e-6))) == pytest.approx(1e-6, rel=1e-5)


@given(st.floats(0, 10))
def test_drive_and_growth_are_inverse(drive: float) -> None:
    assert float(drive_of(growth(np.array(drive)))) == pytest.approx(drive, rel=1e-6, abs=1e-9)


def test_threshold_is_where_the_sum_reaches_the_level() -> None:
    spread = Spread.of(blood("left_thalamus", "left_frontal", "brainstem"))
    tissue = ~REGIONS.is_kind("ventricle")
    sums = spread.summed(np.stack([tissue, ~tissue], axis=1).astype(float))
    level = np.array([14.0, 15.5, 16.0])
    least = sums.threshold(0, level)
    assert sums.at(least)[:, 0] == pytest.approx(level, rel=1e-9)
    assert np.isinf(sums.threshold(0, np.full(3, 500.0))).all()


@pytest.mark.parametrize("hazard", [0.05, 0.7, 2.5])
@pytest.mark.parametrize("rise", [0.02, 0.3, 1.1])
def test_chance_of_jumps_is_that_of_simulated_ones(hazard: float, rise: float) -> None:
    rng = np.random.default_rng([4, 1])
    count = 200_000
    number = rng.poisson(hazard, count)
    total = np.where(number > 0, rng.gamma(np.maximum(number, 1), JUMP), 0.0)
    said = float(jumps_at_least(np.array([rise]), np.array([hazard]))[0])
    assert abs((total >= rise).mean() - said) < 4.5 * np.sqrt(said * (1 - said) / count)


@given(st.floats(0, 3), st.floats(1e-3, 3), st.floats(0, 3))
def test_chance_of_jumps_is_a_chance_and_monotone(rise: float, hazard: float, more: float) -> None:
    def chance(rise: float, hazard: float) -> float:
        return float(jumps_at_least(np.array([rise]), np.array([hazard]))[0])

    assert 0 <= chance(rise, hazard) <= 1
    assert chance(rise + more, hazard) <= chance(rise, hazard) + 1e-12
    assert chance(rise, hazard + more) >= chance(rise, hazard) - 1e-9
    assert chance(-rise, hazard) == 1
    assert chance(float("inf"), hazard) == 0
    assert chance(rise + 1e-9, 0.0) == 0
