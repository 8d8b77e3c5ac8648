"""Samples: studies on the canonical grid, in Hounsfield units, with labels and (where known) where the blood is.

A sample goes through the runtime's own head finder and resampler, so that a network is trained on exactly what it will
be given.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem import kernels
from edgehem.errors import UsageError
from edgehem.export.progress import Progress
from edgehem.phantom import LABELS, SUBTYPES
from edgehem.preprocess import CANONICAL, PreprocessSpec, locate_head, place_grid, plane_validity
from edgehem.volume import Volume

MAP_STEP = 4
"""The blood map has one cell per 4 × 4 pixels."""
UNKNOWN = -1
"""Label value of an empty table cell."""
PRESENT_MM2 = 30.0
"""A plane counts as showing blood from this area on; between 0 and this it is left out of the slice loss."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One study on the grid.

    Parameters
    ----------
    group : int
        Samples of one group are the same head (with and without blood).
    hu : int16 array [Z, Y, X]
    valid : float32 array [Z]
    labels : int8 array [6]
        1, 0 or :data:`UNKNOWN`, in the order of LABELS.
    blood : uint8 array [Z, Y / 4, X / 4]
        Share of blood per cell, 0..255; all zero and `mapped` False where no mask is known.
    area_mm2 : float32 array [Z, 5]
        Blood per plane and subtype.
    mapped : bool
    """

    group: int
    hu: npt.NDArray[np.int16]
    valid: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]
    blood: npt.NDArray[np.uint8]
    area_mm2: npt.NDArray[np.float32]
    mapped: bool


def sample(
    volume: Volume,
    labels: dict[str, int],
    mask: npt.NDArray[np.uint8] | None,
    *,
    group: int,
    spec: PreprocessSpec = CANONICAL,
) -> Sample:
    """Put a study on the grid.

    Parameters
    ----------
    volume : Volume
    labels : dict of label to 0, 1 or UNKNOWN
    mask : uint8 array [Z, Y, X] or None
        On the volume's own slices: 1 + index into SUBTYPES.
    group : int
    spec : PreprocessSpec

    Raises
    ------
    Refusal
        If no head is found.
    """
    target = place_grid(locate_head(volume), spec)
    hu = kernels.resample(volume, target)
    planes, rows, columns = spec.shape
    blood = np.zeros((planes, rows // MAP_STEP, columns // MAP_STEP), np.uint8)
    area = np.zeros((planes, len(SUBTYPES)), np.float32)
    if mask is not None:
        total = np.zeros(spec.shape, np.float32)
        for value in np.unique(mask[mask > 0]):
            share = _mask_on_grid(volume, mask == value, target)
            area[:, int(value) - 1] = share.sum(axis=(1, 2)) * spec.spacing_mm[1] * spec.spacing_mm[2]
            total += share
        cells = total.reshape(planes, rows // MAP_STEP, MAP_STEP, columns // MAP_STEP, MAP_STEP).mean(axis=(2, 4))
        blood = np.rint(np.minimum(cells, 1) * 255).astype(np.uint8)
    return Sample(
        group=group,
        hu=np.rint(hu).astype(np.int16),
        valid=plane_validity(volume, target),
        labels=np.array([labels.get(name, UNKNOWN) for name in LABELS], np.int8),
        blood=blood,
        area_mm2=area,
        mapped=mask is not None,
    )


def _mask_on_grid(volume: Volume, mask: npt.NDArray[np.bool_], target: kernels.Target) -> npt.NDArray[np.float32]:
    """Share of the mask per grid voxel: the mask goes through the resampler as if it were an image of 0 and 1000 HU."""
    scale = 1000
    image = replace(
        volume,
        pixels=(mask * scale).astype(np.int16),
        slope=np.ones(len(mask), np.float32),
        intercept=np.zeros(len(mask), np.float32),
        padding=None,
    )
    return np.asarray(np.clip(kernels.resample(image, target) / scale, 0, 1), np.float32)


class Cache:
    """Samples on disk, read through memory maps: a cohort is larger than memory.

    Parameters
    ----------
    folder : Path
        Holds ``hu.npy`` and its companions, and ``cache.json``, which is written last.
    """

    def __init__(self, folder: Path) -> None:
        record = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
        self.folder, self.count = folder, int(record["count"])
        self.record: dict[str, Any] = record
        self.hu = np.load(folder / "hu.npy", mmap_mode="r")[: self.count]
        self.blood = np.load(folder / "blood.npy", mmap_mode="r")[: self.count]
        with np.load(folder / "small.npz") as small:
            self.valid, self.labels, self.area_mm2 = small["valid"], small["labels"], small["area_mm2"]
            self.group, self.mapped = small["group"], small["mapped"]

    def __len__(self) -> int:
        return self.count


def build_cache(
    folder: Path,
    samples: Iterable[Sample],
    capacity: int,
    *,
    record: dict[str, Any],
    spec: PreprocessSpec = CANONICAL,
    title: str = "samples",
) -> Cache:
    """Write samples as they come, with progress on stderr; a build that fails leaves nothing behind.

    Raises
    ------
    UsageError
        If no sample came.
    """
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    planes, rows, columns = spec.shape
    hu = np.lib.format.open_memmap(part / "hu.npy", mode="w+", dtype=np.int16, shape=(capacity, *spec.shape))
    cells = (capacity, planes, rows // MAP_STEP, columns // MAP_STEP)
    blood = np.lib.format.open_memmap(part / "blood.npy", mode="w+", dtype=np.uint8, shape=cells)
    small: dict[str, list[Any]] = {"valid": [], "labels": [], "area_mm2": [], "group": [], "mapped": []}
    count, bar = 0, Progress(title, capacity)
    try:
        for item in samples:
            hu[count], blood[count] = item.hu, item.blood
            for name, column in small.items():
                column.append(getattr(item, name))
            count += 1
            bar.show(count)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    bar.close()
    if not count:
        shutil.rmtree(part, ignore_errors=True)
        raise UsageError("no study of the table could be used")
    hu.flush()
    blood.flush()
    arrays: dict[str, Any] = {name: np.stack(column) for name, column in small.items()}
    np.savez(part / "small.npz", **arrays)
    (part / "cache.json").write_text(json.dumps({**record, "count": count}, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)  # noqa: PTH105 - atomic by contract
    return Cache(folder)
