"""Memory of the CUDA path: a tensor on the device, and buffers that grow and are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from edgehem.kernels.errors import KernelError

GRANULE = 1 << 20
"""Buffers are allocated in whole MiB."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DeviceTensor:
    """A tensor in device memory, C-contiguous [Z, C, Y, X].

    It holds no memory: where the preprocessor chose the place, its next call overwrites it and its closing frees it.

    Parameters
    ----------
    pointer : int
        Device address.
    shape : tuple of int
    dtype : str
    stream : int
        Handle of the stream on which it is written: work that reads it belongs there, or has to wait for it.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    stream: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For torch, CuPy and Numba: the same memory, not a copy (CUDA Array Interface, version 3)."""
        return {
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": self.stream or None,
            "version": 3,
        }


class Room(Generic[T]):
    """One buffer that grows."""

    def __init__(self, allocate: Callable[[int], T], free: Callable[[T], None], out_of_memory: type[Exception]) -> None:
        self._allocate, self._free, self._out_of_memory = allocate, free, out_of_memory
        self._held: T | None = None
        self.size = 0

    def held(self) -> T:
        """What holds the bytes."""
        if self._held is None:
            raise KernelError("nothing is allocated")
        return self._held

    def grow(self, size: int) -> None:
        """Replace it by a larger one: half as large again where there is room for that, so that it seldom happens."""
        least, ample = (_whole(n) for n in (size, max(size, self.size + self.size // 2)))
        self.free()
        try:
            self._held, self.size = self._allocate(ample), ample
        except self._out_of_memory:
            if ample == least:
                raise
            self._held, self.size = self._allocate(least), least

    def free(self) -> None:
        held, self._held, self.size = self._held, None, 0
        if held is not None:
            self._free(held)


def _whole(size: int) -> int:
    return math.ceil(size / GRANULE) * GRANULE
