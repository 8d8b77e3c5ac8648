"""From the verified ONNX to a plan: TensorRT 10 and 11 from one path, without anything that 11 removed.

The network is strongly typed: every precision is the graph's own, so that which one serves is a choice between graphs
that were judged, never the builder's. Free dimensions become 1, since a scanner sends one study at a time and the
manifest fixes its grid.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgehem.backends import F32, Build
from edgehem.backends.tensorrt.api import Config, Ears, Engine, Network, TensorRtApi, ears, sizes
from edgehem.errors import BackendError

MIB = 1 << 20
MOST_ERRORS = 4
"""Of a parser, in one message."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A plan that is not yet qualified.

    Parameters
    ----------
    plan : bytes
    timing : bytes
        The timing cache with what this build added.
    settings : dict
        What the builder was told.
    warnings : tuple of str
    """

    plan: bytes
    timing: bytes
    settings: dict[str, Any]
    warnings: tuple[str, ...]


def build_plan(
    api: TensorRtApi,
    graph: bytes,
    build: Build,
    *,
    arithmetic: str,
    dla_core: int | None = None,
    timing: bytes = b"",
    target: Callable[[Config], None] = lambda config: None,
) -> Built:
    """Build a plan for the current CUDA device.

    Parameters
    ----------
    api : TensorRtApi
    graph : bytes
        ONNX whose hash was checked.
    build : Build
    arithmetic : str
        ``f32`` keeps TensorFloat-32 out of float32 operators; ``tf32`` lets it in.
    dla_core : int, optional
        Put what it can take on this deep learning accelerator, and the rest on the GPU.
    timing : bytes
        A timing cache of the same TensorRT and device; of others, TensorRT passes it over.
    target : callable
        May set more on the configuration: a builder without a device needs to be told for which one.

    Returns
    -------
    Built

    Raises
    ------
    BackendError
        If TensorRT refuses the graph, with the operators that it names, or cannot build.
    BackendMemoryError
        If the device's memory does not suffice.
    """
    heard = ears(api)
    heard.forget()
    with heard.typed("TensorRT cannot build the graph"):
        return _build(api, heard, graph, build, arithmetic, dla_core, timing, target)


def _build(
    api: TensorRtApi,
    heard: Ears,
    graph: bytes,
    build: Build,
    arithmetic: str,
    dla_core: int | None,
    timing: bytes,
    target: Callable[[Config], None],
) -> Built:
    builder = api.Builder(heard.logger)
    # Named, since its value changed; gone where there is no other kind of network.
    typed = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = api.OnnxParser(network, heard.logger)
    if not parser.parse(graph):
        raise BackendError(f"TensorRT does not take the graph: {_parser_words(parser) or heard}")
    config = builder.create_builder_config()
    shapes = _shapes(network)
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"TensorRT does not take the inputs' shapes: {heard}")
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, build.workspace_mib * MIB)
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED  # so that a plan's layers can be told
    if build.level is not None:
        config.builder_optimization_level = build.level
    if arithmetic == F32:
        config.clear_flag(api.BuilderFlag.TF32)
    if dla_core is not None:
        if not 0 <= dla_core < builder.num_DLA_cores:
            raise BackendError(f"this device has {builder.num_DLA_cores} deep learning accelerators, no {dla_core}")
        config.default_device_type = api.DeviceType.DLA
        config.DLA_core = dla_core
        config.set_flag(api.BuilderFlag.GPU_FALLBACK)
    target(config)
    used = bool(timing) and _use_timing(config, timing, heard)
    if not used:
        # Of another release or device, or there was none: begin an empty one.
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    monitor = _monitor(api, build.say)
    if monitor is not None:
        config.progress_monitor = monitor
    memory = builder.build_serialized_network(network, config)
    if memory is None:
        raise heard.failure("TensorRT cannot build the graph")
    return Built(
        plan=bytes(memory),
        timing=bytes(config.get_timing_cache().serialize()),
        settings={
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "workspace_mib": build.workspace_mib,
            "level": config.builder_optimization_level,
            "tf32": arithmetic != F32,
            "dla_core": dla_core,
            "strongly_typed": True,
            "timing_cache_used": used,
        },
        warnings=tuple(heard.warnings),
    )


def _use_timing(config: Config, timing: bytes, heard: Ears) -> bool:
    """Whether TensorRT takes a timing cache. Of a damaged one it makes an empty one, and says so in its log alone."""
    before = len(heard.errors)
    cache = config.create_timing_cache(timing)
    used = cache is not None and len(heard.errors) == before and config.set_timing_cache(cache, ignore_mismatch=False)
    if not used:
        heard.forget()  # or it would pass for why a later step failed
    return used


def layers(api: TensorRtApi, engine: Engine) -> dict[str, Any]:
    """What an engine is made of, as its inspector tells.

    Returns
    -------
    dict
        ``count``, ``types`` (how many layers give which data type), and ``layers``: name, type and data type of each.
        Releases differ in what they tell; what is not told is not there.
    """
    text = engine.create_engine_inspector().get_engine_information(api.LayerInformationFormat.JSON)
    found: dict[str, Any] = {"count": engine.num_layers}
    try:
        told = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return found
    if not isinstance(told, list):
        return found
    rows = [_layer(layer) for layer in told]
    found["types"] = dict(Counter(row["type"] for row in rows if "type" in row))
    found["layers"] = rows
    return found


def _layer(layer: Any) -> dict[str, str]:
    if not isinstance(layer, Mapping):
        return {"name": str(layer)[:200]}
    row = {"name": str(layer.get("Name", ""))[:200], "kind": str(layer.get("LayerType", ""))}
    outputs = layer.get("Outputs")
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], Mapping):
        said = outputs[0].get("Format/Datatype", outputs[0].get("Datatype"))
        if said is not None:
            row["type"] = str(said)[:80]
    return row


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Of every input, free dimensions as 1."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    return {tensor.name: tuple(1 if size < 0 else size for size in sizes(tensor.shape)) for tensor in inputs}


def _parser_words(parser: Any) -> str:
    said = []
    for index in range(min(parser.num_errors, MOST_ERRORS)):
        error = parser.get_error(index)
        where = f"{error.node_operator()} {error.node_name()}".strip()
        said.append(f"{where}: {error.desc()}" if where else error.desc())
    return "; ".join(said)[:1000]


def _monitor(api: TensorRtApi, say: Callable[[str], None] | None) -> Any:
    """Tells the builder's outermost phases as they begin and advance; None if nobody listens."""
    if say is None:
        return None

    def tell(line: str) -> None:
        with contextlib.suppress(Exception):  # a listener that went away: TensorRT cannot take an exception
            say(line)

    class Monitor(api.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps
                tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if total := self._steps.get(phase_name):
                tell(f"{phase_name}, {step + 1} of {total}")
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
