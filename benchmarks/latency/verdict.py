"""Did a change make it slower? Two results in, a verdict for each case out, and an exit code for CI.

Two results of one session were measured side by side: their rounds are *paired*, and the ratio of the two times of a
round says more than either, since what disturbs the machine disturbs both. Other results are compared by the ratio of
their medians, and the comparison says so: between two times of day a machine may have become another one.

All intervals hold together with 95 % (Bonferroni): with 25 cases, each has 99.8 %. Holm's procedure would find a second
and a third slow case a little sooner, but has no intervals to show; the first is found as soon by both. One interval
then decides every verdict, and is the one that is told:

- SLOWER, FASTER: the interval leaves 1 out, and the ratio is at least the case's minimum effect away from it;
- SAME: the whole interval lies within the minimum effect, be 1 inside of it or not;
- AMBIGUOUS: neither; more rounds, or a quieter machine, would tell;
- TOO SHORT: both medians are under the case's minimum duration. Not AMBIGUOUS, as no number of rounds changes it: such
  a case is to be made longer, and does not keep a strict gate shut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgehem.benchmarks.latency import blocks, thresholds
from edgehem.benchmarks.latency.reading import NO_SAMPLES, PERCENTILES, checked
from edgehem.benchmarks.latency.thresholds import Limits, Thresholds
from edgehem.errors import UsageError

SCHEMA = "edgehem.latency-comparison/1"
FAMILY_ERROR = 0.05
SLOWER, FASTER, SAME, AMBIGUOUS, TOO_SHORT = "SLOWER", "FASTER", "SAME", "AMBIGUOUS", "TOO SHORT"
VERDICTS = (SLOWER, AMBIGUOUS, FASTER, SAME, TOO_SHORT)
"""The worst first."""

EXIT_SAME, EXIT_SLOWER, EXIT_AMBIGUOUS = 0, 4, 5
"""0 nothing is slower; 4 a case is SLOWER, or missing; 5 none is, but a strict gate wants to know more. 1, 2, 3, 130
and 143 mean elsewhere what they mean for every command (:mod:`edgehem.cli`)."""

PAIRED = "paired: round by round, measured side by side"
UNPAIRED = "unpaired: measured at different times"
MACHINE = (
    "cpu", "machine", "cpu_flags", "cpus.usable", "cpus.present", "memory_bytes", "largest_cache_bytes", "governor",
    "power_mode", "transparent_hugepages",
)  # fmt: skip
"""What makes another machine of it."""
SOFTWARE = (
    "python",
    "numpy",
    "platform",
    "kernels.implementation",
    "kernels.instruction_set",
    "kernels.compiler_flags",
)
"""What may well be the change that is looked at: told, not refused."""
SERVED = ("engine", "graph", "arithmetic", "bundle", "sha256")
SERVED_SOFTWARE = ("engine_version",)
FREE_SETTINGS = ("rounds",)
"""Every other setting must be the same; fewer rounds make intervals wider, and nothing else."""
MEMORY_JITTER = 0.02
"""Two kernels find so much more or less memory in one machine."""
BUSY = 0.05
"""A share of the CPUs' time that other machines took, above which it is told."""

YARDSTICK = "yardstick"
"""Group of cases that ours are held against."""

Row = dict[str, Any]


def compare(
    base: dict[str, Any],
    new: dict[str, Any],
    limits: Thresholds | None = None,
    *,
    allow_different: bool = False,
) -> dict[str, Any]:
    """Compare two results.

    Parameters
    ----------
    base, new : dict
        Schema ``edgehem.latency/1``.
    limits : Thresholds, optional
        By default the project's own.
    allow_different : bool
        Compare results of different machines, engines or settings all the same; the comparison names what differs.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.latency-comparison/1``), ready for JSON. Ratios are new / base; a ratio that
        could not be had is None, with the reason in ``why``.

    Raises
    ------
    UsageError
        If a result is not as its schema has it, no case is in both, or they differ and may not.
    """
    limits = limits or thresholds.load()
    for side, result in (("the base", base), ("the new result", new)):
        try:
            checked(result)
        except UsageError as error:
            raise UsageError(f"{side}: {error}") from error
    different = differences(base, new)
    if different and not allow_different:
        raise UsageError(
            f"these results are not comparable: {'; '.join(different)}. Measure both on one machine with the same "
            "settings, or allow the difference (--allow-different)"
        )
    # Yardsticks are what others' code takes: nothing of ours to judge, and each would widen every interval.
    before, after = (
        {case["name"]: case for case in result["cases"] if case["group"] != YARDSTICK} for result in (base, new)
    )
    names = [name for name in before if name in after]
    if not names and not before:
        raise UsageError("the base holds no cases")
    paired = bool(base["session"]) and base["session"] == new["session"]
    rows = [_row(before[name], after[name], limits.of(name), paired) for name in names]
    told = _judge(rows, {name: (before[name], after[name]) for name in names}, paired)
    return {
        "schema": SCHEMA,
        "how": PAIRED if paired else UNPAIRED,
        "paired": paired,
        "different": different,
        "notes": _notes(base, new, limits, [*before, *after]),
        "thresholds": thresholds.plain(limits),
        "statistics": told,
        "base": _side(base),
        "new": _side(new),
        "cases": rows,
        "missing": _only(base, new, before, after),
        "additional": _only(new, base, after, before),
        "counts": {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS},
        "more_memory": [row["name"] for row in rows if row["memory"] and row["memory"]["flagged"]],
    }


def exit_code(comparison: Mapping[str, Any], *, strict: bool = False) -> int:
    """What CI is to be told: 0, 4 or 5.

    Parameters
    ----------
    comparison : dict
        Schema ``edgehem.latency-comparison/1``.
    strict : bool
        AMBIGUOUS cases, and cases whose peak of memory grew, keep the gate shut, too. Memory is one number a result:
        it has no interval, and by itself it never means SLOWER.
    """
    if comparison["counts"][SLOWER] or comparison["missing"]:
        return EXIT_SLOWER
    if strict and (comparison["counts"][AMBIGUOUS] or comparison["more_memory"]):
        return EXIT_AMBIGUOUS
    return EXIT_SAME


def differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What makes two results not comparable, in words."""
    found = _changed(base["environment"], new["environment"], MACHINE, _same_machine)
    found += _changed(base["served"], new["served"], SERVED)
    settings = sorted({*base["settings"], *new["settings"]} - {*FREE_SETTINGS})
    return found + _changed(base["settings"], new["settings"], settings)


def _notes(base: dict[str, Any], new: dict[str, Any], limits: Thresholds, names: Iterable[str]) -> list[str]:
    """What a reader should know, though it keeps nothing from being compared."""
    notes = _changed(base["environment"], new["environment"], SOFTWARE)
    notes += _changed(base["served"], new["served"], SERVED_SOFTWARE)
    for side, result in (("base", base), ("new", new)):
        stolen = result["load"]["stolen"]
        if stolen is not None and stolen > BUSY:
            notes.append(f"{side}: {stolen:.0%} of the CPUs' time was taken by other machines")
    for name, why in base.get("passed_over", {}).items():
        if name in new.get("passed_over", {}):
            notes.append(f"in neither result: {name}: {why}")
    notes += [f"no case is called {pattern}, which the thresholds name" for pattern in limits.unused(names)]
    return notes


def _changed(
    base: Mapping[str, Any],
    new: Mapping[str, Any],
    keys: Iterable[str],
    same: Callable[[str, Any, Any], bool] = lambda key, one, other: bool(one == other),
) -> list[str]:
    pairs = [(key, _inside(base, key), _inside(new, key)) for key in keys]
    return [f"{_words(key)} is {_value(one)} in the base, {_value(other)} in the new result"
            for key, one, other in pairs if not same(key, one, other)]  # fmt: skip


def _same_machine(key: str, one: Any, other: Any) -> bool:
    if key == "memory_bytes" and one and other:
        return bool(abs(one - other) <= MEMORY_JITTER * max(one, other))
    return bool(one == other)


def _inside(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None  # type: ignore[assignment]
    return values


def _words(key: str) -> str:
    return {"cpu": "the CPU", "cpus.usable": "the number of usable CPUs", "cpus.present": "the number of CPUs"}.get(
        key, key.replace("_", " ").replace(".", " ")
    )


def _value(value: Any) -> str:
    return "not known" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _only(
    here: Mapping[str, Any], there: Mapping[str, Any], cases: Mapping[str, Any], others: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Cases of one side that the other lacks, with the reason where one is told."""
    # What only this side's install knows was measured by neither, when two took turns.
    passed = there.get("passed_over", {})
    names = dict.fromkeys([*(name for name in cases if name not in others), *here.get("unmeasured", ())])
    return [{"name": name, "why": passed.get(name, "")} for name in names]


def _side(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("made", "session", "arm", "edgehem", "revision", "environment", "load", "served", "settings")
    return {key: result[key] for key in kept}


def _row(base: Mapping[str, Any], new: Mapping[str, Any], limits: Limits, paired: bool) -> Row:
    """A case that is not judged yet: ``verdict`` is None, unless it cannot be."""
    row: Row = {
        "name": new["name"],
        "group": new["group"],
        "what": new["what"],
        "verdict": None,
        "why": "",
        "ratio": new["p50_ms"] / base["p50_ms"],
        "low": None,
        "high": None,
        "minimum_effect": limits.minimum_effect,
        "minimum_ms": limits.minimum_ms,
        "base": _figures(base),
        "new": _figures(new),
        "memory": _memory(base["peak_bytes"], new["peak_bytes"], limits),
        "block": None,
        "autocorrelation": None,
    }
    rounds = min(len(base["samples_ms"]), len(new["samples_ms"]))
    if max(base["p50_ms"], new["p50_ms"]) < limits.minimum_ms:
        row |= {"verdict": TOO_SHORT, "why": f"both medians are under {limits.minimum_ms:g} ms"}
    elif not rounds:
        row |= {"verdict": AMBIGUOUS, "why": (base["details"] | new["details"]).get("why_no_samples", NO_SAMPLES)}
    elif paired and len(base["samples_ms"]) != len(new["samples_ms"]):
        row |= {"verdict": AMBIGUOUS, "why": "the two have different numbers of rounds, which cannot be paired"}
    elif rounds < limits.minimum_rounds:
        row |= {"verdict": AMBIGUOUS, "why": f"{rounds} rounds; at least {limits.minimum_rounds} are needed"}
    return row


def _figures(case: Mapping[str, Any]) -> dict[str, Any]:
    return {"rounds": len(case["samples_ms"]), **{f"p{number}_ms": case[f"p{number}_ms"] for number in PERCENTILES}}


def _memory(base: int | None, new: int | None, limits: Limits) -> dict[str, Any] | None:
    if not base or not new:
        return None
    flagged = new - base > max(limits.memory_growth * base, limits.memory_bytes)
    return {"base_bytes": base, "new_bytes": new, "ratio": new / base, "flagged": flagged}


def _judge(
    rows: Sequence[Row], cases: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], paired: bool
) -> dict[str, Any]:
    """Fill in intervals and verdicts, of all cases that can be judged as one family."""
    family = [row for row in rows if row["verdict"] is None]
    tail = FAMILY_ERROR / 2 / max(1, len(family))
    alike: dict[tuple[int, int], list[Row]] = {}
    for row in family:
        alike.setdefault((row["base"]["rounds"], row["new"]["rounds"]), []).append(row)
    for group in alike.values():
        base, new = ([np.log(cases[row["name"]][side]["samples_ms"]) for row in group] for side in (0, 1))
        # Of logarithms: with the sides exchanged, every ratio is its own inverse, and so is its interval.
        if paired:
            ratios = [blocks.thin(after - before) for before, after in zip(base, new, strict=True)]
            found = blocks.median(np.array(ratios), tail)
        else:
            thinned = [np.array([blocks.thin(times) for times in side]) for side in (new, base)]
            found = blocks.difference(thinned[0], thinned[1], tail)
        for index, row in enumerate(group):
            value, low, high = (
                float(np.exp(np.clip(end[index], -50, 50))) for end in (found.value, found.low, found.high)
            )
            verdict, why = decide(value, low, high, row["minimum_effect"])
            row |= {
                "ratio": value, "low": low, "high": high, "verdict": verdict, "why": why, "block": found.block,
                "autocorrelation": float(found.autocorrelation[index]),
            }  # fmt: skip
    return {
        "family": len(family),
        "family_error": FAMILY_ERROR,
        "correction": "Bonferroni",
        "each": 1 - 2 * tail,
        "interval": "exact circular block bootstrap of the median of log ratios, stretched for few blocks and for "
        "correlations that outlast a block",
    }


def decide(ratio: float, low: float, high: float, effect: float) -> tuple[str, str]:
    """Verdict and reason for a ratio new / base and its interval.

    Parameters
    ----------
    effect : float
        The minimum one: 0.05 makes 1.05, and 1 / 1.05, the ends of what is SAME.
    """
    if low > 1 and ratio >= 1 + effect:
        return SLOWER, ""
    if high < 1 and ratio <= 1 / (1 + effect):
        return FASTER, ""
    if low >= 1 / (1 + effect) and high <= 1 + effect:
        return SAME, "" if low <= 1 <= high else f"changed, by less than {effect:.0%}"
    if low > 1 or high < 1:
        return AMBIGUOUS, f"changed, but perhaps by less than {effect:.0%}"
    return AMBIGUOUS, "too noisy for so few rounds"
