"""Is the gate itself right? Comparisons drawn from one long recording, whose answer is known.

Of arms with the same code nobody is slower: whoever is called so is a false alarm. Of an arm that was slowed on purpose
somebody is. Both are counted over many short comparisons, cut out of the recording at random places, the very rounds
that lay side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgehem import strict_json
from edgehem.benchmarks.latency import thresholds
from edgehem.benchmarks.latency.reading import checked
from edgehem.benchmarks.latency.run import Arm, Say, Settings, measure_arms
from edgehem.benchmarks.latency.thresholds import Thresholds
from edgehem.benchmarks.latency.verdict import SLOWER, compare
from edgehem.benchmarks.latency.worker import INJECTED
from edgehem.errors import UsageError
from edgehem.intervals import wilson

SCHEMA, RECORDING = "edgehem.latency-replay/1", "edgehem.latency-recording/1"
MOST_FALSE_ALARMS, LEAST_FOUND = 0.05, 0.90
SAME_DRAWS, SLOWED_DRAWS = 200, 100
FAMILY = ("stage.*/40", "engine.served", "whole.warm/40")
"""What is recorded where nothing else is said: quick cases of every kind."""


def replay(
    pool_base: Sequence[dict[str, Any]],
    pool_new: Sequence[dict[str, Any]],
    slowed: str,
    *,
    rounds: int = 30,
    same_draws: int = SAME_DRAWS,
    slowed_draws: int = SLOWED_DRAWS,
    seed: int = 0,
    limits: Thresholds | None = None,
) -> dict[str, Any]:
    """Count false alarms, and slow-downs that were found.

    Parameters
    ----------
    pool_base : sequence of dict
        At least two arms of the same code, of one session (schema ``edgehem.latency/1``). The more processes they
        are of, the more of what differs from process to process is in the count.
    pool_new : sequence of dict
        Arms of that session in which one case was slowed.
    slowed : str
        Its name. Others are counted apart: a whole study gets slower with its stages, and rightly so.
    rounds : int
        Of every comparison. A case with fewer in the recording gives all that it has.
    same_draws, slowed_draws : int
        Comparisons.
    seed : int
        Draws arms and places.
    limits : Thresholds, optional

    Returns
    -------
    dict
        Plain values (schema ``edgehem.latency-replay/1``). Rates have 95 % score intervals, which take the comparisons
        for independent: where a recording is shorter than all of them together, they overlap, and it is wider.

    Raises
    ------
    UsageError
        If the arms are too few or not of one session, or know no such case.
    """
    limits = limits or thresholds.load()
    if len(pool_base) < 2 or not pool_new:
        raise UsageError("a replay needs two arms of the same code, and one that was slowed")
    arms = [checked(arm) for arm in (*pool_base, *pool_new)]
    if len({arm["session"] for arm in arms}) != 1 or not arms[0]["session"]:
        raise UsageError("a replay needs arms that were measured side by side, in one session")
    if any(slowed not in {case["name"] for case in arm["cases"]} for arm in arms):
        raise UsageError(f"not every arm has the case {slowed!r}")
    rng = np.random.default_rng(seed)
    alarms: dict[str, int] = {}
    false = 0
    for _ in range(same_draws):
        one, other = map(int, rng.choice(len(pool_base), 2, replace=False))
        called = _slower(pool_base[one], pool_base[other], rounds, rng.random(), limits)
        false += bool(called)
        for name in called:
            alarms[name] = alarms.get(name, 0) + 1
    found = others = 0
    for _ in range(slowed_draws):
        base, new = pool_base[int(rng.integers(len(pool_base)))], pool_new[int(rng.integers(len(pool_new)))]
        called = _slower(base, new, rounds, rng.random(), limits)
        found += slowed in called
        others += bool(set(called) - {slowed})
    longest = max(len(case["samples_ms"]) for case in arms[0]["cases"])
    return {
        "schema": SCHEMA,
        "rounds": rounds,
        "recorded_rounds": longest,
        "cases": len(arms[0]["cases"]),
        "same": {**_rate(false, same_draws), "at_most": MOST_FALSE_ALARMS, "by_case": alarms},
        "slowed": {**_rate(found, slowed_draws), "at_least": LEAST_FOUND, "case": slowed, "others_too": others},
        "passes": false <= MOST_FALSE_ALARMS * same_draws and found >= LEAST_FOUND * slowed_draws,
    }


def record(settings: Settings, *, slowed: str, share: float, say: Say = lambda line: None) -> dict[str, Any]:
    """Measure three arms of this install side by side, one of them slowed in one case.

    Parameters
    ----------
    settings : Settings
        Without cases, those of :data:`FAMILY`.
    slowed : str
        Case that the third arm takes longer for, by `share`, by waiting in its timed part.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.latency-recording/1``).
    """
    family = tuple(dict.fromkeys((*(settings.cases or FAMILY), slowed)))
    arms = [Arm(name="base"), Arm(name="same"), Arm(name="slowed", variables=((INJECTED, f"{slowed}={share}"),))]
    *same, slow = measure_arms(arms, replace(settings, cases=family), say=say)
    return {"schema": RECORDING, "slowed": slowed, "share": share, "same": same, "slow": slow}


def read_recording(path: Path) -> dict[str, Any]:
    """A recording from a file.

    Raises
    ------
    UsageError
        If it cannot be read, or is none.
    """
    try:
        content = strict_json.decode(path.read_bytes(), dict[str, Any])
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path.name} is no recording: {error}") from error
    if content.get("schema") != RECORDING or not {"slowed", "share", "same", "slow"} <= set(content):
        raise UsageError(f"{path.name} is no recording of schema {RECORDING}")
    return content


def counted(recording: Mapping[str, Any], *, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Replay comparisons of a recording.

    Returns
    -------
    dict
        As :func:`replay`, with ``share``, ``environment`` and ``load``.
    """
    slow = recording["slow"]
    told = replay(recording["same"], [slow], recording["slowed"], rounds=rounds, seed=seed)
    return {**told, "share": recording["share"], "environment": slow["environment"], "load": slow["load"]}


def render(result: Mapping[str, Any]) -> str:
    """The counts in words."""
    same, slow = result["same"], result["slowed"]

    def rate(counted: Mapping[str, Any]) -> str:
        low, high = counted["interval"]
        return f"{counted['called_slower']} of {counted['comparisons']} ({low:.1%} to {high:.1%})"

    alarms = ", ".join(f"{name} {count}" for name, count in same["by_case"].items()) or "none"
    return "\n".join([
        f"{result['cases']} cases, {result['recorded_rounds']} rounds recorded, comparisons of {result['rounds']}",
        f"identical: a case called SLOWER in {rate(same)}; aim at most {same['at_most']:.0%}; by case: {alarms}",
        f"{slow['case']} slower by {result['share']:.0%}: called SLOWER in {rate(slow)}; aim at least "
        f"{slow['at_least']:.0%}; others called SLOWER too in {slow['others_too']}",
        "aims met" if result["passes"] else "aims not met",
    ])  # fmt: skip


def slow_down(result: Mapping[str, Any], case: str, by: float) -> dict[str, Any]:
    """A copy in which every round of a case took longer by a share: where no arm was slowed for real."""
    changed = copy.deepcopy(dict(result))
    for entry in changed["cases"]:
        if entry["name"] == case:
            entry["samples_ms"] = [value * (1 + by) for value in entry["samples_ms"]]
            entry |= {
                key: value * (1 + by) for key, value in entry.items() if key.endswith("_ms") and key[0] == "p" and value
            }
    return changed


def _slower(
    base: Mapping[str, Any], new: Mapping[str, Any], rounds: int, place: float, limits: Thresholds
) -> list[str]:
    found = compare(_cut(base, rounds, place), _cut(new, rounds, place), limits)
    return [row["name"] for row in found["cases"] if row["verdict"] == SLOWER]


def _cut(result: Mapping[str, Any], rounds: int, place: float) -> dict[str, Any]:
    """So many consecutive rounds of every case, at a place from 0 (the first ones) to 1 (the last ones)."""
    cases = []
    for case in result["cases"]:
        samples = case["samples_ms"]
        start = int(place * (max(0, len(samples) - rounds) + 1))
        cut = samples[start : start + rounds]
        cases.append({**case, "samples_ms": cut, "p50_ms": float(np.median(cut))} if cut else case)
    return {**result, "cases": cases}


def _rate(hits: int, draws: int) -> dict[str, Any]:
    low, high = wilson(hits, draws)
    return {"comparisons": draws, "called_slower": hits, "rate": hits / max(1, draws), "interval": [low, high]}
