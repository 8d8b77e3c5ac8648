"""How many CPUs the process may use: its affinity and its cgroup's quota, not the host's count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgehem.machine import usable_cpus

HOST = 8


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(HOST)), raising=False)


def v1(folder: Path, quota: str, period: str = "100000") -> None:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota, encoding="ascii")
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period, encoding="ascii")


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000\n", HOST),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("20000 100000\n", 1),
        ("5000000 100000\n", HOST),
        ("", HOST),
        ("nonsense here\n", HOST),
        ("100000 0\n", HOST),
    ],
)
def test_the_quota_of_cgroup_version_2(limit: str, cpus: int, tmp_path: Path) -> None:
    """A part of a CPU counts as one; a quota above the affinity, or none that can be read, leaves the affinity."""
    (tmp_path / "cpu.max").write_text(limit, encoding="ascii")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("-1", "100000", HOST), ("300000", "100000", 3), ("250000", "100000", 3), ("x", "100000", HOST), ("1", "0", HOST)],
)
def test_the_quota_of_cgroup_version_1(quota: str, period: str, cpus: int, tmp_path: Path) -> None:
    v1(tmp_path, quota, period)
    assert usable_cpus(tmp_path) == cpus


def test_version_2_counts_where_both_are_there(tmp_path: Path) -> None:
    v1(tmp_path, "100000")
    (tmp_path / "cpu.max").write_text("400000 100000\n", encoding="ascii")
    assert usable_cpus(tmp_path) == 4


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "absent") == HOST


def test_without_affinity_the_count_of_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows have no affinity call; a machine that cannot say has one CPU."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cpus(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1
