"""What a frame is made of: pixel formats and the geometry of a clip.

The vocabulary shared by the ring, the pipeline and the sinks. It holds no data and starts no work.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

if not hasattr(torch, "uint16"):
    raise ImportError(
        f"Async VAE Decode needs torch 2.3 or newer, which has 16-bit frames; this is {torch.__version__}"
    )

#: Frames as sinks see them: ``(T, H, W, C)``, in the sink's own pixel format, C-contiguous.
FrameArray = npt.NDArray[np.float32] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Planes:
    """How frames are stored as planes of BT.709's Y'CbCr (``yuv.py``), one below the other: Y, Cb, Cr, alpha.

    Attributes:
        bits: of a sample.
        across: columns of pixels that share a chroma sample; ``down``: lines that do.
        full_range: the samples use all their values; else video's part of them.
        alpha: frames with alpha get a fourth plane.
    """

    bits: int
    across: int
    down: int
    full_range: bool = False
    alpha: bool = False


class PixelFormat(enum.Enum):
    """How frames are stored on their way to a sink."""

    #: 0 to 1, as ComfyUI's IMAGE.
    FLOAT32 = "float32"
    #: 0 to 65535, ``clip(65535 * x, 0, 65535)`` rounded to the nearest (halves to even): 0 and 1 are exact, and so is
    #: every value that came from 8 bits, which becomes 257 times what it was.
    UINT16 = "uint16"
    #: Planes, under ffmpeg's names; 10 bits are in 16, in native byte order.
    YUV420 = "yuv420p"
    YUV420_10 = "yuv420p10"
    YUV422_10 = "yuv422p10"
    YUV444_10 = "yuv444p10"
    #: In full range.
    YUV444 = "yuv444p"
    #: 0 to 255, quantised as ComfyUI's SaveImage does: ``clip(255 * x, 0, 255)``, truncated.
    UINT8 = "uint8"

    @property
    def planes(self) -> Planes | None:
        """The planes, or ``None`` where pixels are stored."""
        return _PLANES.get(self)

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of one sample."""
        if self is PixelFormat.FLOAT32:
            return torch.float32
        wide = self is PixelFormat.UINT16 or (self.planes is not None and self.planes.bits > 8)
        return torch.uint16 if wide else torch.uint8


_PLANES = {
    PixelFormat.YUV420: Planes(8, 2, 2),
    PixelFormat.YUV420_10: Planes(10, 2, 2),
    PixelFormat.YUV422_10: Planes(10, 2, 1),
    PixelFormat.YUV444_10: Planes(10, 1, 1, alpha=True),
    PixelFormat.YUV444: Planes(8, 1, 1, full_range=True),
}


@dataclass(frozen=True)
class Clip:
    """The geometry of the frames that a pipeline carries, known from its first piece on.

    Attributes:
        height: lines of a frame, in pixels.
        width: columns of a frame, in pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        frames: how many frames will come. Default: ``None``, the decoder does not tell beforehand.
    """

    height: int
    width: int
    channels: int
    frames: int | None = None

    def frame_shape(self, pixel_format: PixelFormat) -> tuple[int, int, int]:
        """``(lines, columns, channels)`` of one frame in ``pixel_format``.

        Planes are one channel with as many columns as Y has, where two lines of chroma may share one. Sizes that
        chroma does not divide are made larger before that.
        """
        planes = pixel_format.planes
        if planes is None:
            return self.height, self.width, self.channels
        height = -(-self.height // planes.down) * planes.down
        width = -(-self.width // planes.across) * planes.across
        full = 2 if planes.alpha and self.channels == 4 else 1
        return height * full + 2 * height // (planes.down * planes.across), width, 1

    def frame_bytes(self, pixel_format: PixelFormat) -> int:
        """Bytes of one frame in ``pixel_format``."""
        lines, columns, channels = self.frame_shape(pixel_format)
        return lines * columns * channels * pixel_format.dtype.itemsize
