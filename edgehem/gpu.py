"""The GPUs of this machine, as far as plans, records and a support engineer need to know them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgehem.kernels import cuda_driver

DRIVER_FILE = Path("/proc/driver/nvidia/version")
TEGRA_FILE = Path("/etc/nv_tegra_release")


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One CUDA device.

    Parameters
    ----------
    ordinal : int
    name : str
    capability : str
        Compute capability, "8.7".
    multiprocessors : int
        That work: a Jetson's power mode switches some off, and so does a MIG partition.
    memory_mib : int
    integrated : bool
        Shares its memory with the CPU.
    cuda : str
        The newest CUDA version that the driver knows, "13.0".
    driver : str
        Version of the kernel's driver, or of Jetson Linux; empty where the system does not say.
    """

    ordinal: int
    name: str
    capability: str
    multiprocessors: int
    memory_mib: int
    integrated: bool
    cuda: str
    driver: str


def gpus() -> list[Gpu]:
    """Every CUDA device.

    Raises
    ------
    KernelUnavailableError
        If pycuda, the driver or a device is missing: the message says which.
    """
    found = cuda_driver.driver()
    known = found.get_driver_version()
    return [_gpu(found, ordinal, known) for ordinal in range(found.Device.count())]


def gpu(ordinal: int = 0) -> Gpu:
    """One CUDA device.

    Raises
    ------
    KernelUnavailableError
    """
    found = cuda_driver.driver()
    return _gpu(found, ordinal, found.get_driver_version())


def key_parts(ordinal: int = 0) -> dict[str, str]:
    """What of a GPU decides whether a plan fits, in words.

    Raises
    ------
    KernelUnavailableError
    """
    here = gpu(ordinal)
    return {
        "GPU": here.name,
        "compute capability": here.capability,
        "multiprocessors": str(here.multiprocessors),
        "CUDA of the driver": here.cuda,
        "driver": here.driver or "unknown",
    }


def has_tf32(parts: Mapping[str, str]) -> bool:
    """Whether the GPU of these key parts computes in TensorFloat-32: those from Ampere on do.

    CUDA C++ Programming Guide, compute capability 8.0.
    """
    major, minor = (int(part) for part in parts["compute capability"].split("."))
    return (major, minor) >= (8, 0)


def _gpu(found: cuda_driver.Driver, ordinal: int, known: int) -> Gpu:
    with cuda_driver.typed(found, f"asking CUDA device {ordinal} what it is"):
        device = found.Device(ordinal)
        major, minor = device.compute_capability()
        kinds = found.device_attribute
        return Gpu(
            ordinal=ordinal,
            name=device.name(),
            capability=f"{major}.{minor}",
            multiprocessors=int(device.get_attribute(kinds.MULTIPROCESSOR_COUNT)),
            memory_mib=device.total_memory() >> 20,
            integrated=bool(device.get_attribute(kinds.INTEGRATED)),
            cuda=f"{known // 1000}.{known % 1000 // 10}",
            driver=driver_version(),
        )


def driver_version() -> str:
    """``550.54.15``, on a Jetson also ``L4T 36.4.3``; empty where the system does not say."""
    parts = []
    # "... Kernel Module  550.54.15  ...", and of the open one "... Kernel Module for x86_64  570.86.10  ...".
    if found := re.search(r"Kernel Module\b.*?\s([0-9]+(?:\.[0-9]+)+)\s", _read(DRIVER_FILE)):
        parts.append(found[1])
    if found := re.search(r"R([0-9]+).*?REVISION:\s*([0-9.]+)", _read(TEGRA_FILE)):
        parts.append(f"L4T {found[1]}.{found[2]}")
    return ", ".join(parts)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
