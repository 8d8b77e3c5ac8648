"""What many write around an engine: a pydicom loop, SciPy's resampling, windows in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.pipelines.contender import PREPROCESS, READ, Clock, Job, Study

HOW = "pydicom loop, scipy.ndimage.affine_transform (order 1), np.clip windows"
AIR_HU = -1024.0

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class Plain:
    """Files to a tensor, for series whose slices are axial, even and not tilted. It checks nothing.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job) -> None:
        # The process shows at once whether its libraries are there.
        import pydicom
        from scipy import ndimage

        self._dcmread: Any = pydicom.dcmread
        self._sample: Any = ndimage.affine_transform
        self._job = job

    def __call__(self, study: Study, clock: Clock) -> Float32:
        """The tensor [1, Z, C, Y, X]."""
        with clock.stage(READ):
            stack, first, spacing = self._read(Path(study.folder))
        with clock.stage(PREPROCESS):
            return self._tensor(stack, first, spacing, study)

    def _read(self, folder: Path) -> tuple[npt.NDArray[np.int16], Float64, Float64]:
        """HU [Z, Y, X]; where the first pixel is, and the distances, both z, y, x in mm."""
        slices = [self._dcmread(file) for file in folder.iterdir()]
        slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        stack = np.stack([ds.pixel_array for ds in slices]).astype(np.int16)
        stack += np.int16(slices[0].RescaleIntercept)
        lowest, highest = (np.array(slices[i].ImagePositionPatient, np.float64)[::-1] for i in (0, -1))
        gap = float(highest[0] - lowest[0]) / (len(slices) - 1)
        return stack, lowest, np.array([gap, *(float(mm) for mm in slices[0].PixelSpacing)], np.float64)

    def _tensor(self, stack: npt.NDArray[np.int16], first: Float64, spacing: Float64, study: Study) -> Float32:
        job = self._job
        start = (np.array(study.origin[::-1]) - first) / spacing
        step = np.array(job.spacing_mm) / spacing
        # "constant" would take air for a plane that lies on the first slice, where rounding puts it just outside.
        options = {"order": 1, "mode": "grid-constant", "cval": AIR_HU}
        hu = self._sample(stack, step, offset=start, output_shape=job.shape, output=np.float32, **options)
        channels = [
            np.clip((hu - (level - width / 2)) / width, 0, 1).astype(np.float32) for level, width in job.windows
        ]
        return np.ascontiguousarray(np.stack(channels, axis=1)[None])


def valid(study: Study) -> Float32:
    """The mask [1, Z] that was handed."""
    return np.array([study.valid], np.float32)
