"""A result of ``edgehem bench realism`` in words, as a table for the docs, and as curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from edgehem.benchmarks.picture import FLOOR, OTHER, OURS

NOT_EVIDENCE = "Phantoms are synthetic. Nothing measured on them is evidence about patients."
WIDTH, PANEL, LEFT, BOTTOM, TOP, RIGHT = 760, 250, 58, 36, 30, 16


def render(result: dict[str, Any]) -> str:
    """The measurements as a table for a terminal.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.realism/1``.
    """
    rows = list(_rows(result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_notes(result)]) + "\n"


def markdown(result: dict[str, Any]) -> str:
    """The same as a Markdown table."""
    head, *rows = _rows(result)
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([*lines, "", *_notes(result)]) + "\n"


def _rows(result: dict[str, Any]) -> Iterator[list[str]]:
    count = len(result["measures"][0]["real"])
    names = ["real"] if count == 1 else [f"real {number + 1}" for number in range(count)]
    yield ["measure", "unit", "phantoms, median (5 to 95 %)", *names, *(["phantoms below"] if count else [])]
    for row in result["measures"]:
        low, _, middle, _, high = (_number(value) for value in row["phantoms"])
        below = [", ".join(f"{rank:.0%}" for rank in row["rank"])] if count else []
        yield [row["name"], row["unit"], f"{middle} ({low} to {high})", *map(_number, row["real"]), *below]
    for name, clots in result["blood"].items():
        medians = sorted(clot[2] for clot in clots)
        spread = f"{_number(medians[len(medians) // 2])} ({_number(medians[0])} to {_number(medians[-1])})"
        yield [f"blood, {name}", "HU", spread, *("-" for _ in range(count)), *(["-"] if count else [])]


def _notes(result: dict[str, Any]) -> Iterator[str]:
    settings = result["settings"]
    yield f"{settings['measured']} phantoms of version {settings['version']}, seed {settings['seed']}; vault only."
    among = sorted(result["apart_hu"]["phantoms"])
    if among:
        yield f"Two phantoms' histograms lie {among[len(among) // 2]:.1f} HU apart (median; earth mover's distance)."
    for distances in result["apart_hu"]["real"]:
        yield f"The real head's lies {sorted(distances)[len(distances) // 2]:.1f} HU from the phantoms'."
    yield NOT_EVIDENCE


def drawing(result: dict[str, Any]) -> str:
    """Histogram of HU inside the skull, and spectrum of the noise: the phantoms' range and the real heads, as SVG."""
    panels = (
        ("HU inside the skull (share of pixels)", result["histogram"]["hu"], result["histogram"]),
        ("noise power x frequency (cycles per mm; shares)", result["spectrum"]["per_mm"], result["spectrum"]),
    )
    parts = []
    for number, (title, x, curves) in enumerate(panels):
        parts += [f'<g transform="translate(0 {number * PANEL})">', *_panel(title, x, curves), "</g>"]
    height = PANEL * len(panels)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _panel(title: str, x: Sequence[float], curves: dict[str, Any]) -> Iterator[str]:
    made = curves["phantoms"]
    top = max(max(line) for line in (made["high"], *curves["real"])) * 1.05
    width, height = WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM

    def points(line: Sequence[float]) -> list[str]:
        span = x[-1] - x[0]
        return [
            f"{LEFT + (at - x[0]) / span * width:.1f},{TOP + height * (1 - value / top):.1f}"
            for at, value in zip(x, line, strict=True)
        ]

    yield f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="18" text-anchor="end"><tspan fill="{OURS}">phantoms, 5 to 95 %</tspan>' + (
        f'  <tspan fill="{OTHER}">real</tspan></text>' if curves["real"] else "</text>"
    )
    yield f'<path d="M{LEFT} {TOP}V{TOP + height}H{LEFT + width}" fill="none" stroke="{FLOOR}"/>'
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = x[0] + share * (x[-1] - x[0])
        yield f'<text x="{LEFT + share * width:.1f}" y="{TOP + height + 18}" text-anchor="middle">{at:.3g}</text>'
    band = " ".join([*points(made["high"]), *reversed(points(made["low"]))])
    yield f'<polygon points="{band}" fill="{OURS}" fill-opacity="0.2"/>'
    yield f'<polyline points="{" ".join(points(made["median"]))}" fill="none" stroke="{OURS}" stroke-width="1.5"/>'
    for line in curves["real"]:
        yield f'<polyline points="{" ".join(points(line))}" fill="none" stroke="{OTHER}" stroke-width="1.5"/>'


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
