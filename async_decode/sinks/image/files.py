"""Image files: one for each frame, encoded and written by a pool of threads, several frames at once.

How many threads, when nobody says it (``writers=None``):

1. Half of the cores to begin with, at least 1 and at most 4: the others decode, or keep the GPU fed.
2. When a chunk comes and frames of the ones before it still wait for a writer, the writers are behind. Then as many are
   added as cores had next to nothing to do since the last look, but never more than frames wait, and never more
   writers than cores.

So a decoder that uses the cores itself keeps them, and writers never outnumber what there is to write.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path

from ...errors import Cancelled
from ...frames import Clip, FrameArray
from ...spans import Recorder, Span, Stage
from ..base import Sink
from ..cores import Cores
from ..files import OutputNames, Reservation, file_error
from ..workers import Workers, running_future
from .formats import ImageEncoder

#: A core that was busy for less than this share of the time counts as idle: none is ever quite.
ALMOST = 0.25


def first_writers(cores: int) -> int:
    """How many writers to begin with on a machine of so many cores."""
    return max(1, min(4, cores // 2))


class ImageFilesSink(Sink):
    """Saves every frame as a file of its own.

    The files get their numbers in the order of the frames and are finished in any order. After an abort those that
    were whole stay, and nothing else.

    Args:
        names: where the files go and what they are called.
        encoder: the format.
        writers: threads. Default: ``None``, as many as are good, by the rule above.
        cores: watches the processor; for tests. Default: ``None``.

    Raises:
        ValueError: ``writers`` is less than 1.
    """

    def __init__(
        self,
        names: OutputNames,
        encoder: ImageEncoder,
        *,
        writers: int | None = None,
        cores: Cores | None = None,
    ) -> None:
        if writers is not None and writers < 1:
            raise ValueError(f"expected at least 1 writer, got {writers}")
        self._fixed_writers = writers
        self._cores = cores
        self.pixel_format = encoder.pixel_format
        self._names = names
        self.folder = names.folder
        self._encoder = encoder
        self._recorder: Recorder | None = None
        self._workers: Workers | None = None
        self._paths: dict[int, Path] = {}
        #: The names of the frames so far, whole or not, in their order.
        self.reserved: list[Path] = []
        #: Names of frames that have not come yet, by their numbers.
        self._expected: dict[int, Reservation] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None
        # Of what is odd, the first frame that holds it.
        self._first_odd: dict[str, int] = {}
        # Held by write from its first name to its last job, so that an abort waits for what it has begun.
        self._lock = threading.Lock()

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """What differs in the files from what was asked for, and what is odd in them."""
        # A writer may add to it.
        firsts = sorted(self._first_odd.copy().items(), key=lambda found: found[1])
        return [*self._encoder.notes, *(f"frame {index} is the first that holds {what}" for what, index in firsts)]

    @property
    def writers(self) -> int:
        """How many threads there are; 0 before ``open``."""
        return 0 if self._workers is None else self._workers.count

    @property
    def files(self) -> list[Path]:
        """The files that are whole, in the order of their frames."""
        return [path for _, path in sorted(self._paths.copy().items())]

    @property
    def progress(self) -> object:
        """Files that are whole: a chunk of many frames may take long."""
        return len(self._paths)

    def prepare(self) -> None:
        super().prepare()
        self._names.probe(self._encoder.extension)

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._encoder.check(clip)
        self._recorder = recorder
        lane = f"{self._encoder.name} writer"
        if self._fixed_writers is not None:
            self._workers = Workers(lane, self._fixed_writers)
        else:
            self._cores = self._cores or Cores()
            self._workers = Workers(lane, first_writers(self._cores.count), growing=True)

    def expect(self, frames: int, first_index: int) -> None:
        for index in range(first_index, first_index + frames):
            with self._lock:
                self._raise_error()
                self._expected[index] = self._reserve(index)

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        chunk = _Chunk(len(frames))
        with self._lock:
            assert self._workers is not None, "write comes after open"
            self._raise_error()
            self._add_writers(self._workers)
            for index, frame in enumerate(frames, first_index):
                self._raise_error()
                name = self._expected.pop(index, None) or self._reserve(index)
                self._workers.submit(partial(self._save, frame, index, name, chunk))
        return chunk.written

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()
        self._raise_error()

    def abort(self) -> None:
        self._stop.set()
        with self._lock:
            workers = self._workers
        if workers is not None:
            # Every job still runs, to give its name back and its frame free.
            workers.close()
        with self._lock:
            while self._expected:
                self._expected.popitem()[1].discard()

    def _reserve(self, index: int) -> Reservation:
        """Take the next name, for the frame of this number."""
        name = self._names.reserve(self._encoder.extension, batch=index)
        self.reserved.append(name.path)
        return name

    def _add_writers(self, workers: Workers) -> None:
        """Add writers if those that are there are behind and cores are idle."""
        behind = workers.waiting
        if self._fixed_writers is not None or self._cores is None or not behind:
            return
        idle = self._cores.idle()
        if idle is not None:
            for _ in range(min(int(idle + ALMOST), behind, self._cores.count - workers.count)):
                workers.add()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise Cancelled("saving image files was aborted")

    def _save(self, frame: FrameArray, index: int, name: Reservation, chunk: _Chunk, lane: str) -> None:
        """Make one file; in a worker's thread."""
        assert self._recorder is not None
        began = self._recorder.now()
        try:
            self._raise_error()
            with _StoppableFile(name.part, self._stop) as file:
                odd = self._encoder.encode(frame, file)
            self._remember(odd or (), index)
            path = name.publish()
            self._paths[index] = path
            size = 0
            # Who moves a file that is whole does not make it one that failed.
            with suppress(OSError):
                size = path.stat().st_size
        except BaseException as error:
            name.discard()
            chunk.frame_done(self._first_error(error, name))
        else:
            self._recorder.add(Span(Stage.SAVE, lane, index, began, self._recorder.now(), frames=1, bytes=size))
            chunk.frame_done()

    def _remember(self, odd: Collection[str], index: int) -> None:
        """Remember the first frame that holds each of what is odd; NaN in whole numbers the pipeline has looked for."""
        if odd:
            with self._lock:
                for what in odd:
                    self._first_odd[what] = min(index, self._first_odd.get(what, index))

    def _first_error(self, error: BaseException, name: Reservation) -> BaseException:
        """What to tell the pipeline after ``error``; the first one stays the sink's."""
        if isinstance(error, Cancelled):
            return error
        with self._lock:
            if self._error is None:
                self._error = file_error(name.path, error)
                self._error.__cause__ = error
            return self._error


class _Chunk:
    """A chunk that several writers read."""

    def __init__(self, frames: int) -> None:
        #: Done when the last writer is done with the chunk, with an error if one of them had one.
        self.written = running_future()
        self._unwritten = frames
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def frame_done(self, error: BaseException | None = None) -> None:
        """One writer is done with its frame."""
        with self._lock:
            self._unwritten -= 1
            self._error = self._error or error
            if self._unwritten:
                return
        if self._error is None:
            self.written.set_result(None)
        else:
            self.written.set_exception(self._error)


class _StoppableFile(io.BufferedWriter):
    """A file whose next write raises once ``stop`` is set: an encoder is ended in the middle of a frame."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        super().__init__(io.FileIO(path, "w"), buffer_size=1 << 16)
        self._stop = stop

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        if self._stop.is_set():
            raise Cancelled("saving image files was aborted")
        return super().write(data)

    def fileno(self) -> int:
        # Else Pillow writes some formats past write, from C, where nothing stops it.
        raise io.UnsupportedOperation("fileno")
