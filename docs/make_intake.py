"""Write docs/intake.md from the matrix of defects: ``make docs``; a test holds the two together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MATRIX = HERE.parent / "tests" / "dicom"
PAGE = HERE / "intake.md"

HEAD = """# What the intake does with what it is given

Every kind of input below is made from a sound phantom study (or from real files, where they are at hand) and goes
through the whole program in `tests/dicom/test_defects.py`: each must get this answer, and no answer may name a
patient, a file or a path. ACCEPT is the intake's own answer; the model can add a doubt. The codes are explained in
[codes.md](codes.md). Made from `tests/dicom/defects/` by `make docs`."""


def render() -> str:
    """The page: a table for every family."""
    defects = registry()
    unmet = sum(bool(defect.unmet) for defect in defects)
    count = f"{len(defects)} kinds: " + ", ".join(
        f"{sum(defect.verdict.value == verdict for defect in defects)} {verdict}"
        for verdict in ("NO-RESULT", "FLAG", "ACCEPT")
    )
    count += f". {unmet} of them are not yet answered so; they are marked." if unmet else "."
    parts = [HEAD, count]
    for family in dict.fromkeys(defect.family for defect in defects):
        lines = [
            f"## {family[0].upper()}{family[1:]}",
            "",
            "| input | where it comes from | answer | code |",
            "|---|---|---|---|",
        ]
        for defect in defects:
            if defect.family == family:
                codes = ", ".join(f"`{code.value}`" for code in defect.codes)
                answer = defect.verdict.value + (f" (not yet: {defect.unmet})" if defect.unmet else "")
                lines.append(f"| {defect.name} | {defect.cause} | {answer} | {codes} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def registry() -> list[Any]:
    """Every kind, in the order of the families."""
    if str(MATRIX) not in sys.path:
        sys.path.append(str(MATRIX))
    from defects import REGISTRY

    order = (
        "files", "media with a DICOMDIR", "multi-frame files", "series", "geometry", "pixels", "Hounsfield units",
        "head", "real files",
    )  # fmt: skip
    return sorted(REGISTRY.values(), key=lambda defect: order.index(defect.family))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
