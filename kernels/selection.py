"""Which kernels this machine can run, in the order they are tried, and why not the rest.

All give the same numbers. Nothing here opens a GPU context, compiles or raises: a candidate that is ready may still be
refused by the driver when it is loaded, and then the next one is taken.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from edgehem.kernels import build, cuda_code, cuda_driver, fused, native
from edgehem.kernels.cuda_code import COMPILED, PREBUILT, CodeError, Machine
from edgehem.kernels.errors import KernelUnavailableError

NATIVE, NUMPY = "native", "numpy"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One implementation of the preprocessing pass; ``detail`` says what it is, or why it is not ready."""

    name: str
    ready: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What serves an engine on the CPU, and what an engine on a GPU would get. None: ``why_not`` says why."""

    cpu: str | None
    gpu: str | None
    why_not: str


def candidates() -> tuple[Candidate, ...]:
    """Every implementation, in loading order."""
    looked: tuple[tuple[str, Callable[[], str]], ...] = (
        (PREBUILT, _prebuilt),
        (COMPILED, _compiled),
        (NATIVE, _native),
        (NUMPY, lambda: f"NumPy {importlib.metadata.version('numpy')}, one thread"),
    )
    return tuple(_examined(name, look) for name, look in looked)


def selection(found: tuple[Candidate, ...]) -> Selection:
    """Who runs, given the candidates."""
    try:
        cpu = fused.implementation()
    except RuntimeError as error:
        return Selection(cpu=None, gpu=None, why_not=str(error))
    # A GPU engine without GPU kernels reads what the CPU made, copied over.
    gpu = next(
        (candidate.name for candidate in found if candidate.ready and candidate.name in (PREBUILT, COMPILED)), cpu
    )
    return Selection(cpu=cpu, gpu=gpu, why_not="")


def _examined(name: str, look: Callable[[], str]) -> Candidate:
    try:
        return Candidate(name=name, ready=True, detail=look())
    except (KernelUnavailableError, CodeError) as error:
        return Candidate(name=name, ready=False, detail=str(error))
    except Exception as error:  # a broken driver or installation raises what it likes, and is what is asked about
        return Candidate(name=name, ready=False, detail=f"cannot be examined: {type(error).__name__}: {error}")


def _first_device() -> tuple[Machine, str]:
    """The device that is used unless another is named."""
    driver = cuda_driver.driver()
    device = driver.Device(0)
    return Machine.of(driver, device.compute_capability()), device.name()


def _prebuilt() -> str:
    machine, name = _first_device()
    return f"{cuda_code.prebuilt(machine).detail} ({name})"


def _compiled() -> str:
    machine, name = _first_device()
    try:
        return f"{cuda_code.cached(machine).detail} ({name})"
    except CodeError:
        nvcc = build.find_nvcc()
        if nvcc is None:
            raise CodeError("no nvcc: install the CUDA toolkit, or build ahead on a machine that has it") from None
        return f"by {nvcc} at first use, which takes seconds ({name})"


def _native() -> str:
    if native.library() is None:
        raise KernelUnavailableError(native.why_not())
    threads = fused.usable_threads()
    return f"{native.instruction_set()}, {threads} {'thread' if threads == 1 else 'threads'}"
