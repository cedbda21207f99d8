"""What a norm computes and in which order it adds: words that blocks use, where there is no Triton too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["strided", "rows", "blocks", "given", "moments", "rounded_moments"]


@dataclass(frozen=True)
class Order:
    """In which order torch adds the squares of the channels of a pixel (``Reduce.cuh``).

    Attributes:
        kind: ``width`` threads take every ``width``-th channel, each in four sums in turn,
            ``((a0 + a1) + a2) + a3``. Then, ``strided`` (where a pixel's channels lie apart): the threads by halves;
            ``rows`` (where they lie side by side, and a warp shares them): neighbours by pairs. ``blocks`` (where there
            are many channels and few pixels, and several thread blocks of four share one): each block as ``strided``;
            then thread ``y`` of the last block adds the sums of blocks ``y, y + 4, …`` in turn, and the four of them as
            ``strided``. ``given``: torch adds, the kernel is handed the result. Of groups of channels: ``moments`` are
            added as our kernel of this name does; ``rounded_moments`` are rounded to the type before they are used, as
            older versions of torch do.
        width: threads that share a pixel, of all blocks together.
    """

    kind: Kind
    width: int = 0

    @classmethod
    def from_json(cls, told: list[Any]) -> Order:
        """The one that ``to_json`` told."""
        kind, width = told
        if kind not in get_args(Kind):
            raise ValueError(f"expected an order, got {told}")
        return cls(kind, int(width))

    def to_json(self) -> list[Any]:
        """As plain types."""
        return [self.kind, self.width]


#: The orders that a proof tries, the most usual ones first.
ORDERS = (Order("strided", 4), Order("strided", 8), Order("strided", 16), Order("strided", 1))
#: The same, where a pixel's channels lie side by side.
ROW_ORDERS = (Order("rows", 32), Order("rows", 64))


def blocks_order(channels: int, pixels: int, threads: int) -> Order | None:
    """How torch adds where it may share a pixel among thread blocks; ``None`` where it does not.

    It is ``setReduceConfig`` of ``Reduce.cuh`` for channels that lie apart, with four pixels to a thread: thread blocks
    of 32 by 4, and as many of them to a pixel as keep the card busy, each thread with 16 channels at least.

    Args:
        channels: that are added.
        pixels: sums that are made.
        threads: that the card runs at once: its processors times the threads of one.
    """
    each = channels // _BLOCK_ROWS
    if pixels % 4 or each < 256:
        return None
    grid, room = math.ceil(pixels / 4 / 32), threads // (32 * _BLOCK_ROWS)
    if grid > room:
        return None
    blocks = max(min(math.ceil(room / grid), math.ceil(each / 16)), math.ceil(each / 256))
    return Order("blocks", _BLOCK_ROWS * blocks) if blocks > 1 else None


#: Threads of a block that share a pixel.
_BLOCK_ROWS = 4


@dataclass(frozen=True)
class Formula:
    """How a model writes its norm.

    Attributes:
        scale: what the normalised values are multiplied by.
        wide: the division is done in float32 (Diffusers); otherwise the norm is rounded before it (core).
        silu: SiLU follows.
        plus_zero: zero is added at the end, which turns -0 into 0.
        epsilon: what is divided by at least; of a ``mean``, what is added to it.
        mean: what is divided by is the root of the mean of the squares, rounded at each turn, and there are no weights
            (LTX).
        reflects: where there is room for edges around the result, they are its reflection, without the last pixel.
    """

    scale: float
    wide: bool = False
    silu: bool = True
    plus_zero: bool = True
    epsilon: float = 1e-12
    mean: bool = False
    reflects: bool = False


@dataclass(frozen=True)
class GroupFormula:
    """How a model norms groups of channels.

    Attributes:
        groups: neighbours among the channels.
        epsilon: is added to the variance.
        silu: SiLU follows.
        per_frame: each frame on its own; otherwise all frames at once.
        zeros: where there is room for edges around the result, they are zeros; otherwise they repeat it.
    """

    groups: int
    epsilon: float
    silu: bool = True
    per_frame: bool = False
    zeros: bool = False
