"""The chart of vital signs and scores as a file, and what a simple reader measures in it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

COURSES = ("sbp", "dbp", "hr", "rr", "spo2", "temp", "gcs", "gcs_eye", "gcs_verbal", "gcs_motor")
"""Channels with a course worth a summary."""
FLAGS = ("sedated", "intubated", "antihypertensive", "reversal")
"""Channels of 0 and 1."""


def as_series(chart: Mapping[str, Float]) -> dict[str, list[float | None]]:
    """One patient's rows, as the series of a case: time in minutes since admission first, None where not charted.

    Parameters
    ----------
    chart : mapping of channel to float64 [T]
        NaN where not charted; a row is where ``time_min`` is finite.
    """
    rows = np.isfinite(chart["time_min"])
    return {name: [_plain(value) for value in values[rows].tolist()] for name, values in chart.items()}


def _plain(value: float) -> float | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value


def summaries(chart: Mapping[str, Float]) -> dict[str, Float]:
    """First, last, lowest and highest value and slope (each hour) of every course; other channels at their last.

    Parameters
    ----------
    chart : mapping of channel to float64 [N, T]

    Returns
    -------
    dict of str to float64 [N]
        ``series_<channel>_<summary>``, NaN where nothing was charted.
    """
    hours = chart["time_min"] / 60
    out = {"series_rows": np.isfinite(hours).sum(1).astype(np.float64)}
    for name in COURSES:
        values = chart[name]
        out |= {f"series_{name}_{what}": found for what, found in _course(values, hours).items()}
    for name in FLAGS:
        out[f"series_{name}_ever"] = np.max(np.nan_to_num(chart[name]), axis=1)
    treated = chart["antihypertensive"] == 1
    first = np.where(treated.any(1), np.take_along_axis(hours, treated.argmax(1)[:, None], 1)[:, 0], np.nan)
    out["series_antihypertensive_h"] = first
    out["series_nihss_first"] = _end(chart["nihss"], last=False)
    out["series_pupils_apart"] = _end(np.abs(chart["pupil_left"] - chart["pupil_right"]), last=True)
    return out


def _course(values: Float, hours: Float) -> dict[str, Float]:
    there = np.isfinite(values)
    some = there.any(1)
    count = np.maximum(there.sum(1), 1)
    x = np.where(there, hours, 0.0)
    y = np.where(there, values, 0.0)
    from_mean = np.where(there, x - (x.sum(1) / count)[:, None], 0.0)
    spread = (from_mean**2).sum(1)
    slope = np.divide((from_mean * y).sum(1), spread, out=np.full(len(values), np.nan), where=spread > 0)
    return {
        "first": _end(values, last=False),
        "last": _end(values, last=True),
        "min": np.where(some, np.min(np.where(there, values, np.inf), axis=1), np.nan),
        "max": np.where(some, np.max(np.where(there, values, -np.inf), axis=1), np.nan),
        "slope": slope,
    }


def _end(values: Float, *, last: bool) -> Float:
    """The first or the last finite value of each row: [N, T] to [N], NaN where there is none."""
    turned = values[:, ::-1] if last else values
    at = np.isfinite(turned).argmax(1)
    return np.asarray(np.take_along_axis(turned, at[:, None], 1)[:, 0], np.float64)
