"""Protocols: how the slices of each MR series lie, and how well it is measured, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgehem.phantom.anatomy import rotation
from edgehem.phantom.head import Head
from edgehem.phantom.mr_coil import Coil
from edgehem.phantom.mr_head import MrHead
from edgehem.phantom.mr_scanner import MrScan
from edgehem.phantom.mr_signal import KINDS, PulseSequence, signal

SNR = {"t2star": (35.0, 80.0), "flair": (25.0, 60.0), "t1": (35.0, 80.0), "swi": (14.0, 30.0), "t2": (30.0, 70.0)}
"""White matter's signal over the noise of one channel at 1.5 T, drawn between these; at 3 T 1.6 times as much. Ours."""
MOTION_CHANCE = 0.08
"""Share of series in which the patient moves so much that ghosts are seen: ours."""
OBLIQUE_CHANCE = 0.75
"""Share of studies whose slices follow the line of the commissures; the others are straight: ours."""
PEAKS = (350.0, 20_000.0)
"""Stored value that the brightest thousandth of a series reaches, drawn evenly on a logarithmic scale: intensities of
MR have no unit, and vendors scale as they like. Ours."""
TWELVE_BITS = 4095
"""Largest value of 12 bits stored, which series use whose peak fits."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What the series of a study share.

    Parameters
    ----------
    field_t : float
    coil : Coil
    tilt_deg : float
        Of the slices.
    fov_mm : float
    top_mm : float
        Room between the last slice and the vertex.
    centre_mm : tuple of float
        Where the technologist centres, beside the middle of the brain, along rows and columns.
    """

    field_t: float
    coil: Coil
    tilt_deg: float
    fov_mm: float
    top_mm: float
    centre_mm: tuple[float, float]


def draw_session(seed: int, head: Head, field_t: float, coil: Coil) -> Session:
    """Draw what the series of a study share.

    The line of the commissures is the y axis of the head; slices follow its pitch, give or take what a technologist
    misses. A head that is rolled or turned stays so in the image.
    """
    rng = np.random.default_rng([seed, 63])
    _, along_y, along_z = rotation(head) @ np.array([0.0, 1.0, 0.0])
    to_line = float(np.degrees(np.arctan2(-along_z, along_y))) + float(rng.normal(0, 2.5))
    oblique = bool(rng.random() < OBLIQUE_CHANCE)
    return Session(
        field_t=field_t,
        coil=coil,
        tilt_deg=round(to_line, 2) if oblique else 0.0,
        fov_mm=float(rng.choice([220, 225, 230, 235, 240, 250])),
        top_mm=float(rng.uniform(-4, 3)),
        centre_mm=(float(rng.normal(0, 2)), float(rng.normal(0, 3))),
    )


def draw_mr_scan(seed: int, session: Session, pulses: PulseSequence, head: MrHead, matrix: int | None = None) -> MrScan:
    """Draw a series of a study: what of it is not in the pulse sequence. A `matrix` that is given is not drawn."""
    number = KINDS.index("swi" if pulses.kind == "swi_minip" else pulses.kind)
    kind = KINDS[number]
    rng = np.random.default_rng([seed, 71, number])
    tilt = np.radians(session.tilt_deg)
    z, y, x = head.brain
    corners_y, corners_z = np.meshgrid(y, z)
    # The extent of the brain's box is larger than the brain's along a tilted normal: its vertex is what counts.
    middle_y, middle_z = sum(y) / 2, z[1]
    vertex = middle_y * np.sin(tilt) + middle_z * np.cos(tilt) + 6
    columns = corners_y * np.cos(tilt) - corners_z * np.sin(tilt)
    thin = kind == "swi"
    thickness = float(rng.choice([1.5, 2.0, 2.0])) if thin else float(rng.choice([4.0, 5.0, 5.0, 5.0, 6.0]))
    spacing = thickness if thin else round(thickness * float(rng.choice([1.1, 1.1, 1.2, 1.3])), 3)
    length = float(rng.uniform(128, 140) if thin else rng.uniform(136, 152))
    count = max(8, round(length / spacing))
    last = vertex + session.top_mm - spacing / 2
    drawn = int(rng.choice([256, 288, 320]))
    size = drawn if matrix is None else matrix
    snr = float(rng.uniform(*SNR[kind])) * (1 + 0.6 * (session.field_t - 1.5) / 1.5)
    moves = bool(rng.random() < MOTION_CHANCE)
    return MrScan(
        positions=tuple(round(float(last) - spacing * (count - 1 - k), 3) for k in range(count)),
        thickness_mm=thickness,
        tilt_deg=session.tilt_deg,
        matrix=size,
        lines=2 * round(size * float(rng.uniform(0.62, 0.9)) / 2),
        fov_mm=session.fov_mm,
        centre_mm=(
            round(float((x[0] + x[1]) / 2 + session.centre_mm[0]), 3),
            round(float((columns.min() + columns.max()) / 2 + session.centre_mm[1]), 3),
        ),
        noise=abs(signal("white", pulses)) / snr,
        apodisation=float(rng.uniform(0, 0.7)),
        motion_mm=float(rng.uniform(0.3, 1.1)) * moves,
        motion_lines=float(rng.uniform(9, 40)),
        coil=session.coil,
        seed=(seed, 72, number),
    )


def draw_peak(seed: int, kind: str) -> float:
    """Draw the stored value that the brightest thousandth of a series reaches."""
    number = KINDS.index("swi" if kind == "swi_minip" else kind)
    return float(np.exp(np.random.default_rng([seed, 73, number]).uniform(*np.log(PEAKS))))
