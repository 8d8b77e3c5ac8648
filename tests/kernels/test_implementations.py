"""Every implementation of the pass against the oracle, bit for bit, over one matrix.

The CUDA kernels take part as source executed on the host; test_gpu.py runs them on a device.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from edgehem.kernels import AIR_HU, Target, Windows, fused, native, oracle, preprocess, resample
from edgehem.kernels.native import DTYPE_CODES, parameters, sliced
from edgehem.kernels.plan import Plan, channels
from edgehem.volume import Volume

Pass = Callable[[Volume, Target, Windows], npt.NDArray[np.generic]]

DTYPES = ("float32", "float16", "int8")
ISAS = ("baseline", "avx2", "avx512")
LEVEL_WIDTH = ((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0))


def windows_of(dtype: str) -> Windows:
    """Windows that use the whole arithmetic of a type."""
    return Windows(level_width=LEVEL_WIDTH, mean=0.21, std=0.37, dtype=dtype, scale=0.0173)


def volume_of(
    *,
    slices: int = 9,
    size: tuple[int, int] = (40, 44),
    spacing: tuple[float, float] = (0.9, 0.9),
    gap: float = 4.0,
    uneven: bool = False,
    turn: tuple[float, float, float] = (0, 0, 0),
    tilt: float = 0.0,
    advance: tuple[float, float] = (0.0, 0.0),
    padding: tuple[int, int] | None = None,
    intercept: float = -1024.0,
    seed: int = 0,
) -> Volume:
    """A stack of noise, every slice with its own slope and intercept, around the origin."""
    random = np.random.default_rng(seed)
    axes = Rotation.from_euler("ZXY", turn, degrees=True).as_matrix()
    lean = math.radians(tilt)
    row = axes @ (1, 0, 0)
    column = axes @ (0, math.cos(lean), -math.sin(lean))
    steps = random.uniform(0.3, 2.0, slices) if uneven else np.ones(slices)
    along = np.cumsum(steps) * gap
    along -= along.mean()
    table = axes @ (advance[0], advance[1], 1.0)
    corner = row * spacing[1] * (size[1] - 1) / 2 + column * spacing[0] * (size[0] - 1) / 2
    pixels = random.integers(-1024, 3000, (slices, *size)).astype(np.int16)
    if padding is not None:
        pixels[random.random(pixels.shape) < 0.3] = padding[0]
        pixels[:, :5] = padding[1]
    return Volume(
        pixels=pixels,
        slope=random.uniform(0.5, 1.5, slices).astype(np.float32),
        intercept=np.full(slices, intercept, np.float32),
        origin=along[:, None] * table - corner,
        row_cosines=row,
        column_cosines=column,
        pixel_spacing=spacing,
        padding=padding,
    )


def grid(
    shape: tuple[int, int, int] = (11, 37, 43),
    spacing_mm: tuple[float, float, float] = (3.7, 1.07, 0.97),
    *,
    shift: float = 0.0,
    resampling: str = "antialiased",
) -> Target:
    """A grid around the origin that reaches beyond the stacks."""
    z, y, x = (-(n - 1) / 2 * mm + shift for n, mm in zip(shape, spacing_mm, strict=True))
    return Target(shape=shape, spacing_mm=spacing_mm, origin=(x, y, z), resampling=resampling)


CASES: dict[str, tuple[dict[str, Any], Target]] = {
    "axial": ({}, grid()),
    "trilinear": ({"spacing": (0.4, 0.4), "gap": 0.7}, grid(resampling="trilinear")),
    "reduced by 2": ({"size": (80, 90), "spacing": (0.5, 0.5)}, grid()),
    "reduced by 3, odd size": ({"size": (100, 101), "spacing": (0.33, 0.33)}, grid()),
    "reduced by 4": ({"size": (128, 120), "spacing": (0.2, 0.2)}, grid()),
    "padding": ({"padding": (-2000, -1990)}, grid()),
    "padding, reduced by 2": ({"size": (80, 90), "spacing": (0.5, 0.5), "padding": (-2000, -2000)}, grid()),
    "padding, reduced by 3": ({"size": (110, 99), "spacing": (0.33, 0.33), "padding": (-9, 9)}, grid()),
    "tilt": ({"tilt": 18.5}, grid()),
    "tilt, thin": ({"tilt": -22.0, "gap": 0.8, "slices": 30, "uneven": True}, grid()),
    "variable spacing": ({"uneven": True}, grid()),
    "thin slices averaged": ({"gap": 0.5, "slices": 60}, grid()),
    "very thin slices": ({"gap": 0.06, "slices": 300, "size": (20, 20), "spacing": (2.0, 2.0)}, grid((5, 19, 17))),
    "oblique": ({"turn": (11, -9, 7)}, grid()),
    "oblique, thin, reduced, padding": (
        {"turn": (-20, 14, 5), "gap": 1.0, "slices": 24, "size": (80, 90), "spacing": (0.5, 0.5), "padding": (-9, 9)},
        grid(),
    ),
    "turned in the plane": ({"turn": (25, 0, 0)}, grid()),
    "sheared along rows": ({"advance": (0.3, -0.1), "uneven": True}, grid()),
    "sagittal": ({"turn": (0, 90, 0)}, grid()),
    "feet first": ({"turn": (0, 0, 180)}, grid()),
    "upside down": ({"turn": (180, 0, 0)}, grid()),
    "single slice": ({"slices": 1}, grid()),
    "two slices": ({"slices": 2}, grid()),
    "one pixel": ({"slices": 1, "size": (1, 1)}, grid((3, 5, 7), (1, 0.3, 0.3))),
    "one voxel": ({}, grid((1, 1, 1))),
    "narrow": ({"size": (3, 2)}, grid((2, 3, 1), (1, 0.5, 0.5))),
    "wide": ({"size": (6, 700), "spacing": (2.0, 0.3)}, grid((2, 5, 600), (1, 2.1, 0.31))),
    "coarse pixels": ({"spacing": (3.0, 3.0)}, grid()),
    "not square": ({"spacing": (0.5, 1.3)}, grid()),
    "beside the stack": ({}, grid(shift=900.0)),
    "equal grids": ({"size": (37, 43), "spacing": (1.0, 1.0), "slices": 11}, grid(spacing_mm=(4.0, 1.0, 1.0))),
    "large grid": ({}, grid((3, 130, 515), (5, 0.4, 0.1))),
}


def run_native(isa: str) -> Pass:
    def run(volume: Volume, target: Target, windows: Windows) -> npt.NDArray[np.generic]:
        out = np.full((target.shape[0], len(windows.level_width), *target.shape[1:]), 77, windows.dtype)
        native.preprocess(volume, target, windows, out, threads=3, isa=isa)
        return out

    return run


def run_cuda_on_host(library: ctypes.CDLL) -> Pass:
    def run(volume: Volume, target: Target, windows: Windows) -> npt.NDArray[np.generic]:
        out = np.full((target.shape[0], len(windows.level_width), *target.shape[1:]), 77, windows.dtype)
        plan, pixels = Plan.of(volume, target), sliced(volume)
        block, table = parameters(plan, channels(windows), pixels), plan.tables
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in (table, pixels, out)]
        assert library.run_preprocess(ctypes.byref(block), *arrays[:2], DTYPE_CODES[windows.dtype], arrays[2]) == 0
        return out

    return run


@pytest.fixture(scope="module", params=[*(f"native {isa}" for isa in ISAS), "cuda source on the host"])
def run(request: pytest.FixtureRequest) -> Pass:
    """One implementation."""
    if request.param.startswith("native"):
        twin = request.getfixturevalue("native_twin")
        isa = request.param.removeprefix("native ")
        there = [name.decode() for index in range(3) if (name := twin.eh_isa_at(index))]
        if isa not in there:
            pytest.skip(f"this CPU has no {isa}")
        return run_native(isa)
    return run_cuda_on_host(request.getfixturevalue("cuda_on_host"))


def assert_same_bits(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> None:
    """Equal in every bit, signs of zero included."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    unsigned = f"u{expected.itemsize}"
    np.testing.assert_array_equal(found.view(unsigned), expected.view(unsigned))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_every_implementation_gives_the_oracles_bits(run: Pass, case: str, dtype: str) -> None:
    arguments, target = CASES[case]
    volume, windows = volume_of(**arguments), windows_of(dtype)
    assert_same_bits(run(volume, target, windows), oracle.preprocess(volume, target, windows))


def test_half_precision_is_numpys_cast(run: Pass) -> None:
    """float16 output is the float32 output, cast."""
    arguments, target = CASES["tilt"]
    volume = volume_of(**arguments)
    halves, floats = (run(volume, target, windows_of(dtype)) for dtype in ("float16", "float32"))
    assert_same_bits(halves, floats.astype(np.float16))


def test_halves_are_rounded_as_numpy_rounds_them_down_to_the_smallest(run: Pass) -> None:
    """Through windows that send stored values to every binade of half precision, denormal ones included."""
    ramp = np.arange(-2048, 2048, dtype=np.int16).reshape(1, 64, 64)
    volume = replace(
        volume_of(slices=1, size=(64, 64), spacing=(1.0, 1.0), intercept=0.0), pixels=ramp, slope=np.ones(1, np.float32)
    )
    target = Target(shape=(1, 64, 64), spacing_mm=(1, 1, 1), origin=tuple(volume.origin[0].tolist()))
    for std in (1e-4, 1e-2, 1.0, 1e3, 1e6, 1e7, 1e8):
        windows = Windows(level_width=((3.0, 4096.0), (0.1, 900.0)), mean=0.5, std=std, dtype="float16")
        assert_same_bits(run(volume, target, windows), oracle.preprocess(volume, target, windows))


def test_ties_of_int8_go_to_the_even_number(run: Pass) -> None:
    """Stored values that fall half-way between two steps."""
    ramp = np.arange(-600, 424, dtype=np.int16).reshape(1, 32, 32)
    volume = replace(
        volume_of(slices=1, size=(32, 32), spacing=(1.0, 1.0), intercept=0.0), pixels=ramp, slope=np.ones(1, np.float32)
    )
    target = Target(shape=(1, 32, 32), spacing_mm=(1, 1, 1), origin=tuple(volume.origin[0].tolist()))
    windows = Windows(level_width=((0.0, 1024.0),), mean=0.5, dtype="int8", scale=1 / 512)
    found = run(volume, target, windows)
    np.testing.assert_array_equal(found[0, 0].reshape(-1), np.clip(np.rint(ramp.reshape(-1) / 2), -127, 127))


@given(
    slices=st.integers(1, 12),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    spacing=st.tuples(st.floats(0.2, 4.0), st.floats(0.2, 4.0)),
    gap=st.floats(0.2, 8.0),
    uneven=st.booleans(),
    turn=st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[st.floats(-180, 180)] * 3)),
    tilt=st.one_of(st.just(0.0), st.floats(-30, 30)),
    padding=st.sampled_from([None, (-2000, -2000), (0, 500)]),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40)),
    grid_mm=st.tuples(st.floats(0.3, 6.0), st.floats(0.3, 4.0), st.floats(0.3, 4.0)),
    resampling=st.sampled_from(["antialiased", "trilinear"]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_stack_on_any_grid_gives_the_oracles_bits(
    run: Pass,
    shape: tuple[int, int, int],
    grid_mm: tuple[float, float, float],
    resampling: str,
    dtype: str,
    **stack: Any,
) -> None:
    volume, target = volume_of(**stack), grid(shape, grid_mm, resampling=resampling)
    windows = windows_of(dtype)
    assert_same_bits(run(volume, target, windows), oracle.preprocess(volume, target, windows))


class Strided:
    """A stack whose pixels are a view of something larger, as a decoder's buffer may be."""

    def __init__(self, volume: Volume, pixels: npt.NDArray[np.int16]) -> None:
        self._volume, self.pixels = volume, pixels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._volume, name)


@pytest.mark.parametrize("factor", [1, 2])
def test_views_of_larger_arrays_are_read_in_place(run: Pass, factor: int) -> None:
    """Odd row strides, odd starts, reversed and transposed views: always the same numbers."""
    volume = volume_of(size=(40, 44), spacing=(0.9 / factor, 0.9 / factor))
    slices, rows, columns = volume.pixels.shape
    roomy = np.full((slices, rows + 3, columns + 7), 30000, np.int16)
    roomy[:, 2 : 2 + rows, 1 : 1 + columns] = volume.pixels
    views = {
        "odd start": roomy[:, 2 : 2 + rows, 1 : 1 + columns],
        "columns first": np.asfortranarray(volume.pixels),
        "reversed": volume.pixels[::-1].copy()[::-1],
    }
    windows = windows_of("float32")
    expected = oracle.preprocess(volume, grid(), windows)
    for name, view in views.items():
        assert not view.flags.c_contiguous, name
        assert_same_bits(run(Strided(volume, view), grid(), windows), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 2, 7, 300])
def test_threads_do_not_change_a_bit(native_twin: ctypes.CDLL, threads: int) -> None:
    volume, windows = volume_of(), windows_of("float32")
    out = np.empty((11, 3, 37, 43), np.float32)
    native.preprocess(volume, grid(), windows, out, threads=threads)
    assert_same_bits(out, oracle.preprocess(volume, grid(), windows))


def test_what_a_pass_writes_is_its_output_and_nothing_else() -> None:
    """What lies before and after the output stays as it was."""
    volume, windows = volume_of(**CASES["tilt, thin"][0]), windows_of("float32")
    guarded = np.full((13, 3, 37, 43), 5.0, np.float32)
    preprocess(volume, grid(), windows, out=guarded[1:12])
    assert (guarded[0] == 5).all() and (guarded[12] == 5).all()
    assert_same_bits(guarded[1:12].copy(), oracle.preprocess(volume, grid(), windows))


# The public calls


@pytest.mark.parametrize("choice", ["native", "numpy"])
def test_both_implementations_serve_the_same_call(
    choice: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if choice == "native":
        request.getfixturevalue("native_twin")
    monkeypatch.setenv(fused.CHOICE, choice)
    fused.implementation.cache_clear()
    try:
        assert fused.implementation() == choice
        volume, windows = volume_of(), windows_of("int8")
        assert_same_bits(preprocess(volume, grid(), windows), oracle.preprocess(volume, grid(), windows))
        assert_same_bits(resample(volume, grid()), oracle.resample(volume, grid()))
    finally:
        fused.implementation.cache_clear()


def test_without_a_compiler_numpy_serves_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "why_not", lambda: "not built")
    monkeypatch.delenv(fused.CHOICE, raising=False)
    fused.implementation.cache_clear()
    try:
        for _ in range(3):
            assert preprocess(volume_of(), grid(), windows_of("float32")).shape == (11, 3, 37, 43)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "NumPy" in caplog.text and "not built" in caplog.text
        monkeypatch.setenv(fused.CHOICE, "native")
        fused.implementation.cache_clear()
        with pytest.raises(RuntimeError, match="not built"):
            fused.implementation()
    finally:
        fused.implementation.cache_clear()


def test_an_unknown_choice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fused.CHOICE, "cuda-please")
    fused.implementation.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="cuda-please"):
            fused.implementation()
    finally:
        fused.implementation.cache_clear()


@pytest.mark.parametrize(
    "wrong",
    [
        np.empty((11, 3, 37, 42), np.float32),
        np.empty((11, 3, 37, 43), np.float64),
        np.empty((11, 3, 43, 37), np.float32).transpose(0, 1, 3, 2),
        np.broadcast_to(np.float32(0), (11, 3, 37, 43)),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(wrong: npt.NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="out must be"):
        preprocess(volume_of(), grid(), windows_of("float32"), out=wrong)


def test_an_empty_stack_is_refused() -> None:
    volume = volume_of(slices=1)
    empty = Strided(volume, np.empty((1, 0, 4), np.int16))
    with pytest.raises(ValueError, match="pixels"):
        preprocess(empty, grid(), windows_of("float32"))  # type: ignore[arg-type]


def test_hounsfield_units_pass_through_unclipped() -> None:
    """Without windows the pass gives HU, also far outside the usual range."""
    volume = replace(volume_of(slices=2), slope=np.full(2, 9.0, np.float32))
    hu = resample(volume, grid())
    assert_same_bits(hu, oracle.resample(volume, grid()))
    assert hu.max() > 5000 and hu.min() < -5000 and (hu == AIR_HU).any()


# The library itself


def test_a_layout_that_differs_is_refused(native_twin: ctypes.CDLL) -> None:
    plan = Plan.of(volume_of(), grid())
    block = parameters(plan, channels(windows_of("float32")), volume_of().pixels)
    block.size -= 4
    assert native_twin.eh_preprocess(ctypes.byref(block), 0, 0, 0, 0, 1, None) == -1


@pytest.mark.parametrize("field", ["slices", "rows", "columns", "factor", "reduced_rows", "channels", "width"])
def test_sizes_that_cannot_be_are_refused(native_twin: ctypes.CDLL, field: str) -> None:
    plan = Plan.of(volume_of(), grid())
    block = parameters(plan, channels(windows_of("float32")), volume_of().pixels)
    setattr(block, field, -1)
    assert native_twin.eh_preprocess(ctypes.byref(block), 0, 0, 0, 0, 1, None) == -2


def test_nothing_to_write_is_no_work(native_twin: ctypes.CDLL) -> None:
    plan = Plan.of(volume_of(), grid())
    block = parameters(plan, channels(windows_of("float32")), volume_of().pixels)
    block.planes = 0
    assert native_twin.eh_preprocess(ctypes.byref(block), 0, 0, 0, 0, 1, None) == 0


def test_the_parameter_block_is_the_headers() -> None:
    """ctypes and the C compiler lay the same fields out alike: the size is what guards every call."""
    assert ctypes.sizeof(native.Parameters) == 14 * 4 + 12 * 4 + 4 * 4 + 2 * 8 + 16 * 4 * 4


def test_a_stack_too_large_to_count_is_refused() -> None:
    """Stored pixels are counted in 32 bits; nothing is read here."""
    volume = volume_of(slices=2)
    plan = Plan.of(volume, grid())
    far = np.lib.stride_tricks.as_strided(volume.pixels, strides=(native.MOST_BYTES, *volume.pixels.strides[1:]))
    with pytest.raises(ValueError, match="8 GiB"):
        parameters(plan, channels(windows_of("float32")), far)
