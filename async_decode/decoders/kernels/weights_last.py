"""A convolution's weights, channels last: a transposition, which torch's own copy does at a tenth of the card's speed.

There may be no room for copies of all weights of a decoder beside them. At this speed they can be made at each call.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Channels that a program moves.
_EACH = 64


@triton.jit
def _transpose_kernel(
    w_ptr, out_ptr, channels, first, IN: tl.constexpr, OUT: tl.constexpr, OUTP: tl.constexpr, C: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * C + tl.arange(0, C)
    place = tl.arange(0, OUTP)
    mask = (channel < channels)[:, None] & (place < OUT)[None, :]
    source = (n * channels + channel[:, None]) * IN + first + place[None, :]
    value = tl.load(w_ptr + source, mask=mask, other=0.0)
    tl.store(out_ptr + (n * OUT + place[None, :]) * channels + channel[:, None], value, mask=mask)


def weights_last(weight: Tensor, last: bool = False) -> Tensor:
    """``weight`` with its channels last in memory.

    Args:
        weight: ``(N, C, T, H, W)`` or ``(N, C, H, W)``, contiguous.
        last: only its last slice in time.

    Returns:
        The same numbers in ``channels_last_3d`` or ``channels_last``.
    """
    taken = weight[:, :, -1:] if last else weight
    layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
    out = torch.empty(taken.shape, dtype=weight.dtype, device=weight.device, memory_format=layout)
    makes, channels = weight.shape[:2]
    has, wanted = weight[0, 0].numel(), taken[0, 0].numel()
    _transpose_kernel[(makes, triton.cdiv(channels, _EACH))](
        weight,
        out,
        channels,
        has - wanted,
        IN=has,
        OUT=wanted,
        OUTP=triton.next_power_of_2(wanted),
        C=_EACH,
        num_warps=4,
    )
    return out


def weights_last_reference(weight: Tensor, last: bool = False) -> Tensor:
    """Reference: what ``weights_last`` returns, in plain torch."""
    layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
    return (weight[:, :, -1:] if last else weight).contiguous(memory_format=layout)
