"""The pipeline: pieces in, chunks through the ring, frames to the sinks.

Who works where:

1. The *decoding thread* (the caller's) calls ``submit``: it finishes pieces on the compute device into the staging
   memory of a slot and never waits for the device, only for a free slot. For frames that are there already ``feed``
   does this in a thread of its own.
2. The *copy thread* (``copy_thread.py``) takes filled chunks in order to the host and hands them to the sinks.
3. The *sinks* write in their own threads and say through a future when they are done with the memory.

Frames go one way. What comes back is a free slot, and the first error, which ends the decode within one chunk
(``slots.py``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from ..decoding import Decoding
from ..device.clock import Clock, Mark, clock_for
from ..device.conversion import DecoderOutput, Finish
from ..device.ring import Ring, fitting_chunk_frames, free_device_bytes, make_ring
from ..errors import Cancelled, DecodeError
from ..frames import Clip, PixelFormat
from ..report.figures import RunFacts
from ..report.report import Report, build_report
from ..report.totals import Pace, SpanTotals
from ..sinks.base import Sink
from ..sinks.workers import running_future
from ..spans import Recorder
from ..taps.base import Tap
from .chunks import ChunkFiller
from .copy_thread import CopyThread
from .slots import Flow

MAX_CHUNK_SIZE = 4096
MAX_BUFFER_DEPTH = 64


class FramePipeline:
    """Carries frames from a decoder to sinks while the decoder goes on.

    ::

        with FramePipeline(sinks, chunk_size=4, buffer_depth=3, device=device) as pipeline:
            pipeline.decode(tap, latent)
        print(pipeline.report)

    Leaving the block waits until every sink has closed. Leaving it by an error aborts the sinks; the error of a sink
    that ended the decode is raised in the caller's thread with its own traceback.

    Args:
        sinks: who takes the frames, at least one; each is used once.
        chunk_size: frames that travel together, 1 to 4096.
        buffer_depth: slots of the ring, 1 to 64. With 1, ``submit`` returns only when its chunk has been written.
        device: where pieces are; a piece that is elsewhere is an error.
        finish: what turns pieces into frames; by default stock's scaling of raw decoder output.
        total_frames: how many frames will come, where that is known; more or fewer are an error.
        decoding: how they are decoded, for the report.
        poll: called in the thread that submits, at every piece and at least every 0.05 s while it waits; what it
            raises ends the run. ComfyUI's interrupt is checked there.
        cancels: errors by which somebody cancels a run; the report tells them from failures.

    Raises:
        ValueError: ``chunk_size`` or ``buffer_depth`` is out of range, or there is no sink.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        chunk_size: int = 4,
        buffer_depth: int = 3,
        device: torch.device | str = "cpu",
        finish: Finish | None = None,
        total_frames: int | None = None,
        decoding: Decoding | None = None,
        poll: Callable[[], None] | None = None,
        cancels: tuple[type[BaseException], ...] = (Cancelled, KeyboardInterrupt),
    ) -> None:
        if not sinks:
            raise ValueError("a pipeline needs at least one sink, got none")
        if not 1 <= chunk_size <= MAX_CHUNK_SIZE:
            raise ValueError(f"chunk_size must be from 1 to {MAX_CHUNK_SIZE} frames, got {chunk_size}")
        if not 1 <= buffer_depth <= MAX_BUFFER_DEPTH:
            raise ValueError(f"buffer_depth must be from 1 to {MAX_BUFFER_DEPTH} slots, got {buffer_depth}")
        self.sinks = tuple(sinks)
        self.chunk_size = chunk_size
        self.buffer_depth = buffer_depth
        self.device = _with_index(torch.device(device))
        self.finish = finish if finish is not None else DecoderOutput()
        self.total_frames = total_frames
        self.decoding = decoding
        self.recorder = Recorder()
        self.warnings: list[str] = []
        self._cancels = cancels
        self._flow = Flow(poll)
        self._totals = SpanTotals(self.recorder.started_ns)
        self.recorder.listener = self._totals.add
        self._clock: Clock | None = None
        self._resumed: Mark = 0
        self._clip: Clip | None = None
        self._ring: Ring | None = None
        self._filler: ChunkFiller | None = None
        self._copying: CopyThread | None = None
        self._feeder: threading.Thread | None = None
        self._fed = running_future()
        self._ended: Future[None] | None = None
        self._final: Report | None = None

    def __enter__(self) -> FramePipeline:
        for sink in self.sinks:
            sink.prepare()
        self._clock = clock_for(self.device)
        self._resumed = self._clock.mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._feeder is not None:
                    self._flow.wait(self._fed.done)
                self._flow.wait(self.end().done)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if error is not None:
                self._flow.fail(error)
            self._shut_down(aborted=error is not None)

    def decode(self, tap: Tap, latent: Tensor) -> None:
        """Let ``tap`` decode ``latent`` into this pipeline, and tell the report and the sinks what is known of it.

        Args:
            tap: how to get at the pieces.
            latent: ``(N, C, T, H, W)`` or ``(N, C, H, W)``.

        Raises:
            Exception: whatever the model, ``poll`` or a sink raised first.
        """

        def submit(piece: Tensor) -> None:
            # A clip that is decoded whole may have other frames than its VAE announced.
            if self._filler is None:
                self.total_frames = tap.frames(latent)
            self.submit(piece)

        self.total_frames = tap.frames(latent)
        try:
            tap.run(latent, submit)
        finally:
            # A tap may find out only while it runs that it has to decode in another way.
            self.decoding = tap.decoding

    def submit(self, piece: Tensor) -> None:
        """Take one piece; return as soon as its work is queued on the device and its frames have a slot.

        Args:
            piece: ``(T, C, H, W)`` raw decoder output on the pipeline's device (``(T, H, W, C)`` with
                ``FinishedFrames``). It may be freed or overwritten, on the same stream, as soon as this returns.

        Raises:
            DecodeError: the piece does not fit in with the ones before, or has more frames than were announced.
            Exception: the first error of a sink, or what ``poll`` raised.
        """
        assert self._clock is not None
        entered = self._clock.mark()
        if self._ended is not None:
            raise RuntimeError("submit was called after end")
        self._flow.go_on()
        with torch.inference_mode():
            filler = self._filler if self._filler is not None else self._open(piece)
            self._check(piece)
            filler.fill(piece, self._resumed, entered)
        self._resumed = self._clock.mark()

    def feed(self, frames: Tensor) -> Future[None]:
        """Submit frames that are there already, a chunk at a time in a thread of its own, then ``end``; do not wait.

        Args:
            frames: as ``submit`` takes a piece, whole; it must stay as it is until the run is over.

        Returns:
            A future as of ``end``. What goes wrong is raised by leaving the ``with`` block.
        """
        if self._feeder is not None or self._filler is not None:
            raise RuntimeError("feed was called after submit or feed")
        # The frames may not be there yet, but they will be, on this stream.
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None

        def submit_all() -> None:
            try:
                with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
                    for piece in frames.split(self.chunk_size):
                        self.submit(piece)
                    self.end().add_done_callback(lambda _: self._fed.set_result(None))
            except BaseException as error:
                self._fed.set_result(None)
                self._flow.fail(error)

        self._feeder = threading.Thread(target=submit_all, name="async-decode feeder")
        self._feeder.start()
        return self._fed

    def end(self) -> Future[None]:
        """Say that no more pieces will come; do not wait.

        Returns:
            A future that is done when the copy thread has: every sink has closed, or something failed (leaving the
            ``with`` block raises it).

        Raises:
            DecodeError: fewer frames came than were announced, or none at all.
            Exception: the first error of a sink.
        """
        if self._ended is not None:
            return self._ended
        self._flow.go_on()
        if self.received == 0:
            raise DecodeError("the decoder made no frames: the latent is empty")
        if self.total_frames is not None and self.received != self.total_frames:
            raise DecodeError(f"expected {self.total_frames} frames from the decoder, got {self.received}")
        assert self._filler is not None and self._copying is not None, "frames came, so both are there"
        self._filler.flush()
        self._flow.end()
        self._ended = self._copying.done
        return self._ended

    def cancel(self, error: BaseException | None = None) -> None:
        """End the run from any thread: the next ``submit`` raises ``error`` (default ``Cancelled``)."""
        self._flow.fail(error if error is not None else Cancelled("the run was cancelled"))

    @property
    def received(self) -> int:
        """Frames that the decoder has made so far."""
        return 0 if self._filler is None else self._filler.received

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
    def report(self) -> Report:
        """What happened, up to now or up to the end."""
        return self._final if self._final is not None else build_report(self._facts(), self._totals, Recorder.now())

    def advise(self) -> dict[str, Any]:
        """The advice of the report up to now, as plain types; it takes no longer the longer the run is."""
        if self._final is not None:
            return self._final.advice_json()
        return build_report(self._facts(), self._totals, Recorder.now(), intervals=False).advice_json()

    def _facts(self) -> RunFacts:
        ring, filler = self._ring, self._filler
        return RunFacts(
            outcome=self._outcome(),
            decoding=self.decoding,
            device=str(self.device),
            clip=self._clip,
            frames=self.received,
            written=self.written,
            chunks=0 if filler is None else filler.chunks,
            chunk_size=self.chunk_size,
            chunk_frames=self.chunk_size if ring is None else ring.chunk_frames,
            buffer_depth=self.buffer_depth,
            unified=True if ring is None else ring.unified,
            pinned=None if ring is None else ring.pinned,
            ring_bytes_device=0 if ring is None else ring.device_bytes,
            ring_bytes_host=0 if ring is None else ring.host_bytes,
            warnings=tuple(self.warnings),
        )

    def _outcome(self) -> Literal["completed", "cancelled", "failed"]:
        if self._flow.error is None:
            return "completed"
        return "cancelled" if isinstance(self._flow.error, self._cancels) else "failed"

    def _open(self, piece: Tensor) -> ChunkFiller:
        """Learn the geometry from the first piece; open the sinks, make the ring, start the copy thread."""
        clip = self.finish.clip(piece, self.total_frames)
        formats = {sink.pixel_format for sink in self.sinks if sink.pixel_format is not None}
        # In a fixed order, float32 first, because quantising may overwrite what it reads.
        ordered = [name for name in PixelFormat if name in formats] or [PixelFormat.UINT8]
        chunk_frames = fitting_chunk_frames(
            clip, ordered, depth=self.buffer_depth, asked=self.chunk_size, free=free_device_bytes(self.device)
        )
        if chunk_frames < self.chunk_size and (clip.frames is None or clip.frames > chunk_frames):
            self.warnings.append(
                f"chunks of {self.chunk_size} frames travel in parts of {chunk_frames}: a ring of {self.buffer_depth} "
                "whole ones would take too much memory"
            )
        # A clip shorter than a chunk needs no bigger slot.
        chunk_frames = min(chunk_frames, clip.frames or chunk_frames)
        # Before the sinks open: where there is no memory for it, the caller may try again with a leaner decode.
        ring = make_ring(clip, ordered, depth=self.buffer_depth, chunk_frames=chunk_frames, device=self.device)
        self.warnings.extend(ring.warnings)
        self._clip, self._ring = clip, ring
        try:
            for sink in self.sinks:
                sink.open(clip, self.recorder)
        except BaseException as error:
            self._flow.fail(error)
            raise
        assert self._clock is not None, "pieces come under with"
        self._copying = CopyThread(
            ring, self.sinks, flow=self._flow, recorder=self.recorder, clock=self._clock, device=self.device
        )
        self._copying.start()
        self._filler = ChunkFiller(
            ring,
            self.finish,
            flow=self._flow,
            recorder=self.recorder,
            clock=self._clock,
            in_turn=self.buffer_depth == 1,
        )
        return self._filler

    def _check(self, piece: Tensor) -> None:
        if piece.device.type != self.device.type or (
            self.device.index is not None and piece.device.index != self.device.index
        ):
            raise DecodeError(f"expected pieces on {self.device}, got one on {piece.device}")
        clip = self.finish.clip(piece, self.total_frames)
        if clip != self._clip:
            raise DecodeError(f"expected pieces like the first one ({self._clip}), got {clip}")
        if self.total_frames is not None and self.received + piece.shape[0] > self.total_frames:
            raise DecodeError(
                f"expected {self.total_frames} frames from the decoder, got at least {self.received + piece.shape[0]}"
            )

    def _shut_down(self, *, aborted: bool) -> None:
        """End the sinks and the copy thread, then let go of the memory, in this order."""
        if self._feeder is not None:
            # After an error it ends by itself, and not in the middle of opening a sink.
            self._feeder.join()
        if aborted:
            for sink in self.sinks:
                sink.abort()
        if self._copying is not None:
            self._copying.join()
            if self._copying.nan_frame is not None:
                decoded = self.decoding is None or self.decoding.kind != "images"
                self.warnings.append(
                    f"frame {self._copying.nan_frame} is the first that holds NaN (not a number): it was saved as "
                    "stock saves it" + ("; decode in a wider type, for example with --fp32-vae" if decoded else "")
                )
        for sink in self.sinks:
            self.warnings.extend(sink.notes)
        if self._ring is not None:
            self._ring.close()
        if self._filler is not None:
            self._filler.drop()
        self.recorder.listener = None
        self._final = build_report(self._facts(), self._totals, Recorder.now())


def _with_index(device: torch.device) -> torch.device:
    """``device``, with a number where it is a CUDA device: worker threads have to be told which is the current one."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
