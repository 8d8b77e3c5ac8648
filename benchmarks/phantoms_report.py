"""A result of ``edgehem bench phantoms`` in words, as a table for the docs, and memory by study as curves."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from edgehem.benchmarks import resident
from edgehem.benchmarks.phantoms import MOST_S, MR
from edgehem.benchmarks.picture import FLOOR, OTHER, OURS
from edgehem.benchmarks.report import busy, machine, ratio

WIDTH, PANEL, LEFT, BOTTOM, TOP, RIGHT = 760, 230, 58, 36, 30, 16
FADED = 0.45
"""Of the curves of all workers but the first, so that they can be told apart."""


def render(result: dict[str, Any]) -> str:
    """The whole result for a terminal, about 110 columns wide.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.phantoms/1``.
    """
    tables = (list(_times(result)), list(_memory(result)), list(_aims(result)))
    (time_head, memory_head, aims_head), notes = _titles(result), list(_notes(result))
    sections = [[time_head, *machine(result), busy(result)], _columns(tables[0]), [memory_head, *_columns(tables[1])]]
    sections += [[aims_head, *_columns(tables[2])], notes]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def markdown(result: dict[str, Any]) -> str:
    """The same as Markdown tables."""
    sections: list[list[str]] = [[*machine(result), f"{busy(result)}."]]
    rows = (_times(result), _memory(result), _aims(result))
    for title, (head, *body) in zip(_titles(result), rows, strict=True):
        sections.append([f"{title}:"])
        sections.append(["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)])
    sections.append(list(_notes(result)))
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _titles(result: dict[str, Any]) -> tuple[str, str, str]:
    settings, parallel = result["settings"], result["parallel"]
    threads = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
    return (
        f"Phantoms of {settings['slices']} slices, in one process of {threads}: seconds of CPU a study",
        f"Memory of {settings['workers']} processes that make {settings['studies']} CT studies "
        f"({parallel['seconds']:.0f} s, {parallel['seconds_a_study']:.2f} s a study, {parallel['cpu_s']:.2f} s of CPU)",
        "Aims, as measured (they tell; nothing depends on them)",
    )


def _times(result: dict[str, Any]) -> Iterator[list[str]]:
    yield ["", "studies", "median (95 % CI)", "mean", "95 % of them (CI)", "worst", f"in {MOST_S:g} s", "clock"]
    for row in result["times"]:
        for what, words in (("generate", ""), ("write", ", written")):
            found = row[what]
            yield [
                row["kind"] + words,
                f"{len(found['cpu_s'])}",
                ratio(found["median"]),
                f"{found['mean']:.2f}",
                ratio(found["p95"]),
                f"{found['worst']:.2f}",
                "-" if row["kind"] == MR else f"{found['share_in_time']:.0%}",
                f"{found['clock_median']:.2f}",
            ]


def _memory(result: dict[str, Any]) -> Iterator[list[str]]:
    per = f"MB per {resident.PER} (CI)"
    yield ["", "studies", "resident MB", "at most", per, "rise, MB", "it", f"allocated, {per}", "it"]
    for row in result["memory"]:
        level, held = row["resident"], row["allocated"]
        yield [
            row["name"],
            f"{len(row['study'])}",
            f"{row['resident_mb'][-1]:.0f}",
            f"{row['peak_mb']:.0f}",
            _slope(level),
            "-" if level["rise_mb"] is None else f"{level['rise_mb']:.1f}",
            level["verdict"],
            _slope(held) if held else "not known",
            held["verdict"] if held else "",
        ]


def _slope(growth: dict[str, Any]) -> str:
    if growth["slope_mb"] is None:
        return "too few studies"
    return ratio({"value": growth["slope_mb"], "low": growth["low_mb"], "high": growth["high_mb"]})


def _aims(result: dict[str, Any]) -> Iterator[list[str]]:
    yield ["", "aim", "measured", "verdict"]
    for aim in result["aims"]:
        yield [aim["job"], aim["aim"], ratio(aim["measured"]), aim["verdict"]]


def _notes(result: dict[str, Any]) -> Iterator[str]:
    firsts = ", ".join(f"{row['first_cpu_s']:.1f}" for row in result["times"])
    yield f"The first study of each kind is not counted ({firsts} s). Written: with DICOM files, masks and truth."
    yield (
        f"Memory: the first {resident.SETTLING:.0%} of a process's studies, {resident.SETTLING_LEAST} at least, are "
        "left out; slope of Theil and Sen,"
    )
    yield (
        f"all intervals together 95 %. Does not grow: at most {resident.TOLERANCE_MB:g} MB in 1,000 studies of a "
        "process. Resident memory rises"
    )
    yield "while what is freed is kept, and falls where it is given back; allocated is what is in use once a study is"
    yield "done, where a leak would show."


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def drawing(result: dict[str, Any]) -> str:
    """Resident and allocated memory of each process by study, from 0, as SVG."""
    panels = [
        (title, [(row["name"], row["study"], row[key]) for row in result["memory"] if row[key] is not None])
        for title, key in (("resident", "resident_mb"), ("allocated once a study is done", "allocated_mb"))
    ]
    parts = []
    for number, (title, curves) in enumerate(panels):
        parts += [f'<g transform="translate(0 {number * PANEL})">', *_panel(f"MB {title}, by study", curves), "</g>"]
    height = PANEL * len(panels)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _panel(title: str, curves: list[tuple[str, list[int], list[float]]]) -> Iterator[str]:
    width, height = WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM
    yield f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>'
    yield f'<path d="M{LEFT} {TOP}V{TOP + height}H{LEFT + width}" fill="none" stroke="{FLOOR}"/>'
    if not curves:
        yield f'<text x="{LEFT + 8}" y="{TOP + 20}">not known here</text>'
        return
    yield (
        f'<text x="{WIDTH - RIGHT}" y="18" text-anchor="end"><tspan fill="{OURS}">workers</tspan>  '
        f'<tspan fill="{OTHER}">parent</tspan></text>'
    )
    last, top = max(curve[1][-1] for curve in curves), 1.1 * max(max(curve[2]) for curve in curves)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = LEFT + share * width
        yield f'<text x="{at:.0f}" y="{TOP + height + 18}" text-anchor="middle">{share * last:.0f}</text>'
        level = TOP + height * (1 - share)
        yield f'<text x="{LEFT - 6}" y="{level + 4:.0f}" text-anchor="end">{share * top:.0f}</text>'
    for number, (name, studies, values) in enumerate(curves):
        points = [
            f"{LEFT + at / last * width:.1f},{TOP + height * (1 - value / top):.1f}"
            for at, value in zip(studies, values, strict=True)
        ]
        colour, opacity = (OTHER, 1.0) if name == "parent" else (OURS, FADED if number else 1.0)
        yield (
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-opacity="{opacity}">'
            f"<title>{escape(name)}</title></polyline>"
        )
