"""A sink that may fail: what it makes is welcome, but no reason to lose what the others make."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder
from .base import Sink
from .workers import running_future


class OptionalSink(Sink):
    """Passes everything on to ``sink`` until that fails; from then on frames are taken and dropped.

    Args:
        sink: who takes the frames.
        missing: what there will not be if it fails, for people to read: the note says it, and why.

    Attributes:
        error: what it failed with; ``None``: it has not.
    """

    def __init__(self, sink: Sink, missing: str) -> None:
        self.error: Exception | None = None
        self._sink = sink
        self._missing = missing
        self._lock = threading.Lock()
        self._ended = False
        self._aborted = False

    @property
    def pixel_format(self) -> PixelFormat | None:  # type: ignore[override]
        """Of the sink."""
        return self._sink.pixel_format

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        """Those of the sink, or why there is nothing of it."""
        return self._sink.notes if self.error is None else [f"{self._missing}: {self.error}"]

    def prepare(self) -> None:
        super().prepare()
        self._attempt(self._sink.prepare)

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._attempt(self._sink.open, clip, recorder)

    def write(self, frames: FrameArray, first_index: int) -> Future[None] | None:
        written = self._attempt(self._sink.write, frames, first_index)
        if not isinstance(written, Future):
            return None
        passed = running_future()

        def done(_: Future[None]) -> None:
            error = None if written.cancelled() else written.exception()
            if error is not None and not self._forgives(error):
                passed.set_exception(error)
            else:
                passed.set_result(None)

        written.add_done_callback(done)
        return passed

    def close(self) -> None:
        self._attempt(self._sink.close)

    def abort(self) -> None:
        self._aborted = True
        self._sink.abort()

    def _attempt(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Do one step, unless an earlier one has failed; what is left of a sink that failed is ended here."""
        if self.error is None:
            try:
                return step(*arguments)
            except Exception as error:
                if not self._forgives(error):
                    raise
        if not self._ended:
            self._ended = True
            self._sink.abort()
        return None

    def _forgives(self, error: BaseException) -> bool:
        """Keep what the sink has failed with; an abort, which ends everybody, is no failure of its own."""
        if self._aborted or not isinstance(error, Exception):
            return False
        with self._lock:
            self.error = self.error or error
        return True
