"""SciPy: scipy.ndimage, which has no threads of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgehem.benchmarks.buffers import buffer
from edgehem.benchmarks.case import ANTIALIASED, Case, Job
from edgehem.benchmarks.contender import Contender, Pass
from edgehem.benchmarks.crew import Crew
from edgehem.benchmarks.peers.windows import Float32, NumpyWindows
from edgehem.volume import Volume


def contenders(job: Job) -> tuple[Contender, ...]:
    """The one call that its users write, and the same work split."""
    call = "zoom, order 1, grid mode" if job is ANTIALIASED else "affine_transform, order 1"
    parts = "slices" if job is ANTIALIASED else "runs of planes"
    return (
        Contender(
            name="scipy",
            library="SciPy",
            how=f"ndimage.{call}, one call; windows in NumPy, plane by plane",
            make=one_call,
            module="scipy",
        ),
        Contender(
            name="scipy-split",
            library="SciPy",
            how=f"ndimage.{call}; {parts} and their windows split over Python threads",
            make=split,
            module="scipy",
        ),
    )


def one_call(case: Case, job: Job, threads: int) -> Pass:
    """One thread."""
    return split(case, job, 1, whole=True)


def split(case: Case, job: Job, threads: int, *, whole: bool = False) -> Pass:
    """Each thread takes a run of planes."""
    from scipy import ndimage

    start, step = case.start_and_step(job)
    options: dict[str, Any] = {"order": 1, "mode": "nearest", "prefilter": False}
    crew, windows = Crew(threads), NumpyWindows(case)
    stored = buffer((case.planes, case.size, case.size))
    out = buffer(case.shape)

    def sample(stack: Volume, first: int, end: int) -> None:
        if job is ANTIALIASED and whole:
            ndimage.zoom(stack.pixels, 1 / np.array(step), output=stored, grid_mode=True, **options)
        elif job is ANTIALIASED:
            for k in range(first, end):  # planes lie on slices
                ndimage.zoom(stack.pixels[k], 1 / np.array(step[1:]), output=stored[k], grid_mode=True, **options)
        else:
            offset = (start[0] + first * step[0], *start[1:])
            part = stored[first:end]
            ndimage.affine_transform(
                stack.pixels, np.array(step), offset=offset, output_shape=part.shape, output=part, **options
            )

    def run(stack: Volume) -> Float32:
        def work(first: int, end: int) -> None:
            sample(stack, first, end)
            windows(stored[first:end], out[first:end])

        crew(work, case.planes)
        return out

    return run
