"""Inputs to measure with: phantom studies where a graph reads images, seeded numbers where it reads anything else.

They are made where they are needed: a bundle need not hold tensors of 24 MB, and nothing comes from a patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends.onnxruntime import Port
from edgehem.bundle import Manifest
from edgehem.errors import Refusal, UsageError
from edgehem.phantom import Protocol, draw_bleeds, make_case
from edgehem.phantom.cases import VERSION
from edgehem.preprocess import fill, place

Inputs = Mapping[str, npt.NDArray[Any]]

COUNT = 6
VOXEL_MM = 3.0
"""Coarse heads: a second each. What counts is that all candidates are asked the same."""
PROTOCOL = Protocol(slices=32, matrix=256)
SMALLEST_ML = 20.0
"""Bleeds that a model should be sure of, so that few probes are borderline."""
MOST_SEEDS = 4 * COUNT


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Inputs by the graph's names, and where they come from, for the record."""

    inputs: tuple[Inputs, ...]
    record: dict[str, Any]


def draw_probes(manifest: Manifest, ports: tuple[Port, ...], *, count: int = COUNT) -> Probes:
    """Make probes for a bundle.

    Parameters
    ----------
    manifest : Manifest
    ports : tuple of Port
        What the graph declares to read.
    count : int

    Raises
    ------
    UsageError
        If a graph of images cannot be shown a phantom.
    """
    if set(manifest.inputs.values()) == {port.name for port in ports}:
        return _phantoms(manifest, count)
    return _numbers(ports, count)


def _phantoms(manifest: Manifest, count: int) -> Probes:
    """Heads with and without a hemorrhage by turns."""
    inputs: list[Inputs] = []
    seeds: list[int] = []
    for seed in range(MOST_SEEDS):
        bleeds = draw_bleeds(seed, smallest_ml=SMALLEST_ML) if len(inputs) % 2 else ()
        case = make_case(seed, bleeds=bleeds, protocol=PROTOCOL, voxel_mm=VOXEL_MM)
        try:
            placed = place(case.volume, manifest.preprocess)
        except Refusal:
            continue
        made = {"image": fill(case.volume, placed, manifest.preprocess), "valid": placed.valid}
        inputs.append({name: made[kind] for kind, name in manifest.inputs.items()})
        seeds.append(seed)
        if len(inputs) == count:
            break
    else:
        raise UsageError("the bundle's preprocessing refuses the phantoms that it would be measured with")
    return Probes(
        inputs=tuple(inputs), record={"kind": "phantoms", "generator": VERSION, "seeds": seeds, "count": count}
    )


def _numbers(ports: tuple[Port, ...], count: int) -> Probes:
    """Normal numbers for float inputs, small whole ones for others; free dimensions are 1."""
    inputs = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for port in ports:
            shape = tuple(size or 1 for size in port.shape)
            drawn = rng.standard_normal(shape) if port.dtype.startswith("float") else rng.integers(0, 2, shape)
            arrays[port.name] = drawn.astype(port.dtype)
        inputs.append(arrays)
    return Probes(inputs=tuple(inputs), record={"kind": "numbers", "seeds": list(range(count)), "count": count})
