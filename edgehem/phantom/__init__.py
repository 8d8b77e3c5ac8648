"""Synthetic head CT with known truth: heads, hemorrhages, a scanner, and DICOM files.

Nothing here comes from a patient, and nothing here is evidence about patients.
"""

from edgehem.phantom.bleeds import SUBTYPES, Bleed
from edgehem.phantom.cases import LABELS, Case, Protocol, draw_bleeds, make_case
from edgehem.phantom.files import write_cohort, write_study

__all__ = [
    "LABELS", "SUBTYPES", "Bleed", "Case", "Protocol", "draw_bleeds", "make_case", "write_cohort", "write_study",
]  # fmt: skip
