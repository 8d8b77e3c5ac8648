"""A result of ``edgehem bench pipelines`` as text, and as a table for a README."""

from __future__ import annotations

import textwrap
from typing import Any

from edgehem.benchmarks.growth import MB
from edgehem.benchmarks.pipelines.contender import FLOOR, STAGES
from edgehem.benchmarks.report import busy, machine, ratio

WIDTH = 110


def render(result: dict[str, Any]) -> str:
    """The whole result, at most 110 columns wide but for what a library says of itself.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.pipelines/1``.
    """
    sections = [
        _head(result), _table(result), _agreement(result), _overhead(result), _aims(result), _setups(result),
        _notes(result),
    ]  # fmt: skip
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def markdown(result: dict[str, Any]) -> str:
    """A table for a README, and under it what was measured where."""
    lines = [
        "| pipeline | median, ms | times edgehem (95 %) | read | preprocess | network | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in result["contenders"]:
        if entry["state"] != "timed":
            lines.append(f"| {entry['title']} | {entry['state']}: {entry['why']} | | | | | |".replace("\n", " "))
            continue
        over = entry.get("over_ours")
        times = f"{over['value']:.1f} ({over['low']:.1f}-{over['high']:.1f})" if over else ""
        stages = " | ".join(_ms(entry["stages_ms"].get(stage)) for stage in STAGES)
        lines.append(f"| {entry['title']} | {entry['ms']:.0f} | {times} | {stages} | {entry['peak_bytes'] / MB:.0f} |")
    where, settings = result["environment"], result["settings"]
    lines += [
        "",
        f"{settings['slices']} slices of {settings['matrix']} × {settings['matrix']}, HemorrhageNet with random "
        f"weights, {settings['rounds']} interleaved rounds, {settings['threads']} threads; {where['cpu']}. "
        f"edgehem served {_served(result)}. Medians; each contender in a process of its own.",
    ]
    return "\n".join(lines) + "\n"


def _head(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    versions = {name: found for entry in result["contenders"] for name, found in entry["versions"].items()}
    lines = [
        f"From a folder of slices to logits: {settings['studies']} studies of {settings['slices']} x "
        f"{settings['matrix']} x {settings['matrix']}, {settings['threads']} threads, "
        f"{settings['rounds']} interleaved rounds",
        *machine(result),
        busy(result),
        f"edgehem serves {_served(result)}",
    ]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [*lines, *textwrap.wrap(f"Libraries: {listed or 'none'}", WIDTH, subsequent_indent="  ")]


def _served(result: dict[str, Any]) -> str:
    """What auto chose, in words."""
    choice = result["choices"].get("auto")
    return f"{choice['graph']} on {choice['engine']} in {choice['arithmetic']}" if choice else "nothing"


def _table(result: dict[str, Any]) -> list[str]:
    lines = [
        f"  {'':21}{'median ms':>10}{'quartiles':>17}{'x edgehem (95 % CI)':>24}"
        f"{'read':>8}{'prep':>8}{'net':>8}{'peak MB':>9}"
    ]
    for entry in result["contenders"]:
        if entry["state"] != "timed":
            said = f"  {entry['name']:21}{entry['state']}: {entry['why']}"
            lines += textwrap.wrap(said, WIDTH, subsequent_indent=" " * 23)
            continue
        low, high = entry["quartiles_ms"]
        row = f"  {entry['name']:21}{entry['ms']:10.1f}{f'{low:.1f} - {high:.1f}':>17}"
        row += f"{ratio(entry.get('over_ours')):>24}"
        row += "".join(f"{_ms(entry['stages_ms'].get(stage)):>8}" for stage in STAGES)
        lines.append(f"{row}{entry['peak_bytes'] / MB:9.0f}")
    return lines


def _agreement(result: dict[str, Any]) -> list[str]:
    limits = result["tolerances"]
    lines = [
        f"Agreement: at least {limits['share']:.1%} of a tensor's voxels within {limits['close']:g} of a window, "
        f"logits at least {limits['float_db']:g} dB",
        f"({limits['int8_db']:g} where INT8 or bfloat16 may serve) from the float graph's on the defined tensor",
        f"  {'':21}{'voxels within':>14}{'differs by':>12}{'logits dB':>11}{'correlation':>13}",
    ]
    for entry in result["contenders"]:
        if (found := entry.get("agreement")) is None:
            continue
        share = "-" if found["tensor_share"] is None else f"{found['tensor_share']:.3%}"
        mean = "-" if found["tensor_mean"] is None else f"{found['tensor_mean']:.1e}"
        noise = "-" if found["logits_db"] is None else f"{found['logits_db']:.1f}"
        alike = "-" if found["logits_correlation"] is None else f"{found['logits_correlation']:.4f}"
        lines.append(f"  {entry['name']:21}{share:>14}{mean:>12}{noise:>11}{alike:>13}")
    return lines


def _overhead(result: dict[str, Any]) -> list[str]:
    lines = []
    for entry in result["contenders"]:
        if (found := entry.get("overhead")) is None:
            continue
        if "why_not" in found:
            lines.append(f"  {entry['served']:45}not measured: {found['why_not']}"[:WIDTH])
            continue
        both = f"{found['session_ms']:8.2f} over {found['bare_ms']:8.2f} ms"
        lines.append(f"  {entry['served']:45}{both}{ratio(found['ratio']):>24}")
    return ["A session of edgehem over the bare call of its library, one tensor, by turns", *lines] if lines else []


def _aims(result: dict[str, Any]) -> list[str]:
    lines = ["Aims, as measured (they tell; nothing depends on them)"]
    for aim in result["aims"]:
        who = f" [{aim['contender'].partition(',')[0]}]" if aim["bound"] < 2 and aim["contender"] else ""
        lines.append(f"  {aim['aim'] + who:62}{ratio(aim['measured']):>24}  {aim['verdict']}")
    return lines


def _setups(result: dict[str, Any]) -> list[str]:
    lines = ["How each is set up"]
    for entry in result["contenders"]:
        text = entry["how"] + (f" ({entry['served']})" if entry["served"] else "")
        lines += textwrap.wrap(f"  {entry['name']:21}{text}", WIDTH, subsequent_indent=" " * 23)
    return lines


def _notes(result: dict[str, Any]) -> list[str]:
    alike = result["grids"]["slice_logits_correlation"]
    text = (
        "edgehem checks the series and finds the head by itself. The others are handed the grid that it finds, moved "
        "by at most half a voxel so that a resampling by spacing alone can hit it, and check nothing: they do less. "
        "They sample trilinearly, edgehem antialiased; each tensor is held against NumPy's definition of its own. "
        f"To this network, whose weights nobody trained, the two are {alike:.2f} alike (correlation of the slices' "
        "logits). Series are axial, even and not tilted, since the others would be wrong about any else. Peak is the "
        "resident memory of the whole process, imports included. Everyone's files are in the page cache."
    )
    floors = any(entry["role"] == FLOOR for entry in result["contenders"])
    floor = " A floor neither reads nor preprocesses." if floors else ""
    return textwrap.wrap(text + floor, WIDTH)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
