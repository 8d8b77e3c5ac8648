"""A result, or a comparison of two, as one HTML file: no network, no script, pictures inside.

Times lie from left to right and rounds from top to bottom, so that a drift, a burst and a second mode look different.
Verdicts have a sign and a word beside their colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from edgehem.benchmarks.latency.report_compare import SIGNS, interval, memory_words, ordered, origin, tally
from edgehem.benchmarks.picture import FLOOR, OTHER, OURS

PLOT, LEFT, RIGHT, STRIP, AXIS = 760, 60, 16, 64, 20
FOREST_LEFT, FOREST_ROW = 250, 20
MOST_DOTS = 300
"""More rounds are drawn as every second, every third, ..."""
COLOURS = {"SLOWER": "#a61b1b", "FASTER": "#1f6b3a", "SAME": "#47525d", "AMBIGUOUS": "#8a5a00", "TOO SHORT": "#6b7480"}
# An offline page must stay one, whatever a result holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = f"""
body {{ font: 14px/1.45 sans-serif; color: #1c2329; max-width: 980px; margin: 24px auto; padding: 0 16px; }}
h1 {{ font-size: 20px; }} h2 {{ font-size: 16px; margin-top: 28px; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 3px 10px 3px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #dfe4e8; }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
td.v {{ white-space: nowrap; font-weight: bold; }}
svg {{ display: block; max-width: 100%; height: auto; font: 12px sans-serif; }}
.warn {{ border: 2px solid {COLOURS["SLOWER"]}; padding: 8px 14px; }}
.small {{ color: #55606a; font-size: 13px; }}
"""


def result(content: Mapping[str, Any]) -> str:
    """The page of one result.

    Parameters
    ----------
    content : dict
        Schema ``edgehem.latency/1``.
    """
    rows = [
        f'<tr><td><a href="#{_anchor(index)}">{_text(case["name"])}</a></td>'
        + "".join(f'<td class="n">{_ms(case[f"p{number}_ms"])}</td>' for number in (50, 90, 95, 99))
        + f'<td class="n">{_mib(case["peak_bytes"])}</td><td>{_text(case["what"])}</td></tr>'
        for index, case in enumerate(content["cases"])
    ]
    parts = [
        "<h1>Latency</h1>",
        f"<p>{_text(origin(content))}</p>",
        _table(("case", "p50 ms", "p90", "p95", "p99", "peak MiB", "what"), rows, numbers=range(1, 6)),
        *(f"<p>Passed over: {_text(name)}: {_text(why)}</p>" for name, why in content.get("passed_over", {}).items()),
    ]
    for index, case in enumerate(content["cases"]):
        parts += [
            _heading(index, case["name"]),
            f'<p class="small">{_text(case["what"])}</p>',
            _strips([("", case["samples_ms"], OURS)]),
        ]
    return _page("Latency", [*parts, "<h2>Where</h2>", _where({"": content})])


def comparison(told: Mapping[str, Any], base: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The page of a comparison.

    Parameters
    ----------
    told : dict
        Schema ``edgehem.latency-comparison/1``.
    base, new : dict
        The two results that it is of.
    """
    rows = ordered(told["cases"])
    samples = [{case["name"]: case["samples_ms"] for case in side["cases"]} for side in (base, new)]
    parts = ["<h1>Latency, compared</h1>"]
    if told["different"]:
        parts.append(
            '<div class="warn"><b>Not the same conditions</b>, compared because that was allowed:'
            f"{_list(told['different'])}</div>"
        )
    parts += [
        f"<p>base: {_text(origin(told['base']))}<br>new: {_text(origin(told['new']))}<br>"
        f"{_text(told['how'].capitalize())}. Ratios are new / base.</p>",
        *(f"<p>{_text(line)}</p>" for line in tally(told)),
        _table(
            ("", "case", "base ms", "new ms", "ratio", "interval", "why"),
            [_row(index, row) for index, row in enumerate(rows)],
            numbers=range(2, 6),
        ),
        "<h2>Ratios and their intervals</h2>",
        '<p class="small">The grey band is the minimum effect: an interval inside of it is SAME.</p>',
        _forest(rows),
    ]
    if told["notes"]:
        parts += ["<h2>Notes</h2>", _list(told["notes"])]
    for index, row in enumerate(rows):
        pair = [side[row["name"]] for side in samples]
        parts += [
            _heading(index, row["name"]),
            f'<p class="small">{_text(row["what"])}. {_badge(row["verdict"])} {_text(row["why"])}</p>',
            _strips([("base", pair[0], FLOOR), ("new", pair[1], OURS)]),
        ]
        if told["paired"] and pair[0] and len(pair[0]) == len(pair[1]):
            parts.append(_ratios(row, np.asarray(pair[1]) / np.asarray(pair[0])))
    return _page("Latency, compared", [*parts, "<h2>Where</h2>", _where({"base": told["base"], "new": told["new"]})])


def _page(title: str, parts: Sequence[str]) -> str:
    return "\n".join([
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<style>{STYLE}</style></head><body>",
        *parts,
        "</body></html>",
    ]) + "\n"  # fmt: skip


def _row(index: int, row: Mapping[str, Any]) -> str:
    memory = row["memory"]
    why = [row["why"], memory_words(memory) if memory and memory["flagged"] else ""]
    return (
        f'<tr><td class="v">{_badge(row["verdict"])}</td>'
        f'<td><a href="#{_anchor(index)}">{_text(row["name"])}</a></td>'
        f'<td class="n">{_ms(row["base"]["p50_ms"])}</td><td class="n">{_ms(row["new"]["p50_ms"])}</td>'
        f'<td class="n">{row["ratio"]:.3f}</td><td class="n">{interval(row)}</td>'
        f"<td>{_text('; '.join(filter(None, why)))}</td></tr>"
    )


def _forest(rows: Sequence[Mapping[str, Any]]) -> str:
    """The interval of every ratio, on a common logarithmic axis."""
    drawn = [row for row in rows if row["low"] is not None]
    if not drawn:
        return "<p>No ratio has an interval.</p>"
    # One interval that is far too wide must not press all others together; it is drawn to the edge.
    effects = [abs(math.log(row["ratio"])) for row in drawn] + [math.log(1 + row["minimum_effect"]) for row in drawn]
    most = min(max(*effects, math.log(1.2)) * 1.4, math.log(4.2))
    height = FOREST_ROW * len(drawn) + AXIS
    span = PLOT - FOREST_LEFT - RIGHT

    def place(ratio: float) -> float:
        return FOREST_LEFT + span * (1 + min(max(math.log(ratio) / most, -1), 1)) / 2

    parts = []
    for index, row in enumerate(drawn):
        y, colour = FOREST_ROW * index + FOREST_ROW / 2, COLOURS[row["verdict"]]
        low, high = place(1 / (1 + row["minimum_effect"])), place(1 + row["minimum_effect"])
        parts += [
            f'<rect x="{low:.1f}" y="{y - 10:.1f}" width="{high - low:.1f}" height="{FOREST_ROW}" fill="#edf0f2"/>',
            f'<text x="{FOREST_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{SIGNS[row["verdict"]]} '
            f"{_text(_short(row['name']))}</text>",
            f'<path d="M{place(row["low"]):.1f} {y:.1f}H{place(row["high"]):.1f}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{place(row["ratio"]):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
        ]
    bottom = height - AXIS
    parts.append(f'<path d="M{place(1):.1f} 0V{bottom}" stroke="{FLOOR}"/>')
    parts += [
        f'<text x="{place(tick):.1f}" y="{height - 5}" text-anchor="middle">{tick:g}</text>'
        for tick in (0.25, 0.5, 0.8, 0.9, 1, 1.1, 1.25, 2, 4)
        if abs(math.log(tick)) <= most and (most < 1 or tick not in (0.9, 1.1))
    ]
    return _svg(height, parts)


def _strips(sides: Sequence[tuple[str, Sequence[float], str]]) -> str:
    """Every round as a dot, the first above; with a box from the first to the third quartile, and the median."""
    every = [value for _, samples, _ in sides for value in samples]
    if not every:
        return "<p>No single times.</p>"
    ends = np.percentile(every, (0, 99))
    # One outlier must not press all others together; it is drawn at the edge.
    low, high = float(ends[0]), float(max(ends[1], ends[0] * 1.02))
    margin = (high - low) * 0.04
    low, high = max(0.0, low - margin), high + margin
    span = PLOT - LEFT - RIGHT

    def place(ms: float) -> float:
        return LEFT + span * min(1.0, (ms - low) / (high - low))

    parts = []
    for index, (name, samples, colour) in enumerate(sides):
        y = index * STRIP
        parts.append(f'<text x="{LEFT - 8}" y="{y + STRIP / 2 + 4:.0f}" text-anchor="end">{_text(name)}</text>')
        if not samples:
            continue
        first, middle, third = (place(float(value)) for value in np.percentile(samples, (25, 50, 75)))
        parts += [
            f'<rect x="{first:.1f}" y="{y + 4}" width="{max(1.0, third - first):.1f}" height="{STRIP - 8}" '
            f'fill="{colour}" fill-opacity="0.18" stroke="{colour}"/>',
            f'<path d="M{middle:.1f} {y + 2}V{y + STRIP - 2}" stroke="{colour}" stroke-width="3"/>',
            *_dots([place(ms) for ms in samples], y, STRIP, colour),
        ]
    height = len(sides) * STRIP + AXIS
    for tick in np.linspace(low, high, 5):
        parts.append(f'<text x="{place(tick):.1f}" y="{height - 5}" text-anchor="middle">{_ms(float(tick))}</text>')
    return _svg(height, [*parts, f'<text x="4" y="{height - 5}">ms</text>'])


def _ratios(row: Mapping[str, Any], ratios: Sequence[float]) -> str:
    """The ratio of every round, the first above, and the interval of their median."""
    most = max(float(np.percentile(np.abs(np.log(ratios)), 98)), math.log(1 + row["minimum_effect"]) * 1.5)
    if row["low"] is not None:
        most = max(most, min(math.log(4), abs(math.log(row["low"])), abs(math.log(row["high"]))))
    span = PLOT - LEFT - RIGHT

    def place(ratio: float) -> float:
        return LEFT + span * (1 + min(max(math.log(ratio) / most, -1), 1)) / 2

    low, high = place(1 / (1 + row["minimum_effect"])), place(1 + row["minimum_effect"])
    parts = [
        f'<rect x="{low:.1f}" y="0" width="{high - low:.1f}" height="{STRIP}" fill="#edf0f2"/>',
        f'<path d="M{place(1):.1f} 0V{STRIP}" stroke="{FLOOR}"/>',
        f'<text x="{LEFT - 8}" y="{STRIP / 2 + 4:.0f}" text-anchor="end">ratio</text>',
        *_dots([place(float(ratio)) for ratio in ratios], 0, STRIP, OTHER),
    ]
    if row["low"] is not None:
        y, colour = STRIP + 4, COLOURS[row["verdict"]]
        parts += [
            f'<path d="M{place(row["low"]):.1f} {y}H{place(row["high"]):.1f}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{place(row["ratio"]):.1f}" cy="{y}" r="4" fill="{colour}"/>',
        ]
    height = STRIP + AXIS + 8
    for part in (-1, -0.5, 0, 0.5, 1):
        ratio = math.exp(part * most)
        parts.append(f'<text x="{place(ratio):.1f}" y="{height - 5}" text-anchor="middle">{ratio:.2f}</text>')
    return _svg(height, parts)


def _dots(xs: Sequence[float], top: float, height: float, colour: str) -> list[str]:
    every = -(-len(xs) // MOST_DOTS)
    step = (height - 16) / max(1, len(xs) - 1)
    return [
        f'<circle cx="{x:.1f}" cy="{top + 8 + index * step:.1f}" r="2" fill="{colour}"/>'
        for index, x in enumerate(xs)
        if index % every == 0
    ]


def _svg(height: float, parts: Sequence[str]) -> str:
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PLOT} {height:g}" width="{PLOT}" height="{height:g}">',
        *parts,
        "</svg>",
    ])  # fmt: skip


def _where(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """Machine, engine and settings, side by side; what differs is marked."""
    flat = [
        {
            f"{part}: {key}": value
            for part in ("environment", "served", "settings", "load")
            for key, value in (side[part] or {}).items()
        }
        for side in sides.values()
    ]
    rows = []
    for key in dict.fromkeys(key for side in flat for key in side):
        values = [_value(side.get(key)) for side in flat]
        mark = "≠" if len(set(values)) > 1 else ""
        cells = "".join(f"<td>{_text(value)}</td>" for value in values)
        rows.append(f"<tr><td>{_text(key)}</td>{cells}<td>{mark}</td></tr>")
    return _table(("", *sides, ""), rows)


def _table(headings: Sequence[str], rows: Sequence[str], numbers: Sequence[int] = ()) -> str:
    cells = "".join(
        f'<th class="n">{_text(word)}</th>' if index in numbers else f"<th>{_text(word)}</th>"
        for index, word in enumerate(headings)
    )
    return "\n".join(["<table>", f"<tr>{cells}</tr>", *rows, "</table>"])


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _heading(index: int, name: str) -> str:
    return f'<h2 id="{_anchor(index)}">{_text(name)}</h2>'


def _anchor(index: int) -> str:
    # Not the name: it comes from a file.
    return f"case{index}"


def _badge(verdict: str) -> str:
    return f'<span style="color: {COLOURS[verdict]}">{SIGNS[verdict]} {verdict}</span>'


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    return ", ".join(map(_value, value)) if isinstance(value, list) else "not known" if value is None else str(value)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _mib(count: int | None) -> str:
    return f"{count / 2**20:.0f}" if count else "-"


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:18]}…{name[-15:]}"


def _text(text: str) -> str:
    """Escaped, and without the characters that no document may hold."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
