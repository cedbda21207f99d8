"""Totals of a run, kept up while its spans arrive, so that a report costs the same however many there were.

They can be asked at any time and from any thread. Of the spans themselves they keep when somebody was at it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ..spans import Span, Stage
from .figures import StageTotals
from .intervals import Interval, IntervalSet, Overlap, parts
from .lanes import STAGE_ORDER

#: A report keeps at most so many busy intervals of a stage; a browser's lane is a few hundred pixels wide.
MAX_INTERVALS = 200
_COMPUTE, _ONWARD = (Stage.DECODE, Stage.FINISH), (Stage.COPY, Stage.SAVE)


@dataclass(frozen=True)
class Pace:
    """How decoding gets on.

    Attributes:
        steps: decode steps that have ended, each of which made a piece.
        frames: frames that they made.
        began_ns: when the first step began, on the clock of the spans.
        ended_ns: when the last one ended.
    """

    steps: int
    frames: int
    began_ns: int
    ended_ns: int

    @property
    def rate(self) -> float | None:
        """Frames a second since the first step began, over all steps; ``None`` before there are two."""
        if self.steps < 2 or self.ended_ns <= self.began_ns:
            return None
        return self.frames * 1e9 / (self.ended_ns - self.began_ns)


class _StageSpans:
    """What has come of one stage."""

    def __init__(self) -> None:
        self.busy = IntervalSet()
        self.lanes: dict[str, IntervalSet] = {}
        self.summed_ns = 0
        self.spans = self.frames = self.bytes = 0


class SpanTotals:
    """Adds up spans, which may come in any order.

    Args:
        started_ns: start of the run on the clock of the spans; what they have before it does not count.
    """

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self._lock = threading.Lock()
        self._stages = {stage: _StageSpans() for stage in STAGE_ORDER}
        self._compute, self._onward = IntervalSet(), IntervalSet()
        self._hidden = Overlap(self._onward, self._compute)
        self._slot_waits, self._sink_waits = (self._stages[s].busy for s in (Stage.WAIT_SLOT, Stage.WAIT_SINKS))
        self._both_wait = Overlap(self._slot_waits, self._sink_waits)
        self._first_saved: int | None = None
        self._decode_began: int | None = None
        self._decode_ended = started_ns

    def add(self, span: Span) -> None:
        """Count ``span``; safe to call from any thread."""
        start, end = max(span.start_ns, self.started_ns), span.end_ns
        with self._lock:
            of = self._stages[span.stage]
            of.summed_ns += max(0, span.end_ns - span.start_ns)
            of.spans += 1
            of.frames += span.frames
            of.bytes += span.bytes
            new = of.busy.add(start, end)
            of.lanes.setdefault(span.lane, IntervalSet()).add(start, end)
            if span.stage in _COMPUTE:
                self._hidden.add_to_second(self._compute.add(start, end))
            elif span.stage in _ONWARD:
                self._hidden.add_to_first(self._onward.add(start, end))
            elif span.stage is Stage.WAIT_SLOT:
                self._both_wait.add_to_first(new)
            elif span.stage is Stage.WAIT_SINKS:
                self._both_wait.add_to_second(new)
            if span.stage is Stage.DECODE:
                self._decode_began = start if self._decode_began is None else min(self._decode_began, start)
                self._decode_ended = max(self._decode_ended, end)
            if span.stage is Stage.SAVE and span.frames and (self._first_saved is None or end < self._first_saved):
                self._first_saved = end

    @property
    def first_saved_ns(self) -> int | None:
        """When the first frames had been written; ``None`` before."""
        return self._first_saved

    def stall_ns(self, ended_ns: int, *, unified: bool, buffer_depth: int) -> int:
        """How long decoding waited because frames could not be written fast enough.

        Where device and host have memory of their own: while the decoding thread waited for a slot and a chunk on the
        device waited for the sinks. Where there is one memory, or one slot, every wait for a slot is one for the sinks.
        """
        with self._lock:
            return (self._slot_waits if unified or buffer_depth == 1 else self._both_wait).length_until(ended_ns)

    def tail_ns(self, ended_ns: int) -> int:
        """From the end of the last decoding or finishing to the end of the last copy or save."""
        with self._lock:
            made, gone = self._compute.last_until(ended_ns), self._onward.last_until(ended_ns)
        return max(0, gone - made) if made is not None and gone is not None else 0

    def hidden_share(self, ended_ns: int) -> float | None:
        """Share of the time with copying or saving in which there was decoding or finishing; ``None`` without any."""
        with self._lock:
            onward = self._onward.length_until(ended_ns)
            return self._hidden.length_until(ended_ns) / onward if onward else None

    def stages(self, ended_ns: int, *, intervals: bool = True) -> dict[Stage, StageTotals]:
        """What each stage did before ``ended_ns``; every stage is there.

        Args:
            ended_ns: end of the run, or now, on the clock of the spans.
            intervals: tell when it was busy as well, which takes the longer the more spans there are. Default True.
        """
        with self._lock:
            return {stage: self._stage_totals(of, ended_ns, intervals) for stage, of in self._stages.items()}

    def pace(self) -> Pace:
        """How decoding gets on."""
        with self._lock:
            of = self._stages[Stage.DECODE]
            began = self._decode_began if self._decode_began is not None else self.started_ns
            return Pace(of.spans, of.frames, began, max(began, self._decode_ended))

    def _stage_totals(self, of: _StageSpans, ended_ns: int, intervals: bool) -> StageTotals:
        return StageTotals(
            busy_seconds=of.busy.length_until(ended_ns) / 1e9,
            summed_seconds=of.summed_ns / 1e9,
            busiest_lane_seconds=max((lane.length_until(ended_ns) for lane in of.lanes.values()), default=0) / 1e9,
            lanes=len(of.lanes),
            spans=of.spans,
            frames=of.frames,
            bytes=of.bytes,
            intervals=self._intervals(of.busy.until(ended_ns)) if intervals else (),
        )

    def _intervals(self, busy: Sequence[Interval]) -> tuple[tuple[float, float], ...]:
        start = self.started_ns
        return tuple(
            (round((busy[part][0][0] - start) / 1e9, 6), round((busy[part][-1][1] - start) / 1e9, 6))
            for part in parts(busy, MAX_INTERVALS)
        )
