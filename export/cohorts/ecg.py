"""Synthetic 12-lead ECG: a heart, a chest, a machine. Nothing here comes from a patient.

:func:`record` is the main flow. What is planted, and where the numbers come from, is in ``docs/cohorts_pe.md``.
"""

from __future__ import annotations

import numpy as np

from edgehem.export.cohorts.ecg_heart import Heart, dipole
from edgehem.export.cohorts.ecg_leads import projection
from edgehem.export.cohorts.ecg_machine import MARGIN_S, Flaws, Machine, Recording, acquire

SECONDS = 10.0
"""Length of a resting ECG, s."""


def record(heart: Heart, *, machine: Machine, flaws: Flaws, rng: np.random.Generator) -> Recording:
    """Record a resting ECG of ten seconds.

    Parameters
    ----------
    heart : Heart
    machine : Machine
    flaws : Flaws
    rng : Generator
        Of beats, of the chest's build, and of noise.

    Returns
    -------
    Recording
        12 leads of 5,000 samples (10,000 at 1 kHz).
    """
    signal, _ = dipole(heart, seconds=SECONDS + 2 * MARGIN_S, hertz=machine.hertz, rng=rng)  # [3, S] mV
    measured = projection(rng) @ signal  # [8, S] mV
    return acquire(measured, machine=machine, flaws=flaws, breath_hz=heart.rhythm.breath_hz, rng=rng)
