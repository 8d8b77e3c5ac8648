"""A result of ``edgehem bench kernels`` as one SVG, for people who would rather look."""

from __future__ import annotations

from html import escape
from typing import Any

WIDTH, ROW, LEFT, RIGHT, TITLE = 760, 18, 210, 90, 34
OURS, FLOOR, OTHER = "#1b6ca8", "#9aa5b1", "#d08a2e"


def draw(result: dict[str, Any]) -> str:
    """Bars of the median times, one group a job, and of the growth.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.kernels/1``.
    """
    groups = []
    for job in result["jobs"]:
        bars = [(entry["name"], entry["ms"], _colour(entry["library"])) for entry in job["contenders"] if "ms" in entry]
        groups.append((f"{job['name']}: median ms", sorted(bars, key=lambda bar: bar[1])))
    for what in dict.fromkeys(point["what"] for point in result["growth"]):
        bars = []
        for point in (point for point in result["growth"] if point["what"] == what):
            bars += [(f"{point['value']}", point["ms"], OURS), ("memcpy", point["memcpy_ms"], FLOOR)]
        groups.append((f"growth with {what}: median ms, and a memcpy of as many bytes", bars))
    parts, y = [], 0
    for title, bars in groups:
        parts.append(f'<text x="8" y="{y + 22}" font-weight="bold">{escape(title)}</text>')
        y += TITLE
        longest = max((value for _, value, _ in bars), default=1.0)
        for label, value, colour in bars:
            length = max(1.0, value / longest * (WIDTH - LEFT - RIGHT))
            parts += [
                f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
                f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 5}" fill="{colour}"/>',
                f'<text x="{LEFT + length + 6:.1f}" y="{y + 13}">{value:.2f}</text>',
            ]
            y += ROW
        y += ROW // 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _colour(library: str) -> str:
    return {"edgehem": OURS, "memcpy": FLOOR}.get(library, OTHER)
