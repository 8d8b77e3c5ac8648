"""Rounds of every case, each case in a fresh process; of one install, or of two that take turns."""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgehem
from edgehem.benchmarks import environment
from edgehem.benchmarks.child import QUIET_S, Child
from edgehem.benchmarks.latency import floors
from edgehem.benchmarks.latency.studies import study
from edgehem.benchmarks.latency.verdict import YARDSTICK
from edgehem.benchmarks.latency.worker import PROTOCOL
from edgehem.errors import UsageError

SCHEMA = "edgehem.latency/1"
ROUNDS, AB_ROUNDS, QUICK_ROUNDS, WARM_UP = 40, 60, 6, 3
FEWEST, IN_A_PROCESS = 3, 20
"""Rounds of a case at least, and about as many in one process."""
QUICK_MS, TURNS = 40.0, 4
"""Where installs are compared, a round of a case shorter than this is the quickest of so many turns."""
NOT_ALONE = "the other install cannot run it"
PERCENTILES = (50, 90, 95, 99)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    cases : sequence of str
        Names or patterns (``stage.*``); empty for all.
    rounds : int
    seed : int
    bundle, backend, precision : str
        What serves; as ``edgehem triage`` takes them.
    """

    cases: Sequence[str] = ()
    rounds: int = ROUNDS
    seed: int = 0
    bundle: str = "hemorrhagenet"
    backend: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An install to measure; :meth:`of` finds it.

    Parameters
    ----------
    name : str
        ``base``, ``new``, or empty.
    python : str
        The interpreter that has it.
    variables : dict of str to str
        For its processes, beside this one's.
    """

    name: str = ""
    python: str = sys.executable
    variables: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, place: Path) -> Arm:
        """The install of a virtual environment's folder, or of an interpreter.

        Raises
        ------
        UsageError
        """
        for candidate in (place / "bin" / "python", place / "Scripts" / "python.exe", place):
            if candidate.is_file():
                # Not resolved: an environment's python is a link, and knows by its place what it is.
                return cls(name=name, python=str(candidate.absolute()))
        raise UsageError(f"{place} is neither a virtual environment nor a python")


class Worker(Child):
    """A process of an arm."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        super().__init__("edgehem.benchmarks.latency.worker", python=arm.python, variables=arm.variables)


def measure(settings: Settings, *, say: Say = lambda line: None) -> dict[str, Any]:
    """Measure this install.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.latency/1``), ready for JSON.

    Raises
    ------
    UsageError
        If no case has such a name.
    ChildError
    """
    return measure_arms([Arm()], settings, say=say)[0]


def measure_arms(arms: Sequence[Arm], settings: Settings, *, say: Say = lambda line: None) -> list[dict[str, Any]]:
    """Measure installs that take turns: round i of all of them lies side by side.

    Only cases that every arm knows are measured; what one arm alone knows is named in its result (``unmeasured``).

    Returns
    -------
    list of dict
        A result for each arm, of one session.

    Raises
    ------
    UsageError
        If no case has such a name, or an arm's install does not understand these questions.
    ChildError
    """
    bundle = {"bundle": settings.bundle, "backend": settings.backend, "precision": settings.precision}
    say("what the machine can do")
    before, session, rates = environment.load(), secrets.token_hex(8), floors.rates()
    greetings = []
    for arm in arms:
        with Worker(arm) as worker:
            greetings.append(worker.ask(do="hello", **bundle))
            if greetings[-1]["protocol"] != PROTOCOL:
                raise UsageError(f"the install {arm.name} measures otherwise: protocol {greetings[-1]['protocol']}")
    known = [{case["name"]: case for case in greeting["cases"]} for greeting in greetings]
    common = [name for name in known[0] if all(name in other for other in known)]
    wanted = _wanted(common, settings.cases)
    rng = np.random.default_rng(settings.seed)
    rows: list[list[dict[str, Any]]] = [[] for _ in arms]
    passed: list[dict[str, str]] = [{} for _ in arms]
    unmeasured = [sorted(set(names) - set(common)) for names in known]
    with tempfile.TemporaryDirectory(prefix="edgehem-bench-") as scratch:
        for number, name in enumerate(wanted):
            case = known[0][name]
            say(f"case {number + 1} of {len(wanted)}: {name}")
            folder = study(Path(scratch), case["slices"], case["compressed"])
            found = _measured(arms, case, str(folder), settings, bundle, rng)
            for index, measured in enumerate(found):
                if not isinstance(measured, str):
                    rows[index].extend(measured)
                elif measured is NOT_ALONE:
                    unmeasured[index].append(name)
                else:
                    passed[index][name] = measured
    after = environment.load()
    made = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    results = []
    for index, (arm, greeting) in enumerate(zip(arms, greetings, strict=True)):
        results.append({
            "schema": SCHEMA,
            "made": made,
            "session": session,
            "arm": arm.name,
            "edgehem": greeting["edgehem"],
            "revision": _revision() if arm.python == sys.executable else "",
            "environment": greeting["environment"],
            "load": {"before": before, "after": after, "stolen": environment.stolen(before, after)},
            "served": greeting["served"],
            "settings": {"rounds": settings.rounds, "warm_up": WARM_UP, "seed": settings.seed},
            "rates": rates,
            "cases": [{**row, "floor_ms": floors.floor_ms(row, rates, greeting["system"])} for row in rows[index]],
            "passed_over": passed[index],
            "unmeasured": unmeasured[index],
        })  # fmt: skip
    return results


def _measured(
    arms: Sequence[Arm],
    case: dict[str, Any],
    folder: str,
    settings: Settings,
    bundle: dict[str, str],
    rng: np.random.Generator,
) -> list[list[dict[str, Any]] | str]:
    """One case on every arm, with what it is held against as a row of its own; or why an arm cannot run it.

    Each arm gets fresh processes several times: where a process has its memory lasts as long as it does, and no
    interval over its rounds would see that.
    """
    rounds = max(FEWEST, round(settings.rounds * case["share"]))
    taken: list[dict[str, list[float]]] = [{} for _ in arms]
    for chunk in np.array_split(np.arange(rounds), max(1, round(rounds / IN_A_PROCESS))):
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(Worker(arm)) for arm in arms]
            prepared = [
                worker.ask(
                    do="prepare", case=case["name"], folder=folder, seed=settings.seed + int(chunk[0]),
                    warm_up=WARM_UP, **bundle,
                )
                for worker in workers
            ]  # fmt: skip
            if any("passed_over" in reply for reply in prepared):
                return [str(reply.get("passed_over", NOT_ALONE)) for reply in prepared]
            # What is compared is not how noisy the machine is: the quickest of some turns says more of a short case.
            quick = len(arms) > 1 and max(reply["about_ms"] for reply in prepared) < QUICK_MS
            for _ in chunk:
                for index in rng.permutation(len(arms)):
                    if len(arms) > 1 and not quick:
                        time.sleep(QUIET_S)
                    for name, ms in workers[index].ask(do="round", turns=TURNS if quick else 1)["ms"].items():
                        taken[index].setdefault(name, []).append(ms)
            ends = [worker.ask(do="end") for worker in workers]
    return [
        [_row(case, name, samples, ready, end) for name, samples in sorted(by_name.items())]
        for by_name, ready, end in zip(taken, prepared, ends, strict=True)
    ]


def _row(
    case: dict[str, Any], call: str, samples: Sequence[float], ready: dict[str, Any], end: dict[str, Any]
) -> dict[str, Any]:
    figures = np.percentile(samples, PERCENTILES)
    return {
        "name": f"{case['name']}.{call}" if call else case["name"],
        "group": YARDSTICK if call else case["group"],
        "what": f"{case['what']}: {call}" if call else case["what"],
        "samples_ms": [round(value, 5) for value in samples],
        **{f"p{number}_ms": round(float(value), 5) for number, value in zip(PERCENTILES, figures, strict=True)},
        "peak_bytes": end["peak_bytes"],
        "bytes_moved": None if call else ready["bytes_moved"],
        "details": {} if call else end["details"],
    }


def _wanted(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return list(names)
    found = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no case is called {pattern!r}; known: {', '.join(names)}")
    return found


def _revision() -> str:
    """The git commit of the working tree, with ``+`` if it was changed; empty where there is none."""
    place = Path(edgehem.__file__).resolve().parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(place), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The table of a result, heading first."""
    yield ("case", "floor ms", "p50", "p90", "p95", "p99", "peak MiB", "what")
    for case in result["cases"]:
        yield (
            case["name"],
            "-" if case["floor_ms"] is None else f"{case['floor_ms']:.2f}",
            *(f"{case[f'p{number}_ms']:.2f}" for number in PERCENTILES),
            f"{case['peak_bytes'] / 2**20:.0f}" if case["peak_bytes"] else "-",
            case["what"],
        )


def render(result: dict[str, Any]) -> str:
    """The result for a terminal, about 110 columns wide."""
    table = list(rows(result))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if index in (0, len(row) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    served, here, load = result["served"], result["environment"], result["load"]
    stolen = "not known" if load["stolen"] is None else f"{load['stolen']:.1%}"
    copied, macs = result["rates"]["copy_bytes_per_s"], result["rates"]["float32_macs_per_s"]
    return "\n".join([
        *lines,
        "",
        f"Served: {served['bundle']}, {served['graph']} on {served['engine']} {served['engine_version']} "
        f"in {served['arithmetic']}; {result['settings']['rounds']} rounds, every case in a process of its own",
        f"{here['cpu']}, {here['cpus']['usable']} of {here['cpus']['present']} CPUs; governor "
        f"{here['governor'] or 'not known'}; taken by other machines {stolen}",
        f"Floors: bytes moved at {copied / 1e9:.1f} GB/s (a copy, read and written); engines at {macs / 1e9:.0f} "
        "GMAC/s (multiply-accumulates in float32, of a matrix product)",
        *(f"passed over: {name}: {why}" for name, why in result["passed_over"].items()),
    ])  # fmt: skip


def markdown(result: dict[str, Any]) -> str:
    """Floors, medians and gaps as a table, for a page."""
    lines = ["| case | what | floor, ms | median, ms | p95, ms | gap | peak MB |", "|---|---|---|---|---|---|---|"]
    for case in result["cases"]:
        floor, median = case["floor_ms"], case["p50_ms"]
        lines.append(
            f"| `{case['name']}` | {case['what']} | {'' if floor is None else f'{floor:.2f}'} | {median:.2f} | "
            f"{case['p95_ms']:.2f} | {'' if not floor else f'{median / floor:.1f} x'} | "
            f"{case['peak_bytes'] / 1e6:.0f} |"
        )
    served, here = result["served"], result["environment"]
    lines += [
        "",
        f"{served['graph']} on {served['engine']} {served['engine_version']} in {served['arithmetic']} where no "
        f"other is named; {result['settings']['rounds']} rounds; {here['cpu']}, {here['cpus']['usable']} CPUs.",
    ]
    return "\n".join(lines) + "\n"
