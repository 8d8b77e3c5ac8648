"""torch and MONAI by somebody who knows both well: one resampling onto the grid, and torch set up for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgehem.benchmarks.peers.pipeline_monai import AIR_HU, network, reader
from edgehem.benchmarks.pipelines.contender import NETWORK, PREPROCESS, READ, Answer, Clock, Job, Pipeline, Study

HOW = (
    "LoadImage, SpatialCrop, SpatialResample straight to the grid in float32, all windows in one torch.addcmul; "
    "BatchNorms folded, channels_last, inference_mode, set_num_threads, malloc keeps its memory, threads wait asleep"
)
VARIABLES = (
    ("MALLOC_MMAP_THRESHOLD_", str(1 << 32)),
    ("MALLOC_TRIM_THRESHOLD_", str(1 << 32)),
    ("OMP_WAIT_POLICY", "PASSIVE"),
)
"""Read when a process starts. glibc gives every large tensor back to the system when it is freed, and clears it anew
for the next: with the first two it keeps them, and page faults go from 115,000 a study to a handful. Threads that spin
until the other ones are done lose whole time slices as soon as anything else runs: with the third they sleep, and the
network took 130 ms instead of 500 on a busy machine."""


def make(job: Job) -> Pipeline:
    """What was found to be the fastest that gives the same numbers; ``torch.compile`` and tracing were no faster."""
    import torch
    from monai.transforms import LoadImage, SpatialCrop, SpatialResample
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    torch.set_num_threads(job.threads)
    model = network(job)
    for part in list(model.modules()):
        if isinstance(part, torch.nn.Sequential) and len(part) > 1 and isinstance(part[1], torch.nn.BatchNorm2d):
            convolution: Any = part[0]
            part[0], part[1] = fuse_conv_bn_eval(convolution, part[1]), torch.nn.Identity()
    model = model.to(memory_format=torch.channels_last)
    planes, rows, columns = job.shape
    size = [columns, rows, planes]
    # Axes swapped in memory for nothing otherwise: the resampler below goes by the affine.
    options = {"swap_ij": False} if reader() == "PydicomReader" else {}
    read = LoadImage(reader=reader(), ensure_channel_first=True, **options)
    sample = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=np.float32)
    # What lies outside of the stack is 0 to the resampler, and has to be air: HU are counted from there.
    factor = torch.tensor([1 / width for _, width in job.windows])
    addend = torch.tensor([(AIR_HU - (level - width / 2)) / width for level, width in job.windows])

    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(READ):
            image = read(study.folder)
        with clock.stage(PREPROCESS):
            grid = _affine(job, study)
            image = SpatialCrop(roi_slices=_needed(image, grid, size))(image)
            found = sample(image - AIR_HU, dst_affine=grid, spatial_size=size).as_tensor()[0]  # [X, Y, Z]
            # Written with the channels last, as the network's convolutions read them.
            last = torch.addcmul(addend, found.permute(2, 1, 0)[..., None], factor).clamp_(0, 1)
            tensor = last.permute(0, 3, 1, 2)[None]  # [1, Z, C, Y, X]
        with clock.stage(NETWORK), torch.inference_mode():
            values = model(tensor, torch.tensor([study.valid]))
            outputs = {name: value.numpy() for name, value in zip(job.outputs, values, strict=True)}
        return Answer(outputs=outputs, tensor=tensor.numpy())

    return Pipeline(run=run)


def _affine(job: Job, study: Study) -> Any:
    """Index (x, y, z) of the grid to MONAI's patient coordinates (RAS)."""
    dz, dy, dx = job.spacing_mm
    x, y, z = study.origin
    return np.array([[-dx, 0, 0, -x], [0, -dy, 0, -y], [0, 0, dz, z], [0, 0, 0, 1]], np.float64)


def _needed(image: Any, grid: Any, size: Sequence[int]) -> list[slice]:
    """The part of an image that the grid reads, a voxel more to each side."""
    corners = np.array([[x, y, z, 1] for x in (0, size[0] - 1) for y in (0, size[1] - 1) for z in (0, size[2] - 1)])
    at = (np.linalg.inv(np.asarray(image.affine)) @ grid @ corners.T)[:3]
    low, high = np.floor(at.min(axis=1)).astype(int) - 1, np.ceil(at.max(axis=1)).astype(int) + 2
    return [slice(max(0, a), min(b, n)) for a, b, n in zip(low, high, image.shape[1:], strict=True)]
