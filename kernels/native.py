"""The native twin: the pass on CPU threads, through a plain C interface.

The library is built at install time where there is a compiler. One that was built from other sources than those beside
it, or for another layout, is passed over: it would compute something else.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgehem.kernels.plan import Plan, channels
from edgehem.kernels.types import MAX_WINDOWS, Stack, Target, Windows

ABI = 1
MOST_BYTES = 2 << 32
"""The kernels count stored pixels in 32 bits."""

DTYPE_CODES = {"float32": 0, "float16": 1, "int8": 2}
FAILURES = {
    -1: "its parameter block has another layout",
    -2: "sizes that cannot be",
    -3: "out of memory",
}

_F = ctypes.c_float
_I = ctypes.c_int32


class Parameters(ctypes.Structure):
    """`EhPlan` of formulas.h, field by field."""

    _fields_ = (
        ("size", _I), ("slices", _I), ("rows", _I), ("columns", _I),
        ("factor", _I), ("reduced_rows", _I), ("reduced_columns", _I),
        ("planes", _I), ("height", _I), ("width", _I), ("channels", _I),
        ("padding_low", _I), ("padding_high", _I), ("paired", _I),
        ("along", _F * 4), ("row", _F * 4), ("column", _F * 4),
        ("half_extent", _F), ("share", _F), ("mean_inverse_gap", _F), ("reserved", _F),
        ("slice_stride", ctypes.c_int64), ("row_stride", ctypes.c_int64),
        ("window", _F * 4 * MAX_WINDOWS),
    )  # fmt: skip


def parameters(plan: Plan, windows: npt.NDArray[np.float32], pixels: npt.NDArray[np.int16]) -> Parameters:
    """The parameter block of one call.

    Parameters
    ----------
    plan : Plan
    windows : float32 array [C, 4]
        As :func:`edgehem.kernels.plan.channels` gives them.
    pixels : int16 array [Z, Y, X]
        Columns adjacent, any stride between rows and between slices.

    Raises
    ------
    ValueError
        If the stack has more elements than the kernels count.
    """
    if pixels.shape[0] * pixels.strides[0] > MOST_BYTES:
        raise ValueError(f"a stack may span {MOST_BYTES >> 30} GiB, and this one spans more")
    block = Parameters()
    block.size = ctypes.sizeof(Parameters)
    block.slices, block.rows, block.columns = plan.slices, plan.rows, plan.columns
    block.factor = plan.factor
    block.reduced_rows, block.reduced_columns = plan.rows // plan.factor, plan.columns // plan.factor
    block.planes, block.height, block.width = plan.shape
    block.channels = len(windows)
    block.padding_low, block.padding_high = plan.padding if plan.padding is not None else (1, 0)
    strides = [stride // pixels.itemsize for stride in pixels.strides[:2]]
    block.slice_stride, block.row_stride = strides
    block.paired = int(pixels.ctypes.data % 4 == 0 and all(stride % 2 == 0 for stride in strides))
    for at, axis in zip((block.along, block.row, block.column), plan.axes.tolist(), strict=True):
        at[:] = axis
    if plan.extent:
        block.half_extent, block.share = plan.extent * 0.5, 1 / plan.extent
    block.mean_inverse_gap = float(plan.slices / max(float(plan.knots[-1] - plan.knots[0]), 1e-6))
    for at, row in zip(block.window, windows.tolist(), strict=False):
        at[:] = row
    return block


def sliced(stack: Stack) -> npt.NDArray[np.int16]:
    """The stack's pixels with adjacent columns, copied only if need be."""
    pixels = stack.pixels
    item = pixels.itemsize
    if pixels.strides[2] == item and all(stride > 0 and stride % item == 0 for stride in pixels.strides):
        return pixels
    return np.ascontiguousarray(pixels)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, or None: :func:`why_not` says why."""
    return _load()[0]


def why_not() -> str:
    """Why there is no native twin; empty where there is one."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    from edgehem.kernels.build import (  # a command of its own, which loading must not have imported
        BUILT,
        NATIVE_LIBRARY,
    )

    path = BUILT / NATIVE_LIBRARY
    if not path.exists():
        return (
            None,
            "not built: no C++ compiler at installation (to build it: python -m edgehem.kernels.build --native)",
        )
    return open_library(path)


def open_library(path: Path) -> tuple[ctypes.CDLL | None, str]:
    """Load one built library, or say why it cannot be used."""
    from edgehem.kernels.build import native_hash

    try:
        found = ctypes.CDLL(os.fspath(path))
        found.eh_source.restype = ctypes.c_char_p
        found.eh_isa.restype = ctypes.c_char_p
        found.eh_isa_at.restype, found.eh_isa_at.argtypes = ctypes.c_char_p, (ctypes.c_int,)
        found.eh_preprocess.argtypes = (
            ctypes.POINTER(Parameters), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
            ctypes.c_char_p,
        )  # fmt: skip
        abi, source = found.eh_abi(), found.eh_source().decode()
    except (OSError, AttributeError) as error:
        return None, f"cannot be loaded: {error}"
    if abi != ABI or source != native_hash():
        return None, "built from other sources (to rebuild: python -m edgehem.kernels.build --native)"
    return found, ""


def instruction_set() -> str:
    """What the native twin runs with here: avx512, avx2 or baseline."""
    found = library()
    return found.eh_isa().decode() if found is not None else ""


def preprocess(
    stack: Stack,
    target: Target,
    windows: Windows | None,
    out: npt.NDArray[np.generic],
    *,
    threads: int,
    isa: str | None = None,
    using: ctypes.CDLL | None = None,
) -> None:
    """Run the pass into `out`.

    Parameters
    ----------
    stack : Stack
    target : Target
    windows : Windows or None
        None writes HU.
    out : C-contiguous array [Z, C, Y, X] of the windows' dtype
    threads : int
    isa : str, optional
        An instruction set other than the best, for comparison.
    using : ctypes.CDLL, optional
        Another library than the installed one.

    Raises
    ------
    MemoryError, RuntimeError
    """
    found = using or library()
    if found is None:
        raise RuntimeError(f"no native twin: {why_not()}")
    plan, pixels = Plan.of(stack, target), sliced(stack)
    block = parameters(plan, channels(windows), pixels)
    dtype = DTYPE_CODES[windows.dtype if windows is not None else "float32"]
    failure = found.eh_preprocess(
        ctypes.byref(block), plan.tables.ctypes.data, pixels.ctypes.data, dtype, out.ctypes.data, threads,
        isa.encode() if isa else None,
    )  # fmt: skip
    if failure:
        error = MemoryError if failure == -3 else RuntimeError
        raise error(f"the native twin gave up: {FAILURES.get(failure, failure)}")
