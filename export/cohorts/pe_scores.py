"""Bedside scores of pulmonary embolism on a table's columns: what any model has to beat.

A missing value earns no points, as at the bedside. Points of PESI: Aujesky et al., Am J Respir Crit Care Med
2005;172:1041; sPESI: Jiménez et al., Arch Intern Med 2010;170:1383; BACS and RIETE's bleeding score: as in the notes
that the project started from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgehem.export.cohorts.core import Float, Values

HIGH_CREATININE = 1.2 * 88.4
"""1.2 mg/dL in umol/L: RIETE."""


def pesi(v: Mapping[str, Values]) -> Float:
    """Pulmonary Embolism Severity Index, points."""
    return np.asarray(
        v["age"]
        + 10 * v["male"]
        + 30 * v["cancer"]
        + 10 * v["heart_failure"]
        + 10 * v["chronic_lung_disease"]
        + 20 * (v["heart_rate"] >= 110)
        + 30 * (v["sbp"] < 100)
        + 20 * (v["respiratory_rate"] >= 30)
        + 20 * (v["temperature"] < 36)
        + 60 * v["altered_mentation"]
        + 20 * (v["spo2"] < 90),
        np.float64,
    )


def spesi(v: Mapping[str, Values]) -> Float:
    """Simplified PESI, 0 to 6."""
    heart_or_lung = (v["heart_failure"] == 1) | (v["chronic_lung_disease"] == 1)
    parts = (v["age"] > 80, v["cancer"] == 1, heart_or_lung, v["heart_rate"] >= 110, v["sbp"] < 100, v["spo2"] < 90)
    return np.asarray(np.sum(np.stack(parts), axis=0), np.float64)


def bacs(v: Mapping[str, Values]) -> Float:
    """BACS: recent major bleeding, age above 75, active cancer, syncope; 0 to 6."""
    return np.asarray(3 * v["recent_major_bleeding"] + (v["age"] > 75) + v["cancer"] + v["syncope"], np.float64)


def riete(v: Mapping[str, Values]) -> Float:
    """RIETE's bleeding score; the embolism is overt in all."""
    anaemia = v["hemoglobin"] < np.where(v["male"] == 1, 13, 12)
    return np.asarray(
        2 * v["recent_major_bleeding"]
        + 1.5 * anaemia
        + 1.5 * (v["creatinine"] > HIGH_CREATININE)
        + v["cancer"]
        + 1
        + (v["age"] > 75),
        np.float64,
    )
