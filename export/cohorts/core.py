"""What every cohort is: columns with units, labels, three variants, and blocks of patients drawn from a seed.

A cohort draws causes first, then what can be seen of them, then the outcome, and keeps the probability that it tossed
the outcome with: the ceiling is known, not estimated from the model that is to be judged by it.

For the ceiling to hold, everything that can be seen (values, what is missing, files) may follow from causes and from
the chance, but never from the toss: what is drawn after it would tell more than the chance does. Only labels may be
lost by it.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgehem.errors import EdgehemError, UsageError

Float = npt.NDArray[np.float64]
Values = npt.NDArray[Any]

BLOCK = 256
"""Patients drawn together. A cohort's first patients are the same whatever its size, and blocks run in parallel."""
UNKNOWN = -1
"""A label that nobody knows: lost to follow-up. Written as an empty cell."""
PARTS = ("inputs", "labels", "chance", "truth", "complete")
"""The mappings of :class:`Patients`."""
PREVALENCE_BLOCKS = 8
"""Blocks that the flat chance of the null cohort is the mean of (ours: 2,048 patients, a standard error near 0.01)."""


class CohortError(EdgehemError, ValueError):
    """A generator broke what it says of itself: a fault of the project, not of the user."""


class Variant(str, Enum):
    """Which cohort of a kind.

    ``planted`` is the exam. ``null`` has the same inputs and the same mix of labels, each patient's labels being
    somebody else's: nothing can be learned, and any claimed gain is a leak. ``shifted`` is another place: other
    prevalence, other instruments, other habits of measuring.
    """

    PLANTED = "planted"
    NULL = "null"
    SHIFTED = "shifted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An input of the training table.

    Parameters
    ----------
    name : str
        As in the table and in the clinical schema.
    kind : str
        ``real``, ``count``, ``binary`` (0 or 1) or ``category`` (one of `values`).
    what : str
        A sentence for people.
    unit : str
    low, high : float
        Range of a real or a count: drawn values are clipped to it.
    digits : int
        Decimals that a real is written with; what is drawn is rounded to them, so that the table holds what was drawn.
    values : tuple of str
        Of a category.
    source : str
        ``clinic``, or ``image``: read by a person from an image of the same moment.
    report_only : bool
        Follows by a rule from other columns and is shown to people; no model is given it.
    """

    name: str
    kind: Literal["real", "count", "binary", "category"]
    what: str
    unit: str = ""
    low: float = -np.inf
    high: float = np.inf
    digits: int = 1
    values: tuple[str, ...] = ()
    source: Literal["clinic", "image"] = "clinic"
    report_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is to be predicted.

    Parameters
    ----------
    name, what : str
    classes : int
        2: 0 or 1. More: classes from 0.
    ordered : bool
        Whether a higher class is a worse one; of two classes it does not matter.
    """

    name: str
    what: str
    classes: int = 2
    ordered: bool = True


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Some patients, column by column.

    Parameters
    ----------
    inputs : mapping of column to array [N]
        float64, NaN where it was not measured; an array of str for a category, empty where unknown.
    labels : mapping of label to int64 array [N]
        :data:`UNKNOWN` where nobody knows.
    chance : mapping of label to float64 array [N]
        Of every label with two classes: the probability of 1, given all that the inputs, files and images are made
        from, before anything was lost or blurred. No score of the inputs can have a larger expected AUC. A label with
        more classes may have its probabilities here, [N, classes].
    truth : mapping of name to array [N, ...]
        What is hidden: causes, and what files are written from. Never an input.
    complete : mapping of label to int64 array [N]
        The labels before anybody was lost to follow-up, of labels that were lost for some. The examiner judges by them;
        nobody trains on them.
    seeds : int64 array [N]
        One for each patient, the same however the cohort is cut: of a reader's noise, and of the noise in files. Filled
        in by :meth:`Cohort.draw`; a block leaves it empty.
    """

    inputs: Mapping[str, Values]
    labels: Mapping[str, npt.NDArray[np.int64]]
    chance: Mapping[str, Float]
    truth: Mapping[str, Values] = field(default_factory=dict)
    complete: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    seeds: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def outcome(self, label: str) -> npt.NDArray[np.int64]:
        """A label as the examiner knows it: nobody is lost, int64 [N]."""
        return self.complete.get(label, self.labels[label])

    def take(self, rows: npt.NDArray[np.intp] | slice) -> Patients:
        """Some of them."""
        parts = {part: {name: values[rows] for name, values in getattr(self, part).items()} for part in PARTS}
        return Patients(**parts, seeds=self.seeds[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A ceiling for who sees only a part, or more: a chance of a label that the truth holds.

    Parameters
    ----------
    label : str
    truth : str
        Name in :attr:`Patients.truth`: float64 [N].
    what : str
        Who knows it, in words.
    """

    label: str
    truth: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Nearer:
    """A bound below the ceiling: chances given less than everything, but all that any model may see.

    Parameters
    ----------
    label, what : str
        Of which label; who knows so much, in words.
    outcome : int64 array [N]
    chance : float64 array [N]
    """

    label: str
    what: str
    outcome: npt.NDArray[np.int64]
    chance: Float


class Cohort(ABC):
    """A kind of cohort.

    Attributes
    ----------
    name : str
    version : str
        Raised whenever the same seed would give other patients.
    what : str
        A sentence for people.
    columns : tuple of Column
    labels : tuple of Label
    train, test : int
        Patients that the system's publication had, or that are usual.
    examined : int
        Patients that the exam draws to train on, and again to test on: fewer where :meth:`features` is slow, never
        fewer than `train` or `test`.
    paths : tuple of str
        Path columns of the training table that :meth:`write_files` fills: ``ct``, ``mask``, ``mr``, ``ecg``,
        ``series``, ``text``.
    parts : tuple of Part
        Ceilings beside that of everything.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    what: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    labels: ClassVar[tuple[Label, ...]]
    train: ClassVar[int]
    test: ClassVar[int]
    examined: ClassVar[int] = 25_000
    paths: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[Part, ...]] = ()

    @abstractmethod
    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """Draw :data:`BLOCK` patients, of the usual place or of the other one; every random number comes from `rng`."""

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write one patient's files into an existing folder; their names there, by path column.

        Parameters
        ----------
        patients : Patients
        row : int
            Which of them.
        out : Path
        seed : int
            Of the noise of this patient's files: one of ``patients.seeds``.
        """
        return {}

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """What a simple reader measures in the files, as further inputs of the reference models: float64 [N] by name.

        The default has none. It must read what a patient's files would show, never `truth` itself. A reader's noise
        comes from ``patients.seeds`` (:func:`reader_noise`), so that a patient reads the same in every draw.
        """
        return {}

    def nearer(self, count: int, *, seed: int = 0, shifted: bool = False) -> list[Nearer]:
        """Bounds nearer than the ceiling, where one can be computed, on patients of their own; the default has none."""
        return []

    def draw(self, count: int, *, seed: int = 0, variant: Variant = Variant.PLANTED, first: int = 0) -> Patients:
        """Draw patients.

        Parameters
        ----------
        count : int
        seed : int
        variant : Variant
        first : int
            Number of the first one: patients ``first`` to ``first + count`` of an endless cohort.

        Raises
        ------
        UsageError
            If `count` is not positive.
        """
        if count < 1 or first < 0:
            raise UsageError("a cohort has one patient at least")
        blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
        drawn = _joined([self._block(number, seed, variant) for number in blocks])
        begin = first - blocks[0] * BLOCK
        return drawn.take(slice(begin, begin + count))

    def _block(self, number: int, seed: int, variant: Variant) -> Patients:
        place = zlib.crc32(f"{self.name} {self.version}".encode())
        shifted = variant is Variant.SHIFTED
        drawn = self.block(np.random.default_rng([seed, number, place, shifted]), shifted)
        self._check(drawn)
        seeds = np.random.default_rng([seed, number, place, 3, shifted]).integers(0, 2**48, BLOCK)
        if variant is not Variant.NULL:
            return replace(drawn, seeds=seeds)
        # Labels of other people, drawn by themselves: their mix is that of the exam, and inputs say nothing of them.
        others = self.block(np.random.default_rng([seed, number, place, 2]), False)
        return Patients(
            inputs=drawn.inputs,
            labels=others.labels,
            # One number for all: that of its own block would know something of the block's labels.
            chance={name: np.full((BLOCK, *mean.shape), mean) for name, mean in self._prevalence.items()},
            truth=drawn.truth,
            complete=others.complete,
            seeds=seeds,
        )

    @cached_property
    def _prevalence(self) -> dict[str, Float]:
        place = zlib.crc32(f"{self.name} {self.version}".encode())
        blocks = [self.block(np.random.default_rng([k, 0, place, 4]), False).chance for k in range(PREVALENCE_BLOCKS)]
        return {name: np.mean([block[name].mean(axis=0) for block in blocks], axis=0) for name in blocks[0]}

    def _check(self, drawn: Patients) -> None:
        """Hold a block to what the cohort says of itself.

        Raises
        ------
        CohortError
        """
        from edgehem.export.cohorts.checks import problems_of

        problems = problems_of(self, drawn)
        if problems:
            raise CohortError(f"cohort {self.name}: {'; '.join(problems)}")


def _joined(parts: Sequence[Patients]) -> Patients:
    if len(parts) == 1:
        return parts[0]
    joined = {
        name: {key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in getattr(parts[0], name)}
        for name in PARTS
    }
    return Patients(**joined, seeds=np.concatenate([part.seeds for part in parts]))


def tidy(columns: Sequence[Column], values: Mapping[str, Values]) -> dict[str, Values]:
    """Inputs as a table holds them: clipped to their range, rounded to their decimals, in the order of the columns.

    Outcomes must be drawn from these, not from what was there before: what is lost in rounding is then lost to the
    ceiling, too.
    """
    out: dict[str, Values] = {}
    for column in columns:
        given = values[column.name]
        if column.kind == "category":
            out[column.name] = given
        else:
            digits = column.digits if column.kind == "real" else 0
            clipped = np.clip(np.asarray(given, np.float64), column.low, column.high)
            out[column.name] = np.round(clipped, digits) + 0.0  # no negative zero, which is written otherwise
    return out


def sigmoid(logit: Float) -> Float:
    """The logistic function."""
    return np.asarray(1 / (1 + np.exp(-logit)), np.float64)


def toss(rng: np.random.Generator, chance: Float) -> npt.NDArray[np.int64]:
    """1 with these chances, else 0."""
    return np.asarray(rng.random(len(chance)) < chance, np.int64)


def reader_noise(patients: Patients, purpose: int, count: int = 1) -> Float:
    """Standard normal numbers of each patient, float64 [N, count]: the same whoever else is drawn beside them."""
    drawn = [np.random.default_rng([seed, purpose]).standard_normal(count) for seed in patients.seeds.tolist()]
    return np.array(drawn, np.float64).reshape(len(drawn), count)


def lose(rng: np.random.Generator, values: Values, chance: Float | float) -> Values:
    """Values of which some were not measured: NaN, or empty for a category."""
    gone = rng.random(len(values)) < chance
    if values.dtype.kind in "US":
        return np.where(gone, "", values)
    return np.where(gone, np.nan, values)
