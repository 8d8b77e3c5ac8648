"""What a stage cannot go below on this machine: bytes over a measured bandwidth, operations over a measured rate.

A floor is no aim. It says how much of a stage's time is the machine's, and how much is left to be had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgehem.benchmarks.memcpy import Copy
from edgehem.machine import usable_cpus

COPY_BYTES = 256 << 20
MATRIX = 1536
REPEATS = 7
MACS = {"hemorrhagenet": 40 * 99_448_832 + 2 * 491_520}
"""Multiply-accumulates of a study, by system: the encoder's convolutions on 40 planes, then two along the stack."""


def rates() -> dict[str, float]:
    """What this machine does, with as many threads as the process may use.

    Returns
    -------
    dict
        ``copy_bytes_per_s``, read plus written; ``float32_macs_per_s``, of a large matrix product in NumPy's BLAS.
    """
    copy = Copy(COPY_BYTES, usable_cpus())
    a, b = (np.random.default_rng(seed).random((MATRIX, MATRIX), np.float32) for seed in (0, 1))
    return {"copy_bytes_per_s": COPY_BYTES / _best(copy), "float32_macs_per_s": MATRIX**3 / _best(lambda: a @ b)}


def floor_ms(case: Mapping[str, Any], known: Mapping[str, float], system: str) -> float | None:
    """A case's floor in ms, None where none is known: of engines their arithmetic in float32, else the bytes moved."""
    if case["group"] == "engine":
        return MACS[system] / known["float32_macs_per_s"] * 1e3 if system in MACS else None
    moved = case["bytes_moved"]
    return None if moved is None else moved / known["copy_bytes_per_s"] * 1e3


def _best(call: Callable[[], object]) -> float:
    """Seconds of the quickest of some runs: what can be reached, not what usually is."""
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return min(taken)
