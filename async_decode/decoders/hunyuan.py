"""Blocks of HunyuanVideo's decoders, 1.0 and 1.5, in ComfyUI's classes: the first one norms groups of channels.

Their convolutions see edges repeated around their input, and keep the end of that, with its edges, for the next piece.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .call import LAST, Kept
from .kernels.order import Formula, GroupFormula
from .layout import channels_last
from .operations import Operations
from .place import Block
from .wan import add_residual

#: Frames before a piece that a convolution sees.
_LEAD = 2


class CarriedConv:
    """A convolution over time that is handed the end of what it got before.

    Args:
        conv: the module, whose weights these are.
        norm: the norm before it, with SiLU; ``None``: there is none.
        times: that a frame becomes before it, in twice the height and width; 0: it stays as it is.
    """

    def __init__(self, conv: Any, norm: Any = None, times: int = 0) -> None:
        self.conv, self.norm, self.times = conv, norm, times
        self.formula = None if norm is None else formula_of(norm, True)

    def run(
        self,
        number: int,
        handed: list[Tensor],
        bias: Tensor | None,
        past: list[Kept],
        keeps: bool,
        operations: Operations,
    ) -> tuple[Tensor, Tensor | None, Kept]:
        """What the convolution makes of its frames, without its bias; the bias; and what it keeps.

        Args:
            number: of the norm and of the convolution in the block.
            handed: the frames, channels last, which are taken off it, so that they are let go early.
            bias: added to them before the norm.
            past: ends with what was kept before, which is taken off it.
            keeps: something is kept.
        """
        x = handed.pop()
        before = past.pop() if past else None
        channels, frames, height, width = x.shape[1:]
        first = not isinstance(before, Tensor)
        if self.times:
            # Of the first frame of a clip, one is made.
            frames = self.times * frames - (self.times - 1 if first else 0)
            height, width = 2 * height, 2 * width
        room = torch.empty(
            (1, channels, _LEAD + frames, height + 2, width + 2),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        inside = room
        if isinstance(before, Tensor):
            room[:, :, :_LEAD].copy_(before)
            inside = room[:, :, _LEAD:]
        del before
        if self.times:
            enlarge_into(inside, x, None, self.times, first, False, False)
        elif self.formula is None:
            pad_into(inside, x)
        else:
            norm_into(operations, number, inside, x, bias, self.norm, self.formula)
        del inside, x
        kept = room[:, :, -_LEAD:].clone(memory_format=torch.channels_last_3d) if keeps else None
        return *operations.conv(number, room, self.conv, padded=True), kept


class ResidualBlock(Block):
    """Norm, SiLU, convolution, twice, and a shortcut.

    Args:
        norms, convs: two of each.
        shortcut: a convolution of one pixel, or ``None``.
    """

    def __init__(self, norms: list[Any], convs: list[Any], shortcut: Any) -> None:
        self.norms = heard(norms, True)
        self.first, self.second = (CarriedConv(conv, norm) for conv, norm in zip(convs, norms, strict=True))
        self.shortcut = shortcut

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x, keeps = channels_last(x), _keeps(kept)
        kept.reverse()
        h, bias, first = self.first.run(0, [x], None, kept, keeps, operations)
        handed = [h]
        del h
        h, bias, second = self.second.run(1, handed, bias, kept, keeps, operations)
        y, y_bias = (x, None) if self.shortcut is None else operations.conv(2, x, self.shortcut, padded=True)
        return add_residual(h, bias, y, y_bias), [first, second] if keeps else []


class Upsampling(Block):
    """Twice the height and width, and twice the frames, where ``frames`` is 2: they come out of the channels.

    Args:
        conv: makes the channels.
        frames: that one becomes.
    """

    def __init__(self, conv: Any, frames: int) -> None:
        self.norms = []
        self.conv, self.frames = CarriedConv(conv), frames

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        from .kernels.depth_to_space import depth_to_space

        x, keeps = channels_last(x), _keeps(kept)
        # Of the first frame of a clip, one is made.
        first = self.frames == 2 and not any(isinstance(one, Tensor) for one in kept)
        h, bias, end = self.conv.run(0, [x], None, kept, keeps, operations)
        return depth_to_space(h, bias, x, self.frames, first), [end] if keeps else []


class Doubling(Block):
    """Twice the height and width, and ``times`` the frames, by repeating; then a convolution."""

    def __init__(self, conv: Any, times: int) -> None:
        self.norms = []
        self.conv = CarriedConv(conv, times=times)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x, keeps = channels_last(x), _keeps(kept)
        h, bias, end = self.conv.run(0, [x], None, kept, keeps, operations)
        return add_residual(h, bias), [end] if keeps else []


class LastNorm(Block):
    """The norm behind all blocks, which stock's loop calls by itself and goes on from: its result is contiguous."""

    def __init__(self, norm: Any) -> None:
        self.norm, self.formula = norm, formula_of(norm, False)
        self.norms = heard([norm], False)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x = channels_last(x)
        out = torch.empty_like(x)
        norm_into(operations, 0, out, x, None, self.norm, self.formula)
        return out.contiguous(), []


def _keeps(kept: list[Kept]) -> bool:
    """Whether a block keeps something of this call: ``kept`` tells, from which the word that says so is taken."""
    if kept and kept[-1] == LAST:
        kept.pop()
        return False
    return bool(kept)


def pad_into(out: Tensor, x: Tensor, reflects: bool = False) -> None:
    """See the kernel of this name, which needs Triton."""
    from .kernels.pad import pad_into

    pad_into(out, x, reflects)


def enlarge_into(
    out: Tensor, x: Tensor, bias: Tensor | None, times: int, first: bool, dealt: bool, zeros: bool
) -> None:
    """See the kernel of this name, which needs Triton."""
    from .kernels.enlarge import enlarge_into

    enlarge_into(out, x, bias, times, first, dealt, zeros)


def norm_into(
    operations: Operations,
    number: int,
    out: Tensor,
    x: Tensor,
    bias: Tensor | None,
    norm: Any,
    formula: Formula | GroupFormula,
) -> None:
    """Norm ``number`` of a block, of whichever kind: that of ``x + bias`` into ``out``."""
    if isinstance(formula, GroupFormula):
        operations.group_norm(number, out, x, bias, norm, formula)
    else:
        operations.norm(number, out, x, bias, norm.gamma, formula)


def formula_of(norm: Any, silu: bool) -> Formula | GroupFormula:
    """What this norm computes."""
    if isinstance(norm, torch.nn.GroupNorm):
        return GroupFormula(norm.num_groups, norm.eps, silu)
    return Formula(float(norm.scale), silu=silu, plus_zero=False)


def heard(norms: list[Any], silu: bool) -> list[tuple[torch.nn.Module, Formula]]:
    """Those of ``norms`` whose order depends on a layout: that over groups of channels is made of contiguous ones."""
    formulas = [(norm, formula_of(norm, silu)) for norm in norms]
    return [(norm, formula) for norm, formula in formulas if isinstance(formula, Formula)]
