"""Spans as blocks for a live view: plain lists, in milliseconds, and never more than a screen can show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..spans import Span, Stage
from .intervals import parts

#: ``[lane, start_ms, end_ms, frames]``: the lane's number within its stage, times since the start of the run.
Block = tuple[int, float, float, int]


class Lanes:
    """Numbers the lanes of each stage in the order in which they show up, the same for a whole run."""

    def __init__(self) -> None:
        self._numbers: dict[Stage, dict[str, int]] = {stage: {} for stage in Stage}

    def number(self, span: Span) -> int:
        """The lane of ``span`` within its stage, counted from 0."""
        known = self._numbers[span.stage]
        return known.setdefault(span.lane, len(known))

    def counts(self) -> dict[str, int]:
        """How many lanes each stage has."""
        return {stage.value: len(known) for stage, known in self._numbers.items() if known}


def blocks_of(spans: Iterable[Span], started_ns: int, lanes: Lanes, *, most: int) -> dict[str, list[Block]]:
    """``spans`` by the name of their stage, in order of time within each lane.

    Args:
        spans: in any order.
        started_ns: what times count from; what was before is cut off.
        lanes: numbers the lanes.
        most: of a stage, not more blocks than about this many: neighbours in a lane become one where the gaps between
            them are shortest.
    """
    by_lane: dict[Stage, dict[int, list[Span]]] = {}
    for span in spans:
        by_lane.setdefault(span.stage, {}).setdefault(lanes.number(span), []).append(span)
    return {
        stage.value: [
            block
            for number, row in sorted(rows.items())
            for block in _blocks(sorted(row, key=lambda span: span.start_ns), number, started_ns, most // len(rows))
        ]
        for stage, rows in by_lane.items()
    }


def _blocks(row: Sequence[Span], lane: int, started_ns: int, most: int) -> list[Block]:
    """A lane's spans, in order of time, as at most ``most`` blocks, but at least one."""
    times = [(span.start_ns, span.end_ns) for span in row]
    return [_block(row[part], lane, started_ns) for part in parts(times, max(1, most))]


def _block(spans: Sequence[Span], lane: int, started_ns: int) -> Block:
    start = max(0, spans[0].start_ns - started_ns)
    end = max(start, max(span.end_ns for span in spans) - started_ns)
    return lane, round(start / 1e6, 2), round(end / 1e6, 2), sum(span.frames for span in spans)
