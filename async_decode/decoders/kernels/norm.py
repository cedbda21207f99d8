"""Norm over the channels, scale, weight and SiLU in one pass, rounding to the tensor's type where torch does.

``F.normalize(x, dim=1) * scale * gamma + 0``, then SiLU, is a dozen passes of torch's; all of them round. The sum of
squares is added in the order in which torch adds it, which depends on the layout that torch would have: see ``Order``.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from .order import Formula, Order
from .pad import inner_pixel

#: Triton's interpreter has no libdevice.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _pixel_sum(
    x_ptr,
    bias_ptr,
    pixel,
    mask,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MEAN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    P: tl.constexpr,
):
    """The sum of squares of each pixel's channels, ``(P,)`` in float32; ``MEAN``: the squares are rounded first."""
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    SPAN: tl.constexpr = 4 * WIDTH
    lane = tl.arange(0, SPAN)
    total = tl.zeros([P, SPAN], tl.float32)
    for start in range(0, C, SPAN):
        channel = start + lane
        inside = mask & (channel < C)[None, :]
        x = tl.load(x_ptr + pixel[:, None] * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            bias = tl.load(bias_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)
            x = (x + bias[None, :]).to(NARROW).to(tl.float32)
        total = total + (x * x).to(NARROW).to(tl.float32) if MEAN else tl.fma(x, x, total)
    four = tl.reshape(total, [P, 4, WIDTH])
    which = tl.arange(0, 4)[None, :, None]
    a0 = tl.sum(tl.where(which == 0, four, 0.0), 1)
    a1 = tl.sum(tl.where(which == 1, four, 0.0), 1)
    a2 = tl.sum(tl.where(which == 2, four, 0.0), 1)
    a3 = tl.sum(tl.where(which == 3, four, 0.0), 1)
    part = ((a0 + a1) + a2) + a3
    if ROWS:
        if WIDTH >= 128:
            part = tl.sum(tl.reshape(part, [P, 2, WIDTH // 2]), 1)
        HALF: tl.constexpr = WIDTH // 2 if WIDTH >= 128 else WIDTH
        if HALF >= 64:
            part = tl.sum(tl.reshape(part, [P, 2, HALF // 2]), 1)
        WARP: tl.constexpr = HALF // 2 if HALF >= 64 else HALF
        if WARP >= 32:
            part = tl.sum(tl.reshape(part, [P, WARP // 2, 2]), 2)
        if WARP >= 16:
            part = tl.sum(tl.reshape(part, [P, 8, 2]), 2)
        if WARP >= 8:
            part = tl.sum(tl.reshape(part, [P, 4, 2]), 2)
        part = tl.sum(tl.reshape(part, [P, 2, 2]), 2)
        part = tl.sum(part, 1)
    else:
        if WIDTH >= 32:
            part = tl.sum(tl.reshape(part, [P, 2, 16]), 1)
        if WIDTH >= 16:
            part = tl.sum(tl.reshape(part, [P, 2, 8]), 1)
        if WIDTH >= 8:
            part = tl.sum(tl.reshape(part, [P, 2, 4]), 1)
        if WIDTH >= 4:
            part = tl.sum(tl.reshape(part, [P, 2, 2]), 1)
        # One number, or two.
        part = tl.sum(part, 1)
    return part


@triton.jit
def _pixel_sum_of_blocks(
    x_ptr,
    bias_ptr,
    pixel,
    mask,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROOM: tl.constexpr,
    P: tl.constexpr,
):
    """As ``_pixel_sum``, where ``BLOCKS`` thread blocks of four share a pixel; ``ROOM``: a power of two, 4 or more."""
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    lane = tl.arange(0, 4 * ROOM)
    thread_block = lane // 4
    part = tl.zeros([P, 4 * ROOM], tl.float32)
    for turn in tl.static_range(4):
        total = tl.zeros([P, 4 * ROOM], tl.float32)
        for start in range(0, C, 16 * BLOCKS):
            channel = start + turn * 4 * BLOCKS + lane
            inside = (channel < C) & (thread_block < BLOCKS)
            x = tl.load(x_ptr + pixel[:, None] * C + channel[None, :], mask=mask & inside[None, :], other=0.0).to(
                tl.float32
            )
            if HAS_BIAS:
                bias = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
                x = (x + bias[None, :]).to(NARROW).to(tl.float32)
            total = total + (x * x).to(NARROW).to(tl.float32) if MEAN else tl.fma(x, x, total)
        part = part + total
    # Within a block: (t0 + t2) + (t1 + t3).
    part = tl.sum(tl.reshape(part, [P, ROOM, 2, 2]), 2)
    part = tl.sum(part, 2)
    # Among blocks: four threads in turn, then these as within a block.
    four = tl.reshape(part, [P, ROOM // 4, 4])
    row = tl.arange(0, ROOM // 4)[None, :, None]
    added = tl.zeros([P, 4], tl.float32)
    for one in tl.static_range(ROOM // 4):
        added = added + tl.sum(tl.where(row == one, four, 0.0), 1)
    added = tl.sum(tl.reshape(added, [P, 2, 2]), 1)
    return tl.sum(added, 1)


@triton.jit(do_not_specialize=["pixels", "height", "width", "front"])
def _norm_kernel(
    x_ptr,
    bias_ptr,
    gamma_ptr,
    out_ptr,
    norm_ptr,
    pixels,
    scale,
    epsilon,
    height,
    width,
    front,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PADDED: tl.constexpr,
    REFLECTS: tl.constexpr,
    MEAN: tl.constexpr,
    GIVEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROOM: tl.constexpr,
    WIDE: tl.constexpr,
    SILU: tl.constexpr,
    ZERO: tl.constexpr,
    EXACT_EXP: tl.constexpr,
    P: tl.constexpr,
    B: tl.constexpr,
):
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    to = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    mask = (to < pixels)[:, None]
    pixel = inner_pixel(to, height, width, front, REFLECTS) if PADDED else to
    if GIVEN:
        norm = tl.load(norm_ptr + pixel, mask=to < pixels, other=1.0)
    else:
        if BLOCKS:
            norm = _pixel_sum_of_blocks(x_ptr, bias_ptr, pixel, mask, C, HAS_BIAS, MEAN, BLOCKS, ROOM, P)
        else:
            norm = _pixel_sum(x_ptr, bias_ptr, pixel, mask, C, HAS_BIAS, MEAN, ROWS, WIDTH, P)
        norm = norm * (1.0 / C) if MEAN else tl.sqrt_rn(norm)
        tl.store(norm_ptr + pixel, norm, mask=to < pixels)
    if not WIDE:
        norm = norm.to(NARROW).to(tl.float32)
    norm = norm + epsilon if MEAN else tl.where(norm < epsilon, epsilon, norm)
    if not WIDE:
        norm = norm.to(NARROW).to(tl.float32)
    if MEAN:
        norm = tl.sqrt_rn(norm).to(NARROW).to(tl.float32)
    lane = tl.arange(0, B)
    for start in range(0, C, B):
        channel = start + lane
        inside = mask & (channel < C)[None, :]
        place = pixel[:, None] * C + channel[None, :]
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            bias = tl.load(bias_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)
            x = (x + bias[None, :]).to(NARROW).to(tl.float32)
        y = tl.div_rn(x, norm[:, None] + tl.zeros_like(x)).to(NARROW).to(tl.float32)
        if not MEAN:
            gamma = tl.load(gamma_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)
            y = (y * scale).to(NARROW).to(tl.float32)
            y = (y * gamma[None, :]).to(NARROW).to(tl.float32)
        if ZERO:
            y = y + 0.0
        if SILU:
            if EXACT_EXP:  # noqa: SIM108  (a branch for the compiler)
                y = tl.div_rn(y, 1.0 + libdevice.exp(-y))
            else:
                y = tl.div_rn(y, 1.0 + tl.exp(-y))
        tl.store(out_ptr + to[:, None] * C + channel[None, :], y.to(NARROW), mask=inside)


def norm_into(
    out: Tensor, x: Tensor, bias: Tensor | None, gamma: Tensor | None, formula: Formula, order: Order, norms: Tensor
) -> None:
    """Write the norm of ``x`` (with ``bias`` added, and rounded, first) into ``out``.

    Args:
        out: as ``x``, dense in the same order; or ``(1, C, front + T, H + 2, W + 2)``, for edges around it, which are
            repeated, or reflected as ``formula`` says.
        x: ``(1, C, T, H, W)``, channels last and dense.
        bias: ``(C,)`` or ``None``.
        gamma: ``C`` weights, in the type of ``x``; ``None`` where ``formula`` has none.
        formula: what the model computes.
        order: how the squares are added.
        norms: ``T * H * W`` float32 values: what torch made of the squares, where ``order`` is ``given``; else what the
            kernel makes of them is written to it.
    """
    channels = x.shape[1]
    pixels = out.numel() // channels
    given = order.kind == "given"
    blocks = order.width // 4 if order.kind == "blocks" else 0
    room = max(4, triton.next_power_of_2(blocks))
    width = 4 if given or blocks else order.width
    block = 32 if channels % 64 else 64
    pixels_each = max(8, min(64, 8192 // max(4 * width, block)) if channels <= 192 else 32)
    if 4 * max(width, room) >= 128:
        pixels_each = 16
    elif blocks:
        pixels_each = 32
    _norm_kernel[(triton.cdiv(pixels, pixels_each),)](
        x,
        x if bias is None else bias,
        x if gamma is None else gamma,
        out,
        norms,
        pixels,
        formula.scale,
        formula.epsilon,
        *x.shape[3:],
        out.shape[2] - x.shape[2],
        C=channels,
        HAS_BIAS=bias is not None,
        PADDED=out.shape != x.shape,
        REFLECTS=formula.reflects,
        MEAN=formula.mean,
        GIVEN=given,
        ROWS=order.kind == "rows",
        WIDTH=width,
        BLOCKS=blocks,
        ROOM=room,
        WIDE=formula.wide,
        SILU=formula.silu,
        ZERO=formula.plus_zero,
        EXACT_EXP=not INTERPRETED,
        P=pixels_each,
        B=block,
        num_warps=4,
    )


def norms_in_order(order: Order, x: Tensor, mean: bool = False) -> Tensor:
    """Reference: the norms of ``x``, ``(1, C, …)`` in float32, with the squares added in ``order``: ``(1, …)``.

    ``mean``: the means of the squares, rounded to the type of ``x``, instead.
    """
    rounded = x.dtype if mean else torch.float32
    wide = x.float()
    channels = x.shape[1]
    totals: list[list[Any]] = [[None] * 4 for _ in range(order.width)]
    for channel in range(channels):
        within = channel % (4 * order.width)
        square = (wide[:, channel] * wide[:, channel]).to(rounded).float()
        turn, thread = divmod(within, order.width)
        before = totals[thread][turn]
        totals[thread][turn] = square if before is None else before + square
    nothing = torch.zeros_like(wide[:, 0])
    parts = []
    for sums in totals:
        a = [nothing if one is None else one for one in sums]
        parts.append(((a[0] + a[1]) + a[2]) + a[3])
    if order.kind == "blocks":
        of_blocks = [(parts[i] + parts[i + 2]) + (parts[i + 1] + parts[i + 3]) for i in range(0, len(parts), 4)]
        parts = []
        for thread in range(4):
            added = nothing
            for one in of_blocks[thread::4]:
                added = added + one
            parts.append(added)
    while len(parts) > 1:
        half = len(parts) // 2
        if order.kind != "rows" or len(parts) > 32:
            parts = [parts[i] + parts[i + half] for i in range(half)]
        else:
            parts = [parts[2 * i] + parts[2 * i + 1] for i in range(half)]
    if mean:
        return parts[0] * (1.0 / channels)
    # torch's own root of float32 numbers is not rounded correctly on every CPU.
    return parts[0].double().sqrt().float()


def norm_reference(x: Tensor, bias: Tensor | None, gamma: Tensor | None, formula: Formula, norms: Tensor) -> Tensor:
    """Reference: what ``norm_into`` writes, in plain torch, with the norms (``(1, …)`` in float32) at hand."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if bias is not None:
        x = x + bias.view(shape)
    norm = norms.unsqueeze(1)
    if formula.mean:
        y = x / torch.sqrt(norm.to(x.dtype) + formula.epsilon)
    elif formula.wide:
        y = (x.float() / norm.clamp_min(formula.epsilon)).to(x.dtype)
    else:
        y = x / norm.to(x.dtype).clamp_min(formula.epsilon)
    if gamma is not None:
        y = y * formula.scale * gamma.view(shape)
    if formula.plus_zero:
        y = y + 0
    return torch.nn.functional.silu(y) if formula.silu else y
