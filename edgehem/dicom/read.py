"""The main flow of intake: scan -> select -> decode -> gates -> Study."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgehem.dicom import codec
from edgehem.dicom.archive import unpacked
from edgehem.dicom.decode import Pixels, decode
from edgehem.dicom.gates import pass_gates
from edgehem.dicom.geometry import Stack
from edgehem.dicom.patient import age_years
from edgehem.dicom.scan import Scan, scan
from edgehem.dicom.select import Candidate, Selection, chosen_note, select
from edgehem.dicom.study import SeriesSummary, Study
from edgehem.errors import Code, Refusal
from edgehem.result import Note
from edgehem.volume import Volume

ADULT_YEARS = 18.0
COARSE_STEP_HU = 4.0
"""Grey and white matter differ by 5 to 10 HU. Scanners store steps of 1; exports of 8 bits have 8 to 16."""
TILT_SAID_FROM_DEG = 0.5
"""A smaller tilt displaces no voxel of a head by more than half a millimetre per slice."""


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read the head CT at a place: find its files, choose its series, decode it, and make sure of what it shows.

    Parameters
    ----------
    path : str or PathLike
        A folder (searched with its subfolders; other files and series may lie beside the scan), a zip file, a
        DICOMDIR, or one DICOM file.

    Returns
    -------
    Study
        The chosen series, with a note for everything that a person should know about the choice.

    Raises
    ------
    UsageError
        If there is nothing at ``path``.
    Refusal
        If the data cannot be analysed, whatever is wrong with it; ``code`` and ``reason`` say why.
    """
    start = time.perf_counter()
    with unpacked(Path(path)) as place:
        return _read(place, start)


def _read(place: Path, start: float) -> Study:
    """The study at a folder or in a file; ``start`` is when reading began, s of ``time.perf_counter``."""
    found = scan(place)
    scanned = time.perf_counter()
    selection = select(found.headers, found.missing)
    selected = time.perf_counter()
    chosen, pixels, volume, digest, not_heads, seen = _first_head(selection)
    decoded = time.perf_counter()

    age = age_years(chosen.stack.first)
    notes = [
        *selection.notes,
        *_notes_on_choice(selection, chosen, not_heads, found.strangers),
        *_notes_on_images(chosen.stack, pixels, volume, age),
        *seen,
    ]
    others = [c.summary for c in selection.candidates if c is not chosen and c not in not_heads]
    return Study(
        volume=volume,
        digest=digest,
        notes=tuple(notes),
        series=(
            chosen.summary,
            *(replace(other, reason="Could be analysed; another series was preferred.") for other in others),
            *(replace(candidate.summary, reason="The images do not show a head.") for candidate in not_heads),
            *selection.passed_over,
            *_beside(found),
        ),
        age_years=age,
        timings_ms={
            "read": round((scanned - start) * 1e3, 3),
            "select": round((selected - scanned) * 1e3, 3),
            "decode": round((decoded - selected) * 1e3, 3),
        },
    )


def _first_head(selection: Selection) -> tuple[Candidate, Pixels, Volume, str, list[Candidate], list[Note]]:
    """Decode candidates until one shows a head. Returns it with those before it, which did not, and what it shows."""
    not_heads: list[Candidate] = []
    refusals: list[Refusal] = []
    for candidate in selection.candidates:
        pixels = decode(candidate.stack)
        volume = _volume(candidate.stack, pixels)
        # Hashing runs outside of the interpreter lock, beside the gates.
        with ThreadPoolExecutor(max_workers=1) as pool:
            digest = pool.submit(_digest, volume)
            try:
                seen = pass_gates(volume)
            except Refusal as refusal:
                if refusal.code is not Code.NOT_HEAD:
                    raise
                not_heads.append(candidate)
                refusals.append(refusal)
                continue
        return candidate, pixels, volume, digest.result(), not_heads, seen
    raise refusals[0]


def _beside(found: Scan) -> list[SeriesSummary]:
    """What is no DICOM series and yet no stranger: masks or conversions that lie beside the scan."""
    count = len(found.nifti)
    reason = "NIfTI images or masks; they are not read with a CT."
    return [SeriesSummary(modality="NIFTI", slices=count, orientation="unknown", reason=reason)] if count else []


def _volume(stack: Stack, pixels: Pixels) -> Volume:
    return Volume(
        pixels=pixels.stored,
        slope=pixels.slope,
        intercept=pixels.intercept,
        origin=stack.origin,
        row_cosines=stack.row_cosines,
        column_cosines=stack.column_cosines,
        pixel_spacing=stack.pixel_spacing,
        padding=pixels.padding,
    )


def _digest(volume: Volume) -> str:
    """SHA-256 (hex) over everything that an analysis depends on, in little-endian byte order."""
    digest = hashlib.sha256()
    geometry = [*volume.origin.ravel(), *volume.row_cosines, *volume.column_cosines, *volume.pixel_spacing]
    digest.update(np.array([*volume.pixels.shape, *(volume.padding or ())], dtype="<i8").tobytes())
    digest.update(np.array(geometry, dtype="<f8").tobytes())
    digest.update(np.concatenate([volume.slope, volume.intercept]).astype("<f4").tobytes())
    digest.update(volume.pixels.astype("<i2", copy=False).data.cast("B"))
    return digest.hexdigest()


def _notes_on_choice(selection: Selection, chosen: Candidate, not_heads: list[Candidate], strangers: int) -> list[Note]:
    """What a person should know about the files and series that were not used."""
    notes = []
    usable = [candidate for candidate in selection.candidates if candidate not in not_heads]
    if note := chosen_note(usable, chosen):
        notes.append(note)
    if strangers:
        count = "1 file is" if strangers == 1 else f"{strangers} files are"
        notes.append(Note(code=Code.FILES_PASSED_OVER, reason=f"{count} not DICOM and had to be left out."))
    if chosen.excluded:
        count = "1 image" if chosen.excluded == 1 else f"{chosen.excluded} images"
        reason = f"{count} in the series' files are not slices of the scan and had to be left out."
        notes.append(Note(code=Code.FILES_PASSED_OVER, reason=reason))
    return notes


def _notes_on_images(stack: Stack, pixels: Pixels, volume: Volume, age: float | None) -> list[Note]:
    """What a person should know about the images that were used."""
    headers = [header for place in stack.places for header in place]
    said: list[tuple[bool, Code, str]] = [
        (
            volume.tilt_deg > TILT_SAID_FROM_DEG,
            Code.TILT_CORRECTED,
            f"The gantry was tilted by {volume.tilt_deg:.1f}°; every slice is analysed at its own position.",
        ),
        (
            stack.variable,
            Code.SPACING_VARIABLE,
            f"The slice distance changes between {np.diff(stack.distances).min():.1f} and "
            f"{np.diff(stack.distances).max():.1f} mm; every slice is analysed at its own position.",
        ),
        (
            pixels.copies_dropped > 0,
            Code.DUPLICATES_DROPPED,
            f"{pixels.copies_dropped} images were copies of others and were left out.",
        ),
        (pixels.padding is not None, Code.PADDING, "Pixels outside of the field of view were masked."),
        (
            all(header.intercept == 0 for header in headers),
            Code.INTERCEPT_ZERO,
            "The rescale intercept is 0; pixel values were taken as Hounsfield units, and air fits them.",
        ),
        (
            volume.slope.max() > COARSE_STEP_HU,
            Code.COARSE_VALUES,
            f"Grey values lie {volume.slope.max():.1f} Hounsfield units apart: small differences are lost.",
        ),
        (
            any(header.lossy == "01" or header.syntax in codec.LOSSY for header in headers),
            Code.LOSSY,
            "The images went through lossy compression.",
        ),
        (
            age is not None and age < ADULT_YEARS,
            Code.AGE_UNDER_18,
            "The patient is younger than 18 years; the model was made for adults.",
        ),
    ]
    return [Note(code=code, reason=reason) for applies, code, reason in said if applies]
