"""The frame of cohorts: blocks, variants, seeds, and what a cohort is held to."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehem.errors import UsageError
from edgehem.export.cohorts.core import (
    BLOCK,
    UNKNOWN,
    Cohort,
    CohortError,
    Column,
    Label,
    Patients,
    Variant,
    lose,
    reader_noise,
    sigmoid,
    tidy,
    toss,
)


class Coins(Cohort):
    """A biased coin for each patient; what is seen of the bias is one rounded number and one word."""

    name = "coins"
    version = "1"
    what = "Coins."
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="bias", kind="real", what="Of the coin.", low=-3, high=3, digits=1),
        Column(name="metal", kind="category", what="Of the coin.", values=("gold", "tin")),
    )
    labels: ClassVar[tuple[Label, ...]] = (Label(name="head", what="Up."),)
    train = 100
    test = 50

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        bias = rng.normal(1 if shifted else 0, 1, BLOCK)
        metal = lose(rng, np.where(rng.random(BLOCK) < 0.5, "gold", "tin"), 0.1)
        chance = sigmoid(bias)
        head = toss(rng, chance)
        seen = np.where(rng.random(BLOCK) < 0.1, UNKNOWN, head)
        return Patients(
            inputs=tidy(self.columns, {"bias": lose(rng, bias, 0.2), "metal": metal}),
            labels={"head": seen},
            complete={"head": head},
            chance={"head": chance},
            truth={"path": rng.random((BLOCK, 3))},
        )


def same(a: Patients, b: Patients) -> bool:
    return all(
        np.array_equal(
            getattr(a, part)[name], getattr(b, part)[name], equal_nan=getattr(a, part)[name].dtype.kind == "f"
        )
        for part in ("inputs", "labels", "chance", "truth", "complete")
        for name in getattr(a, part)
    ) and np.array_equal(a.seeds, b.seeds)


@given(first=st.integers(0, 3 * BLOCK), count=st.integers(1, 2 * BLOCK), seed=st.integers(0, 5))
def test_a_patient_is_the_same_however_the_cohort_is_cut(first: int, count: int, seed: int) -> None:
    for variant in Variant:
        whole = Coins().draw(first + count, seed=seed, variant=variant)
        assert same(Coins().draw(count, seed=seed, variant=variant, first=first), whole.take(slice(first, None)))


def test_readers_noise_belongs_to_the_patient() -> None:
    whole = reader_noise(Coins().draw(40), 7, 2)
    assert whole.shape == (40, 2)
    np.testing.assert_array_equal(reader_noise(Coins().draw(10, first=30), 7, 2), whole[30:])
    assert not np.array_equal(reader_noise(Coins().draw(40), 8, 2), whole)
    assert abs(reader_noise(Coins().draw(2000), 7).std() - 1) < 0.06


def test_seeds_and_places_differ() -> None:
    drawn = [Coins().draw(50, seed=seed) for seed in (0, 1)] + [Coins().draw(50, variant=Variant.SHIFTED)]
    biases = [patients.truth["path"][0, 0] for patients in drawn]
    assert len(set(biases)) == 3
    assert len({int(patients.seeds[0]) for patients in drawn}) == 3


def test_the_null_cohort_has_the_inputs_but_the_labels_of_others() -> None:
    planted, null = (Coins().draw(20_000, seed=3, variant=variant) for variant in (Variant.PLANTED, Variant.NULL))
    np.testing.assert_array_equal(planted.inputs["bias"], null.inputs["bias"])
    np.testing.assert_array_equal(planted.seeds, null.seeds)
    bias = np.nan_to_num(planted.inputs["bias"])
    assert np.corrcoef(bias, planted.outcome("head"))[0, 1] > 0.3
    assert abs(np.corrcoef(bias, null.outcome("head"))[0, 1]) < 3.3 / np.sqrt(20_000)
    # The mix of labels is that of the planted cohort, those lost among them.
    assert abs(null.outcome("head").mean() - planted.outcome("head").mean()) < 0.015
    assert abs((null.labels["head"] == UNKNOWN).mean() - 0.1) < 0.01
    # A chance that differed between blocks would know something of their labels.
    assert len(np.unique(null.chance["head"])) == 1
    assert abs(null.chance["head"][0] - planted.outcome("head").mean()) < 0.03


def test_tidy_writes_what_is_drawn() -> None:
    columns = (
        Column(name="a", kind="real", what="", low=0, high=9, digits=1),
        Column(name="b", kind="count", what="", low=0, high=9),
    )
    out = tidy(columns, {"b": np.array([2.4, 99, np.nan]), "a": np.array([-0.01, 3.14159, np.nan])})
    assert list(out) == ["a", "b"]
    np.testing.assert_array_equal(out["a"], [0, 3.1, np.nan])
    np.testing.assert_array_equal(out["b"], [2, 9, np.nan])
    signed = tidy((Column(name="a", kind="real", what="", digits=1),), {"a": np.array([-0.04])})
    assert not np.signbit(signed["a"][0]), "-0.0 is written otherwise than 0.0"


def spoilt(part: str, name: str, values: object) -> type[Cohort]:
    class Spoilt(Coins):
        def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
            drawn = super().block(rng, shifted)
            getattr(drawn, part)[name] = values
            return drawn

    return Spoilt


@pytest.mark.parametrize(
    ("part", "name", "values", "said"),
    [
        ("inputs", "bias", np.full(BLOCK, 3.5), "bias leaves -3 to 3"),
        ("inputs", "bias", np.full(BLOCK, 0.25), "more decimals"),
        ("inputs", "bias", np.zeros(BLOCK, int), "int64, not float64"),
        ("inputs", "metal", np.full(BLOCK, "lead"), "metal holds lead"),
        ("inputs", "more", np.zeros(BLOCK), "inputs are not the columns"),
        ("labels", "head", np.full(BLOCK, 2), "class outside 0 to 1"),
        ("complete", "head", np.full(BLOCK, UNKNOWN), "not the label before"),
        ("chance", "head", np.full(BLOCK, 1.01), "leaves 0 to 1"),
        ("chance", "head", np.full(BLOCK, np.nan), "leaves 0 to 1"),
        ("chance", "head", np.zeros((BLOCK, 2)), "shape"),
        ("truth", "path", np.zeros(3), "3 rows"),
    ],
)
def test_a_cohort_is_held_to_what_it_says(part: str, name: str, values: object, said: str) -> None:
    with pytest.raises(CohortError, match=said):
        spoilt(part, name, values)().draw(1)


def test_nobody_cannot_be_drawn() -> None:
    with pytest.raises(UsageError):
        Coins().draw(0)
    with pytest.raises(UsageError):
        Coins().draw(1, first=-1)
