"""What a norm computes and in which order it adds: words that blocks use, where there is no Triton too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Order:
    """In which order torch adds the squares of the channels of a pixel (``Reduce.cuh``).

    Attributes:
        kind: ``width`` threads take every ``width``-th channel, each in four sums in turn,
            ``((a0 + a1) + a2) + a3``. Then, ``strided`` (where a pixel's channels lie apart): the threads by halves;
            ``rows`` (where they lie side by side, and a warp shares them): neighbours by pairs. ``given``: torch adds,
            the kernel is handed the result.
        width: threads that share a pixel.
    """

    kind: Literal["strided", "rows", "given"]
    width: int = 0

    @classmethod
    def from_json(cls, told: list[Any]) -> Order:
        """The one that ``to_json`` told."""
        kind, width = told
        if kind not in ("strided", "rows", "given"):
            raise ValueError(f"expected an order, got {told}")
        return cls(kind, int(width))

    def to_json(self) -> list[Any]:
        """As plain types."""
        return [self.kind, self.width]


#: The orders that a proof tries, the most usual ones first.
ORDERS = (Order("strided", 4), Order("strided", 8), Order("strided", 16), Order("strided", 1))
#: The same, where a pixel's channels lie side by side.
ROW_ORDERS = (Order("rows", 32), Order("rows", 64))


@dataclass(frozen=True)
class Formula:
    """How a model writes its norm.

    Attributes:
        scale: what the normalised values are multiplied by.
        wide: the division is done in float32 (Diffusers); otherwise the norm is rounded before it (core).
        silu: SiLU follows.
        plus_zero: zero is added at the end, which turns -0 into 0.
    """

    scale: float
    wide: bool = False
    silu: bool = True
    plus_zero: bool = True
