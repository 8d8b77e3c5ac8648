"""Are stored values, rescaled as the header says, Hounsfield units? Air and soft tissue are known anchors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgehem.errors import Code, Refusal
from edgehem.volume import Volume

Float32 = npt.NDArray[np.float32]

AIR_HU = -1000.0
"""Air, by the definition of the Hounsfield scale."""
AIR_TOLERANCE_HU = 70.0
"""Air measured in a calibrated scan, clipped at -1024 or mixed with foam and hair, stays this near to -1000."""
USUAL_AIR_HU = (-1030.0, -970.0)
"""Outside of this the value of air is said: scanners clip it at -1024 or keep it within 20 of -1000."""
AIR_TOGETHER = 0.5
"""Part of what reads as air that must lie within the tolerance of its median. Air is one value and its noise; the
blurred surface of a head whose air lies elsewhere spreads evenly."""
AIR_SEARCH_HU = (-1500.0, -700.0)
"""Where air is looked for: wide enough to find it displaced."""
MOST_BELOW_AIR_SHARE = 0.4
"""Share of a stack that may read below air. Unmarked padding does, in the corners beyond a circular field of view (a
fifth); so does air that is rescaled twice, and then brain may pass for air."""
MIN_AIR_SHARE = 0.01
"""Share of air in a head CT's field of view at least (it is about a third to a half)."""
MIN_SLICE_AIR_SHARE = 0.1
"""A slice with less than this part of the stack's median share of air is rescaled otherwise than its neighbours."""
SOFT_HU = (5.0, 75.0)
"""Blood-free to clotted soft tissue: cerebrospinal fluid 5-15, brain 20-40, muscle 40-60, fresh clot 60-75."""
MIN_SOFT_SHARE = 0.05
"""Share of soft tissue in what is not air, at least (it is about half in a head)."""
TISSUE_HU = (-500.0, 3071.0)
"""Padding among these values would hide tissue or bone."""
NOWHERE_HU = -1e5
"""Reads as neither air nor matter."""
_GRID = 64
"""Points per side at which a slice is sampled: 4 mm in a 250 mm field of view."""


def sample(
    volume: Volume, step: tuple[int, int], slices: npt.NDArray[np.intp] | None = None, padding_hu: float = AIR_HU
) -> Float32:
    """Hounsfield units of every ``step``-th pixel.

    Parameters
    ----------
    volume : Volume
    step : tuple of int
        Rows, columns.
    slices : integer array [N], optional
        Which slices; all by default.
    padding_hu : float, HU
        What padding reads as: air by default.

    Returns
    -------
    float32 array [N, Y', X'], HU
    """
    stored = volume.pixels[:, :: step[0], :: step[1]]
    slope, intercept = volume.slope, volume.intercept
    if slices is not None:
        stored, slope, intercept = stored[slices], slope[slices], intercept[slices]
    return to_hu(stored, slope, intercept, volume.padding, padding_hu)


def to_hu(
    stored: npt.NDArray[np.int16],
    slope: Float32,
    intercept: Float32,
    padding: tuple[int, int] | None,
    padding_hu: float = AIR_HU,
) -> Float32:
    """Hounsfield units of stored values [N, ...], slope and intercept [N]; padding reads as ``padding_hu``."""
    shape = (-1,) + (1,) * (stored.ndim - 1)
    hu = stored.astype(np.float32)
    hu *= slope.reshape(shape)
    hu += intercept.reshape(shape)
    if padding is not None:
        hu[(stored >= padding[0]) & (stored <= padding[1])] = padding_hu
    return hu


def refuse_implausible(volume: Volume) -> float:
    """Make sure that air and soft tissue are where Hounsfield units put them.

    Returns
    -------
    float
        What air measures, HU.

    Raises
    ------
    Refusal
        HU_IMPLAUSIBLE.
    """
    if volume.slope.min() <= 0 or np.ptp(volume.slope) != 0:
        raise Refusal(
            Code.HU_IMPLAUSIBLE, "The rescale slope is not positive or differs between slices; one CT scan has one."
        )
    step = (max(1, volume.pixels.shape[1] // _GRID), max(1, volume.pixels.shape[2] // _GRID))
    _refuse_padding_in_tissue(volume)
    # Padding is no measured air, and must not stand in for it; unless scanners wrote it where air clips (-1024).
    padding_hu = AIR_HU if _padding_is_air(volume) else NOWHERE_HU
    hu = sample(volume, step, padding_hu=padding_hu).reshape(len(volume.pixels), -1)

    if ((hu > NOWHERE_HU) & (hu <= AIR_SEARCH_HU[0])).mean() > MOST_BELOW_AIR_SHARE:
        raise Refusal(Code.HU_IMPLAUSIBLE, "Much lies far below -1000 Hounsfield units, where nothing can.")
    is_air = (hu > AIR_SEARCH_HU[0]) & (hu < AIR_SEARCH_HU[1])
    share = is_air.mean(axis=1)  # [Z]
    if share.mean() < MIN_AIR_SHARE:
        raise Refusal(Code.HU_IMPLAUSIBLE, "No air is found where Hounsfield units put it (near -1000).")
    air = float(np.median(hu[is_air]))
    if np.mean(np.abs(hu[is_air] - air) <= AIR_TOLERANCE_HU) < AIR_TOGETHER:
        raise Refusal(Code.HU_IMPLAUSIBLE, "What lies near -1000 Hounsfield units varies too much to be air.")
    if abs(air - AIR_HU) > AIR_TOLERANCE_HU:
        raise Refusal(Code.HU_IMPLAUSIBLE, f"Air lies at {air:.0f} Hounsfield units; it should lie near -1000.")
    if share.min() < MIN_SLICE_AIR_SHARE * np.median(share):
        raise Refusal(Code.HU_IMPLAUSIBLE, "On some slices air is not where Hounsfield units put it (near -1000).")
    matter = hu >= AIR_SEARCH_HU[1]
    soft = (hu >= SOFT_HU[0]) & (hu <= SOFT_HU[1])
    if soft.sum() < MIN_SOFT_SHARE * max(1, int(matter.sum())) or not matter.any():
        raise Refusal(Code.HU_IMPLAUSIBLE, "No soft tissue is found where Hounsfield units put it (between 5 and 75).")
    return air


def _padding_is_air(volume: Volume) -> bool:
    """Whether the padding range itself lies where air does."""
    if volume.padding is None:
        return False
    bounds = np.array(volume.padding) * volume.slope[0] + volume.intercept[0]
    return bool((np.abs(bounds - AIR_HU) <= AIR_TOLERANCE_HU).all())


def _refuse_padding_in_tissue(volume: Volume) -> None:
    """Refuse a padding value that real tissue also takes: masking it would hide tissue, keeping it may invent some."""
    if volume.padding is None:
        return
    bounds = np.array(volume.padding)[:, None] * volume.slope + volume.intercept  # [2, Z] HU
    if (bounds[1] > TISSUE_HU[0]).any() and (bounds[0] < TISSUE_HU[1]).any():
        raise Refusal(Code.HU_IMPLAUSIBLE, "The value that marks pixels without measurement is also one of tissue.")
