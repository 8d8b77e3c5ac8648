"""A comparison for a terminal, at most 110 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from edgehem.benchmarks.latency.verdict import SLOWER, VERDICTS

WIDTH, NAME = 110, 38
SIGNS = {"SLOWER": "▲", "FASTER": "▼", "SAME": "=", "AMBIGUOUS": "?", "TOO SHORT": "·"}
"""A verdict must be told apart without its colour, too."""


def render(comparison: Mapping[str, Any]) -> str:
    """The whole comparison, cases with the worst verdicts first.

    Parameters
    ----------
    comparison : dict
        Schema ``edgehem.latency-comparison/1``.
    """
    lines = []
    if comparison["different"]:
        lines += ["NOT THE SAME CONDITIONS, compared because that was allowed:"]
        lines += [line for each in comparison["different"] for line in _wrapped(each, "  ")]
        lines.append("")
    lines += [
        f"base: {origin(comparison['base'])}",
        f"new:  {origin(comparison['new'])}",
        f"{comparison['how'][0].upper()}{comparison['how'][1:]}. Ratios are new / base.",
        "",
        f"  {'case':{NAME}}{'base ms':>10}{'new ms':>10}{'ratio':>8}{'interval':>17}  verdict",
    ]
    why = []
    for row in ordered(comparison["cases"]):
        memory = " +MEMORY" if row["memory"] and row["memory"]["flagged"] else ""
        figures = f"{row['base']['p50_ms']:10.3f}{row['new']['p50_ms']:10.3f}{row['ratio']:8.3f}{interval(row):>17}"
        lines.append(f"{SIGNS[row['verdict']]} {_short(row['name']):{NAME}}{figures}  {row['verdict']}{memory}")
        if row["why"]:
            why += _wrapped(f"{row['name']}: {row['why']}", "  ")
    lines += ["", *tally(comparison)]
    if why:
        lines += ["", "Why", *why]
    for row in comparison["cases"]:
        if row["memory"] and row["memory"]["flagged"]:
            lines += _wrapped(f"{row['name']}: {memory_words(row['memory'])}", "  ")
    if comparison["notes"]:
        lines += ["", "Notes", *(line for note in comparison["notes"] for line in _wrapped(note, "  "))]
    return "\n".join(lines) + "\n"


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst verdict first; else as they were measured."""
    return sorted(rows, key=lambda row: VERDICTS.index(row["verdict"]))


def origin(side: Mapping[str, Any]) -> str:
    """Where a result comes from, in a line."""
    served = side["served"]
    engine = " ".join(str(served[key]) for key in ("engine", "graph", "arithmetic") if served.get(key))
    words = [f"edgehem {side['edgehem']}" if side["edgehem"] else "", side["revision"], side["made"], engine]
    return ", ".join(word for word in words if word)[: WIDTH - 6]


def interval(row: Mapping[str, Any]) -> str:
    """The corrected interval of a ratio."""
    return "-" if row["low"] is None else f"{row['low']:.3f} - {row['high']:.3f}"


def memory_words(memory: Mapping[str, Any]) -> str:
    """How a peak of memory changed."""
    return (
        f"its process' peak of memory went from {memory['base_bytes'] / 2**20:.0f} to "
        f"{memory['new_bytes'] / 2**20:.0f} MiB"
    )


def tally(comparison: Mapping[str, Any]) -> list[str]:
    """How many of which verdict, what they rest on, and what is in one result only."""
    told, counts = comparison["statistics"], comparison["counts"]
    lines = [", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict] or verdict == SLOWER)]
    held = f"hold together with {1 - told['family_error']:.0%} ({told['correction']}: {told['each']:.2%} each)"
    lines += _wrapped(f"All {told['family']} intervals {held}." if told["family"] else "No case can be judged.", "")
    for key, words in (("missing", "MISSING in the new result"), ("additional", "in the new result only")):
        for each in comparison[key]:
            lines += _wrapped(f"{words}: {each['name']}{': ' if each['why'] else ''}{each['why']}", "")
    return lines


def _short(name: str) -> str:
    return name if len(name) < NAME else f"{name[: NAME - 14]}…{name[-12:]}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ") or [indent]
