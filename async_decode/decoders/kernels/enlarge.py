"""Nearest-neighbour doubling, or channels dealt out to pixels and frames, into a convolution's input with its edges.

As one gather: what comes before the convolution of an upsampling block whose norms are over groups of channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .pad import on_edge, padded_reference


@triton.jit(do_not_specialize=["height", "width", "front"])
def _enlarge_kernel(
    x_ptr,
    bias_ptr,
    out_ptr,
    height,
    width,
    front,
    C: tl.constexpr,
    TIMES: tl.constexpr,
    FIRST: tl.constexpr,
    DEALT: tl.constexpr,
    ZEROS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    CP: tl.constexpr,
    X: tl.constexpr,
):
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    WIDE: tl.constexpr = C * 4 * TIMES if DEALT else C
    line = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * X + tl.arange(0, X)
    channel = tl.arange(0, CP)
    room_height = 2 * height + 2
    room_width = 2 * width + 2
    mask = (column < room_width)[:, None] & (channel < C)[None, :]
    frame = tl.maximum(line // room_height - front, 0)
    y = tl.minimum(tl.maximum(line % room_height - 1, 0), 2 * height - 1)
    x = tl.minimum(tl.maximum(column - 1, 0), 2 * width - 1)
    if FIRST:
        # One frame of the first one.
        frame = tl.where(frame > 0, frame + TIMES - 1, 0)
    source = ((frame // TIMES) * height + y // 2) * width + x // 2
    if DEALT:
        turn = ((y % 2) * 2 + x % 2) * TIMES + frame % TIMES
        from_channel = turn[:, None] * C + channel[None, :]
    else:
        from_channel = channel[None, :] + tl.zeros([X, CP], tl.int32)
    value = tl.load(x_ptr + source[:, None] * WIDE + from_channel, mask=mask, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + from_channel, mask=mask, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + bias).to(NARROW)
    pixel = line * room_width + column
    if ZEROS:
        value = tl.where(on_edge(pixel, 2 * height, 2 * width)[:, None], 0.0, value.to(tl.float32)).to(NARROW)
    tl.store(out_ptr + pixel[:, None] * C + channel[None, :], value, mask=mask)


def enlarge_into(
    out: Tensor, x: Tensor, bias: Tensor | None, times: int, first: bool, dealt: bool, zeros: bool
) -> None:
    """Write ``x`` in twice the height and width, and ``times`` the frames, into ``out``, with edges around it.

    Args:
        out: ``(1, C, front + frames, 2 * H + 2, 2 * W + 2)``, channels last and dense; frames in
            front repeat the first.
        x: ``(1, C, T, H, W)``, channels last and dense; ``(1, 4 * times * C, T, H, W)`` if ``dealt``.
        bias: of as many channels as ``x``, added and rounded first, or ``None``.
        times: that a frame becomes, 1 or 2.
        first: the first frame becomes a single one.
        dealt: the channels are dealt out: of a pixel, those of a row, a column and a frame lie side by side.
        zeros: edges are zeros instead of repeated.
    """
    channels, made = out.shape[1:3]
    height, width = x.shape[3:]
    front = made - (times * x.shape[2] - (times - 1 if first else 0))
    room = triton.next_power_of_2(channels)
    columns = max(2, 4096 // room)
    _enlarge_kernel[(made * out.shape[3], triton.cdiv(out.shape[4], columns))](
        x,
        x if bias is None else bias,
        out,
        height,
        width,
        front,
        C=channels,
        TIMES=times,
        FIRST=first,
        DEALT=dealt,
        ZEROS=zeros,
        HAS_BIAS=bias is not None,
        CP=room,
        X=columns,
        num_warps=4,
    )


def enlarged_reference(
    x: Tensor, bias: Tensor | None, times: int, first: bool, dealt: bool, zeros: bool, front: int
) -> Tensor:
    """Reference: what ``enlarge_into`` writes, ``front`` frames before it, in plain torch."""
    if bias is not None:
        x = x + bias.view(1, -1, 1, 1, 1)
    _, wide, frames, height, width = x.shape
    if dealt:
        channels = wide // (4 * times)
        x = x.reshape(1, 2, 2, times, channels, frames, height, width).permute(0, 4, 5, 3, 6, 1, 7, 2)
        x = x.reshape(1, channels, frames * times, 2 * height, 2 * width)
    else:
        x = x.repeat_interleave(times, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    if first and times > 1:
        x = torch.cat([x[:, :, :1], x[:, :, times:]], 2)
    return padded_reference(x, front, zeros=zeros)
