"""Around the engines' figures from a GPU: the machine, the tests with a mark, and the record of what gpu.sh ran."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgehem.backends import engines
from edgehem.benchmarks import environment
from edgehem.doctor_gpu import examine_gpu

PROBE, SUMMARY = "edgehem.gpu-probe/1", "edgehem.gpu-run/1"
NO_TESTS = 5
"""pytest's exit code where it found none."""


class NotHereError(Exception):
    """It cannot be run on this machine; the message says why."""


class WrongError(Exception):
    """It ran, and what came out is not right."""


def probe() -> dict[str, Any]:
    """The machine.

    Raises
    ------
    NotHereError
        If it has no GPU that can be used.
    """
    found = examine_gpu()
    if found["gpus"]["why_not"]:
        raise NotHereError(f"no GPU can be used here: {found['gpus']['why_not']}")
    del found["plans"]  # the user's own
    return {
        "schema": PROBE,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        **found,
        "engines": {each.name: {"version": each.version(), "on_request": each.on_request} for each in engines()},
        "tools": {name: bool(shutil.which(name)) for name in ("nvcc", "compute-sanitizer", "nvidia-smi")},
        "host": environment.describe(),
    }


def tests(mark: str) -> int:
    """How many tests with a mark passed.

    Raises
    ------
    NotHereError
        If all were skipped.
    WrongError
        If one failed.
    """
    command = [sys.executable, "-m", "pytest", "-m", mark, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    sys.stderr.write(done.stdout)
    last = "".join(done.stdout.strip().splitlines()[-1:])
    if done.returncode not in (0, NO_TESTS):
        raise WrongError(f"pytest ended with {done.returncode}: {last}")
    passed = re.search(r"(\d+) passed", last)
    if passed is None:
        raise NotHereError(f"no test with the mark {mark} ran: {last}")
    return int(passed[1])


def commit(folder: Path | None = None) -> str:
    """What was run: the commit, with a plus where files differ from it; empty where there is no repository."""
    git = shutil.which("git")
    if git is None:
        return ""
    at = str(folder or Path(__file__).resolve().parent)
    ask = [git, "-C", at]
    head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return ""
    changed = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+" if changed.strip() else "")


def summary(steps: Sequence[Sequence[str]], machine: dict[str, Any]) -> dict[str, Any]:
    """The record of a run: steps are name, state, seconds, log, sentence."""
    rows = [
        {"name": name, "state": state, "seconds": int(seconds), "log": log, "sentence": sentence}
        for name, state, seconds, log, sentence in steps
    ]
    return {"schema": SUMMARY, "machine": machine, "steps": rows, "failed": sum(r["state"] == "FAILED" for r in rows)}


def page(record: dict[str, Any]) -> str:
    """The same for a reader."""
    machine = record["machine"]
    gpus = ", ".join(f"{each['name']} (driver {each['driver'] or 'unknown'})" for each in machine["gpus"]["found"])
    lines = [
        f"# A run on {gpus}",
        "",
        f"{machine['date']}; commit {machine['commit'] or 'unknown'}; TensorRT "
        f"{machine['tensorrt']['version'] or 'none'}.",
        "",
        "| step | state | s | |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r['name']} | {r['state']} | {r['seconds']} | {r['sentence']} |" for r in record["steps"]]
    return "\n".join(lines) + "\n"


def summarise(steps: Path, machine: Path, out: Path) -> dict[str, Any]:
    """Write the record, and the page about it, from what gpu.sh noted: a line a step, its fields apart by tabs."""
    rows = [line.split("\t") for line in steps.read_text(encoding="utf-8").splitlines()]
    record = summary(rows, json.loads(machine.read_text(encoding="utf-8")))
    (out / "summary.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = page(record)
    (out / "summary.md").write_text(text, encoding="utf-8")
    sys.stderr.write(text)
    return record
