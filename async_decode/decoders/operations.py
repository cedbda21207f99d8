"""Which way a block's norms and convolutions are computed: what a block leaves open, and the proof has found out.

A block says *the norm of this* or *convolve that*. In a run it is done in the way that was proven for the call;
in a proof, ``TrialOperations`` tries the ways that there are and keeps the first one that is stock's.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .kernels.order import Formula, GroupFormula, Order
from .layout import Layout, channels_last
from .weights import Weights, home_of, lent


class Unsuited(Exception):
    """A call is for stock's block to make; the message says why."""


@dataclass
class Algorithms:
    """How one call of a block is computed.

    Attributes:
        orders: for each of its norms, in which order torch adds.
        norm_layouts: the layout of each norm's input in stock.
        convs: for each of its convolutions: ``cudnn``, ``triton``, ``split``: the same, with the past elsewhere; or
            ``parts``: cuDNN in the parts that stock cuts it into.
    """

    orders: list[Order] = field(default_factory=list)
    norm_layouts: list[Layout] = field(default_factory=list)
    convs: list[str] = field(default_factory=list)


class Operations:
    """Does what was proven.

    Args:
        algorithms: of this call.
        weights: of this run.
        options: what else the call tells, by the block's ``options``; ``None``: stock's default.
    """

    def __init__(self, algorithms: Algorithms, weights: Weights, options: Mapping[str, Any]) -> None:
        self.algorithms, self.weights, self.options = algorithms, weights, options

    def norm(
        self, number: int, out: Tensor, x: Tensor, bias: Tensor | None, gamma: Tensor | None, formula: Formula
    ) -> None:
        """Norm ``number`` of the block: that of ``x + bias`` into ``out``; see ``norm_into``."""
        from .kernels.norm import norm_into

        order = self.algorithms.orders[number]
        if order.kind == "given":
            norms = norms_of_torch(with_bias(x, bias), self.algorithms.norm_layouts[number], formula)
        else:
            norms = torch.empty(x.numel() // x.shape[1], dtype=torch.float32, device=x.device)
        norm_into(out, x, bias, gamma, formula, order, norms)

    def group_norm(
        self, number: int, out: Tensor, x: Tensor, bias: Tensor | None, module: Any, formula: GroupFormula
    ) -> None:
        """Norm ``number`` of the block, over groups of channels: that of ``x + bias`` into ``out``.

        Args:
            number: of the norm in the block.
            out: see ``group_norm_into``.
            x: channels last and dense.
            bias: is added first, and rounded.
            module: whose weights these are.
            formula: what it computes.
        """
        from .kernels.moments import planes

        order = self.algorithms.orders[number]
        mean, rstd = moments_in(order, planes(x, bias, formula.per_frame), formula)
        self._group_norm_into(out, x, bias, module, formula, mean, rstd, order)

    def _group_norm_into(
        self,
        out: Tensor,
        x: Tensor,
        bias: Tensor | None,
        module: Any,
        formula: GroupFormula,
        mean: Tensor,
        rstd: Tensor,
        order: Order,
    ) -> None:
        from .kernels.group_norm import group_norm_into

        with lent(module, x) as (weight, summand):
            assert summand is not None
            rounded, fused = order.kind != "moments", fuses_summand(x.device, x.dtype)
            group_norm_into(out, x, bias, (weight, summand), formula, mean, rstd, rounded, fused)

    def conv(
        self, number: int, x: Tensor, module: Any, last: bool = False, padded: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Convolution ``number`` of the block, without its bias, and the bias.

        Args:
            number: of the convolution in the block.
            x: has its frames of padding already.
            module: whose weights these are.
            last: only the last slice in time of them.
            padded: ``x`` has its padding in height and width, too.
        """
        with self.weights.of(module, x, last) as (weight, bias):
            return self._convolve(number, x, weight, module, padded), own(bias, module)

    def splits(self, number: int) -> bool:
        """Whether convolution ``number`` takes the frames before ``x`` from where they are."""
        return self.algorithms.convs[number] == "split"

    def conv_split(self, past: Tensor, x: Tensor, module: Any) -> tuple[Tensor, Tensor | None]:
        """As ``conv``, of a convolution that takes its past from where it is."""
        from .kernels.conv import conv

        with self.weights.of(module, x) as (weight, bias):
            return conv(x, weight, past), own(bias, module)

    def _convolve(self, number: int, x: Tensor, weight: Tensor, module: Any, padded: bool) -> Tensor:
        """``weight``: channels last."""
        way = self.algorithms.convs[number]
        if way == "parts":
            size = (one - kernel + 1 for one, kernel in zip(x.shape[2:], weight.shape[2:], strict=True))
            out = torch.empty(
                (1, weight.shape[0], *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
            )
            for place, made in parts_made(x, weight, module, padded):
                out[(..., *place)] = made
            return out
        if way != "cudnn":
            from .kernels.conv import conv

            return conv(x, weight)
        return cudnn_conv(x, weight, module, padded)


def own(bias: Tensor | None, module: Any) -> Tensor | None:
    """``bias``, which is added later on: a copy of one that is only lent."""
    return bias if bias is None or bias is module.bias else bias.clone()


def with_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    """``x + bias``, rounded."""
    return x if bias is None else x + bias.view(1, -1, *(1,) * (x.ndim - 2))


def norms_of_torch(x: Tensor, layout: Layout, formula: Formula) -> Tensor:
    """The norms of ``x`` over its channels, in float32, as torch adds them when ``x`` has ``layout``; or its means."""
    placed = layout.applied_to(x)
    if formula.mean:
        return (placed**2).mean(1, dtype=torch.float32).contiguous()
    if formula.wide:
        placed = placed.float()
    norms: Tensor = torch.linalg.vector_norm(placed, 2, 1, dtype=torch.float32)
    return norms.contiguous()


def moments_in(order: Order, planes: Tensor, formula: GroupFormula) -> tuple[Tensor, Tensor]:
    """The mean of each group and one over its deviation, ``(N, groups)`` in float32; ``planes``: ``(N, C, P)``."""
    if order.kind == "given":
        mean, rstd = moments_of_torch(planes, formula.groups, formula.epsilon)
        return mean.float(), rstd.float()
    from .kernels.moments import moments

    return moments(planes, formula.groups, float(torch.tensor(formula.epsilon, dtype=planes.dtype)))


def moments_of_torch(planes: Tensor, groups: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """As torch makes them, rounded to the type of ``planes``, ``(N, C, P)``."""
    rows, channels, pixels = planes.shape
    _, mean, rstd = torch.native_group_norm(planes, None, None, rows, channels, pixels, groups, epsilon)
    return mean, rstd


@functools.lru_cache(maxsize=8)
def rounds_moments(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch rounds the moments of a group to the type of its numbers before it uses them, as it did once."""
    step = torch.finfo(dtype).eps * 1024
    numbers = (1024 + step * (torch.arange(32, device=device) % 4 == 0)).to(dtype).view(1, 1, -1)
    made = torch.nn.functional.group_norm(numbers, 1, eps=1e-12).double()
    # The mean is a quarter of a step above the smaller number, which it is rounded to.
    return bool(made.min() > -0.25)


@functools.lru_cache(maxsize=8)
def fuses_summand(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch multiplies and adds at once in making a channel's summand of its group's mean."""
    from .kernels.group_norm import group_norm_reference

    channels, side, epsilon = 512, 8, float(torch.tensor(1e-6, dtype=dtype))
    drawn = torch.randn((channels, side * side + 2), generator=torch.Generator().manual_seed(0))
    numbers, gamma, beta = drawn.to(device, dtype).split([side * side, 1, 1], 1)
    weights, x = (gamma.flatten(), beta.flatten()), (numbers * 3 + 2).view(1, channels, 1, side, side)
    wide = x.float().flatten(2)
    _, mean, rstd = torch.native_group_norm(wide, None, None, 1, channels, side * side, channels, epsilon)
    made = torch.nn.functional.group_norm(x.flatten(2), channels, *weights, 1e-6).view(x.shape)
    formula, rounded = GroupFormula(channels, 1e-6, silu=False), rounds_moments(device, dtype)
    fused, apart = (
        int((made != group_norm_reference(x, None, weights, formula, mean, rstd, rounded, how)).sum())
        for how in (True, False)
    )
    return fused <= apart


def parts_made(x: Tensor, weight: Tensor, module: Any, padded: bool) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """As ``cudnn_conv``, each of the parts that SeedVR2's ``module`` cuts it into, and which rows and columns it is.

    Args:
        x: with its padding, if there is any.
        weight, module, padded: see ``cudnn_conv``.
    """
    height, width = weight.shape[-2:]
    for rows, columns in parts_of(x.shape, x.element_size(), (height, width), limit_of(module)):
        part = x[..., rows.start : rows.stop + height - 1, columns.start : columns.stop + width - 1]
        made = cudnn_conv(channels_last(part), weight, module, padded)
        yield (rows, columns), made


def limit_of(module: Any) -> float:
    """GiB of input above which SeedVR2's ``module`` cuts a convolution into parts."""
    return float(getattr(module, "memory_limit", math.inf))


def parts_of(shape: Sequence[int], size: int, kernel: Sequence[int], limit: float) -> list[tuple[slice, slice]]:
    """The rows and columns of a result that SeedVR2 makes at once.

    It cuts the height, and a part that is too large still, for the rows around it, by its width, and no further.

    Args:
        shape: of the input with its padding, ``(N, C, T, H, W)``.
        size: of a number, in bytes.
        kernel: height and width, odd ones; the padding is half of each.
        limit: in GiB.
    """
    *outer, height, width = shape

    def cut(rows: int, length: int, halo: int) -> list[slice]:
        occupied = math.prod((*outer, rows, width)) * size / 1024**3
        inner = length - halo
        if occupied < limit or math.isinf(limit):
            return [slice(0, inner)]
        count = math.ceil(occupied / limit)
        # The first part ends where it lacks what follows.
        ends = [inner // count * number - halo // 2 for number in range(1, count)]
        return [slice(*pair) for pair in itertools.pairwise([0, *ends, inner])]

    halo, side = kernel[0] - 1, kernel[1] - 1
    return [
        (rows, columns)
        for rows in cut(height, height, halo)
        for columns in cut(rows.stop - rows.start + halo, width, side)
    ]


def cudnn_conv(x: Tensor, weight: Tensor, module: Any, padded: bool) -> Tensor:
    """What cuDNN makes of ``x``: the operation that ``module`` calls; channels last.

    Args:
        x: what is convolved.
        weight: channels last.
        module: whose operation it is.
        padded: ``x`` has its padding in height and width already.
    """
    flat = weight.ndim == 4
    padding = [*([] if flat else [0]), *(0 if padded else size // 2 for size in weight.shape[-2:])]
    if getattr(home_of(type(module)), "NVIDIA_MEMORY_CONV_BUG_WORKAROUND", False) and not flat:
        # Core goes round a fault of some versions of torch this way.
        ones = [1, 1, 1]
        out: Tensor = torch.cudnn_convolution(
            x, weight, padding, ones, ones, 1, benchmark=False, deterministic=False, allow_tf32=True
        )
    else:
        call = torch.nn.functional.conv2d if flat else torch.nn.functional.conv3d
        out = call(x, weight, None, padding=padding)
    return out.contiguous(memory_format=torch.channels_last if flat else torch.channels_last_3d)
