"""Blocks of LTX's and LTX-2's decoder, in ComfyUI's classes.

Its convolutions see as much of what comes as of what was, so that a block's result lags behind its input: of that the
end is kept, to be added later. What each module keeps is a pair here: frames, and a word.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .call import ABSENT, TRUE, Kept
from .hunyuan import pad_into
from .kernels.order import Formula
from .layout import channels_last
from .operations import Operations, Unsuited
from .place import Block
from .wan import add_residual

#: Frames that a convolution sees at once.
_SPAN = 3


class TimedConv:
    """A convolution over time that keeps the end of what it got.

    Args:
        conv: core's ``CausalConv3d``.
        causal: the decoder's convolutions see no later frames.
        norm: the norm before it, with SiLU; ``None``: there is none.
        modulated: the result of the norm is scaled and shifted before SiLU.
    """

    def __init__(self, conv: Any, causal: bool, norm: Any = None, modulated: bool = False) -> None:
        self.conv, self.causal = conv.conv, causal
        self.reflects = self.conv.padding_mode == "reflect"
        self.formula = None if norm is None else formula_of(norm, not modulated, self.reflects)

    def run(
        self,
        number: int,
        x: Tensor,
        bias: Tensor | None,
        past: list[Kept],
        operations: Operations,
        modulation: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None, list[Kept]]:
        """What the convolution makes of ``x``, without its bias; the bias; and what it keeps.

        Args:
            number: of the norm and of the convolution in the block.
            x: channels last.
            bias: added to ``x`` before the norm.
            past: what was kept, which is taken off it.
            operations: computes norms and convolutions.
            modulation: what the result of the norm is multiplied by, and what is added then, ``(1, C, 1, 1, 1)``.

        Raises:
            Unsuited: it makes no frame of so few.
        """
        ends = past.pop() == TRUE
        before = past.pop()
        earlier = before if isinstance(before, Tensor) else None
        del before
        channels, frames, height, width = x.shape[1:]
        front = (_SPAN - 1 if self.causal else _SPAN // 2) if earlier is None else earlier.shape[2]
        behind = _SPAN // 2 if ends and not self.causal else 0
        if frames == 0 or front + frames + behind < _SPAN:
            raise Unsuited("too few frames at once")
        edge = int(self.reflects)
        room = torch.empty(
            (1, channels, front + frames + behind, height + 2 * edge, width + 2 * edge),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        inside = room[:, :, front : front + frames]
        self._fill(number, inside, x, bias, operations)
        if modulation is not None:
            inside.mul_(modulation[0]).add_(modulation[1])
            torch.nn.functional.silu(inside, inplace=True)
        if earlier is None:
            room[:, :, :front].copy_(room[:, :, front : front + 1].expand(-1, -1, front, -1, -1))
        elif self.reflects:
            pad_into(room[:, :, :front], channels_last(earlier), True)
        else:
            room[:, :, :front].copy_(earlier)
        del earlier
        if behind:
            room[:, :, -behind:].copy_(room[:, :, -behind - 1 : -behind].expand(-1, -1, behind, -1, -1))
        kept: Kept = None
        if not ends:
            inner = room[:, :, 1 - _SPAN :, edge : height + edge, edge : width + edge]
            kept = inner.clone(memory_format=torch.channels_last_3d)
        return *operations.conv(number, room, self.conv, padded=self.reflects), [kept, str(ends)]

    def _fill(self, number: int, out: Tensor, x: Tensor, bias: Tensor | None, operations: Operations) -> None:
        """Write what is convolved of ``x`` into ``out``, with its edges, if there is room for them."""
        if self.formula is not None:
            operations.norm(number, out, x, bias, None, self.formula)
        elif self.reflects:
            pad_into(out, x, True)
        else:
            out.copy_(x)


class ResidualBlock(Block):
    """Norm, SiLU, convolution, twice; and what came in is added, as far as the convolutions are.

    Args:
        module: core's ``ResnetBlock3D``, of as many channels as it gets.
        causal: the decoder's convolutions see no later frames.
    """

    def __init__(self, module: Any, causal: bool) -> None:
        self.module, modulated = module, module.timestep_conditioning
        self.options = ("timestep",) if modulated else ()
        self.first = TimedConv(module.conv1, causal, module.norm1, modulated)
        self.second = TimedConv(module.conv2, causal, module.norm2, modulated)
        self.norms = [(module.norm1, formula_of(module.norm1, True)), (module.norm2, formula_of(module.norm2, True))]

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x = channels_last(x)
        earlier, _, *states = kept
        kept.clear()
        past = [states[:2], states[2:]]
        del states
        one, other = self._modulations(x, operations)
        h, bias, first = self.first.run(0, x, None, past[0], operations, one)
        h, bias, second = self.second.run(1, h, bias, past[1], operations, other)
        rest = _exchange(h, bias, earlier, x)
        return h, [rest, "", *first, *second]

    def _modulations(self, x: Tensor, operations: Operations) -> list[tuple[Tensor, Tensor] | None]:
        """What the results of both norms are multiplied by, and what is added, for the time step that is told."""
        if not self.options:
            return [None, None]
        told: Tensor = operations.options["timestep"]
        table = self.module.scale_shift_table[None, ..., None, None, None].to(device=x.device, dtype=x.dtype)
        shift, scale, next_shift, next_scale = (table + told.reshape(1, 4, -1, *told.shape[-3:])).unbind(1)
        return [(1 + scale, shift), (1 + next_scale, next_shift)]


class Upsampling(Block):
    """Times the frames, height and width: they come out of the channels.

    Args:
        module: core's ``DepthToSpaceUpsample``, of one size in height and width.
        causal: the decoder's convolutions see no later frames.
    """

    def __init__(self, module: Any, causal: bool) -> None:
        self.norms = []
        self.conv, self.adds = TimedConv(module.conv, causal), module.residual
        self.in_time, self.in_space, _ = module.stride
        self.channels = module.out_channels // (self.in_time * self.in_space**2)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        from .kernels.pixel_shuffle import pixel_shuffle

        x = channels_last(x)
        earlier, word, *past = kept
        kept.clear()
        h, bias, state = self.conv.run(0, x, None, past, operations)
        drops, drops_added = (one == TRUE for one in ("True True" if word == ABSENT else str(word)).split())
        twice = self.in_time == 2
        out = pixel_shuffle(h, bias, self.channels, self.in_time, self.in_space, int(drops and twice))
        del h
        drops &= not twice
        rest: Kept = None
        if self.adds:
            skipped = int(drops_added and twice)
            added = pixel_shuffle(x, None, self.channels, self.in_time, self.in_space, skipped)
            rest = _exchange(out, None, earlier, added)
        drops_added &= not twice and self.adds
        return out, [rest, f"{drops} {drops_added}", *state]


def _exchange(out: Tensor, bias: Tensor | None, earlier: Kept, new: Tensor) -> Tensor | None:
    """Add ``bias``, rounded, and then what was kept and what is new, as far as it goes, to ``out``, in place.

    Args:
        out: channels last.
        bias: ``(C,)`` or ``None``.
        earlier: frames from before.
        new: as many channels as ``out`` has; channels last.

    Returns:
        The frames that are left.
    """
    known, left = 0, []
    if isinstance(earlier, Tensor):
        known = min(out.shape[2], earlier.shape[2])
        if known:
            add_residual(out[:, :, :known], bias, channels_last(earlier[:, :, :known]))
        left.append(earlier[:, :, known:])
    now = out.shape[2] - known
    if now:
        add_residual(out[:, :, known:], bias, new[:, :, :now])
    left = [one for one in (*left, new[:, :, now:]) if one.shape[2]]
    if len(left) > 1:
        return torch.cat(left, 2).contiguous(memory_format=torch.channels_last_3d)
    # Not a part of something larger, which would be kept as well.
    return left[0].clone(memory_format=torch.channels_last_3d) if left else None


class LastNorm(Block):
    """The norm behind all blocks, which stock's loop calls by itself."""

    def __init__(self, norm: Any) -> None:
        self.formula = formula_of(norm, False)
        self.norms = [(norm, self.formula)]

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x = channels_last(x)
        out = torch.empty_like(x)
        operations.norm(0, out, x, None, None, self.formula)
        return out, []


class LastConv(Block):
    """The convolution behind all blocks, which stock's loop calls by itself."""

    def __init__(self, conv: Any, causal: bool) -> None:
        self.norms = []
        self.conv = TimedConv(conv, causal)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        out, bias, state = self.conv.run(0, channels_last(x), None, kept, operations)
        return add_residual(out, bias), state


def formula_of(norm: Any, silu: bool, reflects: bool = False) -> Formula:
    """What this norm computes."""
    return Formula(1.0, silu=silu, plus_zero=False, epsilon=float(norm.eps), mean=True, reflects=reflects)
