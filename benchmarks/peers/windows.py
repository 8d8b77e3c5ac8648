"""Windows in NumPy, for libraries that leave them to their user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks.case import Case

Float32 = npt.NDArray[np.float32]


class NumpyWindows:
    """Resampled stored values to windows, in place and plane by plane, so that a plane stays in the cache.

    Parameters
    ----------
    case : Case
    """

    def __init__(self, case: Case) -> None:
        self._ramps = [(np.float32(factor), np.float32(addend)) for factor, addend in case.ramps]

    def __call__(self, stored: Float32, out: Float32) -> None:
        """Write the windows of planes `stored` [Z, Y, X] into `out` [Z, C, Y, X]."""
        for plane, channels in zip(stored, out, strict=True):
            for channel, (factor, addend) in zip(channels, self._ramps, strict=True):
                np.multiply(plane, factor, out=channel)
                np.add(channel, addend, out=channel)
                np.clip(channel, 0, 1, out=channel)
