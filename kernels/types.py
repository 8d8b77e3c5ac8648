"""What every implementation of the preprocessing pass is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

AIR_HU = -1024.0
"""What lies outside an image or behind padding."""

DTYPES = ("float32", "float16", "int8")


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
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.spacing_mm) <= 0:
            raise ValueError("a grid needs positive sizes and spacings")


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
        if not self.level_width or any(width <= 0 for _, width in self.level_width):
            raise ValueError("windows need positive widths")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        if self.std <= 0 or self.scale <= 0:
            raise ValueError("std and scale must be positive")
