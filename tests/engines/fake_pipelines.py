"""Pretended pipelines: each answers what ``tests/test_bench_pipelines.py`` expects, or does not."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from edgehem.benchmarks.contender import PassedOverError
from edgehem.benchmarks.pipelines.contender import NETWORK, READ, Answer, Clock, Job, Pipeline, Study

PLANES = 40


def answers() -> list[Answer]:
    """As the test's ``answered`` draws them, a study each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2):
        tensor = rng.random((1, PLANES, 1, 8, 8), np.float32)
        found.append(Answer(outputs={"slice_logits": rng.normal(5, 1, (1, PLANES, 6))}, tensor=tensor))
    return found


def of(study: Study) -> Answer:
    return answers()[1 if os.path.basename(os.path.dirname(study.folder)) == "1" else 0]  # noqa: PTH119, PTH120


def right(job: Job) -> Pipeline:
    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(NETWORK):
            return of(study)

    return Pipeline(run=run)


def slow(job: Job) -> Pipeline:
    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(READ):
            time.sleep(0.005)
        with clock.stage(NETWORK):
            return of(study)

    return Pipeline(run=run)


def wrong(job: Job) -> Pipeline:
    def run(study: Study, clock: Clock) -> Answer:
        found = of(study)
        assert found.tensor is not None
        return Answer(outputs=found.outputs, tensor=1 - found.tensor)

    return Pipeline(run=run)


def prints(job: Job) -> Pipeline:
    """A library that talks must not come between the answers."""
    print("on the way", flush=True)
    os.write(1, b"from below\n")
    return right(job)


def told(job: Job) -> Pipeline:
    assert os.environ["EDGEHEM_TEST_TOLD"] == "yes"
    return right(job)


def missing(job: Job) -> Pipeline:
    import no_such_library  # type: ignore[import-not-found]

    return no_such_library  # type: ignore[no-any-return]


def refuses(job: Job) -> Pipeline:
    raise PassedOverError("not on a Tuesday")


def breaks(job: Job) -> Pipeline:
    raise ValueError("broken")


def dies(job: Job) -> Pipeline:
    def run(study: Study, clock: Clock) -> Answer:
        sys.stdout.flush()
        os._exit(3)

    return Pipeline(run=run)


def tires(job: Job) -> Pipeline:
    """Answers what is asked first, and fails when it is timed."""
    left = [2]

    def run(study: Study, clock: Clock) -> Answer:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("tired")
        return of(study)

    return Pipeline(run=run)


def floor(job: Job) -> Pipeline:
    def overhead(study: Study, rounds: int) -> dict[str, Any]:
        return {"session": [1500] * rounds, "bare": [1000] * rounds}

    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(NETWORK):
            return Answer(outputs=of(study).outputs, tensor=None)

    return Pipeline(run=run, overhead=overhead)
