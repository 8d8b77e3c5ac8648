"""A result of ``edgehem bench engines`` as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgehem.benchmarks.peers.nncf import HOW
from edgehem.benchmarks.report import busy, machine, ratio

WORST_DB = 20.0
"""Below it, an INT8 graph's features are pointed at."""


def render(result: dict[str, Any]) -> str:
    """The whole result, about 120 columns wide.

    Parameters
    ----------
    result : dict
        Of schema ``edgehem.bench.engines/1``.
    """
    sections = [_head(result), *[_job(job) for job in result["jobs"]], _means(result["over_large"]), _aims(result)]
    return "\n\n".join("\n".join(section) for section in [*sections, _notes(result)]) + "\n"


def _head(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    measured = [job for job in result["jobs"] if job["state"] == "measured"]
    lines = [
        f"Engines, graphs and arithmetics of the same networks: {settings['batch']} images at once, "
        f"{settings['threads']} threads, 2 x {settings['rounds']} interleaved rounds",
        *machine(result),
        busy(result),
    ]
    if measured:
        where = measured[0]["machine"]
        lines.append(f"Instruction sets: {' '.join(where['flags']) or 'not known'}")
        versions = {
            **where["engines"],
            "nncf": next((job["peer_version"] for job in measured if job["peer_version"]), ""),
        }
        lines.append(
            "Engines: " + ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
        )
    return lines


def _job(job: dict[str, Any]) -> list[str]:
    if job["state"] != "measured":
        return [f"{job['name']}: {job['state']}: {job['why']}"]
    lines = [
        f"{job['name']}: {_about(job['about'])}",
        f"     {'engine':13}{'graph':14}{'in':6}{'ms':>9}{'times as fast (quartiles)':>28}{'SQNR dB':>9}  ",
    ]
    for index, row in enumerate(job["rows"]):
        mark = "*" if index == job["chosen"] else "peer" if row["peer"] else ""
        ms = "-" if row["ms"] is None else f"{row['ms']:.1f}"
        times = "-" if row["times"] is None else "{1:.2f} ({0:.2f} - {2:.2f})".format(*row["times"])
        sqnr = "-" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
        line = f"{mark:5}{row['engine']:13}{row['form']:14}{row['arithmetic']:6}{ms:>9}{times:>28}{sqnr:>9}"
        lines.append(f"{line}  {_word(row)}".rstrip())
    if job["no_peer"]:
        lines.append(f"     NNCF is passed over: {job['no_peer']}")
    lines += [f"     {engine} is not here: {why}" for engine, why in job["absent"].items()]
    if job["why_not_held"]:
        lines.append(f"     THE CHOICE DID NOT HOLD when it was measured again: {job['why_not_held']}")
    else:
        best = job["rows"][job["best"]]
        which = (
            "the chosen one"
            if job["best"] == job["chosen"]
            else f"{best['engine']} {best['form']} {best['arithmetic']}"
        )
        lines.append(
            f"     Measured again, the best is {which}: {ratio(job['best_over_chosen'])} x as fast as the chosen"
        )
    return lines


def _about(about: Mapping[str, Any]) -> str:
    """A network in words."""
    words = []
    if "parameters" in about:
        words.append(f"{about['parameters'] / 1e6:.1f} M parameters, {' x '.join(map(str, about['input']))}")
    if int8 := about.get("int8"):
        words.append(
            f"no INT8: {int8['why_none']}"
            if "why_none" in int8
            else f"INT8: {int8['layers']} convolutions, {int8['left_float']} left in float"
        )
    return "; ".join(words)


def _word(row: Mapping[str, Any]) -> str:
    """What must be said beside a line's figures."""
    if row["passed_over"]:
        return f"passed over: {row['passed_over']}"
    if row["sqnr_db"] is not None and row["sqnr_db"] < WORST_DB:
        return f"under {WORST_DB:g} dB"
    return ""


def _means(means: dict[str, Any]) -> list[str]:
    lines = [f"Geometric means over {', '.join(means['networks']) or 'none of the large networks'}"]
    for words, key in (
        ("chosen, times as fast as ONNX Runtime fp32", "chosen_times"),
        ("NNCF's best, times as fast", "peer_times"),
        ("NNCF's best, times as fast as the chosen", "peer_over_chosen"),
    ):
        lines.append(f"  {words:46}{ratio(means[key]) or 'not measured':>24}")
    if means["networks_with_peer"] != means["networks"]:
        lines.append(f"  NNCF's over {', '.join(means['networks_with_peer']) or 'none'} alone")
    return lines


def _aims(result: dict[str, Any]) -> list[str]:
    lines = ["Aims, as measured (they tell; nothing depends on them)"]
    return lines + [
        f"  {aim['job']:19}{aim['aim']:50}{ratio(aim['measured']):>22}  {aim['verdict']}" for aim in result["aims"]
    ]


def _notes(result: dict[str, Any]) -> list[str]:
    limit = next((job["budget"]["fidelity_db"] for job in result["jobs"] if job["state"] == "measured"), None)
    gate = "" if limit is None else f" (optimised, a graph stays within {limit:g} dB of itself)"
    return [
        "* is what edgehem compile chooses, found in a first measurement; every figure is of a second one, in new",
        "  processes. Times as fast: as ONNX Runtime with the float graph in f32, paired by round. SQNR: of the",
        "  features, to that graph without optimisation.",
        "Weights are random: SQNR tells engines and graphs of one network apart, and nothing of trained ones. So no",
        f"  accuracy budget is applied beyond the gate on fidelity{gate}:",
        "  with trained weights and calibrated heads, compile also passes over what moves probabilities or decisions.",
        "  INT8 is by one plain recipe, without the search that puts layers back in float until a budget holds.",
        f"NNCF: {HOW}.",
        "  It runs in OpenVINO as ours do. It is a peer: nothing chooses it.",
    ]
