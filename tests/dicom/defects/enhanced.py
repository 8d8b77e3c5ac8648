"""Multi-frame CT as scanners and converters write it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from defects.given import CANARY, SERIES, Given, assign, save

ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY = "1.2.840.10008.5.1.4.1.1.2.2"
PLAIN = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
MOVED = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "ConvolutionKernel", "InstanceNumber", "SliceLocation", "BodyPartExamined",
)  # fmt: skip
"""What a single-frame file keeps at the top and a multi-frame one in its groups."""


def item(**tags: object) -> Dataset:
    """One item of a sequence."""
    ds = Dataset()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def enhanced(slices: Sequence[Dataset], *, sop: str = ENHANCED, number: int = 1, spread: bool = False) -> Dataset:
    """One multi-frame object of slices in any order; what they share is shared, unless it is ``spread``."""
    first = slices[0]
    ds = deepcopy(first)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(sop)
    ds.SOPInstanceUID = f"{SERIES}.1.9{number}"
    assign(ds, **dict.fromkeys(MOVED))
    ds.ImageType, ds.NumberOfFrames = PLAIN, len(slices)
    frames = []
    for i, other in enumerate(slices):
        frame = item(
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=i + 1, TemporalPositionIndex=1)],
            PlanePositionSequence=[item(ImagePositionPatient=other.ImagePositionPatient)],
        )
        frames.append(frame)
    shared = Dataset()
    for group in frames if spread else [shared]:
        group.PlaneOrientationSequence = [item(ImageOrientationPatient=first.ImageOrientationPatient)]
        group.PixelMeasuresSequence = [item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)]
        group.PixelValueTransformationSequence = [
            item(RescaleIntercept=first.RescaleIntercept, RescaleSlope=first.RescaleSlope, RescaleType="HU")
        ]
        group.CTImageFrameTypeSequence = [item(FrameType=PLAIN)]
        if "ConvolutionKernel" in first:
            group.CTReconstructionSequence = [item(ConvolutionKernel=first.ConvolutionKernel)]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = b"".join(other.PixelData for other in slices)
    ds["PixelData"].VR = "OW"
    return ds


def groups(ds: Dataset) -> list[Dataset]:
    """The groups of every frame."""
    return list(ds.PerFrameFunctionalGroupsSequence)


def shared_of(ds: Dataset) -> Dataset:
    """The groups that all frames share."""
    return ds.SharedFunctionalGroupsSequence[0]


def write(given: Given, *objects: Dataset, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Write files, each of one object."""
    given.written = True
    for i, ds in enumerate(objects):
        save(ds, given.folder / f"{CANARY}_{i}.dcm", syntax=syntax)


def set_kind(ds: Dataset, *kinds: str) -> None:
    """What all frames show, as their frame type."""
    shared_of(ds).CTImageFrameTypeSequence[0].FrameType = list(kinds)


def joined(given: Given, other: Sequence[Dataset]) -> Dataset:
    """The scan and other slices in one object, the other ones behind."""
    ds = enhanced([*given.slices, *other], spread=True)
    for frame, source in zip(groups(ds), [*given.slices, *other], strict=True):
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = source.ImageOrientationPatient
        if "ConvolutionKernel" in source:
            frame.CTReconstructionSequence = [item(ConvolutionKernel=source.ConvolutionKernel)]
    return ds


def put_second(ds: Dataset, **content: object) -> None:
    """Tell the other slices of :func:`joined` apart, by their frame content."""
    for frame in groups(ds)[20:]:
        for keyword, value in content.items():
            setattr(frame.FrameContentSequence[0], keyword, value)
