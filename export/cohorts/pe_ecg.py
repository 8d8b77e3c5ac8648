"""Suspected pulmonary embolism: is it one, by the ECG alone? The first half of system 5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import BLOCK, Cohort, Column, Float, Label, Patients, sigmoid, tidy, toss
from edgehem.export.cohorts.pe_recordings import ecg_truth, recording_features, write_recording
from edgehem.export.cohorts.pe_strain import beta_mixture, draw_rate, draw_signs, draw_strain, signs_log_likelihood

PREVALENCE = 0.41
"""Embolism among the suspected. The students' figures imply it: with sensitivity 0.419, specificity 0.854 and accuracy
0.6745, (0.854 - 0.6745) / (0.854 - 0.419) = 0.41."""
OTHER_PREVALENCE = 0.18
"""At the other place. Ours."""

STRAIN_PE: Float = beta_mixture(((0.26, 1.0, 7.0), (0.42, 3.0, 3.0), (0.32, 5.0, 2.0)))
STRAIN_NONE: Float = beta_mixture(((1.0, 1.0, 9.0),))
STRAIN_LUNG: Float = beta_mixture(((1.0, 2.0, 5.0),))
"""Strain with embolism, without one, and without one but with chronic lung disease (a chronic load). Ours."""


def _strain_weights(embolism: Float, lung: Float) -> Float:
    """Of patients, [N, 41]."""
    none = np.where(lung[:, None] > 0, STRAIN_LUNG, STRAIN_NONE)
    return np.asarray(np.where(embolism[:, None] > 0, STRAIN_PE, none), np.float64)


def _prior(age: Float, shifted: bool) -> Float:
    """Chance of embolism by age: a little higher in the old. Ours."""
    at = OTHER_PREVALENCE if shifted else PREVALENCE
    return sigmoid(np.log(at / (1 - at)) + 0.008 * (age - 60))


def _diseases(embolism: Float, age: Float) -> tuple[Float, Float]:
    """Chances of chronic lung disease and of heart failure: they bring people to be suspected, too. Ours."""
    lung = sigmoid(-1.5 - 0.5 * embolism + 0.02 * (age - 60))
    failure = sigmoid(-1.9 - 0.5 * embolism + 0.04 * (age - 60))
    return lung, failure


class PeEcg(Cohort):
    """Patients with suspected embolism, each with a 12-lead ECG."""

    name = "pe_ecg"
    version = "1"
    what = "Suspected pulmonary embolism: 12-lead ECG to diagnosis."
    columns = (
        Column(name="age", kind="count", what="Age.", unit="a", low=18, high=95),
        Column(name="male", kind="binary", what="Male sex."),
    )
    labels = (Label(name="pe", what="Pulmonary embolism."),)
    train, test = 1600, 400
    """Ours: the students' numbers of patients are not known. Their split was 8:2."""
    examined = 4000
    paths = ("ecg",)

    def block(self, rng: np.random.Generator, shifted: bool) -> Patients:
        """Draw patients: embolism, then diseases, strain, signs; the label's chance is its posterior by Bayes."""
        n = BLOCK
        inputs = tidy(
            self.columns, {"age": rng.normal(60, 17, n), "male": np.asarray(toss(rng, np.full(n, 0.47)), np.float64)}
        )
        age = inputs["age"]
        label = toss(rng, _prior(age, shifted))
        embolism = label.astype(np.float64)
        lung, failure = (toss(rng, chance).astype(np.float64) for chance in _diseases(embolism, age))
        strain = draw_strain(rng, _strain_weights(embolism, lung))
        signs = draw_signs(rng, strain, lung, failure, age)
        rate = draw_rate(rng, strain, lung, failure, signs)
        return Patients(
            inputs=inputs,
            labels={"pe": label},
            chance={"pe": posterior(signs, rate, age, shifted)},
            truth={
                "strain": strain,
                "lung": lung,
                "heart_failure": failure,
                **ecg_truth(signs, rate, age, inputs["male"], shifted),
            },
        )

    def write_files(self, patients: Patients, row: int, out: Path, seed: int) -> dict[str, str]:
        """Write the ECG."""
        return write_recording(patients, row, out, seed)

    def features(self, patients: Patients, seed: int) -> dict[str, Float]:
        """What a simple reader finds in the ECGs."""
        return recording_features(patients)


def posterior(signs: npt.NDArray[np.bool_], rate: Float, age: Float, shifted: bool) -> Float:
    """Chance of embolism given the ECG's signs and rate, and age: summed over strain and diseases, float64 [N]."""
    prior = _prior(age, shifted)
    joint = np.zeros((2, len(age)))
    for lung in (0.0, 1.0):
        for failure in (0.0, 1.0):
            ill_lung, ill_failure = np.full(len(age), lung), np.full(len(age), failure)
            like = np.exp(signs_log_likelihood(signs, rate, ill_lung, ill_failure, age))
            for embolism in (0.0, 1.0):
                has = np.full(len(age), embolism)
                chance_lung, chance_failure = _diseases(has, age)
                ill = (chance_lung if lung else 1 - chance_lung) * (chance_failure if failure else 1 - chance_failure)
                seen = np.sum(like * _strain_weights(has, ill_lung), axis=1)
                joint[int(embolism)] += ill * seen
    joint *= np.stack([1 - prior, prior])
    return np.asarray(joint[1] / joint.sum(axis=0), np.float64)
