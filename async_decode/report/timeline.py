"""A run as a picture: a row for each worker, time from left to right.

``draw_timeline`` shows one run, ``draw_comparison`` several on one time scale, with the time that the later ones saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from ..spans import Span, Stage
from .canvas import THEMES, Box, Canvas, Colour, Pen, Theme, mixed, text_width
from .intervals import Interval
from .lanes import lanes_of
from .report import Report, stalls
from .words import seconds_text

#: A run for the picture: its title, its spans and its report.
Run = tuple[str, Sequence[Span], Report]

_WIDTH, _MARGIN, _LABELS = 1080.0, 22.0, 76.0
_HEAD, _GAP, _AXIS, _LEGEND = 44.0, 20.0, 30.0, 30.0
_ROW, _BETWEEN = 22.0, 5.0
#: With more writers than this, rows get thinner, so that a picture of 64 still fits a screen.
_FULL_ROWS = 6
_THIN_ROW, _THIN_BETWEEN = 9.0, 2.0
#: Pixels a point: sharp on screens of high density.
_SCALE = 2.0
#: Blocks that are nearer than this many points are drawn as one.
_NEAR = 0.35


@dataclass(frozen=True)
class _Block:
    """A stretch of work in a row: ``number`` tells neighbours apart, ``None`` where several were merged."""

    start_ns: int
    end_ns: int
    stage: Stage
    number: int | None


@dataclass(frozen=True)
class _Row:
    """What one worker did: blocks in order of time, and when it waited."""

    label: str
    blocks: Sequence[_Block]
    waits: Sequence[Interval] = ()
    stalls: Sequence[Interval] = ()


@dataclass(frozen=True)
class _Scale:
    """Nanoseconds since a run's start to points from the left."""

    left: float
    points: float
    longest_ns: int

    def at(self, ns: float) -> float:
        return self.left + self.points * min(max(ns, 0.0), self.longest_ns) / self.longest_ns


def draw_timeline(
    spans: Sequence[Span], report: Report, *, title: str = "", theme: Literal["light", "dark"] = "light"
) -> Image.Image:
    """One run as an RGB picture, 2160 pixels wide.

    Args:
        spans: the recorder's, in any order.
        report: of the same run.
        title: a few words on what it is.
        theme: colours for light or dark surroundings.
    """
    return draw_comparison([(title, spans, report)], theme=theme)


def draw_comparison(runs: Sequence[Run], *, theme: Literal["light", "dark"] = "light") -> Image.Image:
    """Several runs of the same work below each other on one time scale, as an RGB picture, 2160 pixels wide.

    A run that was shorter than the first shows the time that it saved.

    Args:
        runs: at least one.
        theme: colours for light or dark surroundings.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("expected at least one run to draw, got none")
    colours = THEMES[theme]
    longest_ns = max(1, *(_wall_ns(report) for _, _, report in runs))
    scale = _Scale(_MARGIN + _LABELS, _WIDTH - 2 * _MARGIN - _LABELS, longest_ns)
    panels = [_rows_of(spans, report, longest_ns / scale.points * _NEAR) for _, spans, report in runs]
    heights = [_HEAD + _height(rows) for rows in panels]
    height = 2 * _MARGIN + sum(heights) + _GAP * (len(runs) - 1) + _AXIS + _LEGEND
    canvas = Canvas(_WIDTH, height, scale=_SCALE, background=colours.background)
    ticks = _ticks(longest_ns)
    top = _MARGIN
    for (title, _, report), rows, panel_height in zip(runs, panels, heights, strict=True):
        _heading(canvas, colours, title, report, top)
        _draw_rows(canvas, colours, rows, scale, ticks, top + _HEAD)
        if report is not runs[0][2]:
            _saving(canvas, colours, scale, report, runs[0][2], (top + _HEAD, top + panel_height))
        top += panel_height + _GAP
    _axis(canvas, colours, scale, ticks, top - _GAP)
    _legend(canvas, colours, panels, height - _MARGIN - _LEGEND / 2 + 4)
    return canvas.image


def _rows_of(spans: Sequence[Span], report: Report, near_ns: float) -> list[_Row]:
    start = report.started_ns
    by_stage = {stage: [span for span in spans if span.stage is stage] for stage in Stage}
    stalled = stalls(spans, unified=report.unified, buffer_depth=report.buffer_depth)
    waits = [(span.start_ns - start, span.end_ns - start) for span in by_stage[Stage.WAIT_SINKS]]
    compute = sorted([*by_stage[Stage.DECODE], *by_stage[Stage.FINISH]], key=lambda span: span.start_ns)
    rows = [_Row("decode", _merged(compute, start, near_ns), stalls=[(a - start, b - start) for a, b in stalled])]
    if by_stage[Stage.COPY]:
        rows.append(_Row("copy", _merged(by_stage[Stage.COPY], start, near_ns), waits=waits))
    writers = lanes_of(by_stage[Stage.SAVE])
    for number, lane in enumerate(writers):
        label = "" if number else ("save" if len(writers) == 1 else f"save x{len(writers)}")
        rows.append(_Row(label, _merged(lane.spans, start, near_ns)))
    return rows


def _merged(spans: Iterable[Span], start: int, near_ns: float) -> list[_Block]:
    """Spans in order of time as blocks; those that could not be told apart in the picture as one."""
    blocks: list[_Block] = []
    for span in spans:
        begin, end = span.start_ns - start, span.end_ns - start
        last = blocks[-1] if blocks else None
        # Two long blocks stay two, however near: their colours tell them apart.
        short = last is not None and min(end - begin, last.end_ns - last.start_ns) < 8 * near_ns
        if last is not None and last.stage is span.stage and begin - last.end_ns < near_ns and short:
            blocks[-1] = _Block(last.start_ns, max(last.end_ns, end), last.stage, None)
        else:
            blocks.append(_Block(begin, end, span.stage, span.index if span.stage is not Stage.SAVE else len(blocks)))
    return blocks


def _wall_ns(report: Report) -> int:
    return round(report.wall_seconds * 1e9)


def _sizes(rows: Sequence[_Row]) -> list[tuple[float, float]]:
    """Height of each row and of the space below it."""
    savers = sum(1 for row in rows if not row.blocks or row.blocks[0].stage is Stage.SAVE)
    thin = savers > _FULL_ROWS
    return [
        (_THIN_ROW, _THIN_BETWEEN) if thin and row.blocks and row.blocks[0].stage is Stage.SAVE else (_ROW, _BETWEEN)
        for row in rows
    ]


def _height(rows: Sequence[_Row]) -> float:
    return sum(row + below for row, below in _sizes(rows))


def _heading(canvas: Canvas, theme: Theme, title: str, report: Report, top: float) -> None:
    left = _MARGIN
    if title:
        canvas.text(left, top + 9, title, size=17, colour=theme.text, bold=True)
        left += text_width(title, 17) + 14
    canvas.text(left, top + 10, f"{seconds_text(report.wall_seconds)}", size=15, colour=theme.decode, bold=True)
    facts = [f"{report.frames} frames", f"{report.fps:.3g} frames/s"]
    if report.hidden_share is not None:
        facts.append(f"{report.hidden_share:.0%} of copying and saving hidden behind decoding")
    canvas.text(_MARGIN, top + 29, ",  ".join(facts), size=11.5, colour=theme.muted)


def _draw_rows(
    canvas: Canvas, theme: Theme, rows: Sequence[_Row], scale: _Scale, ticks: Sequence[float], top: float
) -> None:
    right = scale.at(scale.longest_ns)
    bottom = top + _height(rows)
    for row, (size, below), y in zip(rows, _sizes(rows), _tops(rows, top), strict=True):
        if row.label:
            # The label of thin rows stands beside the first of them.
            canvas.text(scale.left - 12, y + size / 2, row.label, size=12.5, colour=theme.text, align="right")
        with canvas.smooth((scale.left - 1, y, right + 1, y + size + below)) as pen:
            pen.box((scale.left, y, right, y + size), theme.track, radius=3)
            for tick in ticks:
                pen.box((scale.at(tick) - 0.4, y, scale.at(tick) + 0.4, y + size + below), theme.grid)
            _hatch(pen, scale, row.waits, y, size, theme.wait)
            _hatch(pen, scale, row.stalls, y, size, theme.stall)
            for block in row.blocks:
                pen.box(_place(scale, block.start_ns, block.end_ns, y, size), _colour(theme, block), radius=1.5)
    canvas.line(scale.left, bottom, right, bottom, theme.grid)


def _tops(rows: Sequence[_Row], top: float) -> list[float]:
    tops = []
    for row, below in _sizes(rows):
        tops.append(top)
        top += row + below
    return tops


def _hatch(pen: Pen, scale: _Scale, when: Sequence[Interval], y: float, size: float, colour: Colour) -> None:
    boxes = [_place(scale, start, end, y, size) for start, end in when if scale.at(end) - scale.at(start) >= _NEAR]
    if boxes:
        pen.hatch(boxes, colour)


def _place(scale: _Scale, start_ns: int, end_ns: int, y: float, size: float) -> Box:
    # At least a hair, or a short copy would not be seen.
    left = scale.at(start_ns)
    return left, y, max(scale.at(end_ns), left + 0.8), y + size


def _colour(theme: Theme, block: _Block) -> Colour:
    full: Colour = getattr(theme, block.stage.value)
    # Every other block a little lighter: one sees how much travels at once.
    return mixed(full, theme.background, 0.22) if block.number is not None and block.number % 2 else full


def _saving(
    canvas: Canvas, theme: Theme, scale: _Scale, report: Report, first: Report, span: tuple[float, float]
) -> None:
    """Say over the end of a run's rows how much shorter it was than the first."""
    saved = first.wall_seconds - report.wall_seconds
    if saved <= 0 or first.wall_seconds <= 0:
        return
    left, right = scale.at(_wall_ns(report)), scale.at(_wall_ns(first))
    middle = (span[0] + span[1] - _BETWEEN) / 2
    text = f"{seconds_text(saved)} less (-{saved / first.wall_seconds:.0%})"
    canvas.line(left, span[0] - 4, left, span[1], theme.text)
    width = text_width(text, 13)
    if right - left < width + 16:
        # Too narrow to hold the words: they stand above, up to the right edge.
        canvas.text(right, span[0] - 14, text, size=13, colour=theme.text, align="right", bold=True)
        return
    with canvas.smooth((left, middle - 12, right, middle + 12)) as pen:
        centre = (left + right) / 2
        pen.box((centre - width / 2 - 9, middle - 11, centre + width / 2 + 9, middle + 11), theme.background, radius=11)
    canvas.text((left + right) / 2, middle, text, size=13, colour=theme.text, align="middle", bold=True)


def _ticks(longest_ns: int) -> list[float]:
    """About eight round times from 0 to the longest run, in nanoseconds."""
    rough = longest_ns / 8
    magnitude = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= rough)
    return [number * step for number in range(int(longest_ns / step) + 1)]


def _axis(canvas: Canvas, theme: Theme, scale: _Scale, ticks: Sequence[float], top: float) -> None:
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")) if ticks[-1] >= unit), (1, "ns")
    )
    for tick in ticks:
        x = scale.at(tick)
        canvas.line(x, top, x, top + 4, theme.grid)
        canvas.text(x, top + 13, f"{tick / unit:.4g} {name}", size=11, colour=theme.muted, align="middle")


def _legend(canvas: Canvas, theme: Theme, panels: Sequence[Sequence[_Row]], y: float) -> None:
    """What is in the picture, and nothing else."""
    stages = {block.stage for rows in panels for row in rows for block in row.blocks}
    entries: list[tuple[str, Colour, bool]] = [
        (stage.value, getattr(theme, stage.value), False)
        for stage in (Stage.DECODE, Stage.FINISH, Stage.COPY, Stage.SAVE)
        if stage in stages
    ]
    if any(row.stalls for rows in panels for row in rows):
        entries.append(("decoding waits for saving", theme.stall, True))
    if any(row.waits for rows in panels for row in rows):
        entries.append(("copy waits for saving", theme.wait, True))
    x = _MARGIN + _LABELS
    for name, colour, hatched in entries:
        with canvas.smooth((x, y - 6, x + 20, y + 6)) as pen:
            if hatched:
                pen.hatch([(x, y - 6, x + 20, y + 6)], colour)
            else:
                pen.box((x, y - 6, x + 20, y + 6), colour, radius=2)
        canvas.text(x + 27, y, name, size=12, colour=theme.muted)
        x += 27 + text_width(name, 12) + 24
