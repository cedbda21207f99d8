"""The results as a picture: a bar for each arm, to the mean, with a line from the fastest to the slowest run."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .arms import ASYNCHRONOUS, DECODE, FINISH, SEQUENTIAL, STOCK
from .results import over_decode_only

_WIDTH, _MARGIN, _LABELS, _NUMBERS = 1200, 24, 290, 170
_ROW, _BAR, _HEADING = 26, 16, 44
_COLOURS = {
    DECODE: "#9aa5b1",
    FINISH: "#b8c1cb",
    SEQUENTIAL: "#e0a458",
    STOCK: "#c8553d",
    ASYNCHRONOUS: "#2a7f9e",
}
_INK, _FAINT, _PAPER = "#1f2933", "#7b8794", "#ffffff"


def draw(data: dict[str, Any]) -> Image.Image:
    """The picture of all cases that have runs; time goes to the right, each case on its own scale."""
    cases = [case for case in data["cases"] if any(arm["runs"] for arm in case["arms"])]
    rows = [[arm for arm in case["arms"] if arm["runs"]] for case in cases]
    height = 2 * _MARGIN + sum(_HEADING + _ROW * len(arms) for arms in rows)
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    canvas = ImageDraw.Draw(image)
    top = _MARGIN
    for case, arms in zip(cases, rows, strict=True):
        top = _draw_case(canvas, case, arms, top, data["environment"])
    return image


def _draw_case(
    canvas: ImageDraw.ImageDraw, case: dict[str, Any], arms: list[dict[str, Any]], top: int, about: dict[str, Any]
) -> int:
    """Draw one case; return where the next one begins."""
    bold, font = ImageFont.load_default(18), ImageFont.load_default(14)
    where = about["device"].get("name", f"CPU, {about['cores']} cores")
    canvas.text((_MARGIN, top), f"{case['case']}, {case['frames']} frames, {where}", fill=_INK, font=bold)
    top += _HEADING - 12
    left, right = _MARGIN + _LABELS, _WIDTH - _MARGIN - _NUMBERS
    scale = (right - left) / max(arm["max"] for arm in arms)
    bottom = top + _ROW * len(arms)
    for arm in arms:
        middle = top + _ROW // 2
        canvas.text((left - 10, middle), arm["arm"], fill=_INK, font=font, anchor="rm")
        end = left + arm["mean"] * scale
        canvas.rectangle((left, middle - _BAR // 2, end, middle + _BAR // 2), fill=_COLOURS[arm["kind"]])
        canvas.line((left + arm["min"] * scale, middle, left + arm["max"] * scale, middle), fill=_INK, width=2)
        ratio = over_decode_only(case, arm)
        text = f"{arm['mean']:.2f} s" + ("" if ratio is None else f"   x {ratio:.2f}")
        canvas.text((left + arm["max"] * scale + 8, middle), text, fill=_INK, font=font, anchor="lm")
        top += _ROW
    alone = next((arm for arm in arms if arm["kind"] == DECODE), None)
    if alone is not None:
        place = left + alone["mean"] * scale
        for y in range(bottom - _ROW * len(arms), bottom, 6):
            canvas.line((place, y, place, y + 2), fill=_FAINT)
    return bottom + 12
