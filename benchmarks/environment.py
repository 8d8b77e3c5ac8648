"""What a figure was measured on: machine, versions, and how busy the machine was."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from edgehem.kernels import build, fused, native
from edgehem.machine import usable_cpus

CPU = Path("/sys/devices/system/cpu")
RELEVANT_FLAGS = (
    "ssse3", "avx", "avx2", "f16c", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "asimd",
    "asimdhp", "sve", "hypervisor",
)  # fmt: skip
"""CPU features that the kernels or their peers choose by, and whether the machine is virtual."""


def describe() -> dict[str, Any]:
    """The machine and the software, as plain values. Nothing that names the machine or its owner."""
    return {
        "edgehem": version("edgehem"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "platform": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpu_flags": _cpu_flags(),
        "cpus": {"usable": usable_cpus(), "present": os.cpu_count() or 1},
        "largest_cache_bytes": largest_cache(),
        "memory_bytes": _memory(),
        "governor": _text(CPU / "cpu0/cpufreq/scaling_governor"),
        "transparent_hugepages": _chosen(_text(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        "kernels": {
            "implementation": fused.implementation(),
            "why_not_native": native.why_not(),
            "instruction_set": native.instruction_set(),
            "compiler_flags": list(build.CXX_FLAGS),
        },
    }


def load() -> dict[str, Any]:
    """How busy the machine is: load average, and time taken by other virtual machines (ticks since it started)."""
    averages = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    first = (_text(Path("/proc/stat")) or "").partition("\n")[0].split()[1:]
    ticks = [int(value) for value in first[:8]]
    return {
        "load_average": averages,
        "ticks": sum(ticks) if len(ticks) == 8 else None,
        "stolen_ticks": ticks[7] if len(ticks) == 8 else None,
    }


def stolen(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """Share of the CPUs' time between two loads that other virtual machines took; None where that is not known."""
    if not before["ticks"] or not after["ticks"] or after["ticks"] <= before["ticks"]:
        return None
    return float((after["stolen_ticks"] - before["stolen_ticks"]) / (after["ticks"] - before["ticks"]))


def largest_cache() -> int:
    """Bytes of the largest cache, 0 where that is not known."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = [re.fullmatch(r"(\d+)([KMG])", _text(path) or "") for path in CPU.glob("cpu0/cache/index*/size")]
    return max((int(match[1]) * units[match[2]] for match in found if match), default=0)


def peak_memory() -> int:
    """Largest resident memory of this process, bytes.

    ``ru_maxrss`` may hold the parent's from before this program was loaded; the kernel's own mark does not.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def version(distribution: str) -> str | None:
    """Installed version, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")) or "", re.M)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")) or "", re.M)
    there = set(line[1].split()) if line else set()
    return [flag for flag in RELEVANT_FLAGS if flag in there]


def _memory() -> int | None:
    total = re.search(r"^MemTotal:\s*(\d+) kB", _text(Path("/proc/meminfo")) or "", re.M)
    return int(total[1]) << 10 if total else None


def _chosen(text: str | None) -> str | None:
    """The entry in brackets of a line like ``always [madvise] never``."""
    marked = re.search(r"\[(\w+)\]", text or "")
    return marked[1] if marked else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
