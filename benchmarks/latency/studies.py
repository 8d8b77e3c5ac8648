"""The studies that cases are measured on: phantoms, written to disk."""

from __future__ import annotations

from pathlib import Path

THIN_FROM = 100
"""Slices; a helical scan in thin ones has no gantry tilt."""


def study(scratch: Path, slices: int, compressed: bool) -> Path:
    """A bleeding phantom of 512 × 512 slices.

    Parameters
    ----------
    scratch : Path
        Where it is written, or lies already.
    slices : int
        None for a case that needs no study.
    compressed : bool
        RLE lossless.

    Returns
    -------
    Path
        Folder of its files; an empty one where there are no slices.
    """
    place = scratch / f"{slices}{'-rle' if compressed else ''}"
    folder = place / "dicom"
    if folder.exists():
        return folder
    if not slices:
        folder.mkdir(parents=True)
        return folder
    from edgehem.phantom import Bleed, Protocol, write_study

    protocol = Protocol(slices=slices, tilt_deg=0.0 if slices >= THIN_FROM else 15.0, variable_spacing=False)
    write_study(place, seed=11, bleeds=(Bleed(subtype="intraparenchymal", ml=25.0),), protocol=protocol)
    if compressed:
        for path in folder.iterdir():
            _compress(path)
    return folder


def _compress(path: Path) -> None:
    """Rewrite a file in RLE lossless, which pydicom itself can write."""
    import pydicom
    from pydicom.uid import RLELossless

    ds = pydicom.dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path)
