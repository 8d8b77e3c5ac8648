"""MONAI: a Compose of its own dictionary transforms, as its users write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.case import ANTIALIASED, INTERCEPT, LEVEL_WIDTH, Case, Job
from edgehem.benchmarks.contender import Contender, Pass
from edgehem.volume import Volume

AFTER = "then CopyItemsd, ScaleIntensityRanged for each window, ConcatItemsd"


def contenders(job: Job) -> tuple[Contender, ...]:
    """By spacing, as most pipelines have it, and by size; between slices only its general resampler serves."""
    if job is not ANTIALIASED:
        return (
            Contender(
                name="monai",
                library="MONAI",
                how=f"ResampleToMatch, bilinear, float32; {AFTER}",
                make=resample_to_match,
                module="monai",
            ),
        )
    return (
        Contender(
            name="monai",
            library="MONAI",
            how=f"Spacingd, bilinear, float32, scale_extent; {AFTER}",
            make=spacing,
            module="monai",
        ),
        Contender(name="monai-resize", library="MONAI", how=f"Resized, area; {AFTER}", make=resize, module="monai"),
    )


def spacing(case: Case, job: Job, threads: int) -> Pass:
    """A voxel size is asked for; MONAI finds the grid."""
    from monai.transforms import Spacingd

    mm = case.target(job).spacing_mm
    return _pass(case, threads, Spacingd(
        keys="image", pixdim=mm, mode="bilinear", padding_mode="border", dtype=np.float32, align_corners=True,
        scale_extent=True,
    ))  # fmt: skip


def resize(case: Case, job: Job, threads: int) -> Pass:
    """A size is asked for."""
    from monai.transforms import Resized

    return _pass(case, threads, Resized(keys="image", spatial_size=(case.planes, case.size, case.size), mode="area"))


def resample_to_match(case: Case, job: Job, threads: int) -> Pass:
    """A grid is asked for, by an image that has it."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms import ResampleToMatch

    target = case.target(job)
    grid = _affine(target.spacing_mm, target.origin[::-1])
    like = MetaTensor(torch.zeros((1, *target.shape)), affine=torch.from_numpy(grid))
    transform = ResampleToMatch(mode="bilinear", padding_mode="border", dtype=np.float32)
    return _pass(case, threads, lambda data: {"image": transform(data["image"], img_dst=like)})


def _affine(mm: tuple[float, ...], first: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Index to patient, both as z, y, x."""
    affine = np.diag([*mm, 1.0])
    affine[:3, 3] = first
    return affine


def _pass(case: Case, threads: int, resampling: Any) -> Pass:
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms import Compose, ConcatItemsd, CopyItemsd, ScaleIntensityRanged

    torch.set_num_threads(threads)
    names = [f"window{i}" for i in range(case.channels)]
    windows = [
        ScaleIntensityRanged(
            keys=name,
            a_min=level - width / 2 - INTERCEPT,
            a_max=level + width / 2 - INTERCEPT,
            b_min=0.0,
            b_max=1.0,
            clip=True,
        )
        for name, (level, width) in zip(names, LEVEL_WIDTH, strict=False)
    ]
    copies = CopyItemsd(keys="image", times=case.channels, names=names)
    pipeline = Compose([resampling, copies, *windows, ConcatItemsd(keys=names, name="tensor")])

    def run(stack: Volume) -> npt.NDArray[np.float32]:
        first, mm = stack.origin[0, ::-1], (case.gap_mm, *stack.pixel_spacing)
        image = MetaTensor(torch.from_numpy(stack.pixels)[None], affine=torch.from_numpy(_affine(mm, tuple(first))))
        data: Mapping[str, Any] = pipeline({"image": image})
        tensor: npt.NDArray[np.float32] = data["tensor"].as_tensor().movedim(0, 1).contiguous().numpy()
        return tensor

    return run
