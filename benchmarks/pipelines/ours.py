"""edgehem as it serves, and the floor under it: the bare call of the engine's library on a ready tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends import Options
from edgehem.backends import choose as engine_named
from edgehem.benchmarks import timing
from edgehem.benchmarks.contender import PassedOverError
from edgehem.benchmarks.latency import bare
from edgehem.benchmarks.pipelines.contender import (
    NETWORK,
    PREPROCESS,
    READ,
    Answer,
    Clock,
    Job,
    Pipeline,
    Study,
)
from edgehem.bundle import Bundle
from edgehem.dicom import read_study
from edgehem.preprocess import coverage_notes, place
from edgehem.serving import Served


def served(job: Job) -> Pipeline:
    """What ``Model.triage_path`` does until it has logits, every gate of the intake included."""
    serving = _served(job)

    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(READ):
            volume = read_study(Path(study.folder)).volume
        with clock.stage(PREPROCESS):
            placed = place(volume, serving.spec)
            coverage_notes(placed.head)
            tensor = serving.tensor(volume, placed)
        with clock.stage(NETWORK):
            outputs, _ = serving.answer(volume, placed, tensor)
        return Answer(outputs=outputs, tensor=tensor)

    return Pipeline(run=run)


def floor(job: Job) -> Pipeline:
    """No reading and no preprocessing."""
    serving = _served(job)
    assert job.choice is not None
    direct = bare.under(serving.session)
    if direct is None:
        raise PassedOverError(f"{job.choice.engine} has no bare call here")
    ready: dict[str, dict[str, npt.NDArray[Any]]] = {}

    def fresh(study: Study) -> None:
        if study.folder not in ready:
            volume = read_study(Path(study.folder)).volume
            placed = place(volume, serving.spec)
            made = {"image": np.array(serving.tensor(volume, placed)), "valid": placed.valid}
            ready[study.folder] = {name: made[kind] for kind, name in serving.inputs.items()}

    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(NETWORK):
            outputs = direct(ready[study.folder])
        return Answer(outputs=outputs, tensor=None)

    def overhead(study: Study, rounds: int) -> dict[str, list[int]]:
        inputs = ready[study.folder]
        bare.agree(serving.session.run(inputs), direct(inputs))
        passes: dict[str, Callable[[None], object]] = {
            "session": lambda _: serving.session.run(inputs),
            "bare": lambda _: direct(inputs),
        }
        return timing.interleave(passes, lambda: None, rounds=rounds, rng=np.random.default_rng(0), sweep=lambda: None)

    return Pipeline(run=run, fresh=fresh, overhead=overhead)


def _served(job: Job) -> Served:
    """The chosen engine and graph, opened as :mod:`edgehem.serving` opens what ``edgehem compile`` chose."""
    assert job.choice is not None
    bundle, choice = Bundle(Path(job.bundle)), job.choice
    graph = next(graph for graph in bundle.manifest.graphs if graph.file == choice.graph)
    session = engine_named(choice.engine).open(bundle.read(graph), Options(arithmetic=choice.arithmetic))
    return Served(
        engine=choice.engine,
        graph=graph,
        arithmetic=choice.arithmetic,
        session=session,
        spec=bundle.manifest.preprocess,
        inputs=bundle.manifest.inputs,
    )
