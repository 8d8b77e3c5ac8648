"""DICOM files to a :class:`~edgehem.dicom.study.Study`: read, select, decode, and refuse what must not be analysed."""

from edgehem.dicom.read import read_study
from edgehem.dicom.study import Study

__all__ = ["Study", "read_study"]
