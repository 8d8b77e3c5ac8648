"""Multi-frame CT: Enhanced and Legacy Converted, the whole scan in one file or in a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from defects.given import CANARY, SERIES, Family, Given, assign, put, save, stored
from defects.media import Medium
from edgehem.errors import Code

FRAMES = Family("multi-frame files")
refused, flagged, read_right = FRAMES.refused, FRAMES.flagged, FRAMES.read_right

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


def _file(given: Given, *objects: Dataset, syntax: UID = ExplicitVRLittleEndian) -> None:
    given.written = True
    for i, ds in enumerate(objects):
        save(ds, given.folder / f"{CANARY}_{i}.dcm", syntax=syntax)


def _kinds(ds: Dataset, *kinds: str) -> None:
    shared_of(ds).CTImageFrameTypeSequence[0].FrameType = list(kinds)


# As it should be.


@read_right("an Enhanced CT", "newer scanners")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices))


@read_right("an Enhanced CT in implicit VR", "an older archive stored it so")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices), syntax=ImplicitVRLittleEndian)


@read_right("an Enhanced CT compressed by RLE", "an archive compresses")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    uid = ds.SOPInstanceUID
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.SOPInstanceUID = uid
    _file(given, ds)


@read_right("a Legacy Converted CT", "an archive that joins slices")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices, sop=LEGACY))


@read_right("a Legacy Converted CT with the scanner's own image type", "the converter copies what stood in the slices")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "HELIX"]
    _kinds(ds, *ds.ImageType)
    _file(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a Legacy Converted MIP", "the converter copies what stood in the slices")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "CSA MIP"]
    _kinds(ds, *ds.ImageType)
    _file(given, ds)


@read_right("nothing shared between frames", "allowed, and usual for converters")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices, spread=True))


@read_right("no stacks and no times in the frames", "allowed")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        del frame.FrameContentSequence
    _file(given, ds)


@read_right("frames in another order", "allowed: positions tell")
def _(given: Given) -> None:
    _file(given, enhanced([given.slices[7 * i % 20] for i in range(20)]))


@read_right("private groups in the frames", "every scanner's")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        block = frame.private_block(0x0021, f"{CANARY} GROUPS", create=True)
        block.add_new(1, "SQ", [item(ImagePositionPatient=[0, 0, 0], RescaleSlope=2)])
        block.add_new(2, "UN", bytes(range(256)))
    _file(given, ds)


@read_right("deep sequences in the frames", "exposures, sources and references")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        inner = item(PurposeOfReferenceCodeSequence=[item(CodeMeaning=CANARY)], ReferencedFrameNumber=1)
        frame.DerivationImageSequence = [item(SourceImageSequence=[inner, inner])]
        frame.CTExposureSequence = [item(ExposureTimeInms=800.0)]
    _file(given, ds)


@read_right("the intercept differs between frames", "allowed: each frame has its own")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        put(ds, stored(ds) + i)
    ds = enhanced(given.slices, spread=True)
    for i, frame in enumerate(groups(ds)):
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -1024 - i
    _file(given, ds)


@flagged(Code.TILT_CORRECTED, name="a tilted gantry in the frames", cause="usual: spares the eyes")
def _(given: Given) -> None:
    for ds in given.slices:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0.9659258, -0.2588190]
    _file(given, enhanced(given.slices))


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
    _file(given, ds)


def _without_all(keyword: str, _: str, given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    for frame in groups(ds):
        delattr(frame, keyword)
    _file(given, ds)


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
    _file(given, ds)


@refused(Code.TOO_FEW_SLICES, "one position shared by all frames", "a converter's mistake")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).PlanePositionSequence = groups(ds)[0].PlanePositionSequence
    for frame in groups(ds):
        del frame.PlanePositionSequence
    _file(given, ds)


@refused(Code.UNREADABLE, "one rescale shared and another in the frames", "a gateway changed one of them")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    other = item(RescaleIntercept=-1000, RescaleSlope=1, RescaleType="HU")
    shared_of(ds).PixelValueTransformationSequence = [other]
    _file(given, ds)


@refused(Code.UNREADABLE, "one pixel size shared and another in a frame", "a gateway changed one of them")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    groups(ds)[9].PixelMeasuresSequence = [item(PixelSpacing=[2, 2], SliceThickness=5)]
    _file(given, ds)


@read_right("the same rescale shared and in the frames", "not allowed, and harmless")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    shared_of(ds).PixelValueTransformationSequence = groups(ds)[0].PixelValueTransformationSequence
    _file(given, ds)


@refused(Code.GEOMETRY_MIXED, "one frame in another direction", "a reformat in the scan's file")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    groups(ds)[9].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0.9961947, -0.0871557]
    _file(given, ds)


@refused(Code.GEOMETRY_MIXED, "pixel sizes differ between frames", "two reconstructions in one file")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    for frame in groups(ds)[10:]:
        frame.PixelMeasuresSequence[0].PixelSpacing = [2, 2]
    _file(given, ds)


@refused(Code.HU_IMPLAUSIBLE, "the slope differs between frames", "PET habits in a converter")
def _(given: Given) -> None:
    ds = enhanced(given.slices, spread=True)
    groups(ds)[9].PixelValueTransformationSequence[0].RescaleSlope = 1.25
    _file(given, ds)


@refused(Code.RESCALE_MISSING, "frames of a material map", "dual-energy software: mg/ml, not HU")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).PixelValueTransformationSequence[0].RescaleType = "MGML"
    _file(given, ds)


@refused(Code.SLICE_GAP, "a frame lost", "a converter dropped one")
def _(given: Given) -> None:
    del given.slices[9]
    _file(given, enhanced(given.slices))


@flagged(Code.DUPLICATES_DROPPED, name="a frame twice", cause="a converter was given one slice twice", same=True)
def _(given: Given) -> None:
    _file(given, enhanced([*given.slices, given.slices[7]]))


@refused(Code.GEOMETRY_MIXED, "two different frames at one place", "a repeat in the scan's file")
def _(given: Given) -> None:
    other = deepcopy(given.slices[7])
    put(other, stored(other) + 3)
    _file(given, enhanced([*given.slices, other]))


# Several scans in one file.


def _two(given: Given, other: Sequence[Dataset]) -> Dataset:
    ds = enhanced([*given.slices, *other], spread=True)
    for frame, source in zip(groups(ds), [*given.slices, *other], strict=True):
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = source.ImageOrientationPatient
        if "ConvolutionKernel" in source:
            frame.CTReconstructionSequence = [item(ConvolutionKernel=source.ConvolutionKernel)]
    return ds


def _second(ds: Dataset, **content: object) -> None:
    for frame in groups(ds)[20:]:
        for keyword, value in content.items():
            setattr(frame.FrameContentSequence[0], keyword, value)


@flagged(Code.SERIES_CHOSEN, name="two stacks of one head", cause="a scan repeated after motion")
def _(given: Given) -> None:
    ds = _two(given, [deepcopy(other) for other in given.slices])
    _second(ds, StackID="2")
    _file(given, ds)


@flagged(Code.SERIES_CHOSEN, name="two times in one file", cause="a scan repeated after motion")
def _(given: Given) -> None:
    ds = _two(given, given.copy())
    _second(ds, TemporalPositionIndex=2)
    _file(given, ds)


@refused(Code.GEOMETRY_MIXED, "two times in one file, without an index", "perfusion, badly converted")
def _(given: Given) -> None:
    later = given.copy()
    for ds in later:
        put(ds, stored(ds) + 2)
    _file(given, _two(given, later))


@read_right("two kernels in one file, as two stacks", "newer scanners")
def _(given: Given) -> None:
    bone = given.copy()
    for ds in bone:
        put(ds, stored(ds) + 2)
        ds.ConvolutionKernel = "H60s"
    ds = _two(given, bone)
    _second(ds, StackID="2")
    _file(given, ds)


@refused(Code.GEOMETRY_MIXED, "two kernels in one file, as one stack", "a converter joined two series")
def _(given: Given) -> None:
    bone = given.copy()
    for ds in bone:
        put(ds, stored(ds) + 2)
        ds.ConvolutionKernel = "H60s"
    _file(given, _two(given, bone))


@read_right("a coronal stack beside the axial one", "newer scanners")
def _(given: Given) -> None:
    coronal = given.copy()
    for i, ds in enumerate(coronal):
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-118, 5.0 * i, 80]
    ds = _two(given, coronal)
    _second(ds, StackID="2")
    _file(given, ds)


@refused(Code.TOO_FEW_SLICES, "a stack for every frame", "a converter counts where it should not")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for i, frame in enumerate(groups(ds)):
        frame.FrameContentSequence[0].StackID = str(i + 1)
    _file(given, ds)


# What the frames show.


for _name, _cause, _kind in (
    ("an Enhanced localizer", "the scan was not sent", ("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")),
    ("frames of a MIP", "a workstation's projection", ("DERIVED", "PRIMARY", "VOLUME", "MAXIMUM")),
    ("frames of a mean", "a workstation's average", ("DERIVED", "PRIMARY", "VOLUME", "MEAN")),
    ("frames that were resampled", "a workstation's reformat", ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")),
    ("frames of one energy", "dual-energy software", ("DERIVED", "PRIMARY", "VOLUME", "ENERGY_PROP_WT")),
    ("derived frames that say no more", "a workstation", ("DERIVED", "SECONDARY", "VOLUME", "NONE")),
):

    @refused(Code.NO_AXIAL_SERIES, _name, _cause)
    def _(given: Given, kind: tuple[str, ...] = _kind) -> None:
        ds = enhanced(given.slices)
        _kinds(ds, *kind)
        _file(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a MIP that only the file's image type tells", "a converter without frame types")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]
    del shared_of(ds).CTImageFrameTypeSequence
    _file(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a MIP that only the technique of calculation tells", "a workstation")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).CTImageFrameTypeSequence[0].VolumeBasedCalculationTechnique = "MAX_IP"
    _file(given, ds)


@refused(Code.GEOMETRY_MISSING, "two positions in one frame", "a converter's mistake")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    groups(ds)[5].PlanePositionSequence.append(item(ImagePositionPatient=[0, 0, 0]))
    _file(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a MIP in the file's image type, plain in the frames", "the file was relabelled")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]
    _file(given, ds)


@read_right("frames of mixed kinds: the file's image type is MIXED", "a localizer's stack in the scan's file")
def _(given: Given) -> None:
    ds = _two(given, given.copy())
    _second(ds, StackID="2")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "MIXED", "MIXED"]
    for frame in groups(ds)[20:]:
        frame.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    _file(given, ds)


@flagged(Code.FILES_PASSED_OVER, name="a localizer among the frames", cause="a converter joined all", same=True)
def _(given: Given) -> None:
    ds = enhanced([*given.slices, given.slices[0]], spread=True)
    groups(ds)[20].CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    _file(given, ds)


@read_right("an Enhanced localizer beside the scan", "usual")
def _(given: Given) -> None:
    scout = enhanced(given.slices[:1], number=2)
    scout.SeriesInstanceUID = f"{SERIES}.5"
    _kinds(scout, "ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
    _file(given, enhanced(given.slices), scout)


@refused(Code.CONTRAST, "a contrast agent in an Enhanced CT", "the second phase was sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.ContrastBolusAgentSequence = [item(CodeMeaning="Iohexol", ContrastBolusAgentNumber=1)]
    _file(given, ds)


@refused(Code.CONTRAST, "a contrast agent that only the frames tell", "the second phase, its header rewritten")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        frame.ContrastBolusUsageSequence = [item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES")]
    _file(given, ds)


@refused(Code.UNREADABLE, "contrast given to all frames, and not to one", "two headers merged")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).ContrastBolusUsageSequence = [item(ContrastBolusAgentAdministered="YES")]
    groups(ds)[5].ContrastBolusUsageSequence = [item(ContrastBolusAgentAdministered="NO")]
    _file(given, ds)


for _flavor in ("ANGIO", "PERFUSION"):

    @refused(Code.CONTRAST, f"frames of the kind {_flavor}", "the wrong series was sent")
    def _(given: Given, flavor: str = _flavor) -> None:
        ds = enhanced(given.slices)
        _kinds(ds, "ORIGINAL", "PRIMARY", flavor, "NONE")
        _file(given, ds)


@refused(Code.CONTRAST, "a second contrast agent in the frames", "one by mouth before, one by vein now")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).ContrastBolusUsageSequence = [
        item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="NO"),
        item(ContrastBolusAgentNumber=2, ContrastBolusAgentAdministered="YES"),
    ]
    _file(given, ds)


for _shared in (True, False):
    _where = "shared" if _shared else "frames'"

    @refused(Code.CONTRAST, f"a contrast agent in the {_where} converted attributes", "an archive that joins slices")
    def _(given: Given, shared: bool = _shared) -> None:
        ds = enhanced(given.slices, sop=LEGACY)
        agent = item(ContrastBolusAgent="ULTRAVIST 300")
        if shared:
            shared_of(ds).UnassignedSharedConvertedAttributesSequence = [agent]
        else:
            for frame in groups(ds):
                frame.UnassignedPerFrameConvertedAttributesSequence = [agent]
        _file(given, ds)


@read_right("the word for no contrast in the converted attributes", "an archive that joins slices")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    shared_of(ds).UnassignedSharedConvertedAttributesSequence = [item(ContrastBolusAgent="NONE")]
    _file(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a bone kernel in the frames", "the brain series was not sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).CTReconstructionSequence = [item(ConvolutionKernel="H60s")]
    _file(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a bone kernel in the converted attributes", "the brain series was not sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    shared = shared_of(ds)
    if "CTReconstructionSequence" in shared:
        del shared.CTReconstructionSequence
    shared.UnassignedSharedConvertedAttributesSequence = [item(ConvolutionKernel="H60s")]
    _file(given, ds)


def _anatomy(meaning: str) -> list[Dataset]:
    code = item(CodeValue="T-D3000", CodingSchemeDesignator="SRT", CodeMeaning=meaning)
    return [item(FrameLaterality="U", AnatomicRegionSequence=[code])]


@refused(Code.NOT_HEAD, "another body part in the frames' anatomy", "the wrong series was sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).FrameAnatomySequence = _anatomy("Chest")
    _file(given, ds)


@read_right("a head in the frames' anatomy", "usual")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).FrameAnatomySequence = _anatomy("Head")
    _file(given, ds)


for _name, _modality, _sop in (
    ("an Enhanced MR", "MR", "1.2.840.10008.5.1.4.1.1.4.1"),
    ("an Enhanced PET", "PT", "1.2.840.10008.5.1.4.1.1.130"),
    ("a cone-beam CT of an angiography unit", "XA", "1.2.840.10008.5.1.4.1.1.13.1.1"),
):

    @refused(Code.NOT_CT, _name, "the wrong examination was sent")
    def _(given: Given, modality: str = _modality, sop: str = _sop) -> None:
        ds = enhanced(given.slices, sop=sop)
        ds.Modality = modality
        _file(given, ds)


@refused(Code.PIXELS_MISSING, "many frames in a plain CT file", "a converter that kept the old class")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices, sop="1.2.840.10008.5.1.4.1.1.2"))


@refused(Code.NO_AXIAL_SERIES, "many frames in a secondary capture", "a workstation's film")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices, sop="1.2.840.10008.5.1.4.1.1.7.3"))


# Frames that do not add up.


def _count(value: int | None, given: Given) -> None:
    ds = enhanced(given.slices)
    assign(ds, NumberOfFrames=value)
    _file(given, ds)


for _value, _name, _code in (
    (19, "one frame fewer than there are", Code.UNREADABLE),
    (21, "one frame more than there are", Code.UNREADABLE),
    (1, "one frame of many, by its number", Code.UNREADABLE),
    (0, "no frame, by its number", Code.UNREADABLE),
    (None, "no number of frames", Code.UNREADABLE),
    (5000, "5,000 frames, by their number", Code.TOO_LARGE),
):
    refused(_code, _name, "a frame dropped or added, its number not updated")(partial(_count, _value))


@refused(Code.UNREADABLE, "fewer groups than frames", "a converter stopped early")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    del ds.PerFrameFunctionalGroupsSequence[15:]
    _file(given, ds)


@refused(Code.PIXELS_MISSING, "no groups for the frames", "a gateway that drops what it does not know")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    del ds.PerFrameFunctionalGroupsSequence
    del ds.SharedFunctionalGroupsSequence
    _file(given, ds)


@refused(Code.UNREADABLE, "an Enhanced CT without a frame", "an empty shell")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.NumberOfFrames, ds.PixelData = 0, b""
    ds.PerFrameFunctionalGroupsSequence = []
    _file(given, ds)


@refused(Code.UNREADABLE, "an Enhanced CT without pixels", "a header-only transfer")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    del ds.PixelData
    _file(given, ds)


def _pixels(change: Callable[[bytes], bytes], given: Given) -> None:
    ds = enhanced(given.slices)
    ds.PixelData = change(ds.PixelData)
    ds["PixelData"].VR = "OW"
    _file(given, ds)


for _change, _name, _cause in (
    (lambda data: data[:-8192], "frames shorter by one", "a converter stopped early"),
    (lambda data: data[:-2], "frames shorter by one pixel", "a value lost"),
    (lambda data: data + bytes(1024), "frames padded inside of the pixel data", "written in whole sectors"),
    (lambda data: data + bytes(8192), "frames longer by one", "a frame added, its number not updated"),
):
    refused(Code.UNREADABLE, _name, _cause)(partial(_pixels, _change))


@refused(Code.UNREADABLE, "an Enhanced CT cut off", "a transfer interrupted")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices))
    (file,) = given.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-9000])


@read_right("zeros after the frames", "disks written in whole sectors")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices))
    (file,) = given.folder.iterdir()
    file.write_bytes(file.read_bytes() + bytes(2048))


@refused(Code.UNREADABLE, "the groups of the frames twice", "two headers merged")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices))
    (file,) = given.folder.iterdir()
    data = file.read_bytes()
    at, end = data.index(b"\x00\x52\x30\x92SQ"), data.index(b"\xe0\x7f\x10\x00OW")
    file.write_bytes(data[:end] + data[at:end] + data[end:])


# Several files of one scan.


def _parts(given: Given, total: bool = True, *bounds: int) -> list[Dataset]:
    """The scan as a concatenation."""
    edges = [0, *(bounds or (7, 14)), 20]
    parts = []
    for number, (a, b) in enumerate(pairwise(edges), start=1):
        ds = enhanced(given.slices[a:b], number=number)
        ds.ConcatenationUID, ds.SOPInstanceUIDOfConcatenationSource = f"{SERIES}.1.8", f"{SERIES}.1.7"
        ds.InConcatenationNumber, ds.ConcatenationFrameOffsetNumber = number, a
        if total:
            ds.InConcatenationTotalNumber = len(edges) - 1
        parts.append(ds)
    return parts


@read_right("a scan in three parts", "a concatenation: files kept small")
def _(given: Given) -> None:
    _file(given, *_parts(given))


@read_right("a scan in three parts, in another order", "names tell nothing")
def _(given: Given) -> None:
    _file(given, *reversed(_parts(given)))


@read_right("a scan in three parts that do not say how many", "allowed")
def _(given: Given) -> None:
    _file(given, *_parts(given, False))


for _number, _where in ((0, "first"), (1, "middle"), (2, "last")):

    @refused(Code.SLICE_GAP, f"a scan in three parts, the {_where} lost", "a transfer interrupted")
    def _(given: Given, number: int = _number) -> None:
        parts = _parts(given, True, 4, 14)
        del parts[number]
        _file(given, *parts)


@refused(
    Code.SLICE_GAP, "a scan in parts that do not say how many, the first lost", "a transfer interrupted",
)  # fmt: skip
def _(given: Given) -> None:
    _file(given, *_parts(given, False, 3, 17)[1:])


@refused(Code.UNREADABLE, "a scan in three parts, the last cut off", "a transfer interrupted")
def _(given: Given) -> None:
    _file(given, *_parts(given, True, 3, 17))
    file = max(given.folder.iterdir())
    file.write_bytes(file.read_bytes()[:-5000])


@flagged(Code.DUPLICATES_DROPPED, name="a scan in three parts, one twice", cause="sent again", same=True)
def _(given: Given) -> None:
    parts = _parts(given)
    _file(given, *parts, parts[1])


@refused(
    Code.SLICE_GAP, "a scan in three parts, one twice and one lost", "sent again, in vain",
)  # fmt: skip
def _(given: Given) -> None:
    parts = _parts(given, True, 3, 17)
    _file(given, *parts[:2], parts[1])


@refused(Code.SLICE_GAP, "a part of a scan on a medium, the last not there", "a scratched disk")
def _(given: Given) -> Path:
    given.written = True
    made = Medium(given.folder)
    files = made.add(_parts(given, False, 3, 17), "S0001")
    place = made.burn()
    files[2].unlink()
    return place


@read_right("two files of one series, each a half", "a scanner that splits at the skull base")
def _(given: Given) -> None:
    _file(given, enhanced(given.slices[:10]), enhanced(given.slices[10:], number=2))


@flagged(Code.DUPLICATES_DROPPED, name="an Enhanced CT twice", cause="exported twice to one disk", same=True)
def _(given: Given) -> None:
    _file(given, enhanced(given.slices), enhanced(given.slices, number=2))


@refused(Code.GEOMETRY_MIXED, "two Enhanced CT of different patients in one series", "series UIDs reused")
def _(given: Given) -> None:
    other = enhanced(given.slices[10:], number=2)
    other.PatientID = f"{CANARY}OTHER"
    _file(given, enhanced(given.slices[:10]), other)


@flagged(Code.SERIES_CHOSEN, name="an Enhanced CT beside its slices", cause="an archive that converts keeps both")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    ds.SeriesInstanceUID = f"{SERIES}.4"
    given.write()
    _file(given, ds)
