"""Cases: a head, its hemorrhages and the scan it went through, drawn from a seed.

One case is one study.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.bleeds import SUBTYPES, Bled, Bleed, bleed, midline_shift
from edgehem.phantom.flaws import Flaws, alter
from edgehem.phantom.head import draw_head
from edgehem.phantom.scanner import Scan, acquire, head_range
from edgehem.volume import Volume

VERSION = "1"
"""Generator version: raised whenever the same seed would give another study."""

LABELS = ("any", *SUBTYPES)
UNSPOILT = Flaws()
MIN_LABEL_ML = 0.5
"""A subtype is labelled present from this volume on inside the scanned slices: what was not scanned cannot be seen."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is asked of a scan; None leaves it to the seed.

    Parameters
    ----------
    slices : int or None
    thickness_mm : float or None
        Slice thickness and distance. Without it, the head is covered by the given number of slices.
    tilt_deg : float or None
    variable_spacing : bool or None
        The upper half of the stack is scanned with slices 1.75 times as thick, as in older head protocols.
    intercept, bits, padding
        See :class:`edgehem.phantom.scanner.Scan`; None in `padding` means no padding.
    matrix : int
    """

    slices: int | None = None
    thickness_mm: float | None = None
    tilt_deg: float | None = None
    variable_spacing: bool | None = None
    intercept: int | None = None
    bits: int | None = None
    padding: int | None = None
    matrix: int = 512

    def __post_init__(self) -> None:
        if self.bits == 12 and self.intercept == 0:
            raise ValueError("values stored as HU (intercept 0) are signed and take 16 bits, not 12")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A phantom study in memory.

    Parameters
    ----------
    seed : int
    volume : Volume
    mask : uint8 array [Z, Y, X]
        0, or 1 + index into :data:`SUBTYPES`.
    ml : dict of subtype to float
        Volume of every hemorrhage in the head, mL.
    visible_ml : dict of subtype to float
        Its part inside the scanned slices, mL.
    age_years : float
    scan : Scan
    midline_shift_mm : float
        Towards the patient's left.
    """

    seed: int
    volume: Volume
    mask: npt.NDArray[np.uint8]
    ml: dict[str, float]
    visible_ml: dict[str, float]
    age_years: float
    scan: Scan
    midline_shift_mm: float

    @property
    def labels(self) -> dict[str, int]:
        """1 or 0 for "any" and every subtype."""
        present = {name: int(self.visible_ml.get(name, 0.0) >= MIN_LABEL_ML) for name in SUBTYPES}
        return {"any": int(any(present.values())), **present}


def draw_bleeds(seed: int, *, smallest_ml: float = 2.0, largest_ml: float = 60.0) -> tuple[Bleed, ...]:
    """Draw one or two hemorrhages: the first subtype uniformly, volumes log-uniformly.

    Companions follow what occurs together: ventricular blood beside a parenchymal bleed, subarachnoid beside subdural.
    """
    rng = np.random.default_rng([seed, 6])
    first = SUBTYPES[int(rng.integers(len(SUBTYPES)))]
    cap = {"intraventricular": 40.0, "subarachnoid": 40.0}
    companions = {
        "intraparenchymal": "intraventricular",
        "subdural": "subarachnoid",
        "subarachnoid": "intraventricular",
    }
    chosen = [first]
    if first in companions and rng.random() < 0.25:
        chosen.append(companions[first])
    drawn = []
    for name in chosen:
        high = min(largest_ml, cap.get(name, largest_ml))
        drawn.append(Bleed(subtype=name, ml=float(np.exp(rng.uniform(np.log(smallest_ml), np.log(high))))))
    return tuple(drawn)


def draw_scan(seed: int, anatomy: Anatomy, protocol: Protocol) -> Scan:
    """Draw a scan of a head: what the protocol leaves open comes from the seed."""
    rng = np.random.default_rng([seed, 7])
    tilt = protocol.tilt_deg
    if tilt is None:
        tilt = float(rng.choice([0.0, rng.uniform(5, 24)], p=[0.6, 0.4]))
    _, vertex = head_range(anatomy, tilt)
    top = vertex - float(rng.uniform(-6, 1))
    wanted = float(rng.uniform(138, 178))
    uneven = bool(rng.random() < 0.2) if protocol.variable_spacing is None else protocol.variable_spacing
    thickness = protocol.thickness_mm
    if thickness is None and protocol.slices is None:
        thickness = float(rng.choice([2.5, 3.0, 4.0, 4.5, 5.0, 5.0, 6.0]))
    mean = 1.375 if uneven else 1.0  # mean thickness of an uneven stack over that of its lower half
    if thickness is None:
        thickness = wanted / mean / (protocol.slices or 40)
    count = protocol.slices or max(12, round(wanted / thickness / mean))
    thick = np.full(count, thickness)
    if uneven:
        thick[count // 2 :] *= 1.75
    # Stack from the bottom; then move the whole stack so that its last slice ends above the vertex.
    edges = np.concatenate([[0.0], np.cumsum(thick)])
    centres = (edges[:-1] + edges[1:]) / 2
    centres += top - edges[-1]
    drawn = int(rng.choice([-1024, 0], p=[0.75, 0.25])) if protocol.intercept is None else protocol.intercept
    intercept = -1024 if protocol.bits == 12 else drawn
    bits = (12 if intercept == -1024 else 16) if protocol.bits is None else protocol.bits
    per_mm = 512 / protocol.matrix  # coarser pixels average noise away
    return Scan(
        seed=seed,
        positions=tuple(float(c) for c in centres),
        thickness_mm=tuple(float(t) for t in thick),
        tilt_deg=tilt,
        matrix=protocol.matrix,
        fov_mm=float(rng.uniform(230, 255)),
        noise_hu=float(rng.uniform(2.2, 5.5)) * float(np.sqrt(5 / max(thickness, 1.5))) / float(per_mm**0.5),
        sharpness=float(rng.uniform(0.3, 0.7)),
        streaks=float(rng.uniform(0, 1)),
        drift_hu=float(rng.uniform(0, 1.2)),
        intercept=intercept,
        bits=bits,
        padding=protocol.padding,
        headrest=bool(rng.random() < 0.6),
    )


def make_case(
    seed: int,
    *,
    bleeds: tuple[Bleed, ...] = (),
    protocol: Protocol | None = None,
    voxel_mm: float = 1.0,
    flaws: Flaws = UNSPOILT,
) -> Case:
    """Make one study.

    Parameters
    ----------
    seed : int
        Of the head, the hemorrhages and the scan.
    bleeds : tuple of Bleed
    protocol : Protocol, optional
    voxel_mm : float
        Resolution of the head's block.
    flaws : Flaws
        Metal, surgery, contrast, motion; none by default.

    Returns
    -------
    Case
    """
    shift = midline_shift(bleeds, seed)
    head = draw_head(seed, midline_shift=shift, contrast_hu=flaws.contrast_hu)
    anatomy = synthesise(head, voxel_mm)
    return scan_case(anatomy, seed, bleeds=bleeds, protocol=protocol, flaws=flaws)


def scan_case(
    anatomy: Anatomy,
    seed: int,
    *,
    bleeds: tuple[Bleed, ...],
    protocol: Protocol | None = None,
    flaws: Flaws = UNSPOILT,
) -> Case:
    """Bleed into a head that was built before, and scan it: :func:`make_case` without rebuilding the anatomy.

    Contrast belongs to the anatomy (:func:`edgehem.phantom.head.draw_head`); the other flaws are put into it here.
    """
    scan = draw_scan(seed, anatomy, protocol or Protocol())
    bled = bleed(anatomy, bleeds, seed) if bleeds else Bled(hu=anatomy.hu, coverage={}, ml={})
    ordered = {name: bled.coverage[name] for name in SUBTYPES if name in bled.coverage}
    hu = bled.hu if flaws == UNSPOILT else alter(anatomy, bled.hu, flaws, seed)
    volume, painted, visible = acquire(anatomy, hu, ordered, scan, motion_mm=flaws.motion_mm)
    codes = np.array([0, *(1 + SUBTYPES.index(name) for name in ordered)], np.uint8)
    return Case(
        seed=seed,
        volume=volume,
        mask=codes[painted],
        ml=bled.ml,
        visible_ml=visible,
        age_years=anatomy.head.age_years,
        scan=scan,
        midline_shift_mm=anatomy.head.midline_shift,
    )
