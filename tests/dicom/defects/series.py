"""What kind of images came, and which series of several."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from defects.given import SERIES, Family, Given, assign, put, stored
from edgehem.errors import Code

KINDS = Family("series")
refused, flagged, read_right = KINDS.refused, KINDS.flagged, KINDS.read_right

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SR, SEG, ECG, DOSE = (
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("88.33", "66.4", "9.1.1", "88.67")
)  # fmt: skip
LOCALIZER = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

for _code, _name, _cause, _tags in (
    (Code.NO_AXIAL_SERIES, "only a localizer", "the scan was not sent", {"ImageType": LOCALIZER}),
    (Code.NO_AXIAL_SERIES, "a scout by its description only", "a scanner with plain image types",
     {"SeriesDescription": "Topogram 0.6 T20s"}),
    (Code.NO_AXIAL_SERIES, "a dose page", "a screen saved as CT", {"SeriesDescription": "Dose Report"}),
    (Code.NO_AXIAL_SERIES, "a secondary capture that says CT", "a workstation's screen shots",
     {"SOPClassUID": CAPTURE, "ImageType": ["DERIVED", "SECONDARY"]}),
    (Code.NO_AXIAL_SERIES, "an MPR", "a workstation's reformat", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    (Code.NO_AXIAL_SERIES, "a MIP", "a workstation's projection",
     {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"]}),
    (Code.NO_AXIAL_SERIES, "a volume rendering by its description only", "a workstation",
     {"SeriesDescription": "VRT 3D skull"}),
    (Code.NO_AXIAL_SERIES, "a derived map", "perfusion software", {"ImageType": ["DERIVED", "PRIMARY", "CBF"]}),
    (Code.CONTRAST, "a contrast agent in its tag", "the second phase was sent",
     {"ContrastBolusAgent": "ULTRAVIST 300"}),
    (Code.CONTRAST, "a contrast agent in its sequence", "the second phase was sent",
     {"ContrastBolusAgentSequence": [Dataset()]}),
    (Code.CONTRAST, "an angiography by its description only", "the wrong series was sent",
     {"SeriesDescription": "CTA Head 0.75"}),
    (Code.NOT_HEAD, "another body part in its tag", "the wrong series was sent", {"BodyPartExamined": "CHEST"}),
    (Code.NOT_HEAD, "another body part in the description", "the wrong series was sent",
     {"BodyPartExamined": None, "SeriesDescription": "ABDOMEN 5mm"}),
    (Code.NOT_CT, "MR", "the wrong examination was sent",
     {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}),
    (Code.NOT_CT, "PET", "half of a PET/CT was sent",
     {"Modality": "PT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"}),
    (Code.NOT_CT, "ultrasound", "the wrong examination was sent", {"Modality": "US"}),
):  # fmt: skip

    @refused(_code, _name, _cause)
    def _(given: Given, tags: dict[str, object] = _tags) -> None:
        given.each(**tags)


def _object(given: Given, modality: str, sop_class: str) -> Dataset:
    """An object without an image."""
    ds = given.copy(9)[0]
    assign(ds, PixelData=None, Rows=None, Columns=None, Modality=modality, SOPClassUID=sop_class)
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    return ds


for _name, _modality, _sop, _code in (
    ("only a dose report", "SR", DOSE, Code.PIXELS_MISSING),
    ("only a structured report", "SR", SR, Code.PIXELS_MISSING),
    ("only an ECG", "ECG", ECG, Code.NOT_CT),
    ("only a presentation state", "PR", "1.2.840.10008.5.1.4.1.1.11.1", Code.PIXELS_MISSING),
    ("only a document", "DOC", "1.2.840.10008.5.1.4.1.1.104.1", Code.PIXELS_MISSING),
):

    @refused(_code, _name, "the images were not sent")
    def _(given: Given, modality: str = _modality, sop: str = _sop) -> None:
        given.write([_object(given, modality, sop)])


@refused(Code.NOT_CT, "only a segmentation", "the images were not sent")
def _(given: Given) -> None:
    ds = given.copy(9)[0]
    assign(ds, Modality="SEG", SOPClassUID=SEG, NumberOfFrames=1)
    given.write([ds])


@refused(Code.NO_AXIAL_SERIES, "a bone kernel only", "the brain series was not sent")
def _(given: Given) -> None:
    given.each(ConvolutionKernel="H60s")


@read_right("a brain and a bone kernel", "usual")
def _(given: Given) -> None:
    others = given.copy()
    for ds in others:
        ds.ConvolutionKernel, ds.SeriesDescription = "H60s", "Bone"
    given.write()
    given.write(others, prefix="A")


@flagged(Code.SERIES_CHOSEN, name="two head series", cause="a scan repeated after motion")
def _(given: Given) -> None:
    given.write()
    given.write(given.copy(), prefix="B")


@flagged(Code.SERIES_CHOSEN, name="thick and thin slices of one scan", cause="usual")
def _(given: Given) -> None:
    thick = given.copy()[::2]
    for i, ds in enumerate(thick):
        mean = (stored(given.slices[2 * i]) + stored(given.slices[2 * i + 1])) / 2
        put(ds, mean)
        ds.SliceThickness = str(2 * float(ds.SliceThickness))[:16]
    given.write()
    given.write(thick, prefix="B")


@read_right("a scout, a dose report and a presentation state beside the scan", "usual")
def _(given: Given) -> None:
    scout = given.copy(5)[0]
    scout.ImageType = LOCALIZER
    given.write()
    given.write([scout, _object(given, "SR", DOSE), _object(given, "PR", "1.2.840.10008.5.1.4.1.1.11.1")], prefix="X")


@flagged(Code.FILES_PASSED_OVER, name="a scout inside the scan's series", cause="older scanners", same=True)
def _(given: Given) -> None:
    scout = given.copy(1)[0]
    assign(scout, ImageType=LOCALIZER, SeriesInstanceUID=given.slices[0].SeriesInstanceUID)
    given.write()
    given.write([scout], prefix="X")


@read_right("no descriptions, kernel or body part", "an anonymiser, or a plain scanner")
def _(given: Given) -> None:
    given.each(
        SeriesDescription=None, StudyDescription=None, BodyPartExamined=None, ConvolutionKernel=None, ImageType=None
    )


@flagged(Code.LOSSY, name="lossy compression undone", cause="the tag stays when the syntax is gone", same=True)
def _(given: Given) -> None:
    given.each(LossyImageCompression="01", ImageType=["DERIVED", "PRIMARY", "AXIAL"])


@refused(Code.GEOMETRY_MIXED, "a perfusion series", "forty time points at each place, no label")
def _(given: Given) -> None:
    later = given.copy(1)
    for ds in later:
        ds.SeriesInstanceUID = given.slices[0].SeriesInstanceUID
        put(ds, stored(ds) + np.int64(1))
    given.write()
    given.write(later, prefix="B")


@flagged(Code.SERIES_CHOSEN, name="a head series with a gap beside a whole one", cause="a repeat after a lost slice")
def _(given: Given) -> None:
    others = given.copy()
    del others[13]
    given.write()
    given.write(others, prefix="B")


@refused(Code.GEOMETRY_MIXED, "two examinations of one patient", "a follow-up exported with its prior")
def _(given: Given) -> None:
    prior = given.copy()
    for ds in prior:
        ds.StudyInstanceUID = f"{SERIES}.999"
    given.write()
    given.write(prior, prefix="B")
