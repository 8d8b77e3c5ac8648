"""One engine with one graph in one arithmetic, while it is being measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgehem.backends import Backend, Options
from edgehem.bundle import Bundle, Graph
from edgehem.device import Candidate
from edgehem.errors import BackendError, BundleError
from edgehem.export.deviation import Answers, Deviation, compare
from edgehem.export.trial import Trial

SHIFT_INT8, SHIFT_FLOAT = 0.1, 0.01
"""Worst shift of a calibrated probability that int8 graphs, and other arithmetics of a float graph, may cause."""
MOST_FLIPS = 0
"""Decisions that may turn where the reference is not borderline."""
FIDELITY_DB = 20.0
"""What an engine may change by optimising a graph. Rounding leaves 23 dB or more of an int8 graph; a wrong fusion that
ONNX Runtime made without a word left 6."""
NEAR, AGAIN = 1.3, 3
"""Candidates this near to the fastest are timed again, until they ran so many times as often as the others."""
FEWEST_ROUNDS = 5
MOST_TIMING_S = 120.0
"""No further round is begun after this long, once the fewest are done."""

Say = Callable[[str], None]


@dataclass(kw_only=True)
class Contender:
    """A candidate while it is being measured; ``why`` is why it may not be chosen."""

    engine: Backend
    graph: Graph
    arithmetic: str
    why: str = ""
    trial: Trial | None = None
    paths: Sequence[Path] = ()
    plan: str = ""
    open_ms: float | None = None
    answers: Answers = ()
    deviation: Deviation | None = None
    fidelity_db: float | None = None
    is_true: bool = False
    times: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.engine.name} {self.graph.file} {self.arithmetic}"

    @property
    def may_serve(self) -> bool:
        """Whether it ran and computes what its graph says, whatever else it is compared by."""
        return self.trial is not None and self.is_true

    def begin(
        self,
        stack: contextlib.ExitStack,
        content: bytes,
        paths: Sequence[Path],
        options: Options,
        patience_s: float | None,
        tell: Say,
    ) -> None:
        """Open the graph in a child and ask for its answers."""
        trial = stack.enter_context(Trial(self.engine))
        self.paths = paths
        try:
            self.open_ms, self.plan = trial.open(
                content,
                options,
                patience_s=self.engine.patience_s if patience_s is None else patience_s,
                say=lambda line: tell(f"{self.name}: {line}"),
            )
            self.answers = [trial.answer(path) for path in paths]
            self.trial = trial
        except BackendError as error:
            self.why = str(error)
            trial.end()

    def judge(self, bundle: Bundle, reference: Answers, exact: Answers | BackendError) -> None:
        """Compare the answers to the reference's, and to the same graph's without optimisation."""
        if self.trial is None:
            return
        if isinstance(exact, BackendError):
            self.why = f"the graph cannot be checked: {exact}"
            return
        heads = bundle.manifest.heads
        try:
            self.deviation = found = compare(reference, self.answers, heads)
            self.fidelity_db = compare(exact, self.answers, heads).fidelity_db
        except BundleError as error:
            self.why = str(error)
            return
        finally:
            self.answers = ()
        limit = SHIFT_INT8 if self.graph.precision == "int8" else SHIFT_FLOAT
        if self.fidelity_db < FIDELITY_DB:
            self.why = f"optimised, the graph is another one ({self.fidelity_db:.0f} dB)"
        elif found.flips > MOST_FLIPS:
            self.why = f"{found.flips} decision(s) turned"
        elif found.shift > limit:
            self.why = f"a probability moved by {found.shift:.3f}, more than {limit:g}"
        self.is_true = not self.why

    def candidate(self, baseline: Contender) -> Candidate:
        """What is recorded."""
        deviation = self.deviation
        ratio = None
        if self.times and len(self.times) <= len(baseline.times):
            low, middle, high = np.percentile(np.divide(baseline.times[: len(self.times)], self.times), [25, 50, 75])
            ratio = (round(float(low), 3), round(float(middle), 3), round(float(high), 3))
        return Candidate(
            engine=self.engine.name,
            graph=self.graph.file,
            form=self.graph.form,
            precision=self.graph.precision,
            sha256=self.graph.sha256,
            arithmetic=self.arithmetic,
            open_ms=None if self.open_ms is None else round(self.open_ms, 1),
            median_ms=round(float(np.median(self.times)), 2) if ratio else None,
            ratio=ratio,
            shift=None if deviation is None else round(deviation.shift, 6),
            flips=None if deviation is None else deviation.flips,
            sqnr_db=None if deviation is None else round(deviation.sqnr_db, 1),
            fidelity_db=None if self.fidelity_db is None else round(self.fidelity_db, 1),
            passed_over=self.why,
        )


def time_all(contenders: Sequence[Contender], baseline: Contender, rounds: int, tell: Say) -> None:
    """Time all in turns, each round in another order: what the machine does besides then happens to all of them.

    Those that are near the fastest are then timed as often again, with the baseline that times are told in: a few
    rounds do not tell them apart.
    """
    _time(contenders, range(rounds), tell, "timing")
    allowed = [each for each in contenders if each.times and not each.why]
    if not allowed or not baseline.times:
        return
    best = min(float(np.median(each.times)) for each in allowed)
    near = [each for each in allowed if float(np.median(each.times)) <= NEAR * best]
    if len(near) > 1:
        finalists = near if baseline in near else [*near, baseline]
        _time(finalists, range(rounds, AGAIN * rounds), tell, "timing the fastest again")


def _time(contenders: Sequence[Contender], numbers: range, tell: Say, what: str) -> None:
    begun = time.monotonic()
    for number in numbers:
        running = [contender for contender in contenders if contender.trial is not None]
        done = number - numbers.start
        if not running or (done >= FEWEST_ROUNDS and time.monotonic() - begun > MOST_TIMING_S):
            break
        tell(f"{what}, round {done + 1} of {len(numbers)}")
        turn = number % len(running)
        for contender in running[turn:] + running[:turn]:
            assert contender.trial is not None
            try:
                contender.times.append(contender.trial.time(contender.paths[number % len(contender.paths)]))
            except BackendError as error:
                contender.why = str(error)
                contender.trial.end()
                contender.trial, contender.times = None, []
