"""A hash of a clip's frames: the same wherever and however it was decoded, if the frames are the same."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from functools import partial

from ..errors import Cancelled
from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder
from .base import Sink
from .workers import Workers, running_future


class FramesHash(Sink):
    """SHA-256 of all frames in 8 bits, ``(T, H, W, C)``, in one row."""

    pixel_format = PixelFormat.UINT8

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._workers: Workers | None = None

    @property
    def hexdigest(self) -> str:
        """The hash of the frames so far."""
        return self._digest.hexdigest()

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._workers = Workers("frames' hash")

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        if self._workers is None:
            raise Cancelled("the hash was given up")
        hashed = running_future()
        self._workers.submit(partial(self._add, frames, hashed))
        return hashed

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()

    def abort(self) -> None:
        self.close()

    def _add(self, frames: FrameArray, hashed: Future[None], lane: str) -> None:
        # Releases the GIL.
        self._digest.update(memoryview(frames).cast("B"))  # type: ignore[arg-type]
        hashed.set_result(None)
