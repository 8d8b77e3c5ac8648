"""Studies to measure on: phantoms written to disk once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgehem.phantom import Bleed, Protocol, write_study


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A bleeding phantom of so many 512 × 512 slices, tilted by 15°."""
    made: dict[int, Path] = {}

    def make(slices: int) -> Path:
        if slices not in made:
            out = tmp_path_factory.mktemp(f"study{slices}")
            protocol = Protocol(slices=slices, tilt_deg=15.0, variable_spacing=False)
            write_study(out, seed=11, bleeds=(Bleed(subtype="intraparenchymal", ml=25.0),), protocol=protocol)
            made[slices] = out / "dicom"
        return made[slices]

    return make
