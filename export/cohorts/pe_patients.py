"""Patients who are given thrombolysis for pulmonary embolism: strain first, then what it does, then what is recorded.

Every value that depends on strain is drawn through :class:`Evidence`, which keeps what the value says of strain, so
that the posterior of strain is exact. All numbers are ours: meant to be plausible, taken from no table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, Values, lose, sigmoid, tidy, toss
from edgehem.export.cohorts.pe_columns import AGENTS, ANTICOAGULANTS, COLUMNS, contraindications
from edgehem.export.cohorts.pe_strain import (
    GRID,
    beta_mixture,
    draw_rate,
    draw_signs,
    draw_strain,
    signs_log_likelihood,
)

STRAIN: Float = beta_mixture(((0.20, 1.5, 5.0), (0.45, 3.0, 3.0), (0.35, 5.0, 2.0)))
OTHER_STRAIN: Float = beta_mixture(((0.30, 1.5, 5.0), (0.45, 3.0, 3.0), (0.25, 5.0, 2.0)))
"""Strain of those who are given thrombolysis: most have some. At the other place it is given more freely."""

UNDERCODED, OVERCODED = 0.08, 0.004
"""Chance that a disease is not coded, and that one is coded that is not there."""
WRONG_UNIT = 0.006
"""Chance of a value in the unit of another country: pounds, Fahrenheit, g/L, mg/dL."""
OTHER_ASSAY = 0.35
"""The other place's troponin reads so much of the usual one's, with its own scatter of 0.3 in the logarithm."""
MORE_MISSING = 0.8
"""Added to the log odds of a missing value at the other place."""


class Evidence:
    """Draws values that depend on strain, and keeps what each says of it.

    Parameters
    ----------
    rng : Generator
    strain : float64 array [N]
        On the grid.
    """

    def __init__(self, rng: np.random.Generator, strain: Float) -> None:
        self._rng = rng
        self._strain = strain
        self.log: Float = np.zeros((len(strain), len(GRID)))  # [N, 41] log likelihood of each strain

    def normal(self, mean: Float | float, slope: float, sd: float) -> Float:
        """Normal values whose mean rises by `slope` with full strain."""
        base = np.broadcast_to(np.asarray(mean, np.float64), self._strain.shape)
        value = base + slope * self._strain + sd * self._rng.standard_normal(len(self._strain))
        self.log = self.log - 0.5 * ((value[:, None] - base[:, None] - slope * GRID) / sd) ** 2
        return np.asarray(value, np.float64)

    def event(self, logit: Float | float, slope: float) -> Float:
        """0 or 1, with log odds that rise by `slope` with full strain."""
        base = np.broadcast_to(np.asarray(logit, np.float64), self._strain.shape)
        value = toss(self._rng, sigmoid(base + slope * self._strain)).astype(np.float64)
        sign = 2 * value[:, None] - 1
        self.log = self.log - np.log1p(np.exp(-sign * (base[:, None] + slope * GRID)))
        return value

    def signs(self, lung: Float, failure: Float, age: Float) -> tuple[npt.NDArray[np.bool_], Float]:
        """The ECG's signs and rate."""
        signs = draw_signs(self._rng, self._strain, lung, failure, age)
        rate = draw_rate(self._rng, self._strain, lung, failure, signs)
        self.log = self.log + signs_log_likelihood(signs, rate, lung, failure, age)
        return signs, rate

    def posterior(self, prior: Float) -> Float:
        """Chance of each strain given all that was drawn, [N, 41]."""
        weight = np.exp(self.log - self.log.max(axis=1, keepdims=True)) * prior
        return np.asarray(weight / weight.sum(axis=1, keepdims=True), np.float64)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Patients before their outcome.

    Parameters
    ----------
    true : mapping of column to array [N]
        As they are, complete.
    recorded : mapping of column to array [N]
        As the table has them.
    strain : float64 array [N]
    posterior : float64 array [N, 41]
        Of strain, given `true`, the ECG's signs and rate, and what was not measured.
    signs, rate : array
        Of the ECG.
    """

    true: dict[str, Values]
    recorded: dict[str, Values]
    strain: Float
    posterior: Float
    signs: npt.NDArray[np.bool_]
    rate: Float


def draw_patients(rng: np.random.Generator, count: int, shifted: bool) -> Drawn:
    """Draw patients of the usual place, or of the other one."""
    prior = OTHER_STRAIN if shifted else STRAIN
    strain = draw_strain(rng, np.broadcast_to(prior, (count, len(GRID))))
    evidence = Evidence(rng, strain)
    v = _people(rng, count, shifted)
    _bloodless(rng, v)
    signs, rate = evidence.signs(v["chronic_lung_disease"], v["heart_failure"], v["age"])
    _circulation(evidence, v)
    v["heart_rate"] = rate * np.exp(0.04 * rng.standard_normal(count))  # counted at another minute
    _treatment(rng, v, shifted)
    v |= {"contraindication_absolute": np.zeros(count), "contraindication_relative": np.zeros(count)}
    true = tidy(COLUMNS, v)
    recorded = _recorded(rng, evidence, true, shifted)
    return Drawn(
        true=true, recorded=recorded, strain=strain, posterior=evidence.posterior(prior), signs=signs, rate=rate
    )


def _people(rng: np.random.Generator, n: int, shifted: bool) -> dict[str, Values]:
    """Age, sex, build, diseases and drugs."""
    age = np.clip(np.round(rng.normal(66 if shifted else 62, 15, n)), 18, 95)
    old = (age - 62) / 10
    male = toss(rng, np.full(n, 0.5)).astype(np.float64)
    height = rng.normal(1.63 + 0.12 * male - 0.01 * old, 0.065)  # m
    mass = np.exp(rng.normal(np.log(26.0), 0.17, n)) - 0.5 * np.maximum(old, 0)  # kg/m^2

    def has(base: float, per_decade: float = 0.0) -> Float:
        return toss(rng, sigmoid(base + per_decade * old)).astype(np.float64)

    v: dict[str, Values] = {
        "age": age,
        "male": male,
        "weight": np.clip(mass * height**2, 35, 180),
        "cancer": has(-1.7, 0.15),
        "heart_failure": has(-2.3, 0.45),
        "chronic_lung_disease": has(-1.9, 0.2),
        "recent_surgery": has(-2.7),
        "recent_major_bleeding": has(-3.5, 0.1),
        "prior_stroke": has(-2.8, 0.4),
        "antiplatelet": has(-1.6, 0.4),
    }
    u = rng.random(n)
    v["anticoagulant"] = np.array(ANTICOAGULANTS)[np.searchsorted([0.12, 0.52, 0.84, 0.90], u)]
    return v


def _bloodless(rng: np.random.Generator, v: dict[str, Values]) -> None:
    """Values that strain does not move: temperature, blood count, INR. Inflammation moves several."""
    n = len(v["age"])
    inflammation, chemotherapy = rng.standard_normal(n), v["cancer"] * (rng.random(n) < 0.25)
    v["temperature"] = np.clip(36.9 + 0.35 * inflammation + 0.3 * rng.standard_normal(n), 34, 41)
    mean = 12.7 + 1.3 * v["male"] - 1.4 * v["cancer"] - 1.2 * v["recent_major_bleeding"] - 0.4 * inflammation
    v["hemoglobin"] = np.clip(rng.normal(mean - 0.01 * (v["age"] - 62), 1.4), 5, 19)
    platelets = np.log(225.0) + 0.14 * inflammation - 0.9 * chemotherapy + 0.28 * rng.standard_normal(n)
    v["platelets"] = np.clip(np.exp(platelets), 15, 900)
    vka = v["anticoagulant"] == "vka"
    v["inr"] = np.exp(np.where(vka, 0.75, 0.08) + np.where(vka, 0.3, 0.08) * rng.standard_normal(n))


def _circulation(evidence: Evidence, v: dict[str, Values]) -> None:
    """Pressure, then what follows from it and from strain."""
    old, failure, lung = v["age"] - 62, v["heart_failure"], v["chronic_lung_disease"]
    v["sbp"] = np.clip(evidence.normal(134 - 5 * failure + 0.15 * old, -12, 19), 60, 215)
    low = np.maximum(110 - v["sbp"], 0)
    lactate = evidence.normal(np.log(1.45) + 0.016 * low, 0.12, 0.40)
    v["lactate"] = np.exp(lactate)
    v["respiratory_rate"] = evidence.normal(20 + 2 * lung + 3 * (lactate - np.log(1.5)), 2, 4.5)
    v["spo2"] = np.clip(evidence.normal(93.5 - 2 * lung, -1.5, 3.5), 60, 100)
    v["syncope"] = evidence.event(-2.0, 1.2)
    v["altered_mentation"] = evidence.event(-3.9 + 0.035 * low + 0.7 * (lactate - 0.4) + 0.03 * old, 0.5)
    creatinine = evidence.normal(np.log(74.0) + 0.2 * v["male"] + 0.008 * old + 0.006 * low + 0.15 * failure, 0.05, 0.3)
    v["creatinine"] = np.exp(creatinine)
    kidney = creatinine - np.log(85.0)
    v["troponin"] = np.exp(evidence.normal(np.log(22.0) + 0.6 * kidney + 0.4 * failure, 1.0, 1.3))
    v["nt_probnp"] = np.exp(evidence.normal(np.log(450.0) + 0.7 * kidney + 0.9 * failure + 0.02 * old, 0.9, 1.2))
    v["rv_lv_ratio"] = evidence.normal(1.0, 0.18, 0.22)
    v["bilirubin"] = np.exp(evidence.normal(np.log(11.0) + 0.2 * failure, 0.25, 0.42))
    v["d_dimer"] = np.exp(evidence.normal(np.log(4.5) + 0.3 * v["cancer"], 0.4, 0.8))


def _treatment(rng: np.random.Generator, v: dict[str, Values], shifted: bool) -> None:
    """Agent and dose: less is given to the old, the light and those who bled, more to those in shock. Confounding."""
    n = len(v["age"])
    u = rng.random(n)
    v["lysis_agent"] = np.array(AGENTS)[np.searchsorted([0.35, 0.85] if shifted else [0.70, 0.90], u)]
    logit = (
        (0.4 if shifted else -0.7)
        + 0.04 * (v["age"] - 65)
        - 0.02 * (v["weight"] - 70)
        + 1.0 * v["recent_major_bleeding"]
        + 0.6 * v["recent_surgery"]
        - 0.03 * np.maximum(105 - v["sbp"], 0)
    )
    v["lysis_dose"] = np.where(rng.random(n) < sigmoid(logit), "reduced", "full")


def _recorded(
    rng: np.random.Generator, evidence: Evidence, true: dict[str, Values], shifted: bool
) -> dict[str, Values]:
    """What the table has: another assay, errors of coding and of units, and what was not measured.

    What is not measured because of strain says something of it, so that it is drawn through `evidence`, too.
    """
    out = dict(true)
    n = len(true["age"])
    more = MORE_MISSING if shifted else 0.0
    if shifted:
        out["troponin"] = true["troponin"] * OTHER_ASSAY * np.exp(0.3 * rng.standard_normal(n))
    for name in ("cancer", "heart_failure", "chronic_lung_disease", "recent_major_bleeding", "prior_stroke"):
        u = rng.random(n)
        out[name] = np.where(true[name] == 1, u >= UNDERCODED, u < OVERCODED).astype(np.float64)
    for name, factor, offset in (
        ("weight", 2.2046, 0.0), ("temperature", 1.8, 32.0), ("hemoglobin", 10.0, 0.0), ("creatinine", 1 / 88.4, 0.0)
    ):  # fmt: skip
        out[name] = np.where(rng.random(n) < WRONG_UNIT, out[name] * factor + offset, out[name])
    out = tidy(COLUMNS, out)
    low, lactate = np.maximum(110 - true["sbp"], 0), np.log(true["lactate"] / 1.5)
    gone = {
        # Ordered in the sick, and by those who see more than the record tells.
        "troponin": evidence.event(-0.6 + more, -1.2),
        "nt_probnp": evidence.event(0.1 + more, -0.6),
        "rv_lv_ratio": evidence.event(0.5 - 0.01 * low + more, -0.7),
        "lactate": toss(rng, sigmoid(0.5 - 0.06 * low - 1.1 * lactate + more)),
        "d_dimer": toss(rng, sigmoid(-1.2 + 0.03 * low + more)),
    }
    for name, values in gone.items():
        out[name] = np.where(values == 1, np.nan, out[name])
    for name, chance in (
        ("bilirubin", 0.22), ("inr", 0.10), ("weight", 0.08), ("respiratory_rate", 0.12), ("temperature", 0.06),
        ("hemoglobin", 0.03), ("platelets", 0.03), ("creatinine", 0.04), ("spo2", 0.03), ("antiplatelet", 0.05),
        ("anticoagulant", 0.03),
    ):  # fmt: skip
        out[name] = lose(rng, out[name], float(sigmoid(np.log(chance / (1 - chance)) + np.float64(more))))
    return out | contraindications(out)
