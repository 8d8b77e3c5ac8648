"""The fake is as strict as it says: what a real TensorRT would take badly is noticed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgehem.backends.lane import Lane
from edgehem.backends.tensorrt.api import load

Maker = Callable[..., Any]


@pytest.fixture
def misuse(trt: Any, cuda: Any) -> Any:
    """The error; what was noticed in a test here is not held against it."""
    yield cuda.module.MisuseError
    trt.misuses.clear()


@pytest.fixture
def logger(trt: Any) -> Any:
    class Logger(trt.module.ILogger):
        def __init__(self) -> None:
            trt.module.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None: ...

    return Logger()


def test_a_logger_without_its_base(trt: Any, misuse: Any) -> None:
    class Logger(trt.module.ILogger):
        def __init__(self) -> None: ...

    with pytest.raises(misuse, match="never called its base"):
        trt.module.Runtime(Logger())


def test_no_context(trt: Any, misuse: Any, logger: Any) -> None:
    with pytest.raises(misuse, match="without a current context"):
        trt.module.Builder(logger)


def test_another_thread(trt: Any, misuse: Any, logger: Any, lane: Lane) -> None:
    def make() -> Any:
        with lane.entered("x"):
            return trt.module.Builder(logger)

    builder = lane.do(make)
    with pytest.raises(misuse, match="on another thread"):
        builder.create_network(1 << trt.strongly_typed)
    del builder
    gc.collect()
    assert any("freed on another thread" in text for text in trt.misuses)


def test_a_logger_that_goes(trt: Any, misuse: Any, lane: Lane) -> None:
    def make() -> None:
        class Logger(trt.module.ILogger):
            def log(self, level: Any, message: str) -> None: ...

        with lane.entered("x"):
            runtime = trt.module.Runtime(Logger())
            gc.collect()
            assert any("logger of a Runtime went" in text for text in trt.misuses)
            del runtime

    lane.do(make)


def inside(trt: Any, lane: Lane, logger: Any, plan: bytes, work: Callable[[Any, Any], None]) -> None:
    """A runtime, an engine and an execution context, with shapes and memory for a [1, 3] and b [1, 3]."""

    def job() -> None:
        with lane.entered("x") as preprocessor:
            runtime = trt.module.Runtime(logger)
            engine = runtime.deserialize_cuda_engine(plan)
            context = engine.create_execution_context()
            for name in "ab":
                context.set_input_shape(name, (1, 3))
            context.infer_shapes()
            held = [preprocessor.driver.mem_alloc(12) for _ in range(4)]
            for name, each in zip(("a", "b", "total", "copy"), held, strict=True):
                context.set_tensor_address(name, int(each))
            try:
                work(context, preprocessor)
            finally:
                preprocessor.stream.synchronize()
                for each in held:
                    each.free()
                del context
                del engine
                del runtime

    lane.do(job)


@pytest.fixture
def plan(trt: Any, lane: Lane, sums: bytes) -> bytes:
    from edgehem.backends import Build
    from edgehem.backends.tensorrt.build import build_plan

    def job() -> bytes:
        with lane.entered("x"):
            return build_plan(load(), sums, Build(), arithmetic="f32").plan

    return lane.do(job)


def test_work_is_done_late(trt: Any, lane: Lane, logger: Any, plan: bytes, cuda: Any) -> None:
    """What lies at the addresses when the stream gets there counts, not when it was asked."""
    found = np.zeros((1, 3), np.float32)

    def work(context: Any, preprocessor: Any) -> None:
        assert context.execute_async_v3(preprocessor.stream.handle)
        for name in "ab":
            cuda.memory[context.addresses[name]].bytes[:] = 0
        preprocessor.stream.synchronize()
        preprocessor.driver.memcpy_dtoh(found, context.addresses["total"])
        found[:] += 1

    inside(trt, lane, logger, plan, work)
    np.testing.assert_array_equal(found, np.ones((1, 3)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda context: context.set_tensor_address("a", 4100), "not at a multiple of 256"),
        (lambda context: context.addresses.pop("copy"), "no address for copy"),
        (lambda context: context.set_input_shape("a", (1, 3)), "before shapes were inferred"),
        (lambda context: context.addresses.update(a=1 << 20), "not inside device memory"),
        (lambda context: context.trt.cuda.streams.clear(), "is no stream"),
    ],
)
def test_a_run_that_is_not_prepared(
    spoil: Callable[[Any], Any], words: str, trt: Any, lane: Lane, logger: Any, plan: bytes, misuse: Any
) -> None:
    def work(context: Any, preprocessor: Any) -> None:
        with pytest.raises(misuse, match=words):
            spoil(context)
            context.execute_async_v3(preprocessor.stream.handle)

    inside(trt, lane, logger, plan, work)


def test_memory_freed_too_early(trt: Any, lane: Lane, logger: Any, plan: bytes, misuse: Any, cuda: Any) -> None:
    def work(context: Any, preprocessor: Any) -> None:
        context.execute_async_v3(preprocessor.stream.handle)
        with pytest.raises(misuse, match="in flight"):
            cuda.memory[context.addresses["a"]].free()

    inside(trt, lane, logger, plan, work)


def test_an_execution_context_of_another_thread(trt: Any, lane: Lane, logger: Any, plan: bytes, misuse: Any) -> None:
    def work(context: Any, preprocessor: Any) -> None:
        said: list[str] = []

        def elsewhere(context: Any) -> None:
            try:
                context.execute_async_v3(preprocessor.stream.handle)
            except misuse as error:
                said.append(str(error))

        thread = threading.Thread(target=elsewhere, args=(context,))
        thread.start()
        thread.join()
        assert said and "another thread" in said[0]

    inside(trt, lane, logger, plan, work)


def test_what_eleven_removed_is_not_there(make_trt: Maker) -> None:
    old, new = make_trt(version="10.3.0.26"), make_trt(version="11.1.0.106")
    assert hasattr(old.module.BuilderFlag, "FP16") and not hasattr(new.module.BuilderFlag, "FP16")
    flag = "STRONGLY_TYPED"
    assert old.module.NetworkDefinitionCreationFlag[flag] != new.module.NetworkDefinitionCreationFlag[flag]
    none = make_trt(version="11.1.0.106", strongly_typed=None)
    assert not hasattr(none.module.NetworkDefinitionCreationFlag, flag)


def test_a_setting_that_is_not_there(trt: Any, lane: Lane, logger: Any) -> None:
    def job() -> None:
        with lane.entered("x"):
            config = trt.module.Builder(logger).create_builder_config()
            with pytest.raises(AttributeError, match="no int8_calibrator"):
                config.int8_calibrator = None
            del config

    lane.do(job)
