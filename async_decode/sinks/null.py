"""A sink that writes nothing: what remains of a pipeline's time is its own."""

from __future__ import annotations

from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder
from .base import Sink


class NullSink(Sink):
    """Counts frames and forgets them.

    Args:
        pixel_format: what the pipeline is to carry. Default: ``None``, whatever the other sinks want.

    Attributes:
        frames: how many came.
    """

    def __init__(self, pixel_format: PixelFormat | None = None) -> None:
        self.pixel_format = pixel_format
        self.frames = 0

    def open(self, clip: Clip, recorder: Recorder) -> None:
        pass

    def write(self, frames: FrameArray, first_index: int) -> None:
        self.frames += len(frames)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass
