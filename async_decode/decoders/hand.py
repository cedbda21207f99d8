"""Which way a block's norms and convolutions are computed: what a block leaves open, and the proof has found out.

A block says *the norm of this* or *convolve that*. In a run the hand does it in the way that was proven for the call;
in a proof another hand tries the ways that there are and keeps the first one that is stock's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .kernels.order import Formula, Order
from .layout import Layout

#: Bytes of weights in channels last that are kept beside the model's own during a run; others are made at each call.
MAX_WEIGHT_BYTES = 64 * 1024**2


@dataclass
class Ways:
    """The ways of one call of a block.

    Attributes:
        orders: for each of its norms, in which order torch adds.
        norm_layouts: the layout of each norm's input in stock.
        convs: for each of its convolutions: ``cudnn``, ``triton``, or ``split``: the same, with the past elsewhere.
    """

    orders: list[Order] = field(default_factory=list)
    norm_layouts: list[Layout] = field(default_factory=list)
    convs: list[str] = field(default_factory=list)


class Weights:
    """Weights in channels last, made once a run."""

    def __init__(self) -> None:
        self._made: dict[int, Tensor] = {}
        self._bytes = 0

    def of(self, weight: Tensor) -> Tensor:
        """``weight``, ``(N, C, …)``, channels last."""
        wanted = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
        if weight.is_contiguous(memory_format=wanted):
            return weight
        key = id(weight)
        if key in self._made:
            return self._made[key]
        made = weight.contiguous(memory_format=wanted)
        if isinstance(weight, torch.nn.Parameter) and self._bytes + made.nbytes <= MAX_WEIGHT_BYTES:
            self._made[key] = made
            self._bytes += made.nbytes
        return made


class Hand:
    """Does what was proven.

    Args:
        ways: of this call.
        weights: of this run.
    """

    def __init__(self, ways: Ways, weights: Weights) -> None:
        self.ways = ways
        self.weights = weights

    def norm(self, number: int, out: Tensor, x: Tensor, bias: Tensor | None, gamma: Tensor, formula: Formula) -> None:
        """Norm ``number`` of the block: that of ``x + bias`` into ``out``; see ``norm_into``."""
        from .kernels.norm import norm_into

        order = self.ways.orders[number]
        if order.kind == "given":
            norms = added_by_torch(biased(x, bias), self.ways.norm_layouts[number], formula)
        else:
            norms = torch.empty(x.numel() // x.shape[1], dtype=torch.float32, device=x.device)
        norm_into(out, x, bias, gamma, formula, order, norms)

    def conv(self, number: int, x: Tensor, weight: Tensor, module: torch.nn.Module) -> Tensor:
        """Convolution ``number`` of the block, without its bias; ``x`` has its frames of padding already."""
        if self.ways.convs[number] != "cudnn":
            from .kernels.conv import conv

            return conv(x, self.weights.of(weight))
        return convolved(x, self.weights.of(weight), module)

    def splits(self, number: int) -> bool:
        """Whether convolution ``number`` takes the frames before ``x`` from where they are."""
        return self.ways.convs[number] == "split"

    def conv_split(self, past: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """As ``conv``, of a convolution that takes its past from where it is."""
        from .kernels.conv import conv

        return conv(x, self.weights.of(weight), past)


def biased(x: Tensor, bias: Tensor | None) -> Tensor:
    """``x + bias``, rounded."""
    return x if bias is None else x + bias.view(1, -1, *(1,) * (x.ndim - 2))


def added_by_torch(x: Tensor, layout: Layout, formula: Formula) -> Tensor:
    """The norms of ``x`` over its channels, in float32, as torch adds them when ``x`` has ``layout``."""
    dressed = layout.dress(x)
    if formula.wide:
        dressed = dressed.float()
    norms: Tensor = torch.linalg.vector_norm(dressed, 2, 1, dtype=torch.float32)
    return norms.contiguous()


def convolved(x: Tensor, weight: Tensor, module: Any) -> Tensor:
    """What cuDNN makes of ``x``: the operation that ``module`` calls, padded in height and width; channels last."""
    flat = weight.ndim == 4
    padding = [*([] if flat else [0]), *(size // 2 for size in weight.shape[-2:])]
    home = sys.modules.get(_home_of(type(module)))
    if getattr(home, "NVIDIA_MEMORY_CONV_BUG_WORKAROUND", False) and not flat:
        # Core goes round a fault of some versions of torch this way.
        ones = [1, 1, 1]
        out: Tensor = torch.cudnn_convolution(
            x, weight, padding, ones, ones, 1, benchmark=False, deterministic=False, allow_tf32=True
        )
    else:
        call = torch.nn.functional.conv2d if flat else torch.nn.functional.conv3d
        out = call(x, weight, None, padding=padding)
    return out.contiguous(memory_format=torch.channels_last if flat else torch.channels_last_3d)


def _home_of(kind: type) -> str:
    """The module of the first of ``kind``'s ancestors, itself included, that is a convolution of core's."""
    homes: Sequence[str] = [base.__module__ for base in kind.__mro__]
    return next((home for home in homes if home.endswith("comfy.ops")), homes[0])
