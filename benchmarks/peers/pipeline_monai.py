"""torch and MONAI as a user writes them: dictionary transforms one after the other, everything at its default."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgehem.benchmarks.pipelines.contender import NETWORK, PREPROCESS, READ, Answer, Clock, Job, Pipeline, Study

HOW = (
    "LoadImaged, EnsureChannelFirstd, Orientationd, Spacingd (bilinear), SpatialCropd and BorderPadd to the grid, "
    "ScaleIntensityRanged for each window, ConcatItemsd, EnsureTyped; eval, no_grad, float32"
)
AIR_HU = -1024.0
WHOLE = 1e-3
"""Voxels that a handed grid may be off this lattice: the grid was put on it."""


def make(job: Job) -> Pipeline:
    """Nothing is set that has a default; `torch` takes the threads it finds."""
    import torch
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

    model = network(job)
    planes, rows, columns = job.shape
    size = np.array([columns, rows, planes])
    pixdim = tuple(job.spacing_mm[::-1])
    read = LoadImaged(keys="image", reader=reader())
    place = Compose([
        EnsureChannelFirstd(keys="image"),
        Orientationd(keys="image", axcodes="LPS", labels=None),
        Spacingd(keys="image", pixdim=pixdim, mode="bilinear"),
    ])  # fmt: skip
    channels = windows(job)

    def run(study: Study, clock: Clock) -> Answer:
        with clock.stage(READ):
            data = read({"image": study.folder})
        with clock.stage(PREPROCESS):
            data = place(data)
            start = _start(data["image"], study)
            data = channels(_cut(data, start, size))
            image = network_input(data["tensor"])
        with clock.stage(NETWORK), torch.no_grad():
            values = model(image, torch.tensor([study.valid]))
            outputs = {name: value.numpy() for name, value in zip(job.outputs, values, strict=True)}
        return Answer(outputs=outputs, tensor=image.numpy())

    return Pipeline(run=run)


def network(job: Job) -> Any:
    """The network in torch, as it was before it was exported."""
    import torch

    from edgehem.export.models.hemorrhagenet import HemorrhageNet

    model = HemorrhageNet(slices=job.shape[0], channels=job.channels)
    model.load_state_dict(torch.load(job.weights, weights_only=True))
    return model.eval()


def reader() -> str:
    """MONAI's own first choice for DICOM where its library is installed, else pydicom."""
    from monai.data import ITKReader
    from monai.utils import OptionalImportError

    try:
        ITKReader()
    except OptionalImportError:
        return "PydicomReader"
    return "ITKReader"


def windows(job: Job) -> Any:
    """Channels in 0..1 from HU, as one tensor."""
    from monai.transforms import Compose, ConcatItemsd, CopyItemsd, EnsureTyped, ScaleIntensityRanged

    names = [f"window{i}" for i in range(job.channels)]
    scaled = [
        ScaleIntensityRanged(
            keys=name, a_min=level - width / 2, a_max=level + width / 2, b_min=0.0, b_max=1.0, clip=True
        )
        for name, (level, width) in zip(names, job.windows, strict=True)
    ]
    return Compose([
        CopyItemsd(keys="image", times=job.channels, names=names),
        *scaled,
        ConcatItemsd(keys=names, name="tensor"),
        EnsureTyped(keys="tensor"),
    ])  # fmt: skip


def network_input(found: Any) -> Any:
    """[C, X, Y, Z] to [1, Z, C, Y, X]."""
    return found.as_tensor().permute(3, 0, 2, 1).contiguous()[None]


def _start(image: Any, study: Study) -> Any:
    """Index (x, y, z) of the grid's first voxel in an image that has the grid's spacing and direction."""
    x, y, z = study.origin
    at = np.linalg.solve(np.asarray(image.affine), np.array([-x, -y, z, 1.0]))[:3]
    start = np.rint(at)
    if np.abs(at - start).max() > WHOLE:
        raise ValueError("the grid does not lie on the resampled image")
    return start.astype(int)


def _cut(data: Any, start: Any, size: Any) -> Any:
    """The grid's part of an image, with air where it has nothing."""
    from monai.transforms import BorderPadd, SpatialCropd

    end, have = start + size, np.array(data["image"].shape[1:])
    border = np.stack([np.maximum(0, -start), np.maximum(0, end - have)], axis=1).reshape(-1)
    data = SpatialCropd(keys="image", roi_start=np.maximum(0, start).tolist(), roi_end=end.tolist())(data)
    return BorderPadd(keys="image", spatial_border=border.tolist(), value=AIR_HU)(data)
