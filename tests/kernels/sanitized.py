"""Run the whole matrix through sanitized builds: a process of its own, with the sanitizers' runtime loaded first.

Arguments: the native library, the CUDA source built for the host. Memory errors and undefined behaviour abort.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

import numpy as np

from edgehem.kernels import native, oracle


def main(native_path: str, cuda_path: str) -> None:
    """Every case and type; outputs lie in buffers of exactly their size."""
    spec = importlib.util.spec_from_file_location("matrix", Path(__file__).with_name("test_implementations.py"))
    assert spec is not None and spec.loader is not None
    matrix = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = matrix
    spec.loader.exec_module(matrix)
    twin, why_not = native.open_library(Path(native_path))
    assert twin is not None, why_not
    on_host = matrix.run_cuda_on_host(ctypes.CDLL(cuda_path))
    isas = [name.decode() for index in range(3) if (name := twin.eh_isa_at(index))]
    checked = 0
    for arguments, target in matrix.CASES.values():
        volume = matrix.volume_of(**arguments)
        for dtype in matrix.DTYPES:
            windows = matrix.windows_of(dtype)
            expected = oracle.preprocess(volume, target, windows)
            found = [on_host(volume, target, windows)]
            for isa in isas:
                out = np.empty_like(expected)
                native.preprocess(volume, target, windows, out, threads=2, isa=isa, using=twin)
                found.append(out)
            for array in found:
                np.testing.assert_array_equal(array, expected)
                checked += 1
    print(f"{checked} runs clean")


if __name__ == "__main__":
    main(*sys.argv[1:])
