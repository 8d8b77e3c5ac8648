"""The CUDA path on a fake machine: its numbers, its memory, its errors. Nothing here runs on a GPU (test_gpu.py does).

The fake's launches execute preprocess.cu on the host, so what comes back is compared with the oracle bit for bit.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgehem.kernels import Target, Windows, cuda_driver, oracle
from edgehem.kernels.cuda import CudaPreprocessor, DeviceTensor, Uploaded
from edgehem.kernels.cuda_memory import GRANULE
from edgehem.kernels.errors import (
    ContextLostError,
    GridLimitError,
    KernelError,
    KernelLaunchError,
    KernelMemoryError,
    KernelUnavailableError,
)
from edgehem.volume import Volume

Machine = Callable[..., Any]

DTYPES = ("float32", "float16", "int8")
TARGET = Target(shape=(5, 19, 37), spacing_mm=(3.1, 1.3, 1.2), origin=(-20.0, -13.0, -6.0))
GEOMETRIES: dict[str, dict[str, Any]] = {
    "axial": {},
    "reduced": {"size": (60, 70), "spacing": (0.5, 0.5)},
    "tilted": {"column": (0, 0.94, -((1 - 0.94**2) ** 0.5)), "advance": (0, 0, 1)},
    "single slice": {"distances": (0.0,)},
    "padding": {"padding": (-1024, -900)},
    "thin slices": {"distances": tuple(np.arange(-20, 20) * 0.4)},
}


@pytest.fixture
def stack(stack_of: Callable[..., Volume]) -> Callable[..., Volume]:
    """The maker of stacks of noise."""

    def make(*, seed: int = 1, **changes: Any) -> Volume:
        def noise(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.random.default_rng(seed).integers(-1024, 3000, points.shape[:-1]).astype(np.float64)

        defaults = {"size": (30, 34), "spacing": (1.0, 1.1), "distances": (-5.0, -1.0, 2.0, 6.0)}
        return stack_of(noise, **{**defaults, **changes})

    return make


def windows_of(dtype: str = "float32") -> Windows:
    return Windows(level_width=((40, 80), (80, 200), (600, 2800)), mean=0.2, std=0.4, dtype=dtype, scale=0.02)


def assert_right(
    preprocessor: CudaPreprocessor, tensor: DeviceTensor, volume: Volume, target: Target, windows: Windows
) -> None:
    found, expected = preprocessor.download(tensor), oracle.preprocess(volume, target, windows)
    assert found.dtype == expected.dtype
    unsigned = f"u{found.itemsize}"
    np.testing.assert_array_equal(found.view(unsigned), expected.view(unsigned))


@pytest.fixture
def cuda(fake_cuda: Machine) -> Any:
    """A fake machine with one device."""
    return fake_cuda()


@pytest.fixture
def preprocessor(cuda: Any) -> Iterator[CudaPreprocessor]:
    with CudaPreprocessor() as made:
        yield made


# Numbers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_fake_device_gives_the_oracles_bits(
    geometry: str, dtype: str, stack: Callable[..., Volume], preprocessor: CudaPreprocessor
) -> None:
    volume = stack(**GEOMETRIES[geometry])
    tensor = preprocessor(volume, TARGET, windows_of(dtype))
    assert (tensor.shape, tensor.dtype) == ((5, 3, 19, 37), dtype)
    assert_right(preprocessor, tensor, volume, TARGET, windows_of(dtype))


def test_without_windows_it_gives_hounsfield_units(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor
) -> None:
    found = preprocessor.download(preprocessor(stack(), TARGET, None))
    np.testing.assert_array_equal(found[:, 0], oracle.resample(stack(), TARGET))


def test_a_stack_goes_up_once_for_several_grids(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    volume, coarse = stack(), replace(TARGET, shape=(3, 9, 11), spacing_mm=(6, 4, 4))
    uploaded = preprocessor.upload(volume)
    pixels_up = cuda.calls["bytes up"]
    assert pixels_up == volume.pixels.nbytes
    for target in (coarse, TARGET):
        tensor = preprocessor.run(uploaded, target, windows_of())
        assert_right(preprocessor, tensor, volume, target, windows_of())
    assert cuda.calls["bytes up"] - pixels_up == 2 * 4 * (7 * 4 + 3)


def test_an_upload_is_good_until_the_next_one(stack: Callable[..., Volume], preprocessor: CudaPreprocessor) -> None:
    first = preprocessor.upload(stack())
    second = preprocessor.upload(stack(seed=2))
    with pytest.raises(KernelError, match="another stack"):
        preprocessor.run(first, TARGET, windows_of())
    preprocessor.reserve((400, 64, 64), TARGET, windows_of())
    with pytest.raises(KernelError, match="another stack"):
        preprocessor.run(second, TARGET, windows_of())


def test_studies_in_flight_do_not_disturb_each_other(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    """Nothing waits between them: the staging buffer is rewritten only once its bytes have left."""
    windows = windows_of()
    volumes = [stack(seed=seed, distances=tuple(np.arange(3 + seed) * 2.0 - 6)) for seed in range(5)]
    size = 5 * 3 * 19 * 37 * 4
    with preprocessor.entered("allocating"):
        outputs = [cuda.driver.mem_alloc(size) for _ in volumes]
    tensors = [
        preprocessor(volume, TARGET, windows, out_pointer=int(output))
        for volume, output in zip(volumes, outputs, strict=True)
    ]
    for volume, tensor in zip(volumes, tensors, strict=True):
        assert_right(preprocessor, tensor, volume, TARGET, windows)
    for output in outputs:
        output.free()


# Where pixels lie


def test_pixels_decoded_into_staging_are_not_copied_again(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = stack()
    staged = preprocessor.staging(volume.pixels.shape)  # type: ignore[arg-type]
    assert staged.dtype == np.int16 and staged.flags.c_contiguous
    staged[:] = volume.pixels
    monkeypatch.setattr(np, "copyto", None)
    tensor = preprocessor(replace(volume, pixels=staged), TARGET, windows_of())
    assert_right(preprocessor, tensor, volume, TARGET, windows_of())
    assert cuda.calls["copies up"] == 2 and not cuda.calls["pageable copies up"]


class View:
    """A stack with other pixels than its own."""

    def __init__(self, volume: Volume, pixels: npt.NDArray[np.int16]) -> None:
        self._volume, self.pixels = volume, pixels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._volume, name)


@pytest.mark.parametrize("reduced", [False, True])
def test_views_of_any_strides_are_read_right(
    reduced: bool, stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    """In staging where it can be, else through a copy; odd starts and odd row lengths included."""
    volume = stack(**(GEOMETRIES["reduced"] if reduced else {}))
    slices, rows, columns = volume.pixels.shape
    expected = replace(volume)

    def roomy(margin: int) -> npt.NDArray[np.int16]:
        larger = preprocessor.staging((slices + 1, rows + 2, columns + margin))
        larger[:] = 12345
        return larger[1:, 1:-1, margin - 1 : margin - 1 + columns]

    for margin, resident in ((3, True), (4, True)):
        view = roomy(margin)
        view[:] = volume.pixels
        assert (preprocessor._resident(view) is not None) is resident
        tensor = preprocessor(View(volume, view), TARGET, windows_of())  # type: ignore[arg-type]
        assert_right(preprocessor, tensor, expected, TARGET, windows_of())
    backwards = preprocessor.staging((slices, rows, columns))
    backwards[:] = volume.pixels[:, :, ::-1]
    elsewhere = {
        "columns reversed, in staging": backwards[:, :, ::-1],
        "columns first": np.asfortranarray(volume.pixels),
        "every second column": np.repeat(volume.pixels, 2, axis=2)[:, :, ::2],
        "one slice, repeated": np.broadcast_to(volume.pixels[:1], volume.pixels.shape),
    }
    for name, view in elsewhere.items():
        assert preprocessor._resident(view) is None, name
        repeated = replace(volume, pixels=view.copy())
        tensor = preprocessor(View(volume, view), TARGET, windows_of())  # type: ignore[arg-type]
        assert_right(preprocessor, tensor, repeated, TARGET, windows_of())
    assert not cuda.calls["pageable copies up"]


def test_a_staged_stack_outlives_growth_and_closing(stack: Callable[..., Volume], cuda: Any) -> None:
    volume = stack()
    with CudaPreprocessor() as preprocessor:
        staged = preprocessor.staging(volume.pixels.shape)  # type: ignore[arg-type]
        staged[:] = volume.pixels
        preprocessor.staging((9, 512, 512))
        tensor = preprocessor(replace(volume, pixels=staged), TARGET, windows_of())
        assert_right(preprocessor, tensor, volume, TARGET, windows_of())
    np.testing.assert_array_equal(staged, volume.pixels)
    del staged, preprocessor
    gc.collect()
    assert not cuda.locked and not cuda.memory


def test_an_engines_buffer_is_written_in_place(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    windows = windows_of("int8")
    with preprocessor.entered("allocating"):
        buffer = cuda.driver.mem_alloc(5 * 3 * 19 * 37 + 64)
    allocated = cuda.calls["mem_alloc"]
    tensor = preprocessor(stack(), TARGET, windows, out_pointer=int(buffer) + 3)
    assert tensor.pointer == int(buffer) + 3
    assert_right(preprocessor, tensor, stack(), TARGET, windows)
    assert cuda.calls["mem_alloc"] == allocated + 2  # pixels and tables, no output
    for pointer, dtype in ((int(buffer) + 2, "float32"), (int(buffer) + 1, "float16"), (0, "int8"), (-4, "int8")):
        with pytest.raises(ValueError, match="no address"):
            preprocessor(stack(), TARGET, windows_of(dtype), out_pointer=pointer)
    preprocessor.synchronize()
    buffer.free()


def test_a_tensor_describes_itself_to_other_libraries(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor
) -> None:
    tensor = preprocessor(stack(), TARGET, windows_of("float16"))
    assert tensor.nbytes == 5 * 3 * 19 * 37 * 2
    assert tensor.stream == preprocessor.stream.handle
    described = tensor.__cuda_array_interface__
    assert described["shape"] == (5, 3, 19, 37) and described["typestr"] == "<f2" and described["version"] == 3
    assert described["data"] == (tensor.pointer, False) and described["stream"] == tensor.stream


# Memory


ALLOCATIONS = ("mem_alloc", "pagelocked_empty", "stream", "event", "module", "free")


def test_nothing_is_allocated_once_warm(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    large = stack(distances=tuple(np.arange(9) * 2.0))
    preprocessor(large, TARGET, windows_of())
    before = {name: cuda.calls[name] for name in ALLOCATIONS}
    held = {name: set(getattr(cuda, name)) for name in ("memory", "locked")}
    for seed in range(4):
        for dtype in DTYPES:
            volume = stack(seed=seed)
            assert_right(
                preprocessor, preprocessor(volume, TARGET, windows_of(dtype)), volume, TARGET, windows_of(dtype)
            )
    assert {name: cuda.calls[name] for name in ALLOCATIONS} == before
    assert {name: set(getattr(cuda, name)) for name in held} == held


def test_what_was_reserved_need_not_grow(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    preprocessor.reserve((60, 64, 64), TARGET, windows_of())
    before = {name: cuda.calls[name] for name in ALLOCATIONS}
    volume = stack(distances=tuple(np.arange(60) * 1.0), size=(64, 64))
    assert_right(preprocessor, preprocessor(volume, TARGET, windows_of()), volume, TARGET, windows_of())
    assert {name: cuda.calls[name] for name in ALLOCATIONS} == before


def test_buffers_grow_by_half_so_that_growing_is_rare(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    allocations = 0
    for slices in range(20, 200, 4):
        volume = stack(distances=tuple(np.arange(slices) * 0.5), size=(128, 128), spacing=(0.3, 0.3))
        before = cuda.calls["mem_alloc"]
        tensor = preprocessor(volume, TARGET, windows_of())
        allocations += cuda.calls["mem_alloc"] > before
    assert allocations <= 6
    assert_right(preprocessor, tensor, volume, TARGET, windows_of())
    assert all(held.size % GRANULE == 0 for held in cuda.memory.values())
    assert len(cuda.memory) == 3  # the smaller ones have gone


def test_out_of_memory_is_typed_and_smaller_work_still_fits(stack: Callable[..., Volume], fake_cuda: Machine) -> None:
    fake_cuda(memory_limit=8 * GRANULE)
    with CudaPreprocessor() as preprocessor:
        assert_right(preprocessor, preprocessor(stack(), TARGET, windows_of()), stack(), TARGET, windows_of())
        large = stack(size=(512, 512), spacing=(0.1, 0.1), distances=tuple(range(20)))
        wide = replace(TARGET, shape=(40, 256, 256))
        for volume, target in ((large, TARGET), (stack(), wide)):
            with pytest.raises(KernelMemoryError, match="out of memory") as caught:
                preprocessor(volume, target, windows_of())
            assert isinstance(caught.value, MemoryError)
            assert_right(preprocessor, preprocessor(stack(), TARGET, windows_of()), stack(), TARGET, windows_of())


def test_a_little_less_than_ample_is_taken_where_ample_does_not_fit(
    stack: Callable[..., Volume], fake_cuda: Machine
) -> None:
    """Half as much again is a wish: a study that fits exactly runs."""
    cuda = fake_cuda(memory_limit=7 * GRANULE)
    with CudaPreprocessor() as preprocessor:
        for slices in (8, 10):  # 4 MiB, then 5: half as much again as 4 would be 6
            volume = stack(size=(512, 512), spacing=(0.1, 0.1), distances=tuple(range(slices)))
            assert_right(preprocessor, preprocessor(volume, TARGET, windows_of()), volume, TARGET, windows_of())
        assert sum(held.size for held in cuda.memory.values()) == 7 * GRANULE


def test_page_locked_memory_may_run_out_too(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    cuda.locked_limit = 3 * GRANULE
    with pytest.raises(KernelMemoryError):
        preprocessor.staging((40, 512, 512))
    assert_right(preprocessor, preprocessor(stack(), TARGET, windows_of()), stack(), TARGET, windows_of())


# Limits and errors


def test_an_empty_grid_launches_nothing(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    for shape in ((0, 4, 4), (4, 0, 4), (4, 4, 0)):
        target = dataclasses.replace(TARGET)
        object.__setattr__(target, "shape", shape)  # a Target refuses it; another implementation of one might not
        tensor = preprocessor(stack(), target, windows_of())
        assert tensor.nbytes == 0 and preprocessor.download(tensor).shape == tensor.shape
    assert cuda.calls["launch"] == 0


def test_an_empty_stack_is_refused(stack: Callable[..., Volume], preprocessor: CudaPreprocessor) -> None:
    empty = View(stack(), np.empty((0, 8, 8), np.int16))
    with pytest.raises(ValueError, match="slices with pixels"):
        preprocessor(empty, TARGET, windows_of())  # type: ignore[arg-type]


def test_a_grid_beyond_one_launch_is_refused(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    endless = replace(TARGET, shape=(2**31, 1, 1))
    with pytest.raises(GridLimitError, match="2147483648 blocks") as caught:
        preprocessor(stack(), endless, windows_of())
    assert isinstance(caught.value, ValueError)
    assert cuda.calls["launch"] == 0


def test_a_refused_launch_is_typed_and_passes(
    stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any
) -> None:
    cuda.failures["launch"] = cuda.module.LaunchError("too many resources requested for launch")
    with pytest.raises(KernelLaunchError, match="too many resources"):
        preprocessor(stack(), TARGET, windows_of())
    cuda.failures.clear()
    assert_right(preprocessor, preprocessor(stack(), TARGET, windows_of()), stack(), TARGET, windows_of())


def test_a_lost_context_stays_lost(stack: Callable[..., Volume], preprocessor: CudaPreprocessor, cuda: Any) -> None:
    """A fault inside a kernel shows where somebody waits, and from then on every call says so."""
    cuda.fault_at_launch = True
    tensor = preprocessor(stack(), TARGET, windows_of())
    with pytest.raises(ContextLostError, match="illegal memory access") as caught:
        preprocessor.download(tensor)
    assert isinstance(caught.value, RuntimeError)
    for call in (
        preprocessor.synchronize,
        lambda: preprocessor.staging((1, 2, 3)),
        lambda: preprocessor.upload(stack()),
    ):
        with pytest.raises(ContextLostError, match="new process"):
            call()
    preprocessor.close()


def test_closed_is_closed_and_twice_is_fine(stack: Callable[..., Volume], cuda: Any) -> None:
    preprocessor = CudaPreprocessor()
    uploaded = preprocessor.upload(stack())
    tensor = preprocessor.run(uploaded, TARGET, windows_of())
    preprocessor.close()
    preprocessor.close()
    assert not cuda.memory
    calls: tuple[Callable[[], object], ...] = (
        lambda: preprocessor(stack(), TARGET, windows_of()),
        lambda: preprocessor.run(uploaded, TARGET, windows_of()),
        lambda: preprocessor.download(tensor),
        lambda: preprocessor.staging((1, 1, 1)),
        lambda: preprocessor.stream,
        preprocessor.synchronize,
    )
    for call in calls:
        with pytest.raises(KernelError, match="closed"):
            call()


def test_one_that_was_never_used_closes(cuda: Any) -> None:
    CudaPreprocessor().close()
    assert not cuda.memory


def in_thread(work: Callable[[], None]) -> BaseException | None:
    """What a function raises in another thread."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def test_another_thread_is_turned_away_but_may_close(stack: Callable[..., Volume], cuda: Any) -> None:
    preprocessor = CudaPreprocessor()
    preprocessor(stack(), TARGET, windows_of())
    error = in_thread(preprocessor.synchronize)
    assert isinstance(error, KernelError) and "another thread" in str(error)
    assert in_thread(preprocessor.close) is None
    assert not cuda.memory


def test_every_thread_can_have_its_own(stack: Callable[..., Volume], cuda: Any) -> None:
    def work() -> None:
        with CudaPreprocessor() as own:
            assert_right(own, own(stack(), TARGET, windows_of()), stack(), TARGET, windows_of())

    assert in_thread(work) is None
    work()
    assert cuda.calls["retain"] == 2


def test_a_thread_retains_the_primary_context_once(cuda: Any) -> None:
    for _ in range(3):
        CudaPreprocessor().close()
    assert cuda.calls["retain"] == 1


# The context and the stream of somebody else


def test_a_given_context_and_stream_are_used_and_left_as_they_were(stack: Callable[..., Volume], cuda: Any) -> None:
    context = cuda.retain_primary_context()
    other = cuda.retain_primary_context()
    context.push()
    stream = cuda.driver.Stream()
    other.push()
    with CudaPreprocessor(context=context, stream=stream) as preprocessor:
        assert preprocessor.stream is stream
        assert cuda.stack == [context, other]
        tensor = preprocessor(stack(), TARGET, windows_of())
        assert stream.work, "enqueued on the given stream"
        assert_right(preprocessor, tensor, stack(), TARGET, windows_of())
        with pytest.raises(ValueError, match="slices"):
            preprocessor(View(stack(), np.empty((0, 1, 1), np.int16)), TARGET, windows_of())  # type: ignore[arg-type]
        assert cuda.stack == [context, other]
    assert not cuda.memory
    other.pop()
    context.pop()


def test_nothing_is_waited_for_in_a_call(stack: Callable[..., Volume], preprocessor: CudaPreprocessor) -> None:
    preprocessor(stack(), TARGET, windows_of())
    preprocessor.synchronize()
    preprocessor(stack(), TARGET, windows_of())
    work = preprocessor.stream.work  # type: ignore[attr-defined]
    assert len(work) == 5  # two copies, two marks, one launch
    preprocessor.synchronize()
    assert not work


# Machines without


def test_no_pycuda_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(KernelUnavailableError, match="pycuda"):
        CudaPreprocessor()


@pytest.mark.parametrize("error", [OSError("libcuda.so.1: cannot open"), ImportError("undefined symbol: cuInit")])
def test_a_broken_pycuda_is_a_reason(error: Exception, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(cuda_driver.importlib, "import_module", broken)
    with pytest.raises(KernelUnavailableError, match=f"cannot be imported: {type(error).__name__}: {error}"):
        CudaPreprocessor()


def test_a_dependency_of_pycuda_that_is_missing_is_named(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'pytools'", name="pytools")

    monkeypatch.setattr(cuda_driver.importlib, "import_module", broken)
    with pytest.raises(KernelUnavailableError, match="pycuda needs pytools"):
        CudaPreprocessor()


def test_no_device_is_a_reason(fake_cuda: Machine) -> None:
    fake_cuda(devices=0)
    with pytest.raises(KernelUnavailableError, match="no CUDA device"):
        CudaPreprocessor()


def test_no_driver_is_a_reason(cuda: Any) -> None:
    cuda.failures["init"] = cuda.driver.Error("cuInit failed: no CUDA-capable device is detected")
    with pytest.raises(KernelUnavailableError, match=r"driver does not start.*no CUDA-capable"):
        CudaPreprocessor()


def test_a_device_that_is_not_there_is_an_error(cuda: Any) -> None:
    with pytest.raises(KernelUnavailableError, match="device 3 cannot be opened"):
        CudaPreprocessor(device=3)


def test_an_upload_is_a_value(stack: Callable[..., Volume], preprocessor: CudaPreprocessor) -> None:
    uploaded = preprocessor.upload(stack())
    assert isinstance(uploaded, Uploaded)
    with pytest.raises(dataclasses.FrozenInstanceError):
        uploaded.serial = 7  # type: ignore[misc]
