"""MR studies: T2*, FLAIR, T1 and SWI of the head that CT of the same seed shows, with the same hemorrhages.

One study is one visit: a head, an age of its blood, a scanner. Nothing here comes from a patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import UsageError
from edgehem.phantom.bleeds import SUBTYPES, Bleed
from edgehem.phantom.cases import MIN_LABEL_ML
from edgehem.phantom.head import Head
from edgehem.phantom.mr_anatomy import bleeding_head
from edgehem.phantom.mr_coil import draw_coil
from edgehem.phantom.mr_head import MrHead, see
from edgehem.phantom.mr_iron import Microbleed, draw_microbleeds
from edgehem.phantom.mr_protocol import TWELVE_BITS, draw_mr_scan, draw_peak, draw_session
from edgehem.phantom.mr_scanner import MrScan, Slicer, acquire_mr, mark, minimum_intensity
from edgehem.phantom.mr_signal import DEFAULT_KINDS, KINDS, PulseSequence, draw_field, draw_sequence
from edgehem.phantom.mr_tissue import STAGES
from edgehem.phantom.shapes import F32
from edgehem.volume import Volume

MR_VERSION = "2"
"""Version of the MR part: raised whenever the same seed and head would give another series."""
STAGE_OF_AGE = {
    "hyperacute": "hyperacute",
    "acute": "acute",
    "subacute": "late_subacute",
    "chronic": "chronic",
    "acute on chronic": "acute",
}
"""Stage taken for the age that a :class:`Bleed` has for CT, where the caller names none: ours."""
MINIP_MM = 8.0
"""Thickness over which minimum intensities are taken, about: ours."""
BRIGHTEST = 99.9
"""Percentile that the scale of a series is set by."""


@dataclass(frozen=True, kw_only=True)
class MrSeries:
    """One series.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    volume : Volume
        Stored values are intensities in a unit of the series' own; slope 1, intercept 0.
    mask : uint8 array [slices, rows, columns]
        0, or 1 + index into SUBTYPES: the same hemorrhages as in CT, in the same patient coordinates.
    visible_ml : dict of subtype to float
        Volume inside the slices (not between them), mL.
    pulses : PulseSequence
    scan : MrScan
    spacing_mm : float
        Distance between slices.
    bits : int
        Stored: 12 or 16.
    """

    kind: str
    volume: Volume
    mask: npt.NDArray[np.uint8]
    visible_ml: dict[str, float]
    pulses: PulseSequence
    scan: MrScan
    spacing_mm: float
    bits: int


@dataclass(frozen=True, kw_only=True)
class MrCase:
    """A phantom MR study in memory.

    Parameters
    ----------
    seed : int
    voxel_mm : float
        Resolution of the head's block.
    series : dict of kind to MrSeries
    field_t : float
    stages : dict of subtype to str
        Age of the blood, one of :data:`edgehem.phantom.mr_tissue.STAGES`.
    ml : dict of subtype to float
        Volume of every hemorrhage in the head, mL.
    microbleeds : tuple of Microbleed
    midline_shift_mm : float
        Towards the patient's left.
    head : Head
    hemorrhages : tuple of dict
        Site, side, volume and more of each hemorrhage, as CT describes it.
    """

    seed: int
    voxel_mm: float
    series: dict[str, MrSeries]
    field_t: float
    stages: dict[str, str]
    ml: dict[str, float]
    microbleeds: tuple[Microbleed, ...]
    midline_shift_mm: float
    head: Head
    hemorrhages: tuple[dict[str, Any], ...] = ()

    @property
    def age_years(self) -> float:
        """Age of the patient, years."""
        return self.head.age_years

    @property
    def labels(self) -> dict[str, int]:
        """1 or 0 for "any" and every subtype: the head bleeds there, whether or not a series' slices reach it."""
        present = {name: int(self.ml.get(name, 0.0) >= MIN_LABEL_ML) for name in SUBTYPES}
        return {"any": int(any(present.values())), **present}


def stages_of(bleeds: Sequence[Bleed], age: str | Mapping[str, str] | None) -> dict[str, str]:
    """Stage of the blood of every subtype.

    Raises
    ------
    UsageError
        If a stage is none of STAGES, or a subtype has none.
    """
    stages: dict[str, str] = {}
    for item in bleeds:
        asked = age.get(item.subtype) if isinstance(age, Mapping) else age
        stage = STAGE_OF_AGE[item.age] if age is None else asked
        if stage not in STAGES:
            raise UsageError(f"blood of age {stage!r} ({item.subtype}); one of {', '.join(STAGES)} was expected")
        stages.setdefault(item.subtype, stage)
    return stages


def make_mr(
    seed: int,
    *,
    bleeds: tuple[Bleed, ...] = (),
    age: str | Mapping[str, str] | None = None,
    kinds: Sequence[str] = DEFAULT_KINDS,
    field_t: float | None = None,
    microbleeds: int | None = None,
    head: Mapping[str, Any] | None = None,
    voxel_mm: float = 1.0,
    matrix: int | None = None,
) -> MrCase:
    """Make one MR study.

    Parameters
    ----------
    seed : int
        Of the head, the hemorrhages, the scanner and its series. The head and its hemorrhages are those of
        :func:`edgehem.phantom.cases.make_case` with the same seed, bleeds and head.
    bleeds : tuple of Bleed
    age : str or mapping of subtype to str, optional
        Age of the blood, one of :data:`edgehem.phantom.mr_tissue.STAGES` (:func:`~edgehem.phantom.mr_tissue.stage_at`
        turns hours into it); without it, what each bleed says (:data:`STAGE_OF_AGE`).
    kinds : sequence of str
        Of :data:`edgehem.phantom.mr_signal.KINDS`. A series is the same whichever others are made.
    field_t : float, optional
        1.5 to 3 T; drawn without it.
    microbleeds : int, optional
        How many; drawn by age without it.
    head : mapping, optional
        Fields of :class:`edgehem.phantom.head.Head` that are set, not drawn.
    voxel_mm : float
        Resolution of the head's block.
    matrix : int, optional
        Rows and columns of all images; drawn without it.

    Returns
    -------
    MrCase

    Raises
    ------
    UsageError
        If a kind, a stage, a field strength or a field of the head is not possible.
    """
    field = draw_field(seed) if field_t is None else float(field_t)
    if microbleeds is not None and microbleeds < 0:
        raise UsageError(f"{microbleeds} microbleeds are not possible")
    if matrix is not None and not 64 <= matrix <= 512:
        raise UsageError(f"a matrix of {matrix} is outside 64-512")
    if not kinds:
        raise UsageError(f"no MR series is asked for; choose from {', '.join(KINDS)}")
    sequences = {kind: draw_sequence(kind, seed, field) for kind in kinds}
    stages = stages_of(bleeds, age)
    patient = bleeding_head(seed, bleeds, head, voxel_mm)
    person, bled, shift = patient.anatomy.head, patient.bled, patient.midline_shift_mm
    spots = draw_microbleeds(patient.anatomy, seed, microbleeds)
    if bled.coverage and not set(bled.coverage) <= set(stages):  # a clot that has broken into the ventricles
        stages |= {name: stages["intraparenchymal"] for name in bled.coverage if name not in stages}
    seen = see(patient, ages=stages, microbleeds=spots, seed=seed)
    del patient
    ordered = {name: bled.coverage[name] for name in SUBTYPES if name in bled.coverage}
    session = draw_session(seed, person, field, draw_coil(seed, field))
    z, y, x = ((low + high) / 2 for low, high in seen.brain)
    b1 = session.coil.transmitted(seen.index, seen.axes, (z, y, x))
    made: dict[str, MrSeries] = {}
    images: dict[str, F32] = {}
    for kind in sorted(sequences, key=KINDS.index):
        pulses = sequences[kind]
        scan = draw_mr_scan(seed, session, pulses, seen, matrix)
        source = "swi" if kind == "swi_minip" else kind
        if source not in images:
            slicer = Slicer(seen.axes, scan)
            images[source] = acquire_mr(seen.excite(pulses, b1), slicer, susceptibility_weighted=source == "swi")
        made[kind] = _series(kind, images[source], pulses, scan, seen, ordered, seed)
    return MrCase(
        seed=seed,
        voxel_mm=voxel_mm,
        series={kind: made[kind] for kind in kinds},
        field_t=field,
        stages=stages,
        ml=bled.ml,
        microbleeds=spots,
        midline_shift_mm=shift,
        head=person,
        hemorrhages=bled.hemorrhages,
    )


def _series(
    kind: str,
    images: F32,
    pulses: PulseSequence,
    scan: MrScan,
    seen: MrHead,
    coverage: Mapping[str, F32],
    seed: int,
) -> MrSeries:
    """Scale images to what is stored, and mark the hemorrhages."""
    factor = draw_peak(seed, kind) / float(np.percentile(images[::2, ::3, ::3], BRIGHTEST))
    spacing = scan.positions[1] - scan.positions[0]
    if kind == "swi_minip":
        slab = max(2, round(MINIP_MM / spacing))
        images = minimum_intensity(images, slab)
        half = (slab - 1) / 2 * spacing
        scan = replace(
            scan,
            positions=tuple(p + half for p in scan.positions[: len(images)]),
            thickness_mm=round(slab * spacing, 3),
        )
    bits = 12 if factor * float(images.max()) <= 2 * TWELVE_BITS else 16
    top = TWELVE_BITS if bits == 12 else np.iinfo(np.int16).max
    stored = np.rint(np.clip(images * np.float32(factor), 0, top)).astype(np.int16)
    codes = {name: 1 + number for number, name in enumerate(SUBTYPES)}
    mask, visible = mark(coverage, codes, Slicer(seen.axes, scan))
    tilt = np.radians(scan.tilt_deg)
    volume = Volume(
        pixels=stored,
        slope=np.ones(len(stored), np.float32),
        intercept=np.zeros(len(stored), np.float32),
        origin=scan.origins,
        row_cosines=np.array([1.0, 0.0, 0.0]),
        column_cosines=np.array([0.0, np.cos(tilt), -np.sin(tilt)]),
        pixel_spacing=(scan.pixel_mm, scan.pixel_mm),
    )
    return MrSeries(
        kind=kind,
        volume=volume,
        mask=mask,
        visible_ml=visible,
        pulses=pulses,
        scan=scan,
        spacing_mm=spacing,
        bits=bits,
    )
