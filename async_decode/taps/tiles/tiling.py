"""Overlapping tiles of a latent, decoded one by one and blended: ComfyUI's arithmetic, handed on as it becomes final.

The weights, the positions and the order of the sums are those of ``comfy.utils.tiled_scale_multidim``, so that the
pixels are its pixels. It sums into a tensor for the whole result; here the sums of a stretch leave, divided by their
weights, as soon as no later tile can reach them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Pixels for latents along one axis: a factor, or a function of the number of latents.
Growth = float | Callable[[int], float]


@dataclass(frozen=True)
class Scale:
    """How latents become pixels along each axis that is tiled, for video ``(T, H, W)``, for images ``(H, W)``.

    Attributes:
        size: how many pixels a number of latents gives.
        place: at which pixel the latent of this index begins, for a tile that begins with it.
    """

    size: tuple[Growth, ...]
    place: tuple[Growth, ...]

    def size_of(self, axis: int, latents: int) -> int:
        """Pixels that ``latents`` give along ``axis``."""
        return round(_pixels_of(self.size[axis], latents))

    def place_of(self, axis: int, latent: int) -> int:
        """The first pixel of a tile that begins at ``latent``."""
        return round(_pixels_of(self.place[axis], latent))


@dataclass(frozen=True)
class Tiling:
    """Which tiles and windows, in latents.

    Attributes:
        tile: height and width of a tile. Default: ``None``, the whole frame.
        overlap: rows or columns that two neighbours share, less than half of ``tile``. Default: ``0``.
        window: latent frames decoded at a time. Default: ``None``, the whole clip.
        window_overlap: latent frames that two windows share, at least 1 and at most half of ``window``. Default: ``1``.

    Raises:
        ValueError: the numbers leave tiles or windows no way forward.
    """

    tile: int | None = None
    overlap: int = 0
    window: int | None = None
    window_overlap: int = 1

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise ValueError(f"tile must be at least 1 latent, got {self.tile = }")
        if self.tile is not None and not 0 <= self.overlap < max(1, self.tile // 2):
            raise ValueError(
                f"overlap must be from 0 to less than half of tile, got {self.overlap = } and {self.tile = }"
            )
        if self.window is not None and not 1 <= self.window_overlap <= self.window // 2:
            raise ValueError(
                "window_overlap must be from 1 to half of window, got "
                f"{self.window_overlap = } and {self.window = } latent frames"
            )

    def covers(self, latent: Tensor) -> bool:
        """Whether one tile holds a whole clip or image of ``latent``, so that there is nothing to blend."""
        fits = self.tile is None or max(latent.shape[-2:]) <= self.tile
        return fits and (latent.ndim == 4 or self.window is None or latent.shape[2] <= self.window)

    def __str__(self) -> str:
        parts = []
        if self.window is not None:
            parts.append(f"windows of {self.window} latent frames, {self.window_overlap} shared")
        if self.tile is not None:
            parts.append(f"tiles of {self.tile}x{self.tile} latents, {self.overlap} shared")
        return "; ".join(parts)


def blend_tiles(
    latent: Tensor,
    decode: Callable[[Tensor], Tensor],
    *,
    tile: Sequence[int],
    overlap: Sequence[int],
    scale: Scale,
    device: torch.device,
    skip: int = 0,
) -> Iterator[Tensor]:
    """Decode ``latent`` tile by tile; yield the blended result in stretches along its first tiled axis.

    Args:
        latent: ``(1, C, …)``, the axes after the second are tiled.
        decode: decodes one tile, ``(1, C, …)``.
        tile: latents that a tile spans along each axis.
        overlap: latents that neighbours share along each axis.
        scale: from latents to pixels.
        device: where the sums are kept: those of the tiles that share a place along the first axis.
        skip: pixels along the first axis that nobody wants; tiles that only they depend on are not decoded. Default 0.

    Yields:
        float32 on ``device``, ``(1, C, …)``, in order and without gaps from ``skip`` on; valid until the next one is
        asked for.
    """
    sizes = latent.shape[2:]
    if all(size <= most for size, most in zip(sizes, tile, strict=True)):
        yield decode(latent).to(device=device, dtype=torch.float32)[:, :, skip:]
        return
    feathers = [scale.size_of(axis, shared) for axis, shared in enumerate(overlap)]
    tiles = [spans(*numbers) for numbers in zip(sizes, tile, overlap, strict=True)]
    sums = Sums([scale.size_of(axis, size) for axis, size in enumerate(sizes)], device)
    starts = [scale.place_of(0, first) for first, _ in tiles[0]] + [sums.size[0]]
    ends = [start + scale.size_of(0, length) for start, (_, length) in zip(starts, tiles[0], strict=False)]
    for index, span in enumerate(tiles[0]):
        # One more than seems needed, because some decoders make more pixels than they announce.
        if index + 1 < len(ends) and max(ends[index : index + 2]) <= skip:
            sums.begin_at(starts[index + 1])
            continue
        for others in itertools.product(*tiles[1:]):
            part = latent
            for axis, (first, length) in enumerate((span, *others)):
                part = part.narrow(axis + 2, first, length)
            corner = [starts[index], *(scale.place_of(axis + 1, first) for axis, (first, _) in enumerate(others))]
            sums.add(decode(part).to(device=device, dtype=torch.float32), corner, feathers)
        yield from sums.take(starts[index + 1], skip)


def leaves_holes(latents: int, tile: int, overlap: int, scale: Scale) -> bool:
    """Whether some pixels along the first axis would be in no tile.

    Of a decoder whose pixels do not grow evenly with the latents, not every tile begins where the one before ends.
    """
    reached = 0
    for first, length in spans(latents, tile, overlap):
        start = scale.place_of(0, first)
        if start > reached:
            return True
        reached = start + scale.size_of(0, length)
    return reached < scale.size_of(0, latents)


class Sums:
    """Weighted sums of tiles, and their weights, from the first pixel on that is not final."""

    def __init__(self, size: Sequence[int], device: torch.device) -> None:
        self.size = size
        self._device = device
        self._first = 0
        self._pixels: Tensor | None = None
        self._weights: Tensor | None = None

    def begin_at(self, first: int) -> None:
        """Leave out what lies before ``first``."""
        self._first = max(self._first, first)

    def add(self, tile: Tensor, corner: Sequence[int], feathers: Sequence[int]) -> None:
        """Add a tile whose first pixel is at ``corner``; what reaches beyond the result is cut off."""
        weights = _feather_weights(tile.shape[2:], feathers, self._device)
        for axis, (first, size) in enumerate(zip(corner, self.size, strict=True)):
            length = max(0, min(tile.shape[axis + 2], size - first))
            tile, weights = tile.narrow(axis + 2, 0, length), weights.narrow(axis + 2, 0, length)
        pixels, weight_sums = self._up_to(corner[0] + tile.shape[2], tile.shape[1])
        for axis, first in enumerate((corner[0] - self._first, *corner[1:])):
            pixels = pixels.narrow(axis + 2, first, tile.shape[axis + 2])
            weight_sums = weight_sums.narrow(axis + 2, first, tile.shape[axis + 2])
        pixels.add_(tile * weights)
        weight_sums.add_(weights)

    def take(self, end: int, skip: int) -> Iterator[Tensor]:
        """Yield the pixels from ``skip`` up to ``end`` that are still here, and keep those behind."""
        if self._pixels is None or self._weights is None or end <= self._first:
            return
        count = end - self._first
        pixels, weights = self._pixels[:, :, :count], self._weights[:, :, :count]
        self._pixels, self._weights = self._pixels[:, :, count:].clone(), self._weights[:, :, count:].clone()
        unwanted = max(0, skip - self._first)
        self._first = end
        if unwanted < pixels.shape[2]:
            yield pixels.div_(weights)[:, :, unwanted:]

    def _up_to(self, end: int, channels: int) -> tuple[Tensor, Tensor]:
        """Sums and weights that reach to ``end`` along the first axis."""
        missing = end - self._first
        if self._pixels is not None:
            missing -= self._pixels.shape[2]
        if missing > 0 or self._pixels is None:
            self._pixels = self._longer(self._pixels, channels, missing)
            self._weights = self._longer(self._weights, 1, missing)
        assert self._weights is not None
        return self._pixels, self._weights

    def _longer(self, tensor: Tensor | None, channels: int, missing: int) -> Tensor:
        zeros = torch.zeros((1, channels, missing, *self.size[1:]), dtype=torch.float32, device=self._device)
        return zeros if tensor is None else torch.cat([tensor, zeros], 2)


def spans(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Start and length of the tiles along one axis."""
    if size <= tile:
        return [(0, size)]
    firsts = (min(size - overlap, first) for first in range(0, size - overlap, tile - overlap))
    return [(first, min(tile, size - first)) for first in firsts]


def _feather_weights(size: Sequence[int], feathers: Sequence[int], device: torch.device) -> Tensor:
    """Weights ``(1, 1, …)`` of a tile that rise from its edges inwards.

    Where a tile is shorter than two feathers, the two factors of a place are multiplied in ComfyUI's order, for the
    sake of the last bit.
    """
    weights = torch.ones((1, 1, *size), dtype=torch.float32, device=device)
    for axis, (length, feather) in enumerate(zip(size, feathers, strict=True)):
        if feather >= length:
            continue
        factors = [[1.0, 1.0] for _ in range(length)]
        for step in range(feather):
            for place in (step, length - 1 - step):
                factors[place][0 if factors[place][0] == 1.0 else 1] = (step + 1) / feather
        shape = [1] * (axis + 2) + [length] + [1] * (len(size) - axis - 1)
        for which in (0, 1):
            weights.mul_(torch.tensor([pair[which] for pair in factors], dtype=torch.float32).view(shape).to(device))
    return weights


def _pixels_of(growth: Growth, latents: int) -> float:
    return growth(latents) if callable(growth) else growth * latents
