"""When a heart beats, and which kind of beat each is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError

Float = npt.NDArray[np.float64]

NORMAL, ATRIAL, VENTRICULAR = 0, 1, 2
"""Kinds of beats: from the sinus node (or conducted in fibrillation), premature atrial, premature ventricular."""

LF_HZ = 0.1
"""Slow oscillation of heart rate: middle of the LF band, 0.04-0.15 Hz (Task Force of the ESC and NASPE, 1996)."""
SHORTEST_S = 0.27
"""No two beats are closer. Ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How a heart keeps time.

    Parameters
    ----------
    rate : float
        Beats a minute, 20 to 220.
    fibrillation : bool
        Atrial fibrillation: no P waves, intervals without order.
    slow, breathing : float
        Amplitudes of the oscillations of the RR interval at :data:`LF_HZ` and with breathing, parts of it.
    breath_hz : float
    jitter : float
        What is left without a rhythm, a part of the RR interval.
    scatter : float
        Coefficient of variation of RR in fibrillation.
    atrial, ventricular : float
        Chance of a beat to be a premature one.
    """

    rate: float
    fibrillation: bool = False
    slow: float = 0.015
    breathing: float = 0.02
    breath_hz: float = 0.27
    jitter: float = 0.006
    scatter: float = 0.19
    atrial: float = 0.0
    ventricular: float = 0.0

    def __post_init__(self) -> None:
        if not 20 <= self.rate <= 220:
            raise UsageError(f"a heart beats 20 to 220 times a minute here, not {self.rate:g}")
        if min(self.atrial, self.ventricular) < 0 or self.atrial + self.ventricular > 1:
            raise UsageError("chances of premature beats must lie in 0 to 1, also together")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """Beats of a recording.

    Parameters
    ----------
    onset : float64 array [B]
        Begin of each QRS, s.
    kind : int64 array [B]
        :data:`NORMAL`, :data:`ATRIAL` or :data:`VENTRICULAR`.
    rr : float
        Mean interval, s.
    """

    onset: Float
    kind: npt.NDArray[np.int64]
    rr: float


def beats(rhythm: Rhythm, seconds: float, rng: np.random.Generator) -> Beats:
    """Beats from one before the recording begins to one after it ends."""
    mean = 60 / rhythm.rate
    count = int(seconds / mean * 1.6) + 6
    noise = rng.standard_normal(count)
    phase, chance = rng.random(2) * 2 * np.pi, rng.random(count)
    if rhythm.fibrillation:
        interval = mean * np.exp(rhythm.scatter * noise - rhythm.scatter**2 / 2)
    else:
        near = np.arange(count) * mean
        slow = rhythm.slow * np.sin(2 * np.pi * LF_HZ * near + phase[0])
        breath = rhythm.breathing * np.sin(2 * np.pi * rhythm.breath_hz * near + phase[1])
        interval = mean * (1 + slow + breath + rhythm.jitter * noise)
    atrial = rhythm.atrial * (not rhythm.fibrillation)
    kind = np.where(chance < rhythm.ventricular, VENTRICULAR, np.where(chance < rhythm.ventricular + atrial, ATRIAL, 0))
    kind[1:][kind[:-1] > 0] = NORMAL  # couplets are left out
    early = 0.72 if rhythm.rate < 100 else 0.82
    after = np.zeros(count)
    after[1:] = np.where(kind[:-1] == VENTRICULAR, 2 - early, np.where(kind[:-1] == ATRIAL, 1.08, 0))
    factor = np.where(kind > 0, early, np.where(after > 0, after, 1))
    interval = np.maximum(interval * factor, SHORTEST_S)
    onset = np.cumsum(interval) - interval[0] - mean * rng.random()
    keep = onset < seconds + mean
    return Beats(onset=onset[keep], kind=kind[keep].astype(np.int64), rr=mean)
