"""A real tilted, unevenly spaced head CT against dcm2niix's tilt-corrected conversion, in world coordinates.

dcm2niix shares nothing with edgehem: it reads the files itself, shears the tilted slices and evens their spacing out.
Its grid is orthogonal but lies obliquely in the patient.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import map_coordinates

from edgehem.dicom import read_study
from edgehem.kernels import Target, resample
from edgehem.volume import Volume

DATA = os.environ.get("EDGEHEM_TEST_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="EDGEHEM_TEST_DATA is not set: no real scan")

F64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

AIR = -1000.0
"""Below this the two differ in what they call padding, and neither means anything."""


@pytest.fixture(scope="module")
def volume() -> Volume:
    return read_study(Path(str(DATA)) / "ct_head_tilt").volume


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Float32, F64]:
    """HU [X, Y, Z] of the tilt-corrected conversion, and the affine from its indices to LPS mm."""
    dcm2niix = pytest.importorskip("dcm2niix")
    nibabel = pytest.importorskip("nibabel")
    out = tmp_path_factory.mktemp("dcm2niix")
    command = [dcm2niix.bin, "-b", "n", "-o", str(out), "-f", "scan", str(Path(str(DATA)) / "ct_head_tilt")]
    subprocess.run(command, check=True, capture_output=True)
    image = nibabel.load(out / "scan_Tilt_Eq_1.nii")
    return np.asarray(image.dataobj, np.float32), np.diag([-1.0, -1, 1, 1]) @ image.affine


def correlations(ours: Float32, theirs: Float32, counts: npt.NDArray[np.bool_]) -> F64:
    """Of corresponding planes [Z, Y, X], over the voxels that count."""
    pairs = zip(np.maximum(ours, AIR), np.maximum(theirs, AIR), counts, strict=True)
    return np.array([np.corrcoef(a[c], b[c])[0, 1] for a, b, c in pairs])


def test_on_the_references_own_slices(volume: Volume, reference: tuple[Float32, F64]) -> None:
    """The patient is turned, with scan and grid, until that grid's axes are the patient's: then it is a target."""
    data, affine = reference
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    x, z = affine[:3, 0] / spacing[0], affine[:3, 2] / spacing[2]
    turn = np.stack([x, np.cross(z, x), z])
    turned = replace(
        volume,
        origin=volume.origin @ turn.T,
        row_cosines=turn @ volume.row_cosines,
        column_cosines=turn @ volume.column_cosines,
    )
    # NIfTI rows run to the front, ours to the back.
    first = turn @ (affine[:3, 3] + affine[:3, 1] * (data.shape[1] - 1))
    theirs = data[:, ::-1].transpose(2, 1, 0)
    target = Target(
        shape=(theirs.shape[0], theirs.shape[1], theirs.shape[2]),
        spacing_mm=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        origin=(float(first[0]), float(first[1]), float(first[2])),
        resampling="trilinear",
    )
    found = correlations(resample(turned, target), theirs, np.ones(theirs.shape, bool))
    print(f"{len(found)} slices: median {np.median(found):.5f}, worst {found.min():.5f}")
    assert np.median(found) >= 0.998
    assert found.min() >= 0.99


@pytest.mark.parametrize("spacing", [(2.5, 0.5, 0.5), (4.5, 1.0, 1.0)])
def test_on_an_upright_grid(
    volume: Volume, reference: tuple[Float32, F64], spacing: tuple[float, float, float]
) -> None:
    """Ours un-tilts the scan; theirs is read at the same places in the patient."""
    data, affine = reference
    shape = (int(160 / spacing[0]), int(248 / spacing[1]), int(248 / spacing[2]))
    target = Target(shape=shape, spacing_mm=spacing, origin=(-124.0, -124.0, -20.0), resampling="trilinear")
    k, j, i = np.indices(shape)
    points = np.stack([i * spacing[2], j * spacing[1], k * spacing[0]], axis=-1) + target.origin
    at = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    theirs = map_coordinates(data, np.moveaxis(at, -1, 0), order=1, cval=-1024)
    s = points @ volume.normal
    inside = ((at >= 0) & (at <= np.array(data.shape) - 1)).all(axis=-1)
    inside &= (s >= volume.distances[0]) & (s <= volume.distances[-1])
    # Above the vertex there is only the noise of air, in which nothing corresponds.
    head = ((theirs > -300) & inside).sum(axis=(1, 2)) * spacing[1] * spacing[2] > 100  # mm²
    found = correlations(resample(volume, target)[head], theirs[head], inside[head])
    print(f"{len(found)} planes: median {np.median(found):.5f}, worst {found.min():.5f}")
    assert len(found) * spacing[0] > 120
    assert np.median(found) >= 0.998
    assert found.min() >= 0.99
