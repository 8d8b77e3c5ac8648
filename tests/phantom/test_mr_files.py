"""MR phantoms on disk: what is written is what was made, and the intake knows it for MR."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from edgehem.dicom import read_study
from edgehem.dicom.kinds import Kind, Weighting, what_is_at
from edgehem.errors import Code, Refusal, UsageError
from edgehem.phantom import Bleed
from edgehem.phantom.mr import MrCase, make_mr
from edgehem.phantom.mr_files import STUDY_FILES, describe_mr, to_mr_dicom, write_mr_case, write_mr_study
from edgehem.phantom.mr_signal import KINDS

SMALL: dict[str, Any] = {"voxel_mm": 4.0, "matrix": 64}
WEIGHTINGS = {
    "t2star": Weighting.T2_STAR,
    "flair": Weighting.FLAIR,
    "t1": Weighting.T1,
    "swi": Weighting.SWI,
    "t2": Weighting.T2,
    "swi_minip": Weighting.SWI,
}


@pytest.fixture(scope="module")
def case() -> MrCase:
    return make_mr(
        4, bleeds=(Bleed(subtype="subdural", ml=30),), age="late_subacute", kinds=KINDS, microbleeds=2, **SMALL
    )


@pytest.fixture(scope="module")
def written(case: MrCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mr")
    write_mr_case(case, out)
    return out


def test_the_intake_names_every_series(written: Path, case: MrCase) -> None:
    for kind, series in case.series.items():
        (part,) = what_is_at(written / "dicom" / kind)
        assert part.kind is Kind.MR
        assert part.weighting is WEIGHTINGS[kind]
        assert part.images == len(series.volume.pixels)
    kinds = [part.kind for part in what_is_at(written)]
    assert kinds.count(Kind.MR) == len(KINDS)
    assert kinds.count(Kind.NIFTI) == 1


@pytest.mark.parametrize("field_t", [1.5, 3.0])
def test_the_times_alone_tell_the_weighting(field_t: float, tmp_path: Path) -> None:
    """Without its name, a series is told by its sequence and times, as a vendor's would be."""
    for kind in ("t2star", "flair", "t1", "t2"):
        made = make_mr(6, kinds=(kind,), field_t=field_t, voxel_mm=8.0, matrix=64)
        dataset = to_mr_dicom(made, made.series[kind])[0]
        dataset.SeriesDescription = "series"
        (tmp_path / kind).mkdir()
        dataset.save_as(tmp_path / kind / "1.dcm", enforce_file_format=True)
        (part,) = what_is_at(tmp_path / kind)
        assert part.weighting is WEIGHTINGS[kind], kind


def test_triage_of_head_ct_refuses_them_by_their_kind(written: Path) -> None:
    with pytest.raises(Refusal, match="MR series") as refusal:
        read_study(written)
    assert refusal.value.code is Code.NOT_CT


def test_pixels_and_geometry_come_back(written: Path, case: MrCase) -> None:
    for kind, series in case.series.items():
        v = series.volume
        files = [pydicom.dcmread(path) for path in sorted((written / "dicom" / kind).iterdir())]
        assert np.array_equal(np.stack([f.pixel_array for f in files]), v.pixels)
        assert np.allclose([f.ImagePositionPatient for f in files], v.origin, atol=1e-4)
        axes = np.concatenate([v.row_cosines, v.column_cosines])
        assert all(np.allclose(f.ImageOrientationPatient, axes, atol=1e-6) for f in files)
        assert np.allclose(np.diff([f.SliceLocation for f in files]), series.spacing_mm, atol=1e-3)
        first = files[0]
        assert np.allclose(first.PixelSpacing, v.pixel_spacing)
        assert float(first.SpacingBetweenSlices) == pytest.approx(series.spacing_mm)
        assert first.BitsStored == series.bits
        assert "RescaleSlope" not in first


def test_attributes_say_how_it_was_measured(case: MrCase) -> None:
    for kind, series in case.series.items():
        d = to_mr_dicom(case, series)[0]
        assert float(d.EchoTime) == series.pulses.te
        assert float(d.RepetitionTime) == series.pulses.tr
        assert float(d.FlipAngle) == series.pulses.flip_deg
        assert float(d.MagneticFieldStrength) == case.field_t
        assert ("InversionTime" in d) == (kind == "flair")
        assert d.MRAcquisitionType == ("3D" if kind.startswith("swi") else "2D")
        scanning: Any = d.ScanningSequence
        assert (scanning == "GR") == (series.pulses.physics == "gradient_echo")
        assert ("IR" in scanning) == (kind == "flair")


def test_nothing_in_the_files_is_a_patient(case: MrCase) -> None:
    for series in case.series.values():
        d = to_mr_dicom(case, series)[0]
        assert str(d.PatientName) == "PHANTOM^SYNTHETIC"
        assert d.PatientBirthDate == ""
        assert "Synthetic" in d.ImageComments


def test_identifiers_are_unique_and_follow_from_the_content(case: MrCase) -> None:
    everything = [d for series in case.series.values() for d in to_mr_dicom(case, series)]
    assert len({d.SOPInstanceUID for d in everything}) == len(everything)
    assert len({d.SeriesInstanceUID for d in everything}) == len(KINDS)
    assert len({d.StudyInstanceUID for d in everything}) == 1
    again = to_mr_dicom(case, case.series["t1"])[0]
    assert again.SOPInstanceUID in {d.SOPInstanceUID for d in everything}
    older = make_mr(
        4, bleeds=(Bleed(subtype="subdural", ml=30),), age="chronic", kinds=("t1",), voxel_mm=8.0, matrix=64
    )
    assert to_mr_dicom(older, older.series["t1"])[0].StudyInstanceUID != again.StudyInstanceUID


def test_masks_lie_on_their_series(written: Path, case: MrCase) -> None:
    for kind, series in case.series.items():
        image = nibabel.load(written / f"mask_{kind}.nii.gz")
        data = np.asarray(image.dataobj)
        assert np.array_equal(data.transpose(2, 1, 0), series.mask)
        k, row, column = (int(i[0]) for i in np.nonzero(series.mask))
        v = series.volume
        lps = v.origin[k] + column * v.pixel_spacing[1] * v.row_cosines + row * v.pixel_spacing[0] * v.column_cosines
        assert image.affine @ [column, row, k, 1] == pytest.approx([-lps[0], -lps[1], lps[2], 1], abs=1e-2)


def test_the_truth_says_what_was_planted(written: Path, case: MrCase) -> None:
    truth = json.loads((written / "truth.json").read_text(encoding="utf-8"))
    assert truth["synthetic"] is True
    assert truth["labels"]["subdural"] == 1
    assert truth["volume_ml"]["subdural"] == pytest.approx(30, rel=0.02)
    assert truth["stage"] == {"subdural": "late_subacute"}
    assert len(truth["microbleeds"]) == 2
    assert set(truth["series"]) == set(KINDS)
    for kind, said in truth["series"].items():
        assert (written / said["dicom"]).is_dir()
        assert (written / said["mask"]).is_file()
        slices = np.flatnonzero((case.series[kind].mask == 5).any(axis=(1, 2)))
        assert said["slices_with_blood"]["subdural"] == slices.tolist()


def test_a_study_is_written_again_over_itself_and_over_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "study"
    first = write_mr_study(out, seed=2, kinds=("t1",), **SMALL)
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert {p.parts[0] for p in before} <= set(STUDY_FILES)
    assert write_mr_study(out, seed=2, kinds=("t1",), **SMALL) == first
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        write_mr_study(other, seed=2, kinds=("t1",), **SMALL)
    assert (other / "notes.txt").read_text(encoding="utf-8") == "kept"


GOLDEN = {
    "truth": "f7493148596b9e87",
    "masks": "be1453f52234bbcd",
}
"""SHA-256 of what must be the same on every machine (pixels may differ by one in their last digit)."""


def test_the_same_version_and_seed_give_the_same_truth_on_every_machine() -> None:
    bleeds = (Bleed(subtype="intraparenchymal", ml=22), Bleed(subtype="intraventricular", ml=6))
    made = make_mr(77, bleeds=bleeds, age="chronic", kinds=KINDS, microbleeds=4, version="1", **SMALL)
    truth = describe_mr(made)
    for said in truth["series"].values():
        del said["visible_ml"], said["noise_share"]
    masks = hashlib.sha256(b"".join(series.mask.tobytes() for series in made.series.values()))
    assert hashlib.sha256(json.dumps(truth, sort_keys=True).encode()).hexdigest()[:16] == GOLDEN["truth"]
    assert masks.hexdigest()[:16] == GOLDEN["masks"]
