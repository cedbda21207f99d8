"""Lanes: the spans of a run, sorted by who did them, in the order in which frames travel.

What the trace and the timeline picture share. It draws and writes nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..spans import Span, Stage

#: The order of lanes: that of the frames' way, each wait below the work that it holds up.
STAGE_ORDER = (
    Stage.DECODE,
    Stage.FINISH,
    Stage.WAIT_SLOT,
    Stage.COPY,
    Stage.WAIT_SINKS,
    Stage.SPOOL,
    Stage.SAVE,
)

#: Spans of one lane may overlap by so much and still be one after the other: devices tell the time since the start in
#: float32 milliseconds, so after a quarter of an hour two neighbours are known to 0.06 ms.
CLOCK_SLACK_NS = 100_000


@dataclass(frozen=True)
class Lane:
    """The spans of one worker.

    Attributes:
        name: who, for people.
        stage: what it does, or does first where it does several things.
        spans: in order of time; none begins before the one before it has ended.
    """

    name: str
    stage: Stage
    spans: tuple[Span, ...]

    def numbered(self) -> Iterator[tuple[Span, int | None]]:
        """Each span with the number of the first frame it worked on; ``None`` for waits, and where nobody knows.

        Decoding, finishing and copying go through the frames in order, so that counting tells.
        """
        known = bool(self.spans) and self.spans[0].index == 0
        frames = 0
        for span in self.spans:
            if span.stage in (Stage.SAVE, Stage.SPOOL):
                yield span, span.index if span.frames else None
            else:
                yield span, frames if known and span.frames else None
                frames += span.frames


def lanes_of(spans: Iterable[Span]) -> list[Lane]:
    """``spans`` as lanes, first by stage in the order of ``STAGE_ORDER``, then by name ("writer 2" before "writer 10").

    Spans of one name that overlap by more than the clocks explain, as those of two sinks of the same kind do, come in
    as many lanes as it takes, named "png", "png (2)" and so on. Smaller overlaps are trimmed.
    """
    named: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: (span.start_ns, span.end_ns)):
        named.setdefault(span.lane, []).append(span)
    lanes = [
        Lane(name if number == 1 else f"{name} ({number})", min((span.stage for span in row), key=_rank), tuple(row))
        for name, together in named.items()
        for number, row in enumerate(_rows(together), 1)
    ]
    return sorted(lanes, key=lambda lane: (_rank(lane.stage), _natural(lane.name)))


def _rows(spans: Iterable[Span]) -> list[list[Span]]:
    """Spread spans, in order of their start, over rows in which none overlaps another."""
    rows: list[list[Span]] = []
    for span in spans:
        for row in rows:
            if span.start_ns >= row[-1].end_ns - CLOCK_SLACK_NS:
                row.append(_after(span, row[-1].end_ns))
                break
        else:
            rows.append([_after(span, span.start_ns)])
    return rows


def _after(span: Span, ns: int) -> Span:
    """``span`` without what it has before ``ns``; never of negative length."""
    start = max(span.start_ns, ns)
    return dataclasses.replace(span, start_ns=start, end_ns=max(span.end_ns, start))


def _rank(stage: Stage) -> int:
    return STAGE_ORDER.index(stage)


def _natural(name: str) -> list[tuple[str, int]]:
    """A key by which numbers in names sort by their value."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
