"""Hemorrhage triage from a DICOM head CT.

Importing this package loads nothing but itself: every public name is fetched from its module when it is first used,
so that ``edgehem --version`` on a small device does not pay for an inference engine.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgehem.dicom import read_study
    from edgehem.dicom.study import Study
    from edgehem.errors import Code, EdgehemError, Refusal
    from edgehem.model import load, triage
    from edgehem.result import Finding, KeySlice, Note, Prognosis, Result, Verdict

    __version__: str

# From 1.29 on, ONNX Runtime's own wheels report to Microsoft when they are imported, and keep a device identifier in
# the home folder. A device in a hospital must not. They look once, at import; who wants it can set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "load": "edgehem.model",
    "triage": "edgehem.model",
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
