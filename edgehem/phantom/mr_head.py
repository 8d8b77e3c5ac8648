"""A head as magnetic resonance sees it: which voxel consists of what, its iron, and its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy
from edgehem.phantom.mr_anatomy import Patient, steps_of
from edgehem.phantom.mr_field import Field, dipole_field, field_at
from edgehem.phantom.mr_iron import Microbleed, deep_iron, microbleed_shares
from edgehem.phantom.mr_signal import PulseSequence, signals
from edgehem.phantom.mr_tissue import BY_SUBTYPE, IRON_PPM, IRON_R2_STAR, MATERIALS, NAMES, SUBSTANCES, Clot
from edgehem.phantom.mr_veins import veins
from edgehem.phantom.shapes import F32, PointField, SmoothField, smoothstep

MOSTLY_AIR = 0.98
"""Share of air from which on a voxel gives no signal and counts as the outside."""
OEDEMA_HU = 14.0
"""How much darker than before a voxel of white matter is in CT when it is taken as oedema and nothing else: ours."""
TEXTURE = 0.02
"""Standard deviation of proton density within a tissue, over some millimetres: ours."""
PATCH_MM = 14.0
"""Grain of the patches in which blood lags behind its stage: ours."""
CHUNK = 1 << 18
"""Voxels whose signals are added up at a time."""
_B1_KNOTS = (0.75, 1.0, 1.25)

_COLUMN = {name: number for number, name in enumerate(NAMES)}


@dataclass(frozen=True, kw_only=True)
class MrHead:
    """The N voxels of a head that are not air.

    Parameters
    ----------
    shape : tuple of int
        Of the block, [Z, Y, X].
    axes : three float32 arrays [Z], [Y], [X], mm
    index : int64 array [N]
        Position in the flattened block.
    shares : uint8 array [len(NAMES), N]
        Composition: 255 is all of the voxel.
    iron : float32 array [N]
        Of deep grey matter beyond what the tables hold, mg per kg.
    texture : float32 array [N]
        Factor of the proton density.
    field : Field
    brain : tuple of float
        Smallest and largest z, y and x of the brain, mm: what a technologist centres on.
    """

    shape: tuple[int, int, int]
    axes: tuple[F32, F32, F32]
    index: npt.NDArray[np.int64]
    shares: npt.NDArray[np.uint8]
    iron: F32
    texture: F32
    field: Field
    brain: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

    def excite(self, sequence: PulseSequence, b1: F32 | None = None) -> npt.NDArray[np.complex64] | F32:
        """Transverse magnetisation at the echo.

        Parameters
        ----------
        sequence : PulseSequence
        b1 : float32 array [N], optional
            Transmitted field, 1 where nominal.

        Returns
        -------
        complex64 array [Z, Y, X] of a gradient echo; float32 array [Z, Y, X], signed, of a spin echo
        """
        levels = signals(sequence, _B1_KNOTS)  # [knots, names]
        # The parabola through three levels of b1: constant, linear and square term of (b1 - 1) / 0.25.
        terms = np.stack([levels[1], (levels[2] - levels[0]) / 2, (levels[2] + levels[0]) / 2 - levels[1]]) / 255
        amplitude = np.empty(len(self.index), np.float32)
        for start in range(0, len(self.index), CHUNK):
            part = slice(start, start + CHUNK)
            shares = self.shares[:, part].astype(np.float32)
            if b1 is None:
                amplitude[part] = terms[0] @ shares
            else:
                constant, linear, square = terms @ shares
                off = (b1[part] - 1) / np.float32(0.25)
                amplitude[part] = constant + off * (linear + off * square)
        amplitude *= self.texture
        echo = sequence.physics == "gradient_echo"
        rate = IRON_R2_STAR * sequence.field_t * sequence.te / 1000 * (1.0 if echo else 0.25)
        holds = np.flatnonzero(self.iron)
        amplitude[holds] *= np.exp(np.float32(-rate) * self.iron[holds])
        block: npt.NDArray[np.complex64] | F32
        if echo:
            block = np.zeros(self.shape, np.complex64)
            block.reshape(-1)[self.index] = amplitude * self.field.dephased(sequence.te, sequence.field_t)
        else:
            block = np.zeros(self.shape, np.float32)
            block.reshape(-1)[self.index] = amplitude
        return block


def see(patient: Patient, *, ages: Mapping[str, str], microbleeds: Sequence[Microbleed], seed: int) -> MrHead:
    """Turn a head and its hemorrhages into what magnetic resonance sees.

    Parameters
    ----------
    patient : Patient
    ages : mapping of subtype to stage
    microbleeds : sequence of Microbleed
    seed : int

    Returns
    -------
    MrHead
    """
    anatomy, materials, bled = patient.anatomy, patient.materials, patient.bled
    shape = anatomy.hu.shape
    index = np.flatnonzero(materials["air"].reshape(-1) < MOSTLY_AIR)
    row_of = np.full(anatomy.hu.size, -1, np.int32)
    row_of[index] = np.arange(len(index), dtype=np.int32)
    shares = np.zeros((len(NAMES), len(index)), np.uint8)
    for name in MATERIALS:
        shares[_COLUMN[name]] = np.rint(materials[name].reshape(-1)[index] * 255)
    voxels, share = veins(anatomy, seed)
    _replace(shares, row_of[voxels], {"vein": share})
    _clog(shares, anatomy, index)
    _swell(shares, patient.wet_hu.reshape(-1)[index])
    for name, coverage in bled.coverage.items():
        _bleed(shares, coverage, row_of, BY_SUBTYPE[name][ages[name]], anatomy.axes, seed)
    for spot in microbleeds:
        voxels, share = microbleed_shares(anatomy, spot)
        _replace(shares, row_of[voxels], {"haemosiderin": share})
    iron = np.zeros(len(index), np.float32)
    at = row_of[anatomy.tissue.index]
    iron[at[at >= 0]] = deep_iron(anatomy)[at >= 0]
    iron *= (shares[_COLUMN["grey"]] + shares[_COLUMN["white"]].astype(np.float32)) / 255
    spans = [axis[i] for axis, i in zip(anatomy.axes, np.unravel_index(anatomy.tissue.index, shape), strict=True)]
    z, y, x = ((float(span.min()), float(span.max())) for span in spans)
    return MrHead(
        shape=(shape[0], shape[1], shape[2]),
        axes=anatomy.axes,
        index=index,
        shares=shares,
        iron=iron,
        texture=_texture(anatomy, index, seed),
        field=_field(anatomy, index, shares, iron),
        brain=(z, y, x),
    )


def _texture(anatomy: Anatomy, index: npt.NDArray[np.int64], seed: int) -> F32:
    """Factor of the proton density, float32 [N]."""
    field = SmoothField(np.random.default_rng([seed, 66]), anatomy.axes, 4)
    planes, plane = anatomy.hu.shape[0], anatomy.hu[0].size
    bounds = np.searchsorted(index, np.arange(planes + 1) * plane)
    texture = np.empty(len(index), np.float32)
    for z, (low, high) in enumerate(pairwise(bounds)):
        if high > low:
            texture[low:high] = field.slab(z, z + 1).reshape(-1)[index[low:high] - z * plane]
    return np.asarray(1 + np.float32(TEXTURE) * texture, np.float32)


def _field(anatomy: Anatomy, index: npt.NDArray[np.int64], packed: npt.NDArray[np.uint8], iron: F32) -> Field:
    air = SUBSTANCES["air"].ppm
    ppm = np.zeros(len(index), np.float32)
    for column, name in enumerate(NAMES):
        if SUBSTANCES[name].ppm:
            ppm += packed[column] * np.float32(SUBSTANCES[name].ppm / 255)
    block = np.full(anatomy.hu.shape, air, np.float32)
    block.reshape(-1)[index] = ppm + np.float32(IRON_PPM) * iron
    z, y, x = steps_of(anatomy.axes)
    return field_at(dipole_field(block, (z, y, x), air), index, anatomy.axes, anatomy.tissue.index)


def _replace(shares: npt.NDArray[np.uint8], rows: npt.NDArray[np.int32], by: Mapping[str, F32]) -> None:
    """Put something in place of a part of what voxels consist of, in place; rows below 0 are air."""
    known = np.flatnonzero(rows >= 0)
    held = shares[:, rows[known]].astype(np.float32)
    added = {name: share[known] for name, share in by.items()}
    held *= 1 - np.sum(list(added.values()), axis=0)
    for name, share in added.items():
        held[_COLUMN[name]] += 255 * share
    shares[:, rows[known]] = np.rint(np.clip(held, 0, 255)).astype(np.uint8)


def _clog(shares: npt.NDArray[np.uint8], anatomy: Anatomy, index: npt.NDArray[np.int64]) -> None:
    """Vessels that a thrombus fills, told by the density that the head has for them, in place.

    What stands still does not empty a spin echo, and its haemoglobin has given its oxygen away.
    """
    head = anatomy.head
    vessel, hu = shares[_COLUMN["vessel"]], anatomy.hu.reshape(-1)[index]
    clogged = np.zeros(len(index), bool)
    if head.thrombosis is not None and head.thrombosis_hu > head.sinus_hu:
        clogged |= hu > (head.sinus_hu + head.thrombosis_hu) / 2
    if head.mca_hu > head.artery_hu:
        t = anatomy.tissue
        central = np.zeros(anatomy.hu.size, bool)
        central[t.index[(t.depth > 4) & (t.y < 5) & (t.y > -45) & (t.z < 10)]] = True
        clogged |= central[index] & (hu > (head.artery_hu + head.mca_hu) / 2)
    rows = np.flatnonzero(clogged & (vessel > 100))
    shares[_COLUMN["deoxy"], rows] += vessel[rows]
    vessel[rows] = 0


def _swell(shares: npt.NDArray[np.uint8], wet_hu: F32) -> None:
    """Oedema in place of grey and white matter, in place."""
    rows = np.flatnonzero((wet_hu > 0.5) & (wet_hu < 2 * OEDEMA_HU))
    wet = np.clip(wet_hu[rows] / OEDEMA_HU, 0, 1)
    for name in ("grey", "white"):
        part = np.rint(shares[_COLUMN[name], rows] * wet).astype(np.uint8)
        shares[_COLUMN[name], rows] -= part
        shares[_COLUMN["oedema"], rows] += part


def _bleed(
    shares: npt.NDArray[np.uint8],
    coverage: F32,
    row_of: npt.NDArray[np.int32],
    clot: Clot,
    axes: tuple[F32, F32, F32],
    seed: int,
) -> None:
    """Put a hemorrhage of a stage in, in place."""
    at = np.flatnonzero(coverage)
    if not at.size:
        return
    share = coverage.reshape(-1)[at]
    z, y, x = (axis[i] for axis, i in zip(axes, np.unravel_index(at, coverage.shape), strict=True))
    # The same patches in every stage and subtype: it is one patient.
    patches = PointField(np.random.default_rng([seed, 69]), PATCH_MM, waves=16)(x, y, z)
    late = np.float32(clot.lag) * smoothstep(patches, -0.6, 1.2)
    core = np.ones(at.size, np.float32)
    if clot.rim_mm > 0:
        depth = _depth_mm(coverage, at, steps_of(axes), clot.rim_mm + 1.5)
        core = smoothstep(depth, clot.rim_mm - 0.6, clot.rim_mm + 0.6)
    parts = ((clot.core, core * (1 - late)), (clot.before, core * late), (clot.rim, 1 - core))
    by: dict[str, F32] = {}
    for name, part in parts:
        by[name] = by.get(name, np.float32(0)) + share * part
    _replace(shares, row_of[at], by)


def _depth_mm(coverage: F32, at: npt.NDArray[np.intp], steps_mm: Sequence[float], reach_mm: float) -> F32:
    """Depth of voxels below the surface of what is covered, mm, up to about `reach_mm`.

    A box of half width w around a point d below a flat surface is covered by 1/2 + d / 2w.
    """
    halves = [max(1, round(reach_mm / step)) for step in steps_mm]
    places = np.unravel_index(at, coverage.shape)
    low = [max(0, int(p.min()) - half - 1) for p, half in zip(places, halves, strict=True)]
    high = [min(n, int(p.max()) + h + 2) for p, h, n in zip(places, halves, coverage.shape, strict=True)]
    box = coverage[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    for axis, half in enumerate(halves):
        sums = np.cumsum(np.pad(box, [(half + 1, half) if k == axis else (0, 0) for k in range(3)]), axis=axis)
        size = box.shape[axis]
        ahead = np.take(sums, range(2 * half + 1, 2 * half + 1 + size), axis=axis)
        box = (ahead - np.take(sums, range(size), axis=axis)) / np.float32(2 * half + 1)
    share = box[tuple(p - start for p, start in zip(places, low, strict=True))]
    width = float(np.mean([(half + 0.5) * step for half, step in zip(halves, steps_mm, strict=True)]))
    return np.asarray((2 * share - 1) * width, np.float32)
