"""Convolution of few channels, 3x3x3, adding in the order in which cuDNN's kernel for them adds.

cuDNN takes an sm80 kernel for 96 channels; it walks the products in blocks of 32 channels outside and the 27 places
inside, one float32 sum, 32 products at a time. Walked in the same order by the tensor cores of a newer card it is as
exact, and faster. Whether it is equal on this card is for the proof to say.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Channels that are added at a time, as cuDNN's kernel has them.
BLOCK = 32


@triton.jit(do_not_specialize=["height", "width", "pixels"])
def _conv_kernel(
    past_ptr,
    x_ptr,
    w_ptr,
    out_ptr,
    height,
    width,
    pixels,
    C: tl.constexpr,
    N0: tl.constexpr,
    N1: tl.constexpr,
    SPLIT: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
):
    N: tl.constexpr = N0 + N1
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    mask = pixel < pixels
    column = pixel % width
    row = (pixel // width) % height
    frame = pixel // (width * height)
    n0 = tl.arange(0, N0)
    sum0 = tl.zeros([P, N0], tl.float32)
    if N1 > 0:
        n1 = N0 + tl.arange(0, N1)
        sum1 = tl.zeros([P, N1], tl.float32)
    k = tl.arange(0, K)
    for i in range(27 * (C // K)):
        place = i % 27
        channel = (i // 27) * K + k
        y = row + (place // 3) % 3 - 1
        x = column + place % 3 - 1
        inside = mask & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        slice = frame + place // 9
        if SPLIT:
            before = past_ptr + ((slice * height + y) * width + x) * C
            now = x_ptr + (((slice - 2) * height + y) * width + x) * C
            a = tl.load(tl.where(slice < 2, before, now)[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
        else:
            source = (slice * height + y) * width + x
            a = tl.load(x_ptr + source[:, None] * C + channel[None, :], mask=inside[:, None], other=0.0)
        b0 = tl.load(w_ptr + (n0[None, :] * 27 + place) * C + channel[:, None])
        sum0 = tl.dot(a, b0, sum0)
        if N1 > 0:
            b1 = tl.load(w_ptr + (n1[None, :] * 27 + place) * C + channel[:, None])
            sum1 = tl.dot(a, b1, sum1)
    to = pixel.to(tl.int64)[:, None] * N
    tl.store(out_ptr + to + n0[None, :], sum0.to(out_ptr.dtype.element_ty), mask=mask[:, None])
    if N1 > 0:
        tl.store(out_ptr + to + n1[None, :], sum1.to(out_ptr.dtype.element_ty), mask=mask[:, None])


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether ``conv`` can convolve ``x`` with ``weight``: 96 channels in and out, 3x3x3."""
    return weight.shape == (96, 96, 3, 3, 3) and x.element_size() == 2 and x.shape[2] > 2 and x.numel() < 2**31


def conv(x: Tensor, weight: Tensor, past: Tensor | None = None) -> Tensor:
    """``F.conv3d(x, weight, padding=(0, 1, 1))``.

    Args:
        x: ``(1, C, T + 2, H, W)``, channels last and dense; ``(1, C, T, H, W)`` with ``past``.
        weight: ``(N, C, 3, 3, 3)``, channels last.
        past: the two frames before ``x``, like it, where they lie elsewhere.

    Returns:
        ``(1, N, T, H, W)``, channels last.
    """
    _, channels, frames, height, width = x.shape
    makes = weight.shape[0]
    first = 1 << (makes.bit_length() - 1)
    frames -= 0 if past is not None else 2
    pixels = frames * height * width
    out = torch.empty(
        (1, makes, frames, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
    )
    each = 128
    _conv_kernel[(triton.cdiv(pixels, each),)](
        x if past is None else past,
        x,
        weight,
        out,
        height,
        width,
        pixels,
        C=channels,
        N0=first,
        N1=makes - first,
        SPLIT=past is not None,
        P=each,
        K=BLOCK,
        num_warps=4,
        num_stages=3,
    )
    return out


def conv_reference(x: Tensor, weight: Tensor) -> Tensor:
    """Reference: what ``conv`` returns, up to the order of adding, in plain torch."""
    return torch.nn.functional.conv3d(x, weight, padding=(0, 1, 1))
