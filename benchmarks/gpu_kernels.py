"""The preprocessing pass on a CUDA device, beside what the device can do: ``python benchmarks/gpu_kernels.py``.

1. Every output type against the oracle, bit for bit: what is wrong is not timed.
2. Bandwidth: one launch over more bytes than any cache holds, interleaved with a copy on the device that reads and
   writes as many. An aim of :data:`AIM` of the copy's rate.
3. One study, 40 × 512 × 512 to 40 × 3 × 256 × 256, in microseconds: the kernel alone, and from page-locked pixels,
   beside the rate at which the link carries them.
4. With ``--sanitize``, a small run under each tool of compute-sanitizer.

Writes one JSON record and one page about it. Exit code 3, and nothing written, where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.benchmarks import environment
from edgehem.kernels import Target, Windows, build, cuda_driver, oracle
from edgehem.kernels.cuda import CudaPreprocessor, Uploaded
from edgehem.kernels.errors import KernelUnavailableError
from edgehem.kernels.types import DTYPES
from edgehem.volume import Volume

SCHEMA = "edgehem.gpu-kernels/1"
AIM = 0.70
UNIQUE_BYTES = 512_000_000
"""Read or written once by one launch, at least: several times the largest cache of a GPU."""
SANITIZER_TOOLS = ("memcheck", "initcheck", "racecheck", "synccheck")
NO_GPU = 3

PIXEL_MM, SLICE_MM = 0.45, 4.0


# What is run


def stack(
    pixels: npt.NDArray[np.int16],
    *,
    gap: float = SLICE_MM,
    pixel: float = PIXEL_MM,
    lean: float = 0.0,
    padding: tuple[int, int] | None = None,
) -> Volume:
    """Slices around the origin; `lean` tilts the gantry (sine of the angle)."""
    slices, rows, columns = pixels.shape
    column = np.array([0.0, math.sqrt(1 - lean**2), -lean])
    origin = np.zeros((slices, 3))
    origin[:, 2] = (np.arange(slices) - (slices - 1) / 2) * gap
    origin -= (columns - 1) / 2 * pixel * np.array([1.0, 0, 0]) + (rows - 1) / 2 * pixel * column
    return Volume(
        pixels=pixels,
        slope=np.ones(slices, np.float32),
        intercept=np.full(slices, -1024, np.float32),
        origin=origin,
        row_cosines=np.array([1.0, 0, 0]),
        column_cosines=column,
        pixel_spacing=(pixel, pixel),
        padding=padding,
    )


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], resampling: str = "antialiased") -> Target:
    """A grid around the origin, between the slices and between the pixels: no interpolation is spared."""
    z, y, x = (-(n - 1) / 2 * mm + 0.37 * mm for n, mm in zip(shape, spacing, strict=True))
    return Target(shape=shape, spacing_mm=spacing, origin=(x, y, z), resampling=resampling)


def windows(dtype: str) -> Windows:
    """Brain, subdural, bone."""
    return Windows(level_width=((40, 80), (80, 200), (600, 2800)), mean=0.2, std=0.35, dtype=dtype, scale=0.02)


def noise(shape: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """Stored values of a CT, none like another."""
    return np.random.default_rng(0).integers(-1024, 3000, shape, dtype=np.int16)


CHECKS: dict[str, tuple[Volume, Target]] = {
    "axial, reduced by 2": (stack(noise((9, 96, 90))), grid((11, 37, 43), (3.7, 0.9, 0.9))),
    "tilted, padded": (stack(noise((9, 96, 90)), lean=0.3, padding=(-9, 9)), grid((11, 37, 43), (3.7, 0.9, 0.9))),
    "thin slices": (stack(noise((70, 64, 64)), gap=0.5, pixel=0.9), grid((9, 33, 31), (4.0, 1.0, 1.1))),
    "trilinear": (stack(noise((9, 96, 90))), grid((11, 37, 43), (3.7, 0.9, 0.9), "trilinear")),
    "single slice": (stack(noise((1, 40, 41))), grid((3, 19, 22), (2.0, 0.9, 0.9))),
}


def check(preprocessor: CudaPreprocessor) -> list[str]:
    """Compare every output type with the oracle; the names of what differs."""
    wrong = []
    for name, (volume, target) in CHECKS.items():
        for dtype in DTYPES:
            found = preprocessor.download(preprocessor(volume, target, windows(dtype)))
            expected = oracle.preprocess(volume, target, windows(dtype))
            if found.dtype != expected.dtype or found.tobytes() != expected.tobytes():
                wrong.append(f"{name}, {dtype}")
    return wrong


# The clock


@dataclass(frozen=True, kw_only=True)
class Device:
    """An opened device, its context current, and a clock on its stream."""

    driver: Any
    preprocessor: CudaPreprocessor

    def timed(self, work: Callable[[], object]) -> float:
        """Microseconds between what the stream did before and after, by CUDA events."""
        start, end = self.driver.Event(), self.driver.Event()
        start.record(self.preprocessor.stream)
        work()
        end.record(self.preprocessor.stream)
        end.synchronize()
        return float(end.time_since(start)) * 1e3

    def timed_kernel(self, uploaded: Uploaded, target: Target, wanted: Windows) -> float:
        """Microseconds of the launch alone: the clock goes where the preprocessor calls its function."""
        functions = self.preprocessor._functions
        real, took = functions[wanted.dtype], []
        driver, stream = self.driver, self.preprocessor.stream

        class Clocked:
            def prepare(self, arg_types: Sequence[str]) -> Clocked:
                raise NotImplementedError

            def prepared_async_call(self, *arguments: Any) -> None:
                start, end = driver.Event(), driver.Event()
                start.record(stream)
                real.prepared_async_call(*arguments)
                end.record(stream)
                took.append((start, end))

        functions[wanted.dtype] = Clocked()
        try:
            self.preprocessor.run(uploaded, target, wanted)
        finally:
            functions[wanted.dtype] = real
        ((start, end),) = took
        end.synchronize()
        return float(end.time_since(start)) * 1e3


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


# What is measured


def bandwidth(device: Device, dtype: str, repeats: int, unique: int = UNIQUE_BYTES) -> dict[str, Any]:
    """The pass over a batch, and a device copy of as many bytes, in turns."""
    size, planes_of = 512, 256
    read = size * size * 2
    written = 3 * planes_of * planes_of * np.dtype(dtype).itemsize
    slices = math.ceil(unique / (read + written))
    staged = device.preprocessor.staging((slices, size, size))
    staged[:] = np.resize(noise((16, size, size)), staged.shape)
    staged += np.arange(slices, dtype=np.int16)[:, None, None]  # no slice is another's copy
    target = grid((slices, planes_of, planes_of), (SLICE_MM, 2 * PIXEL_MM, 2 * PIXEL_MM))
    uploaded = device.preprocessor.upload(stack(staged))
    moved = slices * (read + written)
    source, copy = (device.driver.mem_alloc(moved // 2) for _ in range(2))
    try:
        passes, copies = [], []
        for repeat in range(repeats + 3):
            took = device.timed_kernel(uploaded, target, windows(dtype))
            beside = device.timed(
                lambda: device.driver.memcpy_dtod_async(copy, source, moved // 2, device.preprocessor.stream)
            )
            if repeat >= 3:  # the first ones load and warm
                passes.append(took)
                copies.append(beside)
    finally:
        device.preprocessor.synchronize()
        source.free()
        copy.free()
    pass_us, copy_us = spread(passes), spread(copies)
    return {
        "dtype": dtype,
        "slices": slices,
        "unique_bytes": moved,
        "pass_us": pass_us,
        "copy_us": copy_us,
        "pass_gb_per_s": moved / pass_us["median"] / 1e3,
        "copy_gb_per_s": moved / copy_us["median"] / 1e3,
        "share_of_copy": copy_us["median"] / pass_us["median"],
        "aim": AIM,
    }


def study(device: Device, dtype: str, repeats: int) -> dict[str, Any]:
    """One study, again and again on the same bytes: the kernel, the pass from page-locked pixels, the copy alone."""
    shape, target = (40, 512, 512), grid((40, 256, 256), (SLICE_MM, 2 * PIXEL_MM, 2 * PIXEL_MM))
    staged = device.preprocessor.staging(shape)
    staged[:] = noise(shape)
    volume = stack(staged)
    kernel: list[float] = []
    whole: list[float] = []
    link: list[float] = []
    for repeat in range(repeats + 3):
        uploaded = device.preprocessor.upload(volume)
        took = (
            device.timed_kernel(uploaded, target, windows(dtype)),
            device.timed(lambda: device.preprocessor(volume, target, windows(dtype))),
            device.timed(lambda: device.preprocessor.upload(volume)),
        )
        if repeat >= 3:
            for values, value in zip((kernel, whole, link), took, strict=True):
                values.append(value)
    link_us = spread(link)
    return {
        "dtype": dtype,
        "shape": list(shape),
        "out": [40, 3, 256, 256],
        "kernel_us": spread(kernel),
        "with_copy_us": spread(whole),
        "copy_us": link_us,
        "link_gb_per_s": staged.nbytes / link_us["median"] / 1e3,
    }


def sanitize() -> dict[str, Any]:
    """Each tool of compute-sanitizer over :func:`check` in a process of its own."""
    found = shutil.which("compute-sanitizer")
    if found is None:
        return {"run": False, "why_not": "compute-sanitizer is not on the PATH"}
    tools = {}
    for tool in SANITIZER_TOOLS:
        command = [found, "--tool", tool, "--error-exitcode", "9", sys.executable, str(Path(__file__)), "--check-only"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        tools[tool] = {"clean": done.returncode == 0, "said": done.stdout.strip().splitlines()[-1:]}
    return {"run": True, "tools": tools}


def describe(device: Device) -> dict[str, Any]:
    """The GPU and its software."""
    smi = shutil.which("nvidia-smi")
    query = [smi or "", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    kernel_driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() if smi else None
    gpu = device.driver.Device(0)
    return {
        "name": gpu.name(),
        "compute_capability": list(gpu.compute_capability()),
        "memory_bytes": gpu.total_memory(),
        "driver": kernel_driver,
        "driver_cuda": device.driver.get_driver_version(),
        "pycuda": environment.version("pycuda"),
        "code": {"origin": device.preprocessor.origin, "detail": device.preprocessor.detail},
        "source": build.cuda_hash(),
    }


# The page


def page(record: dict[str, Any]) -> str:
    """The record for a reader."""
    gpu, number = record["gpu"], record["gpu"]["driver_cuda"]
    lines = [
        f"# Preprocessing on {gpu['name']}",
        "",
        f"{record['date']}; driver {gpu['driver'] or 'unknown'}, CUDA {number // 1000}.{number % 1000 // 10}, pycuda "
        f"{gpu['pycuda']}; kernels {gpu['code']['detail']}. Medians of {record['repeats']}, by CUDA events.",
        "",
        f"    {record['command']}",
        "",
        f"Before timing, {record['checked']} outputs were compared with the NumPy oracle: equal in every bit.",
        "",
        f"## Bandwidth, at least {UNIQUE_BYTES / 1e6:.0f} MB of unique bytes a launch (aim: {AIM:.0%} of the copy)",
        "",
        "| output | slices | pass, GB/s | device copy, GB/s | share |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry['dtype']} | {entry['slices']} | {entry['pass_gb_per_s']:.0f} | {entry['copy_gb_per_s']:.0f} "
        f"| {entry['share_of_copy']:.0%} |"
        for entry in record["bandwidth"]
    ]
    lines += [
        "",
        "## One study, 40 × 512 × 512 to 40 × 3 × 256 × 256",
        "",
        "The same bytes again and again, so part of them may come from the cache.",
        "",
        "| output | kernel, µs | with the copy up, µs | copy alone, µs | link, GB/s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry['dtype']} | {entry['kernel_us']['median']:.0f} | {entry['with_copy_us']['median']:.0f} "
        f"| {entry['copy_us']['median']:.0f} | {entry['link_gb_per_s']:.1f} |"
        for entry in record["study"]
    ]
    if record["sanitizer"] is not None:
        lines += ["", "## compute-sanitizer", ""]
        if record["sanitizer"]["run"]:
            tools = record["sanitizer"]["tools"].items()
            lines += [f"- {tool}: {'clean' if said['clean'] else 'NOT clean'}" for tool, said in tools]
        else:
            lines.append(f"Not run: {record['sanitizer']['why_not']}.")
    return "\n".join(lines) + "\n"


def say(words: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(words + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0, 1 where results are wrong, 3 where there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the two files")
    parser.add_argument("--repeats", type=int, default=50, help="timings of each (default 50, at least 2)")
    parser.add_argument("--sanitize", action="store_true", help="also run the tools of compute-sanitizer")
    parser.add_argument("--check-only", action="store_true", help="compare with the oracle, time and write nothing")
    options = parser.parse_args(arguments)
    if options.repeats < 2:
        parser.error("--repeats: at least 2")
    try:
        driver: Any = cuda_driver.driver()
        context = cuda_driver.primary_context(driver, 0)
        preprocessor = CudaPreprocessor(context=context)
    except KernelUnavailableError as error:
        say(f"Nothing was measured: {error}.", sys.stderr)
        return NO_GPU
    context.push()
    try:
        with preprocessor:
            if wrong := check(preprocessor):
                say(f"Nothing was measured: the oracle disagrees on {'; '.join(wrong)}.", sys.stderr)
                return 1
            if options.check_only:
                return 0
            device = Device(driver=driver, preprocessor=preprocessor)
            record = {
                "schema": SCHEMA,
                "date": datetime.now(timezone.utc).date().isoformat(),
                "command": shlex.join(["python", "benchmarks/gpu_kernels.py", *(arguments or sys.argv[1:])]),
                "repeats": options.repeats,
                "checked": len(CHECKS) * len(DTYPES),
                "gpu": describe(device),
                "host": environment.describe(),
                "bandwidth": [bandwidth(device, dtype, options.repeats) for dtype in DTYPES],
                "study": [study(device, dtype, options.repeats) for dtype in DTYPES],
            }
    finally:
        context.pop()
    record["sanitizer"] = sanitize() if options.sanitize else None
    options.out.mkdir(parents=True, exist_ok=True)
    name = "gpu-kernels-" + "-".join(record["gpu"]["name"].lower().split())
    (options.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = page(record)
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    say(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
