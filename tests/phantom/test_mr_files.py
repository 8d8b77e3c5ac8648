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
from edgehem.phantom import Bleed, Protocol, make_case
from edgehem.phantom.files import describe, to_dicom
from edgehem.phantom.folder import UNFINISHED
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


FILLED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "ScanningSequence", "SequenceVariant", "MRAcquisitionType", "RepetitionTime", "EchoTime",
    "EchoTrainLength", "FlipAngle", "MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "SliceThickness",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PatientPosition",
    "AcquisitionMatrix", "SeriesDescription", "ProtocolName",
)  # fmt: skip
"""What a scanner's MR images have (PS3.3, A.4: types 1 and 2, and what readers look at)."""
MUST = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "SeriesNumber", "Manufacturer", "PositionReferenceIndicator", "InstanceNumber",
    "ScanOptions",
)  # fmt: skip
"""What may be empty there, but not missing (type 2)."""


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
        dataset.SeriesDescription = dataset.ProtocolName = "series"
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


def test_phases_are_encoded_along_rows_and_the_matrix_says_so(case: MrCase) -> None:
    """Acquisition Matrix (0018,1310): frequency rows, frequency columns, phase rows, phase columns."""
    for series in case.series.values():
        d = to_mr_dicom(case, series)[0]
        assert d.InPlanePhaseEncodingDirection == "ROW"
        assert list(d.AcquisitionMatrix) == [series.scan.matrix, 0, 0, series.scan.lines]
        assert d.NumberOfPhaseEncodingSteps == series.scan.lines < d.Columns


def test_the_files_keep_to_the_standard(written: Path, case: MrCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value fits its representation; what an MR image must have is there; a study has one frame of reference."""
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    frames = set()
    for path in sorted((written / "dicom").rglob("*.dcm")):
        d = pydicom.dcmread(path)
        for element in d:
            assert element.VR != "UN", element.tag
        for name in MUST:
            assert name in d, name
        for name in FILLED:
            assert d[name].value not in (None, ""), name
        assert d.ImageType[0] == ("DERIVED" if "minip" in path.parent.name else "ORIGINAL")
        assert ("NORM" in d.ImageType) == (case.series[path.parent.name].scan.coil.normalised > 0)
        frames.add((d.StudyInstanceUID, d.FrameOfReferenceUID))
    assert len(frames) == 1


def test_one_patient_has_one_sex_in_ct_and_mr() -> None:
    small: dict[str, Any] = {"voxel_mm": 8.0}
    for seed in range(3):
        mr = make_mr(seed, kinds=("t1",), matrix=64, **small)
        ct = make_case(seed, protocol=Protocol(slices=12, matrix=64), **small)
        of_mr, of_ct = to_mr_dicom(mr, mr.series["t1"])[0], to_dicom(ct)[0]
        for name in ("PatientID", "PatientSex", "PatientAge"):
            assert of_mr[name].value == of_ct[name].value
        assert describe_mr(mr)["findings"] == describe(ct)["findings"]
        assert all(name in of_ct for name in MUST if name != "ScanOptions")


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


def test_what_was_stopped_half_way_does_not_look_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "study"
    write_mr_study(out, seed=2, kinds=("t1",), **SMALL)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("edgehem.phantom.mr_files.write_nifti", full)
        with pytest.raises(OSError, match="No space"):
            write_mr_study(out, seed=3, kinds=("t1",), **SMALL)
    assert not list(out.iterdir())  # neither the older study nor a part of the new one
    # A process that is killed cannot tidy up: what it leaves is known for what it is, and replaced.
    (out / UNFINISHED / "dicom" / "t1").mkdir(parents=True)
    (out / UNFINISHED / "dicom" / "t1" / "0001.dcm").write_bytes(b"half an image")
    assert write_mr_study(out, seed=2, kinds=("t1",), **SMALL)["seed"] == 2
    assert {path.name for path in out.iterdir()} == {"dicom", "mask_t1.nii.gz", "truth.json"}


def test_what_cannot_be_made_replaces_nothing(tmp_path: Path) -> None:
    out = tmp_path / "study"
    write_mr_study(out, seed=2, kinds=("t1",), **SMALL)
    with pytest.raises(UsageError, match="outside"):
        write_mr_study(out, seed=2, kinds=("t1",), field_t=9.0, **SMALL)
    assert (out / "truth.json").is_file()
    with pytest.raises(UsageError, match="cannot be written to"):
        write_mr_study(out / "truth.json" / "deeper", seed=2, kinds=("t1",), **SMALL)
    with pytest.raises(UsageError, match="is a file"):
        write_mr_study(out / "truth.json", seed=2, kinds=("t1",), **SMALL)


GOLDEN = {
    "truth": "eea9e6b22c9be5e9",
    "masks": "4b9c3b4570fea711",
}
"""SHA-256 of what must be the same on every machine (pixels may differ by one in their last digit)."""


def test_the_same_version_and_seed_give_the_same_truth_on_every_machine() -> None:
    bleeds = (Bleed(subtype="intraparenchymal", ml=22), Bleed(subtype="intraventricular", ml=6))
    made = make_mr(77, bleeds=bleeds, age="chronic", kinds=KINDS, microbleeds=4, **SMALL)
    truth = describe_mr(made)
    for said in truth["series"].values():
        del said["visible_ml"], said["noise_share"]
    masks = hashlib.sha256(b"".join(series.mask.tobytes() for series in made.series.values()))
    assert hashlib.sha256(json.dumps(truth, sort_keys=True).encode()).hexdigest()[:16] == GOLDEN["truth"]
    assert masks.hexdigest()[:16] == GOLDEN["masks"]
