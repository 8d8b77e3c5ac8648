"""A history as one SVG: a small picture for each case, runs from left to right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from edgehem.benchmarks.latency.history import Entry, Times
from edgehem.benchmarks.picture import FLOOR, OTHER, OURS
from edgehem.errors import UsageError

WIDTH, PANEL_WIDTH, PANEL, COLUMNS = 760, 372, 128, 2
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 24, 18
HEAD, LINE, LETTERS = 44, 16, 110
BAND = "#c9dced"
HIGHEST = 2.5
"""Times the longest median: a tail that is longer leaves the picture, or nothing else could be seen in it."""
MARK_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Mark(NamedTuple):
    """Where something else was measured with."""

    at: int
    letter: str
    words: str


def draw(entries: Sequence[Entry]) -> str:
    """The p50 of each case as a line, up to its p95 as a band, from 0; marks where machine or engine changed.

    Arms that were measured only to hold another one against are left out: their revision is in the history already.

    Parameters
    ----------
    entries : sequence of Entry
        The oldest first.

    Raises
    ------
    UsageError
        If there is nothing to draw.
    """
    runs = [each for each in entries if each.arm != "base"]
    names = list(dict.fromkeys(name for run in runs for name in run.cases))
    if not names:
        raise UsageError("the history holds no runs to draw")
    found = marks(runs)
    parts = [
        '<text x="8" y="18" font-weight="bold">Latency over runs: median, and up to the 95th percentile</text>',
        f'<text x="8" y="36" fill="#555">{len(runs)} runs, {_text(runs[0].made[:10])} to {_text(runs[-1].made[:10])}; '
        "ms, from 0</text>",
    ]
    for index, name in enumerate(names):
        x, y = 8 + index % COLUMNS * PANEL_WIDTH, HEAD + index // COLUMNS * PANEL
        parts += [f'<g transform="translate({x} {y})">', *_panel(name, [run.cases.get(name) for run in runs], found)]
        parts.append("</g>")
    y = HEAD + -(-len(names) // COLUMNS) * PANEL + LINE
    for mark in found:
        for line in textwrap.wrap(f"{mark.letter}: {mark.words}", LETTERS, subsequent_indent="   "):
            parts.append(f'<text x="8" y="{y}">{_text(line)}</text>')
            y += LINE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def marks(runs: Sequence[Entry]) -> list[Mark]:
    """Runs that were not made as the run before."""
    found: list[Mark] = []
    for at, (before, after) in enumerate(pairwise(runs), 1):
        changed = [
            f"{what} from {getattr(before, what) or 'not known'} to {getattr(after, what) or 'not known'}"
            for what in ("machine", "engine")
            if getattr(before, what) != getattr(after, what)
        ]
        if changed:
            letter = MARK_LETTERS[len(found) % len(MARK_LETTERS)] * (1 + len(found) // len(MARK_LETTERS))
            found.append(Mark(at, letter, f"{after.made[:10]}, {'; '.join(changed)}"))
    return found


def _panel(name: str, times: Sequence[Times | None], found: Sequence[Mark]) -> list[str]:
    width, height = PANEL_WIDTH - LEFT - RIGHT - 8, PANEL - TOP - BOTTOM
    there = [each for each in times if each]
    longest = max(each.p50 for each in there)
    top = min(max(each.p95 or each.p50 for each in there), HIGHEST * longest) * 1.05
    step = width / max(1, len(times) - 1)

    def place(index: int, ms: float) -> str:
        x = LEFT + (index * step if len(times) > 1 else width / 2)
        return f"{x:.1f},{TOP + height * (1 - min(ms, top) / top):.1f}"

    parts = [
        f'<text x="{LEFT}" y="14" font-weight="bold">{_text(_short(name))}</text>',
        f'<path d="M{LEFT} {TOP}V{TOP + height}H{LEFT + width}" fill="none" stroke="{FLOOR}"/>',
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end" fill="#555">{_ms(top)}</text>',
        f'<text x="{LEFT - 6}" y="{TOP + height}" text-anchor="end" fill="#555">0</text>',
        f'<text x="{LEFT + width}" y="14" text-anchor="end">{_ms(there[-1].p50)} ms</text>',
    ]
    for mark in found:
        x = LEFT + (mark.at - 0.5) * step
        parts += [
            f'<path d="M{x:.1f} {TOP}V{TOP + height}" stroke="{OTHER}" stroke-dasharray="4 3"/>',
            f'<text x="{x:.1f}" y="{PANEL - 5}" text-anchor="middle" fill="{OTHER}">{mark.letter}</text>',
        ]
    for stretch in _stretches(times):
        upper = [place(index, each.p95 or each.p50) for index, each in stretch]
        lower = [place(index, each.p50) for index, each in stretch]
        parts += [
            f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{BAND}"/>',
            f'<polyline points="{" ".join(lower)}" fill="none" stroke="{OURS}" stroke-width="1.5"/>',
        ]
        parts += [
            '<circle cx="{}" cy="{}" r="2" fill="{}"/>'.format(*point.split(","), OURS) for point in lower
        ]  # fmt: skip
    return parts


def _stretches(times: Sequence[Times | None]) -> list[list[tuple[int, Times]]]:
    """Runs that follow each other and have the case: a line must not run across those that have not."""
    found: list[list[tuple[int, Times]]] = []
    gap = True
    for index, each in enumerate(times):
        if each is None:
            gap = True
            continue
        if gap:
            found.append([])
            gap = False
        found[-1].append((index, each))
    return found


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _short(name: str) -> str:
    return name if len(name) <= 38 else f"{name[:20]}…{name[-17:]}"


def _text(text: str) -> str:
    """Escaped, and without the characters that no XML may hold."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
