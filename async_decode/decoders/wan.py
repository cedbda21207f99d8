"""Blocks of the Wan family's decoders: Wan 2.1, Qwen-Image and Wan 2.2, in ComfyUI's classes and in Diffusers'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .call import Kept
from .kernels.order import Formula
from .layout import channels_last, room_for
from .operations import Operations
from .place import Block


@dataclass(frozen=True)
class Variant:
    """In what the versions of the family differ.

    Attributes:
        trims: a single frame without a past is convolved with the last slice of the weights, not with frames of zeros.
        joins: of a single frame, the frame before is kept as well.
        wide: norms divide in float32.
    """

    trims: bool
    joins: bool
    wide: bool


class Causal:
    """A convolution over time that is handed the end of what it got before.

    Args:
        conv: the module, whose weights these are.
        norm: the norm before it; ``None``: there is none.
        silu: SiLU follows the norm.
    """

    def __init__(self, conv: Any, variant: Variant, norm: Any = None, silu: bool = True) -> None:
        self.conv, self.variant, self.norm = conv, variant, norm
        self.formula = None if norm is None else formula_of(norm, variant, silu)

    def run(
        self, number: int, x: Tensor, bias: Tensor | None, past: list[Kept], keeps: bool, operations: Operations
    ) -> tuple[Tensor, Tensor | None, Kept]:
        """What the convolution makes of ``x``, without its bias; the bias; and what it keeps.

        Args:
            number: of the norm and of the convolution in the block.
            x: channels last.
            bias: added to ``x`` before the norm.
            past: ends with what was kept before, which is taken off it.
            keeps: something is kept.
        """
        before = past.pop() if past else None
        earlier = before if isinstance(before, Tensor) else None
        frames, known = x.shape[2], 0 if earlier is None else earlier.shape[2]
        lead = self.conv.weight.shape[2] - 1
        trimmed = self.variant.trims and earlier is None and frames == 1
        front = 0 if trimmed else lead
        if earlier is not None and self.formula is not None and front == known and operations.splits(number):
            new = room_for(x.shape[1], frames, x)
            operations.norm(number, new, x, bias, self.norm.gamma, self.formula)
            split: Kept = None
            if keeps:
                joined = self.variant.joins and frames == 1
                split = torch.cat([earlier[:, :, 1:], new], 2) if joined else _end_of(new, 2)
            return *operations.conv_split(channels_last(earlier), new, self.conv), split
        room = room_for(x.shape[1], front + frames, x)
        if front > known:
            room[:, :, : front - known].zero_()
        if earlier is not None:
            room[:, :, front - known : front].copy_(earlier)
        del before, earlier
        if self.formula is None:
            room[:, :, front:].copy_(x)
        else:
            operations.norm(number, room[:, :, front:], x, bias, self.norm.gamma, self.formula)
        del x
        kept: Kept = None
        if keeps:
            count = 2 if self.variant.joins and known else min(2, frames)
            kept = _end_of(room, count)
        return *operations.conv(number, room, self.conv, last=trimmed and lead > 0), kept


class ResidualBlock(Block):
    """Norm, SiLU, convolution, twice, and a shortcut.

    Args:
        norms, convs: two of each.
        shortcut: a convolution of one pixel, or ``None``.
    """

    def __init__(self, norms: list[Any], convs: list[Any], shortcut: Any, variant: Variant) -> None:
        self.norms = [(norm, formula_of(norm, variant, True)) for norm in norms]
        self.first, self.second = (Causal(conv, variant, norm) for conv, norm in zip(convs, norms, strict=True))
        self.shortcut = shortcut

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x, keeps = channels_last(x), bool(kept)
        kept.reverse()
        h, bias, first = self.first.run(0, x, None, kept, keeps, operations)
        h, bias, second = self.second.run(1, h, bias, kept, keeps, operations)
        y, y_bias = (x, None) if self.shortcut is None else operations.conv(2, x, self.shortcut)
        return add_residual(h, bias, y, y_bias), [first, second] if keeps else []


class Upsampling(Block):
    """Twice the height and width; twice the frames, where there is a convolution over time."""

    def __init__(self, conv: Any, time_conv: Any, variant: Variant) -> None:
        self.norms = []
        self.conv, self.variant = conv, variant
        self.time = None if time_conv is None else Causal(time_conv, variant)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        from .kernels.upsample import double

        x = channels_last(x)
        keeps: list[Kept] = []
        number = 0
        if self.time is not None and kept:
            past = kept.pop()
            if past is None:
                keeps = ["Rep"]
                up = double(x, None, 1)
            else:
                keeps = [self._end(x, past)]
                number = 1
                y, bias, _ = self.time.run(0, x, None, [past] if isinstance(past, Tensor) else [], False, operations)
                del past
                up = double(y, bias, 2)
                del y
        else:
            up = double(x, None, 1)
        del x
        out, bias = operations.conv(number, up, self.conv)
        del up
        # Frames are the batch here: seen as a clip they are channels last as well.
        return add_residual(out, bias, None).permute(1, 0, 2, 3).unsqueeze(0), keeps

    def _end(self, x: Tensor, past: Kept) -> Tensor:
        end = x[:, :, -2:]
        if self.variant.joins and x.shape[2] < 2:
            before = past[:, :, -1:] if isinstance(past, Tensor) else torch.zeros_like(x)
            end = torch.cat([before, x], 2)
        return end.clone(memory_format=torch.channels_last_3d)


class Duplication(Block):
    """Wan 2.2's shortcut past an upsampling block.

    Args:
        shortcut: stock's, which has its numbers.
    """

    options = ("first_chunk",)

    def __init__(self, shortcut: Any) -> None:
        self.norms = []
        self.shortcut = shortcut

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        from .kernels.duplicate import duplicate

        how = self.shortcut
        # Of the first frame only one is made.
        skipped = how.factor_t - 1 if operations.options["first_chunk"] else 0
        return duplicate(channels_last(x), how.out_channels, how.factor_t, how.factor_s, skipped), []


class LoneNorm(Block):
    """The norm of a decoder's head, which stock's loop calls by itself."""

    def __init__(self, norm: Any, variant: Variant) -> None:
        self.norm, self.formula = norm, formula_of(norm, variant, False)
        self.norms = [(norm, self.formula)]

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x = channels_last(x)
        out = torch.empty_like(x)
        operations.norm(0, out, x, None, self.norm.gamma, self.formula)
        return out, []


class LoneConv(Block):
    """The convolution of a decoder's head, which stock's loop calls by itself and hands what it has kept."""

    def __init__(self, conv: Any, variant: Variant) -> None:
        self.norms = []
        self.conv = Causal(conv, variant)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        past: list[Kept] = [one for one in kept if one is not None]
        kept.clear()
        out, bias, _ = self.conv.run(0, channels_last(x), None, past, False, operations)
        return add_residual(out, bias).contiguous(), []


def _end_of(x: Tensor, count: int) -> Tensor:
    """The last frames of ``x``, at most so many, without the others, which a part would keep alive."""
    return x if x.shape[2] <= count else x[:, :, -count:].clone(memory_format=torch.channels_last_3d)


def add_residual(x: Tensor, bias: Tensor | None, y: Tensor | None = None, y_bias: Tensor | None = None) -> Tensor:
    """See the kernel of this name, which needs Triton."""
    from .kernels.residual import add_residual

    return add_residual(x, bias, y, y_bias)


def formula_of(norm: Any, variant: Variant, silu: bool) -> Formula:
    """What this norm computes."""
    return Formula(float(norm.scale), wide=variant.wide, silu=silu)
