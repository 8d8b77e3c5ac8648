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

DEPTHS_MM = (12, 24, 36, 48, 60, 74, 90, 106)
"""Under the highest section of the head."""
TILE = 230
"""Pixels, and millimetres, of a section."""
CAPTION = 22
BRAIN, BONE = (40.0, 80.0), (600.0, 2800.0)
"""Level and width, HU."""
HEAD_HU, LEAST_MM2 = -300.0, 1500.0
"""The highest section shows so much of a head."""
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
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtraError("a contact sheet", "report") from error
    sheet = Image.new("L", (TILE * len(DEPTHS_MM), (TILE + CAPTION) * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, (caption, volume) in enumerate(rows):
        top = number * (TILE + CAPTION)
        draw.text((6, top + 5), caption, fill=TEXT)
        for column, tile in enumerate(_tiles(volume, window)):
            sheet.paste(Image.fromarray(tile), (column * TILE, top + CAPTION))
    return sheet


def _tiles(volume: Volume, window: tuple[float, float]) -> list[npt.NDArray[np.uint8]]:
    from scipy import ndimage

    hu = to_hu(volume.pixels, volume.slope, volume.intercept, volume.padding)
    area = (hu > HEAD_HU).sum(axis=(1, 2)) * np.prod(volume.pixel_spacing)
    heights = volume.origin[:, 2] + 0.5 * hu.shape[1] * volume.pixel_spacing[0] * volume.column_cosines[2]
    vertex = heights[area > LEAST_MM2].max()
    level, width = window
    tiles = []
    for depth in DEPTHS_MM:
        at = int(np.abs(heights - (vertex - depth)).argmin())
        image = ndimage.zoom(hu[at], volume.pixel_spacing, order=1)
        grey = np.clip((image - level) / width + 0.5, 0, 1) * 255
        tile = np.zeros((TILE, TILE), np.uint8)
        cut = [slice(max(0, (size - TILE) // 2), max(0, (size - TILE) // 2) + TILE) for size in grey.shape]
        part = grey[cut[0], cut[1]]
        down, right = ((TILE - size) // 2 for size in part.shape)
        tile[down : down + part.shape[0], right : right + part.shape[1]] = part
        tiles.append(tile)
    return tiles
