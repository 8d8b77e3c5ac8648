"""Real files, where they are at hand ($EDGEHEM_TEST_DATA)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

from defects.given import CANARY, Family, Given, save
from edgehem.errors import Code

REAL = Family("real files", real=True)
refused, flagged, read_right = REAL.refused, REAL.flagged, REAL.read_right

LOSSLESS = {
    "1.2.840.10008.1.2": "implicit VR",
    "1.2.840.10008.1.2.1": "explicit VR",
    "1.2.840.10008.1.2.2": "big endian",
    "1.2.840.10008.1.2.5": "RLE",
}
"""Those that need no codec beside pydicom's own."""
REFUSED = {
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.4.50": "lossy JPEG of 8 bits",
    "1.2.840.10008.1.2.4.51": "lossy JPEG of 12 bits",
    "1.2.840.10008.1.2.4.53": "a retired JPEG",
    "1.2.840.10008.1.2.4.55": "another retired JPEG",
}


def _stack(given: Given, name: str) -> list[Path]:
    """One real slice of a chest as a stack of twenty."""
    assert given.data is not None
    files = []
    for i in range(20):
        ds: FileDataset = pydicom.dcmread(given.data / "ct_syntaxes" / f"{name}.dcm", force=True)
        ds.ImagePositionPatient = [-150, -150, 6.0 * i]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.{i}"[:64]
        for keyword in ("BodyPartExamined", "SeriesDescription", "StudyDescription", "ContrastBolusAgent"):
            if keyword in ds:
                delattr(ds, keyword)
        files.append(save(ds, given.folder / f"{CANARY}_{i:04d}.dcm"))
    given.written = True
    return files


for _uid, _what in LOSSLESS.items():

    @refused(Code.NOT_HEAD, f"a real chest, {_what}", "the wrong examination was sent, without a label")
    def _(given: Given, uid: str = _uid) -> None:
        _stack(given, uid)


for _uid, _what in REFUSED.items():

    @refused(Code.SYNTAX_UNSUPPORTED, f"a real chest, {_what}", "values that cannot be trusted")
    def _(given: Given, uid: str = _uid) -> None:
        _stack(given, uid)


@refused(Code.PIXELS_MISSING, "a real report", "the images were not sent")
def _(given: Given) -> Path:
    return _alone(given, "no-pixel-data")


@refused(Code.NOT_CT, "a real image without a modality, cut off", "a transfer interrupted")
def _(given: Given) -> Path:
    return _alone(given, "no-pixel-spacing")


def _alone(given: Given, name: str) -> Path:
    assert given.data is not None
    given.written = True
    return Path(shutil.copy(given.data / "ct_syntaxes" / f"{name}.dcm", given.folder / f"{CANARY}.dcm"))


def _head(given: Given) -> list[Path]:
    assert given.data is not None
    files = sorted((given.data / "ct_head_tilt").glob("*.dcm"))
    given.written = True
    return [Path(shutil.copy(file, given.folder / f"{CANARY}_{file.name}")) for file in files]


@flagged(
    Code.TILT_CORRECTED, Code.SPACING_VARIABLE, Code.PADDING, Code.INTERCEPT_ZERO,
    name="a real head, tilted and of variable spacing", cause="usual",
)  # fmt: skip
def _(given: Given) -> None:
    _head(given)


@refused(Code.SLICE_GAP, "a real head with a slice lost", "a transfer interrupted")
def _(given: Given) -> None:
    _head(given)[20].unlink()


@refused(Code.UNREADABLE, "a real head with a slice cut off", "a transfer interrupted")
def _(given: Given) -> None:
    file = _head(given)[20]
    file.write_bytes(file.read_bytes()[:-100_000])


@flagged(
    Code.TILT_CORRECTED, Code.PADDING, Code.INTERCEPT_ZERO, Code.COVERAGE_PARTIAL,
    name="a real head's upper 84 mm", cause="a scan stopped, or a part of it sent",
)  # fmt: skip
def _(given: Given) -> None:
    for file in _head(given)[:16]:
        file.unlink()


@flagged(
    Code.TILT_CORRECTED, Code.SPACING_VARIABLE, Code.PADDING, Code.INTERCEPT_ZERO, Code.COVERAGE_PARTIAL,
    name="a real head without its vertex", cause="a scan stopped, or a part of it sent",
)  # fmt: skip
def _(given: Given) -> None:
    for file in _head(given)[20:]:
        file.unlink()
