"""A look at the newest frame, small and seldom, for a progress bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..frames import Clip, FrameArray, PixelFormat, Planes
from ..spans import Recorder
from .base import Sink
from .image.formats import image_of

#: The longest side of a preview, in pixels.
MAX_SIDE = 512


class PreviewSink(Sink):
    """Keeps a small copy of the newest frame, made at most every ``interval`` seconds.

    Takes whatever pixel format the pipeline carries anyway. Pixels are left out before anything is computed, so a
    preview costs well under a millisecond and needs no thread.

    Args:
        interval: seconds between two previews. Default: ``0.5``.
        clock: the time in seconds, for tests. Default: ``time.monotonic``.
    """

    pixel_format: PixelFormat | None = None

    def __init__(self, interval: float = 0.5, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._due = -float("inf")
        self._lock = threading.Lock()
        self._clip: Clip | None = None
        self._newest: npt.NDArray[np.uint8] | None = None

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._clip = clip

    def write(self, frames: FrameArray, first_index: int) -> None:
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._interval
        clip, planes = self._clip, self._planes(frames)
        small = _small(frames[-1]) if clip is None or planes is None else _small_of_planes(frames[-1], clip, planes)
        with self._lock:
            self._newest = small

    def _planes(self, frames: FrameArray) -> Planes | None:
        """The planes that ``frames`` are made of; ``None`` for pixels, which alone have the clip's number of lines."""
        clip = self._clip
        if clip is None or frames.shape[1] == clip.height:
            return None
        shape, size = frames.shape[1:], frames.dtype.itemsize
        formats = (name for name in PixelFormat if name.dtype.itemsize == size and clip.frame_shape(name) == shape)
        return next(formats).planes

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


def _small_of_planes(frame: FrameArray, clip: Clip, planes: Planes) -> npt.NDArray[np.uint8]:
    """Every n-th pixel of a frame in planes (``yuv.py``), as RGB of 8 bits."""
    step = -(-max(clip.height, clip.width) // MAX_SIDE)
    unit, width = 1 << (planes.bits - 8), frame.shape[1]
    height = -(-clip.height // planes.down) * planes.down
    low, luma_range, chroma_range = (0, 255, 255) if planes.full_range else (16, 219, 224)
    luma = (frame[: clip.height : step, : clip.width : step, 0] / unit - low) / luma_range
    size = (2, height // planes.down, width // planes.across)
    chroma = frame.ravel()[height * width :][: size[0] * size[1] * size[2]].reshape(size)
    lines, columns = np.ogrid[: clip.height : step, : clip.width : step]
    blue, red = (chroma[:, lines // planes.down, columns // planes.across] / unit - 128) / chroma_range
    rgb = np.stack([luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue], axis=-1)
    return np.clip(np.rint(rgb * 255.0), 0, 255).astype(np.uint8)
