"""Multi-frame CT: what the frames show, and of what."""

from __future__ import annotations

from pydicom.dataset import Dataset

from defects.enhanced import LEGACY, enhanced, groups, item, joined, put_second, set_kind, shared_of, write
from defects.frames import FRAMES
from defects.given import SERIES, Given
from edgehem.errors import Code

refused, flagged, read_right = FRAMES.refused, FRAMES.flagged, FRAMES.read_right


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
        set_kind(ds, *kind)
        write(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a MIP that only the file's image type tells", "a converter without frame types")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]
    del shared_of(ds).CTImageFrameTypeSequence
    write(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a MIP that only the technique of calculation tells", "a workstation")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).CTImageFrameTypeSequence[0].VolumeBasedCalculationTechnique = "MAX_IP"
    write(given, ds)


@refused(Code.GEOMETRY_MISSING, "two positions in one frame", "a converter's mistake")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    groups(ds)[5].PlanePositionSequence.append(item(ImagePositionPatient=[0, 0, 0]))
    write(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a MIP in the file's image type, plain in the frames", "the file was relabelled")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]
    write(given, ds)


@read_right("frames of mixed kinds: the file's image type is MIXED", "a localizer's stack in the scan's file")
def _(given: Given) -> None:
    ds = joined(given, given.copy())
    put_second(ds, StackID="2")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "MIXED", "MIXED"]
    for frame in groups(ds)[20:]:
        frame.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    write(given, ds)


@flagged(Code.FILES_PASSED_OVER, name="a localizer among the frames", cause="a converter joined all", same=True)
def _(given: Given) -> None:
    ds = enhanced([*given.slices, given.slices[0]], spread=True)
    groups(ds)[20].CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    write(given, ds)


@read_right("an Enhanced localizer beside the scan", "usual")
def _(given: Given) -> None:
    scout = enhanced(given.slices[:1], number=2)
    scout.SeriesInstanceUID = f"{SERIES}.5"
    set_kind(scout, "ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
    write(given, enhanced(given.slices), scout)


@refused(Code.CONTRAST, "a contrast agent in an Enhanced CT", "the second phase was sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    ds.ContrastBolusAgentSequence = [item(CodeMeaning="Iohexol", ContrastBolusAgentNumber=1)]
    write(given, ds)


@refused(Code.CONTRAST, "a contrast agent that only the frames tell", "the second phase, its header rewritten")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    for frame in groups(ds):
        frame.ContrastBolusUsageSequence = [item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES")]
    write(given, ds)


@refused(Code.UNREADABLE, "contrast given to all frames, and not to one", "two headers merged")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).ContrastBolusUsageSequence = [item(ContrastBolusAgentAdministered="YES")]
    groups(ds)[5].ContrastBolusUsageSequence = [item(ContrastBolusAgentAdministered="NO")]
    write(given, ds)


for _flavor in ("ANGIO", "PERFUSION"):

    @refused(Code.CONTRAST, f"frames of the kind {_flavor}", "the wrong series was sent")
    def _(given: Given, flavor: str = _flavor) -> None:
        ds = enhanced(given.slices)
        set_kind(ds, "ORIGINAL", "PRIMARY", flavor, "NONE")
        write(given, ds)


@refused(Code.CONTRAST, "a second contrast agent in the frames", "one by mouth before, one by vein now")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).ContrastBolusUsageSequence = [
        item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="NO"),
        item(ContrastBolusAgentNumber=2, ContrastBolusAgentAdministered="YES"),
    ]
    write(given, ds)


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
        write(given, ds)


@read_right("the word for no contrast in the converted attributes", "an archive that joins slices")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    shared_of(ds).UnassignedSharedConvertedAttributesSequence = [item(ContrastBolusAgent="NONE")]
    write(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a bone kernel in the frames", "the brain series was not sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).CTReconstructionSequence = [item(ConvolutionKernel="H60s")]
    write(given, ds)


@refused(Code.NO_AXIAL_SERIES, "a bone kernel in the converted attributes", "the brain series was not sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices, sop=LEGACY)
    shared = shared_of(ds)
    if "CTReconstructionSequence" in shared:
        del shared.CTReconstructionSequence
    shared.UnassignedSharedConvertedAttributesSequence = [item(ConvolutionKernel="H60s")]
    write(given, ds)


def _anatomy(meaning: str) -> list[Dataset]:
    code = item(CodeValue="T-D3000", CodingSchemeDesignator="SRT", CodeMeaning=meaning)
    return [item(FrameLaterality="U", AnatomicRegionSequence=[code])]


@refused(Code.NOT_HEAD, "another body part in the frames' anatomy", "the wrong series was sent")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).FrameAnatomySequence = _anatomy("Chest")
    write(given, ds)


@read_right("a head in the frames' anatomy", "usual")
def _(given: Given) -> None:
    ds = enhanced(given.slices)
    shared_of(ds).FrameAnatomySequence = _anatomy("Head")
    write(given, ds)


for _name, _modality, _sop in (
    ("an Enhanced MR", "MR", "1.2.840.10008.5.1.4.1.1.4.1"),
    ("an Enhanced PET", "PT", "1.2.840.10008.5.1.4.1.1.130"),
    ("a cone-beam CT of an angiography unit", "XA", "1.2.840.10008.5.1.4.1.1.13.1.1"),
):

    @refused(Code.NOT_CT, _name, "the wrong examination was sent")
    def _(given: Given, modality: str = _modality, sop: str = _sop) -> None:
        ds = enhanced(given.slices, sop=sop)
        ds.Modality = modality
        write(given, ds)


@refused(Code.PIXELS_MISSING, "many frames in a plain CT file", "a converter that kept the old class")
def _(given: Given) -> None:
    write(given, enhanced(given.slices, sop="1.2.840.10008.5.1.4.1.1.2"))


@refused(Code.NO_AXIAL_SERIES, "many frames in a secondary capture", "a workstation's film")
def _(given: Given) -> None:
    write(given, enhanced(given.slices, sop="1.2.840.10008.5.1.4.1.1.7.3"))
