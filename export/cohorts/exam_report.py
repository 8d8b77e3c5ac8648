"""What an exam found: JSON, a table for the terminal, a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

import msgspec

from edgehem.errors import UsageError
from edgehem.export.cohorts.discrimination import Interval
from edgehem.export.cohorts.exam import SCHEMA, WRONG, Row, Size, Spread
from edgehem.export.cohorts.exam_parts import PartRow
from edgehem.export.cohorts.reference import MODELS

MADE_WITH = ("numpy", "scipy", "scikit-learn")
"""Reference models differ, in the last digits, between versions of these."""
TITLES = (
    "cohort", "label", "train/test", "prevalence", "ceiling [at that test size]", "reachable",
    *(f"own {model}" for model in MODELS), "by luck", *(f"null {model}" for model in MODELS),
    *(f"shuffled {model}" for model in MODELS), "shifted: prevalence", "shifted: foreseen",
    "shifted: ceiling", "shifted: reachable", *(f"shifted: own {model}" for model in MODELS), "chances, p", "verdict",
)  # fmt: skip
PART_TITLES = (
    "cohort", "label", "who sees", "patients", "test", "ceiling [at that test size]",
    "shifted: ceiling [at that test size]", "chances, p", "verdict",
)  # fmt: skip
EXPLAINED = (
    "Ceiling: the chance that outcomes were tossed with, as a score; in brackets the middle 95 % of test cohorts of"
    " that size. Reachable: the better reference model, trained on a large draw. Own: trained and tested at the"
    " cohort's own size, mean ± SD of repetitions. By luck: what a score that says nothing reaches once in 40 such"
    " test cohorts. Null and shuffled: labels of others, and permuted training labels, 99.99 %. Shifted: the same"
    " models at the other place, and the prevalence that the better one foresees there. Chances, p: of the deviation of"
    " outcomes from chances. Labels of two classes: area under the ROC curve; ordered labels: (1 + Somers' D) / 2, and"
    " for prevalence the mean class."
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """An exam as it is kept.

    Parameters
    ----------
    schema : str
    seed : int
    size : Size
    made_with : mapping of package to version
    rows : list of Row
    parts : list of PartRow
    """

    schema: str
    seed: int
    size: Size
    made_with: dict[str, str]
    rows: list[Row]
    parts: list[PartRow]

    @property
    def passed(self) -> bool:
        """Whether no row has anything against it."""
        return not any(row.verdicts for row in self.rows) and not any(part.wrong for part in self.parts)


def report(rows: Sequence[Row], parts: Sequence[PartRow] = (), *, seed: int, size: Size) -> Report:
    """Rows with what they were made with."""
    versions = {name: metadata.version(name) for name in MADE_WITH}
    return Report(schema=SCHEMA, seed=seed, size=size, made_with=versions, rows=list(rows), parts=list(parts))


def to_json(made: Report) -> str:
    """JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(made), indent=1).decode() + "\n"


def from_json(text: str | bytes) -> Report:
    """Read what :func:`to_json` wrote.

    Raises
    ------
    UsageError
        If it is something else.
    """
    try:
        read = msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"this is no result of edgehem exam: {error}") from error
    if read.schema != SCHEMA:
        raise UsageError(f"schema {read.schema!r} is not {SCHEMA!r}")
    return read


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.3f} ± {spread.sd:.3f}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.cohort} {row.version}",
        row.label,
        f"{row.train}/{row.test}",
        f"{row.prevalence:.3f}",
        _interval(row.ceiling),
        f"{row.reachable:.3f} {row.reachable_by}",
        *(_spread(row.own[model]) for model in MODELS),
        f"{row.by_luck:.3f}",
        *(_interval(row.null[model]) for model in MODELS),
        *(_interval(row.shuffled[model]) for model in MODELS),
        f"{row.shifted_prevalence:.3f}",
        f"{row.shifted_foreseen:.3f}",
        f"{row.shifted_ceiling:.3f}",
        f"{row.shifted_reachable:.3f}",
        *(_spread(row.shifted_own[model]) for model in MODELS),
        "" if row.calibration is None else f"{row.calibration.p:.2g}",
        ", ".join(row.verdicts) or "ok",
    )


def _part_cells(part: PartRow) -> tuple[str, ...]:
    return (
        f"{part.cohort} {part.version}",
        part.label,
        part.what,
        str(part.patients),
        str(part.test),
        _interval(part.ceiling),
        _interval(part.shifted),
        f"{part.p:.2g}",
        WRONG if part.wrong else "ok",
    )


def to_markdown(made: Report) -> str:
    """Tables for a page, with what their columns mean."""
    text = _table(TITLES, [_cells(row) for row in made.rows]) + f"\n{EXPLAINED}\n"
    if made.parts:
        text += "\n" + _table(PART_TITLES, [_part_cells(part) for part in made.parts])
    return text


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"


def to_text(made: Report) -> str:
    """For the terminal: one block a row, since no screen is as wide as the table."""
    blocks = [_block(TITLES, _cells(row), 2) for row in made.rows]
    blocks += [_block(PART_TITLES, _part_cells(part), 3) for part in made.parts]
    return "\n\n".join(blocks) + "\n"


def _block(titles: Sequence[str], cells: Sequence[str], named: int) -> str:
    """What the first cells name, its verdict, and the cells between."""
    width = max(len(title) for title in TITLES)
    said = zip(titles[named:-1], cells[named:-1], strict=True)
    head = "  ".join(cells[:named]) + f": {cells[-1]}"
    return "\n".join([head, *(f"  {title:<{width}}  {cell}" for title, cell in said if cell)])
