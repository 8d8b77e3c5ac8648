"""From an acquired volume to a model's tensor: where the head is, and the grid around it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edgehem import kernels
from edgehem.errors import Code, Refusal
from edgehem.kernels import masks
from edgehem.machine import usable_cpus
from edgehem.result import Note
from edgehem.volume import Volume

Bool = npt.NDArray[np.bool_]

COARSE_MM = 4.0
"""Grid on which the head is looked for."""
TISSUE_HU = -250.0
"""Between air and fat: what is above belongs to a body or to an object."""
SMALLEST_HEAD_ML = 400.0
"""Less connected tissue than this is no head (an adult head with skull and skin: 3 to 5 L)."""
VERTEX_MARGIN_MM = 8.0
"""Air kept above the vertex."""
CENTRE_BAND_MM = (15.0, 105.0)
"""Distance below the vertex of the tissue that the grid is centred on: the neurocranium, without face and neck."""
CUT_AREA_MM2 = 9000.0
"""More head than this in the highest slice (107 mm across): the stack ends below the top of the brain. The brain begins
about 12 mm under the vertex, where heads measure 6000 to 9000 mm²; a slice that grazes the vertex shows less."""

LEAST_COVER_MM = 60.0
"""Less head than this is refused."""
FULL_COVER_MM = 115.0
"""From the vertex to the foramen magnum an adult head measures 130 to 160 mm: less misses the posterior fossa."""


class PreprocessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph wants to read.

    Parameters
    ----------
    shape : tuple of int
        Planes, rows, columns of the grid.
    spacing_mm : tuple of float
        Of planes, rows, columns.
    windows : tuple of (level, width), HU
    mean, std : float
        Applied after windowing to 0..1.
    dtype : str
    scale : float
        Quantisation step of an int8 input.
    resampling : {"antialiased", "trilinear"}
        Whether what a coarser grid would skip is averaged: see :class:`edgehem.kernels.Target`.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    windows: tuple[tuple[float, float], ...]
    mean: float = 0.0
    std: float = 1.0
    dtype: str = "float32"
    scale: float = 1.0
    resampling: str = "antialiased"

    def check(self) -> None:
        """Make sure that the kernels can do this.

        Raises
        ------
        ValueError
        """
        self.grid((0.0, 0.0, 0.0))
        _ = self.kernel_windows

    def grid(self, origin: tuple[float, float, float]) -> kernels.Target:
        """The spec's grid with its first voxel at `origin` (LPS, mm)."""
        return kernels.Target(shape=self.shape, spacing_mm=self.spacing_mm, origin=origin, resampling=self.resampling)

    @property
    def kernel_windows(self) -> kernels.Windows:
        """The spec's windows as the kernels take them."""
        return kernels.Windows(
            level_width=self.windows, mean=self.mean, std=self.std, dtype=self.dtype, scale=self.scale
        )


CANONICAL = PreprocessSpec(
    shape=(40, 224, 224),
    spacing_mm=(4.5, 1.0, 1.0),
    windows=((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0)),
)
"""The grid of every CT graph of ours: 180 × 224 × 224 mm; brain, subdural and bone windows (level, width)."""


@dataclass(frozen=True, kw_only=True)
class HeadPosition:
    """Where the head is, in patient coordinates (LPS, mm).

    Parameters
    ----------
    vertex_z : float
        Highest point.
    centre_x, centre_y : float
        Middle of the neurocranium's bounding box.
    lowest_z : float
        Lowest tissue in the stack, in the middle third of the head.
    vertex_cut : bool
        The stack ends inside the head: the vertex was not scanned.
    """

    vertex_z: float
    centre_x: float
    centre_y: float
    lowest_z: float
    vertex_cut: bool


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a model's grid lies in a volume.

    Parameters
    ----------
    valid : float32 array [1, Z]
        1 where the stack covers the middle of a plane, else 0.
    target : kernels.Target
    head : HeadPosition
    """

    valid: npt.NDArray[np.float32]
    target: kernels.Target
    head: HeadPosition


def locate_head(volume: Volume) -> HeadPosition:
    """Find the head: the largest solid piece of tissue once thin structures (headrest, table, tubes) are cut off.

    Parameters
    ----------
    volume : Volume

    Returns
    -------
    HeadPosition

    Raises
    ------
    Refusal
        NOT_HEAD if there is no connected tissue of a head's size.
    """
    corners = _corners(volume)
    low, high = corners.min(axis=0), corners.max(axis=0)
    counts = np.maximum(3, np.ceil((high - low) / COARSE_MM).astype(int))
    target = kernels.Target(
        shape=(int(counts[2]), int(counts[1]), int(counts[0])),
        spacing_mm=(COARSE_MM,) * 3,
        origin=(float(low[0]) + COARSE_MM / 2, float(low[1]) + COARSE_MM / 2, float(low[2]) + COARSE_MM / 2),
    )
    tissue = masks.nearest(volume, target) > TISSUE_HU
    head = _largest_solid(tissue)
    if head.sum() * COARSE_MM**3 / 1000 < SMALLEST_HEAD_ML:
        raise Refusal(Code.NOT_HEAD, "The images do not show a head: no connected tissue of a head's size was found.")
    z = target.origin[2] + np.arange(target.shape[0]) * COARSE_MM
    planes = np.flatnonzero(head.any(axis=(1, 2)))
    vertex = float(z[planes[-1]] + COARSE_MM / 2)
    band = head[(z < vertex - CENTRE_BAND_MM[0]) & (z > vertex - CENTRE_BAND_MM[1])]
    if not band.any():
        band = head
    ys, xs = np.flatnonzero(band.any(axis=(0, 2))), np.flatnonzero(band.any(axis=(0, 1)))
    # In the middle, for a tilted slice lies lower at one end, and shows little of the skull base there.
    third = [(edge[0] + (edge[-1] - edge[0]) * np.array([1, 2]) / 3).astype(int) for edge in (ys, xs)]
    middle = head[:, third[0][0] : third[0][1] + 1, third[1][0] : third[1][1] + 1]
    lowest = middle.argmax(axis=0)[middle.any(axis=0)]
    return HeadPosition(
        vertex_z=vertex,
        centre_x=target.origin[0] + COARSE_MM * float(xs[0] + xs[-1]) / 2,
        centre_y=target.origin[1] + COARSE_MM * float(ys[0] + ys[-1]) / 2,
        lowest_z=float(np.median(z[lowest]) - COARSE_MM / 2),
        vertex_cut=_top_section_mm2(volume, target, head) > CUT_AREA_MM2,
    )


def coverage_notes(head: HeadPosition) -> tuple[Note, ...]:
    """What to say about the part of the head that was scanned.

    Raises
    ------
    Refusal
        COVERAGE if less than :data:`LEAST_COVER_MM` below the vertex was scanned.
    """
    below = head.vertex_z - head.lowest_z
    if below < LEAST_COVER_MM:
        raise Refusal(Code.COVERAGE, f"Only {below:.0f} mm of the head were scanned: too little of the brain to judge.")
    missing = []
    if head.vertex_cut:
        missing.append("the vertex")
    if below < FULL_COVER_MM:
        missing.append("the skull base")
    if not missing:
        return ()
    reason = f"The stack does not reach {' and '.join(missing)}: what lies there was not analysed."
    return (Note(code=Code.COVERAGE_PARTIAL, reason=reason),)


def place_grid(head: HeadPosition, spec: PreprocessSpec) -> kernels.Target:
    """The spec's grid hung from the vertex and centred on the neurocranium."""
    planes, rows, columns = spec.shape
    dz, dy, dx = spec.spacing_mm
    return spec.grid((
        head.centre_x - (columns - 1) / 2 * dx,
        head.centre_y - (rows - 1) / 2 * dy,
        head.vertex_z + VERTEX_MARGIN_MM - (planes - 0.5) * dz,
    ))  # fmt: skip


def place(volume: Volume, spec: PreprocessSpec) -> Placed:
    """Locate the head, and put the spec's grid on it.

    Raises
    ------
    Refusal
        NOT_HEAD.
    """
    head = locate_head(volume)
    target = place_grid(head, spec)
    return Placed(valid=plane_validity(volume, target)[None], target=target, head=head)


def fill(
    volume: Volume, placed: Placed, spec: PreprocessSpec, *, out: npt.NDArray[np.generic] | None = None
) -> npt.NDArray[np.generic]:
    """Run the fused pass on the CPU.

    Parameters
    ----------
    volume : Volume
    placed : Placed
    spec : PreprocessSpec
    out : array [1, Z, C, Y, X] of the spec's dtype, optional
        Where to write the tensor; see :func:`edgehem.kernels.preprocess`.

    Returns
    -------
    array [1, Z, C, Y, X]
    """
    buffer = None if out is None else out[0]
    return kernels.preprocess(volume, placed.target, spec.kernel_windows, out=buffer, threads=usable_cpus())[None]


def plane_validity(volume: Volume, target: kernels.Target) -> npt.NDArray[np.float32]:
    """1 for planes whose central half (by rows and columns) is mostly covered by the stack: float32 [Z]."""
    return np.asarray(kernels.cover(volume, target) > 0.5, np.float32)


def plane_to_slice(volume: Volume, target: kernels.Target, plane: int) -> int:
    """Index of the acquired slice nearest to the middle of a grid plane."""
    point = grid_point(target, plane, (target.shape[1] - 1) / 2, (target.shape[2] - 1) / 2)
    return volume.nearest_slice(point)


def grid_point(target: kernels.Target, plane: float, row: float, column: float) -> npt.NDArray[np.float64]:
    """Patient coordinates (LPS, mm) of a grid position."""
    x, y, z = target.origin
    dz, dy, dx = target.spacing_mm
    return np.array([x + column * dx, y + row * dy, z + plane * dz])


def _corners(volume: Volume) -> npt.NDArray[np.float64]:
    """The corners of the first and last slice, float64 [8, 3]."""
    rows, columns = volume.pixels.shape[1:]
    down = volume.column_cosines * volume.pixel_spacing[0] * (rows - 1)
    right = volume.row_cosines * volume.pixel_spacing[1] * (columns - 1)
    first = [volume.origin[0], volume.origin[-1]]
    half = volume.normal * volume.slice_spacing / 2
    return np.array([
        corner + a * down + b * right + side
        for corner, side in zip(first, (-half, half), strict=True)
        for a in (0, 1)
        for b in (0, 1)
    ])  # fmt: skip


def _shifted(mask: Bool, axis: int, step: int) -> Bool:
    """The mask moved by one voxel; what moves in is False."""
    out = np.zeros_like(mask)
    source = [slice(None)] * 3
    goal = [slice(None)] * 3
    source[axis], goal[axis] = (slice(None, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(None, -1))
    out[tuple(goal)] = mask[tuple(source)]
    return out


def _largest_solid(tissue: Bool) -> Bool:
    """The piece of tissue around its thickest place, without what hangs on by less than three voxels in the plane.

    Slices are eroded in the plane only: the vertex and the lowest slice of a stack are flat, not thin.
    """
    core = tissue.copy()
    for axis in (1, 2):
        for step in (1, -1):
            core &= _shifted(tissue, axis, step)
    if not core.any():
        return core
    labels, _ = masks.label(core)
    thickest = np.argmax(np.where(core, _crowd(core, 4), 0))
    piece: Bool = labels == labels.reshape(-1)[thickest]
    for axis in (1, 2):
        piece = (piece | _shifted(piece, axis, 1) | _shifted(piece, axis, -1)) & tissue
    return piece


def _crowd(mask: Bool, reach: int) -> npt.NDArray[np.int16]:
    """How much of the mask lies within a cube that reaches `reach` voxels to each side."""
    count = mask.astype(np.int16)
    for axis in range(3):
        line = np.moveaxis(count, axis, 0)
        count = count.copy()
        total = np.moveaxis(count, axis, 0)
        for step in range(1, reach + 1):
            total[step:] += line[:-step]
            total[:-step] += line[step:]
    return count


def _top_section_mm2(volume: Volume, target: kernels.Target, head: Bool) -> float:
    """Area of the head in the highest acquired slice, mm²: measured in that slice, for a tilted one cuts obliquely."""
    # Slices count along their normal, which points to the feet when the patient was scanned feet first.
    highest = -1 if volume.normal[2] > 0 else 0
    rows, columns = volume.pixels.shape[1:]
    row_mm, column_mm = volume.pixel_spacing
    row_step, column_step = max(1, round(COARSE_MM / row_mm)), max(1, round(COARSE_MM / column_mm))
    down = np.arange(0, rows, row_step)[:, None, None] * row_mm * volume.column_cosines
    right = np.arange(0, columns, column_step)[None, :, None] * column_mm * volume.row_cosines
    points = volume.origin[highest] + down + right  # [Y, X, 3] mm
    at = np.rint((points - target.origin) / COARSE_MM).astype(np.int64)
    x, y, z = (np.clip(at[..., axis], 0, target.shape[2 - axis] - 1) for axis in range(3))
    return float(head[z, y, x].sum()) * row_step * row_mm * column_step * column_mm
