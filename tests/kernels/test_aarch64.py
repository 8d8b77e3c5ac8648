"""The native twin for aarch64 (Jetson, ARM servers), cross-compiled and run in an emulator, against the oracle's bits.

Needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user); an emulator is no Jetson.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgehem.kernels import oracle
from edgehem.kernels.build import CXX_FLAGS, HERE, NATIVE_UNITS, ROWS_UNIT
from edgehem.kernels.native import DTYPE_CODES, parameters, sliced
from edgehem.kernels.plan import Plan, channels

from .conftest import TESTS
from .test_implementations import CASES, DTYPES, volume_of, windows_of


@pytest.mark.slow
def test_the_native_twin_gives_the_oracles_bits_on_aarch64(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64")
    sources = [TESTS / "replay.cpp", *(HERE / unit for unit in (*NATIVE_UNITS, ROWS_UNIT))]
    program = tmp_path / "replay"
    command = [compiler, *CXX_FLAGS, "-Werror", "-DEH_ROWS=eh_rows_baseline", "-I", str(HERE), "-static"]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)
    record = tmp_path / "calls"
    with record.open("wb") as out:
        for arguments, target in CASES.values():
            volume = volume_of(**arguments)
            for dtype in DTYPES:
                windows = windows_of(dtype)
                plan, pixels = Plan.of(volume, target), sliced(volume)
                block = bytes(parameters(plan, channels(windows), pixels))
                table, expected = plan.tables.tobytes(), oracle.preprocess(volume, target, windows).tobytes()
                sizes = [len(block), len(table), pixels.nbytes, len(expected), DTYPE_CODES[dtype]]
                out.write(np.array(sizes, np.int64).tobytes() + block + table + pixels.tobytes() + expected)
    done = subprocess.run([emulator, str(program), str(record)], capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(CASES) * len(DTYPES)} calls, 0 wrong\n", done.stdout + done.stderr
