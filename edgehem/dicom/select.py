"""Which series of a study is analysed, and why each other one is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgehem.dicom import labels
from edgehem.dicom.decode import refuse_undecodable
from edgehem.dicom.elements import DEFLATED
from edgehem.dicom.geometry import Stack, arrange, orientation_name, patient_key
from edgehem.dicom.header import Header
from edgehem.dicom.kinds import Kind, kind_of, said_of
from edgehem.dicom.multiframe import MAX_FRAMES, MULTIFRAME_CT
from edgehem.dicom.study import SeriesSummary
from edgehem.errors import Code, Refusal
from edgehem.result import Note

MIN_SLICES = 8
"""Fewer slices cannot cover a head: 8 slices of the thickest protocol (10 mm) are 80 mm."""
MIN_HEIGHT_MM = 80.0
"""A stack lower than this cannot hold an adult brain, which is about 120-140 mm high."""
WHOLE_HEIGHT_MM = 100.0
"""A stack at least this high is preferred to a lower one: with its slices, it holds most of a brain."""
REFERENCE_SPACING_MM = 5.0
"""Of equal candidates the one nearest to this slice distance is read: the usual one for reporting head CT."""

_CT_SOP = "1.2.840.10008.5.1.4.1.1.2"
_CAPTURE_SOP = "1.2.840.10008.5.1.4.1.1.7"

_TELLING = (
    Code.SLICE_GAP, Code.GEOMETRY_MIXED, Code.GEOMETRY_MISSING, Code.RESCALE_MISSING, Code.SYNTAX_UNSUPPORTED,
    Code.UNREADABLE, Code.TOO_LARGE, Code.COVERAGE, Code.CONTRAST, Code.TOO_FEW_SLICES, Code.NOT_HEAD,
    Code.NO_AXIAL_SERIES, Code.NOT_CT, Code.PIXELS_MISSING,
)  # fmt: skip
"""Why no series can be used, the most telling first: what came nearest to a head CT explains the refusal."""
_BROKEN = frozenset(_TELLING[: _TELLING.index(Code.COVERAGE)])
"""A series passed over for one of these is a head CT that something is wrong with: worth a note."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A series that can be analysed, as far as headers say."""

    stack: Stack
    summary: SeriesSummary
    excluded: int

    @property
    def kind(self) -> str:
        """What tells it apart, in words, without its description."""
        thickness = self.stack.first.thickness
        size = f"{thickness:g} mm thick" if thickness else f"{self.stack.spacing:.1f} mm apart"
        return f"{len(self.stack.places)} slices, {size}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Candidates in order of preference (at least one), and what was passed over."""

    candidates: tuple[Candidate, ...]
    passed_over: tuple[SeriesSummary, ...]
    notes: tuple[Note, ...]


def select(headers: Sequence[Header], missing: Mapping[str, int] | None = None) -> Selection:
    """Group images by series and rank the series that can be analysed.

    Parameters
    ----------
    headers : sequence of Header
    missing : mapping of str to int, optional
        How many images of a series (by its UID) a DICOMDIR lists that are not here. A series with any is refused: a
        slice lost at the vertex or the base leaves no gap, and nothing else would tell.

    Returns
    -------
    Selection

    Raises
    ------
    Refusal
        The most telling reason of all series, if none can be analysed; GEOMETRY_MIXED if the candidates are of
        different patients or examinations; UNREADABLE if a damaged file could belong to any series.
    """
    if any(_could_belong_anywhere(header) and header.syntax != DEFLATED for header in headers):
        raise Refusal(
            Code.UNREADABLE,
            "A DICOM file is damaged or cut off, and could be part of the head CT; send the study again.",
        )
    missing = missing or {}
    candidates: list[Candidate] = []
    passed: list[tuple[SeriesSummary, Refusal]] = []
    for group in _groups(headers):
        # A listed image that is not said to be of any series may be of every one.
        outcome = _outcome(group, missing.get(group[0].series_uid, 0) + missing.get("", 0))
        if isinstance(outcome, Candidate):
            candidates.append(outcome)
        else:
            passed.append((_summary(group, outcome.reason), outcome))
    if not candidates:
        raise min((refusal for _, refusal in passed), key=lambda refusal: _TELLING.index(refusal.code))
    firsts = [candidate.stack.first for candidate in candidates]
    if len({(patient_key(h), h.study_uid) for h in firsts}) > 1:
        raise Refusal(
            Code.GEOMETRY_MIXED,
            "Head CTs of more than one patient or examination were given together; give one examination at a time.",
        )
    # A bone kernel triples the noise of brain and rings around the skull, where blood has to be told from it.
    bone = Refusal(Code.NO_AXIAL_SERIES, "Only images for bone were found (a sharp kernel); send those for brain.")
    sharp = [candidate for candidate in candidates if labels.is_sharp(candidate.stack.first)]
    candidates = [candidate for candidate in candidates if candidate not in sharp]
    if not candidates:
        raise bone
    passed += [(replace(candidate.summary, reason="Images for bone (a sharp kernel)."), bone) for candidate in sharp]
    broken = [refusal for _, refusal in passed if refusal.code in _BROKEN]
    notes = tuple(
        Note(code=Code.SERIES_CHOSEN, reason=f"Another CT series could not be used: {refusal.reason}")
        for refusal in broken
    )
    absent = sum(count for uid, count in missing.items() if uid not in {header.series_uid for header in headers})
    if absent:
        images = "1 image of another series" if absent == 1 else f"{absent} images of other series"
        reason = f"The DICOMDIR lists {images} that cannot be found."
        notes = (*notes, Note(code=Code.FILES_PASSED_OVER, reason=reason))
    return Selection(
        candidates=tuple(sorted(candidates, key=_preference)),
        passed_over=tuple(summary for summary, _ in passed),
        notes=notes,
    )


def chosen_note(candidates: Sequence[Candidate], chosen: Candidate) -> Note | None:
    """What to say when several series could have been analysed."""
    others = [candidate.kind for candidate in candidates if candidate is not chosen]
    if not others:
        return None
    reason = f"Several series could be analysed; the one with {chosen.kind} was, and not: {'; '.join(others)}."
    return Note(code=Code.SERIES_CHOSEN, reason=reason)


def _could_belong_anywhere(header: Header) -> bool:
    """Whether a file is cut off so early that it does not say which series it is of, and may be a slice of any.

    A file may also end between two elements, and then looks whole but for the pixels.
    """
    cut = header.damaged or not header.has_pixels
    return cut and not header.series_uid and header.modality in ("", "CT") and header.sop_class in ("", _CT_SOP)


def _groups(headers: Sequence[Header]) -> list[list[Header]]:
    """Images that belong together: of one series, and of one stack where a multi-frame series has several.

    A multi-frame file whose frames cannot be told apart may be a part of every stack of its series.
    """
    groups: dict[str, dict[str, list[Header]]] = {}
    for header in headers:
        groups.setdefault(header.series_uid, {}).setdefault(header.stack, []).append(header)
    for stacks in groups.values():
        whole = [header for header in stacks.get("", []) if header.damaged or header.sop_class in MULTIFRAME_CT]
        if whole and len(stacks) > 1:
            for stack, group in stacks.items():
                if stack:
                    group.extend(whole)
    return [group for stacks in groups.values() for group in stacks.values()]


def _outcome(group: list[Header], missing: int) -> Candidate | Refusal:
    try:
        candidate = _examine(group)
        if missing:
            images = "1 image" if missing == 1 else f"{missing} images"
            raise Refusal(Code.SLICE_GAP, f"The DICOMDIR lists {images} that cannot be found; give the whole medium.")
        _refuse_incomplete(group)
        return candidate
    except Refusal as refusal:
        return refusal


def _refuse_incomplete(group: list[Header]) -> None:
    """Refuse a series of which a file is not there that other files count on."""
    wholes: dict[str, list[Header]] = {}
    for header in group:
        if header.concatenation and (header.part or header.parts):
            wholes.setdefault(header.concatenation, []).append(header)
    for parts in wholes.values():
        there = {header.part or header.path for header in parts}  # a part sent twice is one part
        if len(there) < max(max(header.part or 0, header.parts or 0) for header in parts):
            raise Refusal(Code.SLICE_GAP, "The series is split over several files, and not all of them are here.")


def _examine(group: list[Header]) -> Candidate:
    """The candidate that the files of one series make. Raises Refusal with the reason where they make none."""
    fit: list[Header] = []
    reasons: list[Refusal] = []
    for header in group:
        refusal = _unfit(header)
        if refusal is None:
            fit.append(header)
        else:
            reasons.append(refusal)
    if not fit or any(refusal.code is Code.UNREADABLE for refusal in reasons):
        raise min(reasons, key=lambda refusal: _TELLING.index(refusal.code))
    if any(labels.names_another_body_part(header) for header in fit):
        raise Refusal(Code.NOT_HEAD, "The images are labelled as another part of the body.")
    if any(labels.has_contrast(header) for header in fit):
        raise Refusal(Code.CONTRAST, "A contrast agent was given; blood cannot be told from contrast.")
    if any(header.damaged for header in fit):
        raise Refusal(Code.UNREADABLE, "An image of the series is damaged or cut off; send the study again.")
    if len(fit) < MIN_SLICES and orientation_name(fit[0]) in ("axial", "unknown"):
        raise _too_few(len(fit))
    stack = arrange(fit)
    if len(stack.places) < MIN_SLICES:
        raise _too_few(len(stack.places))
    if stack.height < MIN_HEIGHT_MM - stack.spacing:
        raise Refusal(
            Code.COVERAGE, f"The stack is only {stack.height + stack.spacing:.0f} mm high; it does not cover a head."
        )
    refuse_undecodable(fit)
    return Candidate(stack=stack, summary=_summary(fit, ""), excluded=len(reasons))


def _too_few(count: int) -> Refusal:
    found = "only one slice" if count == 1 else f"only {count} slices"
    return Refusal(Code.TOO_FEW_SLICES, f"The series has {found}; at least {MIN_SLICES} are needed to cover a head.")


def _unfit(header: Header) -> Refusal | None:  # noqa: PLR0911 (a list of kinds, one line each)
    """Why one image cannot be a slice of the scan, or None."""
    if header.syntax == DEFLATED:
        return Refusal(Code.SYNTAX_UNSUPPORTED, "Deflated files are not opened: a small one can grow without limit.")
    kind = kind_of(header)
    if kind is not Kind.CT:
        other = kind in (Kind.MR, Kind.WAVEFORM, Kind.SEGMENTATION)
        other = other or (kind is Kind.OTHER and header.has_pixels and bool(header.modality))
        return Refusal(Code.NOT_CT if other else Code.PIXELS_MISSING, said_of(kind))
    if header.damaged:
        return None
    if header.sop_class.startswith(_CAPTURE_SOP) or labels.is_dose_page(header):
        return Refusal(Code.NO_AXIAL_SERIES, "Screen pictures or dose pages, not slices of the scan.")
    if labels.is_localizer(header):
        return Refusal(Code.NO_AXIAL_SERIES, "A localizer (scout), not slices of the scan.")
    if labels.is_derived(header):
        return Refusal(Code.NO_AXIAL_SERIES, "Computed images (reformats or projections), not slices of the scan.")
    if not header.has_pixels:
        if header.sop_class in ("", _CT_SOP) or header.rows is not None:
            return Refusal(Code.UNREADABLE, "An image has no pixels; the file is probably cut off.")
        return Refusal(Code.PIXELS_MISSING, "The files hold no images.")
    if header.frames > MAX_FRAMES:
        return Refusal(Code.TOO_LARGE, f"One file holds more than {MAX_FRAMES} images; a head CT has far fewer.")
    if header.frames != 1 or (header.sop_class in MULTIFRAME_CT and header.frame < 0):
        return Refusal(
            Code.PIXELS_MISSING, "Many slices are stored in one file, which does not say where each of them lies."
        )
    if (header.samples or 1) != 1 or header.photometric != "MONOCHROME2":
        return Refusal(Code.PIXELS_MISSING, "The images are not plain grey-scale CT slices (MONOCHROME2).")
    return None


def _summary(group: list[Header], reason: str) -> SeriesSummary:
    first = group[0]
    modality = first.modality if first.modality.isalpha() and len(first.modality) <= 16 else ""
    return SeriesSummary(modality=modality, slices=len(group), orientation=orientation_name(first), reason=reason)


def _preference(candidate: Candidate) -> tuple[bool, float, int, int, str]:
    """Sort key: whole head, slice distance near the reference, more slices; then what is stable."""
    stack = candidate.stack
    first = stack.first
    return (
        stack.height < WHOLE_HEIGHT_MM,
        round(abs(stack.spacing - REFERENCE_SPACING_MM), 1),
        -len(stack.places),
        first.series_number if first.series_number is not None else 2**31,
        first.series_uid,
    )
