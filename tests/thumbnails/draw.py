"""Draws the thumbnails of the example workflows: ``python -m tests.thumbnails.draw``.

They are shown 260 pixels wide. That of the demo clip shows a frame of it, decoded here by the embedded VAE; the others
need models of many gigabytes, so that theirs say what comes in and what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from async_decode.demo import load_latent, load_vae
from tests.thumbnails.cards import DEMO, EXAMPLES, lines, names

WIDTH, HEIGHT = 960, 540
MARGIN = 56
BACKGROUND, TITLE, TEXT = "#171d2b", "#ffffff", "#c8d2e6"
#: The lanes of the pack's icon: decode, copy, save.
LANES = ("#3b82f6", "#14b8a6", "#f59e0b")
#: The frame of the clip that is shown.
FRAME = 24
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def card(texts: Sequence[str]) -> Image.Image:
    """The title and what comes in and out, with the lanes of a run below."""
    image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for lane, colour in enumerate(LANES):
        top = 396 + 40 * lane
        for chunk in range(6):
            left = MARGIN + 44 * lane + 126 * chunk
            draw.rounded_rectangle((left, top, left + 116, top + 30), radius=8, fill=colour)
    _write(draw, texts)
    return image


def over(frame: Image.Image, texts: Sequence[str]) -> Image.Image:
    """The title and what comes in and out, over a frame with the sign of something that plays."""
    scale = max(WIDTH / frame.width, HEIGHT / frame.height)
    large = frame.resize((round(frame.width * scale), round(frame.height * scale)), Image.Resampling.LANCZOS)
    top = (large.height - HEIGHT) // 2
    image = large.crop((0, top, WIDTH, top + HEIGHT))
    shade = ImageEnhance.Brightness(image).enhance(0.3)
    image.paste(shade, (0, 0), _gradient())
    draw = ImageDraw.Draw(image)
    middle, radius = (WIDTH - 110, 110), 62
    draw.circle(middle, radius, fill="#ffffff")
    draw.regular_polygon((middle[0] + 8, middle[1], 40), 3, rotation=270, fill=BACKGROUND)
    _write(draw, texts, top=HEIGHT - 300)
    return image


def _write(draw: ImageDraw.ImageDraw, texts: Sequence[str], top: int = 46) -> None:
    title, *rest = texts
    size = 104
    while draw.textlength(title, _font("DejaVuSans-Bold", size)) > WIDTH - 2 * MARGIN:
        size -= 2
    draw.text((MARGIN, top + 104), title, TITLE, _font("DejaVuSans-Bold", size), anchor="ls")
    for row, text in enumerate(rest):
        draw.text((MARGIN, top + 186 + 80 * row), text, TEXT, _font("DejaVuSans", 58), anchor="ls")


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"{name}.ttf", size)


def _gradient() -> Image.Image:
    """Clear above, and dark below, where the words are."""
    column = Image.new("L", (1, HEIGHT))
    column.putdata([round(255 * min(1.0, max(0.0, 2.5 * y / HEIGHT - 0.75))) for y in range(HEIGHT)])
    return column.resize((WIDTH, HEIGHT))


def demo_frame() -> Image.Image:
    """One frame of the embedded clip, decoded as a whole."""
    vae = load_vae(torch.device("cpu"))
    with torch.inference_mode():
        frames = vae.decode(load_latent())
    pixels = frames[0, :, FRAME].permute(1, 2, 0).add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def main() -> None:
    for name in names():
        texts = lines(name)
        image = over(demo_frame(), texts) if name == DEMO else card(texts)
        # The comment is what the tests compare with the workflow.
        image.save(EXAMPLES / f"{name}.jpg", quality=90, optimize=True, comment="\n".join(texts))


if __name__ == "__main__":
    main()
