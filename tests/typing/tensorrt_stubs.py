"""Not run: read by pyright beside NVIDIA's stubs of TensorRT (make types-tensorrt).

What edgehem's protocols say of TensorRT (:mod:`edgehem.backends.tensorrt.api`) is what these assignments and calls ask
of the stubs. An attribute that TensorRT does not have, an argument of another name or order, or a result that may be
None where the protocol has none, is an error here.
"""

from __future__ import annotations

import tensorrt

from edgehem.backends.tensorrt import api as ours

api: ours.TensorRtApi = tensorrt


def objects(
    dims: tensorrt.Dims,
    memory: tensorrt.IHostMemory,
    tensor: tensorrt.ITensor,
    network: tensorrt.INetworkDefinition,
    error: tensorrt.ParserError,
    parser: tensorrt.OnnxParser,
    profile: tensorrt.IOptimizationProfile,
    cache: tensorrt.ITimingCache,
    config: tensorrt.IBuilderConfig,
    builder: tensorrt.Builder,
    inspector: tensorrt.EngineInspector,
    context: tensorrt.IExecutionContext,
    engine: tensorrt.ICudaEngine,
    runtime: tensorrt.Runtime,
) -> tuple[object, ...]:
    """Each class of TensorRT's as the protocol that stands for it."""
    a: ours.Dims = dims
    b: ours.HostMemory = memory
    c: ours.Tensor = tensor
    d: ours.Network = network
    e: ours.ParserError = error
    f: ours.Parser = parser
    g: ours.Profile = profile
    h: ours.TimingCache = cache
    i: ours.Config = config
    j: ours.Builder = builder
    k: ours.Inspector = inspector
    m: ours.Context = context
    n: ours.Engine = engine
    o: ours.Runtime = runtime
    return a, b, c, d, e, f, g, h, i, j, k, m, n, o


def build(module: ours.TensorRtApi, logger: tensorrt.ILogger, graph: bytes) -> bytes:
    """The builder's path of build.py, through the protocols."""
    builder = module.Builder(logger)
    network = builder.create_network(0)
    parser = module.OnnxParser(network, logger)
    if not parser.parse(graph):
        return parser.get_error(0).desc().encode()
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = ours.sizes(tensor.shape)
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, 1 << 30)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.clear_flag(module.BuilderFlag.TF32)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    return b"" if plan is None else bytes(plan)


def build_unwrapped(logger: tensorrt.ILogger, graph: bytes) -> None:
    """The same calls, spelt as edgehem spells them, on the stubs' own classes: no protocol in between."""
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    parser.parse(graph)
    parser.get_error(0).node_operator()
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    # The stubs ask for Dims; "the TensorRT API can implicitly convert Python iterables to Dims objects" (their Dims).
    profile.set_shape("x", (1, 2), (1, 2), (1, 2))  # pyright: ignore[reportArgumentType]
    config.add_optimization_profile(profile)
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, 1 << 30)
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = 3
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    config.set_flag(tensorrt.BuilderFlag.GPU_FALLBACK)
    config.default_device_type = tensorrt.DeviceType.DLA
    config.DLA_core = 0
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    config.get_timing_cache().serialize()
    builder.build_serialized_network(network, config)


def run(module: ours.TensorRtApi, logger: tensorrt.ILogger, plan: bytes) -> bool:
    """The runtime's path of session.py, through the protocols."""
    runtime = module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return False
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for name in names:
        engine.get_tensor_mode(name)
        module.nptype(engine.get_tensor_dtype(name))
        engine.get_tensor_location(name)
        engine.get_tensor_format(name)
        least, _, most = map(ours.sizes, engine.get_tensor_profile_shape(name, 0))
        assert len(least) == len(most)
    engine.create_engine_inspector().get_engine_information(module.LayerInformationFormat.JSON)
    context = engine.create_execution_context()
    if context is None:
        return False
    for name in names:
        context.set_input_shape(name, (1, 2))
        context.set_tensor_address(name, 256)
        ours.sizes(context.get_tensor_shape(name))
        context.get_max_output_size(name)
    return not context.infer_shapes() and context.execute_async_v3(0)


def run_unwrapped(logger: tensorrt.ILogger, plan: bytes) -> None:
    """The same calls on the stubs' own classes."""
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    engine.get_tensor_profile_shape("x", 0)
    engine.get_tensor_format("x")
    engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.JSON)
    context = engine.create_execution_context()
    context.set_input_shape("x", (1, 2))
    context.set_tensor_address("x", 256)
    context.get_max_output_size("x")
    context.infer_shapes()
    context.execute_async_v3(0)
