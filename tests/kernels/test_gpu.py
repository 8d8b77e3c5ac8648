"""The matrix of test_implementations.py on a CUDA device. Skipped, with the reason, where there is none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgehem.kernels import cuda_driver, oracle
from edgehem.kernels.cuda import CudaPreprocessor
from edgehem.kernels.errors import KernelUnavailableError

pytestmark = pytest.mark.gpu


def beside(name: str) -> ModuleType:
    """Another test file, which pytest's import mode keeps from being imported by its name."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = beside("test_implementations")


@pytest.fixture(scope="module")
def gpu() -> Iterator[CudaPreprocessor]:
    """A preprocessor on the first device."""
    try:
        made = CudaPreprocessor()
    except KernelUnavailableError as error:
        pytest.skip(f"no GPU path: {error}")
    with made:
        yield made


def check(gpu: CudaPreprocessor, volume: Any, target: Any, windows: Any) -> None:
    found = gpu.download(gpu(volume, target, windows))
    matrix.assert_same_bits(found, oracle.preprocess(volume, target, windows))


@pytest.mark.parametrize("dtype", matrix.DTYPES)
@pytest.mark.parametrize("case", matrix.CASES)
def test_the_device_gives_the_oracles_bits(gpu: CudaPreprocessor, case: str, dtype: str) -> None:
    arguments, target = matrix.CASES[case]
    check(gpu, matrix.volume_of(**arguments), target, matrix.windows_of(dtype))


def test_hounsfield_units(gpu: CudaPreprocessor) -> None:
    volume, target = matrix.volume_of(), matrix.grid()
    np.testing.assert_array_equal(
        gpu.download(gpu(volume, target, None))[:, 0], oracle.resample(volume, target), strict=True
    )


def test_half_precision_in_every_binade(gpu: CudaPreprocessor) -> None:
    """The device's own conversion rounds as NumPy's does, denormal numbers and infinity included."""
    ramp = np.arange(-2048, 2048, dtype=np.int16).reshape(1, 64, 64)
    volume = replace(
        matrix.volume_of(slices=1, size=(64, 64), spacing=(1.0, 1.0), intercept=0.0),
        pixels=ramp,
        slope=np.ones(1, np.float32),
    )
    target = matrix.Target(shape=(1, 64, 64), spacing_mm=(1, 1, 1), origin=tuple(volume.origin[0].tolist()))
    for std in (1e-4, 1e-2, 1.0, 1e3, 1e6, 1e7, 1e8):
        windows = matrix.Windows(level_width=((3.0, 4096.0), (0.1, 900.0)), mean=0.5, std=std, dtype="float16")
        check(gpu, volume, target, windows)


def test_staged_pixels_and_views_of_them(gpu: CudaPreprocessor) -> None:
    volume = matrix.volume_of(size=(80, 90), spacing=(0.5, 0.5))
    slices, rows, columns = volume.pixels.shape
    for margin in (0, 1, 2):
        staged = gpu.staging((slices, rows + margin, columns + margin))[:, margin:, margin:]
        staged[:] = volume.pixels
        found = gpu.download(gpu(matrix.Strided(volume, staged), matrix.grid(), matrix.windows_of("float32")))
        matrix.assert_same_bits(found, oracle.preprocess(volume, matrix.grid(), matrix.windows_of("float32")))


def test_studies_in_flight_into_an_engines_buffers(gpu: CudaPreprocessor) -> None:
    """Enqueued one behind the other, without waiting, each into its own buffer."""
    driver = cuda_driver.driver()
    windows, target = matrix.windows_of("int8"), matrix.grid()
    volumes = [matrix.volume_of(seed=seed, slices=5 + seed) for seed in range(6)]
    with gpu.entered("allocating"):
        buffers = [driver.mem_alloc(11 * 3 * 37 * 43) for _ in volumes]
    tensors = [
        gpu(volume, target, windows, out_pointer=int(buffer)) for volume, buffer in zip(volumes, buffers, strict=True)
    ]
    for volume, tensor in zip(volumes, tensors, strict=True):
        matrix.assert_same_bits(gpu.download(tensor), oracle.preprocess(volume, target, windows))
    with gpu.entered("freeing"):
        for buffer in buffers:
            buffer.free()


def test_a_warm_device_allocates_nothing(gpu: CudaPreprocessor) -> None:
    driver: Any = cuda_driver.driver()
    volume, target, windows = matrix.volume_of(), matrix.grid(), matrix.windows_of("float32")
    check(gpu, volume, target, windows)
    with gpu.entered("asking"):
        before = driver.mem_get_info()
    for _ in range(20):
        check(gpu, volume, target, windows)
    with gpu.entered("asking"):
        assert driver.mem_get_info() == before


def test_a_context_of_ones_own(gpu: CudaPreprocessor) -> None:
    driver: Any = cuda_driver.driver()
    context = driver.Device(0).make_context()
    try:
        with CudaPreprocessor(context=context) as own:
            check(own, matrix.volume_of(), matrix.grid(), matrix.windows_of("float16"))
        assert driver.Context.get_current() == context
    finally:
        context.pop()
    check(gpu, matrix.volume_of(), matrix.grid(), matrix.windows_of("float16"))
