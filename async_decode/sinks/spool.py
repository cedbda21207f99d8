"""The spool: frames that wait on disk for a sink that is slower than the decoder, next to where it writes.

They lie there packed, without any loss, in files that have no name and are gone with the process however it ends. What
the spool holds is bounded, by what was asked for and by what the disk has left. A chunk that finds no room, or that the
disk would not take, stays where it was, in the memory of the ring: the decoder waits as it does without a spool.
"""

from __future__ import annotations

import functools
import math
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np

from ..errors import SinkError
from ..frames import FrameArray
from ..spans import Recorder, Span, Stage
from .cores import usable_cores
from .files import file_error
from .nameless import NamelessFile
from .packing import pack, unpack
from .workers import Workers

#: This much of the disk stays free for what is written there beside the spool: the file that it is for, above all.
LEFT_FREE = 1 << 30
#: What is packed at once, in bytes: a worker needs memory for about three of it.
_STRIP = 2 << 20
#: Files of the spool, and the least size of one in bytes: a file is given back as a whole, once it has been read.
_FILES, _LEAST_FILE = 64, 16 << 20


def spool_bytes(spool_gb: float) -> int:
    """The size of a spool that somebody has asked for in GB (10^9 bytes).

    Raises:
        SinkError: it is none.
    """
    if not isinstance(spool_gb, Real) or not 0 <= spool_gb < math.inf:
        raise SinkError(f"spool_gb: expected 0 or more GB, got {spool_gb!r}")
    return int(spool_gb * 1e9)


@dataclass(eq=False)
class _File:
    """One file of the spool, of which each strip takes what follows the last one."""

    file: NamelessFile
    size: int = 0
    strips: int = 0


@dataclass(eq=False)
class Stored:
    """A chunk that is in the spool, or on its way there.

    Attributes:
        first_index: number of its first frame; ``frames``: how many it has.
        bytes: of its frames, as they were.
    """

    first_index: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    done: Callable[[Stored | None], None]
    began_ns: int
    bytes: int
    lines: int
    places: dict[int, tuple[_File, int, int]] = field(default_factory=dict)
    left: int = 0
    lost: bool = False

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.shape[0]


class Spool:
    """Holds chunks on disk for the sinks of one run.

    Args:
        folder: where; it need not exist before the first chunk.
        limit: how much it may take there, in bytes.
        workers: threads that pack. Default: ``None``, half of the cores, 8 at most.

    Attributes:
        notes: why it held less than it was offered, one sentence each, for people to read.
        frames: how many it has taken so far; one that waited for two sinks is one.
        bytes: of what it has taken, as it was.
        packed_bytes: of that, as it lay on disk.
        most_bytes: on disk at once.
        ahead_seconds: the longest that any of them waited there.
    """

    def __init__(self, folder: Path, limit: int, *, workers: int | None = None) -> None:
        self.notes: list[str] = []
        self.frames = self.bytes = self.packed_bytes = self.most_bytes = 0
        self.ahead_seconds = 0.0
        self._folder = folder
        self._limit = limit
        self._file_size = max(_LEAST_FILE, limit // _FILES)
        self._count = workers or max(1, min(8, usable_cores() // 2))
        self._lock = threading.Lock()
        self._workers: Workers | None = None
        self._recorder: Recorder | None = None
        self._file: _File | None = None
        self._files: set[_File] = set()
        #: On disk, and what chunks on their way may take.
        self._used = self._promised = 0
        #: The first frame of each chunk that it has taken.
        self._taken: set[int] = set()
        self._is_broken = False

    def open(self, recorder: Recorder) -> None:
        """Get ready for chunks; any number of times.

        Args:
            recorder: where to record what is packed.
        """
        self._recorder = recorder
        with self._lock:
            # Where no thread can be started, that is told before any chunk is on its way.
            if self._workers is None:
                self._workers = Workers("spool", self._count, growing=True)

    def admits(self, size: int) -> bool:
        """Whether a chunk of ``size`` bytes has room; if so, ``store`` must follow, or ``forget``."""
        with self._lock:
            if self._is_broken:
                return False
            if self._used + self._promised + size > self._limit:
                self._note(f"the spool was full ({self._limit / 1e9:.3g} GB): decoding waited for the files")
                return False
            if self._free() < self._promised + size + LEFT_FREE:
                self._note(
                    f"the spool stopped short of its {self._limit / 1e9:.3g} GB, to leave {LEFT_FREE / 1e9:.2g} GB of "
                    "the disk free: decoding waited for the files"
                )
                return False
            self._promised += size
            return True

    def forget(self, size: int) -> None:
        """Take back what ``admits`` has promised."""
        with self._lock:
            self._promised -= size

    def store(self, frames: FrameArray, first_index: int, done: Callable[[Stored | None], None]) -> None:
        """Pack a chunk that was admitted, and put it on disk; do not wait.

        Args:
            frames: ``(T, H, W, C)``, C-contiguous; read until ``done`` is called.
            first_index: number of the first of them.
            done: called in a thread of the spool: with what ``load`` takes, or with ``None``, the disk did not take it.
        """
        lines = frames.reshape(-1, *frames.shape[2:])
        height = max(1, _STRIP // max(1, lines[:1].nbytes))
        stored = Stored(first_index, frames.shape, frames.dtype, done, time.perf_counter_ns(), frames.nbytes, height)
        starts = range(0, len(lines), height)
        stored.left = len(starts)
        workers = self._workers
        assert workers is not None, "open() comes first"
        for start in starts:
            workers.submit(functools.partial(self._put, stored, lines[start : start + height], start))

    def load(self, stored: Stored) -> FrameArray:
        """The frames of a chunk, which is in the spool no more.

        Raises:
            SinkError: the disk failed.
        """
        frames: FrameArray = np.empty(stored.shape, stored.dtype)
        lines = frames.reshape(-1, *stored.shape[2:])
        try:
            for start, (of, offset, length) in stored.places.items():
                packed = memoryview(bytearray(length))
                of.file.read(packed, offset)
                unpack(packed, lines[start : start + stored.lines])
        except OSError as error:
            raise file_error(self._folder / "(frames that waited to be saved)", error) from error
        finally:
            self.drop(stored)
        with self._lock:
            self.ahead_seconds = max(self.ahead_seconds, (time.perf_counter_ns() - stored.began_ns) / 1e9)
        return frames

    def drop(self, stored: Stored) -> None:
        """Forget a chunk that is in the spool."""
        with self._lock:
            for of, _, _ in stored.places.values():
                of.strips -= 1
                if not of.strips:
                    self._remove(of)
            stored.places.clear()

    def close(self) -> None:
        """End the threads and remove what is left; any number of times, when no sink has anything there any more."""
        with self._lock:
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()
        with self._lock:
            for of in list(self._files):
                self._remove(of)

    # The workers' side.

    def _put(self, stored: Stored, lines: FrameArray, start: int, lane: str) -> None:
        """Put one strip on disk; tell of the chunk with the last one."""
        began, length = time.perf_counter_ns(), 0
        try:
            if not stored.lost:
                packed = pack(lines)
                length = len(packed)
                place = self._place(length)
                try:
                    place[0].file.write(packed, place[1])
                finally:
                    with self._lock:
                        stored.places[start] = place
        except Exception as error:
            # Whatever it is, the frames are still there.
            self._break(stored, error)
        with self._lock:
            stored.left -= 1
            is_last = not stored.left
            if is_last:
                self._promised -= stored.bytes
                if not stored.lost:
                    if stored.first_index not in self._taken:
                        self._taken.add(stored.first_index)
                        self.frames += stored.frames
                    self.bytes += stored.bytes
                    self.packed_bytes += sum(size for _, _, size in stored.places.values())
        if length and self._recorder is not None:
            frames = stored.frames if is_last and not stored.lost else 0
            self._recorder.add(
                Span(Stage.SPOOL, lane, stored.first_index, began, time.perf_counter_ns(), frames, length)
            )
        if not is_last:
            return
        if stored.lost:
            self.drop(stored)
        stored.done(None if stored.lost else stored)

    def _place(self, length: int) -> tuple[_File, int, int]:
        """Room for so many bytes."""
        with self._lock:
            if self._file is None:
                self._file = _File(NamelessFile(self._folder))
                self._files.add(self._file)
            of = self._file
            place = (of, of.size, length)
            of.size += length
            of.strips += 1
            self._used += length
            self.most_bytes = max(self.most_bytes, self._used)
            if of.size >= self._file_size:
                self._file = None
            return place

    def _remove(self, of: _File) -> None:
        """Give a file back to the disk; under the lock."""
        if of in self._files:
            self._files.discard(of)
            self._used -= of.size
            # A disk over the network may tell only now that it was full; nobody reads this file any more.
            with suppress(OSError):
                of.file.close()
        if of is self._file:
            self._file = None

    def _break(self, stored: Stored, error: Exception) -> None:
        """From now on nothing is taken any more: what is written here next shall find what is left of the disk."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        with self._lock:
            stored.lost = self._is_broken = True
            self._note(f"the spool in {self._folder} took no more ({reason}): decoding waited for the files")

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _free(self) -> int:
        """What the disk has left; where nobody tells, there is enough until it is full."""
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return 1 << 62
