"""ONNX Runtime's providers for NVIDIA GPUs: CUDA, TensorRT, and TensorRT for RTX.

Each is an engine of its own, and takes the whole graph or none of it: where ONNX Runtime would quietly go on with the
CPU, opening fails. CUDA runs a graph operator by operator, from libraries that are there. The TensorRT ones compile it,
and what they compile is code: as with :mod:`edgehem.backends.tensorrt` it is made only with leave to build, kept as
bytes with a hash, and serves only after it was compared with the reference. ONNX Runtime writes it into the graph
(EPContext), and gets it back from memory. The caches that these providers keep on disk by themselves stay off: they
would be read unverified.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgehem import state
from edgehem.backends import BUILD_S, DEFAULT, F16, F32, OPEN_S, TF32, Build, Options
from edgehem.backends.onnxruntime_gpu import runtime
from edgehem.backends.onnxruntime_gpu.graph import Facts, facts
from edgehem.backends.onnxruntime_gpu.runtime import CPU, CUDA, PROBE, TENSORRT, Providers
from edgehem.backends.onnxruntime_gpu.session import OnnxRuntimeGpuSession, settings_for, start, taken
from edgehem.errors import BackendError, PlanError
from edgehem.plans import BUNDLE, GRAPH, MOST_PLAN_BYTES, PlanStore

__all__ = ["OnnxRuntimeCuda", "OnnxRuntimeGpuSession", "OnnxRuntimeTensorRt", "OnnxRuntimeTensorRtRtx"]

TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""At 0, no NVIDIA library uses TensorFloat-32. They read it when they are loaded."""
TOO_FEW = "1000000"
"""More operators than any graph has."""


class OnnxRuntimeCuda:
    """CUDA; see :class:`edgehem.backends.Backend`.

    No quantised form: the provider has no integer convolution, so Q/DQ pairs would be computed as written, on top of
    the float operators between them (microsoft/onnxruntime#12229, #24807).
    """

    name = "onnxruntime-cuda"
    forms = ("float16", "float")
    patience_s = OPEN_S
    on_request = False
    needs_plan = False

    def missing(self) -> str:
        """Empty when the provider can be started, which is tried."""
        return _why_not(lambda: _started((CUDA,)))

    def version(self) -> str:
        """Of onnxruntime-gpu, or empty."""
        return runtime.version()

    def arithmetics(self) -> tuple[str, ...]:
        """Float32 and TensorFloat-32, which are the same on a GPU older than Ampere; a float16 graph runs in that."""
        return (F32,) if _tf32_is_off() else (F32, TF32)

    def open(self, graph: bytes, options: Options = DEFAULT) -> OnnxRuntimeGpuSession:
        """Load a graph.

        Raises
        ------
        BackendError
            If the provider is missing or refuses the graph, would leave a part of it to the CPU, or is asked for an
            arithmetic that the GPU or the graph does not have.
        BackendMemoryError, DeviceLostError
        """
        who = "ONNX Runtime's CUDA"
        _check(options, self.arithmetics(), facts(graph), who)
        module = _started((CUDA,))
        settings = settings_for(module, options, module.GraphOptimizationLevel.ORT_ENABLE_ALL)
        providers = Providers(names=(CUDA,), options=(_cuda_options(options.arithmetic),))
        return OnnxRuntimeGpuSession(module, graph, settings, providers, who=who)


class _Compiling(ABC):
    """What both TensorRT providers have in common. Free dimensions of a graph are compiled as 1."""

    name: str
    forms = ("qdq-s8-f16", "qdq-s8", "float16", "float")
    patience_s = BUILD_S
    on_request = False
    needs_plan = True
    _who: str

    @abstractmethod
    def _module(self) -> Any:
        """onnxruntime, with the provider ready to be asked for. Raises BackendError."""

    @abstractmethod
    def _providers(self, arithmetic: str, known: Facts, build: Build | None) -> Providers:
        """Whom to ask. Raises BackendError."""

    @abstractmethod
    def _compiler(self) -> dict[str, str]:
        """What compiles, with its version, as parts of a key. Raises BackendError."""

    def missing(self) -> str:
        """Empty when the provider can be started, and the GPU says what plans for it are kept under."""
        return _why_not(lambda: (self._module(), self._compiler(), _gpu()))

    def arithmetics(self) -> tuple[str, ...]:
        """TensorFloat-32; float32 in its place where the GPU is older, or NVIDIA_TF32_OVERRIDE is 0.

        Neither provider has a switch for it (microsoft/onnxruntime#26029), so never both.

        Raises
        ------
        BackendError
        """
        if _tf32_is_off():
            return (F32,)
        from edgehem.gpu import has_tf32

        return (TF32,) if has_tf32(_gpu()) else (F32,)

    def open(self, graph: bytes, options: Options = DEFAULT) -> OnnxRuntimeGpuSession:
        """Load the graph's qualified plan; with leave to build, make a new one.

        Raises
        ------
        PlanError
            If there is no plan that may serve.
        BackendError
            If the provider is missing, refuses the graph or the plan, or is asked for an arithmetic that the GPU or
            the graph does not have.
        BackendMemoryError, DeviceLostError
        """
        known = facts(graph)
        _check(options, self.arithmetics(), known, self._who)
        module = self._module()
        key = self._key(module, graph, options, known)
        store = None if options.cache is None else PlanStore(options.cache)
        if options.build is not None:
            return self._built(module, graph, options, options.build, known, key, store)
        if store is None:
            raise PlanError(f"{self._who} serves only plans that were made and compared before: run edgehem compile")
        content, record = store.load(self.name, key)
        session = self._session(module, content, options, known)
        session.plan = record.id
        return session

    def _built(
        self,
        module: Any,
        graph: bytes,
        options: Options,
        build: Build,
        known: Facts,
        key: dict[str, str],
        store: PlanStore | None,
    ) -> OnnxRuntimeGpuSession:
        reads, answers, free = self._declared(module, graph, options)
        providers = self._providers(options.arithmetic, known, build)
        content, operators = self._compiled(module, graph, options, providers, free)
        session = self._session(module, content, options, known)
        # Older releases write down the part they took, and nothing of the rest.
        if {port.name for port in session.inputs} != reads:
            raise BackendError(f"{self._who} made a plan of a part of the graph only: it reads something else")
        if set(session.outputs) != answers:
            raise BackendError(f"{self._who} made a plan of a part of the graph only: it answers something else")
        if store is not None:
            settings = {name: dict(chosen) for name, chosen in zip(providers.names, providers.options, strict=True)}
            try:
                session.plan = store.keep(self.name, key, content, settings=settings, details={"operators": operators})
            except OSError as error:
                raise BackendError(f"the plan cannot be kept ({error.strerror or error})") from error
        return session

    def _declared(self, module: Any, graph: bytes, options: Options) -> tuple[set[str], set[str], list[str]]:
        """What the graph reads, what it answers, and the names of its free dimensions: asked of the CPU's provider."""
        settings = settings_for(module, options, module.GraphOptimizationLevel.ORT_DISABLE_ALL)
        on_cpu = Providers(names=(CPU,), options=({},))
        session = start(module, graph, settings, on_cpu, f"{self._who} refuses the graph")
        free = {size for port in session.get_inputs() for size in port.shape if not isinstance(size, int)}
        if None in free:
            raise BackendError(
                f"{self._who} compiles for fixed shapes, and a free dimension of the graph has no name to fix it by"
            )
        reads, answers = session.get_inputs(), session.get_outputs()
        return {port.name for port in reads}, {port.name for port in answers}, sorted(free)

    def _compiled(
        self, module: Any, graph: bytes, options: Options, providers: Providers, free: list[str]
    ) -> tuple[bytes, dict[str, int]]:
        """The graph with the engine inside, and how many operators each provider took.

        The file it goes through lies in a folder of this user alone, which is new: nothing that was there before can
        get into it, and what is run and kept are the bytes that were read back.
        """
        # Basic: folds constants, and leaves every operator one that TensorRT knows.
        settings = settings_for(module, options, module.GraphOptimizationLevel.ORT_ENABLE_BASIC)
        for name in free:
            settings.add_free_dimension_override_by_name(name, 1)
        try:
            with tempfile.TemporaryDirectory(prefix="edgehem-plan-") as folder:
                path = Path(folder) / "plan.onnx"
                settings.add_session_config_entry("ep.context_enable", "1")
                settings.add_session_config_entry("ep.context_embed_mode", "1")
                settings.add_session_config_entry("ep.context_file_path", str(path))
                session = start(module, graph, settings, providers, f"{self._who} refuses the graph")
                operators = taken(session, providers, self._who)
                del session
                content = state.read_private(path, most=MOST_PLAN_BYTES)
        except FileNotFoundError:
            raise BackendError(f"{self._who} compiles the graph, and ONNX Runtime writes no plan of it") from None
        except OSError as error:
            raise BackendError(f"the plan cannot be read ({error.strerror or 'too large, or not private'})") from None
        made = facts(content)
        if not made.engines or made.outside:
            raise BackendError(f"{self._who} made a plan without its engine inside")
        return content, operators

    def _session(self, module: Any, content: bytes, options: Options, known: Facts) -> OnnxRuntimeGpuSession:
        """A session of a plan's bytes. They are not optimised again: ONNX Runtime asks for that."""
        settings = settings_for(module, options, module.GraphOptimizationLevel.ORT_DISABLE_ALL)
        providers = self._providers(options.arithmetic, known, None)
        return OnnxRuntimeGpuSession(module, content, settings, providers, who=self._who, fixed=True)

    def _key(self, module: Any, graph: bytes, options: Options, known: Facts) -> dict[str, str]:
        """Everything that decides a plan. What a build may cost is not in it: who loads a plan does not know it."""
        return {
            GRAPH: hashlib.sha256(graph).hexdigest(),
            BUNDLE: options.bundle,
            "arithmetic": options.arithmetic,
            "onnxruntime": str(module.__version__),
            **self._compiler(),
            "settings": json.dumps(self._providers(options.arithmetic, known, None).options, sort_keys=True),
            "batch": "1",
            **_gpu(),
        }


class OnnxRuntimeTensorRt(_Compiling):
    """TensorRT, and CUDA for operators that it does not take; see :class:`edgehem.backends.Backend`."""

    name = "onnxruntime-tensorrt"
    _who = "ONNX Runtime's TensorRT"

    def version(self) -> str:
        """Of onnxruntime-gpu, or empty."""
        return runtime.version()

    def _module(self) -> Any:
        return _started((TENSORRT, CUDA))

    def _compiler(self) -> dict[str, str]:
        return {"TensorRT": runtime.tensorrt_version()}

    def _providers(self, arithmetic: str, known: Facts, build: Build | None) -> Providers:
        chosen = {
            "device_id": "0",
            # TensorRT up to 10 takes these types only where it is told to, whatever the graph is written in.
            "trt_fp16_enable": str(arithmetic == F16),
            "trt_int8_enable": str(known.quantised),
            "trt_engine_cache_enable": "False",
            "trt_timing_cache_enable": "False",
            "trt_dump_subgraphs": "False",
        }
        if build is not None:
            chosen["trt_max_workspace_size"] = str(build.workspace_mib << 20)
            if build.level is not None:
                chosen["trt_builder_optimization_level"] = str(build.level)
        return Providers(names=(TENSORRT, CUDA), options=(chosen, _cuda_options(arithmetic)))


class OnnxRuntimeTensorRtRtx(_Compiling):
    """TensorRT for RTX, a plugin of NVIDIA's; see :class:`edgehem.backends.Backend`. Needs [rtx].

    It takes precisions from the graph alone. What it compiles is finished for the GPU when it is loaded, at each start.
    """

    name = "onnxruntime-tensorrt-rtx"
    _who = "ONNX Runtime's TensorRT-RTX"

    def version(self) -> str:
        """Of the plugin, or empty."""
        return runtime.plugin_version()

    def _module(self) -> Any:
        return runtime.plugin_device()[0]

    def _compiler(self) -> dict[str, str]:
        return {"TensorRT-RTX plugin": runtime.plugin_version() or "of no version"}

    def _providers(self, arithmetic: str, known: Facts, build: Build | None) -> Providers:
        _, name, device = runtime.plugin_device()
        chosen = {} if build is None else {"nv_max_workspace_size": str(build.workspace_mib << 20)}
        return Providers(names=(name,), options=(chosen,), devices=(device,))


def _started(names: tuple[str, ...]) -> Any:
    """onnxruntime, in which these providers have started once, on the smallest graph there is.

    Raises
    ------
    BackendError
    """
    module = runtime.load_built_in(names)
    if names in runtime.started:
        return module
    options = {CUDA: _cuda_options(F32), TENSORRT: {"device_id": "0", "trt_min_subgraph_size": TOO_FEW}}
    try:
        start(
            module,
            PROBE,
            settings_for(module, DEFAULT, module.GraphOptimizationLevel.ORT_DISABLE_ALL),
            Providers(names=names, options=tuple(options[name] for name in names)),
            "a trial",
        )
    except BackendError as error:
        if aside := runtime.overlaid():
            raise BackendError(f"{error}; {aside}") from None
        raise
    runtime.started.add(names)
    return module


def _cuda_options(arithmetic: str) -> dict[str, str]:
    return {
        "device_id": "0",
        # On by default in ONNX Runtime.
        "use_tf32": "1" if arithmetic == TF32 else "0",
        # Grown by what is needed, not to the next power of two: other engines live on the same device.
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE, the default, times the algorithms at the first run of each shape, for seconds, and may choose
        # another one at each start: what was compared with the reference would not be what serves. HEURISTIC asks
        # cuDNN, which answers the same each time; it may miss the fastest one.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Copies on a stream of their own would be a race (microsoft/onnxruntime#4829).
        "do_copy_in_default_stream": "1",
    }


def _check(options: Options, can: tuple[str, ...], known: Facts, who: str) -> None:
    if not options.optimise:
        # Providers rewrite what they take, whatever ONNX Runtime's own level is.
        raise BackendError(f"{who} cannot run a graph without optimising it")
    if known.float16 != (options.arithmetic == F16):
        written = "float16" if known.float16 else "float32"
        raise BackendError(f"{who} computes a graph in what it is written in, {written}, not in {options.arithmetic}")
    if options.arithmetic not in (*can, F16):
        why = f" ({TF32_OVERRIDE}=0 turns the one into the other)" if {options.arithmetic, *can} == {F32, TF32} else ""
        raise BackendError(f"{who} computes in {', '.join(can)} here, not in {options.arithmetic}{why}")


def _tf32_is_off() -> bool:
    return os.environ.get(TF32_OVERRIDE) == "0"


def _gpu() -> dict[str, str]:
    # Late: it is pycuda's, which the CUDA provider does without.
    from edgehem import gpu
    from edgehem.kernels.errors import KernelError

    try:
        return gpu.key_parts(0)
    except KernelError as error:
        raise BackendError(str(error)) from error


def _why_not(trial: Callable[[], object]) -> str:
    try:
        trial()
    except BackendError as error:
        return str(error)
    return ""
