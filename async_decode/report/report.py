"""The report: what happened in a run, in figures, and what to do about it.

Pure functions over spans. Of the spans themselves it keeps, for every stage, when it was busy, so that the browser can
draw a run that is over from the report alone, however many chunks it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ..decoding import Decoding
from ..frames import Clip
from ..spans import Span, Stage
from . import words
from .intervals import Interval, coarsened, intersection, length, union
from .lanes import STAGE_ORDER
from .words import Bottleneck

#: Number of the JSON form; goes up when a reader of the old one could misread the new one.
SCHEMA = 1
#: The report keeps at most so many busy intervals of a stage; a browser's lane is a few hundred pixels wide.
MAX_INTERVALS = 200

Outcome = Literal["running", "completed", "cancelled", "failed"]


@dataclass(frozen=True)
class StageTotals:
    """What one stage did in a run.

    Attributes:
        busy_seconds: time in which somebody was at it: the length of the union of its spans.
        summed_seconds: the lengths of its spans together; with several writers more than ``busy_seconds``.
        busiest_lane_seconds: ``busy_seconds`` of the lane that was at it longest.
        lanes: how many lanes took part, for example writers.
        spans: how many spans.
        frames: frames that they moved; each sink counts a frame for itself.
        bytes: bytes that they produced.
        intervals: when it was busy, as ``(start, end)`` in seconds from the start of the run, in order, rounded to
            microseconds; in a long run the shortest gaps are closed.
    """

    busy_seconds: float = 0.0
    summed_seconds: float = 0.0
    busiest_lane_seconds: float = 0.0
    lanes: int = 0
    spans: int = 0
    frames: int = 0
    bytes: int = 0
    intervals: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """As plain types."""
        return {**_plain(self), "intervals": [list(interval) for interval in self.intervals]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StageTotals:
        """The reverse of ``to_json``."""
        known = {name: value for name, value in data.items() if name in _names(cls)}
        return cls(**{**known, "intervals": tuple((start, end) for start, end in data["intervals"])})


@dataclass(frozen=True)
class Report:
    """What happened in one run of a pipeline.

    Attributes:
        outcome: how it ended, if it has.
        decoding: how the clip was decoded; ``None`` where nobody said.
        device: where it was decoded, as torch writes it.
        width: of a frame in pixels; 0 before the first piece, as are ``height`` and ``channels``.
        height: of a frame in pixels.
        channels: of a pixel.
        frames: frames that the decoder made.
        total_frames: frames that were announced, ``None`` where the decoder does not tell.
        chunks: chunks in which they travelled.
        chunk_size: frames a chunk as asked for.
        chunk_frames: frames a chunk as used.
        buffer_depth: slots of the ring.
        unified: the slots are host memory that is filled at once, without copies to be overlapped.
        pinned: the host memory is page-locked; ``None`` where that has no meaning.
        ring_bytes_device: device memory of the ring.
        ring_bytes_host: host memory of the ring.
        warnings: what did not go as asked, one sentence each.
        started_ns: start of the run on the clock of its spans; means nothing in another process.
        wall_seconds: from the start to the end, with everything.
        first_frame_seconds: from the start until the first frame was written; ``None`` if none was.
        tail_seconds: from the end of the last decoding or finishing to the end of the last copy or save.
        stall_seconds: time in which decoding waited because frames could not be written fast enough. A wait for a
            slot alone is no stall: where the device has a queue, the decoding thread runs ahead of it and waits.
        hidden_share: share of the time with copying or saving in which there was decoding or finishing as well, 0 to
            1; ``None`` if nothing was copied or saved, or nothing was to be decoded.
        stages: what each stage did; every stage is there.
    """

    outcome: Outcome
    decoding: Decoding | None
    device: str
    width: int
    height: int
    channels: int
    frames: int
    total_frames: int | None
    chunks: int
    chunk_size: int
    chunk_frames: int
    buffer_depth: int
    unified: bool
    pinned: bool | None
    ring_bytes_device: int
    ring_bytes_host: int
    warnings: tuple[str, ...]
    started_ns: int
    wall_seconds: float
    first_frame_seconds: float | None
    tail_seconds: float
    stall_seconds: float
    hidden_share: float | None
    stages: Mapping[Stage, StageTotals] = field(repr=False)

    @property
    def exact(self) -> bool | None:
        """The frames are bit-equal to those of the VAE's own decode; ``None`` where nobody said."""
        return None if self.decoding is None else self.decoding.exact

    @property
    def bounded(self) -> bool | None:
        """Device memory does not grow with the clip; ``None`` where nobody said."""
        return None if self.decoding is None else self.decoding.bounded

    @property
    def fps(self) -> float:
        """Frames a second of ``wall_seconds``."""
        return self.frames / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def compute_seconds(self) -> float:
        """Time with decoding or finishing, which are never at work at once."""
        return self.stages[Stage.DECODE].busy_seconds + self.stages[Stage.FINISH].busy_seconds

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
            **_plain(self),
            "decoding": None if self.decoding is None else _plain(self.decoding),
            "warnings": list(self.warnings),
            "stages": {stage.value: totals.to_json() for stage, totals in self.stages.items()},
            "fps": self.fps,
            **self.advised(),
            "summary": self.summary(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """The report of which ``data`` is the ``to_json``.

        Raises:
            ValueError: ``data`` is of another schema, or a field is missing.
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(f"expected a report of schema {SCHEMA}, got schema {data.get('schema')!r}")
        try:
            values = {name: data[name] for name in _names(cls)}
            decoding = values["decoding"]
            stages = {Stage(name): StageTotals.from_json(totals) for name, totals in values["stages"].items()}
            stages = {stage: stages[stage] for stage in STAGE_ORDER}
        except KeyError as error:
            raise ValueError(f"the report has no {error}") from error
        return replace(
            cls(**values),
            decoding=None if decoding is None else Decoding(**decoding),
            warnings=tuple(values["warnings"]),
            stages=stages,
        )


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
            (round(_seconds(a - start), 6), round(_seconds(b - start), 6)) for a, b in coarsened(busy, MAX_INTERVALS)
        ),
    )


def _seconds(ns: int) -> float:
    return ns / 1e9


def _names(cls: type) -> list[str]:
    return [item.name for item in fields(cls)]


def _plain(of: Any) -> dict[str, Any]:
    return {name: getattr(of, name) for name in _names(type(of))}
