"""What a machine with an NVIDIA GPU shows of the engines; ``benchmarks/gpu.sh`` runs all of it, one process each.

    probe     what is here; exit code 3 and one sentence where there is no GPU
    names     the engines that run on a GPU, one a line
    tests     the tests with a mark; to have skipped all of them is not to have passed
    engine    one engine with every graph it takes: correct first, then timed on fresh inputs
    device    raw slices to outputs on the device, beside the same engine fed from host arrays
    cold      whole ``edgehem triage`` processes of one study
    warm      whole studies in one process, the model loaded
    summary   a table and a record of what gpu.sh ran

Exit code 0; 1 where something is wrong; 3 where it cannot be run here, and the last line on standard error says why.
No time is told of an engine whose answers are not those of its graph.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem import jetson, kernels
from edgehem.backends import F16, Backend, Build, DeviceSession, Options, Session, engines
from edgehem.backends.onnxruntime import OnnxRuntime, OnnxRuntimeSession
from edgehem.benchmarks.gpu_run import NotHereError, WrongError, probe, summarise, tests
from edgehem.bundle import HALF_FORMS, Bundle, Graph, find
from edgehem.errors import BackendError
from edgehem.machine import usable_cpus
from edgehem.phantom import Protocol, draw_bleeds, make_case
from edgehem.preprocess import Placed, place
from edgehem.volume import Volume

RESULT = "edgehem.gpu-engines/1"
WRONG, NOT_HERE = 1, 3
ON_CPU = frozenset({"onnxruntime", "openvino"})
HEADS, ROUNDS, WARM_UP = 8, 40, 5
VOXEL_MM = 3.0
"""Coarse heads, made in seconds: what counts is that all are asked the same."""
PROTOCOL = Protocol(slices=40)
COLD_RUNS = 3

Array = npt.NDArray[Any]
Outputs = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Head:
    """A phantom study with the model's grid on it, and what the host would feed an engine."""

    volume: Volume
    placed: Placed


# What is asked


def heads(bundle: Bundle, count: int) -> list[Head]:
    """Different heads, every other one with a hemorrhage."""
    made = []
    for seed in range(count):
        bleeds = draw_bleeds(seed, smallest_ml=20.0) if seed % 2 else ()
        volume = make_case(seed, bleeds=bleeds, protocol=PROTOCOL, voxel_mm=VOXEL_MM).volume
        made.append(Head(volume=volume, placed=place(volume, bundle.manifest.preprocess)))
    return made


def fresh(volume: Volume) -> Volume:
    """The same pixels in memory that no run has seen."""
    return replace(volume, pixels=volume.pixels.copy())


def host_inputs(bundle: Bundle, graph: Graph, head: Head) -> dict[str, Array]:
    """What an engine reads from the host, by the graph's names."""
    windows = bundle.manifest.preprocess.kernel_windows
    if graph.form in HALF_FORMS:
        windows = replace(windows, dtype="float16")
    image = kernels.preprocess(head.volume, head.placed.target, windows, threads=usable_cpus())[None]
    made: dict[str, Array] = {"image": image, "valid": head.placed.valid}
    return {name: made[kind] for kind, name in bundle.manifest.inputs.items()}


def taken(engine: Backend, bundle: Bundle) -> list[tuple[Graph, str]]:
    """The graphs of a bundle that an engine takes, each in every arithmetic it has for it."""
    return [
        (graph, arithmetic)
        for graph in bundle.manifest.graphs
        if graph.form in engine.forms
        for arithmetic in ((F16,) if graph.form in HALF_FORMS else engine.arithmetics())
    ]


def opened(engine: Backend, bundle: Bundle, graph: Graph, arithmetic: str) -> tuple[Session, float]:
    """A session, built here where the engine needs a plan, and the seconds that took. Nothing is kept."""
    begun = time.perf_counter()
    session = engine.open(
        bundle.read(graph), Options(arithmetic=arithmetic, bundle=bundle.sha256, build=Build(say=_say))
    )
    return session, time.perf_counter() - begun


# What is right


def truth(bundle: Bundle, graph: Graph, asked: Sequence[Head]) -> list[Outputs]:
    """What a graph says as it is written: ONNX Runtime on the CPU, without optimisation."""
    session = OnnxRuntimeSession(bundle.read(graph), Options(optimise=False))
    return [session.run(host_inputs(bundle, graph, head)) for head in asked]


def judged(bundle: Bundle, expected: Sequence[Outputs], found: Sequence[Outputs], what: str) -> dict[str, float]:
    """How far answers are from the truth.

    Raises
    ------
    WrongError
        If they are further than ``edgehem compile`` would let pass.
    """
    from edgehem.errors import BundleError
    from edgehem.export.contender import FIDELITY_DB
    from edgehem.export.deviation import compare

    try:
        apart = compare(expected, found, bundle.manifest.heads)
    except BundleError as error:
        raise WrongError(f"{what}: {error}") from error
    if apart.fidelity_db < FIDELITY_DB:
        raise WrongError(
            f"{what} is {apart.fidelity_db:.1f} dB from its graph as ONNX Runtime runs it on the CPU, "
            f"and {FIDELITY_DB:g} are asked for: nothing was timed"
        )
    return asdict(apart)


# What is measured


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median and 95th percentile, and how many there are."""
    middle, late = np.percentile(np.asarray(seconds) * 1e3, (50, 95))
    return {"p50_ms": float(middle), "p95_ms": float(late), "count": len(seconds)}


def engine(name: str, bundle: Bundle, *, count: int = HEADS, rounds: int = ROUNDS) -> dict[str, Any]:
    """One engine with every graph it takes, beside ONNX Runtime's float graph on the CPU in the same rounds.

    A graph that cannot be opened, or that gives wrong answers, says so in its row and has no times.

    Raises
    ------
    NotHereError
        If the engine cannot be used, or takes no graph of the bundle.
    """
    chosen = _engine(name)
    pairs = taken(chosen, bundle)
    if not pairs:
        raise NotHereError(f"{name} takes none of the bundle's graphs ({', '.join(chosen.forms)})")
    asked = heads(bundle, count)
    base_graph = next(graph for graph in bundle.manifest.graphs if graph.form == "float")
    base = OnnxRuntime().open(bundle.read(base_graph))
    base_inputs = [host_inputs(bundle, base_graph, head) for head in asked]
    rows: list[dict[str, Any]] = []
    for graph, arithmetic in pairs:
        what = f"{name} {graph.file} {arithmetic}"
        row: dict[str, Any] = {"graph": graph.file, "form": graph.form, "arithmetic": arithmetic, "why_not": ""}
        rows.append(row)
        _say(f"{what}: opening")
        try:
            session, row["open_s"] = opened(chosen, bundle, graph, arithmetic)
            inputs = [host_inputs(bundle, graph, head) for head in asked]
            found = [session.run(given) for given in inputs]
            row["apart"] = judged(bundle, truth(bundle, graph, asked), found, what)
        except (BackendError, WrongError) as error:
            row["why_not"] = str(error)  # the next graph may do
            continue
        row["run"], row["cpu_f32"] = in_turns((session, inputs), (base, base_inputs), rounds)
        _say(f"{what}: {row['run']['p50_ms']:.2f} ms, {row['apart']['fidelity_db']:.0f} dB")
    return _result("engine", bundle, engine=name, version=chosen.version(), rounds=rounds, heads=count, rows=rows)


Fed = tuple[Session, Sequence[dict[str, Array]]]
"""A session, and what it is asked."""


def in_turns(own: Fed, other: Fed, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Two sessions, each on new arrays every time: what came from the same memory before may still lie in a cache."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + WARM_UP):
        for (session, asked), kept in zip((own, other), times, strict=True):
            copied = {name: value.copy() for name, value in asked[number % len(asked)].items()}
            begun = time.perf_counter()
            session.run(copied)
            kept.append(time.perf_counter() - begun)
    return spread(times[0][WARM_UP:]), spread(times[1][WARM_UP:])


def device(name: str, bundle: Bundle, *, count: int = HEADS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Raw slices to outputs: all on the device, beside preprocessing on the CPU and a copy up, study by study in turns.

    Both begin with the grid placed and end with outputs in the host's memory.

    Raises
    ------
    NotHereError
        If the engine cannot be used, or its sessions do not preprocess.
    """
    chosen = _engine(name)
    pairs = taken(chosen, bundle)
    if not pairs:
        raise NotHereError(f"{name} takes none of the bundle's graphs ({', '.join(chosen.forms)})")
    asked = heads(bundle, count)
    rows: list[dict[str, Any]] = []
    for graph, arithmetic in pairs:
        row: dict[str, Any] = {"graph": graph.file, "form": graph.form, "arithmetic": arithmetic, "why_not": ""}
        rows.append(row)
        try:
            session, _ = opened(chosen, bundle, graph, arithmetic)
            if not isinstance(session, DeviceSession):
                raise NotHereError(f"{name} is fed from the host: it has no device path")
            row |= both_ways(bundle, graph, session, asked, rounds)
        except (BackendError, WrongError) as error:
            row["why_not"] = str(error)
            continue
        _say(f"{graph.file} {arithmetic}: {row['device']['p50_ms']:.2f} ms, {row['host']['p50_ms']:.2f} from the host")
    return _result("device", bundle, engine=name, version=chosen.version(), rounds=rounds, heads=count, rows=rows)


def both_ways(
    bundle: Bundle, graph: Graph, session: DeviceSession, asked: Sequence[Head], rounds: int
) -> dict[str, Any]:
    """A graph's row: how right both ways are, and their times.

    Raises
    ------
    WrongError
        If either gives wrong answers, or they do not agree.
    """
    image = bundle.manifest.inputs["image"]
    windows = bundle.manifest.preprocess.kernel_windows

    def on_device(head: Head) -> tuple[Outputs, Any]:
        made = {"valid": head.placed.valid}
        others = {name: made[kind] for kind, name in bundle.manifest.inputs.items() if kind in made}
        return session.analyse(head.volume, head.placed.target, windows, image=image, inputs=others)

    def from_host(head: Head) -> Outputs:
        return session.run(host_inputs(bundle, graph, head))

    expected = truth(bundle, graph, asked)
    here, there = [on_device(head)[0] for head in asked], [from_host(head) for head in asked]
    what = graph.file
    row: dict[str, Any] = {
        "apart": judged(bundle, expected, here, f"{what} on the device"),
        "apart_from_host": judged(bundle, expected, there, f"{what} from the host"),
        # The kernels give the same bits on both sides, so the engine sees the same input.
        "ways_agree": judged(bundle, there, here, f"{what}, one way beside the other")["fidelity_db"],
    }
    walls: list[float] = []
    beside: list[float] = []
    marks: list[Any] = []
    for number in range(rounds + WARM_UP):
        head = asked[number % len(asked)]
        first, second = (replace(head, volume=fresh(head.volume)) for _ in range(2))
        begun = time.perf_counter()
        _, mark = on_device(first)
        walls.append(time.perf_counter() - begun)
        marks.append(mark)
        begun = time.perf_counter()
        from_host(second)
        beside.append(time.perf_counter() - begun)
    kept = marks[WARM_UP:]
    row |= {
        "device": spread(walls[WARM_UP:]),
        "host": spread(beside[WARM_UP:]),
        "on_device_ms": {
            part: float(np.median([getattr(mark, part) for mark in kept]))
            for part in ("preprocess_ms", "infer_ms", "fetch_ms")
        },
    }
    return row


def cold(study: Path, backend: str, *, runs: int = COLD_RUNS) -> dict[str, Any]:
    """Whole processes, from the shell's point of view.

    Raises
    ------
    WrongError
        If one of them fails or refuses the study.
    """
    command = [sys.executable, "-m", "edgehem.cli", "triage", str(study), "--backend", backend, "--json"]
    times, verdicts = [], []
    for _ in range(runs):
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - begun)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-400:]
            raise WrongError(f"edgehem triage ended with {done.returncode}: {said}")
        verdicts.append(json.loads(done.stdout)["verdict"])
    return {"schema": RESULT, "kind": "cold", "backend": backend, "verdicts": verdicts, "process": spread(times)}


def warm(study: Path, backend: str, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Whole studies from the folder to the verdict, in one process.

    Raises
    ------
    WrongError
        If the study is refused, or another engine served.
    """
    import edgehem

    model = edgehem.load("hemorrhagenet", backend=backend)
    times, stages = [], []
    for number in range(rounds + WARM_UP):
        begun = time.perf_counter()
        result = model.triage(edgehem.read_study(study))
        if number >= WARM_UP:
            times.append(time.perf_counter() - begun)
            stages.append(dict(result.timings_ms))
        if result.bundle is None or result.bundle.backend != backend or not result.findings:
            codes = ", ".join(code.value for code in result.codes)
            raise WrongError(f"{backend} did not answer: {result.verdict.value} {codes}")
    names = sorted({name for stage in stages for name in stage})
    medians = {name: float(np.median([stage[name] for stage in stages if name in stage])) for name in names}
    return {"schema": RESULT, "kind": "warm", "backend": backend, "study": spread(times), "stages_ms": medians}


def _engine(name: str) -> Backend:
    chosen = next((each for each in engines() if each.name == name), None)
    if chosen is None:
        raise NotHereError(f"edgehem has no engine {name}")
    if why_not := chosen.missing():
        raise NotHereError(f"{name}: {why_not}")
    if getattr(chosen, "dla_core", None) is not None and not ((board := jetson.look()) and board.dla):
        raise NotHereError(f"{name}: the kernel shows no deep learning accelerator")
    return chosen


def _result(kind: str, bundle: Bundle, **more: Any) -> dict[str, Any]:
    of = {"name": bundle.manifest.name, "version": bundle.manifest.version, "sha256": bundle.sha256}
    return {"schema": RESULT, "kind": kind, "bundle": of, **more}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[[argparse.Namespace], Any], *takes: str) -> None:
        sub = commands.add_parser(name)
        sub.set_defaults(run=run)
        for take in takes:
            sub.add_argument(take, type=Path if take in ("study", "steps", "machine", "out") else str)

    command("probe", lambda given: probe())
    command("names", lambda given: [each.name for each in engines() if each.name not in ON_CPU])
    command("tests", lambda given: {"schema": RESULT, "kind": "tests", "passed": tests(given.mark)}, "mark")
    command("engine", lambda given: engine(given.name, find("hemorrhagenet")), "name")
    command("device", lambda given: device(given.name, find("hemorrhagenet")), "name")
    command("cold", lambda given: cold(given.study, given.name), "study", "name")
    command("warm", lambda given: warm(given.study, given.name), "study", "name")
    command("summary", lambda given: summarise(given.steps, given.machine, given.out), "steps", "machine", "out")
    given = parser.parse_args(arguments)
    try:
        said = given.run(given)
    except NotHereError as error:
        _say(f"{error}.")
        return NOT_HERE
    except (WrongError, BackendError) as error:
        _say(f"{error}.")
        return WRONG
    lines = said if isinstance(said, list) else [json.dumps(said, indent=1, allow_nan=False)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    wrong = [row["why_not"] for row in said.get("rows", ()) if row["why_not"]] if isinstance(said, dict) else []
    if wrong:
        _say(f"{len(wrong)} of {len(said['rows'])} graphs: {'; '.join(wrong)}.")
    return WRONG if wrong or (isinstance(said, dict) and said.get("failed")) else 0


if __name__ == "__main__":
    sys.exit(main())
