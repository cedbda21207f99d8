"""Runs as a picture: a row for each worker, time from left to right, runs of the same work below each other.

Drawn with matplotlib (the extra ``cli``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..report.intervals import Interval, parts
from ..report.lanes import lanes_of
from ..report.report import Report, gain, stalls
from ..report.words import seconds_text
from ..spans import Span, Stage

#: A run for the picture: its title, its spans and its report.
Run = tuple[str, Sequence[Span], Report]
ThemeName = Literal["light", "dark"]

#: Colours. Those of the work are Okabe and Ito's, which people with any kind of colour vision can tell apart; ``wait``
#: is waiting that costs nothing, ``stall`` waiting that costs time, ``track`` where a row has nothing.
THEMES: Mapping[ThemeName, Mapping[str, str]] = {
    "light": {
        **{"background": "#ffffff", "track": "#f3f5f7", "grid": "#dde2e7", "text": "#1b1f24", "muted": "#606973"},
        **{"decode": "#0072b2", "finish": "#56b4e9", "copy": "#e69f00", "save": "#009e73"},
        **{"wait": "#96a0aa", "stall": "#d55e00"},
    },
    "dark": {
        **{"background": "#0d1117", "track": "#181e26", "grid": "#303842", "text": "#e6edf3", "muted": "#919ba6"},
        **{"decode": "#3491d6", "finish": "#80ccf6", "copy": "#f0b429", "save": "#21b185"},
        **{"wait": "#76808b", "stall": "#f07034"},
    },
}

# Lengths are in points; a point is two pixels, sharp on screens of high density.
_DPI = 144
_WIDTH, _MARGIN, _LABELS = 1080.0, 24.0, 78.0
_HEAD, _GAP, _AXIS, _LEGEND = 48.0, 22.0, 26.0, 24.0
_ROW, _BETWEEN = 22.0, 5.0
#: With more writers than this, rows get thinner, so that a picture of 64 still fits a screen.
_FULL_ROWS = 6
_THIN_ROW, _THIN_BETWEEN = 9.0, 2.0
#: The least that a block takes, or a short copy would not be seen.
_HAIR = 0.8
#: At most so many blocks of a stage in a row.
_BLOCKS = 600
#: Share of a run from which on a gain is worth drawing.
_WORTH_DRAWING = 0.01


@dataclass(frozen=True)
class _Row:
    """What one worker did: blocks by the name of their colour, and when it waited."""

    label: str
    blocks: Mapping[str, Sequence[Interval]]
    waits: Mapping[str, Sequence[Interval]]
    height: float = _ROW
    below: float = _BETWEEN


def save_timelines(path: str | os.PathLike[str], runs: Sequence[Run], *, theme: ThemeName = "light") -> None:
    """Draw runs of the same work below each other on one time scale, as a picture 2160 pixels wide.

    A run that gained time over the first one shows how much.

    Args:
        path: the file, in a format that its ending tells; PNG is what it is made for.
        runs: at least one.
        theme: colours for light or dark surroundings.

    Raises:
        ValueError: there is no run.
        OSError: the file could not be written.
    """
    if not runs:
        raise ValueError("expected at least one run to draw, got none")
    with mpl.rc_context({"font.family": "DejaVu Sans", "hatch.linewidth": 1.8}):
        _figure(runs, THEMES[theme]).savefig(path, dpi=_DPI)


def _figure(runs: Sequence[Run], theme: Mapping[str, str]) -> Figure:
    longest = max(1e-6, *(report.wall_seconds for _, _, report in runs))
    panels = [_rows_of(spans, report) for _, spans, report in runs]
    heights = [sum(row.height + row.below for row in rows) for rows in panels]
    height = 2 * _MARGIN + sum(heights) + _HEAD * len(runs) + _GAP * (len(runs) - 1) + _AXIS + _LEGEND
    figure = Figure(figsize=(_WIDTH / 72, height / 72), facecolor=theme["background"])
    left, width = _MARGIN + _LABELS, _WIDTH - 2 * _MARGIN - _LABELS
    top = height - _MARGIN
    for number, ((title, _, report), rows, size) in enumerate(zip(runs, panels, heights, strict=True)):
        top -= _HEAD + size
        axes = figure.add_axes((left / _WIDTH, top / height, width / _WIDTH, size / height))
        axes.set(xlim=(0, longest), ylim=(size, 0), facecolor="none")
        _heading(axes, theme, title, report)
        _draw_rows(axes, theme, rows, longest / width)
        _time_axis(axes, theme, longest, labelled=number == len(runs) - 1)
        if number:
            _draw_gain(axes, theme, report, gain(runs[0][2], report), longest / width, size)
        top -= _GAP
    figure.legend(
        handles=_legend(panels, theme),
        loc="lower left",
        bbox_to_anchor=((left - 5) / _WIDTH, (_MARGIN - 8) / height),
        ncols=6,
        frameon=False,
        labelcolor=theme["muted"],
        fontsize=11.5,
        borderpad=0,
        columnspacing=1.8,
        handlelength=1.6,
    )
    return figure


def _rows_of(spans: Sequence[Span], report: Report) -> list[_Row]:
    start = report.started_ns

    def times(of: Sequence[Span]) -> list[Interval]:
        return [(span.start_ns - start, span.end_ns - start) for span in of]

    by_stage = {
        stage: sorted((span for span in spans if span.stage is stage), key=lambda span: span.start_ns)
        for stage in Stage
    }
    stalled = stalls(spans, unified=report.unified, buffer_depth=report.buffer_depth)
    rows = [
        _Row(
            "decode",
            {stage.value: times(by_stage[stage]) for stage in (Stage.DECODE, Stage.FINISH)},
            {"stall": [(begin - start, end - start) for begin, end in stalled]},
        )
    ]
    if by_stage[Stage.COPY]:
        rows.append(_Row("copy", {"copy": times(by_stage[Stage.COPY])}, {"wait": times(by_stage[Stage.WAIT_SINKS])}))
    writers = lanes_of(by_stage[Stage.SAVE])
    size = (_THIN_ROW, _THIN_BETWEEN) if len(writers) > _FULL_ROWS else (_ROW, _BETWEEN)
    for number, lane in enumerate(writers):
        label = "" if number else ("save" if len(writers) == 1 else f"save ×{len(writers)}")  # noqa: RUF001
        rows.append(_Row(label, {"save": times(lane.spans)}, {}, *size))
    return rows


def _draw_rows(axes: Axes, theme: Mapping[str, str], rows: Sequence[_Row], seconds_a_point: float) -> None:
    y = 0.0
    right = axes.get_xlim()[1]
    for row in rows:
        axes.broken_barh([(0, right)], (y, row.height), facecolors=theme["track"], zorder=0)
        for name, waits in row.waits.items():
            if waits:
                axes.broken_barh(
                    [(begin / 1e9, (end - begin) / 1e9) for begin, end in waits],
                    (y, row.height),
                    facecolors="none",
                    edgecolors=theme[name],
                    hatch="////",
                    linewidth=0,
                    zorder=2,
                )
        for name, blocks in row.blocks.items():
            together = [(blocks[part][0][0], max(end for _, end in blocks[part])) for part in parts(blocks, _BLOCKS)]
            axes.broken_barh(
                [(begin / 1e9, max((end - begin) / 1e9, _HAIR * seconds_a_point)) for begin, end in together],
                (y, row.height),
                # Every other block a little lighter: one sees how much travels at once.
                facecolors=[to_rgba(theme[name], 1 - 0.2 * (number % 2)) for number in range(len(together))],
                zorder=3,
            )
        if row.label:
            # The label of thin rows stands beside the first of them.
            axes.annotate(
                row.label,
                (0, y + row.height / 2),
                xytext=(-12, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=12,
                color=theme["text"],
            )
        y += row.height + row.below


def _heading(axes: Axes, theme: Mapping[str, str], title: str, report: Report) -> None:
    name = axes.annotate(
        title,
        (0, 1),
        xycoords="axes fraction",
        xytext=(-_LABELS, 29),
        textcoords="offset points",
        fontsize=16,
        fontweight="bold",
        color=theme["text"],
    )
    axes.annotate(
        seconds_text(report.wall_seconds),
        (1, 1),
        xycoords=(name, "axes fraction"),
        xytext=(14 if title else 0, 29),
        textcoords="offset points",
        fontsize=16,
        color=theme["decode"],
        annotation_clip=False,
    )
    facts = [f"{report.frames} frames", f"{report.fps:.3g} frames/s"]
    facts.append(f"decoding {seconds_text(report.compute_seconds)}")
    saving = report.stages[Stage.SAVE].busy_seconds
    if saving:
        facts.append(f"saving {seconds_text(saving)}")
    if report.hidden_share is not None:
        facts.append(f"{report.hidden_share:.0%} of copying and saving hidden behind decoding")
    axes.annotate(
        ",  ".join(facts),
        (0, 1),
        xycoords="axes fraction",
        xytext=(-_LABELS, 11),
        textcoords="offset points",
        fontsize=11,
        color=theme["muted"],
    )


def _time_axis(axes: Axes, theme: Mapping[str, str], longest: float, *, labelled: bool) -> None:
    unit, name = (1.0, "s") if longest >= 1 else (1e-3, "ms")
    axes.locator_params(axis="x", nbins=9)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds / unit:.4g} {name}")
    axes.xaxis.grid(color=theme["grid"], linewidth=0.8, zorder=1)
    axes.set_axisbelow(False)
    axes.tick_params(axis="x", color=theme["grid"], labelcolor=theme["muted"], labelsize=10.5, labelbottom=labelled)
    axes.yaxis.set_visible(False)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(theme["grid"])


def _draw_gain(
    axes: Axes, theme: Mapping[str, str], report: Report, seconds: float, seconds_a_point: float, height: float
) -> None:
    """Say behind the end of a run's rows how much shorter it was for having waited less."""
    whole = report.wall_seconds + seconds
    if seconds < _WORTH_DRAWING * whole:
        return
    text = f"{seconds_text(seconds)} less (−{seconds / whole:.0%})"  # noqa: RUF001
    axes.plot([report.wall_seconds] * 2, [-4, height], color=theme["text"], linewidth=1, clip_on=False, zorder=4)
    words: dict[str, Any] = {
        "fontsize": 12,
        "fontweight": "bold",
        "color": theme["text"],
        "zorder": 5,
        "annotation_clip": False,
    }
    if seconds / seconds_a_point > 8.2 * len(text) + 20:
        middle = (height - _BETWEEN) / 2
        axes.annotate(
            "",
            (whole, middle),
            (report.wall_seconds, middle),
            arrowprops={"arrowstyle": "<->", "color": theme["muted"], "shrinkA": 0, "shrinkB": 0},
            zorder=4,
        )
        box = {"boxstyle": "round,pad=0.45", "facecolor": theme["background"], "edgecolor": "none"}
        axes.annotate(text, ((report.wall_seconds + whole) / 2, middle), ha="center", va="center", bbox=box, **words)
    else:
        # Too narrow to hold the words: they stand above, up to the right edge.
        axes.annotate(
            text, (1, 1), xycoords="axes fraction", xytext=(0, 11), textcoords="offset points", ha="right", **words
        )


def _legend(panels: Sequence[Sequence[_Row]], theme: Mapping[str, str]) -> list[Patch]:
    """What is in the picture, and nothing else."""
    rows = [row for rows in panels for row in rows]
    there = {name for row in rows for of in (row.blocks, row.waits) for name, times in of.items() if times}
    entries = [
        Patch(facecolor=theme[name], label=name) for name in ("decode", "finish", "copy", "save") if name in there
    ]
    for name, label in (("stall", "decoding waits for saving"), ("wait", "copy waits for saving")):
        if name in there:
            entries.append(Patch(facecolor="none", edgecolor=theme[name], hatch="////", linewidth=0, label=label))
    return entries
