"""The results as a picture: a bar for each arm, to the mean, with a line from the fastest to the slowest run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .arms import ASYNCHRONOUS, ASYNCHRONOUS_STOCK, DECODE, FASTER, FINISH, SEQUENTIAL, STOCK
from .results import over_decode_only

#: Inches: of the picture, of what stands beside the bars, of a row, and of what stands above and below the rows.
_WIDTH, _LABELS, _NUMBERS, _ROW, _HEADING, _MARGIN = 12.0, 3.9, 1.7, 0.26, 0.5, 0.2
_COLOURS = {
    DECODE: "#9aa5b1",
    FASTER: "#5f7f95",
    FINISH: "#b8c1cb",
    SEQUENTIAL: "#e0a458",
    STOCK: "#c8553d",
    ASYNCHRONOUS_STOCK: "#7db8cc",
    ASYNCHRONOUS: "#2a7f9e",
}
_INK, _FAINT = "#1f2933", "#7b8794"


def save_picture(path: Path, data: dict[str, Any]) -> None:
    """Draw all cases that have runs; time goes to the right, each case on its own scale."""
    cases = [case for case in data["cases"] if any(arm["runs"] for arm in case["arms"])]
    rows = [[arm for arm in case["arms"] if arm["runs"]] for case in cases]
    height = 2 * _MARGIN + sum(_HEADING + _ROW * len(arms) for arms in rows)
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(_WIDTH, height))
        top = height - _MARGIN
        for case, arms in zip(cases, rows, strict=True):
            size = _ROW * len(arms)
            top -= _HEADING + size
            width = _WIDTH - _LABELS - _NUMBERS
            axes = figure.add_axes((_LABELS / _WIDTH, top / height, width / _WIDTH, size / height))
            _draw_case(axes, case, arms, data["environment"])
        figure.savefig(path, dpi=150)


def _draw_case(axes: Axes, case: dict[str, Any], arms: list[dict[str, Any]], about: dict[str, Any]) -> None:
    where = about["device"].get("name", f"CPU, {about['cores']} cores")
    places = range(len(arms))
    axes.barh(places, [arm["mean"] for arm in arms], height=0.62, color=[_COLOURS[arm["kind"]] for arm in arms])
    axes.hlines(places, [arm["min"] for arm in arms], [arm["max"] for arm in arms], color=_INK, linewidth=1.5)
    for place, arm in enumerate(arms):
        ratio = over_decode_only(case, arm)
        text = f"{arm['mean']:.2f} s" + ("" if ratio is None else f"   × {ratio:.2f}")  # noqa: RUF001
        axes.annotate(text, (arm["max"], place), (6, 0), textcoords="offset points", va="center", color=_INK)
    alone = next((arm for arm in arms if arm["kind"] == DECODE), None)
    if alone is not None:
        axes.axvline(alone["mean"], color=_FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set(xlim=(0, max(arm["max"] for arm in arms)), ylim=(len(arms) - 0.5, -0.5))
    axes.set_yticks(places, [arm["arm"] for arm in arms], color=_INK)
    axes.annotate(
        f"{case['case']}, {case['frames']} frames, {where}",
        (0, 1),
        xycoords="axes fraction",
        xytext=(-(_LABELS - _MARGIN) * 72, 8),
        textcoords="offset points",
        fontsize=12,
        fontweight="bold",
        color=_INK,
    )
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
