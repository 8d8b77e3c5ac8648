"""Where the slices of a series lie: ordered along their normal from position and orientation alone, or refused.

Gantry/Detector Tilt, Spacing Between Slices, Slice Location and Instance Number are not used: they are often wrong.
Slice Thickness is used for one thing only, to tell a slice distance that was meant from one that a lost slice left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.dicom.header import Header
from edgehem.errors import Code, Refusal
from edgehem.volume import ORTHONORMAL_TOLERANCE

Float64 = npt.NDArray[np.float64]

MAX_AXIAL_ANGLE_DEG = 40.0
"""Angle between slice normal and body axis up to which a series is axial: 30° of gantry tilt and a tilted head."""
MAX_TILT_DEG = 35.0
"""Gantries tilt to 30°; a stack that advances at a larger angle to its normal is not one acquisition."""
PIXEL_MM = (0.01, 20.0)
"""Pixel sizes that some image of a body could have."""
MAX_POSITION_MM = 1e5
"""Positions farther than 100 m from the origin are no positions."""
COSINE_TOLERANCE = 1e-3
"""Largest difference of direction cosines within a series: 0.06°, above what 6 written decimals leave."""
SPACING_TOLERANCE = 1e-3
"""Largest relative difference of pixel spacing within a series: half a pixel over 512."""
SAME_PLACE_MM = 0.05
"""Slices closer than this lie at the same place: below any slice distance, above the rounding of positions."""
LINE_TOLERANCE_MM = 1.0
"""Slice origins may be this far off a straight line (table play); more is not one stack."""
GAP_RATIO = 1.5
"""A slice distance this many times the typical one means a lost slice (input gates)."""
REGIME_TOLERANCE = 0.1
"""Neighbouring distances within 10 % belong to the same scan protocol."""
REGIME_LENGTH = 4
"""So many equal distances in a row were meant; fewer may be left by lost slices."""
VARIABLE_MM = 0.1
"""Distances that differ by more than this (and 2 %) are said to vary: above the rounding of positions."""
VARIABLE_RATIO = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """The slices of one series in order along their normal.

    Parameters
    ----------
    places : tuple of tuple of Header
        For every place along the normal, the slices found there: one, or several that should be copies.
    origin : float64 array [Z, 3], mm, LPS
    row_cosines, column_cosines : float64 arrays [3]
    pixel_spacing : tuple of float, mm
        Between rows, between columns.
    variable : bool
        Whether the slice distance changes inside the stack.
    """

    places: tuple[tuple[Header, ...], ...]
    origin: Float64
    row_cosines: Float64
    column_cosines: Float64
    pixel_spacing: tuple[float, float]
    variable: bool

    @property
    def distances(self) -> Float64:
        """Distance of every place along the normal, float64 [Z], mm."""
        return np.asarray(self.origin @ np.cross(self.row_cosines, self.column_cosines))

    @property
    def height(self) -> float:
        """Distance from the first to the last slice, mm."""
        return float(self.distances[-1] - self.distances[0])

    @property
    def spacing(self) -> float:
        """Median slice distance, mm; 0 for a single slice."""
        return float(np.median(np.diff(self.distances))) if len(self.places) > 1 else 0.0

    @property
    def first(self) -> Header:
        """The first slice."""
        return self.places[0][0]


def orientation_name(header: Header) -> str:
    """``axial``, ``coronal``, ``sagittal`` or ``unknown``, by the slice normal."""
    if header.orientation is None:
        return "unknown"
    cosines = np.array(header.orientation).reshape(2, 3)
    if not _orthonormal(cosines):
        return "unknown"
    normal = np.abs(np.cross(cosines[0], cosines[1]))
    if normal[2] >= np.cos(np.radians(MAX_AXIAL_ANGLE_DEG)):
        return "axial"
    return "sagittal" if normal[0] > normal[1] else "coronal"


def arrange(headers: Sequence[Header]) -> Stack:
    """Put the slices of a series in order, and make sure that they are one whole stack.

    Parameters
    ----------
    headers : sequence of Header
        At least one, all of one series.

    Returns
    -------
    Stack

    Raises
    ------
    Refusal
        GEOMETRY_MISSING, GEOMETRY_MIXED, NO_AXIAL_SERIES or SLICE_GAP.
    """
    if any(h.position is None or h.orientation is None or h.spacing is None for h in headers):
        raise Refusal(
            Code.GEOMETRY_MISSING,
            "Position, orientation or pixel size is missing or is not a number on some slices of the series.",
        )
    origin = np.array([h.position for h in headers])  # [Z, 3] mm
    cosines = np.array([h.orientation for h in headers]).reshape(-1, 2, 3)
    spacing = np.array([h.spacing for h in headers])  # [Z, 2] mm, between rows and between columns
    possible = (
        _orthonormal(cosines[0])
        and np.abs(cosines).max() < 2
        and np.abs(origin).max() <= MAX_POSITION_MM
        and PIXEL_MM[0] <= spacing.min() <= spacing.max() <= PIXEL_MM[1]
    )
    if not possible:
        raise Refusal(
            Code.GEOMETRY_MISSING, "The position, orientation or pixel size written in the images is impossible."
        )
    _refuse_mixture(headers, cosines, spacing)
    if orientation_name(headers[0]) != "axial":
        raise Refusal(Code.NO_AXIAL_SERIES, "The slices are not axial.")

    row_cosines, column_cosines = cosines[0]
    distances = origin @ np.cross(row_cosines, column_cosines)
    order = np.argsort(distances, kind="stable")
    starts = np.flatnonzero(np.diff(distances[order], prepend=-np.inf) > SAME_PLACE_MM)
    places = tuple(tuple(headers[i] for i in sorted(group)) for group in np.split(order, starts[1:]))
    _refuse_crooked(origin[order] @ cosines[0].T, distances[order])
    origin = origin[[order[start] for start in starts]]

    gaps = np.diff(distances[order][starts])
    _refuse_lost_slices(gaps, [place[0].thickness for place in places])
    variable = len(gaps) > 1 and np.ptp(gaps) > max(VARIABLE_MM, VARIABLE_RATIO * float(np.median(gaps)))
    return Stack(
        places=places,
        origin=origin,
        row_cosines=row_cosines,
        column_cosines=column_cosines,
        pixel_spacing=(float(spacing[0, 0]), float(spacing[0, 1])),
        variable=bool(variable),
    )


def _orthonormal(cosines: Float64) -> bool:
    # The first comparison keeps huge numbers out of the product.
    return bool(np.abs(cosines).max() < 2 and np.allclose(cosines @ cosines.T, np.eye(2), atol=ORTHONORMAL_TOLERANCE))


def _refuse_mixture(headers: Sequence[Header], cosines: Float64, spacing: Float64) -> None:
    """Refuse slices that differ in what all slices of one stack share."""
    first = headers[0]
    if any(patient_key(h) != patient_key(first) or h.study_uid != first.study_uid for h in headers):
        raise Refusal(Code.GEOMETRY_MIXED, "The series holds images of more than one patient or examination.")
    if any((h.rows, h.columns) != (first.rows, first.columns) for h in headers):
        raise Refusal(Code.GEOMETRY_MIXED, "The images of the series differ in size.")
    if np.abs(cosines - cosines[0]).max() > COSINE_TOLERANCE:
        raise Refusal(Code.GEOMETRY_MIXED, "The slices of the series are not parallel.")
    if np.abs(spacing / spacing[0] - 1).max() > SPACING_TOLERANCE:
        raise Refusal(Code.GEOMETRY_MIXED, "The images of the series differ in pixel size.")


def patient_key(header: Header) -> str:
    """What tells patients apart: the identifier, or the name where there is none. For comparison only."""
    return header.patient[0] or header.patient[1]


def _refuse_crooked(in_plane: Float64, distances: Float64) -> None:
    """Refuse origins that do not advance along one straight line, or advance too obliquely."""
    height = distances[-1] - distances[0]
    if height <= SAME_PLACE_MM:
        return
    line = np.stack([distances, np.ones_like(distances)], axis=1)
    fit = np.linalg.lstsq(line, in_plane, rcond=None)[0]  # [2, 2]: slope and offset of both in-plane coordinates
    if np.abs(in_plane - line @ fit).max() > LINE_TOLERANCE_MM:
        raise Refusal(
            Code.GEOMETRY_MIXED, "The slices do not follow one straight line; the gantry tilt is inconsistent."
        )
    if np.degrees(np.arctan(np.linalg.norm(fit[0]))) > MAX_TILT_DEG:
        raise Refusal(Code.GEOMETRY_MIXED, "The slices advance in a direction that no gantry tilt explains.")


def _refuse_lost_slices(gaps: Float64, thickness: Sequence[float | None]) -> None:
    """Refuse a stack with slices missing inside.

    A scan may change its slice distance on purpose (4 mm through the skull base, 7 mm above). Such a regime is long,
    and its slices are as thick as it says. A lost slice leaves a single distance that fits neither neighbour.
    """
    if len(gaps) < 2:
        return
    refusal = Refusal(
        Code.SLICE_GAP,
        "Slices are missing inside the series: two neighbouring images lie too far apart. Send it again.",
    )
    starts = [0, *(i for i in range(1, len(gaps)) if abs(gaps[i] - gaps[i - 1]) > REGIME_TOLERANCE * gaps[i - 1])]
    runs = list(zip(starts, [*starts[1:], len(gaps)], strict=True))
    regimes = [(a, b) for a, b in runs if b - a >= min(REGIME_LENGTH, len(gaps))]
    if not regimes:
        if gaps.max() > GAP_RATIO * np.median(gaps):
            raise refusal
        return
    smallest = min(float(np.median(gaps[a:b])) for a, b in regimes)
    for a, b in regimes:
        distance = float(np.median(gaps[a:b]))
        known = [t for t in thickness[a : b + 1] if t is not None and t > 0]
        meant = float(np.median(known)) if known else smallest
        if distance > GAP_RATIO * meant:
            raise refusal
    for a, b in runs:
        if (a, b) in regimes:
            continue
        before = [float(np.median(gaps[i:j])) for i, j in regimes if j <= a][-1:]
        after = [float(np.median(gaps[i:j])) for i, j in regimes if i >= b][:1]
        if gaps[a:b].max() > GAP_RATIO * min(before + after):
            raise refusal
