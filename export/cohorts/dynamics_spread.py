"""How blood spreads between regions, and the chance that it will: the part of the dynamics that has a closed form.

Growth is driven by one number for each patient, the drive u(t): it creeps up while the clot is not firm, and jumps
when a further vessel tears. The tissue pushes back, so that the growth s(u) levels off, and the blood of the regions
follows r(s) = exp(A s) r(0), of which r + A r ds is the first step. A is the planted matrix, with rates >= 0,
so that every weighted sum of regions rises with u, and "6 mL more" is a threshold on u. Tears come as a Poisson process
with exponential jumps, so that the chance to pass a threshold is a sum of Poisson and Erlang terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from edgehem.regions import load_regions

Float = npt.NDArray[np.float64]

SPILL_ML = 20.0
"""Volume of a region at which it keeps half of its growth; smaller regions spill more. Ours."""
INTO_VENTRICLES = 10.0
"""Conductance of contact with the ventricles, cortex against cortex being 1. Ours: the wall gives way early."""
ALONG_WHITE_MATTER = 2.0
"""Conductance between a deep region and a lobe, where the capsules run. Ours."""
ACROSS_FALX = 0.05
"""Conductance between left and right: falx and midline. Ours."""
ACROSS_TENTORIUM = 0.1
"""Conductance between infratentorial regions and lobes: the tentorium, and the cisterns round the brainstem. Ours."""
LEAST_CONTACT_MM2 = 50.0
"""Less contact than this is an accident of the atlas's voxels. Ours."""
MOST_GROWTH = 1.2
"""Growth s never exceeds this after admission, however hard it is driven: the tissue's counter-pressure. Ours."""
JUMP = 0.3
"""Mean rise of the drive when a further vessel tears. Ours."""
TERMS = 18
"""Of the power series of exp(A s): at s = 1.2 and columns of A that sum to 1 the rest is below 1e-14 of the blood."""
MOST_TEARS = 16
"""Terms of the Poisson sum; with 3 tears expected more have a chance below 1e-7."""


@cache
def planted_rates() -> Float:
    """A: growth of region i for each mL of blood in region j and unit of s; [R, R], >= 0, columns of 1 (ventricles: 0).

    A column is split between the region itself and its neighbours, by contact area and conductance. Blood in the
    ventricles tears no vessel.
    """
    regions = load_regions()
    contact = regions.contact()
    conductance = np.ones_like(contact)
    lobe, deep, ventricle = (regions.is_kind(kind) for kind in ("lobe", "deep", "ventricle"))
    conductance[np.ix_(lobe, deep)] = conductance[np.ix_(deep, lobe)] = ALONG_WHITE_MATTER
    conductance[ventricle] = INTO_VENTRICLES
    left, right = regions.is_side("left"), regions.is_side("right")
    conductance[np.ix_(left, right)] = conductance[np.ix_(right, left)] = ACROSS_FALX
    below = regions.is_kind("infratentorial")
    conductance[np.ix_(lobe, below)] = conductance[np.ix_(below, lobe)] = ACROSS_TENTORIUM
    flow = np.where(contact >= LEAST_CONTACT_MM2, contact, 0) * conductance
    spill = SPILL_ML / (SPILL_ML + regions.volumes())
    rates = flow / flow.sum(0) * spill + np.diag(1 - spill)
    rates[:, ventricle] = 0
    return np.asarray(rates, np.float64)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Power series in the growth s of some patients' blood: of its regions, or of weighted sums of them.

    Parameters
    ----------
    series : float64 array [N, TERMS, K]
        ``A**n r(0) / n!``, mL; all >= 0.
    """

    series: Float

    @classmethod
    def of(cls, blood: Float) -> Spread:
        """From the regions' blood at s = 0: [N, R] mL."""
        rates = planted_rates()
        terms = [blood]
        for order in range(1, TERMS):
            terms.append(terms[-1] @ rates.T / order)
        return cls(series=np.stack(terms, axis=1))

    def summed(self, weights: Float) -> Spread:
        """Sums of the regions with weights >= 0: [R, K]."""
        return Spread(series=self.series @ weights)

    def at(self, drive: Float) -> Float:
        """At drives [N] or [N, T]: [N, K] or [N, T, K]."""
        apart = (slice(None), *(None,) * (drive.ndim - 1))
        rise = growth(drive)[..., None]
        value = np.zeros((*drive.shape, self.series.shape[2]))
        for order in range(TERMS - 1, -1, -1):
            value = value * rise + self.series[:, order][apart]
        return value

    def threshold(self, place: int, level: Float) -> Float:
        """The least drive at which the sum at a place reaches a level: [N], infinite where none does."""
        one = Spread(series=self.series[:, :, place : place + 1])
        # Halved in s, which is bounded; then back to the drive.
        low, high = np.zeros(len(level)), np.full(len(level), MOST_GROWTH)
        for _ in range(52):
            middle = (low + high) / 2
            under = one.at(drive_of(middle))[:, 0] < level
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return np.where(high >= MOST_GROWTH, np.inf, drive_of(high))


def growth(drive: Float) -> Float:
    """s(u): rises by u at first, and never beyond :data:`MOST_GROWTH`."""
    return np.asarray(-MOST_GROWTH * np.expm1(-drive / MOST_GROWTH), np.float64)


def drive_of(rise: Float) -> Float:
    """u(s), the inverse of :func:`growth`; infinite from :data:`MOST_GROWTH` on."""
    with np.errstate(divide="ignore"):
        return np.asarray(-MOST_GROWTH * np.log1p(-np.minimum(rise / MOST_GROWTH, 1.0)), np.float64)


def jumps_at_least(rise: Float, hazard: Float) -> Float:
    """The chance that the tears to come lift the drive by `rise` or more.

    Parameters
    ----------
    rise : float64 array [N, ...]
        Zero or less is reached for certain.
    hazard : float64 array [N, ...]
        Tears expected.

    Returns
    -------
    float64 array [N, ...]
        Sum over n of Poisson(n; hazard) times the upper tail of an Erlang(n) law with mean n * :data:`JUMP`.
    """
    scaled = np.maximum(rise, 0) / JUMP
    finite = np.where(np.isfinite(scaled), scaled, 0.0)
    count = np.exp(-hazard)
    erlang = tail = np.exp(-finite)
    total = np.zeros(np.broadcast_shapes(rise.shape, hazard.shape))
    for number in range(1, MOST_TEARS + 1):
        count = count * hazard / number
        total = total + count * tail
        erlang = erlang * finite / number
        tail = tail + erlang
    return np.where(rise <= 0, 1.0, np.where(np.isfinite(scaled), total, 0.0))
