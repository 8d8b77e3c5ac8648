"""Made-up recordings, as a noisy virtual machine would give them: the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ENVIRONMENT = {
    "edgehem": "0", "python": "3.11.7", "numpy": "2.0", "platform": "Linux 6", "machine": "x86_64", "cpu": "Some CPU",
    "cpu_flags": ["avx2"], "cpus": {"usable": 2, "present": 2}, "largest_cache_bytes": 1 << 25, "memory_bytes": 8 << 30,
    "governor": None, "transparent_hugepages": "madvise", "clocks_mhz": [2000], "power_mode": None,
    "kernels": {"implementation": "native", "instruction_set": "avx2", "why_not_native": None, "compiler_flags": []},
}  # fmt: skip
SERVED = {
    "engine": "onnxruntime", "engine_version": "1.2", "graph": "fp32.onnx", "arithmetic": "fp32",
    "bundle": "hemorrhagenet 0.1", "sha256": "ab" * 32,
}  # fmt: skip


def result(samples: dict[str, Sequence[float]], **changes: Any) -> dict[str, Any]:
    """A result of these times in ms, by case."""
    made: dict[str, Any] = {
        "schema": "edgehem.latency/1",
        "made": "2026-11-22T07:00:00+00:00",
        "session": "5e55",
        "arm": "",
        "edgehem": "0.1",
        "revision": "0123456789ab",
        "environment": ENVIRONMENT,
        "load": {"before": {}, "after": {}, "stolen": 0.01},
        "served": SERVED,
        "settings": {"rounds": 30, "warm_up": 3, "seed": 0},
        "cases": [case(name, times) for name, times in samples.items()],
    }
    return made | changes


def case(name: str, times: Sequence[float], **changes: Any) -> dict[str, Any]:
    """A case of these times in ms."""
    figures = np.percentile(times, (50, 90, 95, 99))
    made: dict[str, Any] = {
        "name": name,
        "group": name.partition(".")[0],
        "what": f"What {name} does",
        "samples_ms": [float(value) for value in times],
        **{f"p{number}_ms": float(value) for number, value in zip((50, 90, 95, 99), figures, strict=True)},
        "peak_bytes": 100 << 20,
        "bytes_moved": None,
        "details": {},
    }
    return made | changes


def recording(kind: str, *, arms: int, cases: int, rounds: int, seed: int, noise: float = 0.05) -> list[dict[str, Any]]:
    """Arms of the same code, measured side by side.

    Parameters
    ----------
    kind : str
        ``plain``: drift and autocorrelation that all arms share, and normal noise of their own. ``tails``: their own
        noise is Student's with 2.5 degrees of freedom. ``correlated``: it is AR(1) with 0.3. ``bursts``: a neighbour
        doubles the time of a few rounds in a row, of one arm or of all.
    noise : float
        Standard deviation of an arm's own noise, as a share (of ``tails``, its scale).
    """
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.02, (1, cases, rounds)), axis=2)
    shared = _ar1(rng.normal(0, 0.1, (1, cases, rounds)), 0.8) + walk - walk.mean(axis=2, keepdims=True)
    own = rng.normal(0, 1, (arms, cases, rounds))
    if kind == "tails":
        own = rng.standard_t(2.5, (arms, cases, rounds))
    if kind == "correlated":
        own = _ar1(own, 0.3)
    if kind == "bursts":
        own += 14 * _bursts(rng, (arms, cases, rounds)) * (noise and 0.05 / noise)
        shared = shared + np.log(2) * _bursts(rng, (1, cases, rounds))
    level = rng.uniform(0, 5, (1, cases, 1))
    times = np.exp(np.clip(level + shared + noise * own, -1.5, 12))
    return [result({f"stage.{i:02}": row for i, row in enumerate(arm)}, arm=f"a{k}") for k, arm in enumerate(times)]


def _ar1(shocks: np.ndarray[Any, np.dtype[np.float64]], by: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Stationary, of the variance of the shocks."""
    out = shocks.copy()
    for i in range(1, shocks.shape[-1]):
        out[..., i] = by * out[..., i - 1] + np.sqrt(1 - by**2) * shocks[..., i]
    return out


def _bursts(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """1 in bursts of 3 rounds, about every 30 rounds; else 0."""
    starts = rng.random(shape) < 1 / 30
    return np.minimum(sum(np.roll(starts, k, axis=-1).astype(float) for k in range(3)), 1.0)  # type: ignore[call-overload, no-any-return]
