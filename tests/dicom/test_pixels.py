"""Pixels to Hounsfield units: depths, signs, byte orders, padding, rescale; and what they must show."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from edgehem.dicom import read_study
from edgehem.errors import Code, Refusal


def codes(study):
    return {note.code for note in study.notes}


def refused(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value.code


def hounsfield(study):
    volume = study.volume
    return volume.pixels * volume.slope[:, None, None] + volume.intercept[:, None, None]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("bits", "signed"), [(16, True), (16, False), (12, False), (12, True), (15, False)])
def test_depths_signs_and_byte_orders(write, study, head, spec, syntax, bits, signed):
    offset = 0 if signed and bits == 12 else -1024
    clipped = np.clip(np.rint(head), -1024, 2000)
    files = write(clipped, spec(syntax=syntax, bits=bits, signed=signed, intercept=offset))
    result = read_study(study)
    assert codes(result) <= {Code.INTERCEPT_ZERO}
    assert np.array_equal(hounsfield(result), clipped)
    theirs = pydicom.dcmread(files[12]).pixel_array.astype(float) + offset
    assert np.array_equal(hounsfield(result)[12], theirs)


@pytest.mark.parametrize("signed", [True, False])
def test_what_lies_above_the_bits_stored_is_dropped(write, study, head, spec, signed):
    clipped = np.clip(np.rint(head), -1024, 2000)
    offset = 0 if signed else -1024
    overlay = spec(bits=12, signed=signed, intercept=offset, stored=lambda stored: (stored & 0x0FFF) | 0x5000)
    write(clipped, overlay)
    assert np.array_equal(hounsfield(read_study(study)), clipped)


def test_eight_bits(write, study, head, spec):
    write(head, spec(bits=8, signed=False, slope=10.0, intercept=-1000.0))
    assert np.abs(hounsfield(read_study(study)) - np.clip(head, -1000, 1550)).max() <= 5.001


def test_slices_may_have_their_own_intercept(write, study, head, spec):
    def change(ds, i):
        if i % 2:
            ds.RescaleIntercept = -1000
            ds.PixelData = (np.frombuffer(ds.PixelData, "<i2") - 24).astype("<i2").tobytes()

    write(head, spec(change=change))
    assert np.array_equal(hounsfield(read_study(study)), np.rint(head))


def corners(size=128):
    axis = np.arange(size) - size / 2
    return np.hypot(axis[:, None], axis) > size / 2


PADDINGS = {
    "signed": ({"bits": 16, "signed": True, "intercept": 0.0}, -1500, "SS", None, (-1500, -1500)),
    "signed, written US": ({"bits": 16, "signed": True}, -2000, "US", None, (-2000, -2000)),
    "unsigned": ({"bits": 16, "signed": False}, 63536, "US", None, (63536 - 32768,) * 2),
    "unsigned, written SS": ({"bits": 16, "signed": False}, 63536, "SS", None, (63536 - 32768,) * 2),
    "beyond 12 bits": ({"bits": 12, "signed": False}, 63536, "US", None, (-2000, -2000)),
    "zero": ({"bits": 12, "signed": False, "intercept": -1200.0}, 0, "US", None, (0, 0)),
    "range": ({"bits": 16, "signed": True}, -3000, "SS", -2900, (-3000, -2900)),
}


@pytest.mark.parametrize(("form", "value", "vr", "limit", "expected"), PADDINGS.values(), ids=PADDINGS.keys())
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_padding(write, study, head, spec, form, value, vr, limit, expected, syntax):
    def written(number):
        return (number & 0xFFFF) if vr == "US" else (number + 32768) % 65536 - 32768

    def change(ds, i):
        ds.add_new("PixelPaddingValue", vr, written(value))
        if limit is not None:
            ds.add_new("PixelPaddingRangeLimit", vr, written(limit))

    def stored(image):
        image[corners()] = value if limit is None else (value + limit) // 2
        return image

    clipped = np.clip(np.rint(head), -1024, 2000)
    write(clipped, spec(**form, syntax=syntax, stored=stored, change=change))
    result = read_study(study)
    assert codes(result) - {Code.INTERCEPT_ZERO} == {Code.PADDING}
    assert result.volume.padding == expected
    masked = (result.volume.pixels >= expected[0]) & (result.volume.pixels <= expected[1])
    assert np.array_equal(masked, np.broadcast_to(corners(), masked.shape))
    assert np.array_equal(hounsfield(result)[~masked], clipped[~masked])


def test_padding_that_never_occurs_is_not_said(write, study, head, spec):
    write(head, spec(tags={"PixelPaddingValue": -2000}))
    result = read_study(study)
    assert result.notes == ()
    assert result.volume.padding is None


def test_padding_among_tissue_is_refused(write, study, head, spec):
    write(head, spec(tags={"PixelPaddingValue": 1024 + 32}))
    assert refused(study) is Code.HU_IMPLAUSIBLE


def test_padding_does_not_stand_in_for_air(write, study, head, spec):
    def stored(image):
        image[corners()] = -3000
        return image

    def change(ds, i):
        ds.PixelPaddingValue = -3000
        ds.RescaleIntercept = -1024 + 320

    write(head, spec(stored=stored, change=change))
    assert refused(study) is Code.HU_IMPLAUSIBLE


def test_intercept_zero_is_said(write, study, head, spec):
    write(head, spec(intercept=0.0))
    assert codes(read_study(study)) == {Code.INTERCEPT_ZERO}


def wrong(**tags):
    def change(ds, i):
        for keyword, value in tags.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (wrong(RescaleSlope=None), Code.RESCALE_MISSING),
        (wrong(RescaleIntercept=None), Code.RESCALE_MISSING),
        (wrong(RescaleIntercept=""), Code.RESCALE_MISSING),
        (wrong(RescaleSlope=0), Code.RESCALE_MISSING),
        (wrong(RescaleSlope="1e300"), Code.RESCALE_MISSING),
        (wrong(RescaleIntercept="-1e300"), Code.RESCALE_MISSING),
        (wrong(RescaleSlope="1e-300"), Code.HU_IMPLAUSIBLE),
        (wrong(RescaleType="Z_EFF"), Code.RESCALE_MISSING),
        (wrong(RescaleIntercept=0), Code.HU_IMPLAUSIBLE),
        (wrong(RescaleIntercept=-900), Code.HU_IMPLAUSIBLE),
        (wrong(RescaleIntercept=-1124), Code.HU_IMPLAUSIBLE),
        (wrong(RescaleSlope=2), Code.HU_IMPLAUSIBLE),
        (wrong(RescaleSlope=-1), Code.HU_IMPLAUSIBLE),
        (wrong(BitsAllocated=32), Code.PIXELS_MISSING),
        (wrong(BitsStored=20), Code.PIXELS_MISSING),
        (wrong(HighBit=7), Code.PIXELS_MISSING),
        (wrong(PixelRepresentation=2), Code.PIXELS_MISSING),
        (wrong(Rows=None), Code.UNREADABLE),
        (wrong(Rows=0), Code.UNREADABLE),
        (wrong(Rows=127), Code.UNREADABLE),
        (wrong(Rows=129), Code.UNREADABLE),
        (wrong(PixelData=None), Code.UNREADABLE),
    ],
)
def test_wrong_values_are_refused(write, study, head, spec, change, code):
    write(head, spec(change=change))
    assert refused(study) is code


def test_one_slice_rescaled_otherwise_is_refused(write, study, head, spec):
    def intercept(ds, i):
        if i == 12:
            ds.RescaleIntercept = 0

    def slope(ds, i):
        if i == 12:
            ds.RescaleSlope = 1.01

    for change in (intercept, slope):
        write(head, spec(change=change))
        assert refused(study) is Code.HU_IMPLAUSIBLE


def rle(ds, i):
    ds.compress(RLELossless)


def test_run_length_coded_slices(write, study, head, spec):
    write(head, spec(change=rle))
    files = sorted(study.glob("*.dcm"))
    for file in files:  # the writer names its own syntax; compress() has put the right one into the file
        assert pydicom.dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID == RLELossless
    assert np.array_equal(hounsfield(read_study(study)), np.rint(head))


def test_damaged_run_lengths_are_refused(write, study, head, spec):
    files = write(head, spec(change=rle))
    data = bytearray(files[5].read_bytes())
    data[-3000:-8] = b"\x7f" * 2992
    files[5].write_bytes(data)
    assert refused(study) is Code.UNREADABLE


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.4.55",
        "1.2.3.4.5",
    ],
)
def test_untrusted_compression_is_refused(write, study, head, spec, syntax):
    def change(ds, i):
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        ds.PixelData = encapsulate([ds.PixelData[:1000]])
        ds["PixelData"].is_undefined_length = True

    write(head, spec(change=change))
    assert refused(study) is Code.SYNTAX_UNSUPPORTED


def test_deflated_files_are_refused(write, study, head, spec):
    files = write(head)
    for file in files:
        ds = pydicom.dcmread(file)
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        ds.save_as(file)
    assert refused(study) is Code.SYNTAX_UNSUPPORTED


def test_lossy_history_is_said(write, study, head, spec):
    write(head, spec(tags={"LossyImageCompression": "01"}))
    assert codes(read_study(study)) == {Code.LOSSY}


# What the images show


def test_a_chest_is_not_a_head(write, study, torso, spec):
    write(torso, spec(spacing=(3.2, 3.2)))
    assert refused(study) is Code.NOT_HEAD


def test_a_head_is_found_beside_a_chest_without_descriptions(write, study, head, torso, spec):
    write(torso, spec(series=1, spacing=(3.2, 3.2)))
    write(head, spec(series=2))
    result = read_study(study)
    assert np.array_equal(hounsfield(result), np.rint(head))
    assert result.series[1].reason == "The images do not show a head."


def test_a_head_on_top_of_a_chest_is_refused(write, study, heads, torso, spec):
    both = np.concatenate([torso, heads(spacing=3.2)])
    write(both, spec(spacing=(3.2, 3.2)))
    assert refused(study) is Code.NOT_HEAD


@pytest.mark.parametrize("scale", [0.5, 1.9])
def test_a_skull_of_the_wrong_size_is_not_a_head(write, study, head, spec, scale):
    write(head, spec(spacing=(2.0 * scale, 2.0 * scale)))
    assert refused(study) is Code.NOT_HEAD


def test_noise_and_blank_images_are_refused(write, study, head, spec):
    rng = np.random.default_rng(1)
    for series in (np.full(head.shape, -1000.0), np.full(head.shape, 30.0), rng.normal(0, 500, head.shape)):
        write(series)
        with pytest.raises(Refusal):
            read_study(study)


@pytest.mark.parametrize("tilt", [0.0, 30.0])
@pytest.mark.parametrize("neck_mm", [0.0, 60.0])
def test_headrest_neck_and_tilt_are_accepted(write, study, heads, spec, tilt, neck_mm):
    write(heads(slices=36, headrest=True, neck_mm=neck_mm), spec(tilt_deg=tilt))
    assert codes(read_study(study)) <= {Code.TILT_CORRECTED}


def test_a_large_bleed_a_bone_flap_and_noise_are_accepted(write, study, head):
    axis = (np.arange(128) - 63.5) * 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    patient = head + np.random.default_rng(2).normal(0, 25, head.shape)
    patient[8:20, np.hypot(x - 25, y) < 28] += 40
    patient[10:22, (x > 45) & (np.abs(y) < 45)] = np.where(patient[10:22] > 300, 40, patient[10:22])[
        :, (x > 45) & (np.abs(y) < 45)
    ]
    write(patient)
    assert codes(read_study(study)) == {Code.POSTOPERATIVE}
