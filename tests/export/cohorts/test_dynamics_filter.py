"""The best reader of the chart: its chances are right, and it knows less than the truth."""

from __future__ import annotations

import numpy as np
import pytest

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import Nearer
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.dynamics_admission import USUAL, admit, draw_tosses
from edgehem.export.cohorts.dynamics_course import follow
from edgehem.export.cohorts.dynamics_filter import AT_ONCE, Texture, foreseen, nearer, repaired
from edgehem.export.cohorts.dynamics_outcome import conclude
from edgehem.export.cohorts.dynamics_signs import cuff_repaired, cuff_spoilt, probe_repaired, probe_spoilt
from edgehem.export.cohorts.dynamics_spread import Spread


def test_its_chances_are_the_frequencies_and_it_knows_less_than_the_truth() -> None:
    parts = []
    for number in range(768 // AT_ONCE):
        rng = np.random.default_rng([14, number])
        people = admit(rng, AT_ONCE, USUAL)
        tosses = draw_tosses(rng, AT_ONCE)
        spread = Spread.of(people.blood)
        course = follow(people, USUAL, tosses, spread)
        ended = conclude(people, spread, course, tosses.person["outcome"])
        texture = Texture.draw(rng, people.frailty)
        read = foreseen(people, USUAL, spread, repaired(course, tosses), course, texture, rng)["expansion"]
        parts.append([ended.labels["expansion"], ended.chance["expansion"], read])
    label, ceiling, read = (np.concatenate(some) for some in zip(*parts, strict=True))
    whole = label.astype(np.int64)
    # A posterior is calibrated, group by group, against the labels and against the chances given all.
    for group in np.array_split(np.argsort(read, kind="stable"), 6):
        error = np.sqrt((read[group] * (1 - read[group])).sum()) / len(group)
        assert abs(whole[group].mean() - read[group].mean()) < 3.5 * error
        assert abs(ceiling[group].mean() - read[group].mean()) < 3.5 * error
    assert 0.8 < concordance(whole, read) < concordance(whole, ceiling) - 0.02


def test_artefacts_can_be_undone() -> None:
    rng = np.random.default_rng(3)
    toss, value = rng.random(5000), rng.uniform(80, 200, 5000)
    for spoilt, repair in ((cuff_spoilt, cuff_repaired), (probe_spoilt, probe_repaired)):
        flawed = spoilt(value, toss)
        assert 0.01 < (flawed != value).mean() < 0.05
        np.testing.assert_allclose(repair(flawed, toss), value)


def test_it_measures_the_same_again_and_needs_patients() -> None:
    def told(found: list[Nearer]) -> list[tuple[str, list[int], list[float]]]:
        return [(one.label, one.outcome.tolist(), one.chance.tolist()) for one in found]

    assert told(nearer(40, seed=2)) == told(nearer(40, seed=2))
    assert len(nearer(40, seed=2)[0].chance) == 40
    with pytest.raises(UsageError, match="needs patients"):
        nearer(0)
