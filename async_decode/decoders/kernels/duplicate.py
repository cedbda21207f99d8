"""Doubling of frames, height and width by repeating: a shortcut past an upsampling block, as one gather.

The channels of a pixel are repeated, then dealt out to the pixels that come of it, a group of neighbours to each
channel of the result.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["height", "width", "skipped"])
def _duplicate_kernel(
    x_ptr,
    out_ptr,
    height,
    width,
    skipped,
    C: tl.constexpr,
    N: tl.constexpr,
    IN_TIME: tl.constexpr,
    IN_SPACE: tl.constexpr,
    REPEATS: tl.constexpr,
    NP: tl.constexpr,
    X: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * X + tl.arange(0, X)
    channel = tl.arange(0, NP)
    frame = row // (IN_SPACE * height) + skipped
    y = row % (IN_SPACE * height)
    mask = (column < IN_SPACE * width)[:, None] & (channel < N)[None, :]
    source = ((frame // IN_TIME) * height + y // IN_SPACE) * width + column // IN_SPACE
    turn = ((frame % IN_TIME) * IN_SPACE + y % IN_SPACE) * IN_SPACE + column % IN_SPACE
    from_channel = (channel[None, :] * (IN_TIME * IN_SPACE * IN_SPACE) + turn[:, None]) // REPEATS
    value = tl.load(x_ptr + source[:, None] * C + from_channel, mask=mask, other=0.0)
    tl.store(out_ptr + (row * IN_SPACE * width + column[:, None]) * N + channel[None, :], value, mask=mask)


def duplicate(x: Tensor, channels: int, in_time: int, in_space: int, skipped: int = 0) -> Tensor:
    """``x`` in ``in_time`` times the frames and ``in_space`` times the height and width.

    Args:
        x: ``(1, C, T, H, W)``, channels last and dense.
        channels: of the result: ``C`` divides ``channels * in_time * in_space ** 2``.
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
    columns = 32 if channels <= 256 else 8
    _duplicate_kernel[(frames * in_space * height, triton.cdiv(in_space * width, columns))](
        x,
        out,
        height,
        width,
        skipped,
        C=wide,
        N=channels,
        IN_TIME=in_time,
        IN_SPACE=in_space,
        REPEATS=channels * in_time * in_space**2 // wide,
        NP=triton.next_power_of_2(channels),
        X=columns,
        num_warps=4,
    )
    return out


def duplicate_reference(x: Tensor, channels: int, in_time: int, in_space: int, skipped: int = 0) -> Tensor:
    """Reference: what ``duplicate`` returns, in plain torch."""
    _, wide, time, height, width = x.shape
    x = x.repeat_interleave(channels * in_time * in_space**2 // wide, dim=1)
    x = x.view(1, channels, in_time, in_space, in_space, time, height, width).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(1, channels, in_time * time, in_space * height, in_space * width)[:, :, skipped:]
