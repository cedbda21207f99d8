"""Group norm with its weights, SiLU and edges around it in one pass over channels-last frames, rounding as torch does.

torch makes one factor and one summand of each channel of a group, in float32, and multiplies and adds at once. Whether
it does so in making the summand, too, is its compiler's choice; in bfloat16 the bits are the same.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from .order import GroupFormula
from .pad import inner_pixel, on_edge, padded_reference

#: Triton's interpreter has no libdevice.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _factors_kernel(
    mean_ptr,
    rstd_ptr,
    gamma_ptr,
    beta_ptr,
    factor_ptr,
    summand_ptr,
    n,
    C: tl.constexpr,
    GROUPS: tl.constexpr,
    ROUNDED: tl.constexpr,
    FUSED: tl.constexpr,
    B: tl.constexpr,
):
    NARROW: tl.constexpr = gamma_ptr.dtype.element_ty
    i = tl.program_id(0) * B + tl.arange(0, B)
    mask = i < n
    group = i // (C // GROUPS)
    mean = tl.load(mean_ptr + group, mask=mask, other=0.0)
    factor = tl.load(rstd_ptr + group, mask=mask, other=0.0)
    if ROUNDED:
        mean = mean.to(NARROW).to(tl.float32)
        factor = factor.to(NARROW).to(tl.float32)
    factor = factor * tl.load(gamma_ptr + i % C, mask=mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + i % C, mask=mask, other=0.0).to(tl.float32)
    tl.store(factor_ptr + i, factor, mask=mask)
    if FUSED:  # noqa: SIM108  (a branch for the compiler)
        summand = tl.fma(-factor, mean, beta)
    else:
        # Adding zero to the product keeps the compiler from fusing it with what follows.
        summand = tl.fma(-factor, mean, tl.zeros_like(factor)) + beta
    tl.store(summand_ptr + i, summand, mask=mask)


@triton.jit(do_not_specialize=["plane", "height", "width", "front"])
def _group_norm_kernel(
    x_ptr,
    bias_ptr,
    factor_ptr,
    summand_ptr,
    out_ptr,
    plane,
    height,
    width,
    front,
    HAS_BIAS: tl.constexpr,
    PADDED: tl.constexpr,
    ZEROS: tl.constexpr,
    PER_FRAME: tl.constexpr,
    SILU: tl.constexpr,
    EXACT_EXP: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    B: tl.constexpr,
):
    NARROW: tl.constexpr = x_ptr.dtype.element_ty
    in_plane = tl.program_id(0) * P + tl.arange(0, P)
    frame = tl.program_id(1)
    to = frame.to(tl.int64) * plane + in_plane
    mask = (in_plane < plane)[:, None]
    pixel = inner_pixel(to, height, width, front, False) if PADDED else to
    row = tl.maximum(frame - front, 0) * C if PER_FRAME else 0
    for start in range(0, C, B):
        channel = start + tl.arange(0, B)
        known = channel < C
        inside = mask & known[None, :]
        x = tl.load(x_ptr + pixel[:, None] * C + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            bias = tl.load(bias_ptr + channel, mask=known, other=0.0).to(tl.float32)
            x = (x + bias[None, :]).to(NARROW).to(tl.float32)
        factor = tl.load(factor_ptr + row + channel, mask=known, other=0.0)
        summand = tl.load(summand_ptr + row + channel, mask=known, other=0.0)
        y = tl.fma(factor[None, :] + tl.zeros_like(x), x, summand[None, :] + tl.zeros_like(x))
        if SILU:
            y = y.to(NARROW).to(tl.float32)
            if EXACT_EXP:  # noqa: SIM108  (a branch for the compiler)
                y = tl.div_rn(y, 1.0 + libdevice.exp(-y))
            else:
                y = tl.div_rn(y, 1.0 + tl.exp(-y))
        if PADDED and ZEROS:
            y = tl.where(on_edge(to, height, width)[:, None], 0.0, y)
        tl.store(out_ptr + to[:, None] * C + channel[None, :], y.to(NARROW), mask=inside)


def group_norm_into(
    out: Tensor,
    x: Tensor,
    bias: Tensor | None,
    weights: tuple[Tensor, Tensor],
    formula: GroupFormula,
    mean: Tensor,
    rstd: Tensor,
    rounded: bool,
    fused: bool,
) -> None:
    """Write the group norm of ``x`` (with ``bias`` added, and rounded, first) into ``out``.

    Args:
        out: as ``x``, dense in the same order; or ``(1, C, front + T, H + 2, W + 2)``, for edges around it.
        x: ``(1, C, T, H, W)``, channels last and dense.
        bias: ``(C,)`` or ``None``.
        weights: what is multiplied by, and what is added, ``(C,)`` each, in the type of ``x``.
        formula: what the model computes.
        mean, rstd: of the groups, ``(T, groups)`` in float32 if they are each frame's, else ``(1, groups)``.
        rounded: to the type of ``x``, before they are used.
        fused: a channel's summand is multiplied and added at once.
    """
    _, channels, frames, height, width = x.shape
    rows = mean.shape[0]
    factors = torch.empty((2, rows, channels), dtype=torch.float32, device=x.device)
    _factors_kernel[(triton.cdiv(rows * channels, 256),)](
        mean,
        rstd,
        weights[0],
        weights[1],
        factors[0],
        factors[1],
        rows * channels,
        C=channels,
        GROUPS=formula.groups,
        ROUNDED=rounded,
        FUSED=fused,
        B=256,
    )
    plane = out.shape[3] * out.shape[4]
    each = 32
    _group_norm_kernel[(triton.cdiv(plane, each), out.shape[2])](
        x,
        x if bias is None else bias,
        factors[0],
        factors[1],
        out,
        plane,
        height,
        width,
        out.shape[2] - frames,
        HAS_BIAS=bias is not None,
        PADDED=out.shape != x.shape,
        ZEROS=formula.zeros,
        PER_FRAME=formula.per_frame,
        SILU=formula.silu,
        EXACT_EXP=not INTERPRETED,
        C=channels,
        P=each,
        B=32 if channels % 64 else 64,
        num_warps=4,
    )


def group_norm_reference(
    x: Tensor,
    bias: Tensor | None,
    weights: tuple[Tensor, Tensor],
    formula: GroupFormula,
    mean: Tensor,
    rstd: Tensor,
    rounded: bool,
    fused: bool,
    front: int = 0,
    edges: bool = False,
) -> Tensor:
    """Reference: what ``group_norm_into`` writes, in plain torch; multiplying and adding at once is done in float64.

    ``edges``: there is room for them, and for ``front`` frames.
    """
    if bias is not None:
        x = x + bias.view(1, -1, 1, 1, 1)
    channels = x.shape[1]
    mean, rstd = ((one.to(x.dtype).float() if rounded else one) for one in (mean, rstd))
    of_channel = channels // formula.groups
    factor = rstd.repeat_interleave(of_channel, 1) * weights[0].float()
    product = factor.double() * mean.repeat_interleave(of_channel, 1).double()
    summand = (weights[1].double() - (product if fused else product.float().double())).float()
    # A row is a frame, or the whole clip.
    factor, summand = (one.t().reshape(1, channels, -1, 1, 1).double() for one in (factor, summand))
    y = (factor * x.double() + summand).float().to(x.dtype)
    y = torch.nn.functional.silu(y) if formula.silu else y
    return padded_reference(y, front, zeros=formula.zeros) if edges else y
