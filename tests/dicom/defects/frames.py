"""Multi-frame CT: Enhanced and Legacy Converted. Geometry and rescale of the frames, and several scans in one file."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path

from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from defects.enhanced import LEGACY, enhanced, groups, item, joined, put_second, set_kind, shared_of, write
from defects.given import CANARY, Family, Given, put, stored
from defects.medium import Medium
from edgehem.errors import Code

FRAMES = Family("multi-frame files")
refused, flagged, read_right = FRAMES.refused, FRAMES.flagged, FRAMES.read_right


# As it should be.


@read_right("an Enhanced CT", "newer scanners")
def _(given: Given) -> None:
    write(given, enhanced(given.slices))


@read_right("an Enhanced CT in implicit VR", "an older archive stored it so")
def _(given: Given) -> None:
    write(given, enhanced(given.slices), syntax=ImplicitVRLittleEndian)


@read_right("an Enhanced CT compressed by RLE", "an archive compresses")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    uid = ds.SOPInstanceUID
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.SOPInstanceUID = uid
    write(given, ds)


@read_right("a Legacy Converted CT", "an archive that joins slices")
def _(given: Given) -> None:
    write(given, enhanced(given.slices, sop=LEGACY))


@read_right("a Legacy Converted CT with the scanner's own image type", "the converter copies what stood in the slices")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]
    set_kind(ds, *ds.ImageType)
    write(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a Legacy Converted MIP", "the converter copies what stood in the slices")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "CSA MIP"]
    set_kind(ds, *ds.ImageType)
    write(given, ds)


@read_right("nothing shared between frames", "allowed, and usual for converters")
def _(given: Given) -> None:
    write(given, enhanced(given.slices, spread=True))


@read_right("no stacks and no times in the frames", "allowed")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        del frame.FrameContentSequence
    write(given, ds)


@read_right("frames in another order", "allowed: positions tell")
def _(given: Given) -> None:
    write(given, enhanced([given.slices[7 * i % 20] for i in range(20)]))


@read_right("private groups in the frames", "every scanner's")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        block = frame.private_block(0x0021, f"{CANARY} GROUPS", create=True)
        block.add_new(1, "SQ", [item(ImagePositionPatient=[0, 0, 0], RescaleSlope=2)])
        block.add_new(2, "UN", bytes(range(256)))
    write(given, ds)


@read_right("deep sequences in the frames", "exposures, sources and references")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        inner = item(PurposeOfReferenceCodeSequence=[item(CodeMeaning=CANARY)], ReferencedFrameNumber=1)
        frame.DerivationImageSequence = [item(SourceImageSequence=[inner, inner])]
        frame.CTExposureSequence = [item(ExposureTimeInms=800.0)]
    write(given, ds)


@read_right("the intercept differs between frames", "allowed: each frame has its own")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        put(ds, stored(ds) + i)
    ds = enhanced(given.slices, spread=True)
    for i, frame in enumerate(groups(ds)):
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -1024 - i
    write(given, ds)


@flagged(Code.TILT_CORRECTED, name="a tilted gantry in the frames", cause="usual: spares the eyes")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0.9659258, -0.2588190]
    write(given, enhanced(given.slices))


@read_right("an Enhanced CT on a medium with a DICOMDIR", "newer burning programs")
def _(given: Given) -> Path:
    given.written = True
    made = Medium(given.folder)
    made.add([enhanced(given.slices)], "S0001")
    return made.burn()


# Geometry and rescale in the groups.


def _without(keyword: str, inner: str, given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    delattr(getattr(groups(ds)[5], keyword)[0], inner)
    write(given, ds)


def _without_all(keyword: str, _: str, given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    for frame in groups(ds):
        delattr(frame, keyword)
    write(given, ds)


for _what, _keyword, _inner, _code in (
    ("position", "PlanePositionSequence", "ImagePositionPatient", Code.GEOMETRY_MISSING),
    ("orientation", "PlaneOrientationSequence", "ImageOrientationPatient", Code.GEOMETRY_MISSING),
    ("pixel size", "PixelMeasuresSequence", "PixelSpacing", Code.GEOMETRY_MISSING),
    ("rescale", "PixelValueTransformationSequence", "RescaleIntercept", Code.RESCALE_MISSING),
):
    refused(_code, f"{_what} missing in one frame", "a converter lost it")(partial(_without, _keyword, _inner))
    refused(_code, f"{_what} missing in all frames", "a converter lost it")(partial(_without_all, _keyword, _inner))


@refused(Code.GEOMETRY_MISSING, "position and orientation at the top of the file only", "a converter's mistake")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        del frame.PlanePositionSequence
    del shared_of(ds).PlaneOrientationSequence
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-118, -118, 0], [1, 0, 0, 0, 1, 0]
    write(given, ds)


@refused(Code.TOO_FEW_SLICES, "one position shared by all frames", "a converter's mistake")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).PlanePositionSequence = groups(ds)[0].PlanePositionSequence
    for frame in groups(ds):
        del frame.PlanePositionSequence
    write(given, ds)


@refused(Code.UNREADABLE, "one rescale shared and another in the frames", "a gateway changed one of them")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    other = item(RescaleIntercept=-1000, RescaleSlope=1, RescaleType="HU")
    shared_of(ds).PixelValueTransformationSequence = [other]
    write(given, ds)


@refused(Code.UNREADABLE, "one pixel size shared and another in a frame", "a gateway changed one of them")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    groups(ds)[9].PixelMeasuresSequence = [item(PixelSpacing=[2, 2], SliceThickness=5)]
    write(given, ds)


@read_right("the same rescale shared and in the frames", "not allowed, and harmless")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    shared_of(ds).PixelValueTransformationSequence = groups(ds)[0].PixelValueTransformationSequence
    write(given, ds)


@refused(Code.GEOMETRY_MIXED, "one frame in another direction", "a reformat in the scan's file")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    groups(ds)[9].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0.9961947, -0.0871557]
    write(given, ds)


@refused(Code.GEOMETRY_MIXED, "pixel sizes differ between frames", "two reconstructions in one file")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    for frame in groups(ds)[10:]:
        frame.PixelMeasuresSequence[0].PixelSpacing = [2, 2]
    write(given, ds)


@refused(Code.HU_IMPLAUSIBLE, "the slope differs between frames", "PET habits in a converter")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    groups(ds)[9].PixelValueTransformationSequence[0].RescaleSlope = 1.25
    write(given, ds)


@refused(Code.RESCALE_MISSING, "frames of a material map", "dual-energy software: mg/ml, not HU")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).PixelValueTransformationSequence[0].RescaleType = "MGML"
    write(given, ds)


@refused(Code.SLICE_GAP, "a frame lost", "a converter dropped one")
def _(given: Given) -> None:
    del given.slices[9]
    write(given, enhanced(given.slices))


@flagged(Code.DUPLICATES_DROPPED, name="a frame twice", cause="a converter was given one slice twice", same=True)
def _(given: Given) -> None:
    write(given, enhanced([*given.slices, given.slices[7]]))


@refused(Code.GEOMETRY_MIXED, "two different frames at one place", "a repeat in the scan's file")
def _(given: Given) -> None:
    other = deepcopy(given.slices[7])
    put(other, stored(other) + 3)
    write(given, enhanced([*given.slices, other]))


# Several scans in one file.


@flagged(Code.SERIES_CHOSEN, name="two stacks of one head", cause="a scan repeated after motion")
def _(given: Given) -> None:
    ds = joined(given, [deepcopy(other) for other in given.slices])
    put_second(ds, StackID="2")
    write(given, ds)


@flagged(Code.SERIES_CHOSEN, name="two times in one file", cause="a scan repeated after motion")
def _(given: Given) -> None:
    ds = joined(given, given.copy())
    put_second(ds, TemporalPositionIndex=2)
    write(given, ds)


@refused(Code.GEOMETRY_MIXED, "two times in one file, without an index", "perfusion, badly converted")
def _(given: Given) -> None:
    later = given.copy()
    for ds in later:
        put(ds, stored(ds) + 2)
    write(given, joined(given, later))


@read_right("two kernels in one file, as two stacks", "newer scanners")
def _(given: Given) -> None:
    bone = given.copy()
    for ds in bone:
        put(ds, stored(ds) + 2)
        ds.ConvolutionKernel = "H60s"
    ds = joined(given, bone)
    put_second(ds, StackID="2")
    write(given, ds)


@refused(Code.GEOMETRY_MIXED, "two kernels in one file, as one stack", "a converter joined two series")
def _(given: Given) -> None:
    bone = given.copy()
    for ds in bone:
        put(ds, stored(ds) + 2)
        ds.ConvolutionKernel = "H60s"
    write(given, joined(given, bone))


@read_right("a coronal stack beside the axial one", "newer scanners")
def _(given: Given) -> None:
    coronal = given.copy()
    for i, ds in enumerate(coronal):
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-118, 5.0 * i, 80]
    ds = joined(given, coronal)
    put_second(ds, StackID="2")
    write(given, ds)


@refused(Code.TOO_FEW_SLICES, "a stack for every frame", "a converter counts where it should not")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for i, frame in enumerate(groups(ds)):
        frame.FrameContentSequence[0].StackID = str(i + 1)
    write(given, ds)
