"""Phantoms: the same seed gives the same study, and the truth that is written is the truth."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from scipy.ndimage import binary_dilation

from edgehem.dicom import read_study
from edgehem.errors import UsageError
from edgehem.phantom import LABELS, SUBTYPES, Bleed, Case, Protocol, draw_bleeds, make_case, write_cohort, write_study
from edgehem.phantom.anatomy import Anatomy, synthesise
from edgehem.phantom.bleeds import Bled
from edgehem.phantom.cases import MIN_LABEL_ML, scan_case
from edgehem.phantom.couch import Couch
from edgehem.phantom.files import cohort_case, to_dicom, write_case, write_nifti
from edgehem.phantom.gantry import acquire
from edgehem.phantom.head import draw_head
from edgehem.phantom.hematoma import bleed, place, side_of
from edgehem.phantom.optics import Optics
from edgehem.phantom.scan import Scan
from edgehem.phantom.tissue import Kind
from edgehem.volume import Volume

VOXEL_MM = 2.5
TINY = Protocol(slices=12, matrix=64)
FINE = Protocol(slices=34, thickness_mm=5.0, tilt_deg=0.0, variable_spacing=False, matrix=128)
MASSES = ("epidural", "intraparenchymal", "subdural")
LEFT, RIGHT = 3, 5
"""Seeds whose blood lies on that side."""


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """One head, at the resolution all tests here share."""
    return synthesise(draw_head(11), VOXEL_MM)


def put(anatomy: Anatomy, item: Bleed, seed: int) -> Bled:
    return bleed(anatomy, [place(anatomy, item, seed, 0)])


@pytest.fixture(scope="module")
def bled(anatomy: Anatomy) -> Callable[[str, float], Bled]:
    """The head after one hemorrhage; each is made once."""
    made: dict[tuple[str, float], Bled] = {}

    def get(subtype: str, ml: float) -> Bled:
        if (subtype, ml) not in made:
            made[subtype, ml] = put(anatomy, Bleed(subtype=subtype, ml=ml), LEFT)
        return made[subtype, ml]

    return get


@pytest.fixture(scope="module")
def case(anatomy: Anatomy) -> Case:
    """A tilted, unevenly spaced study with a parenchymal and a ventricular hemorrhage."""
    bleeds = (Bleed(subtype="intraparenchymal", ml=25), Bleed(subtype="intraventricular", ml=9))
    return scan_case(
        anatomy, LEFT, bleeds=bleeds, protocol=replace(TINY, slices=20, tilt_deg=17.0, variable_spacing=True)
    )


def digest(case: Case) -> str:
    parts = (case.volume.pixels, case.volume.origin, case.volume.column_cosines, case.mask)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def shares(anatomy: Anatomy, bled: Bled, subtype: str) -> npt.NDArray[np.float32]:
    """Share of blood in every voxel inside the skull, [N], in the order of the anatomy's tissue."""
    return bled.coverage[subtype].reshape(-1)[anatomy.tissue.index]


# Seeds


def test_the_same_seed_gives_the_same_bytes() -> None:
    bleeds = (Bleed(subtype="subdural", ml=20),)
    first, again = (make_case(5, bleeds=bleeds, protocol=TINY, voxel_mm=4.0) for _ in range(2))
    assert digest(first) == digest(again)
    assert first.scan == again.scan and first.ml == again.ml
    assert digest(make_case(6, bleeds=bleeds, protocol=TINY, voxel_mm=4.0)) != digest(first)


def test_cases_that_share_a_head_differ_in_blood_alone(anatomy: Anatomy) -> None:
    """The same head, scan and noise with and without blood that pushes nothing: only blood and its rim differ."""
    without = scan_case(anatomy, RIGHT, bleeds=(), protocol=TINY)
    with_blood = scan_case(anatomy, RIGHT, bleeds=(Bleed(subtype="intraventricular", ml=12),), protocol=TINY)
    assert with_blood.scan == without.scan
    blood = with_blood.mask > 0
    # Noise and hardening follow what the rays cross: blood changes them by a few HU.
    changed = np.abs(with_blood.volume.pixels.astype(int) - without.volume.pixels) > 5
    assert changed[blood].mean() > 0.9
    assert not changed[~binary_dilation(blood, np.ones((3, 9, 9)))].any()
    assert not without.mask.any()


def test_building_blood_does_not_change_the_head(anatomy: Anatomy) -> None:
    before = hashlib.sha256(anatomy.hu.tobytes()).hexdigest()
    put(anatomy, Bleed(subtype="intraparenchymal", ml=40), RIGHT)
    assert hashlib.sha256(anatomy.hu.tobytes()).hexdigest() == before


# Volumes and densities


@pytest.mark.parametrize("ml", [1.0, 12.0, 60.0])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_the_stated_volume_is_reached(
    subtype: str, ml: float, anatomy: Anatomy, bled: Callable[[str, float], Bled]
) -> None:
    """Within 2 %, by the voxels themselves; subarachnoid blood may find less room, none takes more than was asked."""
    result = bled(subtype, ml)
    counted = float(result.coverage[subtype].sum(dtype=np.float64)) * anatomy.voxel_ml
    assert counted == pytest.approx(result.ml[subtype], rel=1e-6)
    assert counted <= ml * 1.001
    if subtype != "subarachnoid":
        assert counted >= ml * 0.98


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_blood_has_the_density_of_fresh_blood(subtype: str, bled: Callable[[str, float], Bled]) -> None:
    """Clotted blood measures 45 to 95 HU; where a voxel is all blood, nothing of what was there before shows."""
    result = bled(subtype, 12.0)
    full = result.hu[result.coverage[subtype] > 0.98]
    if not full.size:
        pytest.fail(f"no voxel is full of {subtype} blood")
    assert 45 < full.mean() < 95
    assert np.percentile(full, 2) > 35 and np.percentile(full, 98) < 105


@pytest.mark.parametrize("subtype", MASSES)
def test_the_mask_shows_the_volume_on_the_slices(subtype: str, anatomy: Anatomy) -> None:
    """Counted on 5 mm slices, blood is within a tenth of the truth, though its rim is only partly blood."""
    made = scan_case(anatomy, LEFT, bleeds=(Bleed(subtype=subtype, ml=45),), protocol=FINE)
    row_mm, column_mm = made.volume.pixel_spacing
    counted = int((made.mask > 0).sum()) * row_mm * column_mm * made.volume.slice_spacing / 1000
    assert counted == pytest.approx(45, rel=0.1)
    assert set(np.unique(made.mask)) == {0, 1 + SUBTYPES.index(subtype)}


@pytest.mark.parametrize("wrong", [{"subtype": "cerebral", "ml": 5}, {"subtype": "subdural", "ml": 0}])
def test_impossible_hemorrhages_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Bleed(**wrong)


# Places


@pytest.mark.parametrize("ml", [12.0, 60.0])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_no_blood_lies_outside_the_skull(
    subtype: str, ml: float, anatomy: Anatomy, bled: Callable[[str, float], Bled]
) -> None:
    coverage = bled(subtype, ml).coverage[subtype].copy()
    coverage.reshape(-1)[anatomy.tissue.index] = 0
    assert not coverage.any()


@pytest.mark.parametrize("subtype", ["epidural", "subdural"])
@pytest.mark.parametrize("ml", [20.0, 60.0])
def test_extradural_and_subdural_blood_lies_on_the_inner_table(
    subtype: str, ml: float, anatomy: Anatomy, bled: Callable[[str, float], Bled]
) -> None:
    """It touches the bone, fills inwards without a gap, and a subdural is wider along the bone than an epidural."""
    share, tissue = shares(anatomy, bled(subtype, ml), subtype), anatomy.tissue
    blood = share > 0.5
    assert tissue.depth[blood].min() < VOXEL_MM / 2
    assert tissue.depth[blood].max() < 45
    depth = np.average(tissue.depth[blood], weights=share[blood])
    assert depth < 15
    other = {"epidural": "subdural", "subdural": "epidural"}[subtype]
    shallower = np.average(tissue.depth, weights=shares(anatomy, bled(other, ml), other)) > depth
    assert shallower == (subtype == "subdural")


def test_ventricular_blood_lies_in_the_ventricles(anatomy: Anatomy, bled: Callable[[str, float], Bled]) -> None:
    share = shares(anatomy, bled("intraventricular", 12.0), "intraventricular")
    assert share[anatomy.tissue.kind == Kind.VENTRICLE].sum() > 0.9 * share.sum()


def test_subarachnoid_blood_lies_in_fluid_spaces(anatomy: Anatomy, bled: Callable[[str, float], Bled]) -> None:
    share = shares(anatomy, bled("subarachnoid", 12.0), "subarachnoid")
    # Closed sulci hold some too: their voxels are mostly brain.
    assert share[anatomy.tissue.kind == Kind.SUBARACHNOID].sum() > 0.75 * share.sum()
    assert (anatomy.tissue.fluid[share > 0.05] > 0.1).all()


def test_parenchymal_blood_lies_in_the_brain_in_one_piece(anatomy: Anatomy, bled: Callable[[str, float], Bled]) -> None:
    """Not in ventricles, dura or canal, and within two radii of its own middle."""
    share, tissue = shares(anatomy, bled("intraparenchymal", 12.0), "intraparenchymal"), anatomy.tissue
    assert not share[np.isin(tissue.kind, [Kind.VENTRICLE, Kind.DURA, Kind.CANAL])].any()
    points = np.stack([tissue.x, tissue.y, tissue.z], axis=1)[share > 0.5]
    radius = (3 * 12_000 / (4 * np.pi)) ** (1 / 3)
    assert np.linalg.norm(points - points.mean(axis=0), axis=1).max() < 2 * radius


@pytest.mark.parametrize(("seed", "side"), [(LEFT, 1), (RIGHT, -1)])
@pytest.mark.parametrize("subtype", MASSES)
def test_left_stays_left(subtype: str, seed: int, side: int, anatomy: Anatomy) -> None:
    """From the head to the pixels: blood of the left lies at larger x (LPS) than the head's middle."""
    assert side_of(seed) == side
    made = scan_case(anatomy, seed, bleeds=(Bleed(subtype=subtype, ml=50),), protocol=TINY)
    volume = made.volume
    _, _, columns = np.nonzero(made.mask)
    x = volume.origin[0, 0] + columns.mean() * volume.pixel_spacing[1] * volume.row_cosines[0]
    assert (x - anatomy.head.offset[0]) * side > 5


@pytest.mark.parametrize("tilt", [-18.0, 0.0, 18.0])
def test_pixels_lie_where_the_geometry_says(
    tilt: float, anatomy: Anatomy, points_of: Callable[[Volume], npt.NDArray[np.float64]]
) -> None:
    """A block whose density rises evenly shows at each pixel the density of its place, whatever the blur."""
    positions = (-60.0, -31.0, 0.0, 4.0, 33.3, 51.0)
    scan = Scan(
        seed=1, positions=positions, thickness_mm=(4.0,) * 6, tilt_deg=tilt, matrix=64, fov_mm=150.0,
        noise_hu=0, streaks=0, drift_hu=0,
    )  # fmt: skip
    slopes = (2.0, -1.5, 1.1)  # HU per mm along x, y, z
    z, y, x = anatomy.axes
    even = slopes[2] * z[:, None, None] + slopes[1] * y[None, :, None] + slopes[0] * x[None, None]
    optics = Optics(hardening=0.0, soft_profile=0.4)
    volume = acquire(anatomy, np.asarray(even, np.float32), {}, scan, optics, Couch()).volume
    assert volume.tilt_deg == pytest.approx(abs(tilt), abs=1e-6)
    np.testing.assert_allclose(volume.distances, positions, atol=1e-6)
    stored = volume.pixels + volume.intercept[:, None, None]
    np.testing.assert_allclose(stored, points_of(volume) @ np.array(slopes), atol=1.5)


def test_drawn_hemorrhages_follow_their_bounds() -> None:
    """Every subtype comes first about equally often; volumes stay within the bounds."""
    drawn = [draw_bleeds(seed) for seed in range(400)]
    firsts = [bleeds[0].subtype for bleeds in drawn]
    assert all(firsts.count(name) > 40 for name in SUBTYPES)
    assert all(2 <= item.ml <= 60 for bleeds in drawn for item in bleeds)
    assert {len(bleeds) for bleeds in drawn} == {1, 2}
    assert draw_bleeds(7) == drawn[7]


def test_labels_follow_the_volume_inside_the_scanned_slices(case: Case) -> None:
    assert case.labels == {
        "any": 1, "epidural": 0, "intraparenchymal": 1, "intraventricular": 1, "subarachnoid": 0, "subdural": 0,
    }  # fmt: skip
    trace = replace(case, visible_ml={"subdural": MIN_LABEL_ML / 2})
    assert not any(trace.labels.values())
    unseen = replace(case, visible_ml={"subdural": 0.0})
    assert unseen.ml["intraparenchymal"] > MIN_LABEL_ML and not any(unseen.labels.values())


# Files


def check_read_back(case: Case, folder: Path) -> list[pydicom.FileDataset]:
    """pydicom sees the stored values and the place of every slice."""
    files = [pydicom.dcmread(path) for path in sorted((folder / "dicom").iterdir())]
    volume = case.volume
    assert len(files) == len(volume.pixels)
    for i, file in enumerate(files):
        np.testing.assert_array_equal(file.pixel_array, volume.pixels[i])
        assert [float(c) for c in file.ImagePositionPatient] == pytest.approx(volume.origin[i].tolist(), abs=1e-6)
        cosines = [*volume.row_cosines, *volume.column_cosines]
        assert [float(c) for c in file.ImageOrientationPatient] == pytest.approx(cosines, abs=1e-9)
        assert [float(s) for s in file.PixelSpacing] == pytest.approx(volume.pixel_spacing, abs=1e-9)
        assert float(file.RescaleIntercept) == volume.intercept[i] and float(file.RescaleSlope) == 1
        assert float(file.SliceThickness) == pytest.approx(case.scan.thickness_mm[i])
    return files


def test_what_is_written_is_what_was_made(case: Case, tmp_path: Path) -> None:
    """By pydicom, and by edgehem's own reader, which gives back the very same volume."""
    truth = write_case(case, tmp_path)
    files = check_read_back(case, tmp_path)
    assert len({file.SOPInstanceUID for file in files}) == len(files)
    assert len({(file.StudyInstanceUID, file.SeriesInstanceUID) for file in files}) == 1
    assert all("ynthetic" in file.ImageComments for file in files)
    read = read_study(tmp_path / "dicom").volume
    np.testing.assert_array_equal(read.pixels, case.volume.pixels)
    np.testing.assert_allclose(read.origin, case.volume.origin, atol=1e-6)
    assert read.tilt_deg == pytest.approx(17, abs=0.01)

    assert json.loads((tmp_path / "truth.json").read_text(encoding="utf-8")) == truth
    assert truth["synthetic"] is True
    for value, name in truth["mask_values"].items():
        slices = np.flatnonzero((case.mask == int(value)).any(axis=(1, 2))).tolist()
        assert truth["slices_with_blood"].get(name, []) == slices


@pytest.mark.parametrize(
    ("quirk", "signed", "stored"),
    [
        ({"intercept": -1024, "bits": 12}, 0, 12),
        ({"intercept": -1024, "bits": 16}, 0, 16),
        ({"intercept": 0, "bits": 16}, 1, 16),
        ({"intercept": 0, "bits": 16, "padding": -2000}, 1, 16),
        ({"intercept": -1024, "bits": 12, "padding": 0}, 0, 12),
        ({"intercept": -1024, "bits": 12, "padding": -2000}, 1, 16),
    ],
)
def test_vendors_habits_survive_the_file(
    quirk: dict[str, Any], signed: int, stored: int, anatomy: Anatomy, tmp_path: Path
) -> None:
    """Signed and unsigned values, intercepts, padding: the file announces what it holds."""
    made = scan_case(anatomy, 9, bleeds=(), protocol=replace(TINY, **quirk))
    write_case(made, tmp_path)
    for file in check_read_back(made, tmp_path):
        assert (file.PixelRepresentation, file.BitsStored) == (signed, stored)
        assert file.get("PixelPaddingValue") == quirk.get("padding")
    corner = made.volume.pixels[:, 0, 0]
    if (padding := quirk.get("padding")) is not None:
        assert (corner == padding).all()
        assert made.volume.padding == (padding, padding)
    else:
        np.testing.assert_allclose(corner + quirk["intercept"], -1000, atol=60)


def test_values_below_the_intercept_are_written_as_signed(case: Case) -> None:
    """Noise may carry air below -1024 HU on a scanner of 16 bits; such a value must not come back as bone."""
    pixels = case.volume.pixels.copy()
    pixels[2, 3, 4] = -7
    volume = replace(case.volume, pixels=pixels)
    scan = replace(case.scan, intercept=-1024, bits=16)
    assert all(d.PixelRepresentation == 1 for d in to_dicom(replace(case, volume=volume, scan=scan)))


def test_the_mask_is_a_nifti_image_in_the_patients_space(case: Case, tmp_path: Path) -> None:
    """Read by nibabel: voxel (column, row, slice), and an affine that holds the tilted gantry's shear."""
    nibabel = pytest.importorskip("nibabel")
    volume, (slices, rows, columns) = case.volume, case.mask.shape
    even = np.linspace(volume.origin[0], volume.origin[-1], slices)
    volume = replace(volume, origin=even)
    write_nifti(tmp_path / "mask.nii.gz", case.mask, volume)
    image = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), case.mask.transpose(2, 1, 0))
    assert image.get_data_dtype() == np.uint8
    for i, r, c in [(0, 0, 0), (slices - 1, 0, 0), (7, 11, 13), (slices - 1, rows - 1, columns - 1)]:
        place = volume.origin[i] + r * volume.pixel_spacing[0] * volume.column_cosines
        place = place + c * volume.pixel_spacing[1] * volume.row_cosines
        ras = image.affine @ [c, r, i, 1]
        np.testing.assert_allclose(ras[:3], place * [-1, -1, 1], atol=1e-3)


def test_a_mask_of_even_slices_has_its_voxels_volume(case: Case, tmp_path: Path) -> None:
    """The affine's determinant is the volume between slice planes, not along the slanted table."""
    nibabel = pytest.importorskip("nibabel")
    volume: Volume = case.volume
    write_nifti(tmp_path / "mask.nii.gz", case.mask, volume)
    affine = nibabel.load(tmp_path / "mask.nii.gz").affine
    mean = (volume.distances[-1] - volume.distances[0]) / (len(volume.distances) - 1)
    expected = np.prod(volume.pixel_spacing) * mean
    assert abs(np.linalg.det(affine[:3, :3])) == pytest.approx(expected, rel=1e-4)


# Folders and cohorts


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, case: Case) -> Case:
    """Let the writers take a case that is there already."""
    monkeypatch.setattr("edgehem.phantom.files.make_case", lambda *args, **options: case)
    return case


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UsageError):
        write_study(tmp_path)
    with pytest.raises(UsageError):
        write_cohort(tmp_path, 2)
    with pytest.raises(UsageError):
        write_study(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_study_beside_something_else_is_left_alone(tmp_path: Path, quick: Case) -> None:
    write_study(tmp_path)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError):
        write_study(tmp_path)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_study_that_was_written_before_is_replaced_whole(tmp_path: Path, quick: Case) -> None:
    """No slice of the older, longer study may stay behind."""
    write_study(tmp_path)
    (tmp_path / "dicom" / "9999.dcm").write_bytes(b"a slice of the older study")
    write_study(tmp_path)
    assert len(list((tmp_path / "dicom").iterdir())) == len(quick.volume.pixels)


def test_every_second_study_of_a_cohort_bleeds() -> None:
    """Seeds of two cohorts do not meet."""
    jobs = [cohort_case(index, 3) for index in range(20)]
    assert [bool(bleeds) for _, bleeds in jobs] == [False, True] * 10
    assert not {seed for seed, _ in jobs} & {cohort_case(index, 4)[0] for index in range(1000)}


def test_a_cohort_is_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    """Byte by byte; and its table names what is there."""
    told: list[tuple[int, int]] = []
    options: dict[str, Any] = {"protocol": TINY, "voxel_mm": 4.0}
    table = write_cohort(tmp_path / "one", 4, workers=1, progress=lambda *done: told.append(done), **options)
    write_cohort(tmp_path / "two", 4, workers=2, **options)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    names = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
    found = [name for name in names if name.name == "findings.nii.gz"]
    assert found and len(names) == 1 + 4 * (12 + 2) + len(found)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name

    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["patient_id", "ct", "mask", *LABELS, "age", *(f"{name}_ml" for name in SUBTYPES)]
    assert [int(row["any"]) for row in rows] == [0, 1, 0, 1]
    for row in rows:
        assert (table.parent / row["ct"]).is_dir() and (table.parent / row["mask"]).is_file()
        assert sum(float(row[f"{name}_ml"]) for name in SUBTYPES) == pytest.approx(
            sum(json.loads((table.parent / row["patient_id"] / "truth.json").read_text())["volume_ml"].values())
        )
