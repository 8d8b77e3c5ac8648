"""Ceilings beside that of everything: for who sees a part of it, and bounds that come nearer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Cohort, Float, Patients, Variant
from edgehem.export.cohorts.discrimination import NOT_SO_LIKELY, Interval, by_resampling, calibration
from edgehem.workers import ordered

Known = tuple[npt.NDArray[np.int64], Float]
"""Outcomes and chances of some patients."""


@dataclass(frozen=True, kw_only=True)
class PartRow:
    """A ceiling of a label for who sees something else than everything.

    Parameters
    ----------
    cohort, version, label : str
    what : str
        Who.
    patients, test : int
        Patients that the figure comes from; those of a test cohort of the own size.
    ceiling, shifted : Interval
        Here and at the other place, with the middle 95 % of test cohorts of the own size.
    p : float
        Of the deviation of outcomes from these chances.
    """

    cohort: str
    version: str
    label: str
    what: str
    patients: int
    test: int
    ceiling: Interval
    shifted: Interval
    p: float

    @property
    def wrong(self) -> bool:
        """Whether outcomes deviate from these chances more than luck would have it."""
        return self.p < NOT_SO_LIKELY


def examine_parts(
    cohorts: Sequence[Cohort], *, large: int, nearer: int, seed: int = 0, workers: int = 1
) -> list[PartRow]:
    """Ceilings of parts, and nearer bounds.

    Parameters
    ----------
    cohorts : sequence of Cohort
    large : int
        Patients of a draw: of two here, as the exam draws them, and of one at the other place.
    nearer : int
        Patients that a nearer bound is computed for, at either place.
    seed : int
    workers : int
        Processes, each with a cohort at a time; the result does not depend on them.
    """
    jobs = [(cohort, large, nearer, seed) for cohort in cohorts]
    made = ordered(_examine, jobs, workers) if workers > 1 else map(_examine, jobs)
    return [row for rows in made for row in rows]


def _examine(job: tuple[Cohort, int, int, int]) -> list[PartRow]:
    cohort, large, count, seed = job
    rows = []
    if cohort.parts:
        here = [cohort.draw(large, seed=10 * seed + stream) for stream in (0, 1)]
        there = [cohort.draw(large, seed=10 * seed + 2, variant=Variant.SHIFTED)]
        for part in cohort.parts:
            known = [_joined(some, part.label, part.truth) for some in (here, there)]
            rows.append(_row(cohort, part.label, part.what, known[0], known[1], seed))
    bounds = zip(cohort.nearer(count, seed=seed), cohort.nearer(count, seed=seed, shifted=True), strict=True)
    for usual, other in bounds:
        known = [(bound.outcome, bound.chance) for bound in (usual, other)]
        rows.append(_row(cohort, usual.label, usual.what, known[0], known[1], seed))
    return rows


def _joined(drawn: Sequence[Patients], label: str, truth: str) -> Known:
    return (
        np.concatenate([some.outcome(label) for some in drawn]),
        np.concatenate([np.asarray(some.truth[truth], np.float64) for some in drawn]),
    )


def _row(
    cohort: Cohort,
    label: str,
    what: str,
    here: Known,
    there: Known,
    seed: int,
) -> PartRow:
    return PartRow(
        cohort=cohort.name,
        version=cohort.version,
        label=label,
        what=what,
        patients=len(here[0]),
        test=cohort.test,
        ceiling=by_resampling(*here, cohort.test, seed),
        shifted=by_resampling(*there, cohort.test, seed),
        p=calibration(*here).p,
    )
