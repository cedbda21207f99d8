"""Tiled decoding as ComfyUI's ``tiled_scale_multidim`` defines it: sums for the whole result, divided at the end.

Written for plainness from that function, to compare the streaming version with where there is no ComfyUI.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def tiled(
    latent: Tensor,
    decode: Callable[[Tensor], Tensor],
    tile: Sequence[int],
    overlap: Sequence[int],
    size: Sequence[Callable[[int], int]],
    place: Sequence[Callable[[int], int]],
) -> Tensor:
    """``latent`` ``(N, C, …)`` decoded tile by tile, one entry of the batch after the other: ``(N, C, …)``."""
    results = []
    for sample in latent.split(1):
        lengths = sample.shape[2:]
        axes = range(len(lengths))
        if all(lengths[axis] <= tile[axis] for axis in axes):
            results.append(decode(sample))
            continue
        full = [size[axis](lengths[axis]) for axis in axes]
        sums, weights = torch.zeros(1, 3, *full), torch.zeros(1, 1, *full)
        starts = [
            range(0, lengths[axis] - overlap[axis], tile[axis] - overlap[axis]) if lengths[axis] > tile[axis] else [0]
            for axis in axes
        ]
        for corner in itertools.product(*starts):
            source = [slice(None), slice(None)]
            for axis in axes:
                first = max(0, min(lengths[axis] - overlap[axis], corner[axis]))
                source.append(slice(first, first + min(tile[axis], lengths[axis] - first)))
            pixels = decode(sample[tuple(source)])
            mask = torch.ones(1, 1, *pixels.shape[2:])
            for axis in axes:
                feather = size[axis](overlap[axis])
                if feather >= mask.shape[axis + 2]:
                    continue
                for step in range(feather):
                    mask.narrow(axis + 2, step, 1).mul_((step + 1) / feather)
                    mask.narrow(axis + 2, mask.shape[axis + 2] - 1 - step, 1).mul_((step + 1) / feather)
            target, kept = [slice(None), slice(None)], [slice(None), slice(None)]
            for axis in axes:
                first = place[axis](source[axis + 2].start)
                count = min(pixels.shape[axis + 2], full[axis] - first)
                target.append(slice(first, first + count))
                kept.append(slice(0, count))
            sums[tuple(target)] += pixels[tuple(kept)] * mask[tuple(kept)]
            weights[tuple(target)] += mask[tuple(kept)]
        results.append(sums / weights)
    return torch.cat(results)
