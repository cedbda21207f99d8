"""Who may touch which memory, and who waits for whom: all the locking of a pipeline, and nothing else.

One condition guards everything; whoever changes something notifies. Every wait ends when an error is set: the first
error wins, and the decoding thread raises it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..device.ring import Chunk, Ring, Slot

#: How often a waiting decoding thread asks ``poll`` whether it should go on, in seconds.
POLL_INTERVAL = 0.05


class Flow:
    """The state that the decoding thread, the copy thread and the sinks' threads share.

    A slot's staging is taken from the first frame that goes into it until the copy has been waited for; its host
    memory from the copy on until the last sink is done with it. In a unified ring both are the same memory.

    Args:
        poll: called in the decoding thread while it waits; what it raises ends the wait. Default ``None``: nothing.
    """

    def __init__(self, poll: Callable[[], None] | None = None) -> None:
        self._poll = poll
        self._changed = threading.Condition()
        self._filled: deque[Chunk] = deque()
        self._staging_taken: set[int] = set()
        self._host_taken: set[Slot] = set()
        self._holders: dict[Chunk, int] = {}
        self._written = 0
        self._put_off: dict[object, int] = {}
        self._shown_written = 0
        self._ended = False
        self._whole = True
        self._error: BaseException | None = None

    # For anybody.

    @property
    def error(self) -> BaseException | None:
        """The first error, if there was one."""
        return self._error

    @property
    def written(self) -> int:
        """Frames that every sink is done with, those that wait on disk not yet."""
        with self._changed:
            written = self._written - max(self._put_off.values(), default=0)
            # A chunk is put off a moment before its memory is let go.
            self._shown_written = max(self._shown_written, written)
            return self._shown_written

    def fail(self, error: BaseException) -> None:
        """Keep the first error and wake everyone."""
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    def wake(self) -> None:
        """Have everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def drop(self) -> None:
        """Forget every chunk, and with them their memory, once no thread uses it any more."""
        with self._changed:
            self._filled.clear()
            self._holders.clear()

    # For the decoding thread.

    def go_on(self) -> None:
        """Raise what should end the decode here."""
        if self._error is not None:
            raise self._error
        if self._poll is not None:
            self._poll()

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait until ``until()``, which is called under the lock; return whether there was any waiting.

        Raises:
            BaseException: the first error, or what ``poll`` raised.
        """
        waited = False
        while True:
            with self._changed:
                if self._error is not None:
                    raise self._error
                if until():
                    return waited
                waited = True
                self._changed.wait(POLL_INTERVAL)
            if self._poll is not None:
                self._poll()

    def take_slot(self, ring: Ring) -> tuple[Slot, bool]:
        """Wait for a slot with free staging and take it; the second value tells whether there was any waiting."""

        def free() -> Slot | None:
            candidates = [
                slot
                for slot in ring.slots
                if slot.place not in self._staging_taken and not (ring.unified and slot in self._host_taken)
            ]
            # One whose host memory is free as well will not keep the copy thread waiting.
            return min(candidates, key=lambda slot: slot in self._host_taken, default=None)

        waited = self.wait(lambda: free() is not None)
        with self._changed:
            slot = free()
            assert slot is not None, "slots are taken by this thread alone"
            self._staging_taken.add(slot.place)
        return slot, waited

    def dispatch(self, chunk: Chunk) -> None:
        """Hand a filled chunk to the copy thread."""
        with self._changed:
            self._filled.append(chunk)
            self._changed.notify_all()

    def wait_for_slot(self, slot: Slot) -> None:
        """Wait until nobody has any of ``slot``'s memory."""
        self.wait(lambda: slot.place not in self._staging_taken and slot not in self._host_taken)

    def end(self, *, whole: bool = True) -> None:
        """Say that no more chunks will come; not ``whole``: although the clip has more."""
        with self._changed:
            self._ended = True
            self._whole = whole
            self._changed.notify_all()

    # For the copy thread.

    def next_filled(self) -> Chunk | None:
        """Wait for the next chunk; ``None`` after the last one, or after an error."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._filled or self._ended)
            if self._error is not None or not self._filled:
                return None
            return self._filled.popleft()

    def take_host(self, chunk: Chunk) -> bool | None:
        """Wait until the sinks are done with what the chunk's slot held on the host, and take it.

        Returns:
            Whether there was any waiting, or ``None`` after an error: the memory was not taken.
        """
        with self._changed:
            waited = chunk.slot in self._host_taken
            self._changed.wait_for(lambda: self._error is not None or chunk.slot not in self._host_taken)
            if self._error is not None:
                return None
            self._host_taken.add(chunk.slot)
            return waited

    def give_staging(self, chunk: Chunk) -> None:
        """The chunk is on the host: its staging may be filled again."""
        with self._changed:
            self._staging_taken.discard(chunk.slot.place)
            self._changed.notify_all()

    def wait_for_sinks(self) -> bool:
        """Wait until the sinks are done with every chunk (an error ends the wait); return whether that is the clip."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._error is not None or not (self._host_taken or any(self._put_off.values()))
            )
            return self._error is None and self._whole

    def put_off(self, sink: object, frames: int) -> None:
        """So many more frames wait for ``sink`` elsewhere than in the ring, or, below 0, fewer."""
        with self._changed:
            self._put_off[sink] = self._put_off.get(sink, 0) + frames
            self._changed.notify_all()

    def hold(self, chunk: Chunk) -> None:
        """One more reads the chunk's host memory."""
        with self._changed:
            self._holders[chunk] = self._holders.get(chunk, 0) + 1

    def let_go(self, chunk: Chunk) -> None:
        """One of them is done; the last one frees the host memory."""
        with self._changed:
            self._holders[chunk] -= 1
            if self._holders[chunk] == 0:
                del self._holders[chunk]
                self._host_taken.discard(chunk.slot)
                self._written += chunk.frames
                self._changed.notify_all()
