"""Pieces become chunks: frames are finished into the slots of the ring, which go to the copy thread when they are full.

All of it runs in the decoding thread.
"""

from __future__ import annotations

from torch import Tensor

from ..device.clock import Clock, Mark
from ..device.conversion import Finish
from ..device.ring import Chunk, Ring
from ..spans import Recorder, Span, Stage
from .slots import Flow


class ChunkFiller:
    """Cuts and joins pieces into chunks of ``ring.chunk_frames`` frames.

    Args:
        ring: whose slots are filled.
        finish: what turns pieces into frames.
        flow: knows which slots are free, and takes full chunks.
        recorder: gets the waits for a slot.
        clock: marks when a piece was decoded and finished.
        in_turn: after each chunk, wait until it has been written.

    Attributes:
        received: frames that were taken.
        chunks: chunks that were filled.
    """

    def __init__(
        self, ring: Ring, finish: Finish, *, flow: Flow, recorder: Recorder, clock: Clock, in_turn: bool
    ) -> None:
        self.received = 0
        self.chunks = 0
        self._ring = ring
        self._finish = finish
        self._flow = flow
        self._recorder = recorder
        self._clock = clock
        self._in_turn = in_turn
        self._chunk: Chunk | None = None
        self._pieces = 0
        self._marks: list[tuple[Stage, int, Mark, Mark, int]] = []

    def fill(self, piece: Tensor, began: Mark, ended: Mark) -> None:
        """Take all frames of ``piece``, which was decoded between these two marks; waits only for free slots."""
        number, count = self._pieces, piece.shape[0]
        self._pieces += 1
        self._marks.append((Stage.DECODE, number, began, ended, count))
        taken = 0
        while taken < count:
            chunk = self._chunk if self._chunk is not None else self._begin()
            frames = min(count - taken, self._ring.chunk_frames - chunk.frames)
            out, has_nan = chunk.next_places(frames)
            began = self._clock.mark()
            self._finish.write(piece[taken : taken + frames], out, has_nan)
            self._marks.append((Stage.FINISH, number, began, self._clock.mark(), frames))
            chunk.frames += frames
            taken += frames
            self.received += frames
            if chunk.frames == self._ring.chunk_frames:
                self._dispatch(chunk)

    def flush(self) -> None:
        """Send on the last chunk, however full it is."""
        if self._chunk is not None and self._chunk.frames:
            self._dispatch(self._chunk)

    def drop(self) -> None:
        """Forget the chunk that was begun, and with it its memory."""
        self._chunk = None

    def _begin(self) -> Chunk:
        """Wait for a slot whose staging is free, and take it for the next chunk."""
        began = self._recorder.now()
        slot, waited = self._flow.take_slot(self._ring)
        if waited:
            self._recorder.add(Span(Stage.WAIT_SLOT, "decode waits", self.chunks, began, self._recorder.now()))
        self._chunk = Chunk(slot, self.chunks, self.received)
        return self._chunk

    def _dispatch(self, chunk: Chunk) -> None:
        """Hand a chunk to the copy thread."""
        self._ring.record_filled(chunk)
        chunk.marks, self._marks = self._marks, []
        self._chunk = None
        self.chunks += 1
        self._flow.dispatch(chunk)
        if self._in_turn:
            self._flow.wait_for_slot(chunk.slot)
