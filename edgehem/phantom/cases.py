"""Cases: a head, its hemorrhages and the scan it went through, drawn from a seed.

One case is one study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.phantom import gantry, hematoma
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.bleeds import SUBTYPES, Bled, Bleed
from edgehem.phantom.couch import SUPPORTS, Couch, draw_couch
from edgehem.phantom.displacement import Flow, carry_labels
from edgehem.phantom.flaws import Flaws, alter
from edgehem.phantom.head import Head, draw_head
from edgehem.phantom.optics import KERNEL_CHANCES, KERNELS, Optics
from edgehem.phantom.scan import Scan, head_range
from edgehem.volume import Volume

VERSION = "2"
"""Of the generator: the same version and seed give the same study."""

LABELS = ("any", *SUBTYPES)
UNSPOILT = Flaws()
MIN_LABEL_ML = 0.5
"""A subtype is labelled present from this volume on inside the scanned slices: what was not scanned cannot be seen."""
COVERAGES = ("whole", "no vertex", "no base")
"""How much of the head a scan covers."""
CUT = 0.2
"""Share of the stack that an incomplete scan misses (ours)."""


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
        See :class:`edgehem.phantom.scan.Scan`; None in `padding` means no padding.
    matrix : int
    kernel : str or None
        One of :data:`edgehem.phantom.optics.KERNELS`.
    noise_hu : float or None
        Standard deviation of the noise in the middle of a head of median attenuation.
    support : str or None
        One of :data:`edgehem.phantom.couch.SUPPORTS`.
    coverage : str
        "whole", "no vertex" or "no base" (a fifth of the head is missing at that end).
    """

    slices: int | None = None
    thickness_mm: float | None = None
    tilt_deg: float | None = None
    variable_spacing: bool | None = None
    intercept: int | None = None
    bits: int | None = None
    padding: int | None = None
    matrix: int = 512
    kernel: str | None = None
    noise_hu: float | None = None
    support: str | None = None
    coverage: str = "whole"

    def __post_init__(self) -> None:
        if self.kernel is not None and self.kernel not in KERNELS:
            raise UsageError(f"unknown kernel {self.kernel!r}; one of {', '.join(KERNELS)}")
        if self.noise_hu is not None and not 0 <= self.noise_hu <= 50:
            raise UsageError(f"noise of {self.noise_hu} HU; 0 to 50 was expected")
        if self.support is not None and self.support not in SUPPORTS:
            raise UsageError(f"unknown support {self.support!r}; one of {', '.join(SUPPORTS)}")
        if self.coverage not in COVERAGES:
            raise UsageError(f"unknown coverage {self.coverage!r}; one of {', '.join(COVERAGES)}")
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
    head : Head
        The head's numbers.
    hemorrhages : tuple of dict
        What is known of every hemorrhage; see :class:`edgehem.phantom.bleeds.Bled`.
    optics : Optics
        Kernel, hardening and profile of the scan.
    couch : Couch
        What the head lies on.
    found : uint8 array [Z, Y, X] or None
        Labels of what is neither tissue nor blood, :data:`edgehem.phantom.materials.FINDINGS`; None where
        there is nothing.
    """

    seed: int
    volume: Volume
    mask: npt.NDArray[np.uint8]
    ml: dict[str, float]
    visible_ml: dict[str, float]
    age_years: float
    scan: Scan
    midline_shift_mm: float
    head: Head
    hemorrhages: tuple[dict[str, Any], ...]
    optics: Optics
    couch: Couch
    found: npt.NDArray[np.uint8] | None = None

    @property
    def labels(self) -> dict[str, int]:
        """1 or 0 for "any" and every subtype."""
        present = {name: int(self.visible_ml.get(name, 0.0) >= MIN_LABEL_ML) for name in SUBTYPES}
        return {"any": int(any(present.values())), **present}


def draw_bleeds(seed: int, *, smallest_ml: float = 2.0, largest_ml: float = 60.0) -> tuple[Bleed, ...]:
    """Draw one or two hemorrhages: the first subtype uniformly, volumes log-uniformly.

    Companions follow what occurs together: ventricular blood beside a parenchymal bleed, subarachnoid beside subdural.
    Signs are left to the seed, ages vary, and some parenchymal hemorrhages are contusions.
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
    return _vary(seed, drawn)


def _vary(seed: int, drawn: Sequence[Bleed]) -> tuple[Bleed, ...]:
    """What is drawn besides subtype and volume."""
    rng = np.random.default_rng([seed, 29])
    varied = []
    for item in drawn:
        old = ["subacute", "chronic", "acute on chronic"]
        late = str(rng.choice(old, p=[0.3, 0.35, 0.35]) if item.subtype == "subdural" else "subacute")
        chance = {"subdural": 0.35, "intraparenchymal": 0.12}.get(item.subtype, 0.0)
        age = late if rng.random() < chance else str(rng.choice(["hyperacute", "acute"], p=[0.2, 0.8]))
        contusion = bool(rng.random() < 0.15) and item.subtype == "intraparenchymal" and item.ml < 30
        varied.append(replace(item, signs=None, age=age, contusion=contusion))
    return tuple(varied)


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
    fov_mm = float(rng.uniform(230, 255))
    noise_hu = float(rng.uniform(2.2, 5.5)) * float(np.sqrt(5 / max(thickness, 1.5)))
    return Scan(
        seed=seed,
        positions=tuple(float(c) for c in centres),
        thickness_mm=tuple(float(t) for t in thick),
        tilt_deg=tilt,
        matrix=protocol.matrix,
        fov_mm=fov_mm,
        noise_hu=noise_hu if protocol.noise_hu is None else protocol.noise_hu,
        streaks=float(rng.uniform(0, 1)),
        drift_hu=float(rng.uniform(0, 1.2)),
        intercept=intercept,
        bits=bits,
        padding=protocol.padding,
    )


def draw_optics(seed: int, protocol: Protocol) -> Optics:
    """Draw how a scanner sees. Hardening beyond 1 stands for scatter, which cups as well (ours)."""
    rng = np.random.default_rng([seed, 28])
    kernel = str(rng.choice(list(KERNELS), p=KERNEL_CHANCES))
    return Optics(
        kernel=kernel if protocol.kernel is None else protocol.kernel,
        hardening=float(rng.uniform(0.55, 1.15)),
        iterative=float(rng.choice([0.0, rng.uniform(0.2, 1.0)], p=[0.5, 0.5])),
        modulation=float(rng.uniform(0, 0.9)),
        soft_profile=float(rng.choice([0.0, rng.uniform(0.2, 0.6)], p=[0.4, 0.6])),
    )


def _cut(scan: Scan, coverage: str) -> Scan:
    """A scan without its upper or its lower end."""
    count = len(scan.positions)
    lost = round(CUT * count)
    kept = {"whole": slice(None), "no vertex": slice(0, count - lost), "no base": slice(lost, None)}[coverage]
    return replace(scan, positions=scan.positions[kept], thickness_mm=scan.thickness_mm[kept])


def make_case(
    seed: int,
    *,
    bleeds: tuple[Bleed, ...] = (),
    protocol: Protocol | None = None,
    voxel_mm: float = 1.0,
    flaws: Flaws = UNSPOILT,
    head: Mapping[str, object] | None = None,
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
    head : mapping of str to object, optional
        Fields of :class:`edgehem.phantom.head.Head` that are set instead of drawn.

    Returns
    -------
    Case

    Raises
    ------
    UsageError
        If there is no such field of a head.
    """
    set_by_name: dict[str, Any] = dict(head or {})
    set_by_name.setdefault("contrast_hu", flaws.contrast_hu)
    anatomy = synthesise(draw_head(seed, **set_by_name), voxel_mm)
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
    placed = hematoma.place_all(anatomy, bleeds, seed)
    return expose_case(anatomy, seed, placed, seed, protocol or Protocol(), flaws)


def expose_case(
    anatomy: Anatomy,
    seed: int,
    placed: Sequence[hematoma.Placed],
    scan_seed: int,
    protocol: Protocol,
    flaws: Flaws = UNSPOILT,
) -> Case:
    """Bleed into a head with placed hemorrhages, and scan it.

    Parameters
    ----------
    anatomy : Anatomy
    seed : int
        Of the case.
    placed : sequence of Placed
    scan_seed : int
        Of the scan, which may be another one's than the head's.
    protocol : Protocol
    flaws : Flaws
    """
    scan = _cut(draw_scan(scan_seed, anatomy, protocol), protocol.coverage)
    optics = draw_optics(scan_seed, protocol)
    bled = hematoma.bleed(anatomy, placed) if placed else Bled(hu=anatomy.hu, coverage={}, ml={})
    ordered = {name: bled.coverage[name] for name in SUBTYPES if name in bled.coverage}
    hu = bled.hu if flaws == UNSPOILT else alter(anatomy, bled.hu, flaws, seed)
    couch = draw_couch(scan_seed, anatomy, protocol.support)
    seen = gantry.acquire(
        anatomy, hu, ordered, scan, optics, couch, found=_found(anatomy, bled.flow), motion_mm=flaws.motion_mm
    )
    codes = np.array([0, *(1 + SUBTYPES.index(name) for name in ordered)], np.uint8)
    return Case(
        seed=seed,
        volume=seen.volume,
        mask=codes[seen.mask],
        ml=bled.ml,
        visible_ml=seen.visible,
        age_years=anatomy.head.age_years,
        scan=scan,
        midline_shift_mm=anatomy.head.midline_shift + bled.midline_shift_mm,
        head=anatomy.head,
        hemorrhages=bled.hemorrhages,
        optics=optics,
        couch=couch,
        found=seen.found,
    )


def _found(anatomy: Anatomy, flow: Flow | None) -> npt.NDArray[np.uint8] | None:
    """Labels of what is neither tissue nor blood as a block [Z, Y, X], moved as the brain is; None without any."""
    tissue = anatomy.tissue
    if not tissue.found.any():
        return None
    block = np.zeros(anatomy.hu.shape, np.uint8)
    block.reshape(-1)[tissue.index] = tissue.found
    return block if flow is None else carry_labels(anatomy, flow, block)
