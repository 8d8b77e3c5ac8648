"""What the process may use of the machine it runs on."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """CPUs this process may keep busy: its affinity, capped by the cgroup's quota (v2 or v1), not the host's count."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(count, math.ceil(quota)) if quota else count)


def _quota(cgroup: Path) -> float | None:
    """CPUs the cgroup grants, None where it sets no limit."""
    try:
        granted, period = (cgroup / "cpu.max").read_text().split()[:2]
        return None if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        granted_v1 = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        return granted_v1 / int((cgroup / "cpu/cpu.cfs_period_us").read_text()) if granted_v1 > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
