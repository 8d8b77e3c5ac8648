"""The best reader of the chart: its chances are right, and worth more than the admission and less than the truth."""

from __future__ import annotations

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.dynamics_admission import USUAL, admit, draw_tosses
from edgehem.export.cohorts.dynamics_course import follow
from edgehem.export.cohorts.dynamics_filter import AT_ONCE, foreseen, measure
from edgehem.export.cohorts.dynamics_outcome import conclude
from edgehem.export.cohorts.dynamics_spread import Spread


def test_its_chances_are_the_frequencies_and_the_chart_is_worth_reading() -> None:
    parts = []
    for number in range(512 // AT_ONCE):
        rng = np.random.default_rng([14, number])
        people = admit(rng, AT_ONCE, USUAL)
        tosses = draw_tosses(rng, AT_ONCE)
        spread = Spread.of(people.blood)
        course = follow(people, USUAL, tosses, spread)
        ended = conclude(people, spread, course, tosses.person["outcome"])
        read = foreseen(people, USUAL, spread, course, rng)["expansion"]
        parts.append([ended.labels["expansion"], ended.chance["expansion"], read, ended.untorn])
    label, ceiling, read, untorn = (np.concatenate(some) for some in zip(*parts, strict=True))
    whole = label.astype(np.int64)
    # A posterior is calibrated, group by group, against the labels and against the chances given all.
    for group in np.array_split(np.argsort(read, kind="stable"), 4):
        error = np.sqrt((read[group] * (1 - read[group])).sum()) / len(group)
        assert abs(whole[group].mean() - read[group].mean()) < 4 * error
        assert abs(ceiling[group].mean() - read[group].mean()) < 4 * error
    assert concordance(whole, untorn) + 0.02 < concordance(whole, read) < concordance(whole, ceiling)


def test_it_measures_the_same_again_and_needs_patients() -> None:
    assert measure(64, seed=2) == measure(64, seed=2)
    with pytest.raises(UsageError, match="needs patients"):
        measure(0)
