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
    """How one channel of one pixel is stored on its way to a sink."""

    #: 0 to 1, as ComfyUI's IMAGE.
    FLOAT32 = "float32"
    #: 0 to 65535, ``clip(65535 * x, 0, 65535)`` rounded to the nearest (halves to even): 0 and 1 are exact, and so is
    #: every value that came from 8 bits, which becomes 257 times what it was.
    UINT16 = "uint16"
    #: 0 to 255, quantised as ComfyUI's SaveImage does: ``clip(255 * x, 0, 255)``, truncated.
    UINT8 = "uint8"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of one channel."""
        return {
            PixelFormat.FLOAT32: torch.float32,
            PixelFormat.UINT16: torch.uint16,
            PixelFormat.UINT8: torch.uint8,
        }[self]


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

    def frame_bytes(self, pixel_format: PixelFormat) -> int:
        """Bytes of one frame in ``pixel_format``."""
        return self.height * self.width * self.channels * pixel_format.dtype.itemsize
