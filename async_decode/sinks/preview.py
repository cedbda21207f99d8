"""A look at the newest frame, small and seldom, for a progress bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder
from .base import Sink
from .image_formats import image_of

#: The longest side of a preview, in pixels.
MAX_SIDE = 512


class PreviewSink(Sink):
    """Keeps a small copy of the newest frame, made at most every ``interval`` seconds.

    Takes whatever pixel format the pipeline carries anyway. Pixels are left out before anything is computed, so a
    preview costs well under a millisecond and needs no thread.

    Args:
        interval: seconds between two previews.
        clock: the time in seconds, for tests.
    """

    pixel_format: PixelFormat | None = None

    def __init__(self, interval: float = 0.5, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._due = -float("inf")
        self._lock = threading.Lock()
        self._newest: npt.NDArray[np.uint8] | None = None

    def open(self, clip: Clip, recorder: Recorder) -> None:
        pass

    def write(self, frames: FrameArray, first_index: int) -> None:
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._interval
        small = _small(frames[-1])
        with self._lock:
            self._newest = small

    def take(self) -> Image.Image | None:
        """The newest preview (mode ``L``, ``RGB`` or ``RGBA``), or ``None`` if it was taken before; any thread."""
        with self._lock:
            newest, self._newest = self._newest, None
        return None if newest is None else image_of(newest)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def _small(frame: FrameArray) -> npt.NDArray[np.uint8]:
    """Every n-th pixel of ``frame``, quantised; always a copy."""
    step = -(-max(frame.shape[:2]) // MAX_SIDE)
    part: npt.NDArray[Any] = frame[::step, ::step]
    if part.dtype == np.float32:
        part = np.clip(part * np.float32(255), 0, 255)
    elif part.dtype == np.uint16:
        part = part >> 8
    # What a NaN becomes does not matter here.
    with np.errstate(invalid="ignore"):
        return part.astype(np.uint8)
