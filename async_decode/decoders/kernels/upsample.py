"""Nearest-neighbour doubling of height and width as one gather, with what comes before it in a resampling block.

A time convolution makes twice the channels, which become twice the frames: these are taken apart, the convolution's
bias is added and rounded, and each pixel becomes four, all in one pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["height", "width"])
def _double_kernel(
    x_ptr,
    bias_ptr,
    out_ptr,
    height,
    width,
    C: tl.constexpr,
    FRAMES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    CP: tl.constexpr,
    X: tl.constexpr,
):
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * X + tl.arange(0, X)
    channel = tl.arange(0, CP)
    frame = row // (2 * height)
    y = row % (2 * height)
    mask = (column < 2 * width)[:, None] & (channel < C)[None, :]
    source = ((frame // FRAMES) * height + y // 2) * width + column[:, None] // 2
    from_channel = (frame % FRAMES) * C + channel
    value = tl.load(x_ptr + source * (FRAMES * C) + from_channel[None, :], mask=mask, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + from_channel, mask=channel < C, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + bias[None, :]).to(NARROW)
    tl.store(out_ptr + (row * 2 * width + column[:, None]) * C + channel[None, :], value, mask=mask)


def double(x: Tensor, bias: Tensor | None, frames: int) -> Tensor:
    """``x`` in twice the height and width, and in ``frames`` times the frames.

    Args:
        x: ``(1, frames * C, T, H, W)``, channels last and dense.
        bias: ``(frames * C,)``, added and rounded first, or ``None``.
        frames: into how many frames the channels are taken apart, 1 or 2.

    Returns:
        ``(frames * T, C, 2 * H, 2 * W)``, channels last.
    """
    _, wide, time, height, width = x.shape
    channels = wide // frames
    out = torch.empty(
        (frames * time, channels, 2 * height, 2 * width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    columns = 32 if channels <= 256 else 8
    _double_kernel[(frames * time * 2 * height, triton.cdiv(2 * width, columns))](
        x,
        x if bias is None else bias,
        out,
        height,
        width,
        C=channels,
        FRAMES=frames,
        HAS_BIAS=bias is not None,
        CP=triton.next_power_of_2(channels),
        X=columns,
        num_warps=4,
    )
    return out


def double_reference(x: Tensor, bias: Tensor | None, frames: int) -> Tensor:
    """Reference: what ``double`` returns, in plain torch."""
    if bias is not None:
        x = x + bias.view(1, -1, 1, 1, 1)
    _, wide, time, height, width = x.shape
    x = (
        x.view(frames, wide // frames, time, height, width)
        .permute(2, 0, 1, 3, 4)
        .reshape(-1, wide // frames, height, width)
    )
    return torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest-exact")
