"""Ways from a folder of DICOM slices to a stack, each used as somebody would who knows the library well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Int16 = npt.NDArray[np.int16]
Read = Callable[[Path], Any]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One way to read a series.

    Parameters
    ----------
    name, library, how : str
        ``how`` is for people.
    module : str
        What it imports, for the version.
    make : callable
        Gives the way itself; imports what it needs.
    hounsfield : callable
        HU [Z, Y, X], from the feet up and as the scanner's rows and columns are, of what was read. Not timed.
    """

    name: str
    library: str
    how: str
    module: str
    make: Callable[[], Read]
    hounsfield: Callable[[Any], npt.NDArray[Any]]


def _edgehem() -> Read:
    from edgehem.dicom import read_study

    return read_study


def _edgehem_hu(study: Any) -> npt.NDArray[Any]:
    volume = study.volume
    hu: npt.NDArray[Any] = volume.pixels * volume.slope[:, None, None] + volume.intercept[:, None, None]
    return hu


def _pydicom() -> Read:
    from pydicom import dcmread

    def read(folder: Path) -> Int16:
        slices = [dcmread(file) for file in folder.iterdir()]
        slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
        stack = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
        for i, ds in enumerate(slices):
            stack[i] = ds.pixel_array
            if ds.RescaleSlope != 1:
                stack[i] *= int(ds.RescaleSlope)
            stack[i] += int(ds.RescaleIntercept)
        return stack

    return read


def _simpleitk() -> Read:
    import SimpleITK as sitk  # noqa: N813

    def read(folder: Path) -> Any:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return reader.Execute()

    return read


def _simpleitk_hu(image: Any) -> npt.NDArray[Any]:
    import SimpleITK as sitk  # noqa: N813

    hu: npt.NDArray[Any] = sitk.GetArrayFromImage(image)
    return hu


def _dicom2nifti() -> Read:
    import dicom2nifti

    def read(folder: Path) -> Any:
        image = dicom2nifti.dicom_series_to_nifti(str(folder), None, reorient_nifti=False)["NII"]
        return image, np.asarray(image.dataobj)

    return read


def _dicom2nifti_hu(found: Any) -> npt.NDArray[Any]:
    import nibabel

    turned: Any = nibabel.orientations  # not typed
    image, array = found
    turn = turned.ornt_transform(turned.io_orientation(image.affine), turned.axcodes2ornt("LPS"))
    hu: npt.NDArray[Any] = turned.apply_orientation(array, turn).T
    return hu


OURS = Reader(
    name="edgehem",
    library="edgehem",
    how="read_study, with every gate; stored values, to be rescaled by whoever uses them, and a digest of them",
    module="edgehem",
    make=_edgehem,
    hounsfield=_edgehem_hu,
)
READERS = (
    OURS,
    Reader(
        name="pydicom-loop",
        library="pydicom",
        how="dcmread, sort by Image Position (Patient), pixel_array, rescale in place in one int16 array; no checks",
        module="pydicom",
        make=_pydicom,
        hounsfield=lambda stack: stack,
    ),
    Reader(
        name="simpleitk-series",
        library="SimpleITK",
        how="ImageSeriesReader on GetGDCMSeriesFileNames",
        module="SimpleITK",
        make=_simpleitk,
        hounsfield=_simpleitk_hu,
    ),
    Reader(
        name="dicom2nifti",
        library="dicom2nifti",
        how="dicom_series_to_nifti, in memory, not reoriented",
        module="dicom2nifti",
        make=_dicom2nifti,
        hounsfield=_dicom2nifti_hu,
    ),
)
