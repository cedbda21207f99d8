"""Spans: who worked on what, from when to when, on one clock.

The report, the browser's live view and the Perfetto trace are three views of the same spans. Recording one is an
append under a lock and a few sums (about ten microseconds), so that it may stay on in production.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


class Stage(enum.Enum):
    """What was being done during a span."""

    #: The VAE made a piece (device time where the device has a clock of its own, host time elsewhere).
    DECODE = "decode"
    #: A piece became frames: scaling, channels last, quantising; still on the compute device.
    FINISH = "finish"
    #: A chunk crossed from the device to the host.
    COPY = "copy"
    #: A sink wrote frames.
    SAVE = "save"
    #: The decoding thread waited for a free slot.
    WAIT_SLOT = "wait_slot"
    #: A decoded chunk waited on the device because every host slot was still being written.
    WAIT_SINKS = "wait_sinks"
    #: Frames that a sink had no time for yet were put on disk.
    SPOOL = "spool"


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of work.

    Attributes:
        stage: what was done.
        lane: who did it, for people to read ("decode", "copy", "png writer 2"); one lane does one thing at a time.
        index: the piece (decode, finish), chunk (copy, waits) or first frame (spool, save) it was done on, counted from
            0.
        start_ns: start, in nanoseconds of ``time.perf_counter_ns``.
        end_ns: end, on the same clock.
        frames: frames that the span moved; 0 for waits. Default: ``0``.
        bytes: bytes that the span produced; 0 where it produced none. Default: ``0``.
    """

    stage: Stage
    lane: str
    index: int
    start_ns: int
    end_ns: int
    frames: int = 0
    bytes: int = 0

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class Recorder:
    """Collects the spans of one run from every thread that works on it.

    Attributes:
        started_ns: start of the run, on the clock of the spans.
        listener: gets every span that comes, in the thread that adds it; ``None``: nobody does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self.started_ns = time.perf_counter_ns()
        self.listener: Callable[[Span], None] | None = None

    @staticmethod
    def now() -> int:
        """The clock of every span, in nanoseconds."""
        return time.perf_counter_ns()

    def add(self, span: Span) -> None:
        """Keep ``span``; safe to call from any thread."""
        with self._lock:
            self._spans.append(span)
        listener = self.listener
        if listener is not None:
            listener(span)

    def __len__(self) -> int:
        """How many spans there are so far."""
        return len(self._spans)

    def since(self, count: int) -> list[Span]:
        """The spans that came after the first ``count``, in the order in which they ended up here."""
        with self._lock:
            return self._spans[count:]

    @property
    def spans(self) -> list[Span]:
        """A copy of all spans so far."""
        return self.since(0)
