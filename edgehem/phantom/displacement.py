"""Mass effect: where tissue goes when blood takes its place.

The skull is closed, so what a clot displaces has to leave fluid spaces (Monro and Kellie). Tissue moves as in a slow
flow from the clot to those spaces, and hardly through the falx and the tentorium. It is a model of ours of first
order: displacement proportional to volume, no elasticity; it compresses the near ventricle, closes sulci, bends the
falx little and moves the septum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy, rotation
from edgehem.phantom.shapes import F32
from edgehem.phantom.spread import trilinear
from edgehem.phantom.tissue import Kind

CELL_MM = 6.0
"""Edge of the cells that the flow is solved on (ours); larger where voxels are, so that every cell holds some."""
VOXELS = 1.5
"""How many voxels a cell's edge is long at least."""
RUNAWAY = 1e4
"""A residual that has grown by this factor since its least belongs to cells that nothing connects: the solver stops."""
BARRIER = 400.0
"""How much falx and tentorium resist, per share of a cell that they fill (ours)."""
GIVING = {Kind.VENTRICLE: 0.5, Kind.SUBARACHNOID: 0.2, Kind.CANAL: 0.6}
"""How readily fluid leaves each space, per share of fluid (ours)."""
TISSUE_GIVES = 0.1
"""The same of tissue, through its veins (ours)."""
ROUNDS = 120
"""Rounds of conjugate gradients; the flow is smooth long before."""
SEPTUM = ((-2.0, 2.0), (-32.0, 0.0), (6.0, 20.0))
"""Head coordinates x, y, z of the septum pellucidum, where the midline's shift is measured, mm."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Displacement of tissue.

    Parameters
    ----------
    moved : float32 array [3, N], mm
        Displacement (z, y, x in scanner axes) of every point of the anatomy's tissue.
    midline_shift_mm : float
        Of the septum, towards the patient's left.
    """

    moved: F32
    midline_shift_mm: float


class _Cells:
    """The coarse grid around the inside of the skull, whose cells the flow is solved on.

    Parameters
    ----------
    anatomy : Anatomy
    """

    def __init__(self, anatomy: Anatomy) -> None:
        places = anatomy.tissue.places(anatomy.hu.shape)
        self.edge_mm = max(CELL_MM, *(VOXELS * float(axis[1] - axis[0]) for axis in anatomy.axes))
        numbers, lengths, self._weights, self._near = [], [], [], []
        for axis, place in zip(anatomy.axes, places, strict=True):
            at = (axis - axis[0]) / np.float32(self.edge_mm)
            first, last = int(place.min()), int(place.max())
            start, stop = int(at[first]), int(np.ceil(float(at[last]))) + 1
            lengths.append(stop - start)
            inner = at[first : last + 1] - np.float32(start)
            numbers.append(np.rint(inner).astype(np.int32))
            grid = np.arange(stop - start, dtype=np.float32)
            self._weights.append(np.clip(1 - np.abs(inner[:, None] - grid[None]), 0, None))
            self._near.append(place - np.int32(first))
        self.shape: tuple[int, ...] = tuple(lengths)
        z, y, x = (number[near] for number, near in zip(numbers, self._near, strict=True))
        self.of_tissue = (z * np.int32(lengths[1]) + y) * np.int32(lengths[2]) + x

    def total(self, weights: F32 | None = None) -> F32:
        """Sum of the tissue's weights in every cell."""
        size = int(np.prod(self.shape))
        return np.asarray(np.bincount(self.of_tissue, weights, minlength=size).reshape(self.shape), np.float32)

    def interpolated(self, grid: F32) -> F32:
        """A coarse grid at the tissue's points, float32 [N]."""
        wz, wy, wx = self._weights
        rows = wy @ (grid @ wx.T)
        block = (wz @ rows.reshape(len(rows), -1)).reshape(len(wz), len(wy), len(wx))
        z, y, x = self._near
        return np.asarray(block.reshape(-1)[(z * np.int32(len(wy)) + y) * np.int32(len(wx)) + x], np.float32)


def displace(anatomy: Anatomy, taken: F32) -> Flow:
    """Solve for the displacement.

    Parameters
    ----------
    anatomy : Anatomy
    taken : float32 array [N]
        Share of each tissue point's voxel whose tissue has to go elsewhere.

    Returns
    -------
    Flow
    """
    t = anatomy.tissue
    cells = _Cells(anatomy)
    total = cells.total
    voxel = anatomy.voxel_ml * 1000  # mm³
    full = cells.edge_mm**3 / voxel
    filled = total() / np.float32(full)
    source = total(taken) * np.float32(voxel)
    giving = np.full(t.x.shape, TISSUE_GIVES, np.float32)
    for kind, weight in GIVING.items():
        giving = np.where(t.kind == kind, weight * t.fluid + TISSUE_GIVES, giving)
    sink = total(giving * (1 - np.minimum(taken, 1)))
    source -= sink * (source.sum() / max(float(sink.sum()), 1e-6))
    resistance = 1 + np.float32(BARRIER) * total((t.kind == Kind.DURA).astype(np.float32)) / np.maximum(total(), 1)
    ease = np.clip(filled, 0, 1) / resistance
    faces = [_between(ease, axis) for axis in range(3)]
    potential = _solve(faces, source)
    moved = np.empty((3, len(t.x)), np.float32)
    for axis in range(3):
        flux = -np.diff(potential, axis=axis) * faces[axis]
        low = np.concatenate([np.zeros_like(np.take(flux, [0], axis)), flux], axis)
        high = np.concatenate([flux, np.zeros_like(np.take(flux, [0], axis))], axis)
        # Flow through a cell over the part of its face that is open; cells of bone move nothing.
        speed = 0.5 * (low + high) / np.float32(cells.edge_mm**2) / np.maximum(filled, np.float32(0.35))
        moved[axis] = cells.interpolated(np.asarray(speed, np.float32))
    moved *= np.clip(t.depth / np.float32(4), 0, 1)  # nothing leaves through bone
    (x0, x1), (y0, y1), (z0, z1) = SEPTUM
    septum = (t.x > x0) & (t.x < x1) & (t.y > y0) & (t.y < y1) & (t.z > z0) & (t.z < z1)
    lateral = rotation(anatomy.head)[:, 0]  # the head's x axis in scanner coordinates x, y, z
    mean = moved[:, septum].mean(axis=1, dtype=np.float64) if septum.any() else np.zeros(3)
    return Flow(moved=moved, midline_shift_mm=float(lateral @ mean[::-1]))


def _between(ease: F32, axis: int) -> F32:
    """Conductance of the faces between neighbours along an axis: two halves in series."""
    count = ease.shape[axis]
    low, high = np.take(ease, range(count - 1), axis), np.take(ease, range(1, count), axis)
    return np.asarray(2 * low * high / np.maximum(low + high, 1e-6), np.float32)


def _solve(faces: list[F32], source: F32) -> F32:
    """Potential whose flow through the faces carries the source away: conjugate gradients with Jacobi's scaling."""
    diagonal = np.zeros_like(source)
    for axis, face in enumerate(faces):
        low, high = _halves(diagonal, axis)
        low += face
        high += face
    open_cell = diagonal > 1e-4
    scale = np.where(open_cell, 1 / np.maximum(diagonal, 1e-4), 0).astype(np.float32)
    rest = np.where(open_cell, source, 0).astype(np.float32)
    rest -= np.where(open_cell, rest.sum() / max(int(open_cell.sum()), 1), 0).astype(np.float32)
    potential = np.zeros_like(source)
    scaled = rest * scale
    direction, strength = scaled.copy(), float((rest * scaled).sum(dtype=np.float64))
    least = strength
    for _ in range(ROUNDS):
        if strength < 1e-6 or strength > RUNAWAY * least:
            break
        least = min(least, strength)
        applied = diagonal * direction
        for axis, face in enumerate(faces):
            to_low, to_high = _halves(applied, axis)
            low, high = _halves(direction, axis)
            to_low -= face * high
            to_high -= face * low
        step = strength / max(float((direction * applied).sum(dtype=np.float64)), 1e-12)
        potential += np.float32(step) * direction
        rest -= np.float32(step) * applied
        scaled = rest * scale
        strength, before = float((rest * scaled).sum(dtype=np.float64)), strength
        direction = scaled + np.float32(strength / before) * direction
    return potential


def _halves(block: F32, axis: int) -> tuple[F32, F32]:
    """Views of a block without its last and without its first plane along an axis."""
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[axis], high[axis] = slice(0, -1), slice(1, None)
    return block[tuple(low)], block[tuple(high)]


def carry(anatomy: Anatomy, flow: Flow, block: F32, outside: float, least_mm: float = 0.2) -> None:
    """Move the content of a block with the tissue, in place.

    Parameters
    ----------
    anatomy : Anatomy
    flow : Flow
    block : float32 array [Z, Y, X]
    outside : float
        What is taken for the values beyond the skull's inside.
    least_mm : float
        Points that move less stay.
    """
    index = anatomy.tissue.index
    source = np.full(block.shape, outside, np.float32)
    source.reshape(-1)[index] = block.reshape(-1)[index]
    going, at = _origins(anatomy, flow, least_mm)
    block.reshape(-1)[going] = trilinear(source, at)


def carry_labels(
    anatomy: Anatomy, flow: Flow, block: npt.NDArray[np.uint8], least_mm: float = 0.2
) -> npt.NDArray[np.uint8]:
    """A copy of labels [Z, Y, X] that has moved with the tissue: each voxel gets the label of the nearest origin."""
    going, at = _origins(anatomy, flow, least_mm)
    z, y, x = (np.clip(np.rint(a), 0, n - 1).astype(np.int64) for a, n in zip(at, block.shape, strict=True))
    moved = block.copy()
    moved.reshape(-1)[going] = block[z, y, x]
    return moved


def _origins(anatomy: Anatomy, flow: Flow, least_mm: float) -> tuple[npt.NDArray[np.int64], F32]:
    """Voxels whose content moves, and where it comes from: flat indices [M], fractional indices float32 [3, M]."""
    tissue = anatomy.tissue
    moving = np.flatnonzero((flow.moved**2).sum(axis=0) > least_mm**2)
    at = np.empty((3, len(moving)), np.float32)
    for axis, (places, own) in enumerate(zip(anatomy.axes, tissue.places(anatomy.hu.shape), strict=True)):
        at[axis] = own[moving]
        at[axis] -= flow.moved[axis, moving] / np.float32(places[1] - places[0])
    return tissue.index[moving], at
