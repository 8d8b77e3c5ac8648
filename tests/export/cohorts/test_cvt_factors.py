"""Factors and Bayes' rule, against a full enumeration of a small network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgehem.export.cohorts.cvt_factors import Factor, Level, Network, lattice, lognormal, normal, yes


def _random(rng, *shape):
    table = rng.random(shape) + 0.05
    return table / table.sum(axis=-1, keepdims=True)


def _network(seed: int) -> Network:
    """Two causes; a, b and c without parents; d depends on a, e on a band of b, f on b's twin c and on a."""
    rng = np.random.default_rng(seed)
    return Network(
        causes=("one", "two"),
        prior=np.array([0.3, 0.7]),
        factors=(
            Factor(name="a", group="location", values=lattice(0, 1, 1), chances=_random(rng, 2, 2)),
            Factor(name="b", group="texture", values=lattice(0, 3, 1), chances=_random(rng, 2, 4)),
            Factor(name="c", group="shape", values=lattice(0, 2, 1), chances=_random(rng, 2, 3)),
            Factor(
                name="d", group="clinical", values=lattice(0, 2, 1), chances=_random(rng, 2, 2, 3), parents=("of_a",)
            ),
            Factor(
                name="e", group="clinical", values=lattice(0, 1, 1), chances=_random(rng, 2, 2, 2), parents=("of_b",)
            ),
            Factor(
                name="f",
                group="clinical",
                values=lattice(0, 1, 1),
                chances=_random(rng, 3, 2, 2, 2),
                parents=("of_c", "of_a"),
            ),
        ),
        levels=(
            Level(name="of_a", of=("a",), count=2, of_values=lambda a: np.asarray(a, np.int64)),
            Level(name="of_b", of=("b",), count=2, of_values=lambda b: np.asarray(b >= 2, np.int64)),
            Level(name="of_c", of=("c",), count=3, of_values=lambda c: np.asarray(c, np.int64)),
        ),
    )


def _joint(net: Network) -> dict[tuple[int, ...], np.ndarray]:
    """Chance of each cause with each combination of a to f, written out."""
    by = {factor.name: factor.chances for factor in net.factors}
    out = {}
    for a, b, c, d, e, f in itertools.product(range(2), range(4), range(3), range(3), range(2), range(2)):
        out[a, b, c, d, e, f] = (
            net.prior
            * by["a"][:, a]
            * by["b"][:, b]
            * by["c"][:, c]
            * by["d"][a, :, d]
            * by["e"][int(b >= 2), :, e]
            * by["f"][c, a, :, f]
        )
    return out


@pytest.mark.parametrize("seen", ["abcdef", "abc", "ad", "d", "e", "de", "abe", "af", "cf", "acf", "abdf"])
def test_the_posterior_is_the_enumerated_one(seen):
    net = _network(1)
    joint = _joint(net)
    index = np.array(list(joint))
    drawn = {name: index[:, k] for k, name in enumerate("abcdef")}
    found = net.posterior(drawn, set(seen))
    keep = ["abcdef".index(name) for name in seen]
    for row, at in enumerate(index):
        weight = sum(chance for key, chance in joint.items() if all(key[k] == at[k] for k in keep))
        np.testing.assert_allclose(found[row], weight / weight.sum(), rtol=1e-12)


def test_a_lost_feature_tells_nothing():
    net = _network(2)
    drawn = net.draw(np.random.default_rng(0), np.zeros(50, np.int64))
    lost = np.arange(50) % 2 == 0
    mixed = net.posterior(drawn, "abcdef", lost={"e": lost})
    np.testing.assert_allclose(mixed[lost], net.posterior(drawn, "abcdf")[lost])
    np.testing.assert_allclose(mixed[~lost], net.posterior(drawn, "abcdef")[~lost])


def test_what_is_not_exact_is_refused():
    net = _network(3)
    drawn = net.draw(np.random.default_rng(0), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="two features depend"):
        net.posterior(drawn, "df")
    with pytest.raises(ValueError, match="which was lost"):
        net.posterior(drawn, "ad", lost={"a": np.ones(4, np.bool_)})
    with pytest.raises(ValueError, match="no such features: z"):
        net.posterior(drawn, "az")


def test_draws_follow_the_tables():
    net = _network(4)
    rng = np.random.default_rng(5)
    cause = np.asarray(rng.random(200_000) < 0.7, np.int64)
    drawn = net.draw(rng, cause)
    joint = _joint(net)
    seen = np.zeros((2, 2, 4, 3, 3, 2, 2))
    np.add.at(seen, (cause, *(drawn[name] for name in "abcdef")), 1 / len(cause))
    expected = np.array([[joint[key][k] for key in joint] for k in range(2)]).reshape(seen.shape)
    spread = np.sqrt(expected * (1 - expected) / len(cause))
    deviation = (seen - expected) / spread
    assert np.abs(deviation).max() < 5
    assert 0.85 < deviation.std() < 1.15


def test_impossible_values_are_never_drawn():
    chances = np.array([[0.0, 0.5, 0.5, 0.0]])
    factor = Factor(name="x", group="shape", values=lattice(0, 3, 1), chances=chances)
    net = Network(causes=("only",), prior=np.ones(1), factors=(factor,), levels=())

    class Last:
        """A generator at the end of its range."""

        def random(self, shape):
            return np.full(shape, np.nextafter(1.0, 0))

    assert net.draw(Last(), np.zeros(3, np.int64))["x"].tolist() == [2, 2, 2]
    drawn = net.draw(np.random.default_rng(0), np.zeros(1000, np.int64))["x"]
    assert set(drawn.tolist()) == {1, 2}


def test_tables_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="do not add up"):
        Factor(name="x", group="shape", values=lattice(0, 1, 1), chances=np.array([[0.5, 0.6]]))
    with pytest.raises(ValueError, match="do not fit its parents"):
        Factor(name="x", group="shape", values=lattice(0, 2, 1), chances=np.array([[0.5, 0.5]]))
    parent = Factor(name="p", group="shape", values=lattice(0, 1, 1), chances=yes((0.2,), (0.3,)), parents=("of_x",))
    x = Factor(name="x", group="shape", values=lattice(0, 1, 1), chances=yes((0.5,)))
    child = Factor(name="y", group="shape", values=lattice(0, 1, 1), chances=yes((0.2,), (0.3,)), parents=("of_p",))
    levels = tuple(
        Level(name=f"of_{name}", of=(name,), count=2, of_values=lambda v: np.asarray(v, np.int64)) for name in "xp"
    )
    with pytest.raises(ValueError, match="its parent p has parents"):
        Network(causes=("only",), prior=np.ones(1), factors=(x, parent, child), levels=levels)


def test_lattices_read_back_from_text():
    for values in (lattice(0.1, 30, 0.1), lattice(40, 85, 0.5), lattice(0, 1, 0.02)):
        assert [float(f"{v:.2f}") for v in values] == values.tolist()
        assert np.all(np.diff(values) > 0)
    table = normal(lattice(0, 100, 1), (40, 60), (10, 5))
    np.testing.assert_allclose(table @ lattice(0, 100, 1), (40, 60), atol=1e-2)
    skewed = lognormal(lattice(0.1, 200, 0.1), (5.0,), (0.5,))
    assert lattice(0.1, 200, 0.1)[np.searchsorted(np.cumsum(skewed[0]), 0.5)] == pytest.approx(5, abs=0.1)
