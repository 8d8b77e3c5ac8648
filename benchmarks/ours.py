"""edgehem's own passes: the native one, and the oracle that defines what all should compute."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from edgehem.benchmarks.buffers import buffer
from edgehem.benchmarks.case import Case, Job
from edgehem.benchmarks.contender import Contender, Pass, PassedOverError
from edgehem.kernels import fused, native, oracle
from edgehem.kernels.types import DTYPES
from edgehem.volume import Volume

NUMPY_OFFSET = 16
"""Where NumPy's large arrays begin on x86-64 Linux: behind the allocator's header, which lies on a page boundary."""
REFERENCE = "edgehem-float32"
"""What every other time is divided by."""


def contenders(job: Job) -> tuple[Contender, ...]:
    """The native pass by type of result, once more without a buffer to write into, and NumPy."""
    buffered = tuple(
        Contender(
            name=f"edgehem-{dtype}",
            library="edgehem",
            how="the fused native pass, into a buffer that is kept",
            make=_into_buffer(dtype),
            dtype=dtype,
            tolerance_hu=0,
        )
        for dtype in DTYPES
    )
    return (
        *buffered,
        Contender(
            name="edgehem-unaligned",
            library="edgehem",
            how="float32 into a kept buffer that begins 16 bytes behind a page, as large NumPy arrays do",
            make=into_unaligned_buffer,
            tolerance_hu=0,
        ),
        Contender(
            name="edgehem-new",
            library="edgehem",
            how="float32 into a new array each time: what a call without a buffer costs",
            make=into_new_array,
            tolerance_hu=0,
        ),
        Contender(
            name="edgehem-numpy",
            library="edgehem",
            how="the oracle: NumPy, one thread, written to be read",
            make=numpy,
            tolerance_hu=0,
        ),
    )


def into_buffer(case: Case, job: Job, threads: int, dtype: str = "float32", *, offset: int = 0) -> Pass:
    """The native pass into one buffer."""
    _need_native()
    target, windows = case.target(job), case.windows(dtype)
    out = buffer(case.shape, dtype, offset=offset)
    return lambda stack: fused.preprocess(stack, target, windows, out=out, threads=threads)


def into_unaligned_buffer(case: Case, job: Job, threads: int) -> Pass:
    """The native pass into a buffer that shares no boundary with the cache lines."""
    return into_buffer(case, job, threads, offset=NUMPY_OFFSET)


def into_new_array(case: Case, job: Job, threads: int) -> Pass:
    """The native pass as one calls it who does not care."""
    _need_native()
    target, windows = case.target(job), case.windows()
    return lambda stack: fused.preprocess(stack, target, windows, threads=threads)


def numpy(case: Case, job: Job, threads: int) -> Pass:
    """The oracle; NumPy has one thread, whatever was asked for."""
    return lambda stack: truth(case, job, stack)


def truth(case: Case, job: Job, stack: Volume, dtype: str = "float32") -> npt.NDArray[Any]:
    """What every contender should answer."""
    return oracle.preprocess(stack, case.target(job), case.windows(dtype))


def _into_buffer(dtype: str) -> Any:
    return lambda case, job, threads: into_buffer(case, job, threads, dtype)


def missing() -> str:
    """Why there is no native pass here; empty where there is one."""
    if fused.implementation() == "native":
        return ""
    return f"the native kernels are {native.why_not() or f'switched off by {fused.CHOICE}'}"


def _need_native() -> None:
    if why := missing():
        raise PassedOverError(why)
