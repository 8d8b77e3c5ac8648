"""The part of pycuda that is used, as protocols, and the one place that imports it.

pycuda has no type stubs. It is imported when a GPU is wanted, never before, and a machine without it gets a reason.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from edgehem.kernels.errors import KernelLaunchError, KernelMemoryError, KernelUnavailableError


class CudaContext(Protocol):
    """``pycuda.driver.Context``. pycuda aborts a process that ends with a context pushed: pop what was pushed."""

    def push(self) -> None: ...
    @staticmethod
    def pop() -> None: ...
    @staticmethod
    def get_device() -> CudaDevice: ...
    @staticmethod
    def synchronize() -> None: ...


class CudaDevice(Protocol):
    """``pycuda.driver.Device``."""

    def name(self) -> str: ...
    def compute_capability(self) -> tuple[int, int]: ...
    def total_memory(self) -> int: ...
    def get_attribute(self, attribute: object) -> int: ...
    def retain_primary_context(self) -> CudaContext: ...


class DeviceClass(Protocol):
    """The class ``pycuda.driver.Device``."""

    def __call__(self, ordinal: int) -> CudaDevice: ...
    def count(self) -> int: ...


class CudaStream(Protocol):
    """``pycuda.driver.Stream``; ``handle`` is what other libraries take."""

    @property
    def handle(self) -> int: ...
    def synchronize(self) -> None: ...


class CudaEvent(Protocol):
    """``pycuda.driver.Event``. One that was never recorded counts as reached."""

    def record(self, stream: CudaStream) -> object: ...
    def synchronize(self) -> object: ...
    def time_till(self, event: Any) -> float: ...


class Allocation(Protocol):
    """``pycuda.driver.DeviceAllocation``; its integer is the address."""

    def __int__(self) -> int: ...
    def free(self) -> None: ...


class Function(Protocol):
    """``pycuda.driver.Function``; ``prepare`` takes the arguments in the letters of :mod:`struct`."""

    def prepare(self, arg_types: Sequence[str]) -> Function: ...
    def prepared_async_call(
        self, grid: tuple[int, int], block: tuple[int, int, int], stream: CudaStream, *arguments: Any
    ) -> None: ...


class Module(Protocol):
    """``pycuda.driver.Module``, of one context."""

    def get_function(self, name: str) -> Function: ...


class EventFlags(Protocol):
    """``pycuda.driver.event_flags``."""

    @property
    def DEFAULT(self) -> int: ...  # noqa: N802 - pycuda's names
    @property
    def DISABLE_TIMING(self) -> int: ...  # noqa: N802


class DeviceAttributes(Protocol):
    """``pycuda.driver.device_attribute``."""

    @property
    def MULTIPROCESSOR_COUNT(self) -> object: ...  # noqa: N802
    @property
    def INTEGRATED(self) -> object: ...  # noqa: N802


class Driver(Protocol):
    """``pycuda.driver``. All its errors are ``Error``; ``MemoryError`` is one of them."""

    @property
    def Error(self) -> type[Exception]: ...  # noqa: N802
    @property
    def MemoryError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def Device(self) -> DeviceClass: ...  # noqa: N802
    @property
    def Context(self) -> type[CudaContext]: ...  # noqa: N802
    @property
    def event_flags(self) -> EventFlags: ...
    @property
    def device_attribute(self) -> DeviceAttributes: ...
    def Stream(self) -> CudaStream: ...  # noqa: N802
    def Event(self, flags: int) -> CudaEvent: ...  # noqa: N802
    def init(self) -> None: ...
    def get_driver_version(self) -> int: ...
    def mem_alloc(self, size: int) -> Allocation: ...
    def pagelocked_empty(self, shape: int, dtype: str) -> npt.NDArray[np.uint8]: ...
    def memcpy_htod_async(self, dest: int, src: npt.NDArray[Any], stream: CudaStream) -> None: ...
    def memcpy_dtoh(self, dest: npt.NDArray[Any], src: int) -> None: ...
    def memcpy_dtoh_async(self, dest: npt.NDArray[Any], src: int, stream: CudaStream) -> None: ...
    def module_from_buffer(self, buffer: bytes) -> Module: ...


class Compiler(Protocol):
    """``pycuda.compiler``."""

    def compile(
        self,
        source: str,
        *,
        nvcc: str,
        options: list[str],
        no_extern_c: bool,
        arch: str,
        cache_dir: bool,
        include_dirs: list[str],
    ) -> bytes: ...


def driver() -> Driver:
    """``pycuda.driver``, initialised, on a machine with at least one CUDA device.

    Raises
    ------
    KernelUnavailableError
        With the reason, in words for a person.
    """
    try:
        found = cast(Driver, importlib.import_module("pycuda.driver"))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pycuda":
            raise KernelUnavailableError(f"pycuda needs {error.name}, which is not installed") from error
        raise KernelUnavailableError("pycuda is not installed (to have it: pip install pycuda)") from error
    except Exception as error:
        # An extension built for another driver or another NumPy raises OSError, ImportError or what it likes.
        raise KernelUnavailableError(f"pycuda cannot be imported: {_first_line(error)}") from error
    try:
        found.init()
        count = found.Device.count()
    except found.Error as error:
        raise KernelUnavailableError(f"the CUDA driver does not start: {_first_line(error)}") from error
    if count < 1:
        raise KernelUnavailableError("no CUDA device")
    return found


@contextlib.contextmanager
def typed(driver: Driver, doing: str) -> Iterator[None]:
    """pycuda's errors as this package's."""
    try:
        yield
    except driver.MemoryError as error:
        raise KernelMemoryError(f"{doing}: {error}") from error
    except driver.Error as error:
        raise KernelLaunchError(f"{doing}: {error}") from error


def compiler() -> Compiler:
    """``pycuda.compiler``."""
    return cast(Compiler, importlib.import_module("pycuda.compiler"))


class _Retained(threading.local):
    contexts: dict[tuple[Driver, int], CudaContext]

    def __init__(self) -> None:
        self.contexts = {}


_retained = _Retained()


def primary_context(found: Driver, ordinal: int) -> CudaContext:
    """A device's primary context: the one that TensorRT and the CUDA runtime use.

    Retained once a thread and held until the thread ends: memory may outlive the object that allocated it (an array
    somebody still reads), and pycuda frees only from the thread that retained.

    Raises
    ------
    KernelUnavailableError, KernelMemoryError
    """
    key = (found, ordinal)
    if key not in _retained.contexts:
        try:
            _retained.contexts[key] = found.Device(ordinal).retain_primary_context()
        except found.MemoryError as error:
            raise KernelMemoryError(f"CUDA device {ordinal}: {error}") from error
        except found.Error as error:
            raise KernelUnavailableError(f"CUDA device {ordinal} cannot be opened: {error}") from error
    return _retained.contexts[key]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
