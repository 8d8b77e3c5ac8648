"""A CT stack as it was acquired: raw stored values, and each slice's own place in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

ORTHONORMAL_TOLERANCE = 1e-3
"""Largest accepted deviation of direction cosines from unit length and orthogonality."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Slices of one series, ordered along their common normal.

    Nothing is resampled or rescaled here: a tilted, oblique or unevenly spaced stack is held exactly as it was
    acquired, and every later stage works from each slice's own position.

    Parameters
    ----------
    pixels : int16 array [Z, Y, X], stored values
        C-contiguous. Unsigned 16-bit data is shifted into int16 with the intercept moved to match.
    slope, intercept : float32 arrays [Z]
        HU = stored · slope + intercept, slice by slice.
    origin : float64 array [Z, 3], mm, DICOM patient coordinates (LPS)
        Centre of the first pixel of each slice (Image Position (Patient)).
    row_cosines, column_cosines : float64 arrays [3]
        Direction along a row (increasing X) and along a column (increasing Y): Image Orientation (Patient).
    pixel_spacing : tuple of float, mm
        Distance between rows, distance between columns (the order of Pixel Spacing (0028,0030)).
    padding : tuple of int or None
        Inclusive range of stored values that mean "no measurement here"; masked before any rescale.

    Raises
    ------
    ValueError
        If shapes or types disagree, or slices are not in strictly increasing order along the normal.
    """

    pixels: npt.NDArray[np.int16]
    slope: npt.NDArray[np.float32]
    intercept: npt.NDArray[np.float32]
    origin: Float64
    row_cosines: Float64
    column_cosines: Float64
    pixel_spacing: tuple[float, float]
    padding: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.dtype != np.int16 or not self.pixels.flags.c_contiguous:
            raise ValueError("pixels must be a C-contiguous int16 array [Z, Y, X]")
        slices = self.pixels.shape[0]
        for name, shape in (("slope", (slices,)), ("intercept", (slices,)), ("origin", (slices, 3))):
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite with shape {shape}, not {array.shape}")
        axes = np.stack([self.row_cosines, self.column_cosines])
        if not np.allclose(axes @ axes.T, np.eye(2), atol=ORTHONORMAL_TOLERANCE):
            raise ValueError("row and column cosines must be orthonormal")
        if min(self.pixel_spacing) <= 0:
            raise ValueError("pixel spacing must be positive")
        if slices > 1 and (np.diff(self.distances) <= 0).any():
            raise ValueError("slices must be in strictly increasing order along the normal")

    @cached_property
    def normal(self) -> Float64:
        """Unit normal of the slices, float64 [3] (row × column)."""
        normal = np.cross(self.row_cosines, self.column_cosines)
        return np.asarray(normal / np.linalg.norm(normal))

    @cached_property
    def distances(self) -> Float64:
        """Signed distance of every slice along the normal, float64 [Z], mm."""
        return np.asarray(self.origin @ self.normal)

    @property
    def slice_spacing(self) -> float:
        """Median distance between neighbouring slices along the normal, mm; 0 for a single slice."""
        return float(np.median(np.diff(self.distances))) if len(self.distances) > 1 else 0.0

    @property
    def tilt_deg(self) -> float:
        """Angle between the direction the stack advances in and the slice normal, degrees (gantry tilt)."""
        if len(self.origin) < 2:
            return 0.0
        advance = self.origin[-1] - self.origin[0]
        cosine = float(advance @ self.normal / np.linalg.norm(advance))
        return float(np.degrees(np.arccos(min(1.0, cosine))))

    def nearest_slice(self, point: Float64) -> int:
        """Index of the slice nearest to a world point, float64 [3], mm, LPS."""
        return int(np.argmin(np.abs(self.distances - point @ self.normal)))

    def world_to_index(self, points: Float64, index: int) -> Float64:
        """Row and column (fractional) of world points projected along the normal onto one slice.

        Parameters
        ----------
        points : float64 array [N, 3], mm, LPS
        index : int
            The slice.

        Returns
        -------
        float64 array [N, 2]
            Row, column.
        """
        offset = points - self.origin[index]
        row_mm, column_mm = self.pixel_spacing
        return np.stack([offset @ self.column_cosines / row_mm, offset @ self.row_cosines / column_mm], axis=-1)
