"""The module onnxruntime, its providers and the TensorRT-RTX plugin: whether they are here, and which version.

ONNX Runtime lists a provider that it was built with, whether or not its libraries can be loaded; asked for one that
cannot, it takes the CPU with no more than a line on standard error (microsoft/onnxruntime#23372). So what is listed
is tried, and what a session got is looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from edgehem.backends.onnxruntime import DISTRIBUTIONS
from edgehem.errors import BackendError

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"

GPU_DISTRIBUTION = "onnxruntime-gpu"
ASSIGNMENT = "get_provider_graph_assignment_info"
"""What a session needs to say who computes which operator: from ONNX Runtime 1.24 on."""

PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
PLUGIN_DISTRIBUTIONS = (
    "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    "onnxruntime-ep-nv-tensorrt-rtx-cu12",
    "onnxruntime-ep-nv-tensorrt-rtx",
)
"""Packages that install the plugin, or stand for one that does: the one with the files first."""
TENSORRT_DISTRIBUTIONS = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
DRIVER_LIBRARIES = ("libcuda.so", "libnvidia-ml.so")
DRIVER_HINT = ", which NVIDIA's driver brings"
SEARCH_PATH = "LD_LIBRARY_PATH"
MAPS = Path("/proc/self/maps")
"""Which libraries this process has loaded, on Linux."""

PROBE = bytes.fromhex(
    "08083a3b0a100a017812017922084964656e74697479120570726f62655a0f0a0178"
    "120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""The smallest graph there is to try a provider with: y = Identity(x), one float each (IR version 8, opset 13)."""

_LACKING = re.compile(r"\b(lib[\w.+-]+\.so[.0-9]*): cannot open shared object file")
"""How the dynamic linker says that a library is not there."""
_loading = threading.Lock()
_preloaded = False
_registered: set[str] = set()
"""Plugins that this process has registered: ONNX Runtime takes each once."""
started: set[tuple[str, ...]] = set()
"""Providers that have started in this process together; whether they do is not tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Providers:
    """Who may compute a graph, the engine's own provider first.

    Parameters
    ----------
    names : tuple of str
    options : tuple of dict
        For each of them.
    devices : tuple
        Of a plugin (``OrtEpDevice``); empty for providers that are built in.
    """

    names: tuple[str, ...]
    options: tuple[dict[str, str], ...]
    devices: tuple[Any, ...] = field(default=())


def load() -> Any:
    """The module.

    Raises
    ------
    BackendError
        If it is absent, broken or too old to be trusted with a GPU; with a clause that says so.
    """
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise BackendError(f"cannot be imported ({type(error).__name__})") from error
    if not hasattr(onnxruntime.InferenceSession, ASSIGNMENT):
        raise BackendError(
            f"onnxruntime {onnxruntime.__version__} cannot say which provider computes what; 1.24 or newer is needed"
        )
    return onnxruntime


def load_built_in(names: Sequence[str]) -> Any:
    """The module, if it was built with all these providers. Their libraries need not be there.

    Raises
    ------
    BackendError
    """
    module = load()
    if lacking := [name for name in names if name not in module.get_available_providers()]:
        raise BackendError(f"this onnxruntime was built without {' and '.join(lacking)}: {_advice()}")
    _preload(module)
    return module


def version() -> str:
    """Of every package that installs the module, the one for GPUs first; empty where that is not installed."""
    found = dict(_installed())
    if GPU_DISTRIBUTION not in found:
        return ""
    others = [f"{name} {found[name]}" for name in found if name != GPU_DISTRIBUTION]
    return ", ".join([found[GPU_DISTRIBUTION], *others])


def overlaid() -> str:
    """That several packages have written the module over each other; empty where one did."""
    names = [name for name, _ in _installed()]
    if len(names) < 2:
        return ""
    return f"{' and '.join(names)} are installed over each other, and the files are of the last: uninstall all of them"


def tensorrt_version() -> str:
    """Of the TensorRT that this process has loaded, else of the installed package.

    Raises
    ------
    BackendError
        If neither says.
    """
    with contextlib.suppress(OSError):
        if found := re.search(r"/libnvinfer\.so\.([0-9]+(?:\.[0-9]+)+)$", MAPS.read_text(), re.MULTILINE):
            return found[1]
    if said := _first_version(TENSORRT_DISTRIBUTIONS):
        return said
    raise BackendError("TensorRT does not say its version")


def plugin_version() -> str:
    """Of the installed plugin, without importing it; empty if there is none."""
    return _first_version(PLUGIN_DISTRIBUTIONS)


def plugin_device() -> tuple[Any, str, Any]:
    """The module, the plugin's name, and the GPU it would use: CUDA device 0.

    The plugin is registered with ONNX Runtime once in a process.

    Raises
    ------
    BackendError
        If the plugin is absent or cannot be loaded, or offers no GPU.
    """
    module = load()
    plugin = _import_plugin()
    name = str(plugin.get_ep_name())
    with _loading:
        if name not in _registered:
            _register(module, name, plugin)
            _registered.add(name)
    found = [device for device in module.get_ep_devices() if device.ep_name == name]
    if not found:
        raise BackendError("its plugin finds no NVIDIA RTX GPU with a driver (Ampere or newer)")
    if len(found) == 1:
        return module, name, found[0]
    # Plans are kept under CUDA's device 0; nothing says that the plugin counts in the same order.
    raise BackendError(f"its plugin finds {len(found)} GPUs: let this process see one (CUDA_VISIBLE_DEVICES)")


def _import_plugin() -> Any:
    """The plugin's Python package.

    It puts its own folder on LD_LIBRARY_PATH when it is imported. This process looked there once, when it started; its
    children would look there for every library of theirs. So the variable is put back.
    """
    before = os.environ.get(SEARCH_PATH)
    try:
        return import_module(PLUGIN)
    except ModuleNotFoundError as error:
        if error.name != PLUGIN:
            raise BackendError(f"its plugin needs {error.name}, which is not installed") from error
        raise BackendError("its plugin is not installed: pip install 'edgehem[rtx]'") from error
    except Exception as error:  # it loads libraries
        raise BackendError(f"its plugin cannot be imported ({type(error).__name__})") from None
    finally:
        if before is None:
            os.environ.pop(SEARCH_PATH, None)
        else:
            os.environ[SEARCH_PATH] = before


def _register(module: Any, name: str, plugin: Any) -> None:
    library = Path(plugin.get_library_path())
    # The package brings this one, and leaves it to be found; where no CUDA toolkit is installed it is not.
    for bundled in sorted(library.parent.glob("libcudart.so.*")):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(bundled))
    reason = ""
    try:
        module.register_execution_provider_library(name, str(library))
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        # The program that edgehem is part of may have been first.
        if "already registered" not in str(error).lower():
            lacking = _LACKING.search(str(error))
            # A library's bare name is all that is told: the text has the paths of this machine in it.
            reason = f"{lacking[1]} is not here" if lacking else type(error).__name__
            reason += DRIVER_HINT if lacking and lacking[1].startswith(DRIVER_LIBRARIES) else ""
    if reason:
        raise BackendError(f"its plugin cannot be loaded: {reason}")


def _preload(module: Any) -> None:
    """Load CUDA's libraries where NVIDIA's own wheels put them; the linker does not look there.

    ONNX Runtime prints what it does not find. Whether that matters shows when the provider is started.
    """
    global _preloaded  # noqa: PLW0603 - libraries are loaded once
    with _loading:
        if not _preloaded:
            with contextlib.suppress(Exception), _silence():
                module.preload_dlls(directory="")
            _preloaded = True


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    kept, sys.stdout = sys.stdout, io.StringIO()
    try:
        yield
    finally:
        sys.stdout = kept


def _advice() -> str:
    return overlaid() or f"uninstall onnxruntime and install {GPU_DISTRIBUTION}, which is the same module"


def _installed() -> list[tuple[str, str]]:
    """Packages that install the module, with their versions."""
    return [(name, said) for name in DISTRIBUTIONS if (said := _first_version((name,)))]


def _first_version(names: Sequence[str]) -> str:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""
