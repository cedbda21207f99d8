"""Frames for somebody who takes them in a loop: the sink that waits for the taker, and the loop's end.

The decode has a thread of its own here, because the caller's is busy with what it does to the frames.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from ..decoders import Mode
from ..errors import Cancelled
from ..frames import Clip, FrameArray, PixelFormat
from ..report.report import Report
from ..sinks.base import Sink
from ..sinks.workers import running_future
from ..spans import Recorder
from ..taps.base import Tap
from .frame_pipeline import FramePipeline


class _HandOver(Sink):
    """Keeps chunks where they are until somebody takes them.

    Attributes:
        taker: the thread that takes them.
    """

    pixel_format = PixelFormat.FLOAT32

    def __init__(self) -> None:
        #: Chunks with what says that they were taken; ``None``: there are no more.
        self.chunks: queue.SimpleQueue[tuple[FrameArray, Future[None]] | None] = queue.SimpleQueue()
        self.taker = threading.current_thread()
        self._waiting: list[Future[None]] = []
        self._aborted = False
        self._lock = threading.Lock()

    def open(self, clip: Clip, recorder: Recorder) -> None:
        return

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        taken = running_future()
        with self._lock:
            if self._aborted:
                raise Cancelled("nobody takes the frames any more")
            self._waiting.append(taken)
        self.chunks.put((frames, taken))
        return taken

    def next(self) -> tuple[FrameArray, Future[None]] | None:
        """Wait for a chunk that was not taken yet; ``None``: there are no more."""
        self.taker = threading.current_thread()
        return self.chunks.get()

    def go_on(self) -> None:
        """Raise when the program has ended and Python waits for nobody who takes chunks; called by the decode.

        A stream that is held half-way must not keep the program alive.
        """
        taker = self.taker
        if not threading.main_thread().is_alive() and (taker.daemon or not taker.is_alive()):
            raise Cancelled("the program ended")

    def take(self, frames: FrameArray, taken: Future[None]) -> Tensor | None:
        """A copy of a chunk, whose memory is free from then on; ``None`` after an abort."""
        with self._lock:
            if self._aborted:
                return None
            copied = torch.from_numpy(frames.copy())
            self._waiting.remove(taken)
        taken.set_result(None)
        return copied

    def close(self) -> None:
        return

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            waiting, self._waiting = self._waiting, []
        for taken in waiting:
            taken.set_exception(Cancelled("nobody takes the frames any more"))


class Stream:
    """Chunks of frames ``(T, H, W, C)`` float32, as they are decoded; made by ``async_decode.stream``.

    The decode begins with the first chunk that is asked for. It ends with the last one, when the loop is left, with
    ``close``, or with the error that the loop then raises.

    Args:
        tap: how to get at the pieces.
        latent: what is decoded.
        pipeline_into: makes the pipeline with this sink and this ``poll``.
        decoder: as of ``FramePipeline.decode``. Default: ``"auto"``.
        verdicts: as of ``FramePipeline.decode``. Default: ``None``.
    """

    def __init__(
        self,
        tap: Tap,
        latent: Tensor,
        pipeline_into: Callable[[Sink, Callable[[], None]], FramePipeline],
        *,
        decoder: Mode = "auto",
        verdicts: Path | None = None,
    ) -> None:
        self._tap = tap
        self._latent = latent
        self._decoder: Mode = decoder
        self._verdicts = verdicts
        self._sink = _HandOver()
        self._pipeline = pipeline_into(self._sink, self._sink.go_on)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        device = self._pipeline.device
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._autocast = _autocast_of_caller(device)

    @property
    def frames(self) -> int | None:
        """How many frames there will be in all; ``None`` where nobody knows before the end."""
        return self._tap.frames(self._latent)

    @property
    def report(self) -> Report:
        """What happened, up to now or up to the end."""
        return self._pipeline.report

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Tensor]:
        if self._thread is not None:
            raise RuntimeError("a stream can be gone through once; call async_decode.stream again")
        self._thread = threading.Thread(target=self._decode, name="async-decode stream")
        self._sink.taker = threading.current_thread()
        self._thread.start()
        return self._chunks()

    def close(self) -> None:
        """End the decode, if it goes on, and wait until nothing of it is left."""
        if self._thread is None:
            return
        if self._thread.is_alive():
            self._pipeline.cancel()
        self._thread.join()

    def _chunks(self) -> Iterator[Tensor]:
        try:
            while (chunk := self._sink.next()) is not None:
                frames = self._sink.take(*chunk)
                if frames is not None:
                    yield frames
        finally:
            self.close()
        if self._error is not None:
            raise self._error

    def _decode(self) -> None:
        try:
            with ExitStack() as stack:
                if self._stream is not None:
                    stack.enter_context(torch.cuda.stream(self._stream))
                stack.enter_context(self._autocast)
                pipeline = stack.enter_context(self._pipeline)
                pipeline.decode(self._tap, self._latent, decoder=self._decoder, verdicts=self._verdicts)
        except BaseException as error:
            self._error = error
        finally:
            self._sink.chunks.put(None)


def _autocast_of_caller(device: torch.device) -> AbstractContextManager[None]:
    """The autocast that is on in this thread for ``device``, for another thread, which torch starts without any."""
    try:
        enabled = torch.is_autocast_enabled(device.type)
    except TypeError:
        # Before torch 2.4 it takes no argument.
        enabled = torch.is_autocast_cpu_enabled() if device.type == "cpu" else torch.is_autocast_enabled()
    except RuntimeError:
        # This torch has none for such devices.
        enabled = False
    if not enabled:
        return nullcontext()
    return torch.autocast(device.type, cache_enabled=torch.is_autocast_cache_enabled())
