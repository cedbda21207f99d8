"""RGB to Y'CbCr on the compute device, so that 1.5 samples a pixel cross the bus instead of 3.

Rec. ITU-R BT.709-6, items 3.2 to 3.5, in limited range. Chroma is averaged over 2x2 pixels and sited at their centre,
as ffmpeg converts with the options of ``video_arguments.py``; both round once, so they differ by one step at most.
Eight bits are made from the bytes that stock would save, ten bits from the values themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .frames import PixelFormat

#: Luma's weights of red, green and blue.
_WEIGHTS = (0.2126, 0.7152, 0.0722)
#: What scales B - Y and R - Y to half of the range on either side.
_BLUE, _RED = 1.8556, 1.5748


def write_planes(frames: Tensor, out: Tensor, pixel_format: PixelFormat) -> None:
    """Convert ``frames`` into ``out``.

    Args:
        frames: ``(T, H, W, C)`` in 0 to 1, 1, 3 or 4 channels; alpha is left out. It is left as it was.
        out: ``(T, even H * 3 / 2, even W, 1)``, the planes; see ``Clip.frame_shape``. On any device.
        pixel_format: a planar one.
    """
    count, height, width, channels = frames.shape
    bits = 10 if pixel_format is PixelFormat.YUV420_10 else 8
    unit = 1 << (bits - 8)
    rgb = frames[..., : 1 if channels == 1 else 3].to(dtype=torch.float32, copy=True)
    if bits == 8:
        # The bytes of stock, as fractions again.
        rgb.mul_(255.0).clamp_(0.0, 255.0).trunc_().div_(255.0)
    else:
        rgb.clamp_(0.0, 1.0)
    # Sizes become even by repeating the last line and column, as the video's filters do it.
    if height % 2:
        rgb = torch.cat([rgb, rgb[:, -1:]], dim=1)
    if width % 2:
        rgb = torch.cat([rgb, rgb[:, :, -1:]], dim=2)
    height, width = height + height % 2, width + width % 2

    luma = rgb[..., 0] if channels == 1 else _luma(rgb)
    planes = out.view(count, height * 3 // 2, width)
    _put(planes[:, :height], luma * (219.0 * unit), 16.0 * unit)
    # Cb and Cr, half as wide as Y: two lines of them fill one of the block.
    chroma = planes[:, height:].as_strided(
        (count, 2, height // 2, width // 2),
        (height * 3 // 2 * width, height // 2 * (width // 2), width // 2, 1),
        planes.storage_offset() + height * width,
    )
    if channels == 1:
        chroma.fill_(128 * unit)
    else:
        luma = _averaged(luma)
        for place, channel, scale in ((chroma[:, 0], 2, _BLUE), (chroma[:, 1], 0, _RED)):
            _put(place, (_averaged(rgb[..., channel]) - luma) * (224.0 * unit / scale), 128.0 * unit)


def _luma(rgb: Tensor) -> Tensor:
    red, green, blue = _WEIGHTS
    return rgb[..., 0].mul(red).add_(rgb[..., 1], alpha=green).add_(rgb[..., 2], alpha=blue)


def _averaged(plane: Tensor) -> Tensor:
    """The mean of every 2x2 pixels of ``(T, H, W)``."""
    top, bottom = plane[:, ::2], plane[:, 1::2]
    return (top[..., ::2] + top[..., 1::2]).add_(bottom[..., ::2]).add_(bottom[..., 1::2]).mul_(0.25)


def _put(place: Tensor, values: Tensor, offset: float) -> None:
    """Write ``values + offset`` (whose sum is in range), rounded; ``copy_`` truncates."""
    place.copy_(values.add_(offset + 0.5))
