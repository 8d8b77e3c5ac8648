"""Malformed files: a Study or a Refusal, never anything else, and never the wrong field."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgehem.dicom import read_study
from edgehem.dicom.elements import MAX_ELEMENTS, UNDEFINED
from edgehem.dicom.header import parse_header
from edgehem.dicom.scan import scan
from edgehem.errors import Code, Refusal
from edgehem.volume import Volume


def refused(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value.code


@pytest.fixture
def files(write, head):
    return write(head)


def insert_before_patient(file, element):
    """Put bytes between groups 0008 and 0010 of an explicit little-endian file."""
    data = file.read_bytes()
    at = data.index(b"\x10\x00\x10\x00PN")
    file.write_bytes(data[:at] + element + data[at:])


@pytest.mark.parametrize("keep", [0, 1, 100, 131, 132, 140, 300, 600, 1000, 1500, 20_000, -1, -2])
def test_a_slice_cut_off_anywhere_is_noticed(files, study, keep):
    data = files[13].read_bytes()
    files[13].write_bytes(data[:keep])
    assert refused(study) is Code.UNREADABLE


def test_every_offset_of_a_header(files):
    data = files[13].read_bytes()
    end = data.index(b"\xe0\x7f\x10\x00OW") + 12
    whole = parse_header(data[:end], len(data), Path())
    assert not whole.damaged
    for keep in range(132, end):
        part = parse_header(data[:keep], keep, Path())
        assert part.damaged or not part.has_pixels
        assert part.series_uid in ("", whole.series_uid)
        assert part.position in (None, whole.position)


def test_the_last_slice_cut_off_between_two_elements_is_noticed(files, study):
    """No byte of an element is missing, no gap is left: only the pixels are not there."""
    data = files[-1].read_bytes()
    marks = [b"\x08\x00\x08\x00CS", b"\x08\x00\x60\x00CS", b"\x10\x00\x10\x00PN", b"\x20\x00\x0e\x00UI"]
    marks += [b"\x20\x00\x32\x00DS", b"\x28\x00\x10\x00US", b"\x28\x00\x53\x10DS", b"\xe0\x7f\x10\x00OW"]
    boundaries = [data.index(mark) for mark in marks]
    for boundary in boundaries:
        files[-1].write_bytes(data[:boundary])
        assert refused(study) is Code.UNREADABLE


def test_damage_in_another_series_does_not_matter(files, study, write, head, spec):
    others = write(head[:4], spec(series=2, tags={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}))
    others[0].write_bytes(others[0].read_bytes()[:2000])
    assert len(read_study(study).volume.pixels) == len(files)


def test_a_damaged_report_does_not_matter(files, study, write, head, spec):
    (other,) = write(head[:1], spec(series=2, tags={"Modality": "SR"}))
    data = other.read_bytes()
    other.write_bytes(data[: data.index(b"\x10\x00\x10\x00PN")])
    assert len(read_study(study).volume.pixels) == len(files)


def test_garbage_is_refused(study):
    (study / "a").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 5000)
    assert refused(study) is Code.UNREADABLE
    (study / "a").write_bytes(b"\0" * 128 + b"DICM")
    assert refused(study) is Code.UNREADABLE
    (study / "a").write_bytes(b"")
    assert refused(study) is Code.NO_DICOM


@pytest.mark.parametrize("depth", [1, 3000])
def test_nested_sequences_are_walked_over(files, study, depth):
    head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    tail = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for file in files[:3]:
        insert_before_patient(file, head * depth + tail * depth)
    assert len(read_study(study).volume.pixels) == len(files)
    insert_before_patient(files[0], head * depth)
    assert refused(study) is Code.UNREADABLE


def test_endless_elements_are_refused(files, study):
    insert_before_patient(files[0], struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0) * (MAX_ELEMENTS + 1))
    assert refused(study) is Code.UNREADABLE


def test_long_private_data_before_the_pixels(files, study):
    for file in files:
        insert_before_patient(file, struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 1_500_000) + bytes(1_500_000))
    assert len(read_study(study).volume.pixels) == len(files)


def test_two_values_for_one_field_are_refused(files, study):
    insert_before_patient(files[0], struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"MR")
    assert refused(study) is Code.UNREADABLE


def test_files_without_preamble(files, study):
    digest = read_study(study).digest
    for file in files:
        file.write_bytes(file.read_bytes()[132:])
    assert read_study(study).digest == digest
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[data.index(b"\x08\x00\x08\x00CS") :])
    assert read_study(study).digest == digest


def test_a_file_that_cannot_be_opened(files, study, monkeypatch):
    real = Path.open

    def closed(self, *args, **kwargs):
        if self == files[3]:
            raise PermissionError(str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    assert refused(study) is Code.UNREADABLE


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_headers_agree_with_pydicom(write, study, head, spec, syntax):
    def change(ds, i):
        item = pydicom.Dataset()
        item.ReferencedSOPInstanceUID = "1.2.3"
        item.PixelSpacing = [9, 9]
        ds.ReferencedImageSequence = [item, item]
        ds["ReferencedImageSequence"].is_undefined_length = bool(i % 2)
        item.is_undefined_length_sequence_item = i % 3 == 0
        ds.ConvolutionKernel = "H31s"
        ds.PatientAge = "071Y"

    write(head[:8], spec(syntax=syntax, change=change, tags={"PixelPaddingValue": -2000}))
    for header in scan(study).headers:
        theirs = pydicom.dcmread(header.path)
        assert not header.damaged
        assert header.syntax == theirs.file_meta.TransferSyntaxUID
        assert header.position == tuple(theirs.ImagePositionPatient)
        assert header.orientation == tuple(theirs.ImageOrientationPatient)
        assert header.spacing == tuple(theirs.PixelSpacing)
        assert (header.rows, header.columns) == (theirs.Rows, theirs.Columns)
        assert (header.slope, header.intercept) == (theirs.RescaleSlope, theirs.RescaleIntercept)
        assert (header.bits_allocated, header.bits_stored) == (theirs.BitsAllocated, theirs.BitsStored)
        assert header.padding == theirs.PixelPaddingValue & 0xFFFF
        assert (header.kernel, header.age) == (theirs.ConvolutionKernel, theirs.PatientAge)
        assert header.series_uid == theirs.SeriesInstanceUID
        assert header.image_type == tuple(theirs.ImageType)
        assert header.pixel_length == len(theirs.PixelData)
        value = header.path.read_bytes()[header.pixel_offset :][: header.pixel_length]
        assert value == theirs.PixelData


def test_real_headers_agree_with_pydicom(test_data):
    found = scan(test_data / "ct_head_tilt").headers
    assert len(found) == 28
    for header in found:
        theirs = pydicom.dcmread(header.path)
        assert header.position == tuple(map(float, theirs.ImagePositionPatient))
        assert header.spacing == tuple(map(float, theirs.PixelSpacing))
        assert header.padding == theirs.PixelPaddingValue & 0xFFFF
        assert header.image_type == tuple(theirs.ImageType)
        assert header.size - header.pixel_offset == header.pixel_length == len(theirs.PixelData)


def study_or_refusal(folder, originals, position, data):
    """Read with one file changed, and put it back. Returns whether there was a study."""
    file = originals[position][0]
    file.write_bytes(data)
    try:
        result = read_study(folder)
    except Refusal as refusal:
        assert refusal.reason
        return False
    finally:
        file.write_bytes(originals[position][1])
    assert isinstance(result.volume, Volume)
    return True


@pytest.fixture(scope="module")
def small_study(tmp_path_factory, request):
    """A study of fourteen small slices, and what its files hold."""
    maker = request.getfixturevalue("small_writer")
    folder = tmp_path_factory.mktemp("small")
    return folder, [(file, file.read_bytes()) for file in maker(folder)]


PLACES = st.integers(0, 13)
BYTES = st.integers(0, 2**20)
"""Taken modulo the length of what they index."""
GATED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(GATED, max_examples=60)
@given(position=PLACES, keep=BYTES)
def test_truncated_anywhere(small_study, position, keep):
    folder, originals = small_study
    whole = originals[position][1]
    # Even an empty file is noticed, since its name says that it is a slice.
    assert not study_or_refusal(folder, originals, position, whole[: keep % len(whole)])


@settings(GATED, max_examples=150)
@given(position=PLACES, changes=st.lists(st.tuples(BYTES, st.integers(0, 255)), min_size=1, max_size=8))
def test_bytes_changed_anywhere(small_study, position, changes):
    folder, originals = small_study
    changed = bytearray(originals[position][1])
    header = len(changed) - 128 - 32 * 32 * 2
    for place, value in changes:
        changed[128 + place % header] = value
    study_or_refusal(folder, originals, position, bytes(changed))
