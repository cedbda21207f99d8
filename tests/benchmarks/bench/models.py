"""The models that can be measured without ComfyUI. Its own are in ``tests/benchmarks``, under names with ``comfyui``.

Random weights will do: the time of a decode does not depend on them. The time of an encoder does depend on the frames,
so results say how many bytes a frame took.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from async_decode.taps import VideoDecoder

from .workload import Loaders, Model

#: Wan 2.2's 5B VAE in Diffusers' words; that of Wan 2.1, and of Wan 2.2's 14B models, is the default configuration.
_WAN22: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}


def wan_frames(latents: int) -> int:
    """Pixel frames of a clip of so many latents: the first one alone, then four of each."""
    return 4 * latents - 3


def demo(device: torch.device, dtype: torch.dtype) -> Model:
    """The embedded VAE with its trained weights, on its own clip, repeated to the size."""
    from async_decode.demo import load_latent, load_vae

    vae = load_vae(device).to(dtype)
    clip = load_latent()
    return Model(
        decoder=VideoDecoder(model=vae, decode=vae.decode, device=device, dtype=dtype, frames_of=wan_frames),
        latent_channels=16,
        pixels_per_latent=8,
        latent=lambda frames, height, width: tiled(clip, frames, height, width),
    )


def diffusers_wan21(device: torch.device, dtype: torch.dtype) -> Model:
    """``AutoencoderKLWan`` as it comes: the article's model."""
    return _diffusers_wan(device, dtype, {}, channels=16, pixels=8)


def diffusers_wan22(device: torch.device, dtype: torch.dtype) -> Model:
    """``AutoencoderKLWan`` in the shape of Wan 2.2's 5B model."""
    return _diffusers_wan(device, dtype, _WAN22, channels=48, pixels=16)


#: Every model by name.
LOADERS: Loaders = {"demo": demo, "diffusers-wan2.1": diffusers_wan21, "diffusers-wan2.2": diffusers_wan22}


def tiled(clip: Tensor, frames: int, height: int, width: int) -> Tensor:
    """``clip`` ``(1, C, t, h, w)`` to and fro in time and mirrored in space, until it is of the size."""
    for axis, size in ((2, frames), (3, height), (4, width)):
        length = clip.shape[axis]
        places = torch.arange(size) % (2 * length)
        clip = clip.index_select(axis, torch.where(places < length, places, 2 * length - 1 - places))
    return clip


def _diffusers_wan(
    device: torch.device, dtype: torch.dtype, configuration: dict[str, Any], *, channels: int, pixels: int
) -> Model:
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(f'{error}; run: pip install "async-vae-decode[diffusers]"') from error
    # The class carries no types.
    wan: Any = diffusers.AutoencoderKLWan
    torch.manual_seed(0)
    # Made on the device: drawing so many numbers takes the host seconds.
    with torch.device(device):
        vae = wan(**configuration)
    vae = vae.to(dtype=dtype).eval().requires_grad_(False)

    def decode(latent: Tensor) -> Tensor:
        pixels: Tensor = vae.decode(latent).sample
        return pixels

    return Model(
        decoder=VideoDecoder(model=vae, decode=decode, device=device, dtype=dtype, frames_of=wan_frames),
        latent_channels=channels,
        pixels_per_latent=pixels,
    )
