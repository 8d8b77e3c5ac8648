"""What the kernels are timed on: a stack like a head CT's, and the grids it is sampled on.

Every position of both grids lies between pixel centres, so no contender's way with borders counts, and the planes are
exactly twice as coarse as the slices with their edges aligned, where all conventions of pixel centres agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgehem.kernels import Target, Windows
from edgehem.volume import Volume

Int16 = npt.NDArray[np.int16]

PIXEL_MM = 0.5
PLANE_MM = 5.0
LOWEST_MM = 60.0
"""Lower edge of the stack in patient coordinates: anywhere but 0, where some libraries lose the sign of an offset."""
INTERCEPT = -1024
LEVEL_WIDTH = ((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0), (40.0, 40.0), (30.0, 350.0), (400.0, 1800.0))
"""Brain, subdural, bone; and for more channels stroke, soft tissue, temporal bone (level, width, HU)."""
BODIES = (
    (40, (0, 0, 0), (1.3, 0.90, 0.75)),
    (1100, (0, 0, 0), (1.2, 0.84, 0.69)),
    (35, (0, 0, 0), (1.1, 0.78, 0.63)),
    (8, (0, -0.05, 0.12), (0.5, 0.35, 0.08)),
    (8, (0, -0.05, -0.12), (0.5, 0.35, 0.08)),
    (65, (0.1, 0.2, 0.33), (0.3, 0.15, 0.12)),
)
"""Scalp, skull, brain, ventricles, a bleed: HU, centre and half axes (z, y, x), the stack being -1..1 each way."""
NOISE_HU = 24
INT8_SCALE = 1 / 127


@dataclass(frozen=True, kw_only=True)
class Job:
    """One resampling that every contender is asked for.

    Parameters
    ----------
    name : str
        Also the `resampling` of :class:`edgehem.kernels.Target`.
    what : str
    """

    name: str
    what: str


ANTIALIASED = Job(name="antialiased", what="planes on the slices; each voxel is the mean of 2 x 2 pixels")
TRILINEAR = Job(name="trilinear", what="planes between the slices; each voxel is interpolated between 8 pixels")
JOBS = (ANTIALIASED, TRILINEAR)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of one measurement; the defaults are the one that figures are quoted for.

    Parameters
    ----------
    slices, matrix : int
        Of the stack: slices, and rows as well as columns of each.
    planes, size : int
        Of the grid, likewise. Planes are 5 mm apart, and the stack is as long as they are.
    channels : int
        Windows.
    """

    slices: int = 40
    matrix: int = 512
    planes: int = 40
    size: int = 256
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the result: Z, C, Y, X."""
        return self.planes, self.channels, self.size, self.size

    @property
    def gap_mm(self) -> float:
        """Distance of neighbouring slices."""
        return self.planes * PLANE_MM / self.slices

    @property
    def voxel_mm(self) -> float:
        """Distance of neighbouring voxels of a plane."""
        return self.matrix * PIXEL_MM / self.size

    def start_and_step(self, job: Job) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Where the grid's first voxel lies and how far each axis steps, in slices, rows, columns."""
        in_plane = self.matrix / self.size
        edge = (in_plane - 1) / 2
        if job.name == ANTIALIASED.name:
            along = self.slices / self.planes
            return ((along - 1) / 2, edge, edge), (along, in_plane, in_plane)
        along = (self.slices - 1) / self.planes
        return (along / 2, edge, edge), (along, in_plane, in_plane)

    def target(self, job: Job) -> Target:
        """The grid as the kernels take it."""
        start, step = self.start_and_step(job)
        z, y, x = (first + i * mm for first, i, mm in zip(self._first_mm, start, self._pitch_mm, strict=True))
        return Target(
            shape=(self.planes, self.size, self.size),
            spacing_mm=(step[0] * self.gap_mm, step[1] * PIXEL_MM, step[2] * PIXEL_MM),
            origin=(x, y, z),
            resampling=job.name,
        )

    def windows(self, dtype: str = "float32") -> Windows:
        """The windows as the kernels take them."""
        return Windows(level_width=LEVEL_WIDTH[: self.channels], dtype=dtype, scale=INT8_SCALE)

    @property
    def ramps(self) -> tuple[tuple[float, float], ...]:
        """Windows as (factor, addend) on stored values, rescaling folded in: a window is ``clip(v * f + a, 0, 1)``."""
        return tuple(
            (1 / width, (INTERCEPT - (level - width / 2)) / width) for level, width in LEVEL_WIDTH[: self.channels]
        )

    def stack(self, pixels: Int16) -> Volume:
        """Stored values [Z, Y, X] as a stack in the patient."""
        origin = np.empty((self.slices, 3))
        origin[:, :2] = self._first_mm[1]
        origin[:, 2] = self._first_mm[0] + np.arange(self.slices) * self.gap_mm
        return Volume(
            pixels=pixels,
            slope=np.ones(self.slices, np.float32),
            intercept=np.full(self.slices, INTERCEPT, np.float32),
            origin=origin,
            row_cosines=np.array([1.0, 0.0, 0.0]),
            column_cosines=np.array([0.0, 1.0, 0.0]),
            pixel_spacing=(PIXEL_MM, PIXEL_MM),
        )

    def bytes_in(self) -> int:
        """Bytes of one stack."""
        return self.slices * self.matrix**2 * 2

    def bytes_moved(self, dtype: str = "float32") -> int:
        """Bytes that one pass has to read and write: each stored value once, each result once."""
        return self.bytes_in() + int(np.prod(self.shape)) * np.dtype(dtype).itemsize

    @cached_property
    def head(self) -> Int16:
        """A still head in air, in stored values, [Z, Y, X]."""
        y = np.linspace(-1, 1, self.matrix)[:, None]
        x = np.linspace(-1, 1, self.matrix)
        out = np.full((self.slices, self.matrix, self.matrix), -1000 - INTERCEPT, np.int16)
        for hu, (cz, cy, cx), (az, ay, ax) in BODIES:
            within = ((y - cy) / ay) ** 2 + ((x - cx) / ax) ** 2
            for image, z in zip(out, np.linspace(-1, 1, self.slices), strict=True):
                image[within <= 1 - ((z - cz) / az) ** 2] = hu - INTERCEPT
        return out

    def stacks(self, rng: np.random.Generator) -> Callable[[], Volume]:
        """A maker of stacks that differ in every pixel: the head under fresh noise, in one of two buffers in turn."""
        buffers = [self.stack(np.zeros_like(self.head)) for _ in range(2)]

        def fresh() -> Volume:
            buffers.reverse()
            pixels = buffers[0].pixels
            noise = rng.integers(-NOISE_HU, NOISE_HU + 1, pixels.shape, np.int16)
            np.add(self.head, noise, out=pixels)
            return buffers[0]

        return fresh

    @property
    def _pitch_mm(self) -> tuple[float, float, float]:
        return self.gap_mm, PIXEL_MM, PIXEL_MM

    @property
    def _first_mm(self) -> tuple[float, float, float]:
        """Centre of the stack's first pixel: z, y, x. The head is centred in the plane."""
        edge = -self.matrix * PIXEL_MM / 2
        return LOWEST_MM + self.gap_mm / 2, edge + PIXEL_MM / 2, edge + PIXEL_MM / 2
