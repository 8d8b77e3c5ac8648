"""Preprocessing kernels: one fused pass from raw slices to a model's tensor.

:mod:`edgehem.kernels.oracle` defines what the pass computes, in NumPy. This package imports nothing of edgehem but
itself: it knows arrays and geometry, not DICOM and not models.
"""

from edgehem.kernels.fused import empty, preprocess, resample
from edgehem.kernels.oracle import window
from edgehem.kernels.plan import cover
from edgehem.kernels.types import AIR_HU, Stack, Target, Windows

__all__ = ["AIR_HU", "Stack", "Target", "Windows", "cover", "empty", "preprocess", "resample", "window"]
