"""What a published gain on 83 patients says: ``python -m edgehem.export.cohorts.cvt_effects``.

Two scores are compared on the same test cohorts: the oracle of the planted image, without and with epilepsy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from edgehem.errors import UsageError
from edgehem.export.cohorts.cvt import Cvt
from edgehem.export.cohorts.discrimination import MIDDLE, concordance


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What epilepsy adds to the image's concordance.

    Parameters
    ----------
    of_all : float
        Over all patients drawn.
    low, high : float
        Middle 95 % of test cohorts of the own size.
    no_gain : float
        Share of these in which nothing is gained.
    """

    of_all: float
    low: float
    high: float
    no_gain: float


def epilepsy_gain(count: int = 50_000, *, tests: int = 4_000, seed: int = 0) -> Gain:
    """Draw patients of the usual place, and test cohorts from them.

    Parameters
    ----------
    count, tests : int
        Patients, and test cohorts of :attr:`Cvt.test` of them, drawn with replacement.
    seed : int

    Raises
    ------
    UsageError
        If there are too few.
    """
    if count < Cvt.test or tests < 2:
        raise UsageError(f"a gain needs {Cvt.test} patients and two test cohorts at least")
    drawn = Cvt().draw(count, seed=seed)
    outcome = drawn.outcome("cvt")
    image, both = drawn.truth["chance_image"], drawn.truth["chance_image_epilepsy"]
    rng = np.random.default_rng([seed, 75])
    gains = []
    for _ in range(tests):
        rows = rng.integers(count, size=Cvt.test)
        gains.append(concordance(outcome[rows], both[rows]) - concordance(outcome[rows], image[rows]))
    low, high = np.nanquantile(gains, MIDDLE)
    return Gain(
        of_all=concordance(outcome, both) - concordance(outcome, image),
        low=float(low),
        high=float(high),
        no_gain=float((np.array(gains) <= 0).mean()),
    )


def main() -> None:
    """Print it."""
    gain = epilepsy_gain()
    sys.stdout.write(
        f"epilepsy adds {gain.of_all:.3f} to the image; over tests of {Cvt.test} patients {gain.low:.3f} to"
        f" {gain.high:.3f}, nothing or less in {gain.no_gain:.0%}\n"
    )


if __name__ == "__main__":
    main()
