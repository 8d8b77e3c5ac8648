"""The kernels in the forms that run here: the native twin, and the CUDA source executed on the host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgehem.kernels import native
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
