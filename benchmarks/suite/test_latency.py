"""The cases of ``edgehem bench``, by the same names, under pytest-benchmark. Run: make bench.

Each is measured in this one process, round after round: good for a look at one case, and for what reads
pytest-benchmark's files. ``edgehem bench ab`` is what tells a slow-down from a noisy minute.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from edgehem.benchmarks.latency.cases import Case, Settings, cases
from edgehem.benchmarks.latency.run import FEWEST, ROUNDS, WARM_UP
from edgehem.benchmarks.latency.studies import study
from edgehem.errors import EdgehemError


class Clock:
    """The time; or, for a case that measures itself in another process, the sum of what it says."""

    def __init__(self) -> None:
        self.told: float | None = None

    def __call__(self) -> float:
        """Seconds."""
        return time.perf_counter() if self.told is None else self.told


CLOCK = Clock()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where studies are written, each once."""
    return tmp_path_factory.mktemp("studies")


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case(benchmark: BenchmarkFixture, case: Case, scratch: Path) -> None:
    try:
        ready = case.make(study(scratch, case.slices, case.compressed), Settings())
    except (LookupError, EdgehemError) as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    call = ready.calls[""]

    def told() -> None:
        assert CLOCK.told is not None
        CLOCK.told += float(call()) / 1e3  # type: ignore[arg-type]

    benchmark.name, benchmark.group = case.name, case.group
    CLOCK.told = 0.0 if ready.own_clock else None
    try:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            told if ready.own_clock else call,
            setup=lambda: ready.fresh(rng),
            rounds=max(FEWEST, round(ROUNDS * case.share)),
            warmup_rounds=WARM_UP,
        )
    finally:
        CLOCK.told = None
    benchmark.extra_info.update(bytes_moved=ready.bytes_moved, details=ready.details)
