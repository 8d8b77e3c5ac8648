"""``edgehem bench realism``: what is measured is what is there, on heads of which every number is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from edgehem import cli
from edgehem.benchmarks.realism import densities, noise, report, run, sections, sheet
from edgehem.errors import UsageError
from edgehem.volume import Volume

PIXEL_MM = 0.5
SIZE, SLICES = 400, 8
SKULL_MM = 8.0


def head(
    *,
    sd: float = 4.0,
    blur: float = 0.0,
    rim_hu: float = 0.0,
    grey_hu: float = 30.0,
    radius_mm: float = 70.0,
    seed: int = 0,
) -> Volume:
    """Round sections: brain in a skull; `rim_hu` more in the outermost 3 mm, a disk of fluid in the middle."""
    rng = np.random.default_rng(seed)
    offsets = (np.arange(SIZE) - SIZE / 2) * PIXEL_MM
    radius = np.hypot(offsets[:, None], offsets[None])
    hu = np.full((SLICES, SIZE, SIZE), -1000.0)
    for number in range(SLICES):
        inner = radius_mm - 3.0 * number  # the largest section is the lowest
        section = hu[number]
        section[radius < inner + SKULL_MM + 4] = 40
        section[radius < inner + SKULL_MM] = 1000
        section[radius < inner] = grey_hu + rim_hu
        section[radius < inner - 3] = grey_hu
        section[radius < 12] = 8
    texture = rng.standard_normal(hu.shape)
    if blur:
        texture = ndimage.gaussian_filter(texture, (0, blur / PIXEL_MM, blur / PIXEL_MM), mode="wrap")
    texture *= sd / texture.std()
    return volume(np.rint(hu + texture).astype(np.int16))


def volume(pixels: npt.NDArray[np.int16]) -> Volume:
    count = len(pixels)
    origin = np.zeros((count, 3))
    origin[:, 2] = 5.0 * np.arange(count)
    return Volume(
        pixels=pixels,
        slope=np.ones(count, np.float32),
        intercept=np.zeros(count, np.float32),
        origin=origin,
        row_cosines=np.array([1.0, 0, 0]),
        column_cosines=np.array([0, 1.0, 0]),
        pixel_spacing=(PIXEL_MM, PIXEL_MM),
        padding=None,
    )


# Sections


def test_the_cavity_and_the_depth_in_it() -> None:
    found = sections.vault(head())
    assert len(found.hu) == SLICES
    area = found.inside.sum(axis=(1, 2)) * PIXEL_MM**2
    assert area == pytest.approx(np.pi * (70 - 3 * np.arange(SLICES)) ** 2, rel=0.01)
    assert found.depth[0].max() == pytest.approx(70, abs=1)
    assert densities.measure(found).bone_mm == pytest.approx(SKULL_MM, rel=0.15)


def test_only_sections_from_the_largest_one_upwards_count() -> None:
    upright = head()
    order = [3, 2, 1, 0, 1, 2, 3, 4]  # the largest is the fourth from below
    assert len(sections.vault(volume(upright.pixels[order])).hu) == 5
    # The same stack with rows from left to right: its normal points downwards.
    downwards = replace(
        upright,
        pixels=upright.pixels[order][::-1].copy(),
        origin=upright.origin[::-1],
        row_cosines=-upright.row_cosines,
    )
    assert len(sections.vault(downwards).hu) == 5


def test_no_skull_cannot_be_measured() -> None:
    with pytest.raises(UsageError, match="closed skull"):
        sections.vault(volume(np.full((SLICES, SIZE, SIZE), 30, np.int16)))


# Densities


def test_brain_fluid_and_bone_are_what_they_are() -> None:
    found = densities.measure(sections.vault(head(sd=3.0)))
    assert found.brain[2] == pytest.approx(30, abs=0.5)
    assert found.fluid[2] == pytest.approx(8, abs=1)
    assert found.bone[2] == pytest.approx(1000, abs=5)
    assert found.contrast_hu < 3
    assert all(abs(found.rim[name]) < 1 for name in ("2", "4", "8", "15"))


def test_a_bright_rim_is_seen_where_it_is() -> None:
    found = densities.measure(sections.vault(head(rim_hu=20.0)))
    assert found.rim["1"] == pytest.approx(20, abs=1) and found.rim["2"] == pytest.approx(20, abs=1)
    assert abs(found.rim["8"]) < 1


def test_histograms_lie_as_far_apart_as_one_is_moved() -> None:
    one, other = (
        densities.measure(sections.vault(head(grey_hu=hu, seed=seed))).histogram for hu, seed in ((30, 0), (36, 1))
    )
    assert densities.distance_hu(one, other) == pytest.approx(5.8, abs=0.4)  # the fluid did not move
    assert densities.distance_hu(one, one) == 0


# Noise


def test_white_noise_is_white() -> None:
    found = noise.measure(sections.vault(head(sd=6.0)))
    assert found.sd_hu == pytest.approx(6, rel=0.05)
    even = found.power[(found.frequency > 0.3) & (found.frequency < 0.9)]
    assert even.std() / even.mean() < 0.15
    # The spectrum over the plane adds up to the variance.
    assert even.mean() == pytest.approx(6**2 * PIXEL_MM**2, rel=0.1)


def test_blurred_noise_lies_at_low_frequencies() -> None:
    white, soft = (noise.measure(sections.vault(head(sd=6.0, blur=blur))) for blur in (0.0, 0.8))
    assert soft.centre_per_mm < 0.6 * white.centre_per_mm
    assert sum(soft.bands) == pytest.approx(1, abs=0.02) and soft.bands[-1] < 0.05 < white.bands[-1]


def test_a_skull_without_brain_has_no_noise_to_measure() -> None:
    with pytest.raises(UsageError, match="even brain"):
        noise.measure(sections.vault(head(grey_hu=90.0)))


# The whole


@pytest.mark.slow
def test_phantoms_beside_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command; a phantom stands in for a real head."""
    study = tmp_path / "study"
    assert cli.main(["phantom", str(study), "--seed", "5"]) == 0
    capsys.readouterr()
    wanted = {name: tmp_path / f"out.{name}" for name in ("json", "markdown", "plot", "sheet")}
    options = [word for name, path in wanted.items() for word in (f"--{name}", str(path))]
    assert cli.main(["bench", "realism", str(study / "dicom"), "--quick", *options]) == 0
    told = json.loads(wanted["json"].read_text())
    assert told["schema"] == run.SCHEMA and told["settings"]["measured"] == run.QUICK_PHANTOMS
    assert [row["name"] for row in told["measures"]] == list(run.MEASURES)
    assert all(len(row["real"]) == 1 and 0 <= row["rank"][0] <= 1 for row in told["measures"])
    assert len(told["apart_hu"]["real"][0]) == run.QUICK_PHANTOMS and told["blood"]
    printed = capsys.readouterr().out
    assert report.NOT_EVIDENCE in printed and printed.startswith("measure")
    assert wanted["markdown"].read_text().count("|") > 100 and wanted["plot"].read_text().startswith("<svg")
    with Image.open(wanted["sheet"]) as image:
        assert image.size == (sheet.TILE * len(sheet.DEPTHS_MM), (sheet.TILE + sheet.CAPTION) * 9)
    assert report.drawing({**told, "histogram": {**told["histogram"], "real": []}}).startswith("<svg")


def test_a_study_that_is_no_head_is_an_error(tmp_path: Path) -> None:
    assert cli.main(["bench", "realism", str(tmp_path), "--quick"]) == cli.EXIT_USAGE


def test_the_sheet_shows_the_same_depth_of_every_head() -> None:
    """A head moved by 40 mm along the table looks the same."""
    one = head()
    moved = replace(one, origin=one.origin + np.array([0, 0, 40.0]))
    picture = np.asarray(sheet.draw([("one", one), ("moved", moved)]))
    half = sheet.TILE + sheet.CAPTION
    assert np.array_equal(picture[sheet.CAPTION : half], picture[half + sheet.CAPTION :])
    assert picture[sheet.CAPTION : half].std() > 10
