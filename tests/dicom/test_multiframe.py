"""Enhanced and Legacy Converted CT: one file of many frames reads like the slices that it was made of."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from edgehem.dicom import multiframe, read_study
from edgehem.dicom.scan import scan
from edgehem.errors import Code, Refusal

ENHANCED_CT = UID("1.2.840.10008.5.1.4.1.1.2.1")
COPIED = (
    "Modality", "PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
LEGACY_CT = UID("1.2.840.10008.5.1.4.1.1.2.2")


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def to_enhanced(
    slices: Sequence[Path],
    *,
    sop: UID = ENHANCED_CT,
    syntax: UID = ExplicitVRLittleEndian,
    stacks: Sequence[tuple[str, int]] = (),
    shared_rescale: bool = True,
    undefined: bool = False,
    table: str = "basic",
    split: int = 1,
) -> FileDataset:
    """One multi-frame data set from slices in any order.

    ``stacks`` gives Stack ID and temporal position of every slice; ``undefined`` writes sequences of undefined length;
    ``table`` (basic, extended, none) and ``split`` (fragments a frame) say how compressed frames are held.
    """
    sources = [pydicom.dcmread(file) for file in slices]
    first = sources[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, UID("1.2.3.4.900")
    meta.TransferSyntaxUID = syntax
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in COPIED:
        setattr(ds, keyword, getattr(first, keyword))
    ds.SOPClassUID, ds.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    ds.ImageType, ds.NumberOfFrames = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], len(sources)

    transform = _item(RescaleIntercept=first.RescaleIntercept, RescaleSlope=first.RescaleSlope, RescaleType="HU")
    shared = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=first.ImageOrientationPatient)],
        PixelMeasuresSequence=[_item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)],
    )
    if shared_rescale:
        shared.PixelValueTransformationSequence = [transform]
    frames = []
    for i, source in enumerate(sources):
        stack, time = stacks[i] if stacks else ("1", 1)
        kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        frame = _item(
            FrameContentSequence=[_item(StackID=stack, InStackPositionNumber=i + 1, TemporalPositionIndex=time)],
            PlanePositionSequence=[_item(ImagePositionPatient=source.ImagePositionPatient)],
            CTImageFrameTypeSequence=[_item(FrameType=kind)],
            # Something deep that nobody asks for.
            CTExposureSequence=[_item(ReferencedImageSequence=[_item(ReferencedSOPInstanceUID="1.2.3")])],
        )
        if not shared_rescale:
            frame.PixelValueTransformationSequence = [transform]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    _put_pixels(ds, [source.PixelData for source in sources], table=table, split=split)
    if undefined:
        _undefined(ds)
    return ds


def _put_pixels(ds: FileDataset, raw: list[bytes], *, table: str, split: int) -> None:
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        packed = [_packed(ds, one) for one in raw]
        if table == "extended":
            ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(packed)
        else:
            ds.PixelData = encapsulate(packed, fragments_per_frame=split, has_bot=table == "basic")
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        return
    data = b"".join(raw)
    if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        swapped = bytearray(data)
        swapped[::2], swapped[1::2] = data[1::2], data[::2]
        data = bytes(swapped)
    ds.PixelData = data
    ds["PixelData"].VR = "OW"


def _packed(ds: FileDataset, raw: bytes) -> bytes:
    form = {
        "rows": ds.Rows,
        "columns": ds.Columns,
        "samples_per_pixel": 1,
        "number_of_frames": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_representation": ds.PixelRepresentation,
    }
    return RLELosslessEncoder.encode(raw, index=0, **form)


def _undefined(ds: Dataset) -> None:
    for element in ds:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _undefined(item)


def save(ds: FileDataset, target: Path) -> Path:
    """Write a data set in its own transfer syntax."""
    syntax = ds.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(
        target,
        ds,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=False,
    )
    return target


@pytest.fixture
def files(tmp_path, write, head):
    """The slices of a head, in their order."""
    return write(head)


@pytest.fixture
def target(tmp_path):
    """Where the multi-frame file goes."""
    return tmp_path / "enhanced.dcm"


def refusal(path):
    with pytest.raises(Refusal) as caught:
        read_study(path)
    return caught.value


FORMS = {
    "plain": {},
    "legacy converted": {"sop": LEGACY_CT},
    "implicit": {"syntax": ImplicitVRLittleEndian},
    "big-endian": {"syntax": ExplicitVRBigEndian},
    "undefined lengths": {"undefined": True},
    "implicit, undefined lengths": {"syntax": ImplicitVRLittleEndian, "undefined": True},
    "rescale per frame": {"shared_rescale": False},
    "one stack": {"stacks": [("head", 1)] * 28},
    "RLE": {"syntax": RLELossless},
    "RLE, extended table": {"syntax": RLELossless, "table": "extended"},
    "RLE, no table": {"syntax": RLELossless, "table": "none"},
    "RLE, several fragments a frame": {"syntax": RLELossless, "split": 3},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_same_volume_as_from_slices(files, target, form):
    order = np.random.default_rng(3).permutation(len(files))
    save(to_enhanced([files[i] for i in order], **form), target)
    plain, frames = read_study(files[0].parent), read_study(target)
    assert frames.digest == plain.digest
    assert np.array_equal(frames.volume.pixels, plain.volume.pixels)
    assert frames.notes == ()
    assert [series.slices for series in frames.series] == [28]


def test_a_tilted_stack(tmp_path, write, head, spec, target):
    files = write(head, spec(tilt_deg=15.0))
    plain, frames = read_study(files[0].parent), read_study(save(to_enhanced(files), target))
    assert frames.digest == plain.digest
    assert [note.code for note in frames.notes] == [Code.TILT_CORRECTED]


def test_eight_bit_frames_of_odd_size(write, heads, spec, target):
    hu = heads(size=127)
    files = write(hu, spec(bits=8, signed=False, intercept=-1000.0, slope=8.0))
    ds = to_enhanced(files)
    raw = [pydicom.dcmread(file).PixelData[: 127 * 127] for file in files[:27]]
    # An odd number of odd frames: frames lie without a gap, and one byte pads the whole.
    ds.PixelData = b"".join(raw) + b"\0"
    ds.NumberOfFrames = 27
    del ds.PerFrameFunctionalGroupsSequence[27:]
    ds["PixelData"].VR = "OB"
    files[27].unlink()
    assert read_study(save(ds, target)).digest == read_study(files[0].parent).digest


def test_stacks_and_times_are_series_of_their_own(files, target):
    """Two heads in one file: each is a candidate, and one of them is chosen."""
    for stacks in ([("1", 1)] * 28 + [("2", 1)] * 28, [("1", 1)] * 28 + [("1", 2)] * 28):
        save(to_enhanced([*files, *files], stacks=stacks), target)
        result = read_study(target)
        assert [note.code for note in result.notes] == [Code.SERIES_CHOSEN]
        assert result.digest == read_study(files[0].parent).digest
        assert [series.slices for series in result.series] == [28, 28]


def test_frames_of_another_kind_are_left_out(files, target):
    ds = to_enhanced(files)
    ds.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType = [
        "ORIGINAL", "PRIMARY", "LOCALIZER", "NONE",
    ]  # fmt: skip
    (note,) = read_study(save(ds, target)).notes
    assert note.code is Code.FILES_PASSED_OVER


def test_projections_are_passed_over(files, target):
    ds = to_enhanced(files)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.CTImageFrameTypeSequence[0].FrameType = ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]
    assert refusal(save(ds, target)).code is Code.NO_AXIAL_SERIES


def test_one_lost_frame_is_a_gap(files, target):
    assert refusal(save(to_enhanced(files[:9] + files[10:]), target)).code is Code.SLICE_GAP


def _drop(*keywords):
    def change(ds):
        for item in (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence[5:6]):
            for keyword in keywords:
                if keyword in item:
                    delattr(item, keyword)

    return change


def _fewer_groups(ds):
    del ds.PerFrameFunctionalGroupsSequence[20:]


def _more_frames(ds):
    ds.NumberOfFrames = 29


def _short_pixels(ds):
    ds.PixelData = ds.PixelData[:-2]
    ds["PixelData"].VR = "OW"


def _no_groups(ds):
    del ds.PerFrameFunctionalGroupsSequence


BAD = {
    "position": (_drop("PlanePositionSequence"), Code.GEOMETRY_MISSING),
    "orientation": (_drop("PlaneOrientationSequence"), Code.GEOMETRY_MISSING),
    "measures": (_drop("PixelMeasuresSequence"), Code.GEOMETRY_MISSING),
    "rescale": (_drop("PixelValueTransformationSequence"), Code.RESCALE_MISSING),
    "fewer groups": (_fewer_groups, Code.UNREADABLE),
    "more frames": (_more_frames, Code.UNREADABLE),
    "short pixels": (_short_pixels, Code.UNREADABLE),
    "no groups": (_no_groups, Code.PIXELS_MISSING),
}


@pytest.mark.parametrize(("change", "code"), BAD.values(), ids=BAD.keys())
def test_what_is_missing_is_said(files, target, change, code):
    ds = to_enhanced(files)
    change(ds)
    assert refusal(save(ds, target)).code is code


def test_geometry_of_the_whole_file_is_no_geometry_of_a_frame(files, target):
    ds = to_enhanced(files)
    _drop("PlaneOrientationSequence")(ds)
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    assert refusal(save(ds, target)).code is Code.GEOMETRY_MISSING


def test_too_many_frames(files, target, monkeypatch):
    monkeypatch.setattr(multiframe, "MAX_FRAMES", 27)
    monkeypatch.setattr("edgehem.dicom.select.MAX_FRAMES", 27)
    assert refusal(save(to_enhanced(files), target)).code is Code.TOO_LARGE


def test_every_cut_gets_an_answer(small_writer, tmp_path, target):
    data = save(to_enhanced(small_writer(tmp_path / "small"), syntax=RLELossless), target).read_bytes()
    for end in np.linspace(200, len(data) - 1, 120).astype(int):
        target.write_bytes(data[:end])
        assert refusal(target).code is Code.UNREADABLE, end


def test_garbage_gets_an_answer(small_writer, tmp_path, target):
    """Bytes changed anywhere in the header give a study or a refusal, never another error."""
    data = save(to_enhanced(small_writer(tmp_path / "small")), target).read_bytes()
    rng = np.random.default_rng(5)
    end = scan(target).headers[0].pixel_offset
    for _ in range(150):
        bent = bytearray(data)
        for place in rng.integers(132, end, size=rng.integers(1, 4)):
            bent[place] = rng.integers(256)
        target.write_bytes(bent)
        with contextlib.suppress(Refusal):
            read_study(target)


def test_a_table_that_contradicts_its_fragments(files, target):
    ds = to_enhanced(files, syntax=RLELossless)
    save(ds, target)
    data = bytearray(target.read_bytes())
    at = data.index(b"\xe0\x7f\x10\x00OB") + 12 + 8 + 4 * 7
    data[at] ^= 2
    target.write_bytes(data)
    assert refusal(target).code is Code.UNREADABLE


def test_a_damaged_part_is_missed_by_every_stack(files, tmp_path):
    """Two files of one multi-frame series, one of them cut off: the other is not taken for the whole."""
    folder = tmp_path / "parts"
    folder.mkdir()
    save(to_enhanced(files[:14]), folder / "a.dcm")
    cut = save(to_enhanced(files[14:]), folder / "b.dcm")
    assert read_study(folder).digest == read_study(files[0].parent).digest
    cut.write_bytes(cut.read_bytes()[:-1000])
    assert refusal(folder).code is Code.UNREADABLE


def test_a_part_that_is_not_there_is_missed(files, tmp_path):
    """The lost part leaves no gap: only the other one tells that there were two."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, part in enumerate((files[:6], files[6:])):
        ds = to_enhanced(part)
        ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = "1.2.3.55", number + 1, 2
        save(ds, folder / f"{number}.dcm")
    assert read_study(folder).digest == read_study(files[0].parent).digest
    (folder / "0.dcm").unlink()
    assert refusal(folder).code is Code.SLICE_GAP
