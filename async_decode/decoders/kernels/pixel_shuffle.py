"""Channels dealt out to the pixels and frames that come of them, neighbours to the pixels of one place.

What comes of it can be repeated to more channels, as the shortcut past an upsampling convolution is.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["height", "width", "skipped"])
def _pixel_shuffle_kernel(
    x_ptr,
    bias_ptr,
    out_ptr,
    height,
    width,
    skipped,
    C: tl.constexpr,
    N: tl.constexpr,
    IN_TIME: tl.constexpr,
    IN_SPACE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    NP: tl.constexpr,
    X: tl.constexpr,
):
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    TURNS: tl.constexpr = IN_TIME * IN_SPACE * IN_SPACE
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * X + tl.arange(0, X)
    channel = tl.arange(0, NP)
    frame = row // (IN_SPACE * height) + skipped
    y = row % (IN_SPACE * height)
    mask = (column < IN_SPACE * width)[:, None] & (channel < N)[None, :]
    source = ((frame // IN_TIME) * height + y // IN_SPACE) * width + column // IN_SPACE
    turn = ((frame % IN_TIME) * IN_SPACE + y % IN_SPACE) * IN_SPACE + column % IN_SPACE
    from_channel = (channel % (C // TURNS))[None, :] * TURNS + turn[:, None]
    value = tl.load(x_ptr + source[:, None] * C + from_channel, mask=mask, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + from_channel, mask=mask, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + bias).to(NARROW)
    tl.store(out_ptr + (row * IN_SPACE * width + column[:, None]) * N + channel[None, :], value, mask=mask)


def pixel_shuffle(
    x: Tensor, bias: Tensor | None, channels: int, in_time: int, in_space: int, skipped: int = 0
) -> Tensor:
    """``x`` in ``in_time`` times the frames and ``in_space`` times the height and width.

    Args:
        x: ``(1, C, T, H, W)``, channels last and dense; ``in_time * in_space ** 2`` divides ``C``.
        bias: ``(C,)``, added and rounded first, or ``None``.
        channels: of the result: a multiple of those that ``x`` is enough for, which are repeated one after the other.
        in_time, in_space: how many times.
        skipped: frames of the result that are left out at its beginning.

    Returns:
        ``(1, channels, in_time * T - skipped, in_space * H, in_space * W)``, channels last.
    """
    _, wide, time, height, width = x.shape
    frames = in_time * time - skipped
    out = torch.empty(
        (1, channels, frames, in_space * height, in_space * width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d,
    )
    room = triton.next_power_of_2(channels)
    columns = max(2, 4096 // room)
    _pixel_shuffle_kernel[(frames * in_space * height, triton.cdiv(in_space * width, columns))](
        x,
        x if bias is None else bias,
        out,
        height,
        width,
        skipped,
        C=wide,
        N=channels,
        IN_TIME=in_time,
        IN_SPACE=in_space,
        HAS_BIAS=bias is not None,
        NP=room,
        X=columns,
        num_warps=4,
    )
    return out


def pixel_shuffle_reference(
    x: Tensor, bias: Tensor | None, channels: int, in_time: int, in_space: int, skipped: int = 0
) -> Tensor:
    """Reference: what ``pixel_shuffle`` returns, in plain torch."""
    if bias is not None:
        x = x + bias.view(1, -1, 1, 1, 1)
    _, wide, time, height, width = x.shape
    own = wide // (in_time * in_space**2)
    cells = x.reshape(1, own, in_time, in_space, in_space, time, height, width).permute(0, 1, 5, 2, 6, 3, 7, 4)
    made = cells.reshape(1, own, in_time * time, in_space * height, in_space * width)
    return made.repeat(1, channels // own, 1, 1, 1)[:, :, skipped:]
