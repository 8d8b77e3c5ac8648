"""What edgehem wants of its own kernels, said as measured: met, not met, or unclear. Nothing depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgehem.benchmarks import ours

TIMES_MEMCPY, TIMES_OPENCV, TIMES_SCIPY, TIMES_MONAI = 2.0, 3.0, 15.0, 15.0


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A ratio of two times and its bound.

    Parameters
    ----------
    words : str
    library : str
        Whose contenders stand above the line; each is judged by itself.
    over : str
        The contender, or the ratio's key, below the line.
    bound : float
    at_most : bool
        Whether the bound is an upper one.
    """

    words: str
    library: str
    bound: float
    at_most: bool = False

    def verdict(self, low: float, high: float) -> str:
        """``met`` or ``not met`` where the whole interval says so, else ``unclear``."""
        if self.at_most:
            return "met" if high <= self.bound else "not met" if low > self.bound else "unclear"
        return "met" if low >= self.bound else "not met" if high < self.bound else "unclear"


FLOOR = Aim(words=f"float32 at most {TIMES_MEMCPY:g} x memcpy", library="memcpy", bound=TIMES_MEMCPY, at_most=True)
INT8 = Aim(words="int8 no slower than float32", library="edgehem", bound=1.0, at_most=True)
PEERS = (
    Aim(words=f"at least {TIMES_OPENCV:g} x faster than OpenCV", library="OpenCV", bound=TIMES_OPENCV),
    Aim(words=f"at least {TIMES_SCIPY:g} x faster than SciPy", library="SciPy", bound=TIMES_SCIPY),
    Aim(words=f"at least {TIMES_MONAI:g} x faster than MONAI", library="MONAI", bound=TIMES_MONAI),
)


def judge(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Every aim on one measured job: the dicts of the result's ``aims``."""
    entries = {entry["name"]: entry for entry in job["contenders"]}
    found = [
        _judged(job, FLOOR, ours.REFERENCE, entries.get(ours.REFERENCE, {}).get("over_memcpy")),
        _judged(job, INT8, "edgehem-int8", entries.get("edgehem-int8", {}).get("over_ours")),
    ]
    for aim in PEERS:
        there = [entry for entry in job["contenders"] if entry["library"] == aim.library and "over_ours" in entry]
        found += [_judged(job, aim, entry["name"], entry["over_ours"]) for entry in there]
        if not there:
            found.append(_judged(job, aim, "", None))
    return found


def _judged(job: dict[str, Any], aim: Aim, contender: str, measured: dict[str, float] | None) -> dict[str, Any]:
    verdict = aim.verdict(measured["low"], measured["high"]) if measured else "not measured"
    return {
        "job": job["name"],
        "aim": aim.words,
        "bound": aim.bound,
        "contender": contender,
        "measured": measured,
        "verdict": verdict,
    }
