"""What the timeline is drawn with: colours, text and shapes with smooth edges, in points, on a Pillow image.

It knows nothing of runs.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFont

#: Red, green and blue, 0 to 255.
Colour = tuple[int, int, int]
#: Left, top, right and bottom, in points.
Box = tuple[float, float, float, float]
Align = Literal["left", "middle", "right"]

#: Shapes are drawn so many times larger and averaged down.
_SMOOTHING = 4
_HATCH_PERIOD = 5.0
_HATCH_WIDTH = 1.8
#: Height of Pillow's old built-in font, which has one size only, in pixels.
_BITMAP_SIZE = 11


@dataclass(frozen=True)
class Theme:
    """Colours. Those of the work are Okabe and Ito's, which people with any kind of colour vision can tell apart.

    Attributes:
        background: of the picture.
        track: where a lane has nothing.
        grid: lines of the time axis.
        text: titles and figures.
        muted: everything else that is written.
        decode: decoding; ``finish``, ``copy`` and ``save`` likewise.
        wait: waiting that costs nothing.
        stall: waiting that costs time.
    """

    background: Colour
    track: Colour
    grid: Colour
    text: Colour
    muted: Colour
    decode: Colour
    finish: Colour
    copy: Colour
    save: Colour
    wait: Colour
    stall: Colour


THEMES = {
    "light": Theme(
        background=(255, 255, 255),
        track=(243, 245, 247),
        grid=(221, 226, 231),
        text=(27, 31, 36),
        muted=(96, 105, 115),
        decode=(0, 114, 178),
        finish=(86, 180, 233),
        copy=(230, 159, 0),
        save=(0, 158, 115),
        wait=(150, 160, 170),
        stall=(213, 94, 0),
    ),
    "dark": Theme(
        background=(13, 17, 23),
        track=(24, 30, 38),
        grid=(48, 56, 66),
        text=(230, 237, 243),
        muted=(145, 155, 166),
        decode=(52, 145, 214),
        finish=(128, 204, 246),
        copy=(240, 180, 41),
        save=(33, 177, 133),
        wait=(118, 128, 139),
        stall=(240, 112, 52),
    ),
}


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` with ``share`` (0 to 1) of ``second`` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def readable_on(background: Colour) -> Colour:
    """White or near black, whichever has more contrast on ``background`` (WCAG's relative luminance)."""
    linear = [((value / 255 + 0.055) / 1.055) ** 2.4 if value > 10 else value / 255 / 12.92 for value in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.055 else (16, 20, 26)


def text_width(text: str, size: float) -> float:
    """Width of a line of text of ``size`` points, in points."""
    font = _font(size * 4)
    if isinstance(font, ImageFont.FreeTypeFont):
        return font.getlength(_drawable(text)) / 4
    return font.getbbox(_drawable(text))[2] * size / _BITMAP_SIZE


def wrapped(text: str, size: float, width: float) -> list[str]:
    """``text`` in lines of at most ``width`` points, broken at spaces; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


class Canvas:
    """A picture of ``width`` by ``height`` points, each of ``scale`` by ``scale`` pixels."""

    def __init__(self, width: float, height: float, *, scale: float, background: Colour) -> None:
        self.scale = scale
        self.image = Image.new("RGB", (round(width * scale), round(height * scale)), background)
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self, x: float, y: float, text: str, *, size: float, colour: Colour, align: Align = "left", bold: bool = False
    ) -> None:
        """Write one line whose middle is at height ``y``."""
        text, font = _drawable(text), _font(size * self.scale)
        x -= {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * text_width(text, size)
        if isinstance(font, ImageFont.FreeTypeFont):
            # The built-in font has one weight: a stroke of a pixel thickens letters that are large enough for it.
            stroke = int(bold and size * self.scale >= 24)
            place = (round(x * self.scale), round(y * self.scale))
            self._draw.text(place, text, font=font, fill=colour, anchor="lm", stroke_width=stroke, stroke_fill=colour)
        else:
            self._bitmap_text(x, y, text, font, size, colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: float = 1.0) -> None:
        """Draw a line; its width is at least a pixel."""
        points = [round(value * self.scale) for value in (x0, y0, x1, y1)]
        self._draw.line(points, fill=colour, width=max(1, round(width * self.scale)))

    @contextmanager
    def smooth(self, box: Box) -> Iterator[Pen]:
        """A pen for shapes within ``box``, which are in the picture when the block ends."""
        left, top = (max(0, math.floor(value * self.scale)) for value in box[:2])
        right = min(self.image.width, math.ceil(box[2] * self.scale))
        bottom = min(self.image.height, math.ceil(box[3] * self.scale))
        if right <= left or bottom <= top:
            raise ValueError(f"expected a box within the picture of {self.image.size} pixels, got {box} in points")
        part = self.image.crop((left, top, right, bottom))
        enlarged = part.resize((part.width * _SMOOTHING, part.height * _SMOOTHING), Image.Resampling.NEAREST)
        yield Pen(enlarged, (left * _SMOOTHING, top * _SMOOTHING), self.scale * _SMOOTHING)
        self.image.paste(enlarged.reduce(_SMOOTHING), (left, top))

    def _bitmap_text(
        self, x: float, y: float, text: str, font: ImageFont.ImageFont, size: float, colour: Colour
    ) -> None:
        _, _, width, height = (math.ceil(value) for value in font.getbbox(text))
        mask = Image.new("L", (max(1, width), max(1, height)))
        ImageDraw.Draw(mask).text((0, 0), text, font=font, fill=255)
        factor = size * self.scale / _BITMAP_SIZE
        mask = mask.resize((max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BICUBIC)
        self.image.paste(colour, (round(x * self.scale), round(y * self.scale - mask.height / 2)), mask)


class Pen:
    """Draws shapes with smooth edges; given out by ``Canvas.smooth``."""

    def __init__(self, image: Image.Image, origin: tuple[int, int], scale: float) -> None:
        self._image = image
        self._origin = origin
        self._scale = scale
        self._draw = ImageDraw.Draw(image)

    def box(self, box: Box, colour: Colour, radius: float = 0.0) -> None:
        """Fill ``box``, with corners of ``radius`` points."""
        left, top, right, bottom = self._pixels(box)
        corner = min(round(radius * self._scale), (right - left) // 2, (bottom - top) // 2)
        if corner > 0:
            self._draw.rounded_rectangle((left, top, right, bottom), corner, fill=colour)
        else:
            self._draw.rectangle((left, top, right, bottom), fill=colour)

    def hatch(self, boxes: Iterable[Box], colour: Colour) -> None:
        """Hatch ``boxes`` with diagonal lines, which run through from one box to the next."""
        mask = Image.new("L", self._image.size)
        draw = ImageDraw.Draw(mask)
        for box in boxes:
            draw.rectangle(self._pixels(box), fill=255)
        self._image.paste(colour, (0, 0), ImageChops.multiply(mask, self._diagonals()))

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill the shape with these corners."""
        moved = [(x * self._scale - self._origin[0], y * self._scale - self._origin[1]) for x, y in points]
        self._draw.polygon(moved, fill=colour)

    def _pixels(self, box: Box) -> tuple[int, int, int, int]:
        """``box`` in pixels of the enlarged part; the last pixel belongs to it."""
        left, top = round(box[0] * self._scale) - self._origin[0], round(box[1] * self._scale) - self._origin[1]
        right, bottom = round(box[2] * self._scale) - self._origin[0], round(box[3] * self._scale) - self._origin[1]
        return left, top, max(left, right - 1), max(top, bottom - 1)

    def _diagonals(self) -> Image.Image:
        width, height = self._image.size
        lines = Image.new("L", (width, height))
        draw = ImageDraw.Draw(lines)
        period, thickness = round(_HATCH_PERIOD * self._scale), round(_HATCH_WIDTH * self._scale)
        # In step with the whole picture, so that hatches of neighbouring parts meet.
        first = -((self._origin[0] + self._origin[1] + height) % period)
        for x in range(first, width + height + period, period):
            draw.line((x, 0, x - height, height), fill=255, width=thickness)
        return lines


@lru_cache(maxsize=32)
def _font(pixels: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size=pixels)
    except (TypeError, ImportError):
        # Pillow before 10.1, or one without FreeType, has one font of one size.
        return ImageFont.load_default()


def _drawable(text: str) -> str:
    """``text`` in the characters that Pillow's built-in fonts have."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
