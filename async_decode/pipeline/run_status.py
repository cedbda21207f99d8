"""What can be asked of a run, at any time and from any thread: how far it is, how it ended, its report."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Literal

import torch

from ..decoding import Decoding
from ..device.ring import is_unified
from ..report.figures import Measured, RunFacts, Spooled
from ..report.report import Report, build_report
from ..report.totals import Pace, SpanTotals
from ..sinks.spool import Spool
from ..spans import Recorder
from .slots import Flow
from .stages import Stages

MAX_CHUNK_SIZE = 4096
MAX_BUFFER_DEPTH = 64


class RunStatus:
    """One run of a pipeline.

    Args:
        chunk_size: frames that travel together, 1 to 4096.
        buffer_depth: slots of the ring, 1 to 64.
        device: where pieces are.
        total_frames: how many frames will come, ``None`` where nobody knows.
        decoding: how they are decoded, ``None`` where nobody said.
        poll: as in ``Flow``.
        cancels: errors by which somebody cancels a run.

    Attributes:
        recorder: has the spans.
        warnings: what did not go as asked, one sentence each; the report has them.
        measured: what other settings of saving took in earlier runs, for the report's advice.

    Raises:
        ValueError: ``chunk_size`` or ``buffer_depth`` is out of range.
    """

    def __init__(
        self,
        *,
        chunk_size: int,
        buffer_depth: int,
        device: torch.device,
        total_frames: int | None,
        decoding: Decoding | None,
        poll: Callable[[], None] | None,
        cancels: tuple[type[BaseException], ...],
    ) -> None:
        self.chunk_size = whole_number("chunk_size", chunk_size, MAX_CHUNK_SIZE, "frames")
        self.buffer_depth = whole_number("buffer_depth", buffer_depth, MAX_BUFFER_DEPTH, "slots")
        self.device = device
        self.total_frames = total_frames
        self.decoding = decoding
        #: Whose decoder it was, in words.
        self.decoder = ""
        self.recorder = Recorder()
        self.warnings: list[str] = []
        self.measured: tuple[Measured, ...] = ()
        self._cancels = cancels
        self._flow = Flow(poll)
        self._stages: Stages | None = None
        self._totals = SpanTotals(self.recorder.started_ns)
        self.recorder.listener = self._totals.add
        self._spool: Spool | None = None
        self._final: Report | None = None

    @property
    def received(self) -> int:
        """Frames that the decoder has made so far."""
        return 0 if self._stages is None else self._stages.filler.received

    @property
    def written(self) -> int:
        """Frames that every sink is done with so far."""
        return self._flow.written

    @property
    def error(self) -> BaseException | None:
        """What ended the run, if something did: a sink's error, or what ``cancel`` was called with."""
        return self._flow.error

    @property
    def pace(self) -> Pace:
        """How decoding gets on."""
        return self._totals.pace()

    @property
    def unified(self) -> bool:
        """The slots are host memory that is filled at once, so that there is nothing to be copied."""
        return is_unified(self.device)

    @property
    def report(self) -> Report:
        """What happened, up to now or up to the end."""
        return self._final if self._final is not None else self._report(intervals=True)

    def advise(self) -> dict[str, Any]:
        """The advice of the report up to now, as plain types; it takes no longer the longer the run is."""
        report = self._final if self._final is not None else self._report(intervals=False)
        return report.advice_json()

    def _close_report(self) -> None:
        """Nothing will happen any more: from now on the report is always the same."""
        self.recorder.listener = None
        self._final = self._report(intervals=True)

    def _report(self, *, intervals: bool) -> Report:
        return build_report(self._facts(), self._totals, Recorder.now(), intervals=intervals)

    def _facts(self) -> RunFacts:
        stages, error = self._stages, self._flow.error
        ring = None if stages is None else stages.ring
        outcome: Literal["completed", "cancelled", "failed"] = "completed"
        if error is not None:
            outcome = "cancelled" if isinstance(error, self._cancels) else "failed"
        return RunFacts(
            outcome=outcome,
            decoding=self.decoding,
            decoder=self.decoder,
            device=str(self.device),
            clip=None if stages is None else stages.clip,
            frames=self.received,
            written=self.written,
            chunks=0 if stages is None else stages.filler.chunks,
            chunk_size=self.chunk_size,
            chunk_frames=self.chunk_size if ring is None else ring.chunk_frames,
            buffer_depth=self.buffer_depth if ring is None else ring.depth,
            unified=self.unified,
            pinned=None if ring is None else ring.pinned,
            ring_bytes_device=0 if ring is None else ring.device_bytes,
            ring_bytes_host=0 if ring is None else ring.host_bytes,
            warnings=tuple(self.warnings),
            measured=self.measured,
            spooled=_spooled(self._spool),
        )


def _spooled(spool: Spool | None) -> Spooled | None:
    if spool is None or not spool.frames:
        return None
    return Spooled(spool.frames, spool.bytes, spool.packed_bytes, spool.most_bytes, spool.ahead_seconds)


def whole_number(name: str, value: int, most: int, unit: str) -> int:
    """``value``, where it is from 1 to ``most``.

    Raises:
        ValueError: it is not; the message names it.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number <= most:
        raise ValueError(f"{name} must be from 1 to {most} {unit}, got {value!r}")
    return number


def further_segment_warning(told: int) -> str:
    """What the report says when frames came after the sinks had been told of ``told``."""
    return (
        f"a further segment came after the sinks had been told of {told} frames: memory and sound were made for these; "
        "decode(…, more=True), or total_frames, tells them before"
    )
