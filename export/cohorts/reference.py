"""Reference models: what anybody reaches with scikit-learn in an afternoon, from the table and from simple readings.

Logistic regression and boosted trees for labels of two classes; for ordered labels ridge regression and boosted trees
on the class number.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import MissingExtraError
from edgehem.export.cohorts.core import UNKNOWN, Cohort, Float, Label, Patients

MODELS = ("logistic", "trees")
"""Of an ordered label, ``logistic`` is ridge regression."""


def design(cohort: Cohort, patients: Patients, features: Mapping[str, Float]) -> Float:
    """Inputs and readings as a matrix, float64 [N, columns]; NaN where unknown; a column for each value of a category.

    Columns that are for a report only are left out.

    Parameters
    ----------
    cohort : Cohort
    patients : Patients
    features : mapping of name to float64 array [N]
        What :meth:`Cohort.features` gave.
    """
    columns: list[Float] = []
    for column in cohort.columns:
        if column.report_only:
            continue
        values = patients.inputs[column.name]
        if column.kind == "category":
            columns += [np.where(values == "", np.nan, values == value) for value in column.values]
        else:
            columns.append(np.asarray(values, np.float64))
    columns += [np.asarray(values, np.float64) for values in features.values()]
    return np.column_stack(columns)


def fit(
    model: str, label: Label, matrix: Float, outcome: npt.NDArray[np.int64], seed: int = 0
) -> Callable[[Float], Float]:
    """Fit a reference model; what comes back scores further rows.

    Parameters
    ----------
    model : str
        One of :data:`MODELS`.
    label : Label
    matrix : float64 array [N, columns]
    outcome : int64 array [N]
        Rows with :data:`UNKNOWN` are left out.
    seed : int

    Returns
    -------
    callable
        From a matrix [M, columns] to a score [M]: a higher one speaks for a higher class.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    """
    known = outcome != UNKNOWN
    rows, target = matrix[known], outcome[known]
    if len(np.unique(target)) < 2:
        return lambda further: np.zeros(len(further))
    # A column nobody has, or that never varies, says nothing; imputers and scalers would only warn of it.
    said = np.isfinite(rows).any(axis=0)
    said[said] = np.nanmax(rows[:, said], axis=0) > np.nanmin(rows[:, said], axis=0)
    gaps = np.isnan(rows).any(axis=0) & ~np.isnan(rows).all(axis=0)
    if not said.any() and not gaps.any():
        return lambda further: np.zeros(len(further))
    made = (_linear if model == "logistic" else _trees)(label, int(known.sum()), seed)

    def arranged(some: Float) -> Float:
        return np.column_stack([some[:, said], np.isnan(some[:, gaps])])

    with _threads().limit(limits=1):
        made.fit(arranged(rows), target)

    def score(further: Float) -> Float:
        with _threads().limit(limits=1):
            said = (
                made.predict_proba(arranged(further))[:, 1] if label.classes == 2 else made.predict(arranged(further))
            )
        return np.asarray(said, np.float64)

    return score


@functools.cache
def _threads() -> Any:
    """The thread pools of scikit-learn: sums that are split by thread would depend on the machine.

    On processors that others use, too, one thread is also much quicker than several that wait for each other.
    """
    importlib.import_module("sklearn.ensemble")  # pools that are loaded later would not be found
    return importlib.import_module("threadpoolctl").ThreadpoolController()


def _linear(label: Label, count: int, seed: int) -> Any:
    try:
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise MissingExtraError("a reference model", "export") from error
    last = LogisticRegression(C=0.3, max_iter=2000) if label.classes == 2 else Ridge(alpha=3.0)
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), last)


def _trees(label: Label, count: int, seed: int) -> Any:
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    except ModuleNotFoundError as error:
        raise MissingExtraError("a reference model", "export") from error
    large = count >= 5000
    kind = HistGradientBoostingClassifier if label.classes == 2 else HistGradientBoostingRegressor
    return kind(
        learning_rate=0.1 if large else 0.05,
        max_iter=120 if large else 80,
        max_leaf_nodes=12 if large else 6,
        max_bins=64,
        min_samples_leaf=40 if large else max(5, min(20, count // 20)),
        l2_regularization=3.0,
        early_stopping=False,
        random_state=seed,
    )


def ask_for_sklearn() -> None:
    """Say at once, not after minutes of drawing, that scikit-learn is missing.

    Raises
    ------
    MissingExtraError
    """
    if importlib.util.find_spec("sklearn") is None:
        raise MissingExtraError("the exam's reference models", "export")
