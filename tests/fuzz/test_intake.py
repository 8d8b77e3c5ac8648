"""A few seconds of the fuzzer: the same cases every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).resolve().parent / "intake.py"
CASES = 250


def test_spoilt_studies_are_read_or_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(HARNESS), "--cases", str(CASES), "--seconds", "120", "--seed", "7"]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "kept")], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES} cases" in done.stdout


def _environment() -> dict[str, str]:
    """Without real data: what is read must not depend on it."""
    import os

    return {name: value for name, value in os.environ.items() if name != "EDGEHEM_TEST_DATA"}
