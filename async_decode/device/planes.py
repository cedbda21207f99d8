"""RGB to Y'CbCr on the compute device: half as many bytes cross the bus in 4:2:0, and every value is rounded once.

Rec. ITU-R BT.709-6, items 3.2 to 3.5. Chroma of 4:2:0 is averaged over 2x2 pixels and sited at their centre, that of
4:2:2 over three with the weights 1, 2, 1 and sited at the left one of two. Eight bits are made from the bytes that
stock would save, ten bits from the values themselves.

ffmpeg's conversion of 8-bit RGB to 4:2:0 in 8 bits (with the options of ``video_arguments.py``) differs from this by
one step at most. Others of its are worse: from 16-bit RGB to 10 bits luma comes out two steps too high, four at most;
in full range chroma comes out half a step too low.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..frames import PixelFormat, Planes

#: Luma's weights of red, green and blue.
_WEIGHTS = (0.2126, 0.7152, 0.0722)
#: What scales B - Y and R - Y to half of the range on either side.
_BLUE, _RED = 1.8556, 1.5748


def write_planes(frames: Tensor, out: Tensor, pixel_format: PixelFormat) -> None:
    """Convert ``frames`` into ``out``.

    Args:
        frames: ``(T, H, W, C)`` in 0 to 1, 1, 3 or 4 channels; alpha is left out where ``pixel_format`` has none. It is
            left as it was.
        out: ``(T, *Clip.frame_shape)``, contiguous. On any device.
        pixel_format: a planar one.
    """
    planes = pixel_format.planes
    assert planes is not None, "only planar formats are written as planes"
    rgb = _pad_to_chroma(_rgb_planes(frames, planes), planes)
    count, channels, height, width = rgb.shape
    unit = 1 << (planes.bits - 8)
    top = (1 << planes.bits) - 1
    low, luma_range, chroma_range = (0, top, top) if planes.full_range else (16 * unit, 219 * unit, 224 * unit)
    samples = out.view(count, -1)

    luma = rgb[:, 0] if channels == 1 else _luma(rgb)
    place, samples = _next_plane(samples, (height, width))
    _write_rounded(place, luma * luma_range, low)
    size = (height // planes.down, width // planes.across)
    if channels > 1:
        luma = _chroma_average(luma, planes)
    for channel, scale in ((2, _BLUE), (0, _RED)):
        place, samples = _next_plane(samples, size)
        # Half of a full range is a little more than to its end: what would be 256 becomes 255.
        values = luma.new_zeros(()) if channels == 1 else _chroma_average(rgb[:, channel], planes).sub_(luma)
        _write_rounded(place, (values * (chroma_range / scale)).clamp_(max=top - 128 * unit), 128 * unit)
    if planes.alpha and channels == 4:
        place, _ = _next_plane(samples, (height, width))
        _write_rounded(place, rgb[:, 3] * top, 0)


def _rgb_planes(frames: Tensor, planes: Planes) -> Tensor:
    """What is converted: a private copy ``(T, C, H, W)``, channel by channel in memory, in 0 to 1."""
    channels = frames.shape[-1] if planes.alpha or frames.shape[-1] < 4 else 3
    values = torch.empty_like(
        frames[..., :channels].movedim(-1, 1), dtype=torch.float32, memory_format=torch.contiguous_format
    ).copy_(frames[..., :channels].movedim(-1, 1))
    if planes.bits == 8:
        # The bytes of stock, as fractions again.
        return values.mul_(255.0).clamp_(0.0, 255.0).trunc_().div_(255.0)
    return values.clamp_(0.0, 1.0)


def _pad_to_chroma(values: Tensor, planes: Planes) -> Tensor:
    """Sizes that chroma divides, by repeating the last line and column, as the video's filters do it."""
    if values.shape[2] % planes.down:
        values = torch.cat([values, values[:, :, -1:]], dim=2)
    if values.shape[3] % planes.across:
        values = torch.cat([values, values[..., -1:]], dim=3)
    return values


def _luma(rgb: Tensor) -> Tensor:
    red, green, blue = _WEIGHTS
    return rgb[:, 0].mul(red).add_(rgb[:, 1], alpha=green).add_(rgb[:, 2], alpha=blue)


def _chroma_average(plane: Tensor, planes: Planes) -> Tensor:
    """One sample of ``(T, H, W)`` for all pixels that share their chroma; a private copy."""
    if planes.across == 1:
        return plane.clone()
    if planes.down == 1:
        left, right = plane[..., ::2], plane[..., 1::2]
        before = torch.cat([plane[..., :1], right[..., :-1]], dim=-1)
        return left.mul(2.0).add_(right).add_(before).mul_(0.25)
    top, bottom = plane[:, ::2], plane[:, 1::2]
    return (top[..., ::2] + top[..., 1::2]).add_(bottom[..., ::2]).add_(bottom[..., 1::2]).mul_(0.25)


def _next_plane(samples: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The place of the next plane in ``(T, samples)``, and what is behind it."""
    count = size[0] * size[1]
    return samples[:, :count].unflatten(1, size), samples[:, count:]


def _write_rounded(place: Tensor, values: Tensor, offset: float) -> None:
    """Write ``values + offset`` (whose sum is in range), rounded; ``copy_`` truncates."""
    rounded = values.add_(offset + 0.5)
    # Only the host and CUDA are sure to know unsigned 16 bits.
    place.copy_(rounded if rounded.is_cuda else rounded.to(place.device))
