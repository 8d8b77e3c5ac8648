"""The native twin and the host-executed CUDA source under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgehem.kernels.build import compile_native

from .conftest import SANITIZE, TESTS, compile_on_host


@pytest.mark.slow
def test_the_whole_matrix_runs_clean(sanitized_environment: dict[str, str], tmp_path: Path) -> None:
    twin = compile_native(tmp_path / "native.so", compiler="g++", extra=SANITIZE)
    on_host = compile_on_host(TESTS / "preprocess_on_host.cpp", tmp_path / "cuda.so", ("-fPIC", "-shared", *SANITIZE))
    command = [sys.executable, str(TESTS / "sanitized.py"), str(twin), str(on_host)]
    done = subprocess.run(command, env=sanitized_environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "runs clean" in done.stdout


@pytest.mark.slow
def test_the_sanitizers_see_a_read_past_the_end(sanitized_environment: dict[str, str], tmp_path: Path) -> None:
    """The same way of running reports an error where there is one."""
    source = tmp_path / "past.cpp"
    source.write_text('extern "C" int past(const int* at, int n) { return at[n]; }\n', encoding="utf-8")
    library = compile_on_host(source, tmp_path / "past.so", ("-fPIC", "-shared", *SANITIZE))
    script = (
        "import ctypes, numpy as np, sys; a = np.zeros(1000, np.int32)\n"
        "ctypes.CDLL(sys.argv[1]).past(ctypes.c_void_p(a.ctypes.data), 1000)"
    )
    command = [sys.executable, "-c", script, str(library)]
    done = subprocess.run(command, env=sanitized_environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
