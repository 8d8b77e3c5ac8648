"""What ``edgehem compile`` does: measures every engine, graph and arithmetic here, and keeps the fastest that is true.

Needs nothing but the runtime and the engines to choose from. Each candidate runs in a child process of its own, since
an engine may hang or crash on a graph; it is asked for its answers first, and timed in turns with all others.
"""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem import backends, device
from edgehem.backends import F16, F32, OPEN_S, Backend, Build, Options
from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.bundle import HALF_FORMS, Bundle, Graph
from edgehem.device import Record
from edgehem.errors import BackendError, BudgetError, BundleError, PlanError, UsageError
from edgehem.export.contender import FIDELITY_DB, MOST_FLIPS, SHIFT_FLOAT, SHIFT_INT8, Contender, Say, time_all
from edgehem.export.deviation import Answers, compare
from edgehem.export.probes import Inputs, Probes, draw_probes
from edgehem.export.trial import Trial
from edgehem.plans import PlanStore

ROUNDS = 15
REFERENCE = "onnxruntime, float graph, f32, not optimised"
BASELINE_ENGINE = "onnxruntime"


def compile_bundle(
    bundle: Bundle,
    *,
    backend: str = "auto",
    probes: Sequence[Inputs] | None = None,
    engines: Sequence[Backend] | None = None,
    rounds: int = ROUNDS,
    patience_s: float | None = None,
    build: Build | None = None,
    keep: bool = True,
    say: Say | None = None,
) -> Record:
    """Measure a bundle on this machine.

    Parameters
    ----------
    bundle : Bundle
    backend : str
        ``auto`` for every engine that is installed, or the name of the only one that may be chosen.
    probes : sequence of inputs, optional
        By the graph's names; phantoms by default (:mod:`edgehem.export.probes`).
    engines : sequence of Backend, optional
        By default those that edgehem knows. ONNX Runtime, which the others are compared to, must be one of them.
    rounds : int
        How often each candidate is timed.
    patience_s : float, optional
        After this long an engine that still compiles is given up; each engine's own by default.
    build : Build, optional
        What engines that make plans may spend on them.
    keep : bool
        Whether to write the device file, and let engines keep what they compiled: the chosen one, and of those that
        make plans every one whose plan computes what the graph says.
    say : callable, optional
        Gets a line for each step.

    Returns
    -------
    Record

    Raises
    ------
    BackendError
        If the named engine is unknown or absent, or ONNX Runtime is.
    BundleError
        If the bundle is not what its manifest says, or its outputs are not.
    BudgetError
        If no candidate may be chosen.
    UsageError
        If the bundle has no float graph to compare with, or the device file cannot be written.
    """
    tell: Say = say or (lambda line: None)
    known = list(backends.engines() if engines is None else engines)
    present, absent = _examined(known, backend, patience_s)
    graphs = {graph: bundle.read(graph) for graph in bundle.manifest.graphs}
    base = next((graph for graph in graphs if graph.form == "float"), None)
    if base is None:
        raise UsageError(f"bundle {bundle.manifest.name} has no float graph to compare with")
    tell("making probes")
    drawn = _drawn(bundle, graphs[base], probes)
    tell("reference: every graph without optimisation")
    fed, exact = {}, {}
    for graph, content in graphs.items():
        fed[graph], exact[graph] = _unoptimised(content, drawn.inputs)
    reference = exact[base]
    if isinstance(reference, BackendError):
        raise reference
    _check_outputs(bundle, reference)
    contenders = [
        Contender(engine=engine, graph=graph, arithmetic=arithmetic)
        for graph in graphs
        for engine, arithmetics in present
        if graph.form in engine.forms
        for arithmetic in ((F16,) if graph.form in HALF_FORMS else arithmetics)
        if backend in ("auto", engine.name) or _is_baseline(engine, graph, arithmetic, base)
    ]
    build = build or Build()
    with tempfile.TemporaryDirectory(prefix="edgehem-compile-") as folder, contextlib.ExitStack() as stack:
        paths = {graph: _stored(inputs, Path(folder)) for graph, inputs in fed.items()}
        for contender in contenders:
            tell(f"opening {contender.name}")
            options = _options(bundle, contender, keep=keep, build=build)
            contender.begin(stack, graphs[contender.graph], paths[contender.graph], options, patience_s, tell)
            contender.judge(bundle, reference, exact[contender.graph])
            if backend not in ("auto", contender.engine.name):
                contender.why = contender.why or f"only {backend} was asked for"
        baseline = next(each for each in contenders if _is_baseline(each.engine, each.graph, each.arithmetic, base))
        time_all(contenders, baseline, rounds, tell)
    if not baseline.times:
        raise BackendError(f"what all is compared to does not run: {baseline.why}")
    candidates = tuple(contender.candidate(baseline) for contender in contenders)
    chosen = device.pick(candidates)
    if chosen is None:
        told = "; ".join(f"{each.name}: {each.passed_over}" for each in candidates)
        raise BudgetError(f"no candidate may be chosen for bundle {bundle.manifest.name} ({told})")
    record = Record(
        bundle=bundle.manifest.name,
        version=bundle.manifest.version,
        sha256=bundle.sha256,
        machine=device.this_machine(),
        made=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        probes=drawn.record,
        reference=REFERENCE,
        budget={
            "shift_int8": SHIFT_INT8,
            "shift_float": SHIFT_FLOAT,
            "flips": MOST_FLIPS,
            "fidelity_db": FIDELITY_DB,
            "tie": device.TIE,
        },
        candidates=candidates,
        absent=absent,
        chosen=chosen,
    )
    if keep:
        _qualify(contenders, drawn, tell)
        graph = contenders[chosen].graph
        _kept(bundle, record, contenders[chosen], graphs[graph], fed[graph], patience_s, tell)
    return record


def _options(bundle: Bundle, contender: Contender, *, keep: bool, build: Build) -> Options:
    """How a candidate is opened to be measured. Only what has to be qualified is kept before it was chosen."""
    if not contender.engine.needs_plan:
        return Options(arithmetic=contender.arithmetic)
    try:
        cache = device.plans() if keep else None
    except OSError as error:
        raise UsageError(f"plans cannot be kept: {error}") from error
    return Options(arithmetic=contender.arithmetic, cache=cache, bundle=bundle.sha256, build=build)


def _qualify(contenders: Sequence[Contender], drawn: Probes, tell: Say) -> None:
    """Let every plan serve that computes what its graph says."""
    for contender in contenders:
        found = contender.deviation
        if not contender.plan or found is None or contender.fidelity_db is None or not contender.may_serve:
            continue
        figures = {
            "shift": found.shift,
            "flips": found.flips,
            "sqnr_db": found.sqnr_db,
            "fidelity_db": contender.fidelity_db,
        }
        try:
            PlanStore(device.plans()).qualify(contender.plan, reference=REFERENCE, probes=drawn.record, figures=figures)
        except (OSError, PlanError) as error:
            raise UsageError(f"the plan of {contender.name} cannot be qualified: {error}") from error
        tell(f"qualified: the plan of {contender.name}")


def _examined(
    known: Sequence[Backend], backend: str, patience_s: float | None
) -> tuple[list[tuple[Backend, tuple[str, ...]]], dict[str, str]]:
    """The engines that are here with their arithmetics, and why the others are not."""
    names = [engine.name for engine in known]
    if backend != "auto" and backend not in names:
        raise BackendError(f"unknown backend {backend!r}; known: auto, {', '.join(names)}")
    present, absent = [], {}
    for engine in known:
        if engine.on_request and engine.name != backend:
            continue
        with Trial(engine) as trial:
            try:
                missing, arithmetics = trial.examine(patience_s=OPEN_S if patience_s is None else patience_s)
            except BackendError as error:
                missing, arithmetics = str(error), ()
        if missing:
            absent[engine.name] = missing
        else:
            present.append((engine, arithmetics))
    for name in {backend, BASELINE_ENGINE} & absent.keys():
        raise BackendError(f"no inference engine for {name!r} ({name}: {absent[name]})")
    return present, absent


def _is_baseline(engine: Backend, graph: Graph, arithmetic: str, base: Graph) -> bool:
    """Whether this is ONNX Runtime on the float graph, which the others' times are told in."""
    return (engine.name, graph, arithmetic) == (BASELINE_ENGINE, base, F32)


def _drawn(bundle: Bundle, graph: bytes, probes: Sequence[Inputs] | None) -> Probes:
    if probes is None:
        return draw_probes(bundle.manifest, OnnxRuntimeSession(graph, Options(optimise=False)).inputs)
    if not probes:
        raise UsageError("there is no probe to measure with")
    return Probes(inputs=tuple(probes), record={"kind": "given", "count": len(probes)})


def _fed(session: OnnxRuntimeSession, probes: Sequence[Inputs]) -> list[Inputs]:
    """The probes in the types that a graph reads: a graph written in float16 takes its image so."""
    wanted = {port.name: port.dtype for port in session.inputs}
    return [
        {
            name: value.astype(wanted[name]) if value.dtype.kind == "f" and name in wanted else value
            for name, value in inputs.items()
        }
        for inputs in probes
    ]


def _stored(probes: Sequence[Mapping[str, npt.NDArray[Any]]], folder: Path) -> list[Path]:
    """The probes as files that every child can read."""
    paths = []
    for number, inputs in enumerate(probes):
        # Graphs that read the same share a file.
        types = "-".join(str(value.dtype) for value in inputs.values())
        path = folder / f"{number}-{types}.npz"
        if not path.exists():
            with path.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **inputs)
        paths.append(path)
    return paths


def _unoptimised(graph: bytes, probes: Sequence[Inputs]) -> tuple[list[Inputs], Answers | BackendError]:
    """The probes as the graph reads them, and what it says as it is written, or why that cannot be had."""
    fed = list(probes)
    try:
        session = OnnxRuntimeSession(graph, Options(optimise=False))
        fed = _fed(session, probes)
        return fed, [session.run(inputs) for inputs in fed]
    except BackendError as error:
        return fed, error


def _check_outputs(bundle: Bundle, reference: Answers) -> None:
    for head in bundle.manifest.heads:
        if head.output not in reference[0]:
            raise BundleError(f"the graph has no output {head.output!r}, which its manifest names")
    compare(reference, reference, bundle.manifest.heads)


def _kept(
    bundle: Bundle,
    record: Record,
    chosen: Contender,
    graph: bytes,
    probes: Sequence[Inputs],
    patience_s: float | None,
    tell: Say,
) -> None:
    """Write the device file, and have the engine keep its plan: twice opened, so that the plan is also read once."""
    try:
        path = device.save(bundle, record)
        options = Options(arithmetic=chosen.arithmetic, cache=device.plans(), bundle=bundle.sha256)
    except OSError as error:
        raise UsageError(f"the device file cannot be written: {error}") from error
    try:
        answers = []
        with tempfile.TemporaryDirectory(prefix="edgehem-compile-") as folder:
            (probe,) = _stored(probes[:1], Path(folder))
            for when in ("first", "next"):
                with Trial(chosen.engine) as trial:
                    spent, _ = trial.open(
                        graph, options, patience_s=chosen.engine.patience_s if patience_s is None else patience_s
                    )
                    answers.append(trial.answer(probe))
                tell(f"the {when} start opens it in {spent:.0f} ms")
        if compare(answers[:1], answers[1:], bundle.manifest.heads).fidelity_db < FIDELITY_DB:
            raise BudgetError(f"{chosen.name} answers otherwise from what it kept than when it compiles")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    tell(f"written: {path}")


def document(record: Record) -> str:
    """The record as JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1).decode() + "\n"


def table(record: Record) -> str:
    """The record for a person."""
    heading = ("", "engine", "graph", "in", "ms", "times as fast", "shift", "flips", "SQNR dB", "")
    rows = [heading]
    for index, each in enumerate(record.candidates):
        low, middle, high = each.ratio or (None, None, None)
        rows.append((
            "*" if index == record.chosen else "",
            each.engine,
            each.graph,
            each.arithmetic,
            _number(each.median_ms, ".1f"),
            f"{middle:.2f} ({low:.2f} to {high:.2f})" if middle is not None else "-",
            _number(each.shift, ".4f"),
            "-" if each.flips is None else str(each.flips),
            _number(each.sqnr_db, ".0f"),
            f"passed over: {each.passed_over}" if each.passed_over else "",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"   not installed: {name}: {why}" for name, why in record.absent.items()]
    chosen = record.choice
    lines.append(f"* is what auto takes for {record.bundle} {record.version} on this machine: {chosen.name}")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
