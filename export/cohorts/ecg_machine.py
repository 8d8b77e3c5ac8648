"""What lies between a heart and a file: electrodes that move and fall off, muscles, mains, filters, a converter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.cohorts.ecg_leads import ELECTRODES, FREE, MEASURED, POTENTIALS, Float, twelve

MARGIN_S = 1.0
"""Drawn before and after what is kept, so that no filter sees the ends."""
RAIL_MV = 5.0
"""Largest voltage of a measured lead; beyond it the signal is flat. Ours."""
MUSCLE_HZ = (15.0, 250.0)
"""Band of muscle noise; it falls off above 90 Hz. Ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An electrocardiograph.

    Parameters
    ----------
    name : str
    hertz : int
        500 or 1000.
    step_uv : float
        Of the converter. Files are written in half steps, in which Goldberger's halves are whole numbers.
    high_pass, low_pass : float
        Corner frequencies, Hz; the high-pass is a single pole (it bends ST, as real ones do), the low-pass a
        Butterworth filter of second order without phase.
    notch : bool
        Whether mains hum is taken out, all but a twentieth.
    mains : float
        50 or 60 Hz.
    unit : str
        Of the file: ``mV`` or ``uV``.
    scheme : str
        Of the lead codes in the file: ``MDC`` (DICOM CID 3001) or ``SCPECG`` (as older machines write).
    """

    name: str = "edgehem phantom A"
    hertz: int = 500
    step_uv: float = 5.0
    high_pass: float = 0.05
    low_pass: float = 150.0
    notch: bool = False
    mains: float = 50.0
    unit: Literal["mV", "uV"] = "mV"
    scheme: Literal["MDC", "SCPECG"] = "MDC"

    def __post_init__(self) -> None:
        if self.hertz not in (500, 1000):
            raise UsageError(f"an ECG is sampled at 500 or 1000 Hz here, not at {self.hertz}")
        if not (0 < self.high_pass < self.low_pass < self.hertz / 2 and self.step_uv > 0):
            raise UsageError(
                "filters must have 0 < high-pass < low-pass < half the sampling rate, and steps be positive"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What goes wrong in one recording.

    Parameters
    ----------
    wander_mv : float
        Baseline with breathing and with skin potentials, standard deviation at an electrode.
    muscle_mv, hum_mv : float
        Standard deviation, and amplitude before any notch.
    pops : int
        Sudden steps of an electrode's potential that fade.
    motion_mv : float
        Size of one excursion of a second or two; several millivolts drive the amplifier to its rail.
    swapped : tuple of str, optional
        Two electrodes that were confused.
    off : str, optional
        A chest electrode that fell off: its lead is flat.
    """

    wander_mv: float = 0.03
    muscle_mv: float = 0.006
    hum_mv: float = 0.004
    pops: int = 0
    motion_mv: float = 0.0
    swapped: tuple[str, str] | None = None
    off: str | None = None

    def __post_init__(self) -> None:
        for name in (*(self.swapped or ()), *((self.off,) if self.off else ())):
            if name not in ELECTRODES:
                raise UsageError(f"{name} is no electrode; there are {', '.join(ELECTRODES)}")
        if self.off in ELECTRODES[:3]:
            raise UsageError(f"only a chest electrode may be off here, not {self.off}")


QUIET = Flaws(wander_mv=0.0, muscle_mv=0.0, hum_mv=0.0)
"""A recording without any flaw."""

# Chances of flaws in a recording: ours, meant to look like an emergency department's.
POP_CHANCE, MOTION_CHANCE, RAIL_CHANCE = 0.06, 0.08, 0.01
ARMS_CHANCE, CHEST_CHANCE, OFF_CHANCE = 0.01, 0.01, 0.01


def draw_flaws(rng: np.random.Generator, noise: float = 1.0) -> Flaws:
    """Flaws of one recording; `noise` scales wander, muscles and hum."""
    chance = rng.random(6)
    motion = rng.uniform(0.3, 1.2) if chance[1] < MOTION_CHANCE else 0.0
    swapped = ("RA", "LA") if chance[3] < ARMS_CHANCE else ("V1", "V2") if chance[4] < CHEST_CHANCE else None
    lost = ELECTRODES[rng.integers(3, 9)]
    sizes = np.exp(rng.normal(0, 0.5, 3)) * noise
    return Flaws(
        wander_mv=0.035 * sizes[0],
        muscle_mv=0.007 * sizes[1],
        hum_mv=0.006 * sizes[2],
        pops=int(rng.integers(1, 3)) if chance[0] < POP_CHANCE else 0,
        motion_mv=float(rng.uniform(7, 10)) if chance[2] < RAIL_CHANCE else motion,
        swapped=swapped,
        off=lost if chance[5] < OFF_CHANCE else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Twelve leads as a machine writes them.

    Parameters
    ----------
    counts : int16 array [12, S]
        In the order of :data:`~edgehem.export.cohorts.ecg_leads.LEADS`.
    lsb_mv : float
    machine : Machine
    flaws : Flaws
    """

    counts: npt.NDArray[np.int16] = field(repr=False)  # [12, S]
    lsb_mv: float
    machine: Machine
    flaws: Flaws

    def millivolts(self) -> Float:
        """The signal, float64 [12, S] mV."""
        return np.asarray(self.counts * self.lsb_mv, np.float64)


def acquire(
    measured: Float, *, machine: Machine, flaws: Flaws, breath_hz: float, rng: np.random.Generator
) -> Recording:
    """Record leads with a machine.

    Parameters
    ----------
    measured : float64 array [8, S]
        Leads of :data:`~edgehem.export.cohorts.ecg_leads.FREE`, mV, with :data:`MARGIN_S` before and after.
    machine : Machine
    flaws : Flaws
    breath_hz : float
    rng : Generator
    """
    samples, hertz = measured.shape[1], machine.hertz
    potential = POTENTIALS @ measured  # [9, S] mV
    _disturb(potential, hertz, flaws, breath_hz, rng)
    if flaws.swapped:
        pair = [ELECTRODES.index(name) for name in flaws.swapped]
        potential[pair] = potential[pair[::-1]]
    frequency = np.asarray(np.fft.rfftfreq(samples, 1 / hertz), np.float64)
    # The leads are sums of potentials, and filters are linear: noise is made of frequencies, which spares a transform.
    spectrum = np.fft.rfft(MEASURED @ potential) + MEASURED @ _noise(frequency, samples, machine, flaws, rng)
    signal = np.fft.irfft(spectrum * _response(frequency, machine), samples)
    margin = round(MARGIN_S * hertz)
    kept = np.clip(signal[:, margin : samples - margin], -RAIL_MV, RAIL_MV)
    steps = 2 * np.rint(kept * (1000 / machine.step_uv)).astype(np.int32)  # [8, S] half steps
    if flaws.off:
        steps[FREE.index(flaws.off)] = 0
    return Recording(counts=twelve(steps).astype(np.int16), lsb_mv=machine.step_uv / 2000, machine=machine, flaws=flaws)


def _response(frequency: Float, machine: Machine) -> npt.NDArray[np.complex128]:
    high = 1j * frequency / (1j * frequency + machine.high_pass)
    low = 1 / np.sqrt(1 + (frequency / machine.low_pass) ** 4)
    return np.asarray(high * low, np.complex128)


def _noise(
    frequency: Float, samples: int, machine: Machine, flaws: Flaws, rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    """Spectrum of what each electrode adds all the time, [9, F]: skin, muscles, mains."""
    out = np.zeros((len(ELECTRODES), len(frequency)), np.complex128)
    low = frequency[frequency < MUSCLE_HZ[1]]
    draws = rng.standard_normal((2, len(ELECTRODES), len(low)))
    skin = np.where((low > 0) & (low < 1), 1 / np.maximum(low, 0.05), 0.0)
    muscle = np.where(low > MUSCLE_HZ[0], 1 / (1 + (low / 90) ** 2), 0.0)
    size = np.zeros_like(low)
    for shape, sd in ((skin, flaws.wander_mv * 0.7), (muscle, flaws.muscle_mv)):
        # By Parseval, independent parts of size s give a variance of 4 s^2 / S^2 summed over positive frequencies.
        size = np.hypot(size, shape * sd * samples / (2 * np.sqrt(np.sum(shape**2))))
    out.real[:, : len(low)] = draws[0] * size
    out.imag[:, : len(low)] = draws[1] * size
    hum = flaws.hum_mv * (0.05 if machine.notch else 1.0) * samples / 2
    for multiple, part in ((1, 1.0), (3, 0.2)):
        bin_ = round(machine.mains * multiple * samples / machine.hertz)
        if bin_ < len(frequency):
            angle = 2 * np.pi * rng.random()
            out[:, bin_] += hum * part * rng.uniform(0.2, 1, len(ELECTRODES)) * np.exp(1j * angle)
    return out


def _disturb(potential: Float, hertz: int, flaws: Flaws, breath_hz: float, rng: np.random.Generator) -> None:
    """Add what happens at some time to some electrode, in place: breathing, pops, motion."""
    time = np.arange(potential.shape[1]) / hertz
    breath = np.sin(2 * np.pi * (breath_hz * time + rng.random()))
    potential += flaws.wander_mv * rng.normal(0, 1, (len(potential), 1)) * breath
    for _ in range(flaws.pops):
        begin, height = rng.uniform(0, time[-1]), rng.choice([-1, 1]) * rng.uniform(0.4, 1.5)
        after = time >= begin
        potential[rng.integers(len(potential)), after] += height * np.exp(-(time[after] - begin) / 0.25)
    if flaws.motion_mv:
        centre, width = rng.uniform(MARGIN_S + 1, time[-1] - MARGIN_S - 1), rng.uniform(0.25, 0.7)
        swing = np.exp(-0.5 * ((time - centre) / width) ** 2) * np.cos(2 * np.pi * 0.6 * (time - centre))
        potential[rng.integers(len(potential))] += rng.choice([-1, 1]) * flaws.motion_mv * swing
