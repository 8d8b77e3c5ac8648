"""Memory to write into, the same for every contender: on a page boundary, and touched before.

NumPy's own large arrays begin 16 bytes behind one, where every 64-byte write touches two cache lines.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = 4096


def buffer(shape: tuple[int, ...], dtype: str = "float32", *, offset: int = 0) -> npt.NDArray[Any]:
    """An array of zeros.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
    offset : int
        Bytes behind a page boundary at which it begins.
    """
    count = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(count + 2 * PAGE, np.uint8)
    memory.fill(0)
    first = -memory.ctypes.data % PAGE + offset
    return memory[first : first + count].view(dtype).reshape(shape)
