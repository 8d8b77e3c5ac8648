"""Signal equations and the sequences that use them.

References
----------
Ernst and Anderson, Review of Scientific Instruments 1966;37:93-102 (spoiled gradient echo). Hajnal et al., Journal of
Computer Assisted Tomography 1992;16:841-4 (FLAIR). McRobbie et al., MRI from Picture to Proton (common protocols).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.phantom.mr_tissue import FIELDS_T, NAMES, SUBSTANCES, Substance

KINDS = ("t2star", "flair", "t1", "swi", "t2", "swi_minip")
"""Series this phantom makes: a gradient echo with T2* contrast, FLAIR, T1, SWI; on request a T2 turbo spin echo and
minimum intensities of the SWI."""
DEFAULT_KINDS = KINDS[:4]

Physics = Literal["gradient_echo", "spin_echo", "inversion_recovery"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PulseSequence:
    """How a series is excited and read out. Times ms, angles degrees.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    physics : str
        ``gradient_echo`` (spoiled), ``spin_echo`` (turbo where `echo_train` > 1) or ``inversion_recovery``.
    field_t : float
    te, tr : float
        Echo and repetition time; of a turbo spin echo the effective echo time.
    flip_deg : float
    ti : float
        Inversion time; 0 without an inversion.
    echo_train : int
        Echoes after one excitation.
    echo_spacing : float
        Time between them.
    """

    kind: str
    physics: Physics
    field_t: float
    te: float
    tr: float
    flip_deg: float = 90.0
    ti: float = 0.0
    echo_train: int = 1
    echo_spacing: float = 0.0

    @property
    def free_ms(self) -> float:
        """Time for recovery after the last echo."""
        return max(self.tr - self.echo_train * self.echo_spacing, 1.0)


def at_field(values: tuple[float, float], field_t: float) -> float:
    """A value of a table at a field strength, by linear interpolation between 1.5 and 3 T."""
    return float(np.interp(field_t, FIELDS_T, values))


def spoiled_gradient_echo(s: Substance, sequence: PulseSequence, b1: float = 1.0) -> float:
    """Steady state of a spoiled gradient echo (Ernst and Anderson), without dephasing by gradients."""
    t1, t2_star = at_field(s.t1, sequence.field_t), at_field(s.t2_star, sequence.field_t)
    angle = np.radians(sequence.flip_deg * b1)
    kept = np.exp(-sequence.tr / t1)
    return float(s.density * np.sin(angle) * (1 - kept) / (1 - np.cos(angle) * kept) * np.exp(-sequence.te / t2_star))


def spin_echo(s: Substance, sequence: PulseSequence, b1: float = 1.0) -> float:
    """Spin echo or turbo spin echo at its effective echo time; refocusing pulses are 180 degrees times `b1`."""
    t1, t2 = at_field(s.t1, sequence.field_t), at_field(s.t2, sequence.field_t)
    pulses = np.sin(np.radians(sequence.flip_deg * b1)) * np.sin(np.radians(90 * b1)) ** 2
    return float(s.stays * s.density * pulses * (1 - np.exp(-sequence.free_ms / t1)) * np.exp(-sequence.te / t2))


def inversion_recovery(s: Substance, sequence: PulseSequence, b1: float = 1.0) -> float:
    """Turbo spin echo after an inversion; signed. The inversion is adiabatic: `b1` does not change it."""
    t1, t2 = at_field(s.t1, sequence.field_t), at_field(s.t2, sequence.field_t)
    pulses = np.sin(np.radians(sequence.flip_deg * b1)) * np.sin(np.radians(90 * b1)) ** 2
    recovered = 1 - 2 * np.exp(-sequence.ti / t1) + np.exp(-sequence.free_ms / t1)
    return float(s.stays * s.density * pulses * recovered * np.exp(-sequence.te / t2))


_EQUATIONS = {
    "gradient_echo": spoiled_gradient_echo,
    "spin_echo": spin_echo,
    "inversion_recovery": inversion_recovery,
}


def signal(name: str, sequence: PulseSequence, b1: float = 1.0) -> float:
    """Signal of a substance of :data:`edgehem.phantom.mr_tissue.SUBSTANCES`.

    Parameters
    ----------
    name : str
    sequence : PulseSequence
    b1 : float
        Transmitted field, 1 where the flip angle is the one asked for.

    Returns
    -------
    float
        Arbitrary units; negative in an inversion recovery before the null.
    """
    return _EQUATIONS[sequence.physics](SUBSTANCES[name], sequence, b1)


def signals(sequence: PulseSequence, b1: npt.ArrayLike = (1.0,)) -> npt.NDArray[np.float32]:
    """Signals of all substances in the order of NAMES, float32 [len(b1), len(NAMES)]."""
    levels = np.atleast_1d(np.asarray(b1, np.float64))
    return np.array([[signal(name, sequence, float(level)) for name in NAMES] for level in levels], np.float32)


def fluid_null_ms(t1: float, free_ms: float) -> float:
    """Inversion time at which a fluid gives no signal, ms: T1 ln(2 / (1 + exp(-free / T1)))."""
    return float(t1 * np.log(2 / (1 + np.exp(-free_ms / t1))))


def draw_field(seed: int) -> float:
    """Field strength of the scanner a seed's patient lies in: 1.5 T or 3 T, evenly."""
    return float(np.random.default_rng([seed, 60]).choice(FIELDS_T))


def draw_sequence(kind: str, seed: int, field_t: float) -> PulseSequence:
    """Draw the parameters of a series from the range of common protocols (ours, after McRobbie).

    Raises
    ------
    UsageError
        If `kind` is not one of KINDS, or the field strength is outside 1.5-3 T.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown MR series {kind!r}; one of {', '.join(KINDS)}")
    if not FIELDS_T[0] <= field_t <= FIELDS_T[1]:
        raise UsageError(f"a field of {field_t} T is outside {FIELDS_T[0]}-{FIELDS_T[1]} T, which the tables hold")
    source = "swi" if kind == "swi_minip" else kind  # made from the very same acquisition
    rng = np.random.default_rng([seed, 70, KINDS.index(source)])
    high = (field_t - FIELDS_T[0]) / (FIELDS_T[1] - FIELDS_T[0])

    def between(low: float, top: float, digits: int = 1) -> float:
        return round(float(rng.uniform(low, top)), digits)

    if source == "t2star":
        te = between(20 - 4 * high, 26 - 5 * high)
        return PulseSequence(
            kind=kind,
            physics="gradient_echo",
            field_t=field_t,
            te=te,
            tr=between(550, 850, 0),
            flip_deg=between(15, 22, 0),
        )
    if source == "swi":
        te = between(38 - 18 * high, 42 - 20 * high)
        return PulseSequence(
            kind=kind,
            physics="gradient_echo",
            field_t=field_t,
            te=te,
            tr=between(te + 8, te + 12),
            flip_deg=between(12, 18, 0),
        )
    if source == "t1":
        if field_t < 2.5:
            te, tr = between(9, 14), between(430, 600, 0)
            return PulseSequence(kind=kind, physics="spin_echo", field_t=field_t, te=te, tr=tr)
        te, tr = between(2.4, 4.8), between(190, 270, 0)
        return PulseSequence(
            kind=kind, physics="gradient_echo", field_t=field_t, te=te, tr=tr, flip_deg=between(65, 80, 0)
        )
    train, spacing = int(rng.integers(14, 22)), between(8, 11)
    if source == "t2":
        te, tr = between(88, 110), between(3500, 5500, 0)
        return PulseSequence(
            kind=kind, physics="spin_echo", field_t=field_t, te=te, tr=tr, echo_train=train, echo_spacing=spacing
        )
    te, tr = between(95, 130), between(8000, 10000, 0)
    fluid = at_field(SUBSTANCES["csf"].t1, field_t)
    ti = fluid_null_ms(fluid, tr - train * spacing) * float(rng.uniform(0.98, 1.02))  # nobody nulls it exactly
    return PulseSequence(
        kind=kind, physics="inversion_recovery", field_t=field_t, te=te, tr=tr, ti=round(ti, 1), echo_train=train,
        echo_spacing=spacing,
    )  # fmt: skip
