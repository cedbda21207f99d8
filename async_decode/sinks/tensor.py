"""The IMAGE output: all frames of a clip in one tensor on the host, filled while the clip is decoded."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from ..errors import Cancelled, SinkError
from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder, Span, Stage
from .base import Sink
from .workers import Workers, running_future

#: What TensorSink holds.
FloatFrames = npt.NDArray[np.float32]


class TensorSink(Sink):
    """Copies every chunk to its place in ``(T, H, W, C)`` float32.

    Where the number of frames is known, that is one array from the start; else, and for frames of further segments,
    chunks are kept and joined at the end, which takes the clip's memory twice for a moment.

    The copies run in a thread of their own: most of their time is the kernel handing out fresh pages (measured: 145 ms
    for a chunk of four 720p frames, against 5 ms when the pages are there), which the copy thread need not wait for.
    """

    pixel_format = PixelFormat.FLOAT32

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: Workers | None = None
        self._recorder: Recorder | None = None
        self._whole: FloatFrames | None = None
        self._chunks: list[FloatFrames] = []
        self._received = 0
        self._closed = False
        self._aborted = False

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._recorder = recorder
        if clip.frames is not None:
            self._whole = _memory_for(clip.frames, clip.height, clip.width, clip.channels)
        self._workers = Workers("tensor writer")

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        written = running_future()
        with self._lock:
            if self._aborted or self._workers is None:
                raise Cancelled("the image batch was given up")
            if self._whole is not None and first_index + len(frames) <= len(self._whole):
                place = self._whole[first_index : first_index + len(frames)]
            else:
                place = _memory_for(*frames.shape)
                if not self._chunks and self._whole is not None:
                    self._chunks.append(self._whole[:first_index])
                self._chunks.append(place)
            self._received += len(frames)
            self._workers.submit(partial(self._copy, frames, place, first_index, written))
        return written

    def close(self) -> None:
        assert self._workers is not None, "close comes after open"
        self._workers.close()
        with self._lock:
            if self._aborted:
                raise Cancelled("the image batch was given up")
            if self._chunks or self._whole is None:
                self._whole = np.concatenate(self._chunks, out=_memory_for(self._received, *self._chunks[0].shape[1:]))
                self._chunks.clear()
            if self._received != len(self._whole):
                raise SinkError(f"expected {len(self._whole)} frames, got {self._received}")
            self._closed = True

    def abort(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._aborted = True
        if self._workers is not None:
            self._workers.close()
        self._whole = None
        self._chunks.clear()

    @property
    def frames(self) -> FloatFrames:
        """The clip, ``(T, H, W, C)``, 0 to 1; it is this sink's own memory.

        Raises:
            SinkError: the sink has not been closed, or was aborted.
        """
        if not self._closed or self._whole is None:
            raise SinkError("the frames are whole only after close")
        return self._whole

    @property
    def tensor(self) -> torch.Tensor:
        """``frames`` as a tensor on the same memory: ComfyUI's IMAGE."""
        return torch.from_numpy(self.frames)

    def _copy(self, frames: FrameArray, place: FloatFrames, first_index: int, written: Future[None], lane: str) -> None:
        assert self._recorder is not None
        if self._aborted:
            written.set_exception(Cancelled("the image batch was given up"))
            return
        began = self._recorder.now()
        try:
            # Releases the GIL.
            np.copyto(place, frames)
        except BaseException as error:
            written.set_exception(error)
            return
        end = self._recorder.now()
        self._recorder.add(Span(Stage.SAVE, lane, first_index, began, end, len(frames), place.nbytes))
        written.set_result(None)


def _memory_for(*shape: int) -> FloatFrames:
    """Memory for frames ``(T, H, W, C)``; from numpy, which asks for huge pages.

    Raises:
        SinkError: there is not so much.
    """
    try:
        return np.empty(shape, np.float32)
    except (MemoryError, ValueError) as error:
        frames, height, width, _ = shape
        raise SinkError(
            f"no memory for {frames} frames {width}x{height} as an image batch ({math.prod(shape) * 4 / 2**30:.1f} "
            "GiB); save to files instead, or decode fewer frames"
        ) from error
