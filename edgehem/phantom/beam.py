"""The X-ray beam: how its spectrum hardens in bone, and where few photons arrive.

A scanner corrects its projections as if the head were water. Rays through bone are then measured too low, by an amount
that is known from the spectrum. That error is projected from the slices at low resolution, reconstructed, and added:
bright rims inside the skull, dark bands between the petrous bones. The same projections tell the noise: its variance
grows with the attenuation along every ray.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgehem.phantom.shapes import F32

GRID = 80
"""Cells of the low-resolution slice along one edge (ours): 3 mm at a field of view of 240 mm."""
ANGLES = 48
"""Directions over half a turn (ours)."""
FUNDAMENTAL = ANGLES // 4
"""Directions that are computed; the others are the same for a transposed or mirrored slice."""
WATER = (0.2683, 0.2269, 0.2059, 0.1837, 0.1707)
"""Mass attenuation of water at 40, 50, 60, 80 and 100 keV, cm²/g: NIST, Hubbell and Seltzer, NISTIR 5632."""
BONE = (0.6655, 0.4242, 0.3148, 0.2229, 0.1855)
"""The same of cortical bone (ICRU 44)."""
BONE_DENSITY = 1.92
"""Cortical bone of ICRU 44, g/cm³."""
SPECTRUM = (0.10, 0.22, 0.26, 0.27, 0.15)
"""Share of the detected energy around these energies at 120 kV behind a head's filter (ours, for a mean of 67 keV)."""
BONE_FROM_HU = 90.0
"""What is denser is taken for a mixture of water and bone (ours)."""


def _relative(table: tuple[float, ...]) -> float:
    """Attenuation at the spectrum's first order, cm²/g: what a thin layer shows."""
    return float(np.dot(SPECTRUM, table))


FULL_BONE_HU = 1000 * (BONE_DENSITY * _relative(BONE) / _relative(WATER) - 1)
"""What solid cortical bone would measure without hardening."""


@lru_cache(maxsize=1)
def _projector() -> F32:
    """Projection of a slice along the fundamental directions, float32 [FUNDAMENTAL * GRID, GRID * GRID], in cells."""
    centre = (GRID - 1) / 2
    row, column = np.divmod(np.arange(GRID * GRID), GRID)
    x, y = column - centre, row - centre
    matrix = np.zeros((FUNDAMENTAL * GRID, GRID * GRID), np.float32)
    for number in range(FUNDAMENTAL):
        angle = np.pi * (number + 0.5) / ANGLES
        at = x * np.cos(angle) + y * np.sin(angle) + centre
        first = np.floor(at).astype(np.int64)
        for shift in (0, 1):
            ok = (first + shift >= 0) & (first + shift < GRID)
            weight = 1 - np.abs(at - first - shift)
            matrix[number * GRID + first[ok] + shift, np.flatnonzero(ok)] = weight[ok]
    return matrix


@lru_cache(maxsize=1)
def _ramp() -> F32:
    """The ramp filter of twice the grid's length with a soft roll-off, cycles per cell."""
    frequency = np.fft.rfftfreq(2 * GRID)
    return np.asarray(frequency * np.cos(np.pi * frequency / 2) ** 2, np.float32)


def _versions(slices: F32) -> F32:
    """Slices [N, GRID, GRID] as they look along the other three quarters of directions, [4 * N, GRID * GRID]."""
    mirrored = slices[:, :, ::-1]
    turned = (slices, slices.transpose(0, 2, 1), mirrored, mirrored.transpose(0, 2, 1))
    return np.concatenate([part.reshape(len(slices), -1) for part in turned])


def project(slices: F32) -> F32:
    """Line sums of slices, float32 [4 * N, FUNDAMENTAL, GRID], in cells.

    Parameters
    ----------
    slices : float32 array [N, GRID, GRID]
    """
    sums = _versions(slices) @ _projector().T
    return np.asarray(sums.reshape(-1, FUNDAMENTAL, GRID), np.float32)


def back_project(sums: F32) -> F32:
    """Mean over all directions of what lies on a cell's rays: the adjoint of :func:`project`, [N, GRID, GRID]."""
    smeared = (sums.reshape(len(sums), -1) @ _projector()).reshape(4, -1, GRID, GRID)
    plain, transposed, mirrored, both = smeared
    total = plain + transposed.transpose(0, 2, 1) + mirrored[:, :, ::-1] + both.transpose(0, 2, 1)[:, :, ::-1]
    return np.asarray(total / ANGLES, np.float32)


@lru_cache(maxsize=1)
def _water_curve() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the detector sees behind water: attenuation (natural logarithm), and the water's thickness in g/cm²."""
    thickness = np.linspace(0, 80, 801)
    seen = sum(w * np.exp(-mu * thickness) for w, mu in zip(SPECTRUM, WATER, strict=True))
    return -np.log(np.asarray(seen)), thickness


def expose(slices: F32, cell_mm: float) -> tuple[F32, F32]:
    """Artefact and noise of slices.

    Parameters
    ----------
    slices : float32 array [N, GRID, GRID], HU
        Noise-free, without artefacts.
    cell_mm : float

    Returns
    -------
    artefact : float32 array [N, GRID, GRID], HU
        What beam hardening adds after a correction for water.
    noise : float32 array [N, GRID, GRID]
        Standard deviation of the noise, in units of that behind 20 cm of water.
    """
    count = len(slices)
    share = np.clip((slices - BONE_FROM_HU) / (FULL_BONE_HU - BONE_FROM_HU), 0, None)
    soft = np.clip(1 + slices / 1000, 0, None)
    water = np.where(share > 0, np.clip(soft - share * (1 + FULL_BONE_HU / 1000), 0, None), soft)
    sums = project(np.concatenate([water, share]).astype(np.float32)) * np.float32(cell_mm / 10)
    sums = sums.reshape(4, 2, count, FUNDAMENTAL, GRID)
    water_path, bone_path = sums[:, 0], sums[:, 1] * np.float32(BONE_DENSITY)
    seen = np.zeros_like(water_path)
    for weight, mu_water, mu_bone in zip(SPECTRUM, WATER, BONE, strict=True):
        seen += np.float32(weight) * np.exp(np.float32(-mu_water) * water_path - np.float32(mu_bone) * bone_path)
    attenuation = -np.log(seen)
    measured = np.interp(attenuation, *_water_curve()).astype(np.float32)
    ideal = water_path + bone_path * np.float32((1 + FULL_BONE_HU / 1000) / BONE_DENSITY)
    error = (measured - ideal).reshape(4, count, -1)
    # The part that is proportional to the bone only makes bone read lower, and bone is drawn as it reads. Without it,
    # what is left is smooth, and low resolution does not smear the bone's own loss over the brain beside it.
    crossed = bone_path.reshape(4, count, -1)
    lost = (error * crossed).sum(axis=(0, 2)) / np.maximum((crossed * crossed).sum(axis=(0, 2)), 1e-6)
    error -= lost[None, :, None] * crossed
    error = error.reshape(4 * count, FUNDAMENTAL, GRID)
    spectrum = np.fft.rfft(error, 2 * GRID, axis=-1) * _ramp()
    filtered = np.fft.irfft(spectrum, 2 * GRID, axis=-1)[..., :GRID].astype(np.float32)
    both = back_project(np.concatenate([
        filtered.reshape(4, count, FUNDAMENTAL, GRID), 1 / seen.reshape(4, count, FUNDAMENTAL, GRID),
    ], axis=1).reshape(8 * count, FUNDAMENTAL, GRID))  # fmt: skip
    artefact = both[:count] * np.float32(1000 * np.pi / (cell_mm / 10))
    reference = np.exp(np.interp(20.0, _water_curve()[1], _water_curve()[0]))
    return np.asarray(artefact, np.float32), np.sqrt(both[count:] / np.float32(reference))
