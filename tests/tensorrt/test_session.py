"""A plan on a fake GPU: its numbers, its memory, its order, its errors. Nothing here runs on a GPU.

The engine's work is done when somebody waits for it, and reads and writes what then lies at its addresses; what comes
back is compared bit for bit with the oracle and ONNX Runtime.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgehem.backends import DeviceSession
from edgehem.backends.tensorrt import session as sessions
from edgehem.backends.tensorrt.api import load
from edgehem.backends.tensorrt.session import TensorRtSession
from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError
from edgehem.kernels.cuda_memory import DeviceTensor

VALID = np.array([[1, 1, 0, 1, 1]], np.float32)
MAKES_MEMORY = ("mem_alloc", "pagelocked_empty", "stream", "event", "module")
DTYPES = ("float32", "float16", "int8")
Maker = Callable[..., Any]


def assert_same(found: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert found.keys() == right.keys()
    for name, array in right.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        unsigned = f"u{array.itemsize}"
        np.testing.assert_array_equal(found[name].view(unsigned), array.view(unsigned))


def numbers(seed: int, rows: int = 1) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed).normal(size=(2, rows, 3)).astype(np.float32)
    return {"a": drawn[0], "b": drawn[1]}


# Numbers


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_study_has_the_oracles_and_onnx_runtimes_bits(
    dtype: str, open_plan: Maker, graph_of: Maker, stack: Maker, target: Any, windows: Maker, expected: Maker
) -> None:
    """From raw slices to outputs, in every type the preprocessing kernel writes."""
    graph = graph_of(dtype)
    session = open_plan(graph)
    assert isinstance(session, DeviceSession)
    for seed in (1, 2):
        volume = stack(seed, slices=4 + seed)
        # The image that a caller had made is not asked for: the tensor is made on the device.
        inputs = {"valid": VALID, "image": np.zeros(3)}
        found, timing = session.analyse(volume, target, windows(dtype), image="image", inputs=inputs)
        assert_same(found, expected(graph, volume, target, windows(dtype), VALID))
        assert timing.preprocess_ms > 0 and timing.infer_ms > 0 and timing.fetch_ms > 0


def test_a_float_engine_decides_between_float32_and_float16(
    open_plan: Maker, graph_of: Maker, stack: Maker, target: Any, windows: Maker, expected: Maker
) -> None:
    """A bundle's windows say float32, its float16 graph reads float16: the tensor is made as the engine reads it."""
    graph = graph_of("float16")
    found, _ = open_plan(graph).analyse(stack(), target, windows(), image="image", inputs={"valid": VALID})
    assert_same(found, expected(graph, stack(), target, windows("float16"), VALID))


@pytest.mark.parametrize(("engine", "given"), [("int8", "float32"), ("float32", "int8")])
def test_int8_needs_a_scale_and_is_never_guessed(
    engine: str, given: str, open_plan: Maker, graph_of: Maker, stack: Maker, target: Any, windows: Maker
) -> None:
    session = open_plan(graph_of(engine))
    with pytest.raises(BackendError, match=f"reads image as {engine}, not {given}"):
        session.analyse(stack(), target, windows(given), image="image", inputs={"valid": VALID})


def test_arrays_of_the_host_give_the_same(
    open_plan: Maker, graph_of: Maker, stack: Maker, target: Any, windows: Maker, expected: Maker
) -> None:
    """As when a bundle is measured; before a study, between studies, and with strides."""
    from edgehem.kernels import oracle

    graph = graph_of()
    session = open_plan(graph)
    image = oracle.preprocess(stack(), target, windows())[None]
    right = expected(graph, stack(), target, windows(), VALID)
    reversed_twice = image[..., ::-1].copy()[..., ::-1]
    for _ in range(2):
        assert_same(session.run({"image": reversed_twice, "valid": VALID}), right)
        found, _ = session.analyse(stack(), target, windows(), image="image", inputs={"valid": VALID})
        assert_same(found, right)


def test_free_dimensions_follow_the_inputs(open_plan: Maker, sums: bytes, trt: Any) -> None:
    """Where a profile leaves some. Shapes are told only when they change."""
    session = open_plan(sums, least={"a": [0, 3], "b": [0, 3]})
    told = trt.calls["set_input_shape"]
    for rows in (1, 1, 0, 1):
        given = numbers(rows, rows)
        found = session.run(given)
        assert_same(found, {"total": given["a"] + given["b"], "copy": given["a"]})
    assert trt.calls["set_input_shape"] - told == 4


def test_outputs_belong_to_the_caller(open_plan: Maker, sums: bytes) -> None:
    """The next run writes into memory of its own; inputs stay as they were."""
    session = open_plan(sums)
    given = numbers(1)
    before = {name: array.copy() for name, array in given.items()}
    first = session.run(given)
    kept = {name: array.copy() for name, array in first.items()}
    session.run(numbers(2))
    assert_same(first, kept)
    assert_same(given, before)
    first["total"][:] = 0  # writeable
    assert_same(session.run(given), kept)


def test_several_threads_get_their_own_answers(open_plan: Maker, sums: bytes) -> None:
    sessions = [open_plan(sums), open_plan(sums)]

    def ask(seed: int) -> None:
        given = numbers(seed)
        assert_same(sessions[seed % 2].run(given), {"total": given["a"] + given["b"], "copy": given["a"]})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(120)))


def test_two_graphs_read_one_tensor_in_one_job(
    open_plan: Maker,
    graph_of: Maker,
    stack: Maker,
    target: Any,
    windows: Maker,
    expected: Maker,
    lane: Any,
    cuda: Any,
) -> None:
    """On one stream, from one upload."""
    graph = graph_of()
    first, second = open_plan(graph), open_plan(graph)
    first.run({"image": np.zeros((1, 5, 3, 19, 37), np.float32), "valid": VALID})
    launches, streams = cuda.calls["launch"], cuda.calls["stream"]

    def both() -> list[dict[str, np.ndarray]]:
        with lane.entered("preprocessing") as preprocessor:
            tensor = preprocessor(stack(), target, windows())
        image = replace(tensor, shape=(1, *tensor.shape))
        return [session.run({"image": image, "valid": VALID}) for session in (first, second)]

    right = expected(graph, stack(), target, windows(), VALID)
    for found in lane.do(both):
        assert_same(found, right)
    assert (cuda.calls["launch"] - launches, cuda.calls["stream"] - streams) == (1, 0)


# Memory


def test_a_warm_session_allocates_nothing(
    open_plan: Maker,
    graph_of: Maker,
    stack: Maker,
    target: Any,
    windows: Maker,
    expected: Maker,
    lane: Any,
    cuda: Any,
    trt: Any,
) -> None:
    """Ten studies of different sizes, up to the one that was reserved; addresses are told once."""
    graph = graph_of()
    session = open_plan(graph)
    lane.do(lambda: lane.preprocessor.reserve((24, 64, 64), target, windows()))
    session.analyse(stack(), target, windows(), image="image", inputs={"valid": VALID})
    before = {name: cuda.calls[name] for name in MAKES_MEMORY}
    bound = trt.calls["set_tensor_address"]
    for seed in range(10):
        volume = stack(seed, slices=3 + 2 * seed, size=(30 + 3 * seed, 64 - seed))
        found, _ = session.analyse(volume, target, windows(), image="image", inputs={"valid": VALID})
        assert_same(found, expected(graph, volume, target, windows(), VALID))
    assert {name: cuda.calls[name] for name in MAKES_MEMORY} == before
    assert trt.calls["set_tensor_address"] == bound
    assert cuda.calls["pageable copies up"] == 0


def test_closing_frees_everything(graph_of: Maker, cuda: Any, trt: Any, lane: Any) -> None:
    """Twice is as good as once; a run afterwards is an error."""
    before = len(cuda.memory)
    session = TensorRtSession(load(), lane, plan_of(trt, lane, graph_of()))
    assert len(cuda.memory) == before + 4
    session.close()
    session.close()
    assert len(cuda.memory) == before and not trt.alive
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": np.zeros((1, 5, 3, 19, 37), np.float32), "valid": VALID})
    with pytest.raises(BackendError, match="closed"):
        session.describe()
    engine = weakref.ref(session._engine)
    del session
    gc.collect()
    assert engine() is None  # the lane keeps nothing of it


def test_a_session_that_is_dropped_is_freed_on_its_thread(trt: Any, lane: Any, sums: bytes, cuda: Any) -> None:
    """Most callers never close one. The fake notices whatever is freed by another thread."""
    session = TensorRtSession(load(), lane, plan_of(trt, lane, sums))
    assert trt.alive and len(cuda.memory) == 4
    del session
    gc.collect()
    lane.do(lambda: None)
    assert not trt.alive and not cuda.memory


def plan_of(trt: Any, lane: Any, graph: bytes) -> bytes:
    from edgehem.backends import Build
    from edgehem.backends.tensorrt.build import build_plan

    def work() -> bytes:
        with lane.entered("building a plan"):
            return build_plan(load(), graph, Build(), arithmetic="f32").plan

    found: bytes = lane.do(work)
    return found


def test_the_device_is_too_small_for_the_outputs(trt: Any, lane: Any, graph_of: Maker, cuda: Any) -> None:
    """What was allocated till then is freed, and the lane goes on."""
    plan = plan_of(trt, lane, graph_of())
    cuda.memory_limit = 1000
    with pytest.raises(BackendMemoryError, match="out of memory"):
        TensorRtSession(load(), lane, plan)
    assert not cuda.memory
    cuda.memory_limit = 1 << 30
    TensorRtSession(load(), lane, plan).close()


def test_page_locked_memory_is_short(open_plan: Maker, sums: bytes, cuda: Any) -> None:
    """In the middle of a session's life: the first input from the host takes some."""
    session = open_plan(sums)
    cuda.locked_limit = 0
    with pytest.raises(BackendMemoryError, match="running an engine"):
        session.run(numbers(1))
    cuda.locked_limit = 1 << 30
    given = numbers(2)
    assert_same(session.run(given), {"total": given["a"] + given["b"], "copy": given["a"]})


def test_memory_runs_out_in_a_study_and_comes_back(
    open_plan: Maker,
    graph_of: Maker,
    stack: Maker,
    target: Any,
    windows: Maker,
    expected: Maker,
    cuda: Any,
) -> None:
    """A large study fails by its type; the next one that fits is right."""
    graph = graph_of()
    session = open_plan(graph)
    session.analyse(stack(), target, windows(), image="image", inputs={"valid": VALID})
    cuda.memory_limit = sum(held.size for held in cuda.memory.values())
    with pytest.raises(BackendMemoryError):
        session.analyse(stack(slices=700), target, windows(), image="image", inputs={"valid": VALID})
    found, _ = session.analyse(stack(3), target, windows(), image="image", inputs={"valid": VALID})
    assert_same(found, expected(graph, stack(3), target, windows(), VALID))


# What is refused before it reaches the device


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"a": np.zeros((1, 3), np.float32)}, "reads a, b, and was given a"),
        ({**numbers(1), "c": np.zeros(1)}, "reads a, b, and was given a, b, c"),
        ({**numbers(1), "a": np.zeros((1, 3))}, r"a as float32 \[1, 3\], and was given float64 \[1, 3\]"),
        ({**numbers(1), "a": np.zeros((2, 3), np.float32)}, r"was given float32 \[2, 3\]"),
        ({**numbers(1), "a": np.zeros(3, np.float32)}, r"was given float32 \[3\]"),
    ],
)
def test_inputs_that_the_engine_does_not_read_are_refused(
    given: dict[str, np.ndarray], words: str, open_plan: Maker, sums: bytes, trt: Any
) -> None:
    session = open_plan(sums)
    runs = trt.calls["execute"]
    with pytest.raises(BackendError, match=words):
        session.run(given)
    assert trt.calls["execute"] == runs


def test_a_tensor_at_a_crooked_address_is_refused(open_plan: Maker, sums: bytes, lane: Any) -> None:
    """TensorRT would read it all the same, or not: undefined."""
    session = open_plan(sums)
    for pointer in (0, 4100):
        crooked = DeviceTensor(pointer=pointer, shape=(1, 3), dtype="float32", stream=0)
        with pytest.raises(BackendError, match=f"{pointer:#x}, not at a multiple of 256"):
            session.run({**numbers(1), "a": crooked})
    given = numbers(2)
    assert_same(session.run(given), {"total": given["a"] + given["b"], "copy": given["a"]})


def test_analyse_names_what_does_not_fit(
    open_plan: Maker, graph_of: Maker, stack: Maker, target: Any, windows: Maker, trt: Any
) -> None:
    session = open_plan(graph_of())
    runs = trt.calls["execute"]
    with pytest.raises(BackendError, match="reads image, valid, no x"):
        session.analyse(stack(), target, windows(), image="x", inputs={"valid": VALID})
    with pytest.raises(BackendError, match="and was given"):
        session.analyse(stack(), target, windows(), image="image", inputs={})
    other = replace(target, shape=(5, 19, 36))
    with pytest.raises(BackendError, match=r"\[1, 5, 3, 19, 37\], and was given float32 \[1, 5, 3, 19, 36\]"):
        session.analyse(stack(), other, windows(), image="image", inputs={"valid": VALID})
    assert trt.calls["execute"] == runs


# Engines that a session could not feed or read


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"profiles": 2}, "2 optimisation profiles; edgehem makes 1"),
        ({"host": ["b"]}, "wants b in host memory"),
        ({"vectorised": ["a"]}, "wants a in a vectorised format"),
        ({"unknown": ["total"]}, "shape of total depends on data"),
    ],
)
def test_an_engine_of_another_kind_is_refused_when_it_is_opened(
    traits: dict[str, Any], words: str, open_plan: Maker, sums: bytes, cuda: Any, trt: Any
) -> None:
    with pytest.raises(BackendError, match=words):
        open_plan(sums, **traits)
    # Before the error itself is gone: it must not hold an engine in its frames.
    assert not cuda.memory and not trt.alive


def test_a_type_that_numpy_does_not_have_is_refused(open_plan: Maker, graph_of: Maker, trt: Any) -> None:
    with pytest.raises(BackendError, match="wants image in a type that NumPy does not have"):
        open_plan(graph_of("bfloat16"))
    assert not trt.alive


def test_an_output_that_outgrows_its_memory_is_an_error(open_plan: Maker, sums: bytes) -> None:
    session = open_plan(sums, grows=["total"])
    with pytest.raises(BackendError, match="total is larger than the engine declared"):
        session.run(numbers(1))


# What fails


@pytest.mark.parametrize(
    ("what", "says", "words"),
    [
        ("runtime", True, "does not load the plan: pybind11"),
        ("deserialize", "the plan has no magic", "does not load the plan: the plan has no magic"),
        ("context", "no kernels", "makes no execution context: no kernels"),
        ("set_input_shape", "not so", r"does not take a as \[1, 3\]: not so"),
        ("infer_shapes", ["a"], "does not know the shape of a"),
        (
            "infer_shapes",
            RuntimeError("infer_shapes error code: -1\nat 0x1"),
            "shapes of the inputs: infer_shapes error",
        ),
        ("set_tensor_address", "crooked", "does not take the address of a: crooked"),
        ("execute", "no", "failed while starting the engine: no"),
        ("late", "nan in layer 3\nat line 4", "failed while running the engine: nan in layer 3$"),
    ],
)
def test_what_fails_while_opening_is_said_and_leaves_nothing(
    what: str, says: Any, words: str, trt: Any, lane: Any, sums: bytes, cuda: Any
) -> None:
    plan = plan_of(trt, lane, sums)
    trt.failures[what] = says
    with pytest.raises(BackendError, match=words) as caught:
        TensorRtSession(load(), lane, plan)
    assert not isinstance(caught.value, DeviceLostError | BackendMemoryError)
    assert not cuda.memory and not trt.alive
    trt.failures.clear()
    TensorRtSession(load(), lane, plan).close()


@pytest.mark.parametrize("what", ["deserialize", "context", "execute"])
def test_memory_that_tensorrt_lacks_has_its_own_type(what: str, trt: Any, lane: Any, sums: bytes) -> None:
    plan = plan_of(trt, lane, sums)
    trt.failures[what] = "Requested amount of GPU memory could not be allocated: cudaErrorMemoryAllocation"
    with pytest.raises(BackendMemoryError, match="could not be allocated"):
        TensorRtSession(load(), lane, plan)


@pytest.mark.parametrize(
    ("what", "says", "words"),
    [
        ("set_input_shape", "not so", "does not take a"),
        ("infer_shapes", ["a"], "does not know the shape of a"),
        ("execute", "no", "failed while starting the engine: no"),
        ("late", "nan", "failed while running the engine: nan"),
    ],
)
def test_what_fails_in_a_run_is_said_and_the_next_run_is_right(
    what: str, says: Any, words: str, open_plan: Maker, sums: bytes, trt: Any
) -> None:
    session = open_plan(sums, least={"a": [0, 3], "b": [0, 3]})
    trt.failures[what] = says
    with pytest.raises(BackendError, match=words):
        session.run(numbers(0, 0))
    trt.failures.clear()
    for rows in (0, 1):
        given = numbers(2, rows)
        assert_same(session.run(given), {"total": given["a"] + given["b"], "copy": given["a"]})


def test_a_failure_is_told_with_its_own_reason(open_plan: Maker, sums: bytes, trt: Any) -> None:
    """Not with that of the run before, nor as lack of memory because that was one."""
    session = open_plan(sums, least={"a": [0, 3], "b": [0, 3]})
    trt.failures["execute"] = "out of memory"
    with pytest.raises(BackendMemoryError):
        session.run(numbers(1))
    trt.failures.clear()
    trt.failures["set_input_shape"] = "not so"
    with pytest.raises(BackendError, match="not so") as caught:
        session.run(numbers(1, 0))
    assert not isinstance(caught.value, BackendMemoryError)


def test_a_wrong_address_in_a_run(open_plan: Maker, sums: bytes, trt: Any, lane: Any, cuda: Any) -> None:
    session = open_plan(sums)
    trt.failures["set_tensor_address"] = "crooked"
    elsewhere = DeviceTensor(pointer=max(cuda.memory) + 256, shape=(1, 3), dtype="float32", stream=0)
    with pytest.raises(BackendError, match="does not take the address of a: crooked"):
        session.run({"a": elsewhere, "b": numbers(1)["b"]})


# A device that is gone


@pytest.mark.parametrize("how", ["in the engine", "in a kernel", "before the engine"])
def test_a_fault_ends_the_lane(
    how: str, open_plan: Maker, graph_of: Maker, stack: Maker, target: Any, windows: Maker, trt: Any, cuda: Any
) -> None:
    """CUDA reports it late. Afterwards everything says so at once, and closing is quiet."""
    session = open_plan(graph_of())
    if how == "in the engine":
        trt.failures["fault"] = "an illegal memory access was encountered"
    elif how == "in a kernel":
        cuda.fault_at_launch = True
    else:
        # TensorRT meets it first, and only says false.
        trt.failures["fault before"] = "an illegal memory access was encountered"
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        session.analyse(stack(), target, windows(), image="image", inputs={"valid": VALID})
    assert session.lane.lost
    with pytest.raises(DeviceLostError, match="lost to this process"):
        session.run({"image": np.zeros((1, 5, 3, 19, 37), np.float32), "valid": VALID})
    session.close()
    session.close()


def test_a_fault_while_opening(trt: Any, lane: Any, sums: bytes) -> None:
    plan = plan_of(trt, lane, sums)
    trt.failures["fault"] = "an illegal instruction was encountered"
    with pytest.raises(DeviceLostError, match="illegal instruction"):
        TensorRtSession(load(), lane, plan)
    assert lane.lost


def test_an_engine_that_hangs_is_given_up(
    open_plan: Maker, sums: bytes, trt: Any, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who waits says so; the thread stays behind until the device answers."""
    session = open_plan(sums)
    trt.failures["hang"] = threading.Event()
    try:
        with pytest.raises(DeviceLostError, match=r"did not answer for 1 s"):
            session.run(numbers(1))
        with pytest.raises(DeviceLostError, match=r"did not answer for 1 s"):
            session.run(numbers(1))
        session.close()
    finally:
        trt.failures.pop("hang").set()


# What it tells


def test_it_tells_its_layers(open_plan: Maker, sums: bytes, trt: Any) -> None:
    session = open_plan(sums)
    assert session.describe() == {
        "count": 2,
        "types": {"INT8": 1, "FP32": 1},
        "layers": [
            {"name": "conv", "kind": "Convolution", "type": "INT8"},
            {"name": "pool", "kind": "Pooling", "type": "FP32"},
        ],
    }
    trt.failures["inspector"] = '{"Layers": ["conv", {"Name": "a"}, {"Name": "b", "Outputs": [{"Name": "x"}]}]}'
    assert session.describe()["layers"] == [{"name": "conv"}, {"name": "a", "kind": ""}, {"name": "b", "kind": ""}]
    for text in ("Layers:\nconv", "[]", "{}", '{"Layers": null}'):
        trt.failures["inspector"] = text
        assert session.describe() == {"count": 2}


def test_the_first_runs_are_made_when_it_is_opened(open_plan: Maker, sums: bytes, trt: Any) -> None:
    open_plan(sums)
    assert trt.calls["execute"] == sessions.WARM_RUNS
