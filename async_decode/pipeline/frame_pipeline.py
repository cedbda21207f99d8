"""The pipeline: pieces in, chunks through the ring, frames to the sinks.

Who works where:

1. The *decoding thread* (the caller's) calls ``submit``: it finishes pieces on the compute device into the staging
   memory of a slot and never waits for the device, only for a free slot (``chunks.py``). For frames that are there
   already ``feed`` does this in a thread of its own.
2. The *copy thread* (``copy_thread.py``) takes filled chunks in order to the host and hands them to the sinks.
3. The *sinks* write in their own threads and say through a future when they are done with the memory.

Frames go one way. What comes back is a free slot, and the first error, which ends the decode within one chunk
(``slots.py``). How a run ends is in ``ending.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from ..decoders import Mode, faster
from ..decoding import Decoding
from ..device.clock import Clock, Mark, clock_for, current_device, with_index
from ..device.conversion import DecoderOutput, Finish
from ..errors import Cancelled, DecodeError
from ..sinks.base import Sink
from ..sinks.spool import Spool
from ..sinks.spooled import SpooledSink
from ..sinks.workers import running_future
from ..taps.base import Tap
from .ending import Ending
from .feeder import Feeder
from .run_status import RunStatus, further_segment_warning
from .stages import Stages, each_once


class FramePipeline(RunStatus):
    """Carries frames from a decoder to sinks while the decoder goes on.

    ::

        with FramePipeline(sinks, chunk_size=4, buffer_depth=3, device=device) as pipeline:
            pipeline.decode(tap, latent)
        print(pipeline.report)

    Leaving the block waits until every sink has closed. Leaving it by an error has what was decoded before it saved,
    and then aborts the sinks; whoever cancels does not wait for that. The first error of a run, whoever had it, is
    raised in the caller's thread with its own traceback.

    Args:
        sinks: who takes the frames, at least one; each is used once.
        chunk_size: frames that travel together, 1 to 4096. Default: ``4``.
        buffer_depth: slots of the ring, 1 to 64. With 1, ``submit`` returns only when its chunk has been written.
            Default: ``3``.
        device: where pieces are; a piece that is elsewhere is an error. It need not be the current one. Default:
            ``"cpu"``.
        finish: what turns pieces into frames. Default: ``None``, stock's scaling of raw decoder output.
        total_frames: how many frames will come in all; more or fewer are an error. Default: ``None``, what ``decode``
            finds.
        decoding: how they are decoded, for the report. Default: ``None``, what ``decode`` finds.
        poll: called in the thread that submits, at every piece and at least every 0.05 s while it waits; what it raises
            ends the run. ComfyUI's interrupt is checked there. Default: ``None``, nothing.
        cancels: errors by which somebody cancels a run; the report tells them from failures. Default: ``(Cancelled,
            KeyboardInterrupt)``.
        backlog: host memory, in bytes, for chunks that wait for the sinks beside those of ``buffer_depth``: decoding
            runs ahead of slower sinks by so much. Default: ``0``.
        spool: disk space, in bytes, for chunks that wait for sinks that write files, next to these, packed without any
            loss, when there is no memory for them: decoding runs ahead by so much more. Default: ``0``.

    Raises:
        ValueError: ``chunk_size`` or ``buffer_depth`` is out of range, ``backlog`` or ``spool`` is negative, there is
            no sink, or one is there twice.
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
        backlog: int = 0,
        spool: int = 0,
    ) -> None:
        self.sinks = each_once(sinks)
        super().__init__(
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            device=with_index(torch.device(device)),
            total_frames=total_frames,
            decoding=decoding,
            poll=poll,
            cancels=cancels,
        )
        self.finish = finish if finish is not None else DecoderOutput()
        if backlog < 0:
            raise ValueError(f"backlog must be 0 or more bytes, got {backlog}")
        if spool < 0:
            raise ValueError(f"spool must be 0 or more bytes, got {spool}")
        self.backlog = backlog
        self._spool_frames(spool)
        #: Done when the last chunk is on the host and with the sinks, or the thread that copies has failed.
        self.copied = running_future()
        self._total_is_given = total_frames is not None
        self._clock: Clock | None = None
        self._resumed: Mark = 0
        self._feeder: Feeder | None = None
        self._ended: Future[None] | None = None

    def __enter__(self) -> FramePipeline:
        if self._clock is not None or self._final is not None:
            raise RuntimeError("a pipeline carries one clip and was entered before; make a new FramePipeline")
        try:
            for sink in self._ways:
                sink.prepare()
            self._clock = clock_for(self.device)
            self._resumed = self._clock.mark()
        except BaseException as error:
            self._flow.fail(error)
            self._close_report()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raised, ending = error, Ending(self._flow, self._ways, self.warnings)
        if raised is None:
            try:
                if self._feeder is not None:
                    self._flow.wait(self._feeder.done.done)
                self._flow.wait(self.end().done)
            except BaseException as failure:
                raised = failure
        if raised is not None:
            if self._stages is not None and self._is_worth_saving(raised):
                raised = ending.deliver(self._stages, raised)
            self._flow.fail(raised)
        ending.shut_down(self._feeder, self._stages, self.decoding)
        if self._spool is not None:
            self._spool.close()
            self.warnings.extend(self._spool.notes)
        first = self._flow.error
        if first is not None and raised is not None and not isinstance(raised, Exception):
            # What stops a program or a task must stop it.
            if first is not raised:
                self.warnings.append(f"it had failed before: {first!r}")
            first = raised
        self._close_report()
        if first is not None and first is not error:
            raise first

    def decode(
        self,
        tap: Tap,
        latent: Tensor,
        *,
        more: bool = False,
        decoder: Mode = "auto",
        verdicts: Path | None = None,
    ) -> None:
        """Let ``tap`` decode ``latent`` into this pipeline, and tell the report and the sinks what is known of it.

        Called several times, it decodes segments of one clip, whose frames follow each other.

        Args:
            tap: how to get at the pieces.
            latent: ``(N, C, T, H, W)`` or ``(N, C, H, W)``.
            more: further segments will follow, so that sinks cannot be told how many frames there will be; where the
                pipeline was given ``total_frames``, they are told these. Without it further segments may follow all the
                same, but a sink may have made room, or sound, for the first one only. Default: ``False``.
            decoder: ``auto``: the decoder's blocks are replaced by faster ones where these were proven to give the same
                bits on this machine; ``stock``: nothing is replaced. Default: ``"auto"``.
            verdicts: a folder in which to keep what was proven. Default: ``None``, every run proves anew.

        Raises:
            DecodeError: the decoder made more or fewer frames than it announced, or decodes another clip right now.
            Exception: whatever the model, ``poll`` or a sink raised first.
        """
        clock = self._running("decode")
        before, earlier = self.received, self.decoding if self.received else None

        def expect() -> int | None:
            frames = tap.frames(latent)
            if not self._total_is_given:
                self.total_frames = None if frames is None or more else before + frames
            return frames

        def submit(piece: Tensor) -> None:
            # A clip that is decoded whole may have other frames than its VAE announced.
            if self.received == before:
                expect()
            self.submit(piece)

        expect()
        told = None if self._stages is None else self._stages.clip.frames
        if told is not None and not self._total_is_given and self.total_frames != told:
            warning = further_segment_warning(told)
            if warning not in self.warnings:
                self.warnings.append(warning)
        # What the caller did since the last segment is no decoding.
        self._resumed = clock.mark()
        try:
            with (
                tap.decoder.alone(),
                current_device(self.device),
                faster(
                    tap.decoder.model, device=self.device, mode=decoder, verdicts=verdicts, poll=tap.decoder.poll
                ) as use,
            ):
                try:
                    tap.run(latent, submit)
                finally:
                    self.decoder = use.summary
                    self.warnings.extend(use.warnings)
        finally:
            # A tap may find out only while it runs that it has to decode in another way.
            self.decoding = tap.decoding_of(latent).after(earlier)
        expected, made = tap.frames(latent), self.received - before
        if expected is not None and made != expected:
            raise DecodeError(f"expected {expected} frames from the decoder, got {made}")

    def submit(self, piece: Tensor) -> None:
        """Take one piece; return as soon as its work is queued on the device and its frames have a slot.

        Args:
            piece: ``(T, C, H, W)`` raw decoder output on the pipeline's device (``(T, H, W, C)`` with
                ``FinishedFrames``). It may be freed or overwritten, on the same stream, as soon as this returns.

        Raises:
            DecodeError: the piece does not fit in with the ones before, or has more frames than were announced.
            Exception: the first error of a sink, or what ``poll`` raised.
        """
        clock = self._running("submit")
        entered = clock.mark()
        if self._ended is not None:
            raise RuntimeError("submit was called after end")
        self._flow.go_on()
        with torch.inference_mode():
            stages = self._stages if self._stages is not None else self._open(piece)
            stages.check(piece, self.total_frames)
            stages.filler.fill(piece, self._resumed, entered)
        self._resumed = clock.mark()

    def feed(self, frames: Tensor) -> Future[None]:
        """Submit frames that are there already, a chunk at a time in a thread of its own, then ``end``; do not wait.

        Args:
            frames: as ``submit`` takes a piece, whole; it must stay as it is until the run is over.

        Returns:
            A future as of ``end``. What goes wrong is raised by leaving the ``with`` block.
        """
        self._running("feed")
        if self._feeder is not None or self._stages is not None:
            raise RuntimeError("feed was called after submit or feed")
        self._feeder = Feeder(
            frames.split(self.chunk_size), submit=self.submit, end=self.end, fail=self._flow.fail, device=self.device
        )
        self._feeder.start()
        return self._feeder.done

    def end(self) -> Future[None]:
        """Say that no more pieces will come; do not wait.

        Returns:
            A future that is done when every sink has closed, or something failed (leaving the ``with`` block raises
            it). It cannot be cancelled.

        Raises:
            DecodeError: fewer frames came than were announced, or none at all.
            Exception: the first error of a sink.
        """
        self._running("end")
        if self._ended is not None:
            return self._ended
        self._flow.go_on()
        if self.received == 0:
            raise DecodeError("the decoder made no frames: the latent is empty")
        if self.total_frames is not None and self.received != self.total_frames:
            raise DecodeError(f"expected {self.total_frames} frames from the decoder, got {self.received}")
        assert self._stages is not None, "frames came"
        self._stages.filler.flush()
        self._flow.end()
        self._ended = self._stages.copying.done
        return self._ended

    def cancel(self, error: BaseException | None = None) -> None:
        """End the run from any thread: the next ``submit`` raises ``error``.

        Args:
            error: what the run ends with. Default: ``None``, a ``Cancelled``.
        """
        self._flow.fail(error if error is not None else Cancelled("the run was cancelled"))

    def _running(self, what: str) -> Clock:
        """The clock of the run, which is there under ``with``."""
        if self._clock is None or self._final is not None:
            raise RuntimeError(
                f"{what} was called outside of the pipeline's block; write: with FramePipeline(…) as pipeline: …"
            )
        return self._clock

    def _open(self, piece: Tensor) -> Stages:
        """Learn the geometry from the first piece, and get ready for it."""
        self._stages = Stages(
            self.finish.clip(piece, self.total_frames),
            self._ways,
            chunk_size=self.chunk_size,
            buffer_depth=self.buffer_depth,
            backlog=self.backlog,
            device=self.device,
            finish=self.finish,
            flow=self._flow,
            recorder=self.recorder,
            clock=self._running("submit"),
            copied=self.copied,
            warnings=self.warnings,
        )
        return self._stages

    def _spool_frames(self, limit: int) -> None:
        """Find the sinks' place in the spool, if there is one: where the first of them writes."""
        folder = next((sink.folder for sink in self.sinks if sink.folder is not None), None)
        self._spool = spool = Spool(folder, limit) if limit and folder is not None else None
        #: The sinks, behind the spool where they have one.
        self._ways: tuple[Sink, ...] = self.sinks
        if spool is not None:
            self._ways = tuple(
                sink
                if sink.folder is None
                else SpooledSink(sink, spool, put_off=functools.partial(self._flow.put_off, sink), fail=self._flow.fail)
                for sink in self.sinks
            )

    def _is_worth_saving(self, error: BaseException) -> bool:
        """Whether what the decoder had made before ``error`` is to be saved."""
        # Whoever cancels does not want to wait for it, and after a sink's error there is nowhere to go.
        asked = not isinstance(error, Exception) or isinstance(error, self._cancels)
        return not asked and self._ended is None and self._flow.error is None
