"""The native twin and the host-executed CUDA source under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgehem.kernels.build import compile_native

from .conftest import TESTS, compile_on_host

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")


@pytest.mark.slow
def test_the_whole_matrix_runs_clean(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(runtime).is_absolute() for runtime in runtimes):
        pytest.skip("g++ has no sanitizer runtimes here")
    twin = compile_native(tmp_path / "native.so", compiler=compiler, extra=SANITIZE)
    on_host = compile_on_host(TESTS / "preprocess_on_host.cpp", tmp_path / "cuda.so", ("-fPIC", "-shared", *SANITIZE))
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
    }
    command = [sys.executable, str(TESTS / "sanitized.py"), str(twin), str(on_host)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "runs clean" in done.stdout


@pytest.mark.slow
def test_the_sanitizers_see_a_read_past_the_end(tmp_path: Path) -> None:
    """The same way of running reports an error where there is one."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("g++ has no sanitizer runtimes here")
    source = tmp_path / "past.cpp"
    source.write_text('extern "C" int past(const int* at, int n) { return at[n]; }\n', encoding="utf-8")
    library = compile_on_host(source, tmp_path / "past.so", ("-fPIC", "-shared", *SANITIZE))
    script = (
        "import ctypes, numpy as np, sys; a = np.zeros(1000, np.int32)\n"
        "ctypes.CDLL(sys.argv[1]).past(ctypes.c_void_p(a.ctypes.data), 1000)"
    )
    environment = os.environ | {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", script, str(library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
