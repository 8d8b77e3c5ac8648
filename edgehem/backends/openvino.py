"""OpenVINO on the CPU: usually the fastest there, with bfloat16 and int8 where the CPU has them. Needs [cpu].

What OpenVINO compiled can be kept for the next start. Its own cache (CACHE_DIR) takes a damaged file without noticing,
and the numbers are then wrong; so the plans are kept here, with their hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import sys
import threading
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem import state
from edgehem.backends import BF16, DEFAULT, F16, F32, OPEN_S, Options
from edgehem.errors import BackendError
from edgehem.machine import usable_cpus

_log = logging.getLogger(__name__)

DEVICE = "CPU"
_CAPABILITIES = {BF16: "BF16", F16: "FP16"}
"""How a device says that it computes in these natively; float32 it always has."""

MOST_PLAN_BYTES = 2**30
MOST_PLANS = 16
"""Plans kept at most; the oldest go."""

_TELEMETRY = "openvino_telemetry"
_loading = threading.Lock()


class OpenVino:
    """The backend; see :class:`edgehem.backends.Backend`."""

    name = "openvino"
    # uint8 first: OpenVINO rounds wrongly where int8 follows a Concat (docs/engines.md).
    forms = ("float", "qdq-u8", "qdq-s8")
    patience_s = OPEN_S
    on_request = False
    needs_plan = False

    def missing(self) -> str:
        """Empty when openvino can be imported and has a CPU device."""
        try:
            devices = core().available_devices
        except (ImportError, OSError) as error:
            return f"cannot be imported ({type(error).__name__}): pip install 'edgehem[cpu]'"
        except RuntimeError as error:
            return f"cannot be started ({type(error).__name__})"
        return "" if DEVICE in devices else f"has no {DEVICE} device"

    def version(self) -> str:
        """Of the installed package, or empty."""
        try:
            return metadata.version("openvino")
        except metadata.PackageNotFoundError:
            return ""

    def arithmetics(self) -> tuple[str, ...]:
        """Float32, and what else the CPU has instructions for, by the device's own list of capabilities.

        Raises
        ------
        BackendError
        """
        try:
            has = core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendError(f"OpenVINO does not say what this CPU can do ({type(error).__name__})") from error
        return (F32, *(name for name, word in _CAPABILITIES.items() if word in has))

    def open(self, graph: bytes, options: Options = DEFAULT) -> OpenVinoSession:
        """Compile a graph, or load it from a plan of an earlier start.

        Raises
        ------
        BackendError
            If OpenVINO refuses it, or the CPU lacks the arithmetic (OpenVINO itself would take another one).
        """
        if not options.optimise:
            raise BackendError("OpenVINO cannot run a graph without optimising it")
        if options.arithmetic not in (can := self.arithmetics()):
            raise BackendError(f"OpenVINO computes in {', '.join(can)} on this CPU, not in {options.arithmetic}")
        return OpenVinoSession(graph, options)


class OpenVinoSession:
    """A compiled graph: one stream of as many threads as the process may use, one infer request for each caller.

    Free dimensions are compiled as 1, which is 1.2 to 1.6 times as fast as leaving them free; inputs of another shape
    get a second compilation that leaves them free, when the first of them comes.
    """

    def __init__(self, graph: bytes, options: Options = DEFAULT) -> None:
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(options.threads or usable_cpus()),
            "INFERENCE_PRECISION_HINT": options.arithmetic,
            # Several processes would all be pinned to the same CPUs.
            "ENABLE_CPU_PINNING": "NO",
        }
        self._local = threading.local()
        self._widening = threading.Lock()
        self._wide: Any = None
        try:
            self._core = core()
            self._model: Any = self._core.read_model(graph)
            self._declared = {port.any_name: _declared(port) for port in self._model.inputs}
            self._narrow: Any = self._compiled_narrow(graph, options.cache)
            # Asked of the model: what a plan brings back has the names too, but in no promised order.
            self._outputs = [port.any_name for port in self._model.outputs]
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise BackendError(f"OpenVINO refuses the graph ({type(error).__name__})") from error

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph. Arrays that are C-contiguous and writeable are read where they are.

        Raises
        ------
        BackendError
            If the inputs are not what the graph declares, or the run fails.
        """
        narrow = self._check(inputs)
        try:
            # Outputs are copied: the next run writes to the request's own memory.
            results = self._request(narrow).infer(dict(inputs), share_inputs=True, share_outputs=False)
            return {name: results[name] for name in self._outputs}
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise BackendError(f"OpenVINO failed while running the graph ({type(error).__name__})") from error

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether the narrow compilation fits. OpenVINO itself would run with what it was given the last time for an
        input that is missing, and would convert what is of another type."""
        if inputs.keys() != self._declared.keys():
            raise BackendError(
                f"OpenVINO failed: the graph reads {', '.join(self._declared)}, and was given {', '.join(inputs)}"
            )
        narrow = True
        for name, array in inputs.items():
            shape, dtype = self._declared[name]
            fits = len(shape) == array.ndim and all(
                want in (None, have) for want, have in zip(shape, array.shape, strict=True)
            )
            if not fits or array.dtype != dtype:
                raise BackendError(
                    f"OpenVINO failed: the graph reads {name} as {dtype} {_said(shape)}, "
                    f"and was given {array.dtype} {_said(array.shape)}"
                )
            narrow &= all(have == 1 for want, have in zip(shape, array.shape, strict=True) if want is None)
        return narrow

    def _request(self, narrow: bool) -> Any:
        """This thread's own infer request."""
        name = "narrow" if narrow else "wide"
        request = getattr(self._local, name, None)
        if request is None:
            compiled = self._narrow if narrow else self._compiled_wide()
            request = compiled.create_infer_request()
            setattr(self._local, name, request)
        return request

    def _compiled_wide(self) -> Any:
        with self._widening:
            if self._wide is None:
                self._wide = self._core.compile_model(self._model, DEVICE, self._settings)
            return self._wide

    def _compiled_narrow(self, graph: bytes, cache: Path | None) -> Any:
        path = None if cache is None else cache / f"openvino-{self._key(graph)}.plan"
        if path is not None and (plan := read_plan(path)) is not None:
            try:
                return self._core.import_model(io.BytesIO(plan), DEVICE, self._settings)
            except (RuntimeError, TypeError) as error:
                _log.warning("OpenVINO does not take a plan it made before (%s): compiling.", type(error).__name__)
        model = self._model.clone()
        shapes = {name: [size or 1 for size in shape] for name, (shape, _) in self._declared.items()}
        model.reshape(shapes)
        compiled = self._core.compile_model(model, DEVICE, self._settings)
        if path is not None:
            keep_plan(path, compiled)
        return compiled

    def _key(self, graph: bytes) -> str:
        """What a plan depends on: graph, engine, CPU, settings."""
        parts = {
            "graph": hashlib.sha256(graph).hexdigest(),
            "openvino": [version.build_number for version in self._core.get_versions(DEVICE).values()],
            "cpu": self._core.get_property(DEVICE, "FULL_DEVICE_NAME"),
            "can": sorted(self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
            "settings": self._settings,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def read_plan(path: Path) -> bytes | None:
    """A plan whose hash is right, from a folder of this user alone; None, and why in the log, for any other."""
    try:
        return state.read_sealed(path, most=MOST_PLAN_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("A plan for OpenVINO is not used: %s.", error)
        return None


def keep_plan(path: Path, compiled: Any) -> None:
    """Keep a plan for the next start. Where that fails, it is said and no more."""
    try:
        content = compiled.export_model()
        plan = content if isinstance(content, bytes) else content.getvalue()
        state.write_sealed(path, plan)
    except (OSError, RuntimeError) as error:
        _log.warning("OpenVINO's plan is not kept for the next start: %s.", error)
        return
    state.keep_newest(path.parent, "openvino-*.plan", MOST_PLANS)


_core: Any = None


def core() -> Any:
    """The process' one OpenVINO core.

    Raises
    ------
    ImportError, OSError, RuntimeError
        If openvino is absent or broken.
    """
    global _core  # noqa: PLW0603 - made once: plugins are loaded with it
    with _loading:
        if _core is None:
            _core = _silent_import().Core()
        return _core


def _silent_import() -> ModuleType:
    """Import openvino without its reporting.

    The package reports to Google Analytics when it is imported, and keeps an identifier in the home folder, unless
    ``openvino_telemetry`` cannot be imported: then it has a stub of its own in its place. A device in a hospital must
    report to nobody. Where the program has imported openvino before, it is too late, and was not edgehem's doing.
    """
    absent = object()
    before: Any = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # what makes an import fail, see the import system
    try:
        return import_module("openvino")
    finally:
        if before is absent:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before


def _declared(port: Any) -> tuple[tuple[int | None, ...], np.dtype[Any]]:
    """Shape (None is free) and type of an input."""
    sizes = tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
    return sizes, np.dtype(port.element_type.to_dtype())


def _said(shape: tuple[int | None, ...]) -> str:
    return "×".join("any" if size is None else str(size) for size in shape) or "single value"
