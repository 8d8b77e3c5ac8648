"""A fake tensorrt on a fake GPU (tests/kernels/fake_pycuda.py): for the control flow of the TensorRT backend.

A plan is a header and the ONNX. An engine puts its work onto the fake stream, where it is done as late as CUDA allows:
it reads what then lies at the addresses it was given, computes with ONNX Runtime on the CPU, and writes what it gives.
Nothing is forgiven: what TensorRT would take badly, or might, is a MisuseError, at once or at the end of the test.

What real bindings do was read in NVIDIA's stubs (10.13) and seen in TensorRT for RTX 1.7.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from enum import Enum, IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

MAGIC, TIMING = b"fake plan ", b"fake timing "
TYPES = {
    "tensor(float)": "FLOAT",
    "tensor(float16)": "HALF",
    "tensor(bfloat16)": "BF16",
    "tensor(int8)": "INT8",
    "tensor(int64)": "INT64",
}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT64": np.int64}
NO_OBJECT = "pybind11::init(): factory function returned nullptr"

Severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE", "DLA_MANAGED_SRAM", "TACTIC_DRAM"])
DeviceType = Enum("DeviceType", ["GPU", "DLA"])
ProfilingVerbosity = Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "NONE", "DETAILED"])
LayerInformationFormat = Enum("LayerInformationFormat", ["ONELINE", "JSON"])
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
TensorLocation = Enum("TensorLocation", ["DEVICE", "HOST"])
TensorFormat = Enum("TensorFormat", ["LINEAR", "CHW32"])
DataType = Enum("DataType", ["FLOAT", "HALF", "BF16", "INT8", "INT64"])
COMMON_FLAGS = ("GPU_FALLBACK", "TF32", "VERSION_COMPATIBLE")
REMOVED_IN_11 = ("FP16", "INT8", "BF16", "PREFER_PRECISION_CONSTRAINTS")


class FakeTensorRt:
    """One fake installation, on one fake machine.

    Parameters
    ----------
    cuda : FakeCuda
    version : str
    strongly_typed : int or None, optional
        Value of that flag; None where there is none. By default what it is in a release.
    dla_cores : int

    Attributes
    ----------
    module
        What to put into sys.modules.
    calls : Counter
    failures : dict of str to anything
        What is to go wrong: see where :meth:`failing` is asked.
    traits : dict of str to anything
        What is unusual about engines that are built from now on; it is written into their plans.
    misuses : list of str
        What was noticed where nothing could be raised.
    """

    def __init__(
        self, cuda: Any, *, version: str = "10.3.0.26", strongly_typed: int | str | None = "usual", dla_cores: int = 0
    ) -> None:
        self.cuda, self.version, self.dla_cores = cuda, version, dla_cores
        self.misuse_error: type[Exception] = cuda.module.MisuseError
        major = int(version.partition(".")[0])
        self.strongly_typed = (1 if major < 11 else 0) if strongly_typed == "usual" else strongly_typed
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, Any] = {}
        self.traits: dict[str, Any] = {}
        self.misuses: list[str] = []
        self.alive: weakref.WeakSet[Made] = weakref.WeakSet()
        self.loggers: list[weakref.ref[Any]] = []
        self.told: dict[str, Any] = {}
        network_flags = {"EXPLICIT_BATCH": 5}
        if self.strongly_typed is not None:
            network_flags["STRONGLY_TYPED"] = self.strongly_typed
        flags = COMMON_FLAGS if major >= 11 else (*COMMON_FLAGS, *REMOVED_IN_11)
        self.module = ModuleType("tensorrt")
        self.enums = SimpleNamespace(
            NetworkDefinitionCreationFlag=IntEnum("NetworkDefinitionCreationFlag", network_flags),
            BuilderFlag=Enum("BuilderFlag", flags),
            MemoryPoolType=MemoryPoolType,
            DeviceType=DeviceType,
            ProfilingVerbosity=ProfilingVerbosity,
            LayerInformationFormat=LayerInformationFormat,
            TensorIOMode=TensorIOMode,
            TensorLocation=TensorLocation,
            TensorFormat=TensorFormat,
            DataType=DataType,
        )
        vars(self.module).update(vars(self.enums))
        vars(self.module).update(
            __version__=version,
            ILogger=type("ILogger", (Trampoline,), {"Severity": Severity, "log": None}),
            IProgressMonitor=type("IProgressMonitor", (Trampoline,), {}),
            Builder=lambda logger: Builder(self, logger),
            OnnxParser=lambda network, logger: OnnxParser(self, network, logger),
            Runtime=lambda logger: Runtime(self, logger),
            nptype=nptype,
        )

    def failing(self, what: str) -> Any:
        """What a test asked to go wrong, or None. It goes wrong until the test takes it back."""
        return self.failures.get(what)

    def misuse(self, text: str) -> Exception:
        self.misuses.append(text)
        return self.misuse_error(text)

    def device(self) -> str:
        major, minor = self.cuda.capability
        return f"sm_{major}{minor}"

    def settled(self) -> None:
        """Raise if anything is left, or was noticed where nothing could be raised."""
        if self.misuses:
            raise self.misuse_error("; ".join(self.misuses))
        if self.cuda.fault is None and (left := sorted(type(made).__name__ for made in self.alive)):
            raise self.misuse_error(f"never freed: {', '.join(left)}")


def nptype(kind: DataType) -> Any:
    """tensorrt.nptype."""
    if kind.name not in NUMPY:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return NUMPY[kind.name]


class Trampoline:
    """Base of what Python may derive from: without its own __init__ the real ones end in a TypeError, or worse."""

    def __init__(self) -> None:
        self.initialised = True


class Made:
    """What TensorRT makes: of one thread, under a context, with a logger that has to live as long."""

    needs_context = True

    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        self.trt, self.thread = trt, threading.get_ident()
        if not getattr(logger, "initialised", False):
            raise trt.misuse("a logger that never called its base's __init__")
        self.logger = weakref.ref(logger)
        trt.alive.add(self)
        weakref.finalize(logger, Made.orphaned, weakref.ref(self)).atexit = False
        trt.calls[type(self).__name__] += 1
        self.used("made")

    @staticmethod
    def orphaned(made: weakref.ref[Made]) -> None:
        if (left := made()) is not None:
            left.trt.misuse(f"the logger of a {type(left).__name__} went before it")

    def used(self, what: str) -> None:
        """Check who calls."""
        name = f"{type(self).__name__}.{what}"
        if threading.get_ident() != self.thread:
            raise self.trt.misuse(f"{name} on another thread than it was made on")
        if not self.trt.cuda.stack:
            raise self.trt.misuse(f"{name} without a current context")

    def log(self, severity: Severity, text: str) -> None:
        logger = self.logger()
        if logger is None:
            raise self.trt.misuse("the logger is gone")
        # From a thread of TensorRT's own, as it does.
        thread = threading.Thread(target=logger.log, args=(severity, text))
        thread.start()
        thread.join()

    def fail(self, text: str) -> None:
        self.log(Severity.ERROR, text)

    def __del__(self) -> None:
        if not hasattr(self, "logger") or self.trt.cuda.fault is not None:  # never made; a lost context takes it along
            return
        name = type(self).__name__
        if threading.get_ident() != self.thread:
            self.trt.misuse(f"a {name} was freed on another thread than it was made on")
        if not self.trt.cuda._stacks.get(threading.get_ident()):
            self.trt.misuse(f"a {name} was freed without a current context")
        if any(stream.work for stream in self.trt.cuda.streams):
            self.trt.misuse(f"a {name} was freed while work was in flight")


class HostMemory:
    """tensorrt.IHostMemory: bytes() takes it."""

    def __init__(self, content: bytes) -> None:
        self.content, self.nbytes = content, len(content)

    def __bytes__(self) -> bytes:
        return self.content


# Building


class Graph:
    """What is understood of an ONNX."""

    def __init__(self, content: bytes) -> None:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 4
        self.content = content
        self.session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        self.inputs = {port.name: port for port in self.session.get_inputs()}
        self.outputs = {port.name: port for port in self.session.get_outputs()}

    def shape(self, name: str, sizes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Of an input or output, when inputs have these sizes; -1 where that does not follow."""
        free: dict[str, int] = {}
        for given, found in sizes.items():
            free |= {dim: size for dim, size in zip(self.inputs[given].shape, found, strict=True) if size >= 0}
        return tuple(
            free.get(dim, dim if isinstance(dim, int) else -1) for dim in (self.inputs | self.outputs)[name].shape
        )


class Network(Made):
    def __init__(self, trt: FakeTensorRt, builder: Builder) -> None:
        super().__init__(trt, builder.logger())
        self.builder = builder  # the bindings keep it alive
        self.graph: Graph | None = None

    @property
    def num_inputs(self) -> int:
        return len(self.graph.inputs) if self.graph else 0

    def get_input(self, index: int) -> SimpleNamespace:
        self.used("get_input")
        assert self.graph is not None
        name = list(self.graph.inputs)[index]
        return SimpleNamespace(name=name, shape=self.graph.shape(name, {}))


class OnnxParser(Made):
    def __init__(self, trt: FakeTensorRt, network: Network, logger: Any) -> None:
        if not isinstance(network, Network):
            raise TypeError("__init__(): incompatible constructor arguments.")
        super().__init__(trt, logger)
        self.network = network
        self.errors: list[tuple[str, str, str]] = []

    def parse(self, model: bytes) -> bool:
        self.used("parse")
        assert type(model) is bytes
        for text in self.trt.failing("parser warns") or ():
            self.log(Severity.WARNING, text)
        if (refused := self.trt.failing("parse")) is not None:
            self.errors = refused
            return False
        try:
            self.network.graph = Graph(model)
        except Exception:
            self.errors = [("", "", "Failed to parse the ONNX model.")]
            return False
        return True

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> SimpleNamespace:
        operator, name, text = self.errors[index]
        return SimpleNamespace(desc=lambda: text, node_name=lambda: name, node_operator=lambda: operator)


class Profile:
    """tensorrt.IOptimizationProfile."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class TimingCache:
    """tensorrt.ITimingCache."""

    def __init__(self, version: str, device: str, graphs: Sequence[str] = ()) -> None:
        self.version, self.device, self.graphs = version, device, list(graphs)

    def serialize(self) -> HostMemory:
        return HostMemory(TIMING + json.dumps(vars(self)).encode())


class Config(Made):
    """tensorrt.IBuilderConfig: no attribute may be set that it does not have."""

    SETTINGS = (
        "builder_optimization_level", "default_device_type", "DLA_core", "profiling_verbosity", "progress_monitor"
    )  # fmt: skip
    OWN = ("trt", "thread", "logger", "flags", "pools", "profiles", "cache", "builder")

    def __init__(self, trt: FakeTensorRt, builder: Builder) -> None:
        self.builder = builder
        self.flags, self.pools, self.profiles = {trt.module.BuilderFlag.TF32}, {}, []
        self.cache: TimingCache | None = None
        self.builder_optimization_level, self.default_device_type, self.DLA_core = 3, DeviceType.GPU, -1
        self.profiling_verbosity, self.progress_monitor = ProfilingVerbosity.LAYER_NAMES_ONLY, None
        super().__init__(trt, builder.logger())

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in (*self.SETTINGS, *self.OWN):
            raise AttributeError(f"IBuilderConfig has no {name}")
        super().__setattr__(name, value)

    def set_flag(self, flag: Any) -> None:
        self.used("set_flag")
        self.flags.add(self.trt.module.BuilderFlag(flag))

    def clear_flag(self, flag: Any) -> None:
        self.used("clear_flag")
        self.flags.discard(self.trt.module.BuilderFlag(flag))

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[MemoryPoolType(pool)] = pool_size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.used("add_optimization_profile")
        if text := self.trt.failing("profile"):
            self.fail(text)
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        self.used("create_timing_cache")
        if serialized_timing_cache == b"":
            return TimingCache(self.trt.version, self.trt.device())
        try:
            return TimingCache(**json.loads(serialized_timing_cache.removeprefix(TIMING)))
        except ValueError:
            # As seen: an empty one, and words in the log.
            self.fail("the timing cache is of another kind")
            self.log(Severity.WARNING, "Failed to deserialize timing cache. Returning an empty timing cache.")
            return TimingCache(self.trt.version, self.trt.device()) if not self.trt.failing("timing") else None

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, TimingCache):
            raise TypeError("set_timing_cache(): incompatible function arguments.")
        assert ignore_mismatch is False, "edgehem takes none of another device"
        if (cache.version, cache.device) != (self.trt.version, self.trt.device()):
            self.fail("the timing cache is of another device")
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.cache


class Builder(Made):
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        if trt.failing("builder"):
            logger.log(Severity.ERROR, trt.failing("builder"))
            raise TypeError(NO_OBJECT)
        super().__init__(trt, logger)

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return self.trt.dla_cores

    def create_network(self, flags: int = 0) -> Network | None:
        self.used("create_network")
        bit = self.trt.strongly_typed
        known = 1 << 5 | (0 if bit is None else 1 << bit)
        if flags & ~known or self.trt.failing("network"):
            self.fail("unknown network flags")
            return None
        if self.trt.version.startswith("10.") and not flags & (1 << (bit or 0)):
            raise self.trt.misuse("a network that is not strongly typed")
        return Network(self.trt, self)

    def create_builder_config(self) -> Config:
        self.used("create_builder_config")
        return Config(self.trt, self)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> HostMemory | None:
        self.used("build_serialized_network")
        graph = network.graph
        assert graph is not None
        (profile,) = config.profiles
        for name in graph.inputs:
            if any(dims != profile.shapes[name][0] or min(dims) < 0 for dims in profile.shapes[name]):
                raise self.trt.misuse(f"a profile of several shapes for {name}")
        for text in self.trt.failing("build warns") or ():
            self.log(Severity.WARNING, text)
        if not self.progress(config.progress_monitor):
            return None
        if (text := self.trt.failing("build")) is not None:
            if text:
                self.fail(text)
            return None
        digest = hashlib.sha256(graph.content).hexdigest()
        assert config.cache is not None
        self.trt.told = {
            "known timing": digest in config.cache.graphs,
            "flags": sorted(flag.name for flag in config.flags),
            "workspace": config.pools[MemoryPoolType.WORKSPACE],
            "level": config.builder_optimization_level,
        }
        config.cache.graphs.append(digest)
        self.trt.calls["build"] += 1
        on_dla = config.default_device_type is DeviceType.DLA
        if on_dla and self.trt.module.BuilderFlag.GPU_FALLBACK not in config.flags:
            self.fail("a layer cannot run on the DLA")
            return None
        header = {
            "version": self.trt.version,
            "device": self.trt.device(),
            "shapes": {name: shapes[0] for name, shapes in profile.shapes.items()},
            "dla": config.DLA_core if on_dla else None,
            "detailed": config.profiling_verbosity is ProfilingVerbosity.DETAILED,
            "bytes": len(graph.content),
            "serial": self.trt.calls["build"],  # no two builds are the same
            "traits": self.trt.traits,
        }
        return HostMemory(MAGIC + json.dumps(header).encode() + b"\n" + graph.content)

    def progress(self, monitor: Any) -> bool:
        if monitor is None:
            return True
        assert monitor.initialised
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Timing", "Building engine", 3)
        going = all([monitor.step_complete("Timing", 0), monitor.step_complete("Building engine", 0)])
        monitor.phase_finish("Timing")
        going = monitor.step_complete("Building engine", 1) and going
        monitor.phase_finish("Building engine")
        return going


# Running


class Runtime(Made):
    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        if trt.failing("runtime"):
            raise TypeError(NO_OBJECT)
        super().__init__(trt, logger)
        self.DLA_core = -1

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        self.used("deserialize_cuda_engine")
        assert type(serialized_engine) is bytes
        if text := self.trt.failing("deserialize"):
            self.fail(text)
            return None
        head, _, content = serialized_engine.partition(b"\n")
        try:
            header = json.loads(head.removeprefix(MAGIC))
        except ValueError:
            self.fail("Magic tag does not match")
            return None
        if len(content) != header["bytes"]:
            raise self.trt.misuse("a damaged plan: TensorRT would have run it")
        if (header["version"], header["device"]) != (self.trt.version, self.trt.device()):
            self.fail("Version tag does not match, or the plan is of another device")
            return None
        if header["dla"] is not None and header["dla"] != self.DLA_core:
            self.fail("the plan is of another DLA core")
            return None
        return Engine(self.trt, self, header, Graph(content))


class Engine(Made):
    """tensorrt.ICudaEngine. The bindings keep the runtime alive for it; here that is edgehem's to do."""

    def __init__(self, trt: FakeTensorRt, runtime: Runtime, header: dict[str, Any], graph: Graph) -> None:
        super().__init__(trt, runtime.logger())
        self.runtime, self.header, self.graph, self.traits = weakref.ref(runtime), header, graph, header["traits"]
        self.num_layers = 2
        self.num_optimization_profiles = self.traits.get("profiles", 1)
        self.names = [*graph.inputs, *graph.outputs]
        self.num_io_tensors = len(self.names)

    def __del__(self) -> None:
        if hasattr(self, "runtime") and self.runtime() is None and self.trt.cuda.fault is None:
            self.trt.misuse("a runtime went before its engine")
        super().__del__()

    def get_tensor_name(self, index: int) -> str:
        self.used("get_tensor_name")
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.graph.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[TYPES[(self.graph.inputs | self.graph.outputs)[name].type]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.traits.get("host", ()) else TensorLocation.DEVICE

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat.CHW32 if name in self.traits.get("vectorised", ()) else TensorFormat.LINEAR

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        if name not in self.graph.inputs or profile_index != 0:
            raise self.trt.misuse(f"{name} has no shapes in profile {profile_index}")
        most = tuple(self.header["shapes"][name])
        least = tuple(self.traits.get("least", {}).get(name, most))
        return [least, most, most]

    def create_execution_context(self) -> Context | None:
        self.used("create_execution_context")
        if text := self.trt.failing("context"):
            self.fail(text)
            return None
        return Context(self.trt, self)

    def create_engine_inspector(self) -> SimpleNamespace:
        self.used("create_engine_inspector")
        return SimpleNamespace(get_engine_information=self.information)

    def information(self, form: LayerInformationFormat) -> str:
        assert form is LayerInformationFormat.JSON
        if (told := self.trt.failing("inspector")) is not None:
            return str(told)
        if not self.header["detailed"]:
            return json.dumps({"Layers": ["conv", "pool"]})
        word = "Format/Datatype" if self.trt.version.startswith("10.") else "Datatype"
        layers = [
            {"Name": "conv", "LayerType": "Convolution", "Outputs": [{"Name": "x", word: "INT8"}]},
            {"Name": "pool", "LayerType": "Pooling", "Outputs": [{"Name": "y", word: "FP32"}]},
        ]
        return json.dumps({"Layers": layers, "Bindings": self.names})


class Context(Made):
    """tensorrt.IExecutionContext."""

    def __init__(self, trt: FakeTensorRt, engine: Engine) -> None:
        super().__init__(trt, engine.logger())
        self.engine, self.graph, self.traits = weakref.ref(engine), engine.graph, engine.traits
        self.header = engine.header
        self.sizes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.inferred = False
        self.runs = 0

    def __del__(self) -> None:
        if hasattr(self, "engine") and self.engine() is None and self.trt.cuda.fault is None:
            self.trt.misuse("an engine went before its context")
        super().__del__()

    def used(self, what: str) -> None:
        super().used(what)
        if hasattr(self, "engine") and self.engine() is None:
            raise self.trt.misuse("a context was used after its engine went")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.used("set_input_shape")
        self.trt.calls["set_input_shape"] += 1
        engine = self.engine()
        assert engine is not None
        least, _, most = engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(most) and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if not fits or self.trt.failing("set_input_shape"):
            self.fail(f"{self.trt.failing('set_input_shape') or 'the shape is not in the profile'}")
            return False
        self.sizes[name], self.inferred = tuple(shape), False
        return True

    def infer_shapes(self) -> list[str]:
        self.used("infer_shapes")
        if (wrong := self.trt.failing("infer_shapes")) is not None:
            if isinstance(wrong, Exception):
                raise wrong
            return list(wrong)
        missing = [name for name in self.graph.inputs if name not in self.sizes]
        self.inferred = not missing
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        self.used("get_tensor_shape")
        if not self.inferred:
            raise self.trt.misuse(f"the shape of {name} was asked for before it was inferred")
        if name in self.traits.get("unknown", ()):
            return (-1, 2)
        if name in self.traits.get("empty", ()):
            return (0, 2)
        shape = self.graph.shape(name, self.sizes)
        grown = name in self.traits.get("grows", ()) and self.runs > 2
        return (2 * shape[0], *shape[1:]) if grown else shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.used("set_tensor_address")
        self.trt.calls["set_tensor_address"] += 1
        assert type(memory) is int
        if memory % 256:
            raise self.trt.misuse(f"{name} at {memory:#x}, not at a multiple of 256")
        if self.trt.failing("set_tensor_address"):
            self.fail(str(self.trt.failing("set_tensor_address")))
            return False
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.used("execute_async_v3")
        self.trt.calls["execute"] += 1
        cuda = self.trt.cuda
        streams = {stream.handle: stream for stream in cuda.streams}
        if type(stream_handle) is not int or stream_handle not in streams:
            raise self.trt.misuse(f"{stream_handle} is no stream")
        needed = [*self.graph.inputs, *self.graph.outputs]
        if missing := [name for name in needed if name not in self.addresses]:
            raise self.trt.misuse(f"no address for {', '.join(missing)}")
        if not self.inferred:
            raise self.trt.misuse("run before shapes were inferred")
        if (before := self.trt.failing("fault before")) is not None:
            cuda.fault = cuda.module.LaunchError(before)
        if cuda.fault is not None or self.trt.failing("execute"):
            self.fail(str(cuda.fault or self.trt.failing("execute")))
            return False
        places = {name: (self.addresses[name], self.graph.shape(name, self.sizes)) for name in needed}
        self.runs += 1
        for name, (address, shape) in places.items():
            cuda.room(address, math.prod(shape) * self.itemsize(name))
        streams[stream_handle].work.append(lambda: self.compute(places))
        return True

    def itemsize(self, name: str) -> int:
        kind = TYPES[(self.graph.inputs | self.graph.outputs)[name].type]
        return np.dtype(NUMPY[kind]).itemsize

    def compute(self, places: dict[str, tuple[int, tuple[int, ...]]]) -> None:
        """What the stream does when its time comes."""
        trt, cuda = self.trt, self.trt.cuda
        if (fault := trt.failing("fault")) is not None:
            cuda.fault = cuda.module.LaunchError(fault)
            return
        if (held := trt.failing("hang")) is not None and not held.wait(60):
            raise trt.misuse("nobody released a run that hangs")
        if text := trt.failing("late"):
            self.fail(text)
        if self.engine() is None:
            raise trt.misuse("an engine went while it had work to do")
        given = {}
        for name in self.graph.inputs:
            address, shape = places[name]
            kind = NUMPY[TYPES[self.graph.inputs[name].type]]
            array = np.empty(shape, kind)
            cuda.room(address, array.nbytes)
            ctypes.memmove(array.ctypes.data, address, array.nbytes)
            given[name] = array
        for name, value in zip(self.graph.outputs, self.graph.session.run(None, given), strict=True):
            array = np.ascontiguousarray(value + value.dtype.type(self.traits.get("off", 0)))
            address, shape = places[name]
            assert array.shape == shape
            cuda.room(address, array.nbytes)
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
