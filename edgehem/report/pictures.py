"""The key slices of a result as one picture: a contact sheet for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgehem.errors import MissingExtraError, UsageError
from edgehem.report.text import headline, notice, printable
from edgehem.result import KeySlice, Result, Verdict
from edgehem.volume import Float64, Volume

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from edgehem.dicom.study import Study

    Font = ImageFont | FreeTypeFont

WINDOW_WIDTH_HU = 80.0
WINDOW_LEVEL_HU = 40.0
"""The brain window that radiologists read blood in."""

PADDING_HU = -1024.0
"""Pixels without a measurement are shown as air."""

MOST_SLICES = 4
TILE = 512
"""Longest side of one slice on the sheet, pixels."""
MARGIN = 28
GUTTER = 20
CAPTION = 44
HEADER = 36
"""Height of the line with the verdict's label and the headline."""
LINE = 22
SEPARATOR = "  ·  "
INSET = 12
"""Distance of the orientation letters from the edge of their tile, pixels."""
BOX_CLEARANCE = 4
"""Pixels between the suspected region and its outline, so that the outline hides nothing of it."""
BOX_STROKE = 2

TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 26, 18, 16

Colour = tuple[int, int, int]
BACKGROUND: Colour = (14, 17, 22)
TILE_EDGE: Colour = (44, 51, 61)
TEXT: Colour = (232, 236, 241)
QUIET: Colour = (150, 160, 173)
AMBER: Colour = (255, 182, 54)
BLUE: Colour = (122, 180, 255)

# No green: ACCEPT means that the answer stands without review, not that the answer is good news.
VERDICT_COLOUR = {Verdict.ACCEPT: BLUE, Verdict.FLAG: AMBER}

DIRECTIONS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Letters of the positive and negative patient axes (LPS; Patient Orientation, DICOM PS3.3 C.7.6.1.1.1)."""

FONT_LACKS = str.maketrans({"×": "x", "−": "-", "–": "-", "—": "-", "≥": ">", "≤": "<", "µ": "u"})
"""Pillow's own font covers little beyond Latin letters; what it lacks would be drawn as empty boxes."""


def save_key_slices(study: Study, result: Result, path: Path) -> None:
    """Write a contact sheet (PNG) of up to four key slices in the brain window.

    The slices are shown as they were acquired, at their true aspect ratio, without patient identifiers.

    Parameters
    ----------
    study : Study
        What was analysed.
    result : Result
        Its result, ACCEPT or FLAG.
    path : Path
        Where the PNG goes; overwritten.

    Raises
    ------
    MissingExtraError
        If Pillow is not installed.
    UsageError
        If the result has no key slices (NO-RESULT never has), or names slices the study does not have.
    """
    slices = len(study.volume.pixels)
    if result.verdict is Verdict.NO_RESULT or not result.key_slices:
        raise UsageError("this result has no key slices: there is nothing to draw")
    chosen = result.key_slices[:MOST_SLICES]
    if any(not 0 <= key.index < slices for key in chosen):
        raise UsageError(f"the result names slices outside the study's {slices}: they do not belong together")
    try:
        import PIL.Image  # noqa: F401 - asked for here so that what is missing is named before any work is done
    except ImportError as error:
        raise MissingExtraError("pictures", "report") from error
    _sheet(study.volume, result, chosen).save(path, format="PNG")


def brain_window(volume: Volume, index: int) -> npt.NDArray[np.uint8]:
    """One slice in the brain window.

    Parameters
    ----------
    volume : Volume
    index : int
        The slice, from 0.

    Returns
    -------
    uint8 array [Y, X]
        Black at 0 HU and below, white at 80 HU and above; pixels without a measurement are black.
    """
    stored = volume.pixels[index]  # [Y, X] stored values
    hu = stored * volume.slope[index] + volume.intercept[index]  # [Y, X] HU
    if volume.padding is not None:
        low, high = volume.padding
        hu = np.where((stored >= low) & (stored <= high), np.float32(PADDING_HU), hu)
    floor = WINDOW_LEVEL_HU - WINDOW_WIDTH_HU / 2
    grey: npt.NDArray[np.uint8] = np.rint(np.clip((hu - floor) / WINDOW_WIDTH_HU, 0, 1) * 255).astype(np.uint8)
    return grey


def orientation_letters(direction: Float64) -> tuple[str, str]:
    """Letters for the two ends of an image axis.

    Parameters
    ----------
    direction : float64 array [3], LPS
        Where the axis points: row cosines for left to right, column cosines for top to bottom.

    Returns
    -------
    tuple of str
        The letter at the axis' start, and at its end. A row along +x starts at the patient's right: ``("R", "L")``.
    """
    axis = int(np.argmax(np.abs(direction)))
    positive, negative = DIRECTIONS[axis]
    return (negative, positive) if direction[axis] > 0 else (positive, negative)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where everything lies on the sheet, pixels."""

    tile: tuple[int, int]
    columns: int
    width: int

    @classmethod
    def of(cls, volume: Volume, count: int) -> _Layout:
        _, rows, columns = volume.pixels.shape
        height_mm, width_mm = rows * volume.pixel_spacing[0], columns * volume.pixel_spacing[1]
        scale = TILE / max(height_mm, width_mm)
        tile = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
        across = 2 if count in (2, 4) else count
        # Even a single narrow slice leaves the header and the notice room to be read.
        width = max(2 * MARGIN + across * tile[0] + (across - 1) * GUTTER, 2 * MARGIN + TILE)
        return cls(tile=tile, columns=across, width=width)

    def corner(self, place: int, top: int) -> tuple[int, int]:
        """Upper left corner of a tile; rows of tiles start at ``top`` and are centred on the sheet."""
        used = self.columns * self.tile[0] + (self.columns - 1) * GUTTER
        x = (self.width - used) // 2 + place % self.columns * (self.tile[0] + GUTTER)
        return x, top + place // self.columns * (self.tile[1] + CAPTION)


def _sheet(volume: Volume, result: Result, chosen: tuple[KeySlice, ...]) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    title, text, small = (ImageFont.load_default(size=size) for size in (TITLE_SIZE, TEXT_SIZE, SMALL_SIZE))
    layout = _Layout.of(volume, len(chosen))
    room = layout.width - 2 * MARGIN
    label = round(text.getlength(result.verdict.value)) + 24
    heading = _wrap(headline(result).split(" "), " ", title, room - label - 16)
    subtitle = _wrap(_subtitle(volume, result), SEPARATOR, small, room)
    footer = _wrap(notice(result).split(" "), " ", small, room)
    top = MARGIN + len(heading) * HEADER + 6 + len(subtitle) * LINE + 16
    bottom = top + -(-len(chosen) // layout.columns) * (layout.tile[1] + CAPTION)
    image = Image.new("RGB", (layout.width, bottom + 8 + len(footer) * LINE + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(image)

    middle = MARGIN + HEADER // 2
    draw.rectangle((MARGIN, MARGIN + 2, MARGIN + label, MARGIN + HEADER - 3), fill=VERDICT_COLOUR[result.verdict])
    draw.text((MARGIN + label / 2, middle), result.verdict.value, font=text, fill=BACKGROUND, anchor="mm")
    y = _lines(draw, (MARGIN + label + 16, middle), heading, font=title, colour=TEXT, pitch=HEADER)
    _lines(draw, (MARGIN, y + 4), subtitle, font=small, colour=QUIET, pitch=LINE)
    for place, key in enumerate(chosen):
        x, y = layout.corner(place, top)
        grey = Image.fromarray(brain_window(volume, key.index))
        # Windowed first, scaled second: scaling HU would ring at the skull and paint dark and bright rims on the brain.
        image.paste(grey.resize(layout.tile, Image.Resampling.BICUBIC), (x, y))
        _decorate(draw, volume, layout, key, corner=(x, y), text=text, small=small)
    colour = AMBER if result.bundle.demonstration else QUIET
    _lines(draw, (MARGIN, bottom + 8 + LINE // 2), footer, font=small, colour=colour, pitch=LINE)
    return image


def _subtitle(volume: Volume, result: Result) -> list[str]:
    parts = [
        f"{len(volume.pixels)} slices, acquired images",
        f"window {WINDOW_WIDTH_HU:.0f}, level {WINDOW_LEVEL_HU:.0f} HU",
    ]
    if result.input is not None and abs(result.input.tilt_deg) >= 0.5:
        parts.append(f"gantry tilt {result.input.tilt_deg:.1f}°")
    parts.append(f"{result.bundle.name} {result.bundle.version} ({result.bundle.precision}, {result.bundle.backend})")
    return parts


def _decorate(
    draw: ImageDraw,
    volume: Volume,
    layout: _Layout,
    key: KeySlice,
    *,
    corner: tuple[int, int],
    text: Font,
    small: Font,
) -> None:
    """Edge, region, orientation letters and caption of one tile."""
    x, y = corner
    width, height = layout.tile
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=TILE_EDGE)
    if key.box is not None:
        _outline(draw, volume, layout, key.box, corner)
    letter: dict[str, Any] = {"font": text, "fill": TEXT, "stroke_width": 2, "stroke_fill": (0, 0, 0)}
    left, right = orientation_letters(volume.row_cosines)
    draw.text((x + INSET, y + height / 2), left, anchor="lm", **letter)
    draw.text((x + width - INSET, y + height / 2), right, anchor="rm", **letter)
    top, _ = orientation_letters(volume.column_cosines)
    draw.text((x + width / 2, y + INSET), top, anchor="mt", **letter)
    line = y + height + 18
    draw.text((x, line), f"slice {key.index + 1} of {len(volume.pixels)}", font=text, fill=TEXT, anchor="lm")
    draw.text((x + width, line), f"weight {key.weight:.2f}", font=small, fill=QUIET, anchor="rm")
    if key.box is not None:
        draw.text((x + width / 2, line), "suspected region", font=small, fill=AMBER, anchor="mm")


def _outline(
    draw: ImageDraw, volume: Volume, layout: _Layout, box: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    _, rows, columns = volume.pixels.shape
    width, height = layout.tile
    top, left, bottom, right = box  # pixels, the last row and column included
    place = (
        max(0, round(left * width / columns) - BOX_CLEARANCE) + corner[0],
        max(0, round(top * height / rows) - BOX_CLEARANCE) + corner[1],
        min(width - 1, round((right + 1) * width / columns) + BOX_CLEARANCE) + corner[0],
        min(height - 1, round((bottom + 1) * height / rows) + BOX_CLEARANCE) + corner[1],
    )
    draw.rounded_rectangle(place, radius=3, outline=AMBER, width=BOX_STROKE)


def _lines(draw: ImageDraw, place: tuple[int, int], lines: list[str], *, font: Font, colour: Colour, pitch: int) -> int:
    """Text from ``place``, the left end of the first line's middle; returns where the next line's middle would be."""
    x, y = place
    for line in lines:
        draw.text((x, y), line, font=font, fill=colour, anchor="lm")
        y += pitch
    return y


def _wrap(parts: list[str], joint: str, font: Font, room: int) -> list[str]:
    """Join parts into lines of at most ``room`` pixels and of even length, in characters that the font has."""
    parts = [printable(part).translate(FONT_LACKS) for part in parts]
    lines = _fill(parts, joint, font, room)
    # The narrowest column with as many lines leaves no single word alone on the last one.
    for narrower in range(room, room // 2, -LINE):
        if len(tried := _fill(parts, joint, font, narrower)) > len(lines):
            break
        lines = tried
    return lines


def _fill(parts: list[str], joint: str, font: Font, room: int) -> list[str]:
    lines: list[str] = []
    for part in parts:
        if lines and font.getlength(lines[-1] + joint + part) <= room:
            lines[-1] += joint + part
        else:
            lines.append(part)
    return lines
