"""Clips to latents: what made the demo's latent, and what nobody who decodes it needs."""

from __future__ import annotations

import torch
from torch import Tensor

from async_decode.demo.model import DemoVAE, new_cache

#: Pixels per latent, along each side.
SPACE = 8
#: Frames per latent, after the first.
TIME = 4


def encode(vae: DemoVAE, clip: Tensor) -> Tensor:
    """The latent of ``clip``, four frames at a time.

    Args:
        vae: the demo's VAE.
        clip: ``(N, 3, T, H, W)`` in [-1, 1]; the sides are multiples of 8. Of ``T`` frames the first ``4n - 3`` are
            encoded, for the largest such number, as Wan's encoder does.

    Returns:
        The means of the latents, ``(N, 16, n, H / 8, W / 8)``.

    Raises:
        ValueError: the clip has another shape.
    """
    if clip.dim() != 5 or clip.shape[1] != 3 or clip.shape[2] == 0 or clip.shape[3] % SPACE or clip.shape[4] % SPACE:
        raise ValueError(f"expected a clip (N, 3, T, H, W) with sides that are multiples of 8, got {clip.shape = }")
    cache = new_cache(vae.encoder)
    whole = clip[:, :, : 1 + (clip.shape[2] - 1) // TIME * TIME]
    steps = [whole[:, :, :1], *(whole[:, :, 1:].split(TIME, 2) if whole.shape[2] > 1 else ())]
    pieces = [vae.encoder(step, feat_cache=cache, feat_idx=[0]) for step in steps]
    mean: Tensor = vae.conv1(torch.cat(pieces, 2)).chunk(2, 1)[0]
    return mean
