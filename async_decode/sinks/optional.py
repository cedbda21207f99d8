"""A sink that may fail: what it makes is welcome, but no reason to lose what the others make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ..errors import SinkError
from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder
from .base import Sink
from .patience import Patience
from .workers import running_future

#: How often the watch looks whether the sink gets on, in seconds.
_INTERVAL = 0.2


class OptionalSink(Sink):
    """Passes everything on to ``sink`` until that fails; from then on frames are taken and dropped.

    Args:
        sink: who takes the frames.
        missing: what there will not be if it fails, for people to read: the note says it, and why.
        place: where it is that ``sink``'s own notes are about, for people to read. Default: ``None``, that is clear
            without it.
        progress: how far ``sink`` is, in whatever it counts; called from a thread of this sink. Where somebody waits
            for ``sink`` and it gets no further for a minute, or for as long as the run has taken, it has failed.
            Default: ``None``, it is waited for as long as it takes.

    Attributes:
        error: what it failed with; ``None``: it has not.
    """

    def __init__(
        self,
        sink: Sink,
        missing: str,
        *,
        place: str | None = None,
        progress: Callable[[], object] | None = None,
    ) -> None:
        self.error: Exception | None = None
        self._sink = sink
        self._missing = missing
        self._place = place
        self._progress = progress
        # Guards the error, and what the watch looks at.
        self._lock = threading.Lock()
        self._pending = 0
        self._close_was_called = False
        self._ended = False
        self._aborted = False
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def pixel_format(self) -> PixelFormat | None:  # type: ignore[override]
        """Of the sink."""
        return self._sink.pixel_format

    @property
    def folder(self) -> Path | None:  # type: ignore[override]
        """Of the sink."""
        return self._sink.folder

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        """Those of the sink, or why there is nothing of it."""
        if self.error is not None:
            return [f"{self._missing}: {self.error}"]
        return [note if self._place is None else f"{self._place}, {note}" for note in self._sink.notes]

    @property
    def progress(self) -> object:
        """Something new each time while the watch looks after it, and ends it in time: nobody else has to."""
        is_watched = self._watch is not None and self.error is None and not self._over.is_set()
        with self._lock:
            is_awaited = self._pending > 0 or self._close_was_called
        return time.monotonic() if is_watched and is_awaited else None

    def prepare(self) -> None:
        super().prepare()
        self._attempt(self._sink.prepare)

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._attempt(self._sink.open, clip, recorder)
        if self._progress is not None and self.error is None:
            self._watch = threading.Thread(
                target=self._look, args=(self._progress,), name="async-decode watch", daemon=True
            )
            self._watch.start()

    def expect(self, frames: int, first_index: int) -> None:
        self._attempt(self._sink.expect, frames, first_index)

    def write(self, frames: FrameArray, first_index: int) -> Future[None] | None:
        written = self._attempt(self._sink.write, frames, first_index)
        if not isinstance(written, Future):
            return None
        passed = running_future()
        with self._lock:
            self._pending += 1

        def done(_: Future[None]) -> None:
            with self._lock:
                self._pending -= 1
            error = None if written.cancelled() else written.exception()
            if error is not None and not self._forgives(error):
                passed.set_exception(error)
            else:
                passed.set_result(None)

        written.add_done_callback(done)
        return passed

    def close(self) -> None:
        self._close_was_called = True
        try:
            self._attempt(self._sink.close)
        finally:
            self._end_watch()

    def abort(self) -> None:
        self._aborted = True
        self._sink.abort()
        self._end_watch()

    def _look(self, progress: Callable[[], object]) -> None:
        """End the sink when it gets no further; the program of the watch."""
        began, patience = time.monotonic(), None
        while self.error is None and not self._over.wait(_INTERVAL):
            with self._lock:
                pending = self._pending
            if not pending and not self._close_was_called:
                patience = None
                continue
            patience = patience or Patience(time.monotonic() - began)
            if patience.ended((pending, self._close_was_called, progress())):
                self._forgives(SinkError(f"it got no further for {patience.seconds:.0f} s, and was ended"))
                self._sink.abort()

    def _end_watch(self) -> None:
        self._over.set()
        if self._watch is not None:
            self._watch.join()

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
