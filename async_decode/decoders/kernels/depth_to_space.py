"""Channels that become pixels and frames, and the shortcut that goes with them: each channel of it repeated.

A convolution makes four or eight times the channels; these are taken apart, its bias is added and rounded, and so is
the shortcut, all in one pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["height", "width"])
def _depth_to_space_kernel(
    x_ptr,
    bias_ptr,
    y_ptr,
    out_ptr,
    height,
    width,
    N: tl.constexpr,
    M: tl.constexpr,
    FRAMES: tl.constexpr,
    FIRST: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    NP: tl.constexpr,
    X: tl.constexpr,
):
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    C: tl.constexpr = 4 * FRAMES * N
    TIMES: tl.constexpr = C // M
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * X + tl.arange(0, X)
    channel = tl.arange(0, NP)
    mask = (column < 2 * width)[:, None] & (channel < N)[None, :]
    frame = row // (2 * height)
    line = row % (2 * height)
    corner = ((line % 2) * 2 + column % 2)[:, None]
    if FIRST:
        # One frame of the first one, as if it had half the channels.
        alone = frame == 0
        later = tl.maximum(frame - 1, 0)
        source_frame = tl.where(alone, 0, 1 + later // 2)
        part = tl.where(alone, corner, (later % 2) * 4 + corner)
        of_x = tl.where(alone, 2 * part, part) * N + channel[None, :]
        of_y = (part * N + channel[None, :]) // tl.where(alone, TIMES // 2, TIMES)
    else:
        source_frame = frame // FRAMES
        of_x = ((frame % FRAMES) * 4 + corner) * N + channel[None, :]
        of_y = of_x // TIMES
    source = ((source_frame * height + line // 2) * width + column // 2)[:, None]
    value = tl.load(x_ptr + source * C + of_x, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + of_x, mask=mask, other=0.0).to(tl.float32)
        value = (value + bias).to(NARROW).to(tl.float32)
    value += tl.load(y_ptr + source * M + of_y, mask=mask, other=0.0).to(tl.float32)
    place = (row * 2 * width + column[:, None]) * N + channel[None, :]
    tl.store(out_ptr + place, value.to(NARROW), mask=mask)


def depth_to_space(x: Tensor, bias: Tensor | None, y: Tensor, frames: int, first: bool) -> Tensor:
    """``x + bias``, rounded, and ``y`` with its channels repeated, both taken apart into pixels and added.

    Args:
        x: ``(1, 4 * frames * N, T, H, W)``, channels last and dense.
        bias: ``(4 * frames * N,)`` or ``None``.
        y: ``(1, M, T, H, W)``, like ``x``; ``M`` divides the channels of ``x``.
        frames: that one becomes, 1 or 2.
        first: the first frame becomes a single one, of the first half of what each of its pixels becomes; ``frames``
            is 2.

    Returns:
        ``(1, N, frames * T, 2 * H, 2 * W)``, a frame less with ``first``; channels last.
    """
    _, wide, time, height, width = x.shape
    channels, made = wide // (4 * frames), frames * time - int(first)
    out = torch.empty(
        (1, channels, made, 2 * height, 2 * width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d,
    )
    room = triton.next_power_of_2(channels)
    columns = max(2, 4096 // room)
    _depth_to_space_kernel[(made * 2 * height, triton.cdiv(2 * width, columns))](
        x,
        x if bias is None else bias,
        y,
        out,
        height,
        width,
        N=channels,
        M=y.shape[1],
        FRAMES=frames,
        FIRST=first,
        HAS_BIAS=bias is not None,
        NP=room,
        X=columns,
        num_warps=4,
    )
    return out


def depth_to_space_reference(x: Tensor, bias: Tensor | None, y: Tensor, frames: int, first: bool) -> Tensor:
    """Reference: what ``depth_to_space`` returns, in plain torch."""
    if bias is not None:
        x = x + bias.view(1, -1, 1, 1, 1)
    times = x.shape[1] // y.shape[1]
    if not first:
        return _apart(x, frames) + _apart(y.repeat_interleave(times, 1), frames)
    half = _apart(x[:, :, :1], 1)
    alone = half[:, : half.shape[1] // 2] + _apart(y[:, :, :1].repeat_interleave(times // 2, 1), 1)
    if x.shape[2] == 1:
        return alone
    return torch.cat([alone, depth_to_space_reference(x[:, :, 1:], None, y[:, :, 1:], frames, False)], 2)


def _apart(x: Tensor, frames: int) -> Tensor:
    """``(1, frames * 4 * N, T, H, W)`` as ``(1, N, frames * T, 2 * H, 2 * W)``."""
    one, wide, time, height, width = x.shape
    channels = wide // (4 * frames)
    cells = x.reshape(one, frames, 2, 2, channels, time, height, width).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return cells.reshape(one, channels, frames * time, 2 * height, 2 * width)
