"""How far answers are from the reference's: probabilities, decisions, and the noise in the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.bundle import Head
from edgehem.decide import decide, probabilities
from edgehem.errors import BundleError

Answers = Sequence[Mapping[str, npt.NDArray[np.float32]]]
"""One mapping of output name to array for each probe."""

BORDERLINE = 0.05
"""A reference probability that is nearer than this to its threshold may fall on either side of it."""
MOST_DB = 200.0
"""What answers that agree in every bit count as: JSON has no infinity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deviation:
    """How far two sets of answers are apart.

    Parameters
    ----------
    shift : float
        Worst difference of a calibrated probability; 0 where no head gives any.
    flips : int
        Decisions that differ, borderline ones left out.
    sqnr_db : float
        Signal to noise of the heads' outputs, the worst of them.
    fidelity_db : float
        The same over every output.
    """

    shift: float
    flips: int
    sqnr_db: float
    fidelity_db: float


def compare(reference: Answers, answers: Answers, heads: Sequence[Head]) -> Deviation:
    """Compare answers to the reference's.

    Raises
    ------
    BundleError
        If an output is missing, of another shape, or not a number.
    """
    for wanted, given in zip(reference, answers, strict=True):
        for name, array in wanted.items():
            if name not in given or given[name].shape != array.shape:
                raise BundleError(f"output {name!r} is missing or of another shape")
            if not np.isfinite(given[name]).all():
                raise BundleError(f"output {name!r} holds a value that is not a number")
    noise = {name: sqnr_db([one[name] for one in reference], [one[name] for one in answers]) for name in reference[0]}
    shift, flips = 0.0, 0
    for head in heads:
        for wanted, given in zip(reference, answers, strict=True):
            moved, turned = _judged(wanted[head.output], given[head.output], head)
            shift, flips = max(shift, moved), flips + turned
    return Deviation(
        shift=shift,
        flips=flips,
        sqnr_db=min(noise[head.output] for head in heads),
        fidelity_db=min(noise.values()),
    )


def _judged(wanted: npt.NDArray[np.float32], given: npt.NDArray[np.float32], head: Head) -> tuple[float, int]:
    """Worst shift of a probability, and decisions that turned; nothing for a head without probabilities."""
    try:
        before, after = probabilities(wanted, head), probabilities(given, head)
    except BundleError:
        return 0.0, 0
    turned = 0
    for row in range(len(wanted)):
        found = zip(decide(wanted[row], head)[0], decide(given[row], head)[0], head.rules, strict=True)
        turned += sum(
            first.positive != second.positive and abs(first.probability - rule.threshold) >= BORDERLINE
            for first, second, rule in found
        )
    return float(np.abs(after - before).max()), turned


def sqnr_db(reference: Sequence[npt.NDArray[np.float32]], values: Sequence[npt.NDArray[np.float32]]) -> float:
    """Signal-to-quantisation-noise ratio of tensors, dB: power of the reference over power of the difference.

    From -:data:`MOST_DB`, also where a value is not a number, to :data:`MOST_DB`, where nothing differs.
    """
    signal = noise = 0.0
    for wanted, given in zip(reference, values, strict=True):
        exact = wanted.astype(np.float64)
        signal += float(np.square(exact).sum())
        noise += float(np.square(given - exact).sum())
    if not np.isfinite(noise):
        return -MOST_DB
    if noise == 0:
        return MOST_DB
    return float(np.clip(10 * np.log10(max(signal, np.finfo(float).tiny) / noise), -MOST_DB, MOST_DB))
