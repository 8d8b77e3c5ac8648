"""What people see: the text report and the contact sheet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgehem.dicom.study import Study
from edgehem.errors import Code, UsageError
from edgehem.report.pictures import AMBER, BOX_CLEARANCE, TILE, brain_window, orientation_letters, save_key_slices
from edgehem.report.text import (
    DEMONSTRATION_NOTICE,
    NO_RESULT_NOTICE,
    TRIAGE_NOTICE,
    WIDTH,
    headline,
    probability,
    render_text,
)
from edgehem.result import BundleInfo, Finding, InputInfo, KeySlice, Prognosis, Result, Verdict
from edgehem.volume import Volume

BUNDLE = BundleInfo(
    name="toy", version="1.2.3", sha256="ab" * 32, precision="int8", backend="onnxruntime", demonstration=True
)
WHITE_HU = 100


def result(**changes: Any) -> Result:
    flagged = Result(
        system="toy",
        verdict=Verdict.FLAG,
        codes=(Code.TILT_CORRECTED, Code.UNCERTAIN),
        reasons=("The gantry was tilted. " * 12, "Nobody knows."),
        findings=(
            Finding(label="any", probability=0.97, positive=True, prediction_set=("present",)),
            Finding(label="subdural", probability=0.004, positive=False, prediction_set=("absent",)),
            Finding(label="epidural", probability=0.41, positive=False, prediction_set=("present", "absent")),
        ),
        prognosis=(
            Prognosis(name="mortality_30d", probability=0.31, interval=(0.2, 0.43)),
            Prognosis(name="ich_score", points=1),
        ),
        measurements={"hematoma_volume_ml": 21.34, "midline_shift_mm": 3.0},
        key_slices=(KeySlice(index=1, weight=0.75, box=(8, 16, 15, 47)), KeySlice(index=0, weight=0.25)),
        timings_ms={"read": 10.0, "infer": 30.0, "total": 40.0},
        bundle=BUNDLE,
        input=InputInfo(digest="cd" * 32, slices=3, tilt_deg=18.5, spacing_mm=(5.0, 0.5, 0.25)),
    )
    return msgspec.structs.replace(flagged, **changes)


def no_result() -> Result:
    return Result(
        system="toy", verdict=Verdict.NO_RESULT, codes=(Code.NOT_HEAD,), reasons=("These are knees.",), bundle=BUNDLE
    )


def study(*, mirrored: bool = False, spacing: tuple[float, float] = (1.0, 1.0)) -> Study:
    """Three slices of even white (in the brain window), 64 × 64."""
    along = -1.0 if mirrored else 1.0
    return Study(
        volume=Volume(
            pixels=np.full((3, 64, 64), WHITE_HU + 1024, np.int16),
            slope=np.ones(3, np.float32),
            intercept=np.full(3, -1024, np.float32),
            origin=np.array([[0.0, 0.0, along * 5 * index] for index in range(3)]),
            row_cosines=np.array([along, 0.0, 0.0]),
            column_cosines=np.array([0.0, 1.0, 0.0]),
            pixel_spacing=spacing,
        ),
        digest="cd" * 32,
    )


# Text


def test_flag_report_says_everything() -> None:
    text = render_text(result())
    lines = text.splitlines()
    assert lines[0] == "FLAG  any hemorrhage: positive, p 0.97"
    for words in (
        "subdural hemorrhage",
        "<0.01  negative  absent",
        "present, absent",
        "death within 30 days  0.31 (interval 0.20 to 0.43)",
        "1 point\n",
        "hematoma volume  21.3 mL",
        "midline shift    3.0 mm",
        "slice 2  weight 0.75  suspected region: rows 9-16, columns 17-48",
        "count from 1",
        "TILT_CORRECTED  The gantry was tilted.",
        "UNCERTAIN       Nobody knows.",
        "3, 5.00 mm apart (median)",
        "0.500 × 0.250 mm",
        "18.5°",
        "30.0   75%  ████",
        "toy 1.2.3, system toy, int8 on onnxruntime, sha256 abababab",
    ):
        assert words in text
    assert " ".join(DEMONSTRATION_NOTICE.split()) in " ".join(text.split())


def test_accept_report_has_no_review_section() -> None:
    accepted = result(verdict=Verdict.ACCEPT, codes=(), reasons=())
    text = render_text(accepted)
    assert text.startswith("ACCEPT  any hemorrhage: positive, p 0.97\n")
    assert "Reasons" not in text


def test_no_result_report_is_not_a_negative_finding() -> None:
    text = render_text(no_result())
    assert text.startswith("NO-RESULT  not analysed (NOT_HEAD)\n")
    assert NO_RESULT_NOTICE in text
    assert "NOT_HEAD  These are knees." in text
    for absent in ("Findings", "Key slices", "Analysed", "positive"):
        assert absent not in text


@pytest.mark.parametrize("demonstration", [True, False])
def test_notice_follows_the_bundle(demonstration: bool) -> None:
    text = render_text(result(bundle=msgspec.structs.replace(BUNDLE, demonstration=demonstration)))
    assert ("DEMONSTRATION WEIGHTS" in text) is demonstration
    assert (TRIAGE_NOTICE in text) is not demonstration


def test_no_line_is_too_long() -> None:
    long = result(
        measurements={"a_" * 80 + "ml": 1e9},
        findings=(Finding(label="x" * 200, probability=0.5, positive=True, prediction_set=("present",)),),
        bundle=msgspec.structs.replace(BUNDLE, name="name " * 40),
        reasons=("w" * 300, "word " * 100),
    )
    for text in (render_text(result()), render_text(no_result()), render_text(long)):
        assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = render_text(result(reasons=("\x1b[31mred", "bell\a")))
    assert "\x1b" not in text
    assert "\a" not in text


def test_probabilities_never_claim_certainty() -> None:
    assert [probability(value) for value in (0.0, 0.0049, 0.005, 0.5, 0.994, 0.995, 1.0)] == [
        "<0.01",
        "<0.01",
        "0.01",
        "0.50",
        "0.99",
        ">0.99",
        ">0.99",
    ]


def test_headline_says_when_the_answer_is_open() -> None:
    undecided = Finding(label="any", probability=0.4, positive=False, prediction_set=("present", "absent"))
    assert headline(result(findings=(undecided,))) == "any hemorrhage: negative, p 0.40, uncertain"


def test_labels_of_another_system_keep_their_names() -> None:
    other = result(
        findings=(Finding(label="right_heart_strain", probability=0.6, positive=True, prediction_set=("y",)),)
    )
    assert headline(other) == "right heart strain: positive, p 0.60"
    mixed = (*other.findings, Finding(label="any", probability=0.6, positive=True, prediction_set=("y",)))
    assert headline(result(findings=mixed)).startswith("any: positive")


# Pictures


def draw(tmp_path: Path, case: Study, answer: Result) -> np.ndarray:
    image_module = pytest.importorskip("PIL.Image")
    path = tmp_path / "key_slices.png"
    save_key_slices(case, answer, path)
    with image_module.open(path) as image:
        assert image.format == "PNG"
        assert image.info.get("Title") is None
        return np.asarray(image.convert("RGB"))  # [Y, X, RGB]


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.5), (0.5, 1.0)])
def test_tile_has_the_true_aspect_and_the_box_lies_on_its_pixels(tmp_path: Path, spacing: tuple[float, float]) -> None:
    pixels = draw(tmp_path, study(spacing=spacing), result(verdict=Verdict.ACCEPT, key_slices=result().key_slices[:1]))
    white = (pixels == 255).all(axis=2)
    top, left, bottom, right = extent(white)
    height, width = bottom - top + 1, right - left + 1
    assert max(height, width) == TILE
    assert height / width == pytest.approx(spacing[0] / spacing[1])
    tile = pixels[top : bottom + 1, left : right + 1]
    box = extent((tile == AMBER).all(axis=2))
    down, across = height / 64, width / 64
    expected = (
        8 * down - BOX_CLEARANCE,
        16 * across - BOX_CLEARANCE,
        16 * down + BOX_CLEARANCE,
        48 * across + BOX_CLEARANCE,
    )
    assert box == pytest.approx(expected, abs=1)


def test_no_box_no_outline(tmp_path: Path) -> None:
    answer = result(
        verdict=Verdict.ACCEPT,
        key_slices=(KeySlice(index=0, weight=1.0),),
        bundle=msgspec.structs.replace(BUNDLE, demonstration=False),
    )
    pixels = draw(tmp_path, study(), answer)
    assert not (pixels == AMBER).all(axis=2).any()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_sheet_grows_with_the_slices_up_to_four(tmp_path: Path, count: int) -> None:
    pixels = draw(tmp_path, study(), result(key_slices=tuple(KeySlice(index=0, weight=0.1) for _ in range(count))))
    across, down = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (2, 2)}[count]
    height, width, _ = pixels.shape
    assert across * TILE < width < (across + 1) * TILE
    assert down * TILE < height < (down + 1) * TILE
    share = (pixels == 255).all(axis=2).sum() / (TILE * TILE)
    assert share == pytest.approx(min(count, 4), rel=0.02)


@pytest.mark.parametrize("mirrored", [False, True])
def test_right_and_left_stand_on_their_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrored: bool) -> None:
    drawing = pytest.importorskip("PIL.ImageDraw").ImageDraw
    places: dict[str, float] = {}
    original = drawing.text

    def record(self: Any, place: tuple[float, float], text: str, *rest: Any, **options: Any) -> None:
        places[text] = place[0]
        original(self, place, text, *rest, **options)

    monkeypatch.setattr(drawing, "text", record)
    draw(tmp_path, study(mirrored=mirrored), result(key_slices=result().key_slices[:1]))
    assert (places["R"] < places["L"]) is not mirrored
    assert "slice 2 of 3" in places
    assert any("weight 0.75" in text for text in places)


def test_orientation_letters_follow_the_patient_axes() -> None:
    assert orientation_letters(np.array([0.96, 0.28, 0.0])) == ("R", "L")
    assert orientation_letters(np.array([-1.0, 0.0, 0.0])) == ("L", "R")
    assert orientation_letters(np.array([0.0, 0.95, -0.31])) == ("A", "P")
    assert orientation_letters(np.array([0.0, 0.0, -1.0])) == ("H", "F")


def test_brain_window_uses_each_slices_rescale_and_masks_padding() -> None:
    volume = Volume(
        pixels=np.array([[[-1500, 0, 40, 80]], [[-1500, 1024, 1064, 1104]]], np.int16),
        slope=np.ones(2, np.float32),
        intercept=np.array([0, -1024], np.float32),
        origin=np.array([[0.0, 0, 0], [0, 0, 5]]),
        row_cosines=np.array([1.0, 0, 0]),
        column_cosines=np.array([0.0, 1, 0]),
        pixel_spacing=(1.0, 1.0),
        padding=(40, 40),
    )
    assert brain_window(volume, 0).tolist() == [[0, 0, 0, 255]]
    assert brain_window(volume, 1).tolist() == [[0, 0, 128, 255]]


def test_nothing_to_draw_is_a_usage_error(tmp_path: Path) -> None:
    outside = result(key_slices=(KeySlice(index=3, weight=1.0),))
    for answer in (no_result(), result(key_slices=()), outside):
        with pytest.raises(UsageError):
            save_key_slices(study(), answer, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_missing_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"edgehem\[report\]"):
        save_key_slices(study(), result(), tmp_path / "picture.png")


def test_the_report_loads_without_pillow() -> None:
    code = "import sys, edgehem.report.pictures, edgehem.report.text; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
