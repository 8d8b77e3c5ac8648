"""``edgehem bench engines``: every engine, graph form and arithmetic of a network beside NNCF's INT8, in one run.

Each network is measured twice, the second time in new processes. The first is what ``edgehem compile`` does, and
chooses; the figures are the second's, so that a choice is not told by the very luck that it was chosen for.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgehem import backends
from edgehem.backends import Backend
from edgehem.benchmarks import environment, networks
from edgehem.benchmarks.aims import Aim
from edgehem.benchmarks.networks import LARGE, Made
from edgehem.benchmarks.peers import nncf
from edgehem.device import Candidate, Record
from edgehem.errors import EdgehemError, UsageError
from edgehem.machine import usable_cpus

SCHEMA = "edgehem.bench.engines/1"

ROUNDS, QUICK_ROUNDS = 15, 3
BATCH = 4
FASTER = Aim(words="chosen at least 4 x as fast as ONNX Runtime fp32", library="", bound=4.0)
NEAR_BEST = Aim(words="the best at most 5 % faster than the chosen", library="", bound=1.05, at_most=True)
NEAR_PEER = Aim(words="NNCF at most 15 % faster than the chosen", library="", bound=1.15, at_most=True)
LARGE_JOB = "large ones"

Say = Callable[[str], None]
Quartiles = Sequence[float]
"""First quartile, median, third quartile."""


class Make(Protocol):
    """Makes a network in an empty folder: :func:`edgehem.benchmarks.networks.make`."""

    def __call__(self, name: str, folder: Path, *, batch: int, seed: int, say: Say) -> Made: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    networks : sequence of str
        Of :data:`edgehem.benchmarks.networks.NAMES`.
    batch : int
        Images at once.
    rounds : int
        Of each of the two measurements.
    seed : int
        Of weights and images.
    """

    networks: Sequence[str] = networks.NAMES
    batch: int = BATCH
    rounds: int = ROUNDS
    seed: int = 0


def run(
    settings: Settings,
    *,
    make: Make | None = None,
    engines: Sequence[Backend] | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    settings : Settings
    make : callable, optional
        By default :func:`edgehem.benchmarks.networks.make`.
    engines : sequence of Backend, optional
        To choose from; by default those that edgehem knows.
    say : callable
        Gets a line for each step.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.engines/1``), ready for JSON.

    Raises
    ------
    UsageError
        If a network is unknown.
    MissingExtraError
        If networks cannot be made at all.
    """
    if make is None:
        if unknown := [name for name in settings.networks if name not in networks.NAMES]:
            raise UsageError(f"no network here is called {unknown[0]!r}; there are {', '.join(networks.NAMES)}")
        networks.check_extra()
        make = networks.make
    known = list(backends.engines() if engines is None else engines)
    before, began = environment.load(), time.perf_counter()
    jobs = [_job(name, settings, make, known, say) for name in dict.fromkeys(settings.networks)]
    after = environment.load()
    means = over_large(jobs)
    return {
        "schema": SCHEMA,
        "settings": {
            "networks": list(settings.networks),
            "batch": settings.batch,
            "rounds": settings.rounds,
            "seed": settings.seed,
            "threads": usable_cpus(),
        },
        "environment": environment.describe(),
        "load": {"before": before, "after": after, "stolen": environment.stolen(before, after)},
        "seconds": time.perf_counter() - began,
        "jobs": jobs,
        "over_large": means,
        "aims": judge(jobs, means),
    }


def _job(name: str, settings: Settings, make: Make, known: Sequence[Backend], say: Say) -> dict[str, Any]:
    """One network: made, chosen for, and measured again."""

    def tell(line: str) -> None:
        say(f"{name}: {line}")

    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="edgehem-bench-") as folder:
            made = make(name, Path(folder), batch=settings.batch, seed=settings.seed, say=tell)
            peers = [made.peer] if made.peer is not None else []
            with nncf.offered(made.peer_folder):
                first = _measured(made, known, settings.rounds, lambda line: tell(f"choosing: {line}"))
                second = _measured(made, [*known, *peers], settings.rounds, lambda line: tell(f"checking: {line}"))
    except (EdgehemError, ImportError, OSError) as error:
        return {"name": name, "state": "passed over", "why": str(error)}
    peer = peers[0].name if peers else None
    return {
        "name": name,
        "state": "measured",
        **compared(first, second, peer=peer),
        "no_peer": made.no_peer or second.absent.get(peer or "", ""),
        "about": made.about,
        "budget": second.budget,
        "reference": second.reference,
        "machine": msgspec.to_builtins(second.machine),
        "peer_version": peers[0].version() if peers else None,
        "absent": {engine: why for engine, why in second.absent.items() if engine != peer},
        "seconds": time.perf_counter() - began,
    }


def _measured(made: Made, engines: Sequence[Backend], rounds: int, say: Say) -> Record:
    """What ``edgehem compile`` would find; nothing is kept."""
    from edgehem.export.compile import compile_bundle

    return compile_bundle(made.bundle, probes=made.probes, engines=engines, rounds=rounds, keep=False, say=say)


def compared(first: Record, second: Record, *, peer: str | None) -> dict[str, Any]:
    """Two measurements of one network: what the first chose, and how that fares in the second.

    Parameters
    ----------
    first : Record
        Without the peer.
    second : Record
    peer : str or None
        Name of the engine that is no candidate; it counts on the float graph alone, which it quantises itself.

    Returns
    -------
    dict
        ``rows``; ``chosen``, ``best`` and ``peer`` (indices of rows, or None); ``best_over_chosen``,
        ``peer_over_chosen`` and ``chosen_times`` (a value with an interval, or None).
    """
    choice = first.choice
    rows = [
        _row(each, peer=each.engine == peer)
        for each in second.candidates
        if each.engine != peer or each.form == "float"
    ]
    wanted = (choice.engine, choice.graph, choice.arithmetic)
    chosen = next(index for index, row in enumerate(rows) if _key(row) == wanted)
    best = _fastest(rows, lambda row: not row["peer"] and not row["passed_over"])
    beside = _fastest(rows, lambda row: bool(row["peer"]))
    at = rows[chosen]
    holds = at["times"] is not None and not at["passed_over"]
    times = at["times"] if holds else None
    return {
        "rows": rows,
        "chosen": chosen,
        "chosen_by": {"times": choice.ratio, "ms": choice.median_ms},
        "best": best,
        "peer": beside,
        "chosen_times": _interval(times) if times else None,
        "best_over_chosen": over(rows[best]["times"], times) if times and best is not None else None,
        "peer_over_chosen": over(rows[beside]["times"], times) if times and beside is not None else None,
        "why_not_held": "" if holds else at["passed_over"] or "not timed",
    }


def _row(each: Candidate, *, peer: bool) -> dict[str, Any]:
    """A line of the table."""
    return {
        "engine": each.engine,
        "graph": each.graph,
        "form": "its own int8" if peer else each.form,
        "arithmetic": each.arithmetic,
        "open_ms": each.open_ms,
        "ms": each.median_ms,
        "times": None if each.ratio is None else list(each.ratio),
        "sqnr_db": each.sqnr_db,
        "fidelity_db": each.fidelity_db,
        # The gate asks what an engine made of the graph it got; a peer that quantises makes another one on purpose.
        "passed_over": "" if peer and each.ratio is not None else each.passed_over,
        "peer": peer,
    }


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["engine"], row["graph"], row["arithmetic"]


def _fastest(rows: Sequence[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> int | None:
    there = [index for index, row in enumerate(rows) if row["times"] is not None and wanted(row)]
    return max(there, key=lambda index: float(rows[index]["times"][1]), default=None)


def over(one: Quartiles, other: Quartiles) -> dict[str, float]:
    """How much faster one is than the other, both told in times as fast as a third: from quartile to quartile."""
    if list(one) == list(other):
        return {"value": 1.0, "low": 1.0, "high": 1.0}
    return {"value": one[1] / other[1], "low": one[0] / other[2], "high": one[2] / other[0]}


def _interval(quartiles: Quartiles) -> dict[str, float]:
    return {"value": quartiles[1], "low": quartiles[0], "high": quartiles[2]}


def geometric_mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of values with their intervals, end by end."""
    return {
        key: math.exp(sum(math.log(value[key]) for value in values) / len(values)) for key in ("value", "low", "high")
    }


def over_large(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Geometric means over the large networks that were measured; None where there are none."""
    large = [job for job in jobs if job["name"] in LARGE and job.get("chosen_times")]
    beside = [job for job in large if job["peer_over_chosen"]]
    return {
        "networks": [job["name"] for job in large],
        "chosen_times": geometric_mean([job["chosen_times"] for job in large]) if large else None,
        "networks_with_peer": [job["name"] for job in beside],
        "peer_times": geometric_mean([_interval(job["rows"][job["peer"]]["times"]) for job in beside])
        if beside
        else None,
        "peer_over_chosen": geometric_mean([job["peer_over_chosen"] for job in beside]) if beside else None,
    }


def judge(jobs: Sequence[Mapping[str, Any]], means: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every aim, as measured."""
    found = [
        _judged(LARGE_JOB, FASTER, means["chosen_times"]),
        _judged(LARGE_JOB, NEAR_PEER, means["peer_over_chosen"]),
    ]
    return found + [_judged(job["name"], NEAR_BEST, job.get("best_over_chosen")) for job in jobs]


def _judged(job: str, aim: Aim, measured: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        "job": job,
        "aim": aim.words,
        "bound": aim.bound,
        "measured": measured,
        "verdict": aim.verdict(measured["low"], measured["high"]) if measured else "not measured",
    }
