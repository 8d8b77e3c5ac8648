"""Judging: discrimination, decisions and their intervals, through the whole runtime."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.export.progress import Progress
from edgehem.export.samples import UNKNOWN
from edgehem.export.sources import phantom_source, rows_of_split
from edgehem.intervals import wilson
from edgehem.machine import usable_cpus
from edgehem.model import load
from edgehem.phantom.cases import LABELS, make_case
from edgehem.phantom.files import cohort_case, write_case
from edgehem.result import Result, Verdict
from edgehem.workers import ordered

Float = npt.NDArray[np.float64]
RESAMPLES = 2000
"""Bootstrap resamples of an interval."""


def auc(labels: npt.NDArray[Any], scores: Float) -> float:
    """Area under the ROC curve (Mann-Whitney), ties counted half; NaN where one class is missing."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    ranked = np.sort(negative)
    below = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(below.sum() / (2 * len(positive) * len(negative)))


def auc_interval(labels: npt.NDArray[Any], scores: Float, *, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the AUC, resampled within each class."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == value) for value in (0, 1)]
    values = []
    for _ in range(RESAMPLES):
        pick = np.concatenate([rng.choice(group, len(group)) for group in groups])
        values.append(auc(labels[pick], scores[pick]))
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One held-out study: its labels, volumes, and the result at every precision (NO-RESULT included)."""

    labels: dict[str, int]
    ml: dict[str, float]
    results: dict[str, Result]


def _phantom_studies(count: int, seed: int) -> Iterator[tuple[Path, dict[str, int], dict[str, float]]]:
    """The cohort as a hospital would deliver it, in DICOM; each study is removed when the next is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(Path(folder), number, seed) for number in range(count)]
        for path, labels, ml in ordered(_write_phantom, jobs, usable_cpus()):
            yield path / "dicom", labels, ml
            shutil.rmtree(path)


def _write_phantom(job: tuple[Path, int, int]) -> tuple[Path, dict[str, int], dict[str, float]]:
    folder, number, seed = job
    case_seed, bleeds = cohort_case(number, seed)
    truth = write_case(make_case(case_seed, bleeds=bleeds), folder / str(number))
    return folder / str(number), truth["labels"], truth["volume_ml"]


def _table_studies(table: Path) -> Iterator[tuple[Path, dict[str, int], dict[str, float]]]:
    for row in rows_of_split(table, "test"):
        if not row.ct.exists():
            raise UsageError(f"line {row.line} of {table.name}: there is nothing at the path in column 'ct'")
        yield row.ct, row.labels, {}


def judge(bundle: Path, source: str, precisions: Sequence[str] = ("fp32", "int8")) -> list[Judged]:
    """Run every study of a source through the whole runtime, from DICOM to decision.

    A study that gets no result stays in: refusing to answer is an answer that is judged.

    Parameters
    ----------
    bundle : Path
    source : str
        A table, or ``phantoms:COUNT:SEED``.
    precisions : sequence of str

    Raises
    ------
    UsageError
        If the source is malformed, or is one for training, or names a study that is not there.
    """
    phantoms = phantom_source(source)
    if phantoms is not None and phantoms[0] != "phantoms":
        raise UsageError("judging takes a table or phantoms:COUNT:SEED")
    total = phantoms[1] if phantoms else len(rows_of_split(Path(source), "test"))
    studies = _phantom_studies(*phantoms[1:]) if phantoms else _table_studies(Path(source))
    models = {precision: load(bundle, precision=precision) for precision in precisions}
    judged, bar = [], Progress("held-out studies", total)
    for path, labels, ml in studies:
        results = {precision: model.triage_path(path)[0] for precision, model in models.items()}
        judged.append(Judged(labels=labels, ml=ml, results=results))
        bar.show(len(judged))
    bar.close()
    return judged


def summarise(judged: Sequence[Judged], reference: str = "fp32") -> dict[str, Any]:
    """Figures of a judged cohort.

    Returns
    -------
    dict
        Per precision: AUC of every label with its 95 % interval, sensitivity and specificity of "any" at the operating
        point, studies without a result; and against the reference precision: decisions flipped, worst shift of a
        probability. Studies without a result count as score 0 and as not positive. An AUC is None where one class is
        missing.
    """
    truth = {name: np.array([item.labels.get(name, UNKNOWN) for item in judged]) for name in LABELS}
    summary: dict[str, Any] = {"studies": len(judged), "bleeding": int((truth["any"] == 1).sum()), "precisions": {}}
    scores: dict[str, Float] = {}
    positives: dict[str, npt.NDArray[np.bool_]] = {}
    for precision in judged[0].results:
        results = [item.results[precision] for item in judged]
        table = np.array([[f.probability for f in r.findings] or [0.0] * len(LABELS) for r in results])
        positive = np.array([bool(r.findings) and r.findings[0].positive for r in results])
        scores[precision], positives[precision] = table, positive
        areas = {}
        for column, name in enumerate(LABELS):
            known = truth[name] != UNKNOWN
            areas[name] = _area(truth[name][known], table[known, column])
        bleeding, free = truth["any"] == 1, truth["any"] == 0
        summary["precisions"][precision] = {
            "auc": areas,
            "sensitivity": _proportion(int(positive[bleeding].sum()), int(bleeding.sum())),
            "specificity": _proportion(int((~positive[free]).sum()), int(free.sum())),
            "no_result": sum(r.verdict is Verdict.NO_RESULT for r in results),
            "uncertain": sum(any(c.value == "UNCERTAIN" for c in r.codes) for r in results),
            "sensitivity_by_subtype": {
                name: _proportion(int(positive[truth[name] == 1].sum()), int((truth[name] == 1).sum()))
                for name in LABELS[1:]
            },
        }
    for precision, table in scores.items():
        if precision != reference and reference in scores:
            flipped = positives[precision] != positives[reference]
            area, against = (summary["precisions"][name]["auc"]["any"] for name in (precision, reference))
            summary["precisions"][precision][f"against_{reference}"] = {
                "flips": int(flipped.sum()),
                "flip_rate": round(float(flipped.mean()), 4),
                "worst_shift": round(float(np.abs(table - scores[reference]).max()), 4),
                "auc_difference": round(area[0] - against[0], 4) if area and against else None,
            }
    return summary


def _area(labels: npt.NDArray[Any], scores: Float) -> list[float] | None:
    """An AUC with its interval; None (JSON has no NaN) where one class is missing."""
    value = auc(labels, scores)
    return None if np.isnan(value) else [round(v, 4) for v in (value, *auc_interval(labels, scores))]


def _proportion(hits: int, total: int) -> list[float]:
    """A proportion with its Wilson interval, and its total."""
    low, high = wilson(hits, total)
    return [round(hits / total, 4) if total else 0.0, round(low, 4), round(high, 4), total]


def spell_figure(figure: Sequence[float] | None) -> str:
    """A value with its interval, or that there is none because one class is missing."""
    return f"{figure[0]:.3f} ({figure[1]:.3f}-{figure[2]:.3f})" if figure else "one class is missing"


def render(summary: dict[str, Any]) -> str:
    """The figures as a table for the terminal."""
    lines = [f"{summary['studies']} studies, {summary['bleeding']} with hemorrhage; intervals are 95 %"]
    for precision, figures in summary["precisions"].items():
        lines.append(f"\n{precision}")
        for name, area in figures["auc"].items():
            lines.append(f"  AUC {name:<18} {spell_figure(area)}")
        for name in ("sensitivity", "specificity"):
            value, low, high, total = figures[name]
            lines.append(f"  {name:<22} {value:.3f}  ({low:.3f}-{high:.3f}), n = {total}")
        lines.append(f"  uncertain {figures['uncertain']}, no result {figures['no_result']}")
        for key, against in figures.items():
            if key.startswith("against_"):
                difference = against["auc_difference"]
                lines.append(
                    f"  against {key[8:]}: {against['flips']} decisions flipped ({against['flip_rate']:.1%}), "
                    f"worst shift of a probability {against['worst_shift']:.3f}"
                    + ("" if difference is None else f", AUC {difference:+.4f}")
                )
    return "\n".join(lines)
