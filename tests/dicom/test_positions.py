"""Prone, feet first, on a side: left stays left. One asymmetric phantom, the same head in eight positions.

A scanner turns the picture with the table; position and orientation in the files say how. The head below bleeds on one
side only, and its suspected region, as the result gives it, must lie on that side of the patient whatever the picture.
"""

from __future__ import annotations

import numpy as np
import pytest

import edgehem
from edgehem.dicom import read_study
from edgehem.phantom.bleeds import Bleed
from edgehem.phantom.cases import Protocol, make_case
from edgehem.phantom.files import to_dicom
from edgehem.phantom.hematoma import side_of

PROTOCOL = Protocol(thickness_mm=5.0, tilt_deg=0.0, variable_spacing=False, intercept=-1024, matrix=256)

POSITIONS = {
    # position: picture turned about its diagonal?, rows backwards?, columns backwards?
    "HFS": (False, False, False),
    "HFP": (False, True, True),
    "FFS": (False, False, True),
    "FFP": (False, True, False),
    "HFDL": (True, False, True),
    "HFDR": (True, True, False),
    "FFDL": (True, False, False),
    "FFDR": (True, True, True),
}
"""The table's eight positions as turns and mirrors of the picture, geometry going with it (PS3.3 C.7.3.1.1.2)."""


def turn(ds, position):
    """Lay the same head on the table in another way: pixels, first pixel's place and directions change together."""
    transposed, rows_backwards, columns_backwards = POSITIONS[position]
    pixels = np.frombuffer(ds.PixelData, dtype="<i2").reshape(ds.Rows, ds.Columns)
    origin = np.array(ds.ImagePositionPatient, dtype=float)
    along_row, along_column = np.array(ds.ImageOrientationPatient, dtype=float).reshape(2, 3)
    down, right = map(float, ds.PixelSpacing)
    if transposed:
        pixels, along_row, along_column, down, right = pixels.T, along_column, along_row, right, down
    if rows_backwards:
        origin = origin + along_column * down * (pixels.shape[0] - 1)
        pixels, along_column = pixels[::-1], -along_column
    if columns_backwards:
        origin = origin + along_row * right * (pixels.shape[1] - 1)
        pixels, along_row = pixels[:, ::-1], -along_row
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    ds.Rows, ds.Columns = pixels.shape
    ds.ImagePositionPatient = [f"{c:.8g}" for c in origin]
    ds.ImageOrientationPatient = [f"{c:.8g}" for c in (*along_row, *along_column)]
    ds.PixelSpacing = [f"{down:.8g}", f"{right:.8g}"]
    ds.PatientPosition = position


def place_of(volume, index, box):
    """Centre of a box on a slice, in patient coordinates: mm towards left, back, head."""
    row, column = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    down, right = volume.pixel_spacing
    return volume.origin[index] + row * down * volume.column_cosines + column * right * volume.row_cosines


@pytest.fixture(scope="module", params=[0, 1], ids=["one side", "other side"])
def bleeding(request):
    """A head with a large hemorrhage on one side: the case, and the hemorrhage's centre in patient coordinates."""
    case = make_case(
        request.param, bleeds=(Bleed(subtype="intraparenchymal", ml=60.0),), protocol=PROTOCOL, voxel_mm=2.0
    )
    index, row, column = np.argwhere(case.mask > 0).mean(axis=0)
    centre = place_of(case.volume, round(index), (row, column, row, column))
    assert centre[0] * side_of(request.param) > 0
    return case, centre


def test_the_two_heads_bleed_on_two_sides():
    assert {side_of(0), side_of(1)} == {-1, 1}


@pytest.mark.parametrize("position", POSITIONS)
def test_left_stays_left(bleeding, tmp_path, position):
    case, centre = bleeding
    for number, ds in enumerate(to_dicom(case)):
        turn(ds, position)
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    study = read_study(tmp_path)
    assert study.notes == ()
    result = edgehem.triage(tmp_path)
    box = next(key for key in result.key_slices if key.box is not None)
    found = place_of(study.volume, box.index, box.box)
    assert found[0] * centre[0] > 0
    assert np.abs(found - centre)[:2].max() < 25
