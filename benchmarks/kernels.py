"""``edgehem bench kernels``: the preprocessing pass beside a memcpy and beside its peers, in one run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgehem.benchmarks import agreement, environment, growth, ours, peers, timing
from edgehem.benchmarks.aims import judge
from edgehem.benchmarks.case import JOBS, Case, Job
from edgehem.benchmarks.contender import Contender, Pass, PassedOverError
from edgehem.benchmarks.memcpy import Copy
from edgehem.kernels.types import DTYPES

SCHEMA = "edgehem.bench.kernels/1"

ROUNDS, QUICK_ROUNDS, LEAST_GROWTH_ROUNDS = 30, 5, 5
STACKS_TO_AGREE_ON = 2
"""A contender that answered the second stack with the first one's numbers would be found out."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    rounds : int
    threads : int
        For every contender.
    quick : bool
        Only the ends of the growth.
    growth : bool
    seed : int
        Of the stacks and of the orders.
    case : Case
    """

    rounds: int = ROUNDS
    threads: int = 2
    quick: bool = False
    growth: bool = True
    seed: int = 0
    case: Case = field(default_factory=Case)


def run(
    settings: Settings,
    *,
    jobs: Sequence[Job] = JOBS,
    contenders: Callable[[Job], tuple[Contender, ...]] | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    settings : Settings
    jobs : sequence of Job
    contenders : callable, optional
        Who takes part in a job; by default edgehem and every peer.
    progress : callable
        Told how many steps of how many are done.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.kernels/1``), ready for JSON, with every time in ns.
    """
    rng = np.random.default_rng(settings.seed)
    case, sweep = settings.case, timing.Sweep(environment.largest_cache())
    growing = settings.growth and not ours.missing()
    total = len(jobs) * (settings.rounds + 1) + (len(growth.points(case, quick=settings.quick)) if growing else 0)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    before, began = environment.load(), time.perf_counter()
    found = []
    for job in jobs:
        who = contenders(job) if contenders else (*ours.contenders(job), *peers.contenders(job))
        found.append(_job(job, who, settings, rng, sweep, step))
    grown = []
    if growing:
        rounds = max(settings.rounds // 3, LEAST_GROWTH_ROUNDS)
        for point in growth.measure(
            case, quick=settings.quick, rounds=rounds, threads=settings.threads, rng=rng, sweep=sweep
        ):
            grown.append(point)
            step()
    after = environment.load()
    return {
        "schema": SCHEMA,
        "settings": {
            "rounds": settings.rounds,
            "warm_up": timing.WARM_UP,
            "threads": settings.threads,
            "quick": settings.quick,
            "seed": settings.seed,
            "swept_bytes": sweep.bytes,
        },
        "environment": environment.describe(),
        "load": {"before": before, "after": after, "stolen": environment.stolen(before, after)},
        "seconds": time.perf_counter() - began,
        "case": asdict(case) | {"bytes_moved": {dtype: case.bytes_moved(dtype) for dtype in DTYPES}},
        "jobs": found,
        "growth": grown,
        "aims": [aim for job in found for aim in judge(job)],
    }


def _job(
    job: Job,
    contenders: tuple[Contender, ...],
    settings: Settings,
    rng: np.random.Generator,
    sweep: Callable[[], None],
    step: Callable[[], None],
) -> dict[str, Any]:
    """One job: who agrees, then how long each takes."""
    case, threads = settings.case, settings.threads
    fresh = case.stacks(rng)
    entries, passes = _admit(job, contenders, settings, rng)
    step()
    floors = {f"memcpy-{dtype}": Copy(case.bytes_moved(dtype), threads) for dtype in DTYPES}
    taken = timing.interleave({**passes, **floors}, fresh, rounds=settings.rounds, rng=rng, sweep=sweep, progress=step)
    for dtype in DTYPES:
        how = f"{threads} threads, {case.bytes_moved(dtype) / growth.MB:.1f} MB read and written"
        entries.append({"name": f"memcpy-{dtype}", "library": "memcpy", "how": how, "state": "timed"})
    reference = taken.get(ours.REFERENCE)
    for entry in entries:
        if (ns := taken.get(entry["name"])) is not None:
            low, middle, high = timing.quartiles(ns)
            entry |= {"ms": middle, "quartiles_ms": [low, high], "ns": ns}
            if reference is not None:
                entry["over_ours"] = asdict(timing.ratio(ns, reference))
        if entry["library"] == "edgehem" and entry["name"] in taken:
            floor = taken[f"memcpy-{entry['dtype']}"]
            entry["over_memcpy"] = asdict(timing.ratio(taken[entry["name"]], floor))
    start, steps = case.start_and_step(job)
    return {"name": job.name, "what": job.what, "grid_start": start, "grid_step": steps, "contenders": entries}


def _admit(
    job: Job, contenders: tuple[Contender, ...], settings: Settings, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], dict[str, Pass]]:
    """Who is here and agrees with the oracle: an entry for each, and the passes of those that may be timed."""
    case, passes, entries = settings.case, {}, []
    fresh = case.stacks(rng)
    stacks = [fresh() for _ in range(STACKS_TO_AGREE_ON)]
    truths = {dtype: [ours.truth(case, job, stack, dtype) for stack in stacks] for dtype in DTYPES}
    for contender in contenders:
        entry: dict[str, Any] = {
            "name": contender.name,
            "library": contender.library,
            "how": contender.how,
            "dtype": contender.dtype,
            "state": "timed",
        }
        entries.append(entry)
        try:
            do = contender.make(case, job, settings.threads)
            answers = (do(stack) for stack in stacks)
            compared = [
                agreement.compare(contender, answer, truth, case)
                for answer, truth in zip(answers, truths[contender.dtype], strict=True)
            ]
        except PassedOverError as error:
            entry |= {"state": "passed over", "why": str(error)}
            continue
        except ModuleNotFoundError as error:
            entry |= {"state": "passed over", "why": f"{error.name} is not installed"}
            continue
        except Exception as error:  # a library of another version than this was written for ends its own part only
            entry |= {"state": "passed over", "why": f"failed: {type(error).__name__}: {error}"}
            continue
        finally:
            entry["version"] = getattr(sys.modules.get(contender.module), "__version__", None)
        verdict = agreement.worst(compared)
        entry["agreement"] = asdict(verdict)
        if verdict.agrees:
            passes[contender.name] = do
        else:
            entry |= {"state": "DISAGREES", "why": verdict.why_not}
    return entries, passes
