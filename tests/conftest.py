"""What all tests share: the versions in the header, and CT stacks sampled from a formula on any geometry."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from edgehem.bundle import MANIFEST, SCHEMA, Evidence, Graph, Head, LabelRule, Manifest
from edgehem.preprocess import PreprocessSpec
from edgehem.volume import Volume

F64 = npt.NDArray[np.float64]
Solid = Callable[[F64], F64]
"""HU of world points: [..., 3] mm (LPS) to [...]."""

# The machine may be busy, so no example has a deadline; the same examples every time, so a failure is a change.
settings.register_profile("edgehem", deadline=None, max_examples=30, derandomize=True, database=None)
settings.load_profile("edgehem")


@pytest.fixture(autouse=True, scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was measured on this machine for its user must not change what tests see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEHEM_STATE", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_report_header() -> list[str]:
    """Versions, engines, and whether real data is at hand."""
    import onnxruntime

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "pydicom", "onnxruntime"))
    data = os.environ.get("EDGEHEM_TEST_DATA")
    return [
        f"edgehem: {versions}",
        f"onnxruntime providers: {', '.join(onnxruntime.get_available_providers())}",
        f"EDGEHEM_TEST_DATA: {'set' if data else 'not set, tests on real data are skipped'}",
    ]


def world_points(volume: Volume) -> F64:
    """Patient coordinates of every pixel, [Z, Y, X, 3] mm."""
    _, rows, columns = volume.pixels.shape
    down = np.arange(rows)[:, None, None] * volume.pixel_spacing[0] * volume.column_cosines
    right = np.arange(columns)[None, :, None] * volume.pixel_spacing[1] * volume.row_cosines
    return np.asarray(volume.origin[:, None, None, :] + (down + right)[None])


def make_stack(
    solid: Solid,
    *,
    size: tuple[int, int],
    spacing: tuple[float, float],
    distances: Sequence[float],
    centre: Sequence[float] = (0.0, 0.0, 0.0),
    row: Sequence[float] = (1.0, 0.0, 0.0),
    column: Sequence[float] = (0.0, 1.0, 0.0),
    advance: Sequence[float] | None = None,
    slope: float = 1.0,
    padding: tuple[int, int] | None = None,
) -> Volume:
    """A stack whose pixels are a formula's values at their own places.

    Parameters
    ----------
    solid : callable
        HU of points.
    size, spacing : tuple
        Rows and columns; distance between rows and between columns, mm.
    distances : sequence of float
        Of the slices along their normal, mm from `centre`.
    centre : sequence of float
        Where the axis through the middle of the slices meets distance 0, LPS mm.
    row, column : sequence of float
        Direction cosines.
    advance : sequence of float, optional
        Direction the table moves in; the slices' normal by default. A tilted gantry has another.
    """
    row_cosines, column_cosines = np.array(row, float), np.array(column, float)
    normal = np.cross(row_cosines, column_cosines)
    along = normal if advance is None else np.array(advance, float)
    middle = column_cosines * spacing[0] * (size[0] - 1) / 2 + row_cosines * spacing[1] * (size[1] - 1) / 2
    origin = np.array([np.array(centre) + along * (d / (along @ normal)) - middle for d in distances])
    blank = Volume(
        pixels=np.zeros((len(distances), *size), np.int16),
        slope=np.full(len(distances), slope, np.float32),
        intercept=np.zeros(len(distances), np.float32),
        origin=origin,
        row_cosines=row_cosines,
        column_cosines=column_cosines,
        pixel_spacing=spacing,
        padding=padding,
    )
    stored = np.rint(solid(world_points(blank)) / slope)
    assert np.abs(stored).max() < 32768, "the formula leaves int16"
    blank.pixels[:] = stored
    return blank


@pytest.fixture(scope="session")
def stack_of() -> Callable[..., Volume]:
    """The maker of stacks."""
    return make_stack


@pytest.fixture(scope="session")
def points_of() -> Callable[[Volume], F64]:
    """Patient coordinates of a volume's pixels."""
    return world_points


@pytest.fixture
def write_bundle(tmp_path: Path) -> Callable[..., Path]:
    """The maker of small bundles: a grid of 12 planes of 16 × 16, two labels, and a graph.

    The graph's bytes are taken as they are; a text makes an empty graph in a model that says it (``doc_string``).
    """

    def write(*, graph: bytes | str = "graph", files: Mapping[str, bytes] | None = None, **changes: Any) -> Path:
        folder = tmp_path / "bundle"
        if isinstance(graph, str):
            graph = b"\x32%c%b\x3a\x00" % (len(graph), graph.encode())
        content = {"model.onnx": graph, **(files or {})}
        for name, data in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        rules = tuple(
            LabelRule(label=label, threshold=0.5, present_from=0.6, absent_until=0.4) for label in ("any", "subdural")
        )
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "name": "tiny",
            "version": "1.2",
            "system": "tinynet",
            "intended_use": "tests",
            "demonstration": True,
            "preprocess": PreprocessSpec(shape=(12, 16, 16), spacing_mm=(15.0, 14.0, 14.0), windows=((40, 80),)),
            "inputs": {"image": "x", "valid": "v"},
            "graphs": (
                Graph(
                    precision="fp32", form="float", file="model.onnx", sha256=digests["model.onnx"], bytes=len(graph)
                ),
            ),
            "default_precision": {},
            "heads": (Head(name="ich", kind="hierarchical-binary", output="logits", rules=rules),),
            "evidence": Evidence(attention="attention", blood_map="map"),
            "files": {name: digest for name, digest in digests.items() if name != "model.onnx"},
        }
        (folder / MANIFEST).write_bytes(msgspec.json.encode(Manifest(**manifest | changes)))
        return folder

    return write
