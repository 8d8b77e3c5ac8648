"""What a simple reader measures in a 12-lead ECG: the written signal only, no truth.

It is an honest baseline, not a good electrocardiograph: one typical beat, thresholds, and windows around QRS. A lead
that is flat, or a recording without three alike beats, gives NaN. All thresholds are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.ecg_leads import LEADS

Float = npt.NDArray[np.float64]

HERTZ = 500
"""Readings are made at this rate; faster recordings are averaged down to it."""
BEFORE_S, AFTER_S = 0.30, 0.48
"""Of the typical beat around the middle of QRS, s."""
REFRACTORY_S = 0.25
ALIKE = 0.85
"""Correlation with the median beat below which a beat is left out: premature beats, motion."""
CLEAR_MV = 0.04
"""A deflection is one from here on."""
EDGE = 0.06
"""Part of the largest spatial velocity that begins and ends QRS."""

FEATURES = (
    "ecg_rate", "ecg_rr_irregularity", "ecg_axis_deg", "ecg_qrs_ms", "ecg_s_i", "ecg_q_iii", "ecg_t_iii", "ecg_t_v1",
    "ecg_t_v2", "ecg_t_v3", "ecg_t_v4", "ecg_r_end_v1", "ecg_q_v1", "ecg_p_ii", "ecg_limb_voltage", "ecg_transition",
    "ecg_s_v5", "ecg_odd_beats",
)  # fmt: skip
"""Rate 1/min; parts of RR; degrees; ms; mV (Q and S as positive depths); transition as the number of a chest lead."""


def read_features(millivolts: Float, hertz: int) -> dict[str, float]:
    """Measure a recording.

    Parameters
    ----------
    millivolts : float array [12, S]
        In the order of :data:`~edgehem.export.cohorts.ecg_leads.LEADS`.
    hertz : int
        500, or a multiple of it.

    Returns
    -------
    dict
        By the names in :data:`FEATURES`; NaN where it could not be measured.

    Raises
    ------
    UsageError
        If the recording has another shape or rate.
    """
    if millivolts.ndim != 2 or len(millivolts) != len(LEADS) or hertz % HERTZ or millivolts.shape[1] < 2 * hertz:
        raise UsageError(f"12 leads of two seconds or more at a multiple of {HERTZ} Hz are needed")
    signal = millivolts
    if factor := hertz // HERTZ - 1:
        whole = signal.shape[1] // (factor + 1) * (factor + 1)
        signal = signal[:, :whole].reshape(len(signal), -1, factor + 1).mean(axis=2)
    out = dict.fromkeys(FEATURES, np.nan)
    smooth = _band(signal)
    peaks = _find_beats(smooth)
    if len(peaks) < 3:
        return out
    beat, alike = _typical_beat(smooth, peaks)
    out |= _timing(peaks, alike)
    if alike.sum() >= 3:
        out |= _shapes(beat, flat=np.ptp(signal, axis=1) == 0)
    return out


def _band(signal: Float) -> Float:
    """Without drift, mains and muscles: 0.3 to 40 Hz without phase, [12, S]."""
    frequency = np.fft.rfftfreq(signal.shape[1], 1 / HERTZ)
    gain = 1 / (1 + (0.3 / np.maximum(frequency, 1e-6)) ** 4) / np.sqrt(1 + (frequency / 40) ** 6)
    return np.asarray(np.fft.irfft(np.fft.rfft(signal) * gain, signal.shape[1]), np.float64)


def _moving(values: Float, samples: int) -> Float:
    """Centred moving mean along the last axis; `samples` is odd."""
    return np.convolve(values, np.full(samples, 1 / samples), "same")


def _find_beats(smooth: Float) -> npt.NDArray[np.int64]:
    """Samples at the middle of each QRS: where the leads together change fastest."""
    change = np.zeros_like(smooth)
    change[:, 2:-2] = smooth[:, 4:] - smooth[:, :-4]
    # One lead in motion must not hide the others: each is held to a few times its usual largest change.
    top = np.percentile(np.abs(change[:, ::4]), 98, axis=1, keepdims=True)
    energy = _moving(np.sum(np.minimum(np.abs(change), 1.5 * top) ** 2, axis=0), 51)
    high = np.percentile(energy, 97)
    threshold = 0.25 * high
    middle = energy[1:-1]
    local = np.flatnonzero((middle >= energy[:-2]) & (middle > energy[2:]) & (middle > threshold)) + 1
    kept: list[int] = []
    reach, taken = round(REFRACTORY_S * HERTZ), np.zeros(len(energy), bool)
    for sample in local[np.argsort(-energy[local], kind="stable")].tolist():
        if not taken[sample]:
            kept.append(sample)
            taken[max(0, sample - reach + 1) : sample + reach] = True
    return np.sort(np.array(kept, np.int64))


def _typical_beat(smooth: Float, peaks: npt.NDArray[np.int64]) -> tuple[Float, npt.NDArray[np.bool_]]:
    """The typical beat among alike ones, [12, W], and which beats of `peaks` are alike."""
    before, after = round(BEFORE_S * HERTZ), round(AFTER_S * HERTZ)
    whole = (peaks >= before) & (peaks + after < smooth.shape[1])
    alike = np.zeros(len(peaks), bool)
    if not whole.any():
        return np.zeros((len(smooth), before + after)), alike
    index = peaks[whole, None] + np.arange(-before, after)
    beats = smooth[:, index]  # [12, B, W]
    core = beats[:, :, before - 40 : before + 40]
    core = core - core.mean(axis=2, keepdims=True)
    usual = np.median(core, axis=1, keepdims=True)
    product = np.sum(core * usual, axis=(0, 2))
    likeness = product / np.maximum(np.sqrt(np.sum(core**2, axis=(0, 2)) * np.sum(usual**2)), 1e-12)
    alike[np.flatnonzero(whole)] = good = likeness > ALIKE
    return _middle(beats[:, good] if good.any() else beats), alike


def _middle(beats: Float) -> Float:
    """Mean of beats [12, B, W] without the highest and the lowest value at each time, [12, W]."""
    beats = beats - beats.mean(axis=2, keepdims=True)
    count = beats.shape[1]
    if count < 3:
        return np.asarray(beats.mean(axis=1), np.float64)
    total = beats.sum(axis=1) - beats.max(axis=1) - beats.min(axis=1)
    return np.asarray(total / (count - 2), np.float64)


def _timing(peaks: npt.NDArray[np.int64], alike: npt.NDArray[np.bool_]) -> dict[str, float]:
    interval = np.diff(peaks) / HERTZ
    # Only intervals between alike beats tell of the rhythm; the first and last beats may be cut by the ends.
    edge = np.zeros(len(peaks), bool)
    edge[[0, -1]] = True
    usual = alike | edge
    paired = interval[usual[1:] & usual[:-1]]
    chosen = paired if len(paired) >= 2 else interval
    step = np.abs(np.diff(chosen))
    return {
        "ecg_rate": 60 / float(np.mean(interval)),
        "ecg_rr_irregularity": float(np.median(step) / np.mean(chosen)) if len(step) else np.nan,
        "ecg_odd_beats": float(np.mean(~usual)),
    }


def _edges(beat: Float, middle: int) -> tuple[int, int]:
    """Begin and end of QRS in the typical beat: where the spatial velocity stays low for 10 ms."""
    speed = np.sqrt(np.sum(np.gradient(beat, axis=1) ** 2, axis=0))
    near = speed[middle - 50 : middle + 50]
    low = speed < EDGE * near.max()
    top = middle - 50 + int(np.argmax(near))
    begin, end = top, top
    while begin > 5 and not low[begin - 5 : begin].all():
        begin -= 1
    while end < beat.shape[1] - 6 and not low[end + 1 : end + 6].all():
        end += 1
    return begin, end


def _shapes(beat: Float, flat: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Sizes in the typical beat, against the level just before QRS."""
    begin, end = _edges(beat, round(BEFORE_S * HERTZ))
    level = np.median(beat[:, max(0, begin - 10) : begin - 2 if begin > 4 else begin + 1], axis=1, keepdims=True)
    beat = np.where(flat[:, None], np.nan, beat - level)
    lead = dict(zip(LEADS, beat, strict=True))
    qrs = slice(begin, end + 1)
    t = slice(min(end + 20, beat.shape[1] - 30), min(end + 180, beat.shape[1]))
    area_i, area_f = float(np.sum(lead["I"][qrs])), float(np.sum(lead["aVF"][qrs]))
    p = lead["II"][max(0, begin - 105) : max(1, begin - 10)]
    chest = np.array([_net(lead[f"V{n}"][qrs]) for n in range(1, 7)])
    return {
        "ecg_axis_deg": float(np.rad2deg(np.arctan2(area_f, area_i))),
        "ecg_qrs_ms": (end - begin) * 1000 / HERTZ,
        "ecg_s_i": _depth(lead["I"][begin + (end - begin) // 2 : end + 1]),
        "ecg_q_iii": _first_down(lead["III"][qrs]),
        "ecg_t_iii": _peak(lead["III"][t]),
        **{f"ecg_t_v{n}": _peak(lead[f"V{n}"][t]) for n in range(1, 5)},
        "ecg_r_end_v1": float(np.max(lead["V1"][begin + (end - begin) // 2 : end + 1])),
        "ecg_q_v1": _first_down(lead["V1"][qrs]),
        "ecg_p_ii": float(np.max(p) - np.median(p[: len(p) // 4])) if len(p) > 20 else np.nan,
        "ecg_limb_voltage": float(np.max([np.ptp(lead[name][qrs]) for name in LEADS[:6]])),
        "ecg_transition": _transition(chest),
        "ecg_s_v5": _depth(lead["V5"][qrs]),
    }


def _depth(values: Float) -> float:
    return float(max(0.0, -np.min(values))) if not np.isnan(values).any() else np.nan


def _first_down(values: Float) -> float:
    """Depth of a Q wave: of the first deflection, if it goes down and something goes up after it."""
    if np.isnan(values).any():
        return np.nan
    up = np.flatnonzero(values > CLEAR_MV)
    return _depth(values[: int(up[0])]) if len(up) and up[0] > 0 else 0.0


def _peak(values: Float) -> float:
    """The value farthest from the middle line of its window's ends: T with its sign."""
    if np.isnan(values).any():
        return np.nan
    centred = values - (values[0] + values[-1]) / 2
    return float(values[np.argmax(np.abs(centred))])


def _net(values: Float) -> float:
    """R minus S."""
    return float(np.max(values) + np.min(values))


def _transition(chest: Float) -> float:
    """Place between V1 and V6 at which R begins to outweigh S, 1 to 7 (never)."""
    if np.isnan(chest).any():
        return np.nan
    if chest[0] > 0:
        return 1.0
    up = np.flatnonzero((chest[:-1] <= 0) & (chest[1:] > 0))
    if not len(up):
        return 7.0
    first = int(up[0])
    return float(first + 1 + chest[first] / (chest[first] - chest[first + 1]))
