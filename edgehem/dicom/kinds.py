"""What a file or a folder holds, whether or not this system reads it: head CT is one door, other systems have theirs.

:func:`what_is_at` is cheap: headers only, and of an MR series a second look at one of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from edgehem.dicom.elements import DamagedError, Elements, NeedMoreError, walk
from edgehem.dicom.header import HEADER_LIMIT, Fields, Header
from edgehem.dicom.scan import gather


class Kind(str, Enum):
    """A kind of input."""

    CT = "ct"
    MR = "mr"
    WAVEFORM = "waveform"
    """A DICOM waveform: an ECG and its relatives."""
    SEGMENTATION = "segmentation"
    """A DICOM segmentation: a mask of a series."""
    NIFTI = "nifti"
    REPORT = "report"
    """Structured reports, presentation states, notes: DICOM without an image of a patient."""
    OTHER = "other"
    """Another modality, or a file that is not DICOM."""


class Weighting(str, Enum):
    """What an MR series shows, as far as its header tells; a hint."""

    T1 = "T1"
    T2 = "T2"
    T2_STAR = "T2*"
    SWI = "SWI"
    FLAIR = "FLAIR"
    DWI = "DWI"
    UNKNOWN = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One series, or the files of one other kind.

    Parameters
    ----------
    kind : Kind
    files : tuple of Path
        Below the path that was asked for; a multi-frame file once.
    images : int
        Images, frames or objects in them.
    weighting : Weighting
        Of an MR series.
    """

    kind: Kind
    files: tuple[Path, ...] = field(repr=False)
    images: int
    weighting: Weighting = Weighting.UNKNOWN


_WORDS = {
    Kind.MR: "This is an MR series; head CT is needed here.",
    Kind.WAVEFORM: "This is a recording of signals, such as an ECG; head CT is needed here.",
    Kind.SEGMENTATION: "This is a segmentation, a mask of a series and not the series itself; the CT is needed here.",
    Kind.REPORT: "The files are reports or notes; they hold no images.",
}

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_KIND_BY_SOP = {
    **dict.fromkeys((f"{_STORAGE}2", f"{_STORAGE}2.1", f"{_STORAGE}2.2"), Kind.CT),
    **dict.fromkeys((f"{_STORAGE}4", f"{_STORAGE}4.1", f"{_STORAGE}4.3", f"{_STORAGE}4.4"), Kind.MR),
    **dict.fromkeys((f"{_STORAGE}66.4", f"{_STORAGE}66.5", f"{_STORAGE}66.7"), Kind.SEGMENTATION),
}
_FAMILIES = ((f"{_STORAGE}9.", Kind.WAVEFORM), (f"{_STORAGE}88.", Kind.REPORT), (f"{_STORAGE}11.", Kind.REPORT))
_KIND_BY_MODALITY = {
    "CT": Kind.CT,
    "MR": Kind.MR,
    **dict.fromkeys(("ECG", "HD", "EPS", "EEG", "EMG", "EOG", "RESP", "AU"), Kind.WAVEFORM),
    "SEG": Kind.SEGMENTATION,
    **dict.fromkeys(("SR", "PR", "KO", "DOC", "REG", "RTSTRUCT", "PLAN", "FID"), Kind.REPORT),
}


def kind_of(header: Header) -> Kind:
    """What one DICOM file is: by its modality, or by its SOP class where the modality is missing."""
    if kind := _KIND_BY_MODALITY.get(header.modality):
        return kind
    if header.modality:
        return Kind.OTHER
    if kind := _KIND_BY_SOP.get(header.sop_class):
        return kind
    return next((kind for start, kind in _FAMILIES if header.sop_class.startswith(start)), Kind.OTHER)


def said_of(kind: Kind) -> str:
    """A sentence on a kind that is not CT, for whoever gave it to a system for CT."""
    return _WORDS.get(kind, "The files are not CT images.")


def what_is_at(path: str | os.PathLike[str]) -> tuple[Part, ...]:
    """What a path holds, one part a series, and one for all NIfTI files.

    Nothing is judged: a series of CT may still be a scout, or damaged. For a zip file, see
    :func:`edgehem.dicom.archive.unpacked`.

    Parameters
    ----------
    path : str or PathLike
        A folder, a DICOMDIR, or a file.

    Returns
    -------
    tuple of Part
        In the order of the paths; empty where nothing is known.

    Raises
    ------
    UsageError
        If there is nothing at ``path``.
    Refusal
        UNREADABLE where a file cannot be opened; TOO_LARGE.
    """
    found = gather(Path(path))
    groups: dict[tuple[Kind, str], list[Header]] = {}
    for header in found.headers:
        groups.setdefault((kind_of(header), header.series_uid), []).append(header)
    parts = [
        Part(
            kind=kind,
            files=tuple(dict.fromkeys(header.path for header in group)),
            images=sum(header.frames for header in group),
            weighting=_weighting(group[0]) if kind is Kind.MR else Weighting.UNKNOWN,
        )
        for (kind, _), group in groups.items()
    ]
    if found.nifti:
        parts.append(Part(kind=Kind.NIFTI, files=found.nifti, images=len(found.nifti)))
    return tuple(parts)


_MR_TAGS = {
    "image_type": 0x00080008,
    "description": 0x0008103E,
    "scanning": 0x00180020,
    "options": 0x00180022,
    "sequence": 0x00180024,
    "protocol": 0x00181030,
    "repetition": 0x00180080,
    "echo": 0x00180081,
    "inversion": 0x00180082,
    "b_value": 0x00189087,
}
_NAMED = (
    (Weighting.SWI, re.compile(r"\b(E?SWI|SWAN|SWIP|MINIP_?SWI|VEN_?BOLD)\b")),
    (Weighting.FLAIR, re.compile(r"FLAIR|\bTIRM\b|DARK[\s_-]?FLUID")),
    (Weighting.DWI, re.compile(r"\b(E?ADC|DWI|DTI|TRACEW?|RESOLVE)\b|DIFF")),
    (Weighting.T2_STAR, re.compile(r"T2\s*(\*|_?STAR\b)|\bHEMO\b|\bMERGE\b|\bMEDIC\b")),
)
"""Names that vendors and technologists give to sequences; of several, the first that fits."""

# Echo, repetition and inversion times that tell weightings apart on 1.5 and 3 T scanners, ms: textbook ranges
# (McRobbie et al., MRI from Picture to Proton, chapter 12), wide apart so that what lies between stays unknown.
_FLUID_NULLED_MS = (1500.0, 3200.0)
_LONG_ECHO_MS = 60.0
_SHORT_ECHO_MS = 30.0
_STAR_ECHO_MS = 12.0
_SHORT_REPETITION_MS = 1200.0


def _weighting(header: Header) -> Weighting:
    """The weighting of an MR series, from one of its files."""
    found = Elements()
    try:
        with header.path.open("rb") as stream:
            head = stream.read(HEADER_LIMIT if header.pixel_offset < 0 else header.pixel_offset + 8)
        walk(head, len(head), frozenset(_MR_TAGS.values()), found)
    except (OSError, DamagedError, NeedMoreError):
        pass  # what came before the damage may tell
    fields = Fields(found.values, _MR_TAGS, little=found.little)
    return _by_name(fields.text(name) for name in ("description", "sequence", "protocol", "options", "image_type")) or (
        Weighting.DWI if fields.text("b_value") else _by_times(fields)
    )


def _by_name(texts: Iterable[str]) -> Weighting:
    text = " ".join(texts).upper().replace("\\", " ").replace("_", " ")
    return next((weighting for weighting, names in _NAMED if names.search(text)), Weighting.UNKNOWN)


def _by_times(fields: Fields[int]) -> Weighting:
    scanning = fields.text("scanning").upper().split("\\")
    echo, repetition, inversion = (fields.decimal(name) for name in ("echo", "repetition", "inversion"))
    if echo is None:
        return Weighting.UNKNOWN
    low, high = _FLUID_NULLED_MS
    if "IR" in scanning and inversion is not None and low <= inversion <= high and echo >= _LONG_ECHO_MS:
        return Weighting.FLAIR
    if "GR" in scanning and "SE" not in scanning and "EP" not in scanning:
        return Weighting.T2_STAR if echo >= _STAR_ECHO_MS else Weighting.T1
    if "SE" in scanning and echo >= _LONG_ECHO_MS:
        return Weighting.T2
    short = repetition is not None and repetition <= _SHORT_REPETITION_MS
    return Weighting.T1 if "SE" in scanning and short and echo < _SHORT_ECHO_MS else Weighting.UNKNOWN
