"""Where a tensor's numbers lie in memory: what decides in which order torch adds them up.

Replaced blocks keep their tensors channels last, whatever stock has at that place. What stock has is learnt from
stock's own run, and a tensor can be put into it at any time, so that stock's code gives stock's bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Alignment that torch's kernels look at, in bytes.
_ALIGNMENT = 16
#: The attribute of a tensor under which it carries the layout that stock would have at its place.
_MARK = "_async_decode_stock_layout"


@dataclass(frozen=True)
class Layout:
    """Shape, strides in elements, and how many elements past an aligned address the first one lies."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    shift: int

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """That of ``tensor`` itself."""
        shift = tensor.data_ptr() % _ALIGNMENT // tensor.element_size()
        return cls(tuple(tensor.shape), tuple(tensor.stride()), shift)

    @classmethod
    def in_stock(cls, tensor: Tensor) -> Layout:
        """That which stock would have where ``tensor`` is: the one it is marked with, else its own."""
        marked: Layout | None = getattr(tensor, _MARK, None)
        return cls.of(tensor) if marked is None else marked

    @classmethod
    def from_json(cls, told: list[Any]) -> Layout:
        """The one that ``to_json`` told."""
        shape, strides, shift = told
        return cls(tuple(int(size) for size in shape), tuple(int(stride) for stride in strides), int(shift))

    def to_json(self) -> list[Any]:
        """As plain types."""
        return [list(self.shape), list(self.strides), self.shift]

    def mark(self, tensor: Tensor) -> None:
        """Note on ``tensor`` that stock would have this layout."""
        setattr(tensor, _MARK, self)

    def applied_to(self, tensor: Tensor) -> Tensor:
        """The numbers of ``tensor`` in this layout; ``tensor`` itself where it has it."""
        if Layout.of(tensor) == self:
            return tensor
        size = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        room = torch.empty(size + self.shift, dtype=tensor.dtype, device=tensor.device)
        return room.as_strided(self.shape, self.strides, self.shift).copy_(tensor)


def channels_last(tensor: Tensor) -> Tensor:
    """The numbers of ``tensor``, ``(1, C, T, H, W)``, channels last and dense; itself where it is that already.

    Along an axis of one, a tensor's stride says nothing of where its numbers lie, and yet torch asks it which kernel a
    convolution of one pixel takes. What a block gets from stock, of one frame, and from the block before it may differ
    in just that, and then a proof says nothing of a run. So such axes have the strides here that a new tensor has.
    """
    dense = tensor.contiguous(memory_format=torch.channels_last_3d)
    _, channels, frames, height, width = dense.shape
    frame = channels * height * width
    strides = (frames * frame, 1, frame, channels * width, channels)
    return dense if dense.stride() == strides else dense.as_strided(dense.shape, strides)


def room_for(channels: int, frames: int, like: Tensor) -> Tensor:
    """``(1, channels, frames, H, W)`` channels last, with nothing in it yet, of the size and type of ``like``."""
    return torch.empty(
        (1, channels, frames, *like.shape[3:]),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last_3d,
    )
