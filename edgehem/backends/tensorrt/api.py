"""The part of TensorRT's Python API that is used, as protocols, and the one place that imports it.

What is here is in TensorRT 10.3, 10.13 and 11 alike, unless a line says otherwise; the rest is reached with ``getattr``
where it is used. TensorRT for RTX (``tensorrt_rtx``) has the same API.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from edgehem.errors import BackendError, BackendMemoryError, EdgehemError
from edgehem.kernels.errors import KernelError

OLDEST, NEWEST = (10, 3), (11,)
"""Releases that the code was written for: JetPack 6.1 has 10.3. A newer major one is refused until somebody looked."""
MODULE = "tensorrt"


class Dims(Protocol):
    """``tensorrt.Dims``: -1 is a dimension that is set at run time. It has a length and items, and no iterator."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...


def sizes(dims: Dims) -> tuple[int, ...]:
    """Dimensions as numbers."""
    return tuple(dims[index] for index in range(len(dims)))


class HostMemory(Protocol):
    """``tensorrt.IHostMemory``: has the buffer protocol, which shows as a method from Python 3.12 on."""

    @property
    def nbytes(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


class Tensor(Protocol):
    """``tensorrt.ITensor``."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Dims: ...


class Network(Protocol):
    """``tensorrt.INetworkDefinition``."""

    @property
    def num_inputs(self) -> int: ...
    def get_input(self, index: int) -> Tensor: ...


class ParserError(Protocol):
    """``tensorrt.ParserError``."""

    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Parser(Protocol):
    """``tensorrt.OnnxParser``."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int) -> ParserError: ...
    def parse(self, model: bytes) -> bool: ...


class Profile(Protocol):
    """``tensorrt.IOptimizationProfile``."""

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None: ...


class TimingCache(Protocol):
    """``tensorrt.ITimingCache``."""

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool: ...
    def serialize(self) -> HostMemory: ...


class Config(Protocol):
    """``tensorrt.IBuilderConfig``."""

    builder_optimization_level: int
    default_device_type: Any
    DLA_core: int
    profiling_verbosity: Any
    progress_monitor: Any

    def add_optimization_profile(self, profile: Any) -> int: ...
    def clear_flag(self, flag: Any) -> None: ...
    def set_flag(self, flag: Any) -> None: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None: ...
    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> TimingCache: ...


class Builder(Protocol):
    """``tensorrt.Builder``."""

    @property
    def num_DLA_cores(self) -> int: ...  # noqa: N802 - TensorRT's name
    def create_network(self, flags: int = 0) -> Network: ...
    def create_builder_config(self) -> Config: ...
    def create_optimization_profile(self) -> Profile: ...
    def build_serialized_network(self, network: Any, config: Any) -> HostMemory | None: ...


class Inspector(Protocol):
    """``tensorrt.EngineInspector``."""

    def get_engine_information(self, format: Any) -> str: ...


class Context(Protocol):
    """``tensorrt.IExecutionContext``: one thread at a time."""

    def set_input_shape(self, name: str, shape: Any) -> bool: ...
    def infer_shapes(self) -> Sequence[str]: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_max_output_size(self, name: str) -> int: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class Engine(Protocol):
    """``tensorrt.ICudaEngine``."""

    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Any: ...
    def get_tensor_dtype(self, name: str) -> Any: ...
    def get_tensor_location(self, name: str) -> Any: ...
    def get_tensor_format(self, name: str) -> Any: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Dims]: ...
    def create_execution_context(self) -> Context | None: ...
    def create_engine_inspector(self) -> Inspector: ...


class Runtime(Protocol):
    """``tensorrt.Runtime``."""

    DLA_core: int

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None: ...


class TensorRtApi(Protocol):
    """The module. Enumerations are taken as they come: their values differ between releases, their names do not."""

    @property
    def __version__(self) -> str: ...
    @property
    def ILogger(self) -> type[Any]: ...  # noqa: N802 - TensorRT's names
    @property
    def IProgressMonitor(self) -> type[Any]: ...  # noqa: N802
    def Builder(self, logger: Any) -> Builder: ...  # noqa: N802
    def OnnxParser(self, network: Any, logger: Any) -> Parser: ...  # noqa: N802
    def Runtime(self, logger: Any) -> Runtime: ...  # noqa: N802
    def nptype(self, trt_type: Any) -> Any: ...
    @property
    def NetworkDefinitionCreationFlag(self) -> Any: ...  # noqa: N802
    @property
    def BuilderFlag(self) -> Any: ...  # noqa: N802
    @property
    def MemoryPoolType(self) -> Any: ...  # noqa: N802
    @property
    def DeviceType(self) -> Any: ...  # noqa: N802
    @property
    def ProfilingVerbosity(self) -> Any: ...  # noqa: N802
    @property
    def LayerInformationFormat(self) -> Any: ...  # noqa: N802
    @property
    def TensorIOMode(self) -> Any: ...  # noqa: N802
    @property
    def TensorLocation(self) -> Any: ...  # noqa: N802
    @property
    def TensorFormat(self) -> Any: ...  # noqa: N802


def load(module: str = MODULE) -> TensorRtApi:
    """TensorRT, if it is installed, whole, and of a release that edgehem knows.

    Raises
    ------
    BackendError
        With the reason.
    """
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module:
            raise BackendError(f"{module} needs {error.name}, which is not installed") from error
        raise BackendError(f"{module} is not installed") from error
    except Exception as error:
        # Bindings without their libraries raise OSError, ImportError or RuntimeError.
        raise BackendError(f"{module} cannot be imported ({type(error).__name__})") from error
    said = str(getattr(found, "__version__", ""))
    release = _release(said)
    if module == MODULE and (release < OLDEST or release[:1] > NEWEST):
        oldest = ".".join(map(str, OLDEST))
        raise BackendError(f"TensorRT {said or 'of no version'} is none of {oldest} to {NEWEST[0]}")
    if missing := [name for name in ("Builder", "Runtime", "OnnxParser") if not hasattr(found, name)]:
        raise BackendError(f"{module} has no {', '.join(missing)}: the whole package is needed, not a lean runtime")
    return cast(TensorRtApi, found)


def _release(version: str) -> tuple[int, ...]:
    """``10.3.0.26`` is (10, 3, 0, 26)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


class Ears:
    """A logger that notes what TensorRT says: about graphs and devices, in its own words.

    There is one for each process, and it is never freed: TensorRT takes the first logger it meets for all that follows.
    It is also told every error that an ``IErrorRecorder`` would be. One of those, written in Python and set on a
    builder or a network, ends the process when the network is freed after a parser saw it (TensorRT for RTX 1.7); so
    edgehem has none.

    Attributes
    ----------
    logger : tensorrt.ILogger
    warnings, errors : list of str
        Since :meth:`forget`.
    out_of_memory : bool
        Whether one of them was about memory.
    """

    MOST = 64

    def __init__(self, api: TensorRtApi) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.out_of_memory = False
        self.logger = _logger(api, self)

    def __str__(self) -> str:
        return _line(self.errors[0]) if self.errors else "it gives no reason"

    def failure(self, what: str) -> BackendError:
        """An error of ours with what was heard: for lack of memory, or for good."""
        return (BackendMemoryError if self.out_of_memory else BackendError)(f"{what}: {self}")

    @contextlib.contextmanager
    def typed(self, what: str) -> Iterator[None]:
        """What the bindings raise themselves, as errors of ours: TypeError where nothing can be made, and more."""
        try:
            yield
        except (EdgehemError, KernelError):
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            if self.errors:
                raise self.failure(what) from error
            raise BackendError(f"{what}: {_line(str(error)) or type(error).__name__}") from error

    def forget(self) -> None:
        """Before the next piece of work."""
        self.warnings.clear()
        self.errors.clear()
        self.out_of_memory = False


_ears: dict[str, tuple[TensorRtApi, Ears]] = {}


def ears(api: TensorRtApi) -> Ears:
    """This process's ears for a module."""
    name = str(getattr(api, "__name__", MODULE))
    if name not in _ears or _ears[name][0] is not api:
        _ears[name] = api, Ears(api)
    return _ears[name][1]


def _logger(api: TensorRtApi, ears: Ears) -> Any:
    severity = api.ILogger.Severity

    class Logger(api.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None:
            # Called from TensorRT's own threads; nothing may leave it.
            with contextlib.suppress(Exception):
                text = str(message)
                if level == severity.WARNING and text not in ears.warnings and len(ears.warnings) < Ears.MOST:
                    ears.warnings.append(text)
                elif level in (severity.INTERNAL_ERROR, severity.ERROR) and len(ears.errors) < Ears.MOST:
                    ears.errors.append(text)
                    ears.out_of_memory |= _tells_of_memory(text)

    return Logger()


def _tells_of_memory(text: str) -> bool:
    lower = text.lower()
    return "out of memory" in lower or "outofmemory" in lower or "cudaerrormemoryallocation" in lower


def _line(text: str) -> str:
    """The first line, short enough for a message."""
    return next(iter(text.strip().splitlines()), "")[:300]
