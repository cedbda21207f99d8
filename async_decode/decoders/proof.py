"""Proven, then used: a block's replacement is compared with stock's block, bit for bit, on the tensors of the run.

Norms are compared before they are rounded: an order of adding that is not stock's shows in every tenth pixel of the
float32 norms, but in one of a million of the rounded ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .kernels.order import ORDERS, ROW_ORDERS, Formula, GroupFormula, Order, blocks_order
from .layout import Layout
from .operations import (
    Algorithms,
    Operations,
    Unsuited,
    cudnn_conv,
    limit_of,
    moments_in,
    moments_of_torch,
    norms_of_torch,
    parts_made,
    parts_of,
    rounds_moments,
    with_bias,
)
from .stopwatch import best_of_two
from .weights import Weights, lent

#: Comparisons go through tensors in parts of so many elements, so that they need little memory.
_PART = 1 << 25
#: A convolution may take so many times longer where it needs no copy of the frames before.
_COPIES_WORTH = 1.1


class StockNorms:
    """What stock's norms get and what torch adds there, listened to while stock's block runs.

    Args:
        modules: the norms of a block, in the order in which it calls them, with their formulas.
    """

    def __init__(self, modules: list[tuple[torch.nn.Module, Formula]]) -> None:
        self.modules = modules
        self.layouts: list[Layout] = []
        self.norms: list[Tensor] = []

    def hear(self, x: Tensor, formula: Formula) -> None:
        """A norm is about to be made of ``x``."""
        layout = Layout.of(x)
        self.layouts.append(layout)
        self.norms.append(norms_of_torch(x, layout, formula))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the block runs."""

        def hook(formula: Formula) -> Callable[[torch.nn.Module, Any], None]:
            return lambda _module, arguments: self.hear(arguments[0], formula)

        handles = [module.register_forward_pre_hook(hook(formula)) for module, formula in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class TrialOperations(Operations):
    """Tries the ways there are, and keeps in ``algorithms`` the first ones that are stock's.

    Args:
        heard: what stock's norms were.
        weights, options: as of ``Operations``.
    """

    def __init__(self, heard: StockNorms, weights: Weights, options: Mapping[str, Any]) -> None:
        super().__init__(Algorithms(), weights, options)
        self.heard = heard

    def norm(
        self, number: int, out: Tensor, x: Tensor, bias: Tensor | None, gamma: Tensor | None, formula: Formula
    ) -> None:
        from .kernels.norm import norm_into

        layout, expected = self.heard.layouts[number], self.heard.norms[number].flatten()
        self.algorithms.norm_layouts.append(layout)
        norms = torch.empty_like(expected)
        for order in orders_of(layout, x.device):
            norm_into(out, x, bias, gamma, formula, order, norms)
            if same_bits(norms, expected):
                self.algorithms.orders.append(order)
                return
        self.algorithms.orders.append(Order("given"))
        given = norms_of_torch(with_bias(x, bias), layout, formula)
        norm_into(out, x, bias, gamma, formula, Order("given"), given)

    def group_norm(
        self, number: int, out: Tensor, x: Tensor, bias: Tensor | None, module: Any, formula: GroupFormula
    ) -> None:
        from .kernels.moments import planes

        flat = planes(x, bias, formula.per_frame)
        expected = _norm_of_torch(flat, module, x, formula)
        inside = out
        if out.shape != x.shape:
            inside = out[:, :, -x.shape[2] :, 1:-1, 1:-1]
        rounds = rounds_moments(x.device, x.dtype)
        ours = Order("rounded_moments" if rounds else "moments")
        # What torch tells of its own moments is rounded.
        orders = [*([ours] if _are_torchs(flat, formula) else []), *([Order("given")] if rounds else [])]
        for order in orders:
            mean, rstd = moments_in(order, flat, formula)
            self._group_norm_into(out, x, bias, module, formula, mean, rstd, order)
            if same_bits(inside, expected):
                self.algorithms.orders.append(order)
                return
        # Of so few numbers the result might be the same by chance.
        raise Unsuited("torch makes another norm of it" if orders else "torch adds up a group in another order")

    def splits(self, number: int) -> bool:
        return False

    def _convolve(self, number: int, x: Tensor, weight: Tensor, module: Any, padded: bool) -> Tensor:
        from .kernels import conv

        expected = cudnn_conv(x, weight, module, padded)
        way = "cudnn"
        if len(parts_of(x.shape, x.element_size(), weight.shape[-2:], limit_of(module))) > 1:
            # In one piece nothing is copied.
            for place, made in parts_made(x, weight, module, padded):
                if not same_bits(expected[(..., *place)], made):
                    way = "parts"
                    expected[(..., *place)] = made
        if not padded and conv.fits(x, weight) and same_bits(conv.conv(x, weight), expected):
            stock = best_of_two(x.device, lambda: cudnn_conv(x, weight, module, padded))
            ours = best_of_two(x.device, lambda: conv.conv(x, weight))
            way = "triton" if ours < stock else "cudnn"
            past, now = x[:, :, :2], x[:, :, 2:]
            if way == "triton" and same_bits(conv.conv(now, weight, past), expected):
                split = best_of_two(x.device, lambda: conv.conv(now, weight, past))
                # It saves copies of the past.
                way = "split" if split < _COPIES_WORTH * ours else way
        self.algorithms.convs.append(way)
        return expected


def orders_of(layout: Layout, device: torch.device) -> Iterator[Order]:
    """The orders in which torch may add the channels of a tensor in ``layout``, the most likely ones first."""
    channels = layout.shape[1]
    if layout.strides[1] == 1 and channels > 1:
        yield from ROW_ORDERS
    elif device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        pixels = math.prod(layout.shape) // channels
        order = blocks_order(channels, pixels, card.multi_processor_count * card.max_threads_per_multi_processor)
        if order is not None:
            yield order
    yield from ORDERS


def _norm_of_torch(flat: Tensor, module: Any, x: Tensor, formula: GroupFormula) -> Tensor:
    """Its norm of ``flat``, which is ``x`` channel by channel, in the shape of ``x``."""
    with lent(module, x) as (weight, summand):
        made = torch.nn.functional.group_norm(flat, formula.groups, weight, summand, formula.epsilon)
    if formula.silu:
        made = torch.nn.functional.silu(made)
    one, channels, frames, height, width = x.shape
    if formula.per_frame:
        return made.view(frames, channels, height, width).transpose(0, 1).unsqueeze(0)
    return made.view(one, channels, frames, height, width)


def _are_torchs(flat: Tensor, formula: GroupFormula) -> bool:
    """Whether the moments that our kernel makes of ``flat`` are torch's in float32, before they are rounded."""
    from .kernels.moments import moments

    mean, rstd = moments(flat, formula.groups, formula.epsilon)
    # A quarter at once: twice as wide, with torch's result, it takes the memory that SiLU has just needed. A group on
    # its own would keep a single processor of the card busy.
    at_once = max(1, formula.groups // 4)
    for number, part in enumerate(flat.split(flat.shape[1] // formula.groups * at_once, 1)):
        own = [one[:, number * at_once : (number + 1) * at_once] for one in (mean, rstd)]
        torchs = moments_of_torch(part.float(), own[0].shape[1], formula.epsilon)
        if not all(same_bits(one, other) for one, other in zip(own, torchs, strict=True)):
            return False
    return True


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape and type hold the same bits, all NaNs being equal."""
    return values_that_differ(a, b) == 0


def values_that_differ(a: Tensor, b: Tensor) -> int:
    """How many of the elements differ in a bit, all NaNs being equal; all, where shapes or types differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return max(1, a.numel())
    if a.numel() == 0:
        return 0
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    axis = max(range(a.ndim), key=lambda one: a.shape[one]) if a.ndim else 0
    step = max(1, _PART * a.shape[axis] // a.numel()) if a.ndim else 1
    counts = []
    for first, second in zip(a.split(step, axis), b.split(step, axis), strict=True) if a.ndim else [(a, b)]:
        wrong = first.view(bits) != second.view(bits)
        if a.is_floating_point():
            wrong &= ~(first.isnan() & second.isnan())
        counts.append(wrong.sum())
    return int(torch.stack(counts).sum())
