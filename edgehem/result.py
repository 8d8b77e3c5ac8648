"""What a run answers: one value that text, JSON and pictures are all made from."""

from __future__ import annotations

from enum import Enum

import msgspec

from edgehem.errors import Code

SCHEMA = "edgehem.result/1"


class Verdict(str, Enum):
    """ACCEPT: findings. FLAG: findings, and reasons for a person to look. NO-RESULT: not analysed."""

    ACCEPT = "ACCEPT"
    FLAG = "FLAG"
    NO_RESULT = "NO-RESULT"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A code with its sentence."""

    code: Code
    reason: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One label of a classification head.

    ``probability`` is calibrated on the bundle's calibration set; ``positive`` compares it with the bundle's
    operating point; ``prediction_set`` holds the answers a conformal predictor cannot rule out.
    """

    label: str
    probability: float
    positive: bool
    prediction_set: tuple[str, ...]


class Prognosis(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An outcome's probability with its interval, or a clinical score's points."""

    name: str
    probability: float | None = None
    interval: tuple[float, float] | None = None
    points: int | None = None


class KeySlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice that carried the answer.

    ``index`` counts the analysed series from its first slice along the normal, from 0. ``box`` is the suspected
    region on that slice in pixels (first row, first column, last row, last column), or None.
    """

    index: int
    weight: float
    box: tuple[int, int, int, int] | None = None


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Which model answered, and how it ran.

    ``signed_by`` is the checked key's fingerprint, if it was checked. ``fallback`` is empty, or names the engine that
    should have answered, and why it did not.
    """

    name: str
    version: str
    sha256: str
    precision: str
    arithmetic: str = "f32"
    """What the graph's float operators were computed in."""
    backend: str
    fallback: str = ""
    demonstration: bool
    signed_by: str | None = None


class InputInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was analysed.

    ``spacing_mm`` is slice (median), row, column; ``digest`` is SHA-256 over pixels and geometry.
    """

    digest: str
    slices: int
    tilt_deg: float
    spacing_mm: tuple[float, float, float]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one study.

    ``findings``, ``prognosis``, ``measurements`` and ``key_slices`` are empty, and ``input`` may be None, when the
    verdict is NO-RESULT. Times are milliseconds by stage.
    """

    schema: str = SCHEMA
    system: str
    verdict: Verdict
    codes: tuple[Code, ...] = ()
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    prognosis: tuple[Prognosis, ...] = ()
    measurements: dict[str, float] = {}
    key_slices: tuple[KeySlice, ...] = ()
    timings_ms: dict[str, float] = {}
    overran: tuple[str, ...] = ()
    """Stages that took longer than the bundle's budget for a study of that size."""
    bundle: BundleInfo
    input: InputInfo | None = None

    def to_json(self) -> str:
        """The result as one JSON object (schema ``edgehem.result/1``)."""
        return msgspec.json.encode(self).decode()
