"""How blood spreads along anatomy: arrival times of a front whose speed depends on what it runs through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.shapes import F32
from edgehem.phantom.tissue import Kind

CELL_MM = 3.0
"""Edge of the cells that the front is followed on (ours)."""
FAR = np.float32(1e4)
SPEEDS = {
    Kind.CEREBELLUM: 0.8,
    Kind.BRAINSTEM: 0.75,
    Kind.VENTRICLE: 1.8,
    Kind.SUBARACHNOID: 0.3,
    Kind.DURA: 0.06,
    Kind.CANAL: 0.02,
}
"""Speed of the front relative to white matter (ours): blood parts white matter along its fibres, breaks into
ventricles, and stops at sulci, falx and tentorium. Grey matter: :data:`GREY_SPEED`."""
GREY_SPEED = 0.6
"""Speed in cortex and nuclei (ours)."""


def eikonal(slowness: F32, start: F32) -> F32:
    """First-arrival times by Godunov's upwind scheme, iterated until nothing changes.

    Parameters
    ----------
    slowness : float32 array [Z, Y, X], time per cell
    start : float32 array [Z, Y, X]
        Times that the front has from the beginning; FAR elsewhere.

    Returns
    -------
    float32 array [Z, Y, X]

    References
    ----------
    Rouy and Tourin, SIAM Journal on Numerical Analysis 1992;29:867-884.
    """
    padded = np.full(tuple(n + 2 for n in start.shape), FAR, np.float32)
    time = padded[1:-1, 1:-1, 1:-1]
    time[:] = start
    double = 2 * slowness * slowness
    for _ in range(4 * max(start.shape)):
        a = np.minimum(padded[:-2, 1:-1, 1:-1], padded[2:, 1:-1, 1:-1])
        b = np.minimum(padded[1:-1, :-2, 1:-1], padded[1:-1, 2:, 1:-1])
        c = np.minimum(padded[1:-1, 1:-1, :-2], padded[1:-1, 1:-1, 2:])
        # The earliest neighbours of the three axes in order: one, then two, then all three tell when the front comes.
        first, high = np.minimum(a, b), np.maximum(a, b)
        third, middle = np.maximum(high, c), np.minimum(high, c)
        first, second = np.minimum(first, middle), np.maximum(first, middle)
        new = first + slowness
        two = (first + second + np.sqrt(np.maximum(double - (first - second) ** 2, 0))) / 2
        new = np.where(new > second, two, new)
        total = first + second + third
        squares = first * first + second * second + third * third
        three = (total + np.sqrt(np.maximum(total * total - 3 * squares + 1.5 * double, 0))) / 3
        np.minimum(np.where(new > third, three, new), time, out=new)
        change = float((time - new).max())
        time[:] = new
        if change < 1e-2:
            break
    return time.copy()


def arrival(
    anatomy: Anatomy, seeds: list[tuple[tuple[float, float, float], float]], reach_mm: float
) -> tuple[npt.NDArray[np.int64], F32]:
    """Arrival of blood that starts at some places, for the tissue within reach.

    Parameters
    ----------
    anatomy : Anatomy
    seeds : list of ((x, y, z), delay)
        Head coordinates, mm, and when the front starts there, mm of white matter.
    reach_mm : float
        Half the edge of the box around the first seed that is looked at.

    Returns
    -------
    points : int64 array [M]
        Which of the tissue's points lie in the box.
    time : float32 array [M], mm of white matter
    """
    t, head = anatomy.tissue, anatomy.head
    at = np.asarray(seeds[0][0], np.float32)
    points = np.flatnonzero(
        (np.abs(t.x - at[0]) < reach_mm) & (np.abs(t.y - at[1]) < reach_mm) & (np.abs(t.z - at[2]) < reach_mm)
    )
    # Cells in head coordinates: the head may lie askew in its block.
    low = at - reach_mm
    count = int(np.ceil(2 * reach_mm / CELL_MM)) + 1
    position = np.stack([t.z[points] - low[2], t.y[points] - low[1], t.x[points] - low[0]]) / np.float32(CELL_MM)
    cell = np.rint(position).astype(np.int64)
    flat = (cell[0] * count + cell[1]) * count + cell[2]
    contrast = max(head.grey_hu - head.white_hu, 1.0)
    grey = np.clip((anatomy.hu.reshape(-1)[t.index[points]] - head.white_hu) / contrast, 0, 1)
    speed = 1 + (GREY_SPEED - 1) * grey
    kind = t.kind[points]
    for which, value in SPEEDS.items():
        speed[kind == which] = value
    held = np.bincount(flat, minlength=count**3)
    slow = np.bincount(flat, 1 / speed, minlength=count**3) / np.maximum(held, 1)
    slowness = np.where(held > 0, slow, 60.0).astype(np.float32).reshape(count, count, count)
    start = np.full(slowness.shape, FAR, np.float32)
    grid = np.indices(slowness.shape).astype(np.float32) * np.float32(CELL_MM)
    for place, delay in seeds:
        offset = [grid[i] - np.float32(place[2 - i] - low[2 - i]) for i in range(3)]
        distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2)
        start = np.where(distance < 1.8 * CELL_MM, np.minimum(start, distance + np.float32(delay)), start)
    time = eikonal(slowness * np.float32(CELL_MM), start)
    return points, trilinear(time, position)


def trilinear(grid: F32, position: npt.NDArray[np.floating], chunk: int = 1 << 15) -> F32:
    """Values of a grid [Z, Y, X] at fractional indices [3, N], float32 [N]; clamped at the border.

    `chunk` points are read at a time, so that what is computed for them stays in the cache.
    """
    top = (np.asarray(grid.shape)[:, None] - 1.001).astype(np.float32)
    flat = grid.reshape(-1)
    plane, row = grid.shape[1] * grid.shape[2], grid.shape[2]
    out = np.empty(position.shape[1], np.float32)
    for start in range(0, len(out), chunk):
        inside = np.clip(position[:, start : start + chunk], 0, top).astype(np.float32)
        base = inside.astype(np.int32)
        rest = inside - base
        first = (base[0] * grid.shape[1] + base[1]) * row + base[2]
        total = np.zeros(first.shape, np.float32)
        for dz in (0, 1):
            wz = rest[0] if dz else 1 - rest[0]
            for dy in (0, 1):
                at = first + (dz * plane + dy * row)
                low = flat[at]
                total += wz * (rest[1] if dy else 1 - rest[1]) * (low + rest[2] * (flat[at + 1] - low))
        out[start : start + chunk] = total
    return out
