"""Strain of the right ventricle and what an ECG shows of it, with chances that Bayes can invert.

A latent `strain` from 0 to 1 lies on a grid. Each sign in the ECG has a chance that rises with it, and a chance without
it: signs are neither sensitive nor specific. All rates are ours; which signs belong to the picture is common knowledge
(S1Q3T3, T inversion V1-V4 and III, right bundle branch block, right axis, P pulmonale, fibrillation, tachycardia).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, sigmoid

GRID: Float = np.linspace(0.0, 1.0, 41)
"""Values that strain can have: posteriors are sums over it, not approximations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A sign in the ECG: present or not.

    Parameters
    ----------
    name : str
    base : float
        Log odds without strain and disease.
    strain, lung, heart_failure : float
        What each adds: full strain, chronic lung disease, chronic heart failure.
    age : float
        Per 10 years above 65.
    """

    name: str
    base: float
    strain: float
    lung: float = 0.0
    heart_failure: float = 0.0
    age: float = 0.0


SIGNS = (
    Sign(name="s1q3t3", base=-3.1, strain=3.6),
    Sign(name="t_inversion", base=-3.3, strain=4.6, heart_failure=0.3),
    Sign(name="rbbb_complete", base=-3.6, strain=2.0, lung=0.3, age=0.35),
    Sign(name="rbbb_incomplete", base=-3.2, strain=2.6, lung=0.3),
    Sign(name="right_axis", base=-3.0, strain=2.4, lung=1.0),
    Sign(name="clockwise", base=-2.3, strain=2.3, lung=1.0),
    Sign(name="p_pulmonale", base=-3.6, strain=1.8, lung=1.5),
    Sign(name="low_voltage", base=-3.0, strain=1.4, lung=1.0, heart_failure=0.3),
    Sign(name="qr_v1", base=-4.6, strain=4.2),
    Sign(name="fibrillation", base=-3.2, strain=0.7, heart_failure=1.3, age=0.65),
)
"""Log odds of each sign. Ours."""

RATE_LOG, RATE_STRAIN, RATE_LUNG, RATE_FAILURE, RATE_FIBRILLATION, RATE_SD = np.log(82.0), 0.32, 0.05, 0.05, 0.15, 0.17
"""Logarithm of heart rate: its mean, what strain, diseases and fibrillation add, and its spread. Ours."""

SLOWEST, FASTEST = 45.0, 170.0
"""Range that rates are held to, beats a minute. Ours."""

_COMPLETE = [sign.name for sign in SIGNS].index("rbbb_complete")
_INCOMPLETE = [sign.name for sign in SIGNS].index("rbbb_incomplete")
FIBRILLATION = [sign.name for sign in SIGNS].index("fibrillation")


def beta_mixture(parts: tuple[tuple[float, float, float], ...]) -> Float:
    """Weights on :data:`GRID` of a mixture of beta distributions, given as (weight, a, b): float64 [41], sum 1."""
    middle = np.clip(GRID, 0.01, 0.99)
    out = np.zeros(len(GRID))
    for weight, a, b in parts:
        density = middle ** (a - 1) * (1 - middle) ** (b - 1)
        out += weight * density / density.sum()
    return np.asarray(out / out.sum(), np.float64)


def draw_strain(rng: np.random.Generator, weights: Float) -> Float:
    """Strain of patients with weights [N, 41] on the grid: float64 [N]."""
    below = np.cumsum(weights, axis=1) < rng.random(len(weights))[:, None]
    return np.asarray(GRID[np.minimum(below.sum(axis=1), len(GRID) - 1)], np.float64)


def _chances(strain: Float, lung: Float, failure: Float, age: Float) -> Float:
    """Chance of each sign, [..., 10], for arguments that broadcast."""
    logits = [
        sign.base + sign.strain * strain + sign.lung * lung + sign.heart_failure * failure + sign.age * (age - 65) / 10
        for sign in SIGNS
    ]
    return sigmoid(np.stack(np.broadcast_arrays(*logits), axis=-1))


def draw_signs(
    rng: np.random.Generator, strain: Float, lung: Float, failure: Float, age: Float
) -> npt.NDArray[np.bool_]:
    """Signs of patients, bool [N, 10] in the order of :data:`SIGNS`; a complete block hides an incomplete one."""
    chance = _chances(strain, lung, failure, age)
    signs = rng.random(chance.shape) < chance
    signs[:, _INCOMPLETE] &= ~signs[:, _COMPLETE]
    return signs


def draw_rate(
    rng: np.random.Generator, strain: Float, lung: Float, failure: Float, signs: npt.NDArray[np.bool_]
) -> Float:
    """Heart rate in the ECG, beats a minute, float64 [N]: rounded, for the file and the posterior alike."""
    mean = rate_log_mean(strain, lung, failure, signs[:, FIBRILLATION].astype(np.float64))
    return np.round(np.clip(np.exp(mean + RATE_SD * rng.standard_normal(len(mean))), SLOWEST, FASTEST), 1)


def rate_log_mean(strain: Float, lung: Float, failure: Float, fibrillation: Float) -> Float:
    """Mean of the logarithm of heart rate in the ECG."""
    mean = (
        RATE_LOG + RATE_STRAIN * strain + RATE_LUNG * lung + RATE_FAILURE * failure + RATE_FIBRILLATION * fibrillation
    )
    return np.asarray(mean, np.float64)


def signs_log_likelihood(signs: npt.NDArray[np.bool_], rate: Float, lung: Float, failure: Float, age: Float) -> Float:
    """Logarithm of the chance of an ECG's signs and rate at each strain, [N, 41], up to a constant of the patient.

    Parameters
    ----------
    signs : bool array [N, 10]
    rate : float64 array [N]
        Beats a minute, as drawn.
    lung, failure, age : float64 array [N]
    """
    chance = _chances(GRID[None, :], lung[:, None], failure[:, None], age[:, None])  # [N, 41, 10]
    present = signs[:, None, :]
    each = np.where(present, np.log(chance), np.log1p(-chance))
    each[:, :, _INCOMPLETE] *= ~present[:, :, _COMPLETE]  # beside a complete block it says nothing
    out: Float = each.sum(axis=2)
    mean = rate_log_mean(
        GRID[None, :], lung[:, None], failure[:, None], signs[:, FIBRILLATION, None].astype(np.float64)
    )
    deviate = (np.log(rate)[:, None] - mean) / RATE_SD
    likely = -0.5 * deviate**2
    for end, sign in ((SLOWEST, -1.0), (FASTEST, 1.0)):  # all that lies beyond an end was held to it
        at = rate == end
        likely[at] = np.log(_upper_tail(sign * deviate[at]))
    return out + likely


_upper_tail = np.vectorize(lambda deviate: 0.5 * math.erfc(deviate / math.sqrt(2)), otypes=[np.float64])
