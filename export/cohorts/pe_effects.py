"""What is planted in pulmonary embolism, in numbers: ``python -m edgehem.export.cohorts.pe_effects [PATIENTS [READ]]``.

Scores, ceilings, and what record, ECG and both tell of death, the ECG being given as its true signs and rate: what a
perfect reader would find. With READ, so many ECGs are read by the simple reader, too, to judge models of the own size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgehem.export.cohorts.core import Float, Patients, Values, Variant
from edgehem.export.cohorts.discrimination import concordance
from edgehem.export.cohorts.pe_ecg import PeEcg
from edgehem.export.cohorts.pe_lysis import PeLysis
from edgehem.export.cohorts.pe_scores import bacs, pesi, riete, spesi
from edgehem.export.cohorts.pe_strain import SIGNS
from edgehem.export.cohorts.reference import ask_for_sklearn, design, fit

SCORES: tuple[tuple[str, Callable[[Mapping[str, Values]], Float]], ...] = (
    ("death", pesi), ("death", spesi), ("bleeding", bacs), ("bleeding", riete),
)  # fmt: skip
"""Bedside scores, and the label each was made for."""


def perfect_reading(patients: Patients) -> dict[str, Float]:
    """The ECG's true signs and rate, as columns."""
    signs = np.asarray(patients.truth["signs"], np.float64)
    return {**{sign.name: signs[:, k] for k, sign in enumerate(SIGNS)}, "rate": patients.truth["ecg_rate"]}


def gains(
    count: int,
    label: str = "death",
    *,
    judged: int | None = None,
    reader: bool = False,
    model: str = "trees",
    seed: int = 0,
) -> dict[str, float]:
    """Concordance of a reference model on the record, on the ECG, and on both.

    Parameters
    ----------
    count : int
        Patients to train on.
    label : str
        Of :class:`PeLysis`.
    judged : int, optional
        Other patients to test on; as many by default.
    reader : bool
        Read the ECGs with the simple reader (slow), instead of perfectly.
    model : str
    seed : int
    """
    ask_for_sklearn()
    cohort = PeLysis()
    (what,) = (one for one in cohort.labels if one.name == label)
    train = cohort.draw(count, seed=2 * seed)
    test = cohort.draw(judged or count, seed=2 * seed + 1)
    readings = [cohort.features(some, seed) if reader else perfect_reading(some) for some in (train, test)]
    ecgs = [np.column_stack(list(reading.values())) for reading in readings]
    records = [design(cohort, some, {}) for some in (train, test)]
    seen = {"record": records, "ecg": ecgs, "both": [np.hstack(pair) for pair in zip(records, ecgs, strict=True)]}
    return {
        source: concordance(test.outcome(label), fit(model, what, known, train.labels[label])(new))
        for source, (known, new) in seen.items()
    }


def auc(outcome: npt.NDArray[np.int64], score: Float) -> str:
    """As text."""
    return f"{concordance(outcome, score):.3f}"


def main() -> None:
    """Print the tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    lines = [f"pe_ecg, {count} patients"]
    for variant in (Variant.PLANTED, Variant.SHIFTED):
        drawn = PeEcg().draw(count, variant=variant)
        outcome = drawn.outcome("pe")
        lines.append(f"  {variant.value}: prevalence {outcome.mean():.3f}, ceiling {auc(outcome, drawn.chance['pe'])}")
        if variant is Variant.PLANTED:
            lines.append(f"    who knew the strain: {auc(outcome, drawn.truth['strain'])}")
            for k, sign in enumerate(SIGNS):
                rates = [drawn.truth["signs"][outcome == value, k].mean() for value in (1, 0)]
                lines.append(f"    {sign.name:16} {rates[0]:.3f} with embolism, {rates[1]:.3f} without")
            rate = [drawn.truth["ecg_rate"][outcome == value].mean() for value in (1, 0)]
            lines.append(f"    heart rate       {rate[0]:.1f} with embolism, {rate[1]:.1f} without")
    lines.append(f"pe_lysis, {count} patients")
    for variant in (Variant.PLANTED, Variant.SHIFTED):
        drawn = PeLysis().draw(count, variant=variant)
        for label in ("death", "bleeding"):
            outcome = drawn.outcome(label)
            text = ", ".join(
                f"{score.__name__} {auc(outcome, score(drawn.inputs))}" for name, score in SCORES if name == label
            )
            lines.append(
                f"  {variant.value} {label}: {outcome.mean():.3f}, ceiling {auc(outcome, drawn.chance[label])}, {text}"
            )
    for label in ("death", "bleeding"):
        found = gains(count, label)
        lines.append(f"  trees on {label}: " + ", ".join(f"{source} {value:.3f}" for source, value in found.items()))
    if len(sys.argv) > 2:
        found = gains(PeLysis.train, judged=int(sys.argv[2]), reader=True, model="logistic")
        text = ", ".join(f"{source} {value:.3f}" for source, value in found.items())
        lines.append(f"  logistic on death, {PeLysis.train} patients, simple reader: {text}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
