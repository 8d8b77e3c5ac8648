"""What every implementation of the preprocessing pass is called with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

AIR_HU = -1024.0
"""What lies outside an image or behind padding."""

DTYPES = ("float32", "float16", "int8")

RESAMPLINGS = ("antialiased", "trilinear")

LARGEST_FLOAT16 = 65504.0

MAX_WINDOWS = 16
"""Channels that one launch writes."""


class Stack(Protocol):
    """Raw slices, each with its own position. :class:`edgehem.volume.Volume` is one.

    ``pixels`` int16 [Z, Y, X]; ``slope``, ``intercept`` float32 [Z]; ``origin`` float64 [Z, 3] mm (LPS, centre of the
    first pixel); ``row_cosines``, ``column_cosines`` float64 [3]; ``pixel_spacing`` mm between rows, between columns;
    ``padding`` inclusive range of stored values that mean air; ``distances`` float64 [Z] along the normal, increasing.
    """

    @property
    def pixels(self) -> npt.NDArray[np.int16]: ...
    @property
    def slope(self) -> npt.NDArray[np.float32]: ...
    @property
    def intercept(self) -> npt.NDArray[np.float32]: ...
    @property
    def origin(self) -> npt.NDArray[np.float64]: ...
    @property
    def row_cosines(self) -> npt.NDArray[np.float64]: ...
    @property
    def column_cosines(self) -> npt.NDArray[np.float64]: ...
    @property
    def pixel_spacing(self) -> tuple[float, float]: ...
    @property
    def padding(self) -> tuple[int, int] | None: ...
    @property
    def normal(self) -> npt.NDArray[np.float64]: ...
    @property
    def distances(self) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """The grid to sample: axis-parallel in patient coordinates (LPS).

    Parameters
    ----------
    shape : tuple of int
        Planes, rows, columns: Z, Y, X.
    spacing_mm : tuple of float
        Distance of planes, rows, columns.
    origin : tuple of float, mm
        Patient coordinates (x, y, z) of voxel [0, 0, 0]'s centre. Planes go up (to the head), rows to the back, columns
        to the patient's left.
    resampling : {"antialiased", "trilinear"}
        ``antialiased`` averages what a coarser grid would skip: whole pixels within a slice, and all slices within a
        voxel's extent. ``trilinear`` reads the nearest eight pixels, whatever the spacing.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin: tuple[float, float, float]
    resampling: str = "antialiased"

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not all(mm > 0 and math.isfinite(mm) for mm in self.spacing_mm):
            raise ValueError("a grid needs positive sizes and spacings")
        if not all(map(math.isfinite, self.origin)):
            raise ValueError("a grid's origin must be finite")
        if self.resampling not in RESAMPLINGS:
            raise ValueError(f"resampling {self.resampling!r} is none of {', '.join(RESAMPLINGS)}")


@dataclass(frozen=True, kw_only=True)
class Windows:
    """HU windows and the arithmetic after them.

    Channel c of the output is ``(clip((hu - low_c) / width_c, 0, 1) - mean) / std`` with ``low = level - width / 2``;
    int8 output is that divided by `scale`, rounded half to even, clipped to ±127.

    Parameters
    ----------
    level_width : tuple of (level, width), HU
    mean, std : float
    dtype : {"float32", "float16", "int8"}
    scale : float
        Quantisation step, int8 only.
    """

    level_width: tuple[tuple[float, float], ...]
    mean: float = 0.0
    std: float = 1.0
    dtype: str = "float32"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.level_width) <= MAX_WINDOWS:
            raise ValueError(f"one to {MAX_WINDOWS} windows, not {len(self.level_width)}")
        if not all(width > 0 and math.isfinite(width) and math.isfinite(level) for level, width in self.level_width):
            raise ValueError("windows need finite levels and positive widths")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        if not (self.std > 0 and self.scale > 0 and math.isfinite(self.mean)):
            raise ValueError("std and scale must be positive, the mean finite")
        largest = max(abs(self.mean), abs(1 - self.mean)) / self.std
        if self.dtype == "float16" and largest > LARGEST_FLOAT16:
            raise ValueError(f"with this mean and std values reach {largest:.4g}, more than float16 holds")
