"""A result as a person reads it in a terminal."""

from __future__ import annotations

import textwrap
from itertools import zip_longest

from edgehem.result import Finding, Prognosis, Result, Verdict

WIDTH = 100
"""Columns that no line goes beyond."""

DEMONSTRATION_NOTICE = (
    "DEMONSTRATION WEIGHTS. This model was trained on synthetic phantoms. It is no medical device, and what it "
    "answers says nothing about a patient."
)
"""What every output of a bundle with the ``demonstration`` flag says."""

TRIAGE_NOTICE = "A triage aid, not a diagnosis: a physician reads the images whatever it answers."
"""What every output of any other bundle says."""

VERDICT_MEANING = {
    Verdict.ACCEPT: "analysed, nothing set aside for review",
    Verdict.FLAG: "analysed; a person should read the reasons below",
}

NO_RESULT_NOTICE = "This is not a negative finding. The study keeps the priority it had and is read in its normal turn."

HEMORRHAGE_LABELS = {
    "any": "any hemorrhage",
    "epidural": "epidural hemorrhage",
    "intraparenchymal": "intraparenchymal hemorrhage",
    "intraventricular": "intraventricular hemorrhage",
    "subarachnoid": "subarachnoid hemorrhage",
    "subdural": "subdural hemorrhage",
}
"""The RSNA 2019 labels, spelled out. A system with other labels shows them as its bundle names them."""

OUTCOMES = {
    "mortality_30d": "death within 30 days",
    "poor_outcome_90d": "poor outcome at 90 days (mRS 4-6)",
    "ich_score": "ICH score",
    "func_score": "FUNC score",
    "max_ich_score": "max-ICH score",
}

MEASUREMENTS = {"abc2": "volume by ABC/2"}
"""Measurements whose names do not read as words once the unit is taken off."""

UNITS = {"ml": "mL", "mm": "mm", "cm": "cm", "hu": "HU", "deg": "°", "percent": "%"}
"""How the last part of a measurement's name is written behind its value."""

TOTAL = "total"
BAR_COLUMNS = 32
DIGEST_SHOWN = 16
"""Hexadecimal digits of a hash that are enough to tell two inputs or bundles apart by eye."""

Rows = list[tuple[str, ...]]


def render_text(result: Result) -> str:
    """Write a result for a terminal: plain text, at most 100 columns, no colours.

    Parameters
    ----------
    result : Result
        Any verdict.

    Returns
    -------
    str
        Lines joined by newlines, with one at the end.
    """
    sections = [
        _top(result),
        _findings(result),
        _section("Prognosis", _table([(spell_outcome(item.name), _prognosis(item)) for item in result.prognosis])),
        _section("Measurements", _table([_measurement(name, value) for name, value in result.measurements.items()])),
        _key_slices(result),
        _reasons(result),
        _analysed(result),
        _timings(result),
        _bundle(result),
        textwrap.wrap(notice(result), WIDTH),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines)
    return printable(text) + "\n"


def headline(result: Result) -> str:
    """The answer in a few words: the ``any`` finding, else the first one; for NO-RESULT, its codes."""
    if result.verdict is Verdict.NO_RESULT:
        codes = ", ".join(code.value for code in result.codes)
        return f"not analysed ({codes})" if codes else "not analysed"
    if not result.findings:
        return "no findings in this system's answer"
    first = next((finding for finding in result.findings if finding.label == "any"), result.findings[0])
    answer = f"{spell_label(first.label, result)}: {_sign(first)}, p {probability(first.probability)}"
    return answer if len(first.prediction_set) == 1 else f"{answer}, uncertain"


def notice(result: Result) -> str:
    """The sentence that belongs under every answer of this result's bundle."""
    return DEMONSTRATION_NOTICE if result.bundle.demonstration else TRIAGE_NOTICE


def probability(value: float) -> str:
    """Two decimals, and never a certainty that a model does not have: ``>0.99`` and ``<0.01`` at the ends."""
    if value >= 0.995:
        return ">0.99"
    return f"{value:.2f}" if value >= 0.005 else "<0.01"


def spell_label(label: str, result: Result) -> str:
    """A finding's label in words."""
    if all(finding.label in HEMORRHAGE_LABELS for finding in result.findings):
        return HEMORRHAGE_LABELS.get(label, label)
    return label.replace("_", " ")


def spell_outcome(name: str) -> str:
    """A prognosis' name in words."""
    return OUTCOMES.get(name, name.replace("_", " "))


def printable(text: str) -> str:
    """Without control characters: names come from bundles, and a terminal must not obey them."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _top(result: Result) -> list[str]:
    meaning = NO_RESULT_NOTICE if result.verdict is Verdict.NO_RESULT else f"({VERDICT_MEANING[result.verdict]})"
    return [*textwrap.wrap(f"{result.verdict.value}  {headline(result)}", WIDTH), *textwrap.wrap(meaning, WIDTH)]


def _findings(result: Result) -> list[str]:
    if not result.findings:
        return []
    rows: Rows = [("", "probability", "", "prediction set (what cannot be ruled out)")]
    for finding in result.findings:
        answers = ", ".join(finding.prediction_set) or "(no answer fits)"
        name = spell_label(finding.label, result)
        rows.append((name, probability(finding.probability), _sign(finding), answers))
    return _section("Findings", _table(rows, right=(1,)))


def _sign(finding: Finding) -> str:
    return "positive" if finding.positive else "negative"


def _prognosis(item: Prognosis) -> str:
    parts = []
    if item.probability is not None:
        parts.append(probability(item.probability))
    if item.interval is not None:
        parts.append(f"(interval {probability(item.interval[0])} to {probability(item.interval[1])})")
    if item.points is not None:
        parts.append(f"{item.points} point" + ("" if item.points == 1 else "s"))
    return " ".join(parts)


def _measurement(name: str, value: float) -> tuple[str, str]:
    words = name.split("_")
    unit = UNITS.get(words[-1], "")
    spelled = " ".join(words[:-1] if unit and len(words) > 1 else words)
    return MEASUREMENTS.get(spelled, spelled), f"{value:.1f} {unit}".rstrip()


def _key_slices(result: Result) -> list[str]:
    rows: Rows = []
    for item in result.key_slices:
        region = ""
        if item.box is not None:
            top, left, bottom, right = (edge + 1 for edge in item.box)
            region = f"suspected region: rows {top}-{bottom}, columns {left}-{right}"
        rows.append((f"slice {item.index + 1}", f"weight {item.weight:.2f}", region))
    return _section("Key slices (slices, rows and columns count from 1)", _table(rows))


def _reasons(result: Result) -> list[str]:
    pairs = [(code.value if code else "", reason or "") for code, reason in zip_longest(result.codes, result.reasons)]
    if not pairs:
        return []
    indent = max(len(code) for code, _ in pairs) + 4
    lines = []
    for code, reason in pairs:
        first = f"  {code}".ljust(indent)
        lines += textwrap.wrap(reason, WIDTH, initial_indent=first, subsequent_indent=" " * indent) or [first.rstrip()]
    return _section("Why not" if result.verdict is Verdict.NO_RESULT else "Reasons for review", lines)


def _analysed(result: Result) -> list[str]:
    info = result.input
    if info is None:
        return []
    between, row, column = info.spacing_mm
    rows: Rows = [
        ("slices", f"{info.slices}, {between:.2f} mm apart (median)"),
        ("pixels", f"{row:.3f} × {column:.3f} mm (row × column)"),
        ("gantry tilt", f"{info.tilt_deg:.1f}°"),
        ("input digest", f"sha256 {info.digest[:DIGEST_SHOWN]}"),
    ]
    return _section("Read, not analysed" if result.verdict is Verdict.NO_RESULT else "Analysed", _table(rows))


def _timings(result: Result) -> list[str]:
    stages = {name: value for name, value in result.timings_ms.items() if name != TOTAL}
    whole = result.timings_ms.get(TOTAL, sum(stages.values()))
    rows: Rows = []
    for name, value in stages.items():
        share = min(1.0, value / whole) if whole > 0 else 0.0
        rows.append((name, f"{value:.1f}", f"{share:4.0%}", "█" * round(share * BAR_COLUMNS), _overrun(result, name)))
    if rows:
        rows.append((TOTAL, f"{whole:.1f}", "", "", _overrun(result, TOTAL)))
    return _section("Time (ms)", _table(rows, right=(1,)))


def _overrun(result: Result, stage: str) -> str:
    return "over its budget" if stage in result.overran else ""


def _bundle(result: Result) -> list[str]:
    bundle = result.bundle
    parts = (f"{bundle.name} {bundle.version}", f"system {result.system}", f"{bundle.precision} on {bundle.backend}")
    line = ", ".join((*parts, f"sha256 {bundle.sha256[:DIGEST_SHOWN]}"))
    if bundle.fallback:
        line += f"; in place of {bundle.fallback}"
    return _section("Model", textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="  "))


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *lines] if lines else []


def _table(rows: Rows, right: tuple[int, ...] = ()) -> list[str]:
    """Columns as wide as their widest cell; ``right`` lists the ones set flush right. Cells past the page are cut."""
    if not rows:
        return []
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = ("  " + "  ".join(cells)).rstrip()
        lines.append(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…")
    return lines
