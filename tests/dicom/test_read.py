"""The main flow: what a clean or a slightly unusual study gives."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest

from edgehem.dicom import read_study
from edgehem.errors import Code, Refusal, UsageError


def codes(study):
    return {note.code for note in study.notes}


def hounsfield(study):
    volume = study.volume
    return volume.pixels * volume.slope[:, None, None] + volume.intercept[:, None, None]


def refused(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value.code


def test_a_clean_head_has_no_notes(write, study, head):
    write(head)
    result = read_study(study)
    assert result.notes == ()
    assert np.array_equal(hounsfield(result), np.rint(head))
    assert result.volume.slice_spacing == 5.0
    assert set(result.timings_ms) == {"read", "select", "decode"}
    assert [series.reason for series in result.series] == [""]
    assert result.series[0].orientation == "axial"
    assert result.age_years is None


def test_the_order_and_place_of_files_do_not_matter(write, study, head):
    files = write(head)
    digest = read_study(study).digest
    for number, file in enumerate(reversed(files)):
        target = study / f"sub{number % 3}" / f"x{number:03d}"
        target.parent.mkdir(exist_ok=True)
        shutil.move(file, target)
    assert read_study(study).digest == digest


def test_the_digest_changes_with_pixels_and_geometry(write, study, head, spec):
    write(head)
    digests = {read_study(study).digest}
    changed = head.copy()
    changed[10, 60, 60] += 1
    write(changed)
    digests.add(read_study(study).digest)
    write(head, spec(spacing=(2.0, 2.01)))
    digests.add(read_study(study).digest)
    write(head, spec(intercept=-1000.0))
    digests.add(read_study(study).digest)
    assert len(digests) == 4


def test_nothing_at_the_path_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError):
        read_study(tmp_path / "absent")
    with pytest.raises(UsageError):
        read_study("a\0b")


def test_files_that_are_not_dicom(write, study, head):
    (study / "README").write_text("hello")
    assert refused(study) is Code.NO_DICOM
    assert refused(study / "README") is Code.NO_DICOM
    (study / ".DS_Store").write_bytes(b"x")
    (study / "._s.dcm").write_bytes(b"x")
    write(head)
    result = read_study(study)
    assert codes(result) == {Code.FILES_PASSED_OVER}
    assert "1 file is not DICOM" in result.notes[0].reason


def test_one_slice_is_not_a_head(write, head):
    assert refused(write(head)[12]) is Code.TOO_FEW_SLICES


def test_a_low_stack_is_not_a_head(write, study, head, spec):
    write(head[:10], spec(step=2.5))
    assert refused(study) is Code.COVERAGE


@pytest.mark.parametrize("tilt", [-30.0, -18.5, 12.0, 30.0])
def test_gantry_tilt_is_said_with_its_angle(write, study, head, spec, tilt):
    write(head, spec(tilt_deg=tilt))
    result = read_study(study)
    assert codes(result) == {Code.TILT_CORRECTED}
    assert f"{abs(tilt):.1f}°" in result.notes[0].reason
    assert result.volume.tilt_deg == pytest.approx(abs(tilt), abs=0.01)
    assert np.diff(result.volume.distances) == pytest.approx(5.0, abs=1e-4)


@pytest.mark.parametrize("thick", [0.625, 10.0])
def test_thin_and_thick_heads(write, study, heads, spec, thick):
    count = round(140 / thick)
    write(heads(slices=count, size=64, spacing=4.0, step=thick), spec(step=thick, spacing=(4.0, 4.0)))
    result = read_study(study)
    assert result.notes == ()
    assert len(result.volume.pixels) == count


@pytest.mark.parametrize(
    ("tags", "age"),
    [
        ({"PatientAge": "071Y"}, 71.0),
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientBirthDate": "20100601", "StudyDate": "20200601"}, 10.0),
        ({"PatientBirthDate": "20100601"}, None),
        ({"PatientBirthDate": "20300601", "StudyDate": "20200601"}, None),
        ({"PatientBirthDate": "18000101", "StudyDate": "20200601"}, None),
    ],
)
def test_age(write, study, head, spec, tags, age):
    write(head, spec(tags=tags))
    result = read_study(study)
    assert result.age_years == (None if age is None else pytest.approx(age, abs=0.01))
    assert codes(result) == ({Code.AGE_UNDER_18} if age is not None and age < 18 else set())


def test_real_head_with_tilt_and_variable_spacing(test_data):
    folder = test_data / "ct_head_tilt"
    result = read_study(folder)
    volume = result.volume
    assert volume.pixels.shape == (28, 512, 512)
    assert volume.tilt_deg == pytest.approx(18.5, abs=0.1)
    assert {Code.SPACING_VARIABLE, Code.TILT_CORRECTED, Code.INTERCEPT_ZERO, Code.PADDING} <= codes(result)
    assert volume.padding == (-1500, -1500)
    datasets = [pydicom.dcmread(file) for file in folder.glob("*.dcm")]
    datasets.sort(key=lambda ds: ds.ImagePositionPatient[2])
    # The normal points to the feet or to the head; the order along it follows.
    if volume.normal[2] < 0:
        datasets.reverse()
    for image, origin, ds in zip(hounsfield(result), volume.origin, datasets, strict=True):
        assert np.array_equal(image, ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept)
        assert np.allclose(origin, ds.ImagePositionPatient)


def test_real_head_with_a_slice_lost(test_data, study):
    files = sorted((test_data / "ct_head_tilt").glob("*.dcm"))
    for lost in (5, 14, 20):  # 14 lies beside the change of spacing: 1.1 and 7 mm become 8.1 mm
        shutil.rmtree(study)
        study.mkdir()
        for number, file in enumerate(files):
            if number != lost:
                (study / file.name).symlink_to(file)
        assert refused(study) is Code.SLICE_GAP


def test_real_chest_slices_in_every_syntax_are_refused(test_data, capfd):
    files = sorted((test_data / "ct_syntaxes").glob("*.dcm"))
    assert len(files) == 17
    for file in files:
        with pytest.raises(Refusal):
            read_study(file)
    with pytest.raises(Refusal):
        read_study(test_data / "ct_syntaxes")
    assert capfd.readouterr() == ("", "")
