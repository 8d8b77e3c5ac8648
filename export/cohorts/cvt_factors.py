"""Factors: features that are drawn from tables of chances, so that Bayes' rule has an exact answer.

Every feature lives on the lattice that the training table writes it on, and has a chance for each of its values, given
the cause and, for some, given a level of other features. Nothing is lost by rounding, and the posterior of the causes
is a product of looked-up numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, Values

Index = npt.NDArray[np.int64]
Group = Literal["clinical", "texture", "shape", "location"]
IMAGE: tuple[Group, ...] = ("texture", "shape", "location")
"""Groups of factors that a CT shows."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A coarse view of one or two features, which others depend on: a lobe, a band of volumes.

    Parameters
    ----------
    name : str
    of : tuple of str
        Features without parents of their own.
    count : int
        Levels are 0 to `count` - 1.
    of_values : callable
        Levels [...] of the features' values, given as arrays that broadcast.
    """

    name: str
    of: tuple[str, ...]
    count: int
    of_values: Callable[..., Index]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A feature and its chances.

    Parameters
    ----------
    name : str
    group : str
    values : array [K]
        The lattice, float64, or names.
    chances : float64 array [levels of the parents ..., causes, K]
        Positive or zero, adding up to 1 over K.
    parents : tuple of str
        Names of levels.
    """

    name: str
    group: Group
    values: Values
    chances: Float
    parents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.chances.ndim != len(self.parents) + 2 or self.chances.shape[-1] != len(self.values):
            raise ValueError(f"{self.name}: chances {self.chances.shape} do not fit its parents and values")
        if (self.chances < 0).any() or not np.allclose(self.chances.sum(axis=-1), 1, rtol=0, atol=1e-9):
            raise ValueError(f"{self.name}: chances do not add up to 1")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Causes, and what follows from them.

    Parameters
    ----------
    causes : tuple of str
    prior : float64 array [C]
    factors : tuple of Factor
        Parents before their children.
    levels : tuple of Level
    """

    causes: tuple[str, ...]
    prior: Float
    factors: tuple[Factor, ...]
    levels: tuple[Level, ...]
    _factor: dict[str, Factor] = field(init=False, repr=False)
    _level: dict[str, Level] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_factor", {factor.name: factor for factor in self.factors})
        object.__setattr__(self, "_level", {level.name: level for level in self.levels})
        for factor in self.factors:
            counts = tuple(self._level[parent].count for parent in factor.parents)
            if factor.chances.shape[:-1] != (*counts, len(self.causes)):
                raise ValueError(f"{factor.name}: chances {factor.chances.shape} do not fit levels and causes")
            for parent in factor.parents:
                for source in self._level[parent].of:
                    if self._factor[source].parents:
                        raise ValueError(f"{factor.name}: its parent {source} has parents")

    def names(self, *groups: Group) -> tuple[str, ...]:
        """Names of the factors of some groups."""
        return tuple(factor.name for factor in self.factors if factor.group in groups)

    def values(self, drawn: Mapping[str, Index], name: str) -> Values:
        """A feature as the table writes it, array [N]."""
        return np.asarray(self._factor[name].values[drawn[name]])

    def draw(self, rng: np.random.Generator, cause: Index) -> dict[str, Index]:
        """Draw every feature.

        Parameters
        ----------
        rng : numpy.random.Generator
        cause : int64 array [N]

        Returns
        -------
        dict of name to int64 array [N]
            Positions on the lattices.
        """
        drawn: dict[str, Index] = {}
        for factor in self.factors:
            chances = factor.chances[(*(self._of(parent, drawn) for parent in factor.parents), cause)]  # [N, K]
            reached = np.cumsum(chances, axis=1) <= rng.random((len(cause), 1))
            # A sum that ends just under 1 must not lead past the last value that can be.
            last = chances.shape[1] - 1 - np.argmax(chances[:, ::-1] > 0, axis=1)
            drawn[factor.name] = np.minimum(reached.sum(axis=1), last)
        return drawn

    def posterior(
        self,
        drawn: Mapping[str, Index],
        seen: Collection[str],
        *,
        lost: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> Float:
        """Chances of the causes given some of the features, by Bayes' rule: float64 [N, C].

        Parameters
        ----------
        drawn : mapping of name to int64 array [N]
        seen : collection of str
            Features that are known. A parent that is not among them is summed over, exactly.
        lost : mapping of name to bool array [N], optional
            Patients in whom a feature was not measured, for reasons that say nothing of the cause beyond what is seen.
            Only features that no other depends on.

        Raises
        ------
        ValueError
            If the sum would not be exact: one unseen parent of two features, one seen in part, or a lost one.
        """
        count = len(next(iter(drawn.values())))
        log = np.broadcast_to(np.log(self.prior), (count, len(self.causes))).copy()
        summed: list[str] = []
        if strange := set(seen) - self._factor.keys():
            raise ValueError(f"no such features: {', '.join(sorted(strange))}")
        for factor in self.factors:
            if factor.name not in seen:
                continue
            chance = np.moveaxis(factor.chances[..., drawn[factor.name]], -1, 0)  # [N, levels ..., C]
            for parent in factor.parents:
                level = self._level[parent]
                if lost and not lost.keys().isdisjoint(level.of):
                    raise ValueError(f"{factor.name} depends on {parent}, which was lost in some")
                if set(level.of) <= set(seen):
                    chance = chance[np.arange(count), self._of(parent, drawn)]
                else:
                    if not set(level.of).isdisjoint(seen):
                        raise ValueError(f"{factor.name} depends on {parent}, of which one feature is seen and one not")
                    summed += level.of
                    share = self._shares(level).T  # [levels, C]
                    others = (1,) * (chance.ndim - 3)
                    chance = (chance * share.reshape(level.count, *others, -1)).sum(axis=1)
            with np.errstate(divide="ignore"):
                term = np.log(chance)
            if lost and factor.name in lost:
                term = np.where(lost[factor.name][:, None], 0.0, term)
            log += term
        if len(summed) != len(set(summed)):
            raise ValueError(f"two features depend on one that is not seen: {', '.join(summed)}")
        weight = np.exp(log - log.max(axis=1, keepdims=True))
        return np.asarray(weight / weight.sum(axis=1, keepdims=True), np.float64)

    def _of(self, level: str, drawn: Mapping[str, Index]) -> Index:
        found = self._level[level]
        return np.asarray(found.of_values(*(self.values(drawn, name) for name in found.of)), np.int64)

    def _shares(self, level: Level) -> Float:
        """Chance of each level given the cause, float64 [C, levels]."""
        sources = [self._factor[name] for name in level.of]
        axes = np.meshgrid(*(source.values for source in sources), indexing="ij", sparse=True)
        of = np.broadcast_to(level.of_values(*axes), [len(source.values) for source in sources]).ravel()
        joint = np.ones((len(self.causes), 1))
        for source in sources:
            joint = (joint[:, :, None] * source.chances[:, None, :]).reshape(len(self.causes), -1)
        return np.stack([joint[:, of == value].sum(axis=1) for value in range(level.count)], axis=1)


def lattice(low: float, high: float, step: float) -> Float:
    """Values from `low` to `high`, both included, as a table with enough decimals reads them back."""
    digits = max(0, -int(np.floor(np.log10(step))))
    return np.asarray(np.round(low + step * np.arange(round((high - low) / step) + 1), digits), np.float64)


def normal(values: Float, means: Sequence[float], spreads: Sequence[float]) -> Float:
    """Normal density on a lattice, adding up to 1: float64 [causes, K]."""
    mean, spread = np.asarray(means, np.float64)[:, None], np.asarray(spreads, np.float64)[:, None]
    return _shared(np.exp(-0.5 * ((values - mean) / spread) ** 2))


def lognormal(values: Float, medians: Sequence[float], spreads: Sequence[float]) -> Float:
    """Lognormal density on a lattice of positive values, adding up to 1: float64 [causes, K]; logarithmic spreads."""
    median, spread = np.asarray(medians, np.float64)[:, None], np.asarray(spreads, np.float64)[:, None]
    return _shared(np.exp(-0.5 * (np.log(values / median) / spread) ** 2) / values)


def yes(*chances: Sequence[float]) -> Float:
    """Chances of 0 and 1 from those of 1 for each cause, a row for each level: float64 [levels, causes, 2].

    One row alone is no level: float64 [causes, 2].
    """
    one = np.asarray(chances, np.float64)
    table = np.stack([1 - one, one], axis=-1)
    return table[0] if len(one) == 1 else table


def _shared(weights: Float) -> Float:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)
