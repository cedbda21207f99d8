"""What a VAE's own estimate of its memory decides: whether VAE Decode begins with tiles, and how large those are.

Newer cores ask two things of a model: whether its estimate is reliable, so that a decode that cannot fit is not tried,
and which tile would fit into what is free. Both are their protocol, and the numbers are those of their VAE Decode.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy import model_management

from ..async_decode.taps import Tiling
from . import vae as vae_side

#: Side of a tile in pixels with which ComfyUI's fallback decodes videos, at least; for images in latents, and overlap.
FALLBACK_TILE, FALLBACK_IMAGE_TILE, FALLBACK_IMAGE_OVERLAP = 256, 64, 16
#: Share of the device's memory that tiles of ComfyUI's fallback may be estimated to need.
SHARE_OF_DEVICE = 0.8


def tiles_at_once(vae: Any, latent: torch.Tensor) -> Tiling | None:
    """The tiles with which VAE Decode begins to decode ``latent``; ``None``: it tries without.

    Where that is to be found out, the VAE is loaded.
    """
    if not getattr(vae.first_stage_model, "comfy_decode_estimate_is_reliable", False):
        return None
    needed = vae.memory_used_decode(latent.shape, vae.vae_dtype)
    with vae_side.device_context(vae.device):
        vae_side.load_for(vae, latent.shape, int(needed))
        if needed <= vae_side.free_memory(vae):
            return None
        model_management.soft_empty_cache()
        return _stock_tiling(vae, latent, needed)


def preferred_tile(vae: Any) -> int:
    """Side of the tiles, in latents, with which ComfyUI's fallback decodes videos."""
    tile = max(2, FALLBACK_TILE // int(vae.spacial_compression_decode()))
    prefers = getattr(vae.first_stage_model, "preferred_decode_tile", None)
    return tile if prefers is None else max(tile, int(prefers(vae_side.free_memory(vae), vae.vae_dtype)))


def _stock_tiling(vae: Any, latent: torch.Tensor, needed: float) -> Tiling:
    owned = getattr(vae, "handles_tiling", False)
    if not vae_side.is_video(vae):
        tile = max(2, FALLBACK_TILE // int(vae.spacial_compression_decode()))
        return Tiling(tile, tile // 4) if owned else Tiling(FALLBACK_IMAGE_TILE, FALLBACK_IMAGE_OVERLAP)
    tile = preferred_tile(vae)
    if owned:
        return Tiling(tile, tile // 4)
    # First the windows become shorter until one tile fits, then the tiles larger while they fit.
    budget = min(needed, int(SHARE_OF_DEVICE * model_management.get_total_memory(vae.device)))
    *first, window, height, width = latent.shape

    def fits(frames: int, side: int) -> bool:
        shape = torch.Size((*first, frames, min(height, side), min(width, side)))
        return bool(vae.memory_used_decode(shape, vae.vae_dtype) <= budget)

    while window > 2 and not fits(window, tile):
        window = -(-window // 2)
    while tile * 2 <= max(height, width) and fits(window, tile * 2):
        tile *= 2
    return Tiling(tile, tile // 4, window if 1 < window < latent.shape[2] else None)
