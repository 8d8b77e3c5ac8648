"""The benchmark that needs a GPU: what it does without one, and the page it writes. No figure is made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgehem.benchmarks import gpu_kernels

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_gpu_it_measures_nothing_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_kernels.py", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # also where there is one
    )
    assert done.returncode == gpu_kernels.NO_GPU == 3
    assert done.stdout == ""
    assert done.stderr.startswith("Nothing was measured: ") and done.stderr.count("\n") == 1
    assert not out.exists()


def test_the_page_says_what_was_measured_and_where() -> None:
    times = {"median": 200.0, "lower_quartile": 190.0, "upper_quartile": 210.0}
    record = {
        "date": "2000-01-01",
        "command": "python benchmarks/gpu_kernels.py",
        "repeats": 50,
        "checked": 15,
        "gpu": {
            "name": "A GPU",
            "driver": None,
            "driver_cuda": 13000,
            "pycuda": "2026.1",
            "code": {"detail": "built ahead, sm_90"},
        },
        "bandwidth": [
            {"dtype": "int8", "slices": 700, "pass_gb_per_s": 1234.5, "copy_gb_per_s": 2469.0, "share_of_copy": 0.5}
        ],
        "study": [
            {"dtype": "int8", "kernel_us": times, "with_copy_us": times, "copy_us": times, "link_gb_per_s": 25.0}
        ],
        "sanitizer": {"run": True, "tools": {"memcheck": {"clean": True}, "initcheck": {"clean": False}}},
    }
    page = gpu_kernels.page(record)
    for words in ("# Preprocessing on A GPU", "driver unknown, CUDA 13.0", "built ahead, sm_90", "| int8 | 700 | 1234"):
        assert words in page
    assert "- memcheck: clean\n- initcheck: NOT clean" in page
    assert "Not run: no tool" in gpu_kernels.page({**record, "sanitizer": {"run": False, "why_not": "no tool"}})
    assert "sanitizer" not in gpu_kernels.page({**record, "sanitizer": None})


def test_a_spread_is_the_median_between_its_quartiles() -> None:
    assert gpu_kernels.spread([5.0, 1.0, 4.0, 2.0, 3.0]) == {
        "median": 3.0,
        "lower_quartile": 1.5,
        "upper_quartile": 4.5,
    }
