"""Synthetic CT series as DICOM files: a simple head, a torso with lungs, and a writer that tests can bend."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

Hu = npt.NDArray[np.float64]
Change = Callable[[FileDataset, int], None]

SECRET = "ZZSECRET"
"""Stands in every identifying or free-text field of the series written here; must never appear in a message."""


def _grid(size: int, spacing: float) -> tuple[Hu, Hu]:
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    return np.meshgrid(axis, axis, indexing="ij")  # y, x in mm


def make_head(
    *,
    slices: int = 28,
    size: int = 128,
    spacing: float = 2.0,
    step: float = 5.0,
    neck_mm: float = 25.0,
    headrest: bool = False,
) -> Hu:
    """A head from the neck to the vertex, HU [Z, Y, X]."""
    rng = np.random.default_rng(7)
    y, x = _grid(size, spacing)
    out = np.full((slices, size, size), -1000.0)
    for i, image in enumerate(out):
        z = i * step
        if headrest:
            shell = (np.abs(np.hypot(x / 105, y / 112) - 1) < 0.05) & (y > -20)
            image[shell] = 150.0
        if z < neck_mm:
            image[np.hypot(x / 60, y / 65) < 1] = 50.0
            image[np.hypot(x, y - 20) < 18] = 700.0
            image[np.hypot(x / 10, (y + 25) / 8) < 1] = -1000.0
            continue
        top = slices * step - 10
        scale = np.sqrt(max(0.0, 1 - (max(0.0, z - 60) / max(1.0, top - 60)) ** 2))
        if scale * 70 < 4:
            continue
        r = np.hypot(x / (70 * scale), y / (90 * scale))
        rim = 7.0 / (70 * scale)
        image[r < 1 + 5 / (70 * scale)] = 45.0
        image[r < 1] = 1100.0
        image[r < 1 - rim] = 32.0
        image[(np.hypot(x / 12, y / 25) < 1) & (r < 0.6)] = 8.0
    return out + rng.normal(0, 4, out.shape)


def make_torso(slices: int = 28, size: int = 128, spacing: float = 3.2) -> Hu:
    """A chest with lungs, ribs and spine, HU [Z, Y, X]."""
    rng = np.random.default_rng(8)
    y, x = _grid(size, spacing)
    image = np.full((size, size), -1000.0)
    wall = np.hypot(x / 170, y / 115)
    image[wall < 1] = 45.0
    angle = np.arctan2(y, x)
    image[(np.abs(wall - 0.88) < 0.04) & (np.sin(9 * angle) > 0)] = 700.0
    for side in (-1, 1):
        image[np.hypot((x - side * 75) / 55, y / 80) < 1] = -830.0
    image[np.hypot(x, y - 75) < 18] = 600.0
    return np.stack([image] * slices) + rng.normal(0, 8, (slices, size, size))


@dataclass
class Spec:
    """How a series is written. The defaults make a plain, clean head CT."""

    step: float = 5.0
    spacing: tuple[float, float] = (2.0, 2.0)
    tilt_deg: float = 0.0
    distances: Sequence[float] | None = None
    intercept: float = -1024.0
    slope: float = 1.0
    bits: int = 16
    signed: bool = True
    syntax: UID = ExplicitVRLittleEndian
    series: int = 1
    tags: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    stored: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]] | None = None


def write_series(folder: Path, hu: Hu, spec: Spec | None = None) -> list[Path]:
    """Write one file a slice; returns them in the order of the slices."""
    spec = spec or Spec()
    folder.mkdir(parents=True, exist_ok=True)
    kind = np.dtype("<i2" if spec.signed else "<u2") if spec.bits > 8 else np.dtype("i1" if spec.signed else "u1")
    low, high = (-(1 << spec.bits - 1), (1 << spec.bits - 1) - 1) if spec.signed else (0, (1 << spec.bits) - 1)
    tilt = np.radians(spec.tilt_deg)
    distances = spec.distances if spec.distances is not None else [i * spec.step for i in range(len(hu))]
    files = []
    for i, (image, distance) in enumerate(zip(hu, distances, strict=True)):
        stored = np.clip(np.rint((image - spec.intercept) / spec.slope), low, high).astype(np.int64)
        if spec.stored is not None:
            stored = spec.stored(stored)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.{spec.series}.{i + 1}")
        meta.TransferSyntaxUID = spec.syntax
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Modality = "CT"
        ds.PatientName, ds.PatientID, ds.AccessionNumber = f"{SECRET}^NAME", f"{SECRET}1", SECRET
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.9", f"1.2.3.9.{spec.series}"
        ds.SeriesNumber, ds.InstanceNumber = spec.series, len(hu) - i
        ds.SliceThickness = spec.step
        # A tilted gantry: the table still advances along z, so the origin shifts within the slices' plane.
        ds.ImagePositionPatient = [-128, -128, round(distance / np.cos(tilt), 6)]
        ds.ImageOrientationPatient = [1, 0, 0, 0, round(float(np.cos(tilt)), 7), round(float(-np.sin(tilt)), 7)]
        ds.PixelSpacing = list(spec.spacing)
        ds.Rows, ds.Columns = image.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = kind.itemsize * 8
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = spec.bits, spec.bits - 1, int(spec.signed)
        ds.RescaleIntercept, ds.RescaleSlope = spec.intercept, spec.slope
        for keyword, value in spec.tags.items():
            setattr(ds, keyword, value)
        raw = (stored & ((1 << kind.itemsize * 8) - 1)).astype(f"u{kind.itemsize}")
        # Stored as bytes in the order of the file: pydicom writes Pixel Data as it is given.
        order = "<" if spec.syntax.is_little_endian else ">"
        ds.PixelData = raw.astype(raw.dtype.newbyteorder(order)).tobytes()
        ds["PixelData"].VR = "OW" if kind.itemsize == 2 else "OB"
        if spec.change is not None:
            spec.change(ds, i)
        file = folder / f"s{spec.series}_{(i * 17) % 97:02d}_{i:03d}.dcm"
        pydicom.dcmwrite(
            file,
            ds,
            implicit_vr=spec.syntax == ImplicitVRLittleEndian,
            little_endian=bool(spec.syntax.is_little_endian),
            enforce_file_format=False,
        )
        files.append(file)
    return files


@pytest.fixture(scope="session")
def head() -> Hu:
    """A head, HU [28, 128, 128], 5 mm × 2 mm × 2 mm."""
    return make_head()


@pytest.fixture(scope="session")
def torso() -> Hu:
    """A chest, HU [28, 128, 128], to be written with 3.2 mm pixels."""
    return make_torso()


@pytest.fixture
def spec() -> type[Spec]:
    """The class that describes how a series is written."""
    return Spec


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write a series into the test's study folder."""

    def into_study(hu: Hu, spec: Spec | None = None) -> list[Path]:
        return write_series(tmp_path / "study", hu, spec)

    return into_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The test's study folder."""
    folder = tmp_path / "study"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def heads() -> Callable[..., Hu]:
    """The maker of heads, for tests that need another one."""
    return make_head


@pytest.fixture
def secret() -> str:
    """The text that must not appear in any message."""
    return SECRET


@pytest.fixture
def test_data() -> Path:
    """The folder of real data, or a skip that says why."""
    place = os.environ.get("EDGEHEM_TEST_DATA")
    if not place:
        pytest.skip("EDGEHEM_TEST_DATA is not set: the real data is not at hand")
    return Path(place)


@pytest.fixture(scope="session")
def small_writer() -> Callable[[Path], list[Path]]:
    """Write a head of 14 slices of 32 × 32 pixels, which read_study accepts, into a folder."""

    def small(folder: Path) -> list[Path]:
        hu = make_head(slices=14, size=32, spacing=8.0, step=10.0)
        return write_series(folder, hu, Spec(step=10.0, spacing=(8.0, 8.0)))

    return small
