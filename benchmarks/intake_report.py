"""A result of ``edgehem bench intake`` as text."""

from __future__ import annotations

from typing import Any

from edgehem.benchmarks.growth import MB
from edgehem.benchmarks.report import aims_lines, busy, machine, ratio, setups, versions


def render(result: dict[str, Any]) -> str:
    """The whole result, about 110 columns wide.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.intake/1``.
    """
    head = [
        f"From files to a stack, {result['settings']['rounds']} interleaved rounds",
        *machine(result),
        busy(result),
        f"Peers: {versions(result['jobs']) or 'none is installed'}",
    ]
    sections = [head, *[_job(job) for job in result["jobs"]], aims_lines(result["aims"]), setups(result["jobs"])]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _job(job: dict[str, Any]) -> list[str]:
    lines = [
        job["what"],
        f"  {'':20}{'median ms':>10}{'quartiles':>19}{'x ours (95 % CI)':>22}{'memory MB':>11}{'x raw':>7}",
    ]
    for entry in job["contenders"]:
        if entry["state"] != "timed":
            lines.append(f"  {entry['name']:20}{entry['state']}: {entry['why']}")
            continue
        low, high = entry["quartiles_ms"]
        row = (
            f"  {entry['name']:20}{entry['ms']:10.1f}{f'{low:.1f} - {high:.1f}':>19}{ratio(entry.get('over_ours')):>22}"
        )
        if entry["memory_bytes"] is not None:
            row += f"{entry['memory_bytes'] / MB:11.1f}{entry['memory_over_raw']:7.2f}"
        lines.append(row.rstrip())
    lines.append(
        "  All that are timed give the same Hounsfield units. Memory is the peak above that after the imports."
    )
    return lines
