"""Edges around a clip: a pixel on each side, repeated or reflected, and frames before it, as convolutions want them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def inner_pixel(pixel, height, width, front, REFLECTS: tl.constexpr):
    """Of which pixel of a clip of this height and width ``pixel`` is a copy, where ``front`` frames are before it."""
    # Division is slow in 64 bits.
    pixel = pixel.to(tl.int32)
    column = pixel % (width + 2) - 1
    row = (pixel // (width + 2)) % (height + 2) - 1
    frame = pixel // ((width + 2) * (height + 2)) - front
    if REFLECTS:
        column = tl.where(column < 0, 1, tl.where(column == width, width - 2, column))
        row = tl.where(row < 0, 1, tl.where(row == height, height - 2, row))
    else:
        column = tl.minimum(tl.maximum(column, 0), width - 1)
        row = tl.minimum(tl.maximum(row, 0), height - 1)
    return ((tl.maximum(frame, 0) * height + row) * width + column).to(tl.int64)


@triton.jit
def on_edge(pixel, height, width):
    """Whether ``pixel`` is on an edge around frames of this height and width."""
    pixel = pixel.to(tl.int32)
    column = pixel % (width + 2)
    row = (pixel // (width + 2)) % (height + 2)
    return (column == 0) | (column == width + 1) | (row == 0) | (row == height + 1)


@triton.jit(do_not_specialize=["pixels", "height", "width", "front"])
def _pad_kernel(
    x_ptr,
    out_ptr,
    pixels,
    height,
    width,
    front,
    REFLECTS: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    B: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    source = inner_pixel(pixel, height, width, front, REFLECTS)
    for start in range(0, C, B):
        channel = start + tl.arange(0, B)
        inside = (pixel < pixels)[:, None] & (channel < C)[None, :]
        value = tl.load(x_ptr + source[:, None] * C + channel[None, :], mask=inside, other=0.0)
        tl.store(out_ptr + pixel[:, None] * C + channel[None, :], value, mask=inside)


def pad_into(out: Tensor, x: Tensor, reflects: bool = False) -> None:
    """Write ``x`` into ``out``, its edges repeated around it.

    Args:
        out: ``(1, C, front + T, H + 2, W + 2)``, channels last and dense.
        x: ``(1, C, T, H, W)``, channels last and dense.
        reflects: it is reflected in height and width, without the last pixel; these are 2 at least.
    """
    channels, frames, height, width = x.shape[1:]
    pixels = out.numel() // channels
    each = 32
    _pad_kernel[(triton.cdiv(pixels, each),)](
        x,
        out,
        pixels,
        height,
        width,
        out.shape[2] - frames,
        REFLECTS=reflects,
        C=channels,
        P=each,
        B=32 if channels % 64 else 64,
        num_warps=4,
    )


def padded_reference(x: Tensor, front: int, reflects: bool = False, zeros: bool = False) -> Tensor:
    """Reference: what ``pad_into`` writes, in plain torch; with ``zeros``, edges are those."""
    longer = torch.nn.functional.pad(x, (0, 0, 0, 0, front, 0), mode="replicate")
    if zeros:
        return torch.nn.functional.pad(longer, (1, 1, 1, 1, 0, 0))
    return torch.nn.functional.pad(longer, (1, 1, 1, 1, 0, 0), mode="reflect" if reflects else "replicate")
