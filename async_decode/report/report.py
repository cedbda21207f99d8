"""The report: what happened in a run, in figures, and what to do about it.

Pure functions over spans. Of the spans themselves it keeps, for every stage, when it was busy, so that the browser can
draw a run that is over from the report alone, however many chunks it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..decoding import Decoding
from ..frames import Clip
from ..spans import Span, Stage
from . import words
from .figures import Figures, Outcome, StageTotals, plain
from .intervals import Interval, intersection, length, parts, union
from .lanes import STAGE_ORDER
from .words import Bottleneck

#: Number of the JSON form; goes up when a reader of the old one could misread the new one.
SCHEMA = 1
#: The report keeps at most so many busy intervals of a stage; a browser's lane is a few hundred pixels wide.
MAX_INTERVALS = 200


@dataclass(frozen=True)
class Report(Figures):
    """What happened in one run of a pipeline: its figures, and what they mean in words."""

    @property
    def bottleneck(self) -> Bottleneck | None:
        """What held the run up most; ``None`` before there are frames."""
        return words.bottleneck_of(self)

    @property
    def advice(self) -> str:
        """One sentence on the bottleneck and what to change; empty before there are frames."""
        advice = words.advice_of(self)
        return "" if advice is None else str(advice)

    def advised(self) -> dict[str, Any]:
        """Bottleneck and advice as plain types: the sentence, and its code and values for other languages."""
        advice = words.advice_of(self)
        return {
            "bottleneck": None if self.bottleneck is None else self.bottleneck.value,
            "advice": self.advice,
            "advice_code": None if advice is None else advice.code,
            "advice_values": {} if advice is None else dict(advice.values),
        }

    def summary(self) -> str:
        """One line for people."""
        return words.summary_of(self)

    def __str__(self) -> str:
        return words.text_of(self)

    def to_json(self) -> dict[str, Any]:
        """As plain types, with what follows from the rest (``fps``, ``bottleneck``, ``advice``, ``summary``)."""
        return {
            "schema": SCHEMA,
            **plain(self),
            "decoding": None if self.decoding is None else plain(self.decoding),
            "warnings": list(self.warnings),
            "stages": {stage.value: totals.to_json() for stage, totals in self.stages.items()},
            "fps": self.fps,
            **self.advised(),
            "summary": self.summary(),
        }


def build_report(
    *,
    spans: Sequence[Span],
    started_ns: int,
    ended_ns: int,
    decoding: Decoding | None,
    clip: Clip | None,
    chunk_size: int,
    chunk_frames: int,
    buffer_depth: int,
    device: str,
    pinned: bool | None,
    unified: bool,
    chunks: int,
    frames: int,
    warnings: Sequence[str],
    outcome: Outcome,
    ring_bytes_device: int,
    ring_bytes_host: int,
) -> Report:
    """Make the report of a run from its spans and its facts, whose meaning ``Report`` tells.

    Args:
        started_ns: start of the run, on the clock of the spans.
        ended_ns: its end, or now. What spans have outside of the two (the clocks of a device and of its host drift
            apart a little) does not count.
        clip: geometry of the frames, ``None`` before the first piece.
    """
    run = [(started_ns, ended_ns)] if ended_ns > started_ns else []
    of = {stage: [span for span in spans if span.stage is stage] for stage in STAGE_ORDER}
    compute = _busy([*of[Stage.DECODE], *of[Stage.FINISH]], run)
    onward = _busy([*of[Stage.COPY], *of[Stage.SAVE]], run)
    saved = [span.end_ns for span in of[Stage.SAVE] if span.frames]
    hidden = None
    if onward and (decoding is None or decoding.kind != "images"):
        hidden = length(intersection(onward, compute)) / length(onward)
    return Report(
        outcome=outcome,
        decoding=decoding,
        device=device,
        width=0 if clip is None else clip.width,
        height=0 if clip is None else clip.height,
        channels=0 if clip is None else clip.channels,
        frames=frames,
        total_frames=None if clip is None else clip.frames,
        chunks=chunks,
        chunk_size=chunk_size,
        chunk_frames=chunk_frames,
        buffer_depth=buffer_depth,
        unified=unified,
        pinned=pinned,
        ring_bytes_device=ring_bytes_device,
        ring_bytes_host=ring_bytes_host,
        warnings=tuple(warnings),
        started_ns=started_ns,
        wall_seconds=_seconds(length(run)),
        first_frame_seconds=_seconds(max(0, min(saved) - started_ns)) if saved else None,
        tail_seconds=_seconds(max(0, onward[-1][1] - compute[-1][1])) if onward and compute else 0.0,
        stall_seconds=_seconds(length(intersection(stalls(spans, unified=unified, buffer_depth=buffer_depth), run))),
        hidden_share=hidden,
        stages={stage: _totals(of[stage], run) for stage in STAGE_ORDER},
    )


def stalls(spans: Iterable[Span], *, unified: bool, buffer_depth: int) -> list[Interval]:
    """When decoding waited because frames could not be written fast enough, as a set of intervals.

    Where device and host have memory of their own: while the decoding thread waited for a slot and a chunk on the
    device waited for the sinks. Where there is one memory, or one slot, every wait for a slot is a wait for the sinks.
    """
    spans = list(spans)
    slot = _busy(span for span in spans if span.stage is Stage.WAIT_SLOT)
    if unified or buffer_depth == 1:
        return slot
    return intersection(slot, _busy(span for span in spans if span.stage is Stage.WAIT_SINKS))


def _busy(spans: Iterable[Span], within: Sequence[Interval] | None = None) -> list[Interval]:
    busy = union((span.start_ns, span.end_ns) for span in spans)
    return busy if within is None else intersection(busy, within)


def _totals(spans: Sequence[Span], run: Sequence[Interval]) -> StageTotals:
    busy = _busy(spans, run)
    lanes = {span.lane for span in spans}
    start = run[0][0] if run else 0
    return StageTotals(
        busy_seconds=_seconds(length(busy)),
        summed_seconds=_seconds(sum(max(0, span.end_ns - span.start_ns) for span in spans)),
        busiest_lane_seconds=max(
            (_seconds(length(_busy((span for span in spans if span.lane == lane), run))) for lane in lanes), default=0.0
        ),
        lanes=len(lanes),
        spans=len(spans),
        frames=sum(span.frames for span in spans),
        bytes=sum(span.bytes for span in spans),
        intervals=tuple(
            (round(_seconds(together[0][0] - start), 6), round(_seconds(together[-1][1] - start), 6))
            for together in (busy[part] for part in parts(busy, MAX_INTERVALS))
        ),
    )


def _seconds(ns: int) -> float:
    return ns / 1e9
