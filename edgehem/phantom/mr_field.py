"""What tissue does to the magnetic field, and what the field does to a gradient echo.

References
----------
Salomir, de Senneville and Moonen, Concepts in Magnetic Resonance B 2003;19:26-34; Marques and Bowtell, the same
2005;25:65-78: the field of a susceptibility map is its convolution with the unit dipole, 1/3 - kz²/k² in k-space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.shapes import F32

LARMOR_MHZ_PER_T = 42.577
"""Protons, gyromagnetic ratio over 2 pi (CODATA, rounded)."""
PADDING_MM = 20.0
"""Room around the block: the Fourier transform implies copies of the head, which must be far away. What they still add
is smooth, and the shim takes it. Ours."""
SHIM_POINTS = 20_000
"""Voxels of the brain that the shim is fitted to."""


def _padded_size(size: int, least: int) -> int:
    """The next length that is quick to transform: 2, 3 and 5 as its only prime factors."""
    length = size + least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def dipole_field(ppm: F32, steps_mm: tuple[float, float, float], outside_ppm: float) -> F32:
    """Relative field of a susceptibility map, main field along Z.

    Parameters
    ----------
    ppm : float32 array [Z, Y, X]
        Susceptibility, parts per million (SI).
    steps_mm : tuple of float
        Distance of voxels along Z, Y and X.
    outside_ppm : float
        Susceptibility around the block. Below its first plane the block is continued: the neck does not end there.

    Returns
    -------
    float32 array [Z, Y, X], parts per million
        Its mean is arbitrary.
    """
    pads = [int(np.ceil(PADDING_MM / step)) for step in steps_mm]
    nz, ny, nx = ppm.shape
    sizes = tuple(_padded_size(size, pad) for size, pad in zip(ppm.shape, pads, strict=True))
    padded = np.zeros(sizes, np.float32)
    padded[:nz, :ny, :nx] = ppm - np.float32(outside_ppm)
    padded[-pads[0] :, :ny, :nx] = padded[0, :ny, :nx]  # the transform is periodic: the last planes lie below the first
    spectrum = np.fft.rfftn(padded)
    del padded
    kz, ky = (np.fft.fftfreq(size, step).astype(np.float32) for size, step in zip(sizes[:2], steps_mm[:2], strict=True))
    kx = np.fft.rfftfreq(sizes[2], steps_mm[2]).astype(np.float32)
    across = ky[:, None] ** 2 + kx[None] ** 2  # [Y, X/2 + 1]
    for number, k in enumerate(kz):
        square = k * k
        norm = across + square
        if square == 0:
            norm[0, 0] = 1  # the mean of the field is not defined by the map alone
        spectrum[number] *= np.float32(1 / 3) - square / norm
    return np.asarray(np.fft.irfftn(spectrum, s=sizes, axes=(0, 1, 2))[:nz, :ny, :nx], np.float32)


@dataclass(frozen=True, kw_only=True)
class Field:
    """The field at N voxels.

    Parameters
    ----------
    ppm : float32 array [N]
        Beside the main field, shimmed.
    slopes : three float32 arrays [N]
        Its change over one voxel along Z, Y and X, ppm.
    """

    ppm: F32
    slopes: tuple[F32, F32, F32]

    def cycles(self, te_ms: float, field_t: float) -> float:
        """Turns of phase at echo time per ppm."""
        return LARMOR_MHZ_PER_T * field_t * te_ms / 1000

    def dephased(self, te_ms: float, field_t: float) -> npt.NDArray[np.complex64]:
        """What a gradient echo keeps of the signal of each voxel, and its phase: complex64 [N].

        The spins of a voxel fan out along its slope: a sinc per axis. What happens over more than one voxel (a thick
        slice) comes from adding voxels with their phases. A higher field gives a positive phase.
        """
        turns = np.float32(self.cycles(te_ms, field_t))
        kept = np.ones_like(self.ppm)
        for slope in self.slopes:
            kept *= np.sinc(turns * slope).astype(np.float32)
        angle = np.float32(2 * np.pi) * turns * self.ppm
        out = np.empty(self.ppm.shape, np.complex64)
        out.real, out.imag = kept * np.cos(angle), kept * np.sin(angle)
        return out


def _second_order(z: F32, y: F32, x: F32) -> F32:
    """Terms of a second-order shim at points: float32 [N, 10]."""
    return np.stack([np.ones_like(z), z, y, x, z * z, y * y, x * x, z * y, z * x, y * x], axis=1)


def field_at(
    block: F32, index: npt.NDArray[np.int64], axes: tuple[F32, F32, F32], brain: npt.NDArray[np.int64]
) -> Field:
    """Shim a field and take it at some voxels.

    Parameters
    ----------
    block : float32 array [Z, Y, X], ppm
    index : int64 array [N]
        Voxels, as positions in the flattened block; on its outermost layer slopes are 0.
    axes : three float32 arrays [Z], [Y], [X], mm
    brain : int64 array
        Voxels that the shim is fitted to: scanners adjust their second-order coils to the brain.

    Returns
    -------
    Field
    """
    shape = block.shape
    scaled = [axis / np.float32(100) for axis in axes]

    def terms(at: npt.NDArray[np.int64]) -> F32:
        return _second_order(*(axis[i] for axis, i in zip(scaled, np.unravel_index(at, shape), strict=True)))

    chosen = brain[:: max(1, len(brain) // SHIM_POINTS)]
    flat = block.reshape(-1)
    fit = np.linalg.lstsq(terms(chosen).astype(np.float64), flat[chosen].astype(np.float64), rcond=None)[0]
    shimmed = block - _polynomial(scaled, fit.astype(np.float32))
    flat = shimmed.reshape(-1)
    slopes = []
    strides = (shape[1] * shape[2], shape[2], 1)
    for step in strides:
        ahead, behind = np.minimum(index + step, flat.size - 1), np.maximum(index - step, 0)
        slopes.append(np.asarray((flat[ahead] - flat[behind]) / 2, np.float32))
    edge = np.zeros(len(index), bool)
    for i, size in zip(np.unravel_index(index, shape), shape, strict=True):
        edge |= (i == 0) | (i == size - 1)
    for slope in slopes:
        slope[edge] = 0
    return Field(ppm=flat[index], slopes=(slopes[0], slopes[1], slopes[2]))


def _polynomial(axes: list[F32], c: F32) -> F32:
    """The shim's polynomial on the whole block, float32 [Z, Y, X]."""
    z, y, x = axes
    plane = (c[2] * y + c[5] * y * y)[:, None] + (c[3] * x + c[6] * x * x)[None] + c[9] * y[:, None] * x[None]
    along = c[0] + c[1] * z + c[4] * z * z
    mixed = c[7] * y[:, None] + c[8] * x[None]
    return np.asarray(along[:, None, None] + plane[None] + z[:, None, None] * mixed[None], np.float32)
