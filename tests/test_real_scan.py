"""The shipped bundle on one real head CT without hemorrhage, as it is and with blood-like inserts.

The scan is a judge: it was never used for training, calibration or the choice of a threshold.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import edgehem
from edgehem.dicom import Study, read_study
from edgehem.errors import Code
from edgehem.model import Model
from edgehem.result import Verdict

DATA = os.environ.get("EDGEHEM_TEST_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="EDGEHEM_TEST_DATA is not set: no real scan to judge by")

INSERT_ML = 20.0
INSERT_RADIUS_MM = (3 * INSERT_ML * 1000 / (4 * np.pi)) ** (1 / 3)
PLACES = 10


@pytest.fixture(scope="module")
def study() -> Study:
    return read_study(Path(str(DATA)) / "ct_head_tilt")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request: pytest.FixtureRequest) -> Model:
    return edgehem.load("hemorrhagenet", precision=request.param)


def hounsfield(study: Study) -> npt.NDArray[np.float32]:
    """HU [Z, Y, X]; padding stays far below air."""
    v = study.volume
    return v.pixels * v.slope[:, None, None] + v.intercept[:, None, None]


def world(study: Study, step: int = 1) -> npt.NDArray[np.float64]:
    """Patient coordinates of every step-th pixel, [Z, Y, X, 3] mm."""
    v = study.volume
    _, rows, columns = v.pixels.shape
    down = np.arange(0, rows, step)[:, None, None] * v.pixel_spacing[0] * v.column_cosines
    right = np.arange(0, columns, step)[None, :, None] * v.pixel_spacing[1] * v.row_cosines
    return v.origin[:, None, None, :] + (down + right)[None]


def smooth(hu: npt.NDArray[np.float32], size: int = 9) -> npt.NDArray[np.float32]:
    """Box mean in the plane."""
    out = hu
    for axis in (1, 2):
        padded = np.pad(out, [(size // 2, size // 2) if a == axis else (0, 0) for a in range(3)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=axis)
        out = windows.mean(axis=-1, dtype=np.float32)
    return out


def insert_blood(study: Study, centre: npt.NDArray[np.float64], density: float) -> Study:
    """A ball of INSERT_ML at `centre`: the tissue's mean becomes `density`, its noise stays, its edge is 2 mm soft."""
    hu = hounsfield(study)
    distance = np.linalg.norm(world(study) - centre, axis=-1)
    share = np.clip(0.5 - (distance - INSERT_RADIUS_MM) / 2, 0, 1).astype(np.float32)
    changed = hu + share * (density - smooth(hu))
    v = study.volume
    stored = np.rint((changed - v.intercept[:, None, None]) / v.slope[:, None, None]).astype(np.int16)
    return replace(study, volume=replace(v, pixels=np.where(share > 0, stored, v.pixels)), digest="")


def places(study: Study, count: int, seed: int = 20261121) -> list[npt.NDArray[np.float64]]:
    """Seeded centres around which a ball of the insert's size holds brain only: no bone, no air."""
    step = 4
    hu = smooth(hounsfield(study), 5)[:, ::step, ::step].reshape(-1)
    points = world(study, step).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    candidates = rng.permutation(np.flatnonzero((hu > 15) & (hu < 50)))
    solid = points[(hu > 90) | (hu < -20)]
    found: list[npt.NDArray[np.float64]] = []
    for candidate in candidates:
        centre = points[candidate]
        clear = np.linalg.norm(solid - centre, axis=1).min() > INSERT_RADIUS_MM
        inside = np.linalg.norm(points - centre, axis=1) < INSERT_RADIUS_MM
        if clear and inside.sum() > 100 and all(np.linalg.norm(centre - other) > 10 for other in found):
            found.append(centre)
        if len(found) == count:
            break
    return found


def test_the_scan_itself_is_analysed_and_not_called_positive(study: Study, model: Model) -> None:
    result = model.triage(study)
    assert result.verdict in (Verdict.ACCEPT, Verdict.FLAG)
    assert result.findings[0].label == "any"
    assert not result.findings[0].positive, result.findings[0]
    assert result.input is not None
    assert result.input.slices == 28
    assert result.input.tilt_deg == pytest.approx(18.5, abs=0.05)
    assert {Code.TILT_CORRECTED, Code.SPACING_VARIABLE} <= set(result.codes)


def test_inserted_blood_is_found_at_eight_of_ten_places(study: Study, model: Model) -> None:
    centres = places(study, PLACES)
    assert len(centres) == PLACES
    rng = np.random.default_rng(7)
    positive = []
    for centre in centres:
        result = model.triage(insert_blood(study, centre, float(rng.uniform(60, 70))))
        positive.append(result.findings[0].positive)
        print(f"{np.round(centre)} p {result.findings[0].probability:.3f} {result.findings[0].positive}")
    assert sum(positive) >= 8, positive


def test_the_key_slice_lies_in_the_insert(study: Study, model: Model) -> None:
    centre = places(study, 1)[0]
    inserted = insert_blood(study, centre, 65.0)
    result = model.triage(inserted)
    volume = inserted.volume
    key = result.key_slices[0]
    away = abs(float(volume.distances[key.index] - centre @ volume.normal))
    assert away < INSERT_RADIUS_MM + volume.slice_spacing
    assert key.box is not None
    row, column = volume.world_to_index(centre[None], key.index)[0]
    assert key.box[0] - 8 <= row <= key.box[2] + 8
    assert key.box[1] - 8 <= column <= key.box[3] + 8
