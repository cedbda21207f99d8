"""Blocks of SeedVR2's decoder, in ComfyUI's classes.

Each frame is normed on its own. Convolutions see zeros around their input, which is put there in one piece; where cuDNN
makes other bits of it than of the parts that stock cuts it into, it is cut as stock does. They keep the last frames of
it, without the zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .call import Kept
from .hunyuan import enlarge_into
from .kernels.order import GroupFormula
from .layout import channels_last
from .operations import Operations, Unsuited
from .place import Block
from .wan import add_residual

#: Frames that a convolution keeps, and sees of what was before.
_LEAD = 2


class KeyedConv:
    """A convolution over time that is handed the last frames of before.

    Args:
        conv: core's ``InflatedCausalConv3d``.
        norm: the norm before it, with SiLU; ``None``: frames become larger before it.
        times: that a frame becomes, where they do.
    """

    def __init__(self, conv: Any, norm: Any = None, times: int = 1) -> None:
        self.conv, self.norm, self.times = conv, norm, times
        self.formula = None if norm is None else formula_of(norm)

    def run(
        self, number: int, x: Tensor, bias: Tensor | None, past: list[Kept], operations: Operations, of_conv: int
    ) -> tuple[Tensor, Tensor | None, Kept]:
        """What the convolution makes of ``x``, without its bias; the bias; and what it keeps.

        Args:
            number: of the norm in the block.
            x: channels last.
            bias: added to it before.
            past: begins with what was kept, which is taken off it.
            operations: computes norms and convolutions, and knows the state.
            of_conv: number of the convolution.

        Raises:
            Unsuited: its kernel is another one.
        """
        if self.conv.kernel_size != (3, 3, 3) or self.conv.padding != (0, 1, 1) or self.conv.temporal_padding != 1:
            raise Unsuited("a convolution of another size")
        before = past.pop(0)
        state = operations.options["memory_state"]
        frames, height, width = x.shape[2:]
        channels, first = x.shape[1], state != "ACTIVE"
        if self.formula is None:
            channels, height, width = channels // (4 * self.times), 2 * height, 2 * width
            # Of the first frame of a clip, one is made.
            frames = self.times * frames - (self.times - 1 if first else 0)
        room = torch.empty(
            (1, channels, _LEAD + frames, height + 2, width + 2),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        inside = room
        if isinstance(before, Tensor):
            room[:, :, :_LEAD].zero_()
            room[:, :, :_LEAD, 1:-1, 1:-1].copy_(before)
            inside = room[:, :, _LEAD:]
        del before
        if self.formula is None:
            enlarge_into(inside, x, bias, self.times, first, True, True)
        else:
            operations.group_norm(number, inside, x, bias, self.norm, self.formula)
        kept: Kept = None
        if state != "DISABLED":
            # Of one frame alone, stock keeps what is joined of it and those before.
            kept = room[:, :, -_LEAD:, 1:-1, 1:-1].clone(memory_format=torch.channels_last_3d)
        return *operations.conv(of_conv, room, self.conv, padded=True), kept


class ResidualBlock(Block):
    """Norm, SiLU, convolution, twice, and a shortcut.

    Args:
        module: core's ``ResnetBlock3D``, which is told no time step.
    """

    options = ("memory_state",)

    def __init__(self, module: Any) -> None:
        self.norms = []
        self.first, self.second = KeyedConv(module.conv1, module.norm1), KeyedConv(module.conv2, module.norm2)
        self.shortcut = module.conv_shortcut

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        x = channels_last(x)
        h, bias, first = self.first.run(0, x, None, kept, operations, 0)
        h, bias, second = self.second.run(1, h, bias, kept, operations, 1)
        y, y_bias = (x, None) if self.shortcut is None else operations.conv(2, x, self.shortcut, padded=True)
        return add_residual(h, bias, y, y_bias), [first, second]


class Upsampling(Block):
    """Twice the height and width, and of the first levels the frames: a convolution makes them of channels.

    Args:
        module: core's ``Upsample3D``.
    """

    options = ("memory_state",)

    def __init__(self, module: Any) -> None:
        self.norms = []
        self.wide = module.upscale_conv
        self.conv = KeyedConv(module.conv, times=module.temporal_ratio)

    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        h, bias = operations.conv(0, channels_last(x), self.wide, padded=True)
        h, bias, end = self.conv.run(0, h, bias, kept, operations, 1)
        return add_residual(h, bias), [end]


def formula_of(norm: Any) -> GroupFormula:
    """What this norm computes, with SiLU behind it."""
    return GroupFormula(norm.num_groups, norm.eps, per_frame=True, zeros=True)
