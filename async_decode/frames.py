"""What a frame is made of: pixel formats and the geometry of a clip.

The vocabulary shared by the ring, the pipeline and the sinks. It holds no data and starts no work.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

#: Frames as sinks see them: ``(T, H, W, C)``, in the sink's own pixel format, C-contiguous.
FrameArray = npt.NDArray[np.float32] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]


class PixelFormat(enum.Enum):
    """How frames are stored on their way to a sink."""

    #: 0 to 1, as ComfyUI's IMAGE.
    FLOAT32 = "float32"
    #: 0 to 65535, ``clip(65535 * x, 0, 65535)`` rounded to the nearest (halves to even): 0 and 1 are exact, and so is
    #: every value that came from 8 bits, which becomes 257 times what it was.
    UINT16 = "uint16"
    #: ffmpeg's yuv420p: 8-bit Y'CbCr (``yuv.py``), the planes of a frame one below the other.
    YUV420 = "yuv420p"
    #: ffmpeg's yuv420p10, in native byte order: the same with 10 bits in 16.
    YUV420_10 = "yuv420p10"
    #: 0 to 255, quantised as ComfyUI's SaveImage does: ``clip(255 * x, 0, 255)``, truncated.
    UINT8 = "uint8"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of one sample."""
        return {
            PixelFormat.FLOAT32: torch.float32,
            PixelFormat.UINT16: torch.uint16,
            PixelFormat.YUV420: torch.uint8,
            PixelFormat.YUV420_10: torch.uint16,
            PixelFormat.UINT8: torch.uint8,
        }[self]

    @property
    def planar(self) -> bool:
        """Whether a frame is planes of Y'CbCr in 4:2:0 instead of pixels."""
        return self in (PixelFormat.YUV420, PixelFormat.YUV420_10)


@dataclass(frozen=True)
class Clip:
    """The geometry of the frames that a pipeline carries, known from its first piece on.

    Attributes:
        height: lines of a frame, in pixels.
        width: columns of a frame, in pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        frames: how many frames will come, or ``None`` where the decoder does not tell beforehand.
    """

    height: int
    width: int
    channels: int
    frames: int | None = None

    def frame_shape(self, pixel_format: PixelFormat) -> tuple[int, int, int]:
        """``(lines, columns, channels)`` of one frame in ``pixel_format``.

        Planes of 4:2:0 are one channel of half as many lines again: Y in full, then Cb, then Cr, two of whose lines
        share one of these. Sizes are made even before that.
        """
        if not pixel_format.planar:
            return self.height, self.width, self.channels
        height, width = self.height + self.height % 2, self.width + self.width % 2
        return height * 3 // 2, width, 1

    def frame_bytes(self, pixel_format: PixelFormat) -> int:
        """Bytes of one frame in ``pixel_format``."""
        lines, columns, channels = self.frame_shape(pixel_format)
        return lines * columns * channels * pixel_format.dtype.itemsize
