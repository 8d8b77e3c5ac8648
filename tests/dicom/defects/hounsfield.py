"""What stored values mean: rescale, and whether it is true."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from defects.given import Family, Given, hounsfield, put, raw, stored
from edgehem.errors import Code

HOUNSFIELD = Family("Hounsfield units")
refused, flagged, read_right = HOUNSFIELD.refused, HOUNSFIELD.flagged, HOUNSFIELD.read_right

for _name, _cause, _keyword, _value in (
    ("no slope", "an anonymiser with a short list", "RescaleSlope", None),
    ("no intercept", "an anonymiser with a short list", "RescaleIntercept", None),
    ("slope empty", "a gateway keeps the tag and drops its value", "RescaleSlope", b""),
    ("slope of zero", "a converter's default", "RescaleSlope", b"0"),
    ("slope not a number", "a converter wrote what it computed", "RescaleSlope", b"NaN"),
    ("slope infinite", "a converter divided by zero", "RescaleSlope", b"1e999"),
    ("slope of a million", "a PET scale", "RescaleSlope", b"1e6"),
    ("slope with a decimal comma", "a converter in a country with commas", "RescaleSlope", b"1,0"),
    ("intercept of a billion", "a corrupt header", "RescaleIntercept", b"-1e9"),
    ("two slopes in one value", "a merged header", "RescaleSlope", b"1\\1"),
    ("optical density for Hounsfield units", "a film digitiser", "RescaleType", b"OD"),
    ("electron density for Hounsfield units", "a dual-energy or planning map", "RescaleType", b"ED"),
):

    @refused(Code.RESCALE_MISSING, _name, _cause)
    def _(given: Given, keyword: str = _keyword, value: bytes | None = _value) -> None:
        for ds in given.slices:
            if value is None:
                delattr(ds, keyword)
            else:
                raw(ds, keyword, value)


@refused(Code.RESCALE_MISSING, "a lookup table instead of a rescale", "a digitiser's modality LUT")
def _(given: Given) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
    for ds in given.slices:
        ds.ModalityLUTSequence = [table]
        del ds.RescaleSlope, ds.RescaleIntercept


@refused(Code.RESCALE_MISSING, "Hounsfield units without a rescale", "a converter that rescaled and dropped the tags")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, hounsfield(ds), signed=True)
        del ds.RescaleSlope, ds.RescaleIntercept


@flagged(Code.INTERCEPT_ZERO, name="Hounsfield units, intercept 0", cause="usual for some scanners", same=True)
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, hounsfield(ds), signed=True)
        ds.RescaleIntercept = "0"


@refused(Code.HU_IMPLAUSIBLE, "Hounsfield units, rescaled once more", "a converter that kept the tags")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, hounsfield(ds), signed=True)


@refused(Code.HU_IMPLAUSIBLE, "intercept forgotten", "a converter that wrote 0")
def _(given: Given) -> None:
    given.each(RescaleIntercept="0")


for _shift in (-200, -100, -40, -24, 24, 40, 100, 200):

    @refused(Code.HU_IMPLAUSIBLE, f"intercept off by {_shift:+d}", "a scanner out of calibration, or a wrong tag")
    def _(given: Given, shift: int = _shift) -> None:
        given.each(RescaleIntercept=str(-1024 + shift))


@refused(Code.HU_IMPLAUSIBLE, "slope of two", "a wrong tag")
def _(given: Given) -> None:
    given.each(RescaleSlope="2")


@refused(Code.HU_IMPLAUSIBLE, "slope below zero", "an inverted film copy")
def _(given: Given) -> None:
    given.each(RescaleSlope="-1", RescaleIntercept="1024")


@refused(Code.HU_IMPLAUSIBLE, "a slope for every slice", "a PET habit: one scan of CT has one")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        ds.RescaleSlope = f"{1 + i / 100:.2f}"


@refused(Code.HU_IMPLAUSIBLE, "another intercept on one slice", "a gateway rewrote one header")
def _(given: Given) -> None:
    given.slices[10].RescaleIntercept = "0"


@read_right("an intercept for every slice, as the pixels need it", "a compression that packs each slice")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        put(ds, stored(ds) + 10 * i)
        ds.RescaleIntercept = str(-1024 - 10 * i)


@read_right("no rescale type", "usual: absent means Hounsfield units")
def _(given: Given) -> None:
    given.each(RescaleType=None)


@read_right("rescale type US", "usual for some scanners: unspecified")
def _(given: Given) -> None:
    given.each(RescaleType="US")


@read_right("slope of a half", "a scanner with finer steps")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, stored(ds) * 2)
        ds.RescaleSlope = "0.5"


@refused(Code.HU_IMPLAUSIBLE, "signed values read as unsigned", "a wrong pixel representation")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, hounsfield(ds), signed=False)
        ds.RescaleIntercept = "0"


@refused(Code.HU_IMPLAUSIBLE, "no air", "a picture cropped to the brain")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, np.maximum(stored(ds), 1044))


@refused(Code.HU_IMPLAUSIBLE, "nothing but air", "a scan of the empty table")
def _(given: Given) -> None:
    for ds in given.slices:
        put(ds, np.minimum(stored(ds), 30))
