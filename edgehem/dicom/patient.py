"""The patient's age, where the header tells it."""

from __future__ import annotations

import re
from datetime import date

from edgehem.dicom.header import Header

_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS_PER = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
MAX_AGE_YEARS = 125.0
"""Older than any person: a wrong entry."""


def age_years(header: Header) -> float | None:
    """Age at the examination in years, from Patient's Age or else from birth and study dates; None if not told."""
    if match := _AGE.fullmatch(header.age.upper()):
        age = int(match[1]) * _YEARS_PER[match[2]]
    else:
        born, examined = _date(header.birth_date), _date(header.study_date)
        if born is None or examined is None:
            return None
        age = (examined - born).days / 365.25
    return age if 0 <= age <= MAX_AGE_YEARS else None


def _date(text: str) -> date | None:
    """A DICOM date (YYYYMMDD, or the old YYYY.MM.DD)."""
    digits = text.replace(".", "")
    if not re.fullmatch(r"[0-9]{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
