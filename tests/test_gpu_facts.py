"""What is asked of a GPU and its driver, on a fake machine and on files as systems have them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgehem import gpu
from edgehem.kernels.errors import KernelLaunchError, KernelUnavailableError

_spec = importlib.util.spec_from_file_location(
    "conftest_of_kernels", Path(__file__).resolve().parent / "kernels" / "conftest.py"
)
assert _spec is not None and _spec.loader is not None
_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_kernels)
cuda_on_host, fake_cuda = _kernels.cuda_on_host, _kernels.fake_cuda

WORKSTATION = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (dvs-builder@U22-I3-B17-02-5)
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""
JETSON_MODULE = """\
NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain@mobile-u64-6519-d8000)
"""
JETSON = """\
# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025
# KERNEL_VARIANT: oot
TARGET_USERSPACE_LIB_DIR=nvidia
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes, str], None]:
    """The files a system tells its driver in; nothing is there before."""
    driver, tegra = tmp_path / "version", tmp_path / "nv_tegra_release"
    monkeypatch.setattr(gpu, "DRIVER_FILE", driver)
    monkeypatch.setattr(gpu, "TEGRA_FILE", tegra)

    def write(version: str | bytes, release: str) -> None:
        for path, text in ((driver, version), (tegra, release)):
            if text:
                path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


@pytest.mark.parametrize(
    ("version", "release", "said"),
    [
        (WORKSTATION, "", "550.54.15"),
        (OPEN, "", "570.86.10"),
        (JETSON_MODULE, JETSON, "540.4.0, L4T 36.4.3"),
        ("", JETSON, "L4T 36.4.3"),
        ("", "# R35 (release), REVISION: 6.1, GCID: 1, BOARD: t186ref\n", "L4T 35.6.1"),
        ("", "", ""),
        ("\n", "R\n", ""),
        (b"\xff\xfe Kernel Module  550.1  \xff", "", "550.1"),
        ("NVRM version: none\nGCC version:  gcc version 12.2.0\n", "", ""),
    ],
)
def test_the_driver_is_read_where_a_system_tells_it(
    version: str | bytes, release: str, said: str, files: Callable[[str | bytes, str], None]
) -> None:
    """The compiler's version is not the driver's; nor is the 64 of x86_64."""
    files(version, release)
    assert gpu.driver_version() == said


def test_two_drivers_are_two_keys(files: Callable[[str | bytes, str], None], fake_cuda: Callable[..., Any]) -> None:
    """Of the open module too, which every new GPU has."""
    fake_cuda()
    files(OPEN, "")
    before = gpu.key_parts()
    files(OPEN.replace("570.86.10", "570.124.06"), "")
    after = gpu.key_parts()
    assert {name for name in before if before[name] != after[name]} == {"driver"}


def test_every_device_is_told(files: Callable[[str | bytes, str], None], fake_cuda: Callable[..., Any]) -> None:
    cuda = fake_cuda(devices=2, capability=(8, 7), driver_version=12060, memory_limit=7 << 30)
    cuda.integrated = 1
    files("", JETSON)
    first, second = gpu.gpus()
    assert first == gpu.gpu() and second == gpu.gpu(1) and (first.ordinal, second.ordinal) == (0, 1)
    assert first == gpu.Gpu(
        ordinal=0,
        name="Fake GPU",
        capability="8.7",
        multiprocessors=16,
        memory_mib=7168,
        integrated=True,
        cuda="12.6",
        driver="L4T 36.4.3",
    )


def test_a_key_is_in_words(files: Callable[[str | bytes, str], None], fake_cuda: Callable[..., Any]) -> None:
    fake_cuda(capability=(12, 0), driver_version=13010)
    assert gpu.key_parts() == {
        "GPU": "Fake GPU",
        "compute capability": "12.0",
        "multiprocessors": "16",
        "CUDA of the driver": "13.1",
        "driver": "unknown",
    }


def test_what_is_not_there(fake_cuda: Callable[..., Any]) -> None:
    cuda = fake_cuda()
    with pytest.raises(KernelLaunchError, match="asking CUDA device 4 what it is"):
        gpu.gpu(4)
    cuda.devices = 0
    for ask in (gpu.gpus, gpu.gpu, gpu.key_parts):
        with pytest.raises(KernelUnavailableError, match="no CUDA device"):
            ask()
