"""What the images show."""

from __future__ import annotations

import numpy as np

from defects.given import Family, Given, put, stored
from edgehem.errors import Code

HEAD = Family("head")
refused, flagged, read_right = HEAD.refused, HEAD.flagged, HEAD.read_right


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Millimetres from the middle of a 64 x 64 slice, y and x, for pixels of 6 mm."""
    y, x = (np.mgrid[:64, :64] - 31.5) * 6.0
    return y, x


@refused(Code.NOT_HEAD, "a chest", "the wrong examination was sent, without a label")
def _(given: Given) -> None:
    y, x = _grid()
    body = np.hypot(x / 170, y / 115)
    hu = np.where(body < 1, 45, -1000)
    hu[(np.abs(body - 0.88) < 0.05) & (np.sin(9 * np.arctan2(y, x)) > 0)] = 700
    for side in (-75, 75):
        hu[np.hypot((x - side) / 55, y / 80) < 1] = -830
    hu[np.hypot(x, y - 75) < 18] = 600
    for ds in given.slices:
        put(ds, hu + 1024)
        ds.PixelSpacing = [6, 6]


@refused(Code.NOT_HEAD, "an abdomen", "the wrong examination was sent, without a label")
def _(given: Given) -> None:
    y, x = _grid()
    hu = np.where(np.hypot(x / 170, y / 115) < 1, 50, -1000)
    hu[np.hypot(x, y - 75) < 20] = 600
    for ds in given.slices:
        put(ds, hu + 1024)
        ds.PixelSpacing = [6, 6]


@refused(Code.NOT_HEAD, "a water phantom", "the daily check of the scanner")
def _(given: Given) -> None:
    y, x = _grid()
    noise = np.random.default_rng(1)
    for ds in given.slices:
        hu = np.where(np.hypot(x, y) < 100, 8, -1000) + noise.normal(0, 4, (64, 64))
        put(ds, hu + 1024)
        ds.PixelSpacing = [6, 6]


@refused(Code.NOT_HEAD, "a head of the size of a fist", "an animal, or a wrong pixel size")
def _(given: Given) -> None:
    given.each(PixelSpacing=[1.4, 1.4])


@refused(Code.NOT_HEAD, "a head of half a metre", "a wrong pixel size")
def _(given: Given) -> None:
    given.each(PixelSpacing=[11, 11])


@refused(Code.NOT_HEAD, "half a head, cut lengthwise", "the field of view beside the patient")
def _(given: Given) -> None:
    for ds in given.slices:
        values = stored(ds)
        values[:, 32:] = 24
        put(ds, values)


@refused(Code.COVERAGE, "only the vertex", "a scan stopped, or a part of it sent")
def _(given: Given) -> None:
    del given.slices[:11]


@refused(Code.COVERAGE, "only the skull base", "a scan of the ears, or a part of it sent")
def _(given: Given) -> None:
    del given.slices[9:]


@refused(Code.COVERAGE, "the upper half only", "a scan stopped, or a part of it sent")
def _(given: Given) -> None:
    del given.slices[:10]


@refused(Code.COVERAGE, "the lower half only", "a scan stopped, or a part of it sent")
def _(given: Given) -> None:
    del given.slices[10:]


@flagged(Code.METAL, name="a piece of metal in the brain", cause="a clip, a coil, a bullet")
def _(given: Given) -> None:
    values = stored(given.slices[9])
    values[30, 38] = 4095
    put(given.slices[9], values)


@flagged(Code.MOTION, name="a head that moves from slice to slice", cause="a restless patient")
def _(given: Given) -> None:
    for i, ds in enumerate(given.slices):
        put(ds, np.roll(stored(ds), 2 * (i % 2), axis=1))


@flagged(Code.POSTOPERATIVE, name="a hole of 50 mm in the vault", cause="surgery")
def _(given: Given) -> None:
    y, x = _grid()
    for ds in given.slices[9:16]:
        values = stored(ds)
        values[(x > 0) & (np.abs(y) < 35) & (values > 1024 + 150)] = 1024 + 40
        put(ds, values)


@flagged(Code.POSTOPERATIVE, name="air inside of the skull", cause="surgery, or an open fracture")
def _(given: Given) -> None:
    for ds in given.slices[11:15]:
        values = stored(ds)
        values[22:25, 28:36] = 24
        put(ds, values)


@flagged(Code.AGE_UNDER_18, name="a child of five", cause="made for adults", same=True)
def _(given: Given) -> None:
    given.each(PatientAge="005Y")


@flagged(Code.AGE_UNDER_18, name="an infant in months", cause="made for adults", same=True)
def _(given: Given) -> None:
    given.each(PatientAge="009M")


@flagged(Code.AGE_UNDER_18, name="a child by the date of birth", cause="no age in the header", same=True)
def _(given: Given) -> None:
    given.each(PatientAge=None, PatientBirthDate="20150203")


@read_right("an age that cannot be", "typed in: says nothing")
def _(given: Given) -> None:
    given.each(PatientAge="999Y", PatientBirthDate="20990101")
