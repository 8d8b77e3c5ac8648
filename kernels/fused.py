"""The fused pass on this machine's CPU: the native twin where it was built, else NumPy. Same numbers, other speed."""

from __future__ import annotations

import functools
import logging
import os

import numpy as np
import numpy.typing as npt

from edgehem.kernels import native, oracle
from edgehem.kernels.types import Stack, Target, Windows

CHOICE = "EDGEHEM_KERNELS"
"""Environment variable: ``native`` or ``numpy`` insists on one, ``auto`` (or nothing) takes the best."""

CACHE_LINE = 64

log = logging.getLogger(__name__)


@functools.cache
def implementation() -> str:
    """Which implementation runs here: ``native`` or ``numpy``.

    Raises
    ------
    RuntimeError
        If :data:`CHOICE` names one that does not exist or is not there.
    """
    wanted = os.environ.get(CHOICE, "auto").lower() or "auto"
    if wanted not in ("auto", "native", "numpy"):
        raise RuntimeError(f"{CHOICE}={wanted}: it can be auto, native or numpy")
    if wanted == "numpy":
        return "numpy"
    if native.library() is not None:
        return "native"
    if wanted == "native":
        raise RuntimeError(f"{CHOICE}=native, but the native kernels are {native.why_not()}")
    # Once a process: the answers are the same, but somebody who waits should know why.
    log.warning("Preprocessing runs on NumPy, several times slower: the native kernels are %s.", native.why_not())
    return "numpy"


def usable_threads() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def preprocess(
    stack: Stack,
    target: Target,
    windows: Windows,
    *,
    out: npt.NDArray[np.generic] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.generic]:
    """The whole pass: raw slices to windowed channels on the target grid.

    Parameters
    ----------
    stack : Stack
    target : Target
    windows : Windows
    out : array [Z, C, Y, X] of `windows.dtype`, optional
        Where to write, C-contiguous: the buffer an engine reads. A new array by default, whose first touching costs
        more than the pass.
    threads : int, optional
        All CPUs this process may run on by default. NumPy uses one.

    Returns
    -------
    array [Z, C, Y, X] of `windows.dtype`
        `out`, where it was given.

    Raises
    ------
    ValueError
        If `out` does not fit, or the stack is empty.
    """
    shape = (target.shape[0], len(windows.level_width), *target.shape[1:])
    out = _checked(out, shape, windows.dtype)
    if implementation() == "native":
        native.preprocess(stack, target, windows, out, threads=threads or usable_threads())
    else:
        out[...] = oracle.preprocess(stack, target, windows)
    return out


def resample(
    stack: Stack, target: Target, *, out: npt.NDArray[np.generic] | None = None, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Sample a stack on a target grid, in HU.

    Parameters
    ----------
    stack : Stack
    target : Target
    out : float32 array [Z, Y, X], optional
        C-contiguous.
    threads : int, optional

    Returns
    -------
    float32 array [Z, Y, X], HU
        :data:`~edgehem.kernels.types.AIR_HU` where the stack has nothing.

    Raises
    ------
    ValueError
        If `out` does not fit, or the stack is empty.
    """
    hu = _checked(out, target.shape, "float32")
    if implementation() == "native":
        native.preprocess(stack, target, None, hu, threads=threads or usable_threads())
    else:
        hu[...] = oracle.resample(stack, target)
    return np.asarray(hu, np.float32)


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
    """An uninitialised array that begins at a cache line, which lets the native twin write whole lines."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(count + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + count].view(dtype).reshape(shape)


def _checked(out: npt.NDArray[np.generic] | None, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.generic]:
    if out is None:
        return empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out must be a writeable C-contiguous {dtype} array {list(shape)}, not {out.dtype} {list(out.shape)}"
        )
    return out
