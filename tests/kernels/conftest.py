"""The kernels in the forms that run here: the native twin, and the CUDA source executed on the host."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edgehem.kernels import build, cuda_code, native
from edgehem.kernels.build import HERE

TESTS = Path(__file__).resolve().parent

HOST_FLAGS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Werror",
)
"""The same arithmetic as the native twin's."""


def compile_on_host(source: Path, out: Path, extra: Sequence[str] = ()) -> Path:
    """Compile a file that includes kernel source, as a shared library unless told otherwise."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    command = [compiler, *HOST_FLAGS, *(extra or ("-fPIC", "-shared")), "-I", str(HERE), "-I", str(TESTS)]
    subprocess.run([*command, str(source), "-o", str(out)], check=True)
    return out


@pytest.fixture(scope="session")
def cuda_on_host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """preprocess.cu, executed on the host: kernel source, not a GPU."""
    out = tmp_path_factory.mktemp("cuda_on_host") / "preprocess.so"
    return ctypes.CDLL(str(compile_on_host(TESTS / "preprocess_on_host.cpp", out)))


@pytest.fixture(scope="session")
def native_twin() -> ctypes.CDLL:
    """The installed native twin."""
    found = native.library()
    if found is None:
        # Where there is a compiler its absence is a broken installation, not a reason to skip.
        assert shutil.which("g++") is None, native.why_not()
        pytest.skip(f"native kernels: {native.why_not()}")
    return found


SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")


@pytest.fixture
def sanitized_environment() -> dict[str, str]:
    """For a Python in which libraries built with SANITIZE can be loaded."""
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no g++ to build with sanitizers")
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(runtime).is_absolute() for runtime in runtimes):
        pytest.skip("this g++ has no sanitizers")
    # Python itself never frees everything.
    return os.environ | {"LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0"}


@pytest.fixture
def fake_cuda(
    cuda_on_host: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """The maker of fake CUDA machines (fake_pycuda.py), with a compiler's name and an empty cache for the kernels."""
    spec = importlib.util.spec_from_file_location("fake_pycuda", TESTS / "fake_pycuda.py")
    assert spec is not None and spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho Build cuda_13.0.r13.0/compiler.fake\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(build, "find_nvcc", lambda: str(nvcc))
    monkeypatch.setattr(cuda_code, "FOLDER", tmp_path)
    monkeypatch.setenv(cuda_code.CACHE, str(tmp_path / "cache"))

    def install(modules: dict[str, Any]) -> None:
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    with ExitStack() as machines:

        def make(**machine: Any) -> Any:
            cuda = machines.enter_context(fake.fake_cuda(cuda_on_host, install, **machine))
            cuda.module = fake
            return cuda

        yield make
