"""Synthetic head CT with known truth: heads, hemorrhages, a scanner, and DICOM files.

Nothing here comes from a patient, and nothing here is evidence about patients.
"""

from edgehem.phantom.bleeds import AGES, SIGNS, SITES, SUBTYPES, Bleed
from edgehem.phantom.cases import LABELS, Case, Protocol, draw_bleeds, make_case
from edgehem.phantom.files import write_cohort, write_study
from edgehem.phantom.growth import make_pair
from edgehem.phantom.mr import make_mr
from edgehem.phantom.mr_files import write_mr_study

__all__ = [
    "AGES",
    "LABELS",
    "SIGNS",
    "SITES",
    "SUBTYPES",
    "Bleed",
    "Case",
    "Protocol",
    "draw_bleeds",
    "make_case",
    "make_mr",
    "make_pair",
    "write_cohort",
    "write_mr_study",
    "write_study",
]
