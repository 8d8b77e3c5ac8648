"""The preprocessing pass on the case of ``edgehem bench kernels``, without its peers."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from edgehem.benchmarks import ours
from edgehem.benchmarks.case import ANTIALIASED, JOBS, TRILINEAR, Case, Job
from edgehem.benchmarks.memcpy import Copy
from edgehem.kernels.types import DTYPES
from edgehem.machine import usable_cpus

pytestmark = pytest.mark.skipif(bool(ours.missing()), reason=ours.missing() or "there is a native pass")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_pass(benchmark: BenchmarkFixture, job: Job, dtype: str) -> None:
    case = Case()
    stack = case.stacks(np.random.default_rng(0))()
    out = benchmark(ours.into_buffer(case, job, usable_cpus(), dtype), stack)
    assert out.tobytes() == ours.truth(case, job, stack, dtype).tobytes()


def test_pass_into_a_new_array(benchmark: BenchmarkFixture) -> None:
    case = Case()
    benchmark(ours.into_new_array(case, TRILINEAR, usable_cpus()), case.stacks(np.random.default_rng(0))())


def test_thin_slices(benchmark: BenchmarkFixture) -> None:
    case = Case(slices=320)
    benchmark(ours.into_buffer(case, ANTIALIASED, usable_cpus()), case.stacks(np.random.default_rng(0))())


@pytest.mark.parametrize("dtype", DTYPES)
def test_memcpy_of_as_many_bytes(benchmark: BenchmarkFixture, dtype: str) -> None:
    benchmark(Copy(Case().bytes_moved(dtype), usable_cpus()))
