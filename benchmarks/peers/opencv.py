"""OpenCV: slices resized one by one, and blended where planes lie between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgehem.benchmarks.buffers import buffer
from edgehem.benchmarks.case import ANTIALIASED, Case, Job
from edgehem.benchmarks.contender import Contender, Pass
from edgehem.benchmarks.crew import Crew
from edgehem.benchmarks.peers.windows import Float32, NumpyWindows
from edgehem.volume import Volume


def contenders(job: Job) -> tuple[Contender, ...]:
    """The way its documentation suggests, and the fastest way found."""
    resize = "resize " + ("INTER_AREA" if job is ANTIALIASED else "INTER_LINEAR, addWeighted")
    return (
        Contender(
            name="opencv",
            library="OpenCV",
            how=f"{resize} of float32 slices one after another, cv2.setNumThreads; windows in NumPy",
            make=one_by_one,
            module="cv2",
        ),
        Contender(
            name="opencv-split",
            library="OpenCV",
            how=f"{resize}; planes split over Python threads; windows by cv2.addWeighted, min, max",
            make=split,
            module="cv2",
        ),
    )


def one_by_one(case: Case, job: Job, threads: int) -> Pass:
    """OpenCV's own threads work on one slice at a time."""
    import cv2

    cv2.setNumThreads(threads)
    sampler, windows = Sampler(case, job), NumpyWindows(case)
    out = buffer(case.shape)

    def run(stack: Volume) -> Float32:
        sampler.forget()
        for k in range(case.planes):
            windows(sampler.plane(stack, k)[None], out[k : k + 1])
        return out

    return run


def split(case: Case, job: Job, threads: int) -> Pass:
    """Every Python thread takes a run of planes, with OpenCV's threads off."""
    import cv2

    ramps, crew = case.ramps, Crew(threads)
    samplers = {first: Sampler(case, job) for first, _ in crew.runs(case.planes)}
    out = buffer(case.shape)

    def run(stack: Volume) -> Float32:
        cv2.setNumThreads(1)

        def work(first: int, end: int) -> None:
            sampler = samplers[first]
            sampler.forget()
            for k in range(first, end):
                plane = sampler.plane(stack, k)
                for channel, (factor, addend) in zip(out[k], ramps, strict=True):
                    cv2.addWeighted(plane, factor, plane, 0, addend, dst=channel)
                    cv2.min(channel, 1.0, dst=channel)
                    cv2.max(channel, 0.0, dst=channel)

        crew(work, case.planes)
        cv2.setNumThreads(threads)
        return out

    return run


class Sampler:
    """One plane after the other, rising; the last two resized slices are kept for the next plane.

    Parameters
    ----------
    case : Case
    job : Job
    """

    def __init__(self, case: Case, job: Job) -> None:
        import cv2

        self._cv2: Any = cv2
        self._how = cv2.INTER_AREA if job is ANTIALIASED else cv2.INTER_LINEAR
        (self._start, *_), (self._step, *_) = case.start_and_step(job)
        self._wide = buffer((case.matrix, case.matrix))
        self._small = [buffer((case.size, case.size)) for _ in range(2)]
        self._between = buffer((case.size, case.size))
        self._held = [-1, -1]

    def forget(self) -> None:
        """Begin a new stack."""
        self._held = [-1, -1]

    def plane(self, stack: Volume, k: int) -> Float32:
        """Plane k in stored values, float32 [Y, X]."""
        position = self._start + k * self._step
        below = math.floor(position)
        weight = position - below
        lower = self._slice(stack, below)
        if weight == 0:
            return lower
        self._cv2.addWeighted(lower, 1 - weight, self._slice(stack, below + 1), weight, 0, dst=self._between)
        return self._between

    def _slice(self, stack: Volume, index: int) -> Float32:
        small = self._small[index % 2]
        if self._held[index % 2] != index:
            np.copyto(self._wide, stack.pixels[index])
            self._cv2.resize(self._wide, small.shape[::-1], dst=small, interpolation=self._how)
            self._held[index % 2] = index
        return small
