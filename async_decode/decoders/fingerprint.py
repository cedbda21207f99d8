"""What a block made, in few bytes: two results are compared although only one of them is in memory at a time.

A number of 64 bits for each tensor: its elements' bits times odd numbers that look random, added up modulo 2 ** 64. One
element that differs always changes it; of all other differences one of 2 ** 64 would not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .call import Kept

#: Elements that are taken at once: their products take 8 bytes each.
_PART = 1 << 22
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """That of a block's result and of what it keeps; nothing waits for the device until two are compared.

    Args:
        out: the result.
        kept: what is kept.
    """

    def __init__(self, out: Tensor, kept: list[Kept]) -> None:
        self._others: list[object] = []
        self._numbers: list[Tensor] = []
        for one in (out, *kept):
            if isinstance(one, Tensor):
                self._others.append((tuple(one.shape), one.dtype))
                self._numbers.append(number_of(one))
            else:
                self._others.append(one)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint) or self._others != other._others:
            return False
        return bool(torch.equal(torch.stack(self._numbers), torch.stack(other._numbers)))

    __hash__ = None  # type: ignore[assignment]


def number_of(tensor: Tensor) -> Tensor:
    """The number of ``tensor``, whichever layout it has; all NaNs are equal. ``()`` int64, on its device."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    odd: Tensor | None = None
    for index, part in enumerate(_parts(tensor)):
        bits = part.view(_BITS[part.element_size()])
        if part.is_floating_point():
            # Here -1: a NaN's bits as well, but the arithmetic makes none of its own of them.
            bits = bits.masked_fill(part.isnan(), -1)
        if odd is None or odd.numel() < bits.numel():
            odd = _odd(bits.numel(), tensor.device)
        total += (bits.to(torch.int64) * odd[: bits.numel()]).sum() * _signed(_MIX[1] * (2 * index + 1))
    return total


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """``tensor`` in pieces, flat, in an order that does not depend on its layout: channels last."""
    if tensor.numel() == 0:
        return
    last = tensor.movedim(1, -1) if tensor.ndim > 1 else tensor
    if last.ndim < 4:
        yield from last.reshape(-1).split(_PART)
        return
    rows = max(1, _PART // (math.prod(last.shape[-2:])))
    for clip in last.flatten(0, -5).unbind(0) if last.ndim > 4 else (last,):
        for frame in clip.unbind(0):
            for part in frame.split(rows):
                yield part.reshape(-1)


def _odd(count: int, device: torch.device) -> Tensor:
    """So many odd numbers that look random, always the same; ``(count,)`` int64."""
    mixed = torch.arange(1, count + 1, dtype=torch.int64, device=device) * _signed(_MIX[0])
    for shift, factor in ((30, _MIX[1]), (27, _MIX[2])):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return (mixed ^ ((mixed >> 31) & ((1 << 33) - 1))) | 1


def _signed(number: int) -> int:
    """``number`` modulo 2 ** 64, as int64 has it."""
    number %= 1 << 64
    return number - (1 << 64) if number >= 1 << 63 else number
