"""What takes part in a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgehem.benchmarks.case import Case, Job
from edgehem.volume import Volume

Pass = Callable[[Volume], npt.NDArray[Any]]
"""A stack to its tensor [Z, C, Y, X]; what it returns may be written over by the next call."""

POSITIONS_HU = 0.2
"""Libraries that hold positions in float32 are off by 1e-4 of a pixel; beside bone that is this much."""
WHOLE_HU = 0.5
"""More, where a library rounds to whole HU between its steps."""


class PassedOverError(Exception):
    """A contender cannot run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do a job.

    Parameters
    ----------
    name : str
        Unique within the job.
    library : str
        Whose aim it counts for.
    how : str
        How it is set up, for people.
    make : callable
        ``make(case, job, threads)`` gives the pass, with everything allocated that can be. Imports what it needs.
    module : str
        What it imports, for the version.
    dtype : str
    tolerance_hu : float
        Largest difference from the oracle that still counts as the same job; 0 is bit for bit.
    """

    name: str
    library: str
    how: str
    make: Callable[[Case, Job, int], Pass]
    module: str = ""
    dtype: str = "float32"
    tolerance_hu: float = POSITIONS_HU
