"""ECGs of the cohorts of pulmonary embolism: from a patient's signs to a heart, a machine, a recording, a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgehem.export.cohorts.core import Float, Patients, Values
from edgehem.export.cohorts.ecg import record
from edgehem.export.cohorts.ecg_features import FEATURES, read_features
from edgehem.export.cohorts.ecg_files import write_ecg
from edgehem.export.cohorts.ecg_heart import Heart
from edgehem.export.cohorts.ecg_machine import Machine, Recording, draw_flaws
from edgehem.export.cohorts.ecg_rhythm import Rhythm
from edgehem.export.cohorts.pe_strain import SIGNS

PURPOSE = 51
"""Keeps the ECG's random numbers apart from those of patients."""

MACHINES = (
    Machine(name="edgehem phantom A"),
    Machine(name="edgehem phantom A, monitor filter", high_pass=0.5, low_pass=40.0, notch=True),
)
MONITOR_CHANCE = 0.3
"""How often the usual place records with the second of its settings. Ours."""
OTHER_MACHINE = Machine(
    name="edgehem phantom B", hertz=1000, step_uv=2.5, high_pass=0.5, low_pass=100.0, notch=True, mains=60.0, unit="uV",
    scheme="SCPECG",
)  # fmt: skip
OTHER_NOISE = 1.6
"""Skin, muscles and mains at the other place against the usual one. Ours."""


def ecg_truth(signs: Values, rate: Float, age: Float, male: Float, shifted: bool) -> dict[str, Values]:
    """What ECGs of these patients are made from, for :attr:`Patients.truth`."""
    return {
        "signs": signs,
        "ecg_rate": rate,
        "ecg_age": age,
        "ecg_male": male,
        "ecg_other_machine": np.full(len(rate), shifted),
    }


def heart_of(signs: Mapping[str, bool], *, rate: float, age: float, male: bool, rng: np.random.Generator) -> Heart:
    """A heart with these signs; how marked each is, and what varies between people, is drawn. Numbers are ours.

    Parameters
    ----------
    signs : mapping of str to bool
        By the names of :data:`~edgehem.export.cohorts.pe_strain.SIGNS`.
    rate, age : float
        Beats a minute; years.
    male : bool
    rng : Generator
    """
    z = rng.standard_normal(16)
    u = rng.uniform(0.75, 1.25, 10)
    complete, incomplete = signs["rbbb_complete"], signs["rbbb_incomplete"]
    small = 0.6 if signs["low_voltage"] else 1.0  # of T; QRS loses more
    voltage = float(np.clip(np.exp(0.17 * z[0]) * (1.0 if male else 0.92), 0.7, 1.6))
    old = age - 60
    return Heart(
        rhythm=Rhythm(
            rate=rate,
            fibrillation=signs["fibrillation"],
            slow=0.012 * u[0] * np.exp(-old / 60),
            breathing=0.018 * u[1] * np.exp(-old / 40),
            breath_hz=0.24 + 0.08 * (rate > 100) + 0.02 * float(np.clip(z[1], -2, 2)),
            atrial=0.05 if rng.random() < 0.06 + 0.001 * max(0.0, old) else 0.0,
            ventricular=0.07 if rng.random() < 0.07 + 0.001 * max(0.0, old) else 0.0,
        ),
        axis_deg=-5 + 16 * z[2] - 0.35 * old + 58 * u[2] * signs["right_axis"],
        turn_deg=8 * z[3] + 42 * u[3] * signs["clockwise"],
        voltage=voltage * (0.36 if signs["low_voltage"] else 1.0),
        t_voltage=float(np.exp(0.25 * z[4]))
        * (0.75 if signs["t_inversion"] else 1.0)
        * (1.05 if male else 0.9)
        * small,
        p_voltage=float(np.exp(0.18 * z[5])),
        width=float(np.clip(1 + 0.07 * z[6], 0.8, 1.2)),
        pr_ms=float(np.clip(158 + 18 * z[7] + 0.3 * old, 115, 230)),
        qtc_ms=float(np.clip((405 if male else 415) + 16 * z[8], 350, 480)),
        st_mv=float(0.03 + 0.02 * z[9]),
        s1=u[4] if signs["s1q3t3"] else 0.15 * abs(z[10]),
        q3=u[5] if signs["s1q3t3"] else 0.12 * abs(z[11]),
        t3=u[6] * (0.6 if signs["t_inversion"] else 1.2) * small if signs["s1q3t3"] else 0.2 * abs(z[12]),
        t_inversion=u[7] * small if signs["t_inversion"] else 0.05 * float(z[13]),
        rbbb=u[8] if complete else 0.6 * u[8] if incomplete else 0.0,
        rbbb_ms=124 + 26 * abs(u[9] - 0.75) * 2 if complete else 104 + 12 * (u[9] - 0.75) * 2,
        qr_v1=1.0 if signs["qr_v1"] else 0.0,
        p_right=1.0 + 0.8 * u[0] if signs["p_pulmonale"] else 0.15 * float(np.clip(z[14], -2, 2)),
    )


def recording_of(patients: Patients, row: int, seed: int) -> Recording:
    """The ECG of one patient; `seed` is one of ``patients.seeds``, so that reading and writing give the same one."""
    truth = patients.truth
    rng = np.random.default_rng([seed, PURPOSE])
    signs = {sign.name: bool(truth["signs"][row, column]) for column, sign in enumerate(SIGNS)}
    rate, age = float(truth["ecg_rate"][row]), float(truth["ecg_age"][row])
    heart = heart_of(signs, rate=rate, age=age, male=bool(truth["ecg_male"][row]), rng=rng)
    other = bool(truth["ecg_other_machine"][row])
    machine = OTHER_MACHINE if other else MACHINES[int(rng.random() < MONITOR_CHANCE)]
    flaws = draw_flaws(rng, OTHER_NOISE if other else 1.0)
    return record(heart, machine=machine, flaws=flaws, rng=rng)


def write_recording(patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
    """Write one patient's ECG as ``ecg.dcm``: a cohort's `write_files`."""
    recording = recording_of(patients, row, seed)
    age = float(patients.truth["ecg_age"][row])
    write_ecg(out / "ecg.dcm", recording, identity=f"edgehem pe ecg {seed}", age=age)
    return {"ecg": "ecg.dcm"}


def recording_features(patients: Patients) -> dict[str, Float]:
    """What :func:`~edgehem.export.cohorts.ecg_features.read_features` measures in each patient's ECG, as written."""
    out = np.full((len(patients), len(FEATURES)), np.nan)
    for row in range(len(patients)):
        recording = recording_of(patients, row, int(patients.seeds[row]))
        measured = read_features(recording.millivolts(), recording.machine.hertz)
        out[row] = [measured[name] for name in FEATURES]
    return {name: out[:, column] for column, name in enumerate(FEATURES)}
