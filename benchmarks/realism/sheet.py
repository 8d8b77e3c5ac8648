"""Heads side by side, a row each, at the same depths under the vertex: to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgehem.dicom.hu import to_hu
from edgehem.errors import MissingExtraError
from edgehem.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgehem.phantom.mr import MrCase, MrSeries

DEPTHS_MM = (12, 24, 36, 48, 60, 74, 90, 106)
"""Under the highest section of the head."""
TILE = 230
"""Pixels, and millimetres, of a section."""
CAPTION = 22
BRAIN, BONE = (40.0, 80.0), (600.0, 2800.0)
"""Level and width, HU."""
HEAD_HU, LEAST_MM2 = -300.0, 1500.0
"""The highest section shows so much of a head."""
BRIGHTEST = 99.7
"""Percentile of an MR section that is shown white."""
BACKGROUND, TEXT = 14, 220


def draw(rows: Sequence[tuple[str, Volume]], *, window: tuple[float, float] = BRAIN) -> Image:
    """A contact sheet.

    Parameters
    ----------
    rows : sequence of (caption, Volume)
    window : tuple of float
        Level and width, HU.

    Returns
    -------
    PIL.Image.Image
        Grey; 1 mm a pixel.

    Raises
    ------
    MissingExtraError
        Without Pillow.
    """
    return _sheet([(caption, _tiles(volume, window)) for caption, volume in rows])


def draw_mr(cases: Sequence[tuple[str, MrCase]]) -> Image:
    """A contact sheet of MR: a row for each study, and its series side by side, where they show most blood.

    Parameters
    ----------
    cases : sequence of (caption, MrCase)

    Returns
    -------
    PIL.Image.Image
        Grey, each section scaled to its own brightest pixels; 1 mm a pixel.
    """
    return _sheet([
        (f"{caption}: {', '.join(case.series)}", [_section(series) for series in case.series.values()])
        for caption, case in cases
    ])  # fmt: skip


def _sheet(rows: Sequence[tuple[str, Sequence[npt.NDArray[np.uint8]]]]) -> Image:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtraError("a contact sheet", "report") from error
    across = max(len(tiles) for _, tiles in rows)
    sheet = Image.new("L", (TILE * across, (TILE + CAPTION) * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, (caption, tiles) in enumerate(rows):
        top = number * (TILE + CAPTION)
        draw.text((6, top + 5), caption, fill=TEXT)
        for column, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (column * TILE, top + CAPTION))
    return sheet


def _section(series: MrSeries) -> npt.NDArray[np.uint8]:
    pixels, bled = series.volume.pixels, (series.mask > 0).sum(axis=(1, 2))
    image = pixels[int(bled.argmax()) if bled.any() else len(pixels) // 2].astype(np.float32)
    return _tile(image / np.percentile(image, BRIGHTEST) * 255, series.volume.pixel_spacing)


def _tiles(volume: Volume, window: tuple[float, float]) -> list[npt.NDArray[np.uint8]]:
    hu = to_hu(volume.pixels, volume.slope, volume.intercept, volume.padding)
    area = (hu > HEAD_HU).sum(axis=(1, 2)) * np.prod(volume.pixel_spacing)
    heights = volume.origin[:, 2] + 0.5 * hu.shape[1] * volume.pixel_spacing[0] * volume.column_cosines[2]
    vertex = heights[area > LEAST_MM2].max()
    level, width = window
    tiles = []
    for depth in DEPTHS_MM:
        at = int(np.abs(heights - (vertex - depth)).argmin())
        tiles.append(_tile(((hu[at] - level) / width + 0.5) * 255, volume.pixel_spacing))
    return tiles


def _tile(grey: npt.NDArray[np.float32], pixel_mm: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """A section of 0 to 255 on a square of 1 mm pixels, cut or padded around its middle."""
    from scipy import ndimage

    image = np.clip(ndimage.zoom(grey, pixel_mm, order=1), 0, 255)
    tile = np.zeros((TILE, TILE), np.uint8)
    first = [max(0, (size - TILE) // 2) for size in image.shape]
    part = image[first[0] : first[0] + TILE, first[1] : first[1] + TILE]
    down, right = ((TILE - size) // 2 for size in part.shape)
    tile[down : down + part.shape[0], right : right + part.shape[1]] = part
    return tile
