"""``edgehem bench pipelines``: from a folder of slices to a network's logits, beside what others would write.

The same network for all. Every contender is a process of its own, and all take turns, a study each a round. Who does
not compute the same is not timed: see :func:`edgehem.benchmarks.pipelines.agreement.compared`.

What is handed to whom. edgehem finds the head by itself. The others are handed the grid, so they do less: the one that
edgehem finds, moved by at most half a voxel, so that a resampling by spacing alone, as MONAI's ``Spacingd``, can hit
it. Their tensors are held against NumPy's definition of trilinear sampling on that grid, edgehem's against that of its
own, antialiased one. Series are axial, even and not tilted: the others would be wrong about all else.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgehem.benchmarks import environment, timing
from edgehem.benchmarks.aims import Aim
from edgehem.benchmarks.child import QUIET_S, Child, ChildError
from edgehem.benchmarks.pipelines import network as pipelines_network
from edgehem.benchmarks.pipelines.agreement import CLOSE, FLOAT_DB, INT8_DB, SHARE, Expected, compared, written
from edgehem.benchmarks.pipelines.contender import FLOOR, Choice, Contender, Job, Study
from edgehem.benchmarks.pipelines.listing import BASELINE, CONTENDERS, DEFAULT, TUNED
from edgehem.benchmarks.pipelines.network import Made
from edgehem.machine import usable_cpus

WORKER = "edgehem.benchmarks.pipelines.worker"
SCHEMA = "edgehem.bench.pipelines/1"

ROUNDS, QUICK_ROUNDS = 15, 3
OVERHEAD_ROUNDS, QUICK_OVERHEAD_ROUNDS = 40, 5
SLICES, MATRIX, STUDIES = 40, 512, 3

FASTER_DEFAULT = Aim(words="at least 6 x faster than torch + MONAI, default", library=DEFAULT, bound=6.0)
FASTER_TUNED = Aim(words="at least 4 x faster than torch + MONAI, tuned", library=TUNED, bound=4.0)
OVERHEAD = Aim(words="a session at most 3 % over the bare call", library="", bound=1.03, at_most=True)

Say = Callable[[str], None]
Make = Callable[..., Made]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Parameters
    ----------
    rounds : int
        Times each contender analyses a study.
    overhead_rounds : int
        Times a session and the bare call are timed beside each other.
    slices, matrix : int
        Of every study.
    studies : int
        That rounds go through in turn.
    seed : int
        Of weights, heads and orders.
    """

    rounds: int = ROUNDS
    overhead_rounds: int = OVERHEAD_ROUNDS
    slices: int = SLICES
    matrix: int = MATRIX
    studies: int = STUDIES
    seed: int = 0


def pipelines(
    *,
    rounds: int | None = None,
    slices: int | None = None,
    quick: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measure; see ``edgehem bench pipelines --help``."""
    settings = Settings(
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        overhead_rounds=QUICK_OVERHEAD_ROUNDS if quick else OVERHEAD_ROUNDS,
        slices=slices or SLICES,
    )
    return run(settings, say=say)


def run(
    settings: Settings,
    *,
    contenders: Sequence[Contender] = CONTENDERS,
    make: Make = pipelines_network.make,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measure.

    Parameters
    ----------
    settings : Settings
    contenders : sequence of Contender
    make : callable
        By default :func:`edgehem.benchmarks.pipelines.network.make`.
    say : callable
        Gets a line for each step.

    Returns
    -------
    dict
        Plain values (schema ``edgehem.bench.pipelines/1``), ready for JSON, with every time in ns.

    Raises
    ------
    MissingExtraError
        If the network cannot be made.
    """
    before, began = environment.load(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="edgehem-bench-") as scratch, contextlib.ExitStack() as stack:
        made = make(Path(scratch), seed=settings.seed, rounds=settings.rounds, say=say)
        say("writing studies")
        expected = Expected(
            made,
            list(
                written(
                    Path(scratch) / "studies",
                    settings.studies,
                    made.bundle.manifest.preprocess,
                    slices=settings.slices,
                    matrix=settings.matrix,
                    seed=settings.seed,
                )
            ),
        )
        entries, children = [], {}
        for contender in contenders:
            say(f"checking {contender.name}")
            entry, child = _admitted(contender, made, expected, Path(scratch), stack)
            entries.append(entry)
            if child is not None:
                children[contender.name] = child
        _time(entries, children, expected.studies, settings, say)
        say("measuring what a session adds to the bare call")
        for entry in entries:
            if entry["name"] in children and entry["role"] == FLOOR:
                entry["overhead"] = _overhead(children[entry["name"]], expected.studies[0], settings.overhead_rounds)
        for entry in entries:
            if entry["name"] in children:
                entry["peak_bytes"] = children[entry["name"]].ask(do="end")["peak_bytes"]
    after = environment.load()
    return {
        "schema": SCHEMA,
        "settings": {**asdict(settings), "warm_up": timing.WARM_UP, "threads": usable_cpus()},
        "environment": environment.describe(),
        "load": {"before": before, "after": after, "stolen": environment.stolen(before, after)},
        "seconds": time.perf_counter() - began,
        "network": made.about,
        "choices": {name: msgspec.to_builtins(choice) for name, choice in made.choices.items()},
        "tolerances": {"close": CLOSE, "share": SHARE, "float_db": FLOAT_DB, "int8_db": INT8_DB},
        "grids": expected.grids,
        "contenders": entries,
        "aims": judge(entries),
    }


def _admitted(
    contender: Contender, made: Made, expected: Expected, scratch: Path, stack: contextlib.ExitStack
) -> tuple[dict[str, Any], Child | None]:
    """Start a contender and hold its answers against what is expected; without a child where it may not be timed."""
    choice = made.choices.get(contender.choice)
    entry: dict[str, Any] = {
        "name": contender.name,
        "title": contender.title,
        "role": contender.role,
        "how": contender.how,
        "versions": {name: found for name in contender.distributions if (found := environment.version(name))},
        "served": choice.words if choice else "",
        "state": "timed",
    }
    if contender.choice and choice is None:
        return entry | {"state": "passed over", "why": f"no graph of {contender.choice} may be chosen here"}, None
    child = stack.enter_context(Child(WORKER, variables=contender.variables))
    try:
        job = msgspec.to_builtins(_job(made, choice))
        if why := child.ask(do="prepare", where=contender.where, job=job).get("passed_over"):
            return entry | {"state": "passed over", "why": why}, None
        shown = []
        for study in expected.studies:
            file = scratch / "answer.npz"
            child.ask(do="show", study=msgspec.to_builtins(study), out=str(file))
            with np.load(file, allow_pickle=False) as stored:
                shown.append({name: stored[name] for name in stored.files})
        entry["agreement"] = compared(shown, expected.of(contender), int8=contender.int8)
    except ChildError as error:  # a library of another version than this was written for ends its own part only
        return entry | {"state": "passed over", "why": f"failed: {error}"}, None
    if why := entry["agreement"]["why_not"]:
        return entry | {"state": "DISAGREES", "why": why}, None
    return entry, child


def _job(made: Made, choice: Choice | None) -> Job:
    spec = made.bundle.manifest.preprocess
    return Job(
        shape=spec.shape,
        spacing_mm=spec.spacing_mm,
        windows=spec.windows,
        outputs=made.outputs,
        bundle=str(made.bundle.folder),
        graph=str(made.bundle.folder / made.graph),
        weights=str(made.weights),
        nncf=str(made.nncf or ""),
        no_nncf=made.no_nncf,
        choice=choice,
        threads=usable_cpus(),
    )


def _time(
    entries: Sequence[dict[str, Any]],
    children: dict[str, Child],
    studies: Sequence[Study],
    settings: Settings,
    say: Say,
) -> None:
    """Take turns; a contender that fails on the way is taken out."""
    if not children:
        return
    by_name = {entry["name"]: entry for entry in entries}
    own: dict[str, list[int]] = {name: [] for name in children}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    failed: dict[str, str] = {}
    number = 0

    def turn(name: str) -> Callable[[Study], object]:
        def take(study: Study) -> None:
            if name in failed:
                return
            try:
                reply = children[name].ask(do="round", study=msgspec.to_builtins(study))
            except ChildError as error:
                failed[name] = str(error)
                return
            # By the contender's own clock: the way there and back is not its own.
            own[name].append(reply["ns"])
            stages[name].append(reply["stages_ms"])

        return take

    def fresh() -> Study:
        nonlocal number
        number += 1
        return studies[(number - 1) % len(studies)]

    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        say(f"round {done} of {settings.rounds}")

    timing.interleave(
        {name: turn(name) for name in children},
        fresh,
        rounds=settings.rounds,
        rng=np.random.default_rng(settings.seed),
        sweep=lambda: time.sleep(QUIET_S),
        progress=progress,
    )
    for name, why in failed.items():
        by_name[name] |= {"state": "passed over", "why": f"failed: {why}"}
        del children[name]
    reference = own[BASELINE][timing.WARM_UP :] if BASELINE in children else None
    for name in children:
        entry, ns = by_name[name], own[name][timing.WARM_UP :]
        low, middle, high = timing.quartiles(ns)
        entry |= {"ms": middle, "quartiles_ms": [low, high], "ns": ns}
        counted = stages[name][timing.WARM_UP :]
        entry["stages_ms"] = {key: float(np.median([one[key] for one in counted])) for key in counted[0]}
        if reference is not None:
            entry["over_ours"] = asdict(timing.ratio(ns, reference))


def _overhead(child: Child, study: Study, rounds: int) -> dict[str, Any] | None:
    """edgehem's session over the library's bare call, on one tensor, by turns in one process."""
    try:
        taken = child.ask(do="overhead", study=msgspec.to_builtins(study), rounds=rounds)
    except ChildError as error:
        return {"why_not": str(error)}
    if not taken:
        return None
    return {
        "session_ms": timing.quartiles(taken["session"])[1],
        "bare_ms": timing.quartiles(taken["bare"])[1],
        "ratio": asdict(timing.ratio(taken["session"], taken["bare"])),
        "ns": taken,
    }


def judge(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every aim, as measured."""
    timed = {entry["name"]: entry for entry in entries if entry["state"] == "timed"}
    found = [(aim, aim.library, timed.get(aim.library, {}).get("over_ours")) for aim in (FASTER_DEFAULT, FASTER_TUNED)]
    floors = [entry for entry in timed.values() if "ratio" in (entry.get("overhead") or {})]
    found += [(OVERHEAD, entry["served"], entry["overhead"]["ratio"]) for entry in floors]
    if not floors:
        found.append((OVERHEAD, "", None))
    return [
        {
            "job": "pipelines",
            "aim": aim.words,
            "bound": aim.bound,
            "contender": name,
            "measured": measured,
            "verdict": aim.verdict(measured["low"], measured["high"]) if measured else "not measured",
        }
        for aim, name, measured in found
    ]
