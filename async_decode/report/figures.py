"""The figures of a run: what the report, its words and its JSON stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..decoding import Decoding
from ..frames import Clip
from ..spans import Stage

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
        return {**plain(self), "intervals": [list(interval) for interval in self.intervals]}


@dataclass(frozen=True)
class Measured:
    """What was measured in an earlier run like this one, which saved with another setting.

    Attributes:
        setting: for people to read, such as ``preset veryfast``.
        seconds: how long that run waited for its files: its ``waited_seconds``.
    """

    setting: str
    seconds: float


@dataclass(frozen=True)
class Spooled:
    """What waited on disk for a sink that was slower than the decoder.

    Attributes:
        frames: how many; one that waited for two sinks is one.
        bytes: of these, once for each sink, as they were; ``packed_bytes``: as they lay on disk.
        most_bytes: on disk at once.
        ahead_seconds: the longest that any of them waited there: how far decoding was ahead.
    """

    frames: int
    bytes: int
    packed_bytes: int
    most_bytes: int
    ahead_seconds: float


@dataclass(frozen=True)
class RunFacts:
    """What a pipeline knows of its run, besides its spans.

    Attributes:
        outcome: how it ended, if it has.
        decoding: how the clip was decoded; ``None`` where nobody said.
        decoder: whose decoder it was, stock's or the faster one with the same bits, in words; empty where nothing was
            decoded.
        device: where it was decoded, as torch writes it.
        clip: geometry of the frames; ``None`` before the first piece.
        frames: frames that the decoder made.
        written: frames that every sink is done with.
        chunks: chunks in which they travelled.
        chunk_size: frames a chunk as asked for.
        chunk_frames: frames a chunk as used.
        buffer_depth: slots of the ring.
        unified: the slots are host memory that is filled at once, without copies to be overlapped.
        pinned: the host memory is page-locked; ``None`` where that has no meaning.
        ring_bytes_device: device memory of the ring.
        ring_bytes_host: host memory of the ring.
        warnings: what did not go as asked, one sentence each.
        measured: what other settings took in earlier runs; none where nobody remembers any.
        spooled: what waited on disk; ``None``: nothing did.
    """

    outcome: Outcome
    decoding: Decoding | None
    decoder: str
    device: str
    clip: Clip | None
    frames: int
    written: int
    chunks: int
    chunk_size: int
    chunk_frames: int
    buffer_depth: int
    unified: bool
    pinned: bool | None
    ring_bytes_device: int
    ring_bytes_host: int
    warnings: tuple[str, ...]
    measured: tuple[Measured, ...]
    spooled: Spooled | None


@dataclass(frozen=True)
class Figures(RunFacts):
    """What happened in one run of a pipeline, in figures.

    Attributes:
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

    started_ns: int
    wall_seconds: float
    first_frame_seconds: float | None
    tail_seconds: float
    stall_seconds: float
    hidden_share: float | None
    stages: Mapping[Stage, StageTotals] = field(repr=False)

    @property
    def width(self) -> int:
        """Of a frame in pixels; 0 before the first piece, as are ``height`` and ``channels``."""
        return 0 if self.clip is None else self.clip.width

    @property
    def height(self) -> int:
        """Of a frame in pixels."""
        return 0 if self.clip is None else self.clip.height

    @property
    def channels(self) -> int:
        """Of a pixel."""
        return 0 if self.clip is None else self.clip.channels

    @property
    def total_frames(self) -> int | None:
        """Frames that were announced; ``None`` where the decoder does not tell."""
        return None if self.clip is None else self.clip.frames

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
    def waited_seconds(self) -> float:
        """Time that saving added to decoding: stalls, and what went on after the last frame."""
        return self.stall_seconds + self.tail_seconds


def plain(of: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are."""
    return {item.name: getattr(of, item.name) for item in fields(of)}
