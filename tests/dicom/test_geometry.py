"""Order, gaps and mixtures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgehem.dicom import read_study
from edgehem.errors import Code, Refusal


def codes(study):
    return {note.code for note in study.notes}


def refused(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value.code


def run(*steps):
    """Distances along the normal from (count, step) pairs."""
    return [0.0, *itertools.accumulate(step for count, step in steps for _ in range(count))]


def thickness(values):
    def change(ds, i):
        if values is None:
            del ds.SliceThickness
        else:
            ds.SliceThickness = values[i]

    return change


def test_two_protocols_in_one_stack_are_meant(write, study, heads, spec):
    distances = run((13, 4.002), (1, 1.081), (13, 6.999))
    write(heads(), spec(distances=distances, change=thickness([4] * 14 + [7] * 14)))
    result = read_study(study)
    assert codes(result) == {Code.SPACING_VARIABLE}
    assert np.diff(result.volume.distances) == pytest.approx(np.diff(distances))


@pytest.mark.parametrize(
    ("distances", "values"),
    [
        (run((10, 5.0), (1, 10.0), (16, 5.0)), [5] * 28),  # one slice lost
        (run((10, 5.0), (1, 10.0), (16, 5.0)), None),
        (run((1, 10.0), (26, 5.0)), [5] * 28),  # the last but one
        (run((10, 5.0), (6, 10.0), (11, 5.0)), [5] * 28),  # every second of a part
        (run((10, 5.0), (6, 10.0), (11, 5.0)), None),  # the same, and no thickness tells
        (run((27, 10.0)), [5] * 28),  # every second of all
        (run((13, 4.0), (1, 7.5), (13, 5.0)), None),  # between two protocols
        (run((3, 5.0), (1, 10.0), (3, 5.0), (1, 10.0), (19, 5.0)), None),
    ],
)
def test_lost_slices_are_refused(write, study, heads, spec, distances, values):
    write(heads(), spec(distances=distances, change=thickness(values)))
    assert refused(study) is Code.SLICE_GAP


def test_every_inner_slice_is_missed(write, study, head):
    for file in write(head)[1:-1]:
        away = file.rename(file.with_suffix(".away"))
        away.rename(study.parent / "away")
        assert refused(study) is Code.SLICE_GAP
        (study.parent / "away").rename(file)


def test_jitter_is_neither_a_gap_nor_said(write, study, head, spec):
    rng = np.random.default_rng(3)
    write(head, spec(distances=[5.0 * i + rng.uniform(-0.02, 0.02) for i in range(28)]))
    assert codes(read_study(study)) == set()


def test_copies_are_dropped(write, study, head):
    files = write(head)
    digest = read_study(study).digest
    for number in (3, 20):
        (study / f"copy{number}.dcm").write_bytes(files[number].read_bytes())
    result = read_study(study)
    assert codes(result) == {Code.DUPLICATES_DROPPED}
    assert "2 images" in result.notes[0].reason
    assert result.digest == digest


def test_different_images_at_one_place_are_refused(write, study, head):
    files = write(head)
    data = bytearray(files[3].read_bytes())
    data[-1000] ^= 1
    (study / "other.dcm").write_bytes(data)
    assert refused(study) is Code.GEOMETRY_MIXED


MIXTURES = {
    "orientation": ("ImageOrientationPatient", [1, 0, 0, 0, 0.9848078, 0.1736482]),
    "spacing": ("PixelSpacing", [1.9, 1.9]),
    "patient": ("PatientID", "someone else"),
    "study": ("StudyInstanceUID", "1.2.3.77"),
    "shifted": ("ImagePositionPatient", [-120, -128, 50]),
    "bits": ("BitsStored", 12),
}


@pytest.mark.parametrize(("keyword", "value"), MIXTURES.values(), ids=MIXTURES.keys())
def test_mixed_slices_are_refused(write, study, head, spec, keyword, value):
    def change(ds, i):
        if i == 10:
            setattr(ds, keyword, value)
            ds.HighBit = ds.BitsStored - 1

    write(head, spec(change=change))
    assert refused(study) is Code.GEOMETRY_MIXED


def test_mixed_sizes_are_refused(write, study, head, spec):
    def change(ds, i):
        if i == 10:
            ds.Rows, ds.Columns = 64, 256

    write(head, spec(change=change))
    assert refused(study) is Code.GEOMETRY_MIXED


def test_a_stack_that_leans_too_far_is_refused(write, study, head, spec):
    def change(ds, i):
        ds.ImagePositionPatient = [-128 + 6.0 * i, -128, 5.0 * i]

    write(head, spec(change=change))
    assert refused(study) is Code.GEOMETRY_MIXED


BAD = {
    "no position": ("ImagePositionPatient", None),
    "no orientation": ("ImageOrientationPatient", None),
    "no spacing": ("PixelSpacing", None),
    "words": ("PixelSpacing", "abc"),
    "one number": ("PixelSpacing", "0.5"),
    "comma": ("PixelSpacing", "0,5\\0,5"),
    "underscore": ("PixelSpacing", "1_0\\1_0"),
    "infinite": ("PixelSpacing", "1e999\\1e999"),
    "not a number": ("ImagePositionPatient", "nan\\0\\0"),
    "far away": ("ImagePositionPatient", "1e300\\-1e300\\1e300"),
    "tiny": ("PixelSpacing", "1e-300\\1e-300"),
    "huge": ("PixelSpacing", "1e300\\1e300"),
    "huge direction": ("ImageOrientationPatient", "1e300\\0\\0\\0\\1e300\\0"),
    "zero": ("PixelSpacing", "0\\0"),
    "negative": ("PixelSpacing", "-2\\-2"),
    "no direction": ("ImageOrientationPatient", "0\\0\\0\\0\\0\\0"),
    "not square": ("ImageOrientationPatient", "1\\0\\0\\0.5\\0.86\\0"),
}


@pytest.mark.parametrize(("keyword", "text"), BAD.values(), ids=BAD.keys())
def test_geometry_that_is_missing_or_no_number(write, study, head, spec, keyword, text):
    def change(ds, i):
        delattr(ds, keyword)
        if text is not None:
            ds.add_new(keyword, "LO", text.split("\\"))

    write(head, spec(change=change))
    assert refused(study) is Code.GEOMETRY_MISSING
