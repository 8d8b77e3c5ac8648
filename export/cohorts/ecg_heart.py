"""A heart as one moving dipole: each wave of each beat is a bell curve in time along a direction in space.

The idea is that of dynamical ECG models (McSharry et al., IEEE Trans Biomed Eng 2003;50:289-294; Sameni et al., EURASIP
J Adv Signal Process 2007, 43407). Directions, sizes and times of the waves are ours, set by eye so that leads look as
in textbooks. Axes are Frank's: X to the left, Y to the feet, Z to the back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.ecg_rhythm import ATRIAL, NORMAL, VENTRICULAR, Beats, Rhythm, beats

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heart:
    """What one person's ECG is made from.

    Parameters
    ----------
    rhythm : Rhythm
    axis_deg : float
        Turn of the QRS in the frontal plane from the usual axis (about 50 degrees), to the right.
    turn_deg : float
        Turn of the QRS in the horizontal plane to the back: clockwise rotation, late transition.
    voltage : float
        Of QRS, 1 is usual.
    t_voltage, p_voltage : float
        Of T and of P.
    width : float
        Duration of the left ventricle's QRS, 1 is 90 ms.
    pr_ms : float
        At 60 beats a minute.
    qtc_ms : float
        Corrected by Fridericia's cube root.
    st_mv : float
        ST segment on the axis of T.
    s1, q3 : float
        S wave in I, Q wave in III, 1 is marked.
    t_inversion : float
        T away from the right ventricle: negative in V1-V4 and III, 1 is marked.
    t3 : float
        T negative in III alone.
    rbbb : float
        Late forces of the right ventricle, 1 is marked; with `rbbb_ms`, the QRS duration it leads to.
    rbbb_ms : float
    qr_v1 : float
        First forces away from V1, and a small late one towards it: Qr there.
    p_right : float
        Right atrium, added to its usual 1.
    wobble : float
        Change of voltage with breathing, a part.
    """

    rhythm: Rhythm
    axis_deg: float = 0.0
    turn_deg: float = 0.0
    voltage: float = 1.0
    t_voltage: float = 1.0
    p_voltage: float = 1.0
    width: float = 1.0
    pr_ms: float = 160.0
    qtc_ms: float = 410.0
    st_mv: float = 0.0
    s1: float = 0.0
    q3: float = 0.0
    t_inversion: float = 0.0
    t3: float = 0.0
    rbbb: float = 0.0
    rbbb_ms: float = 110.0
    qr_v1: float = 0.0
    p_right: float = 0.0
    wobble: float = 0.04

    def __post_init__(self) -> None:
        if min(self.width, self.pr_ms, self.qtc_ms, self.rbbb_ms) <= 0 or min(self.voltage, self.rbbb) < 0:
            raise UsageError("durations of a heart must be positive, and voltages no less than 0")

    def qt_ms(self) -> float:
        """QT at this rate, ms (Fridericia 1920)."""
        return float(self.qtc_ms * np.cbrt(60 / self.rhythm.rate))

    def qrs_ms(self) -> float:
        """Duration of QRS, ms."""
        return float(max(90 * self.width, self.rbbb_ms if self.rbbb > 0 else 0.0))

    def pr_now_ms(self) -> float:
        """PR at this rate, ms: shorter when fast, 0.3 ms a beat. Ours."""
        return float(np.clip(self.pr_ms - 0.3 * (self.rhythm.rate - 60), 105, 260))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waves:
    """Bell curves: where, how wide (standard deviation), and along which direction."""

    at: Float = field(repr=False)  # [K] s from the begin of QRS
    width: Float = field(repr=False)  # [K] s
    size: Float = field(repr=False)  # [K, 3] mV


# ms, ms, and mV along X, Y, Z of a QRS of 90 ms: septum, left ventricle early and late, base.
_SEPTUM = (15.0, 6.5, (-0.17, 0.02, -0.24))
_EARLY = (35.0, 8.5, (1.02, 0.78, -0.12))
_LATE = (49.0, 8.0, (0.62, 0.55, 0.88))
_BASE = (64.0, 7.5, (-0.22, -0.12, 0.42))
_T_AXIS = np.array([0.40, 0.32, -0.20])
"""T of a usual heart, mV: to the left, down and a little to the front."""
_T_STRAIN = np.array([-0.12, -0.24, 0.62])
"""Added to T by a strained right ventricle: to the back and up, so that V1-V4 and III turn negative."""
_VENTRICULAR = (
    # From the right ventricle (left bundle branch block pattern), and from the left one: QRS, its end, T against it.
    ((65.0, 24.0, (0.9, 0.7, 0.9)), (105.0, 24.0, (0.5, 0.2, 0.9)), (300.0, 55.0, (-0.45, -0.3, -0.65))),
    ((65.0, 24.0, (-0.7, 0.9, -0.9)), (105.0, 24.0, (-0.5, 0.5, -0.7)), (300.0, 55.0, (0.4, -0.45, 0.6))),
)


def _turned(vectors: Float, axis_deg: float, turn_deg: float) -> Float:
    """Turned in the horizontal plane to the back, then in the frontal plane to the right: [..., 3]."""
    a, t = np.deg2rad(axis_deg), np.deg2rad(turn_deg)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    x, z = x * np.cos(t) - z * np.sin(t), z * np.cos(t) + x * np.sin(t)
    return np.stack([x * np.cos(a) - y * np.sin(a), y * np.cos(a) + x * np.sin(a), z], -1)


def _waves(rows: list[tuple[float, float, Float]]) -> Waves:
    return Waves(
        at=np.array([row[0] for row in rows]) / 1000,
        width=np.array([row[1] for row in rows]) / 1000,
        size=np.array([row[2] for row in rows]),
    )


def ventricles(heart: Heart) -> Waves:
    """QRS, ST and T of a beat that the conduction system led."""
    stretch = heart.width
    septum = np.array(_SEPTUM[2]) * (1 - 0.4 * heart.qr_v1) + heart.qr_v1 * np.array([0.12, 0.0, 0.46])
    septum = septum + heart.q3 * np.array([0.30, -0.38, -0.04])
    septum_at, septum_width = _SEPTUM[0] + 9 * heart.qr_v1, _SEPTUM[1] * (1 + 0.6 * heart.qr_v1)  # one smooth Q
    base = np.array(_BASE[2]) + heart.s1 * np.array([-0.62, 0.10, 0.05]) + heart.qr_v1 * np.array([-0.22, 0.0, -0.72])
    left = _turned(
        np.stack([np.array(_EARLY[2]), np.array(_LATE[2]) * (1 - 0.35 * heart.qr_v1)]), heart.axis_deg, heart.turn_deg
    )
    rows = [
        (septum_at * stretch, septum_width * stretch, septum * heart.voltage),
        (_EARLY[0] * stretch, _EARLY[1] * stretch, left[0] * heart.voltage),
        (_LATE[0] * stretch, _LATE[1] * stretch, left[1] * heart.voltage),
        (_BASE[0] * stretch, _BASE[1] * stretch * (1 + 0.3 * heart.s1), base * heart.voltage),
    ]
    block_t = np.zeros(3)
    if heart.rbbb > 0:
        wide = 7 + 0.32 * max(0.0, heart.rbbb_ms - 100)
        late = heart.rbbb * np.array([-0.50, 0.05, -0.72]) * heart.voltage
        rows.append((heart.rbbb_ms - 2.1 * wide, wide, late))
        block_t = -0.22 * late * min(1.0, (heart.rbbb_ms - 95) / 30)  # repolarisation follows the block
    t = _T_AXIS * heart.t_voltage + heart.t_inversion * _T_STRAIN + heart.t3 * np.array([0.08, -0.30, 0.0]) + block_t
    scale = heart.qt_ms() / 400
    late_width = 34 * scale
    peak = heart.qt_ms() - 2.2 * late_width
    rows += [
        (peak - 42 * scale, 48 * scale, 0.42 * t),
        (peak, late_width, 0.72 * t),
        (heart.qrs_ms() + 35, 28.0, heart.st_mv * _T_AXIS / 0.55),
    ]
    return _waves(rows)


def atria(heart: Heart, odd: bool = False) -> Waves:
    """P: the right atrium down and to the front, then the left one to the left and back; `odd`: from elsewhere."""
    begin = -heart.pr_now_ms()
    right = np.array([0.035, 0.085, -0.065]) * (1 + heart.p_right)
    left = np.array([0.075, 0.045, 0.050])
    if odd:
        right, left = right * [1, -0.5, 1], left * [1, 0.2, 1]
    size = heart.p_voltage
    return _waves([(begin + 38, 16.0, right * size), (begin + 66, 18.0, left * size)])


def _ectopic(variant: int, voltage: float) -> Waves:
    return _waves([(at, width, np.array(size) * voltage) for at, width, size in _VENTRICULAR[variant]])


def dipole(heart: Heart, *, seconds: float, hertz: int, rng: np.random.Generator) -> tuple[Float, Beats]:
    """The dipole over time, float64 [3, S] mV on Frank's axes, and the beats it has.

    Parameters
    ----------
    heart : Heart
    seconds : float
    hertz : int
    rng : Generator
    """
    samples = round(seconds * hertz)
    led = beats(heart.rhythm, seconds, rng)
    beat_size = 1 + heart.wobble * np.sin(2 * np.pi * (heart.rhythm.breath_hz * led.onset + rng.random()))
    own = rng.integers(0, len(_VENTRICULAR))  # premature beats of one person look alike
    parts = [(ventricles(heart), led.kind != VENTRICULAR), (_ectopic(int(own), heart.voltage), led.kind == VENTRICULAR)]
    if not heart.rhythm.fibrillation:
        parts += [(atria(heart), led.kind == NORMAL), (atria(heart, odd=True), led.kind == ATRIAL)]
    at, width, size = (
        np.concatenate(values)
        for values in zip(*(_placed(waves, led.onset[which], beat_size[which]) for waves, which in parts), strict=True)
    )
    signal = _painted(at, width, size, samples, hertz)
    if heart.rhythm.fibrillation:
        signal += _flutter(samples, hertz, heart.p_voltage, rng)
    return signal, led


def _placed(waves: Waves, onset: Float, beat_size: Float) -> tuple[Float, Float, Float]:
    """Every wave of every beat: times, widths, sizes."""
    at = (onset[:, None] + waves.at).ravel()
    width = np.tile(waves.width, len(onset))
    size = (beat_size[:, None, None] * waves.size).reshape(-1, 3)
    return at, width, size


def _painted(at: Float, width: Float, size: Float, samples: int, hertz: int) -> Float:
    """Sum of bell curves, [3, S]; each is drawn to 4.5 standard deviations only."""
    half = np.ceil(4.5 * width * hertz).astype(np.int64)
    centre = np.rint(at * hertz).astype(np.int64)
    reach = np.exp2(np.ceil(np.log2(half))).astype(np.int64)
    out = np.zeros((3, samples))
    for h in np.unique(reach):
        rows = reach == h
        index = centre[rows, None] + np.arange(-h, h + 1)  # [K, 2h+1]
        bell = np.exp(-0.5 * ((index / hertz - at[rows, None]) / width[rows, None]) ** 2)
        inside = (index >= 0) & (index < samples)
        where = index[inside]
        for axis in range(3):
            out[axis] += np.bincount(where, (bell * size[rows, axis, None])[inside], minlength=samples)
    return out


def _flutter(samples: int, hertz: int, voltage: float, rng: np.random.Generator) -> Float:
    """Fibrillatory waves, 4-9 Hz, largest in V1 and II: [3, S] mV."""
    time = np.arange(samples) / hertz
    out = np.zeros((3, samples))
    for _ in range(3):
        base, wander, speed = rng.uniform(4.5, 7.5), rng.uniform(0.3, 1.2), rng.uniform(0.15, 0.6)
        slow = np.sin(2 * np.pi * (speed * time + rng.random()))
        angle = 2 * np.pi * (base * time + rng.random()) + wander / speed * slow
        direction = np.array([-0.018, 0.022, -0.032]) * voltage * rng.uniform(0.4, 1.2, 3)
        out += direction[:, None] * np.sin(angle)
    return out
