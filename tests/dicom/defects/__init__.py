"""Everything that a hospital or a broken disk can hand in, and what must come of it: the matrix of defects.

Every kind is a small change to a sound phantom study, so that nothing but the defect explains the answer. The test
runs them all; docs/intake.md is made from this list.
"""

from defects import (  # noqa: F401 - they fill the registry
    files,
    frame_types,
    frames,
    geometry,
    head,
    hounsfield,
    media,
    parts,
    pixels,
    real,
    records,
    series,
)
from defects.given import REGISTRY, Defect, Given

__all__ = ["REGISTRY", "Defect", "Given"]
