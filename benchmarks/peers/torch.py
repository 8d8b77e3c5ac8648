"""PyTorch on the CPU: its resizing of images, and its general sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.buffers import buffer
from edgehem.benchmarks.case import ANTIALIASED, Case, Job
from edgehem.benchmarks.contender import Contender, Pass
from edgehem.volume import Volume


def contenders(job: Job) -> tuple[Contender, ...]:
    """``interpolate`` is far faster, but knows only grids that share their edges with the slices."""
    blend = "" if job is ANTIALIASED else ", lerp between slices"
    return (
        Contender(
            name="torch-interpolate",
            library="PyTorch",
            how=f"interpolate bilinear of the slices as a batch{blend}; windows by addcmul and clamp_ into one tensor",
            make=interpolate,
            module="torch",
        ),
        Contender(
            name="torch-grid-sample",
            library="PyTorch",
            how="grid_sample of the volume on a kept grid; windows likewise",
            make=grid_sample,
            module="torch",
        ),
    )


def interpolate(case: Case, job: Job, threads: int) -> Pass:
    """Halfway between pixels, bilinear is the mean of four."""
    import torch
    from torch.nn.functional import interpolate as resize

    start, step = (axes[0] for axes in case.start_and_step(job))
    positions = start + step * torch.arange(case.planes, dtype=torch.float64)
    lower = positions.floor().long()
    upper, weight = (lower + 1).clamp(max=case.slices - 1), (positions - lower).float()[:, None, None]
    between = torch.from_numpy(buffer((case.planes, case.size, case.size)))

    def sample(values: Any) -> Any:
        small = resize(values[:, None], size=(case.size, case.size), mode="bilinear", align_corners=False)[:, 0]
        return small if job is ANTIALIASED else torch.lerp(small[lower], small[upper], weight, out=between)

    return _pass(case, threads, sample)


def grid_sample(case: Case, job: Job, threads: int) -> Pass:
    """Any grid; made once, as it is the same for every stack."""
    import torch
    from torch.nn.functional import grid_sample as sample_at

    sizes = (case.slices, case.matrix, case.matrix)
    axes = [
        (start + step * torch.arange(count, dtype=torch.float64)) / (size - 1) * 2 - 1
        for start, step, count, size in zip(
            *case.start_and_step(job), (case.planes, case.size, case.size), sizes, strict=True
        )
    ]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y, z), -1).float()[None]  # [1, Z, Y, X, 3]

    def sample(values: Any) -> Any:
        return sample_at(values[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]

    return _pass(case, threads, sample)


def _pass(case: Case, threads: int, sample: Any) -> Pass:
    import torch

    torch.set_num_threads(threads)
    factor, addend = (torch.tensor(values).view(1, -1, 1, 1) for values in zip(*case.ramps, strict=True))
    values = torch.from_numpy(buffer((case.slices, case.matrix, case.matrix)))
    answer = buffer(case.shape)
    out = torch.from_numpy(answer)

    @torch.inference_mode()
    def run(stack: Volume) -> npt.NDArray[np.float32]:
        values.copy_(torch.from_numpy(stack.pixels))
        torch.addcmul(addend, sample(values)[:, None], factor, out=out).clamp_(0, 1)
        return answer

    return run
