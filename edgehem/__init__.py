"""Hemorrhage triage from a DICOM head CT.

Importing this package loads nothing but itself: every public name is fetched from its module when it is first used,
so that ``edgehem --version`` on a small device does not pay for an inference engine.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgehem.dicom import read_study
    from edgehem.dicom.study import Study
    from edgehem.errors import Code, EdgehemError, Refusal
    from edgehem.result import Finding, KeySlice, Note, Prognosis, Result, Verdict
    from edgehem.triage import load, triage

    __version__: str

_HOME = {
    "load": "edgehem.triage",
    "triage": "edgehem.triage",
    "read_study": "edgehem.dicom",
    "Study": "edgehem.dicom.study",
    "Code": "edgehem.errors",
    "EdgehemError": "edgehem.errors",
    "Refusal": "edgehem.errors",
    "Finding": "edgehem.result",
    "KeySlice": "edgehem.result",
    "Note": "edgehem.result",
    "Prognosis": "edgehem.result",
    "Result": "edgehem.result",
    "Verdict": "edgehem.result",
}

__all__ = [
    "Code",
    "EdgehemError",
    "Finding",
    "KeySlice",
    "Note",
    "Prognosis",
    "Refusal",
    "Result",
    "Study",
    "Verdict",
    "__version__",
    "load",
    "read_study",
    "triage",
]


class _Package(ModuleType):
    """Keeps ``edgehem.triage`` the function: importing the module of that name would otherwise replace it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "triage" and isinstance(value, ModuleType):
            value = value.triage
        super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("edgehem")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
