"""A result of ``edgehem bench kernels`` as text."""

from __future__ import annotations

from typing import Any

from edgehem.benchmarks.growth import MB

HEADINGS = {"slices": "slices over the same length", "windows": "windows", "size": "size of the grid's planes"}


def render(result: dict[str, Any]) -> str:
    """The whole result, about 110 columns wide.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.kernels/1``.
    """
    sections = [_head(result), *[_job(job) for job in result["jobs"]], aims_lines(result["aims"])]
    if result["growth"]:
        sections.append(_growth(result["growth"]))
    sections.append(setups(result["jobs"]))
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _head(result: dict[str, Any]) -> list[str]:
    case, settings = result["case"], result["settings"]
    matrix = case["matrix"]
    return [
        f"{case['slices']} x {matrix} x {matrix} int16 -> "
        f"{case['planes']} x {case['channels']} x {case['size']} x {case['size']}, "
        f"{settings['threads']} threads, {settings['rounds']} interleaved rounds",
        *machine(result),
        f"{busy(result)}; caches swept before every call ({settings['swept_bytes'] / MB:.0f} MB)",
        f"Peers: {versions(result['jobs']) or 'none is installed'}",
    ]


def machine(result: dict[str, Any]) -> list[str]:
    """What it was measured on, two lines."""
    where = result["environment"]
    kernels = where["kernels"]
    native = kernels["instruction_set"] or f"no native kernels: {kernels['why_not_native']}"
    return [
        f"edgehem {where['edgehem']} ({native}), Python {where['python']}, NumPy {where['numpy']}, {where['platform']}",
        f"{where['cpu']}, {where['cpus']['usable']} CPUs usable of {where['cpus']['present']}, "
        f"governor {where['governor'] or 'not known'}, huge pages {where['transparent_hugepages'] or 'not known'}",
    ]


def busy(result: dict[str, Any]) -> str:
    """How busy the machine was, and how long it took."""
    load = result["load"]
    found = [f"load {before['load_average'][0]:.1f}" for before in (load["before"],) if before["load_average"]]
    found += [f"{load['after']['load_average'][0]:.1f} at the end"] if load["after"]["load_average"] else []
    found += [f"{load['stolen']:.1%} of the CPUs' time taken by other machines"] if load["stolen"] is not None else []
    return f"{', '.join(found)}; {result['seconds']:.0f} s"


def _job(job: dict[str, Any]) -> list[str]:
    lines = [
        f"{job['name']}: {job['what']}",
        f"  {'':20}{'median ms':>10}{'quartiles':>17}{'x ours (95 % CI)':>22}{'x memcpy (95 % CI)':>22}"
        f"{'differs by':>12}{'at most':>9}",
    ]
    for entry in job["contenders"]:
        if entry["state"] != "timed":
            lines.append(f"  {entry['name']:20}{entry['state']}: {entry['why']}")
            continue
        low, high = entry["quartiles_ms"]
        row = f"  {entry['name']:20}{entry['ms']:10.2f}{f'{low:.2f} - {high:.2f}':>17}"
        row += f"{ratio(entry.get('over_ours')):>22}{ratio(entry.get('over_memcpy')):>22}"
        if same := entry.get("agreement"):
            row += f"{_difference(same['mean']):>12}{_difference(same['largest']):>9}"
        lines.append(row.rstrip())
    lines.append("  Differences are from the oracle, in windows (1 is a window's whole width), over all voxels.")
    return lines


def aims_lines(aims: list[dict[str, Any]]) -> list[str]:
    """What was aimed at, and what was measured."""
    lines = ["Aims, as measured (they tell; nothing depends on them)"]
    for aim in aims:
        who = aim["contender"] or "-"
        lines.append(f"  {aim['job']:13}{aim['aim']:44}{who:20}{ratio(aim['measured']):>22}  {aim['verdict']}")
    return lines


def _growth(points: list[dict[str, Any]]) -> list[str]:
    lines = ["Growth of edgehem float32, antialiased, beside a memcpy of as many bytes"]
    told = ""
    for point in points:
        if point["what"] != told:
            told = point["what"]
            lines.append(
                f"  {HEADINGS[told]:30}{'MB moved':>10}{'ms':>9}{'quartiles':>18}{'ms per MB':>11}"
                f"{'memcpy ms':>11}{'x memcpy (95 % CI)':>22}"
            )
        low, high = point["quartiles_ms"]
        lines.append(
            f"  {point['value']:30}{point['bytes_moved'] / MB:10.1f}{point['ms']:9.2f}{f'{low:.2f} - {high:.2f}':>18}"
            f"{point['ms_per_mb']:11.4f}{point['memcpy_ms']:11.2f}{ratio(point['over_memcpy']):>22}"
        )
    return lines


def setups(jobs: list[dict[str, Any]]) -> list[str]:
    """How each contender is set up."""
    lines, told = ["How each is set up"], set()
    for job in jobs:
        for entry in job["contenders"]:
            if (entry["name"], entry["how"]) not in told:
                told.add((entry["name"], entry["how"]))
                lines.append(f"  {job['name']:13}{entry['name']:20}{entry['how']}")
    return lines


def versions(jobs: list[dict[str, Any]]) -> str:
    """Libraries and their versions."""
    found = {entry["library"]: entry.get("version") for job in jobs for entry in job["contenders"]}
    return ", ".join(f"{library} {version}" for library, version in found.items() if version)


def ratio(measured: dict[str, float] | None) -> str:
    """A ratio with its interval."""
    return f"{measured['value']:.2f} ({measured['low']:.2f} - {measured['high']:.2f})" if measured else ""


def _difference(value: float) -> str:
    return f"{value:.1e}" if value else "0"
