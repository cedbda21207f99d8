"""A sink behind a spool: frames that it has no time for yet wait on disk instead of in the ring.

The way of a chunk:

1. While the ring has memory to spare it waits there, and goes to the sink from there.
2. When the ring runs short, the chunk that comes is copied, as long as no more than ``AT_HAND`` bytes are. A sink that
   keeps up never makes anybody touch the disk.
3. When that is not enough either, the chunk is packed onto the disk, which gives its memory back.

One thread hands chunks to the sink, in order, from wherever they are. From disk it brings so many as fit into the same
``AT_HAND`` bytes. Where the spool has no room, chunks stay in the ring, and the decoder waits, as without it.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from ..errors import Cancelled, SinkError
from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder
from .base import Sink
from .spool import Spool, Stored
from .workers import running_future

#: Memory for chunks that are copied or brought back from disk, in bytes; one chunk may take more.
AT_HAND = 64 << 20


@dataclass(eq=False)
class _Waiting:
    """A chunk that the sink has not taken yet."""

    #: Where it is in memory; ``None``: on disk.
    frames: FrameArray | None
    first_index: int
    count: int
    bytes: int
    #: Done when its memory in the ring is free.
    passed: Future[None]
    in_ring: bool = True
    is_packing: bool = False
    stored: Stored | None = None


class SpooledSink(Sink):
    """Passes everything on to ``sink``, frames when it has time for them.

    An error of the sink ends it as it would without a spool; an abort drops what waits, as one drops what waits in the
    ring.

    Args:
        sink: who takes the frames.
        spool: where they may wait, which is closed by whoever has made it.
        put_off: told of frames that wait although their memory is free (so many more; fewer, below 0).
            Default: ``None``, nobody.
        fail: told of an error of the sink for such frames, of whom nobody waits for a future. Default: ``None``, the
            next ``write``, or ``close``, raises it.
    """

    def __init__(
        self,
        sink: Sink,
        spool: Spool,
        *,
        put_off: Callable[[int], None] | None = None,
        fail: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.folder = sink.folder
        self._sink = sink
        self._spool = spool
        self._put_off = put_off or (lambda _: None)
        self._fail = fail or (lambda _: None)
        self._feeder: threading.Thread | None = None
        # Guards everything below.
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._in_ring = 0
        self._with_sink = 0
        self._at_hand = 0
        # Chunks that are there, or on their way there.
        self._on_disk = 0
        self._no_more = False
        self._error: BaseException | None = None

    @property
    def pixel_format(self) -> PixelFormat | None:  # type: ignore[override]
        """Of the sink."""
        return self._sink.pixel_format

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        """Of the sink."""
        return self._sink.notes

    @property
    def progress(self) -> object:
        """Of the sink, and chunks that it has not taken."""
        return (self._sink.progress, len(self._waiting))

    def prepare(self) -> None:
        super().prepare()
        self._sink.prepare()

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._spool.open(recorder)
        self._sink.open(clip, recorder)
        self._feeder = threading.Thread(target=self._feed, name="async-decode spool", daemon=True)
        self._feeder.start()

    def expect(self, frames: int, first_index: int) -> None:
        self._sink.expect(frames, first_index)

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        chunk = _Waiting(frames, first_index, len(frames), frames.nbytes, running_future())
        with self._changed:
            self._raise_error()
            is_short = self._in_ring >= self._spare()
            fits = not self._on_disk and self._at_hand + chunk.bytes <= AT_HAND
        self._sink.expect(chunk.count, first_index)
        if is_short and fits:
            chunk.frames, chunk.in_ring = frames.copy(), False
            self._put_off(chunk.count)
        elif is_short:
            chunk.is_packing = self._spool.admits(chunk.bytes)
        with self._changed:
            if self._error is not None and chunk.is_packing:
                self._spool.forget(chunk.bytes)
            self._raise_error()
            if chunk.in_ring:
                self._in_ring += 1
                self._on_disk += chunk.is_packing
            else:
                self._at_hand += chunk.bytes
                chunk.passed.set_result(None)
            self._waiting.append(chunk)
            self._changed.notify_all()
        if chunk.is_packing:
            self._spool.store(frames, first_index, functools.partial(self._packed, chunk))
        return chunk.passed

    def close(self) -> None:
        with self._changed:
            self._no_more = True
            self._changed.notify_all()
        self._end_feeder()
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not self._with_sink)
            self._raise_error()
        self._sink.close()

    def abort(self) -> None:
        with self._changed:
            self._error = self._error or Cancelled("saving was aborted")
            self._changed.notify_all()
        self._sink.abort()
        self._end_feeder()

    def _end_feeder(self) -> None:
        if self._feeder is not None:
            self._feeder.join()

    def _spare(self) -> int:
        """How many chunks the ring can miss: it needs some to be filled, and some to be packed."""
        return max(1, self.ring_slots - max(2, self.ring_slots // 4))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # In a thread of the spool.

    def _packed(self, chunk: _Waiting, stored: Stored | None) -> None:
        """The chunk is on disk, or the disk did not take it."""
        if stored is not None:
            # Before its memory counts as free: these frames are not written yet.
            self._put_off(chunk.count)
        with self._changed:
            chunk.is_packing = False
            if stored is None:
                self._on_disk -= 1
            else:
                chunk.frames, chunk.stored, chunk.in_ring = None, stored, False
                self._in_ring -= 1
            self._changed.notify_all()
        if stored is not None:
            chunk.passed.set_result(None)

    # The feeder's side.

    def _feed(self) -> None:
        """Hand chunks to the sink, until there are no more, or an error."""
        while (chunk := self._next()) is not None:
            try:
                frames = self._spool.load(chunk.stored) if chunk.stored is not None else chunk.frames
                assert frames is not None, "it is in memory or on disk"
                written = self._sink.write(frames, chunk.first_index)
            except BaseException as error:
                self._done(chunk, error)
            else:
                del frames
                if written is None:
                    self._done(chunk, None)
                else:
                    written.add_done_callback(functools.partial(self._written, chunk))
            del chunk
        self._drop_the_rest()

    def _next(self) -> _Waiting | None:
        """The next chunk, once the sink may have it; ``None``: there is none, or an error."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._may_go() or self._is_over())
            if self._error is not None or not self._waiting:
                return None
            chunk = self._waiting.popleft()
            self._with_sink += 1
            if chunk.stored is not None:
                self._on_disk -= 1
                self._at_hand += chunk.bytes
            return chunk

    def _may_go(self) -> bool:
        if not self._waiting or self._waiting[0].is_packing:
            return False
        first = self._waiting[0]
        return first.stored is None or not self._at_hand or self._at_hand + first.bytes <= AT_HAND

    def _is_over(self) -> bool:
        return self._no_more and not self._waiting

    def _written(self, chunk: _Waiting, written: Future[None]) -> None:
        """The sink is done with a chunk; in a thread of the sink."""
        if written.cancelled():
            self._done(chunk, SinkError(f"frames from {chunk.first_index} on were given up by a sink"))
        else:
            self._done(chunk, written.exception())

    def _done(self, chunk: _Waiting, error: BaseException | None) -> None:
        with self._changed:
            self._with_sink -= 1
            if chunk.in_ring:
                self._in_ring -= 1
            else:
                self._at_hand -= chunk.bytes
            self._error = self._error or error
            self._changed.notify_all()
        # The last who knows these frames lets go of them.
        chunk.frames = None
        if chunk.in_ring:
            if error is None:
                chunk.passed.set_result(None)
            else:
                chunk.passed.set_exception(error)
        elif error is None:
            self._put_off(-chunk.count)
        else:
            self._fail(error)

    def _drop_the_rest(self) -> None:
        """After an error: give everything back that nobody will ask for."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                # What is being packed is still read.
                self._changed.wait_for(lambda: not self._waiting[0].is_packing)
                chunk, error = self._waiting.popleft(), self._error
            if chunk.stored is not None:
                self._spool.drop(chunk.stored)
            elif chunk.in_ring:
                assert error is not None, "without an error every chunk is fed"
                chunk.passed.set_exception(error)
