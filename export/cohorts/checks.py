"""What is wrong with a block of patients: a cohort is held to what it says of itself whenever it draws."""

from __future__ import annotations

import numpy as np

from edgehem.export.cohorts.core import BLOCK, PARTS, UNKNOWN, Cohort, Column, Label, Patients, Values


def problems_of(cohort: Cohort, drawn: Patients) -> list[str]:
    """Sentences, empty when nothing is wrong: columns, labels and rows; then values and chances."""
    problems = []
    if list(drawn.inputs) != [column.name for column in cohort.columns]:
        problems.append("inputs are not the columns, in their order")
    if list(drawn.labels) != [label.name for label in cohort.labels]:
        problems.append("labels are not those that were said")
    for part in PARTS:
        for name, values in getattr(drawn, part).items():
            if len(values) != BLOCK:
                problems.append(f"{part} {name} has {len(values)} rows")
    if not problems:
        problems = [text for column in cohort.columns for text in _misfits(column, drawn.inputs[column.name])]
        problems += [text for label in cohort.labels for text in _mislabelled(label, drawn)]
    return problems


def _misfits(column: Column, values: Values) -> list[str]:
    """What a column holds that it may not hold."""
    if column.kind == "category":
        strange = set(np.unique(values).tolist()) - {"", *column.values}
        return [f"{column.name} holds {', '.join(sorted(strange))}"] if strange else []
    if values.dtype != np.float64:
        return [f"{column.name} is {values.dtype}, not float64"]
    known = values[~np.isnan(values)]
    low, high = (0, 1) if column.kind == "binary" else (column.low, column.high)
    texts = [f"{column.name} leaves {low} to {high}"] if ((known < low) | (known > high)).any() else []
    if (np.round(known, column.digits if column.kind == "real" else 0) != known).any():
        texts.append(f"{column.name} has more decimals than are written")
    return texts


def _mislabelled(label: Label, drawn: Patients) -> list[str]:
    """What is wrong with a label and its chance."""
    texts = []
    values = drawn.labels[label.name]
    if ((values < UNKNOWN) | (values >= label.classes)).any():
        texts.append(f"{label.name} has a class outside 0 to {label.classes - 1}")
    outcome = drawn.outcome(label.name)
    if (outcome == UNKNOWN).any() or ((values != UNKNOWN) & (values != outcome)).any():
        texts.append(f"complete {label.name} is not the label before some were lost")
    chance = drawn.chance.get(label.name)
    if chance is None:
        return [*texts, f"{label.name} has no chance"] if label.classes == 2 else texts
    if chance.shape != ((BLOCK,) if label.classes == 2 else (BLOCK, label.classes)):
        return [*texts, f"the chance of {label.name} has shape {chance.shape}"]
    return texts if ((chance >= 0) & (chance <= 1)).all() else [*texts, f"the chance of {label.name} leaves 0 to 1"]
