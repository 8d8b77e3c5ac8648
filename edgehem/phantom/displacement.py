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
"""Edge of the cells that the flow is solved on (ours)."""
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


def _cells(anatomy: Anatomy) -> tuple[tuple[int, ...], npt.NDArray[np.int32], list[F32]]:
    """Shape of the coarse grid, cell of every tissue point, and the weights that interpolate the grid on each axis."""
    shape, numbers, weights = [], [], []
    for axis in anatomy.axes:
        at = (axis - axis[0]) / np.float32(CELL_MM)
        shape.append(int(np.ceil(float(at[-1]))) + 1)
        numbers.append(np.rint(at).astype(np.int32))
        weights.append(np.clip(1 - np.abs(at[:, None] - np.arange(shape[-1], dtype=np.float32)[None]), 0, None))
    z, y, x = numbers
    block = (z[:, None, None] * shape[1] + y[None, :, None]) * shape[2] + x
    return tuple(shape), block.reshape(-1)[anatomy.tissue.index], weights


def _interpolated(grid: F32, weights: list[F32]) -> F32:
    """A coarse grid on the block's voxels, float32 [Z, Y, X]."""
    wz, wy, wx = weights
    rows = wy @ (grid @ wx.T)
    return np.asarray((wz @ rows.reshape(len(rows), -1)).reshape(len(wz), len(wy), len(wx)), np.float32)


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
    shape, cell, weights = _cells(anatomy)
    size = int(np.prod(shape))
    voxel = anatomy.voxel_ml * 1000  # mm³

    def total(weights: F32 | None = None) -> F32:
        return np.asarray(np.bincount(cell, weights, minlength=size).reshape(shape), np.float32)

    full = CELL_MM**3 / voxel
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
        speed = 0.5 * (low + high) / np.float32(CELL_MM**2) / np.maximum(filled, np.float32(0.35))
        moved[axis] = _interpolated(np.asarray(speed, np.float32), weights).reshape(-1)[t.index]
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
    for _ in range(ROUNDS):
        if strength < 1e-6:
            break
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
    _, rows, columns = anatomy.hu.shape
    moving = np.flatnonzero((flow.moved**2).sum(axis=0) > least_mm**2)
    going = anatomy.tissue.index[moving]
    small = going.astype(np.int32)
    rest = small // columns
    plane = rest // rows
    at = np.empty((3, len(moving)), np.float32)
    at[0], at[1], at[2] = plane, rest - plane * rows, small - rest * columns
    for axis, places in enumerate(anatomy.axes):
        at[axis] -= flow.moved[axis, moving] / np.float32(places[1] - places[0])
    return going, at
