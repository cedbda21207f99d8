"""Small random instances of Diffusers' VAEs: one for each family that a pipeline of Diffusers decodes video with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

_WAN = {"base_dim": 8, "z_dim": 4, "latents_mean": [0.1] * 4, "latents_std": [1.5] * 4}
_LTX: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8, 16, 16, 16),
    "decoder_block_out_channels": (8, 16, 16, 16),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
}


@dataclass(frozen=True)
class Family:
    """One VAE at a small size.

    Attributes:
        name: as people know it.
        make: makes the VAE.
        channels: of its latents.
        tiled: latents of a size that ``enable_tiling`` with small tiles cuts, as options of it; ``None``: it has none.
        frames: latent frames that are enough to see its steps.
        framewise: switches its framewise decoding on, where it has one.
    """

    name: str
    make: Callable[[], Any]
    channels: int
    tiled: dict[str, int] | None
    frames: int = 5
    framewise: Callable[[Any], None] | None = None

    def vae(self) -> Any:
        """The VAE, with random weights that are always the same."""
        torch.manual_seed(0)
        return self.make().eval().requires_grad_(False)

    def latent(self, clips: int = 1, size: tuple[int, int] = (4, 6)) -> Tensor:
        """What its ``decode`` takes."""
        generator = torch.Generator().manual_seed(1)
        if self.name == "Stable Video Diffusion":
            return torch.randn(clips * self.frames, self.channels, *size, generator=generator)
        if self.name in IMAGES:
            return torch.randn(clips * 3, self.channels, *size, generator=generator)
        return torch.randn(clips, self.channels, self.frames, *size, generator=generator)

    def size(self, *, tiled: bool) -> tuple[int, int]:
        """Of latents that are cut into tiles, or are not."""
        return (6, 8) if tiled and self.name != "Allegro" else (4, 6)


def expected(vae: Any, latent: Tensor, frames: int) -> Tensor:
    """``clamp((vae.decode(latent).sample + 1) / 2)`` as ``(T, H, W, C)``, clip behind clip."""
    more = {"num_frames": frames} if isinstance(vae, diffusers.AutoencoderKLTemporalDecoder) else {}
    with torch.inference_mode():
        pixels = vae.decode(latent, **more).sample
    if isinstance(vae, diffusers.AutoencoderKLAllegro):
        # (N, T, C, H, W): its pipeline turns that round.
        pixels = pixels.movedim(2, 1)
    if pixels.ndim == 5:
        pixels = pixels.movedim(1, 2).flatten(0, 1)
    return torch.clamp((pixels.float() + 1.0) / 2.0, 0, 1).movedim(1, -1)


def at_a_timestep() -> Any:
    """An LTX VAE as of 0.9.1."""
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(16, 16, 16, 16),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        upsample_factor=(1, 1, 1, 1),
        decoder_inject_noise=(False,) * 5,
        timestep_conditioning=True,
    )
    vae.latents_std.fill_(1.5)
    return vae.eval().requires_grad_(False)


def _small_windows(vae: Any) -> None:
    """Framewise decoding in windows of two latents."""
    vae.use_framewise_decoding = True
    vae.tile_sample_min_num_frames = 2 * vae.temporal_compression_ratio
    vae.tile_sample_stride_num_frames = vae.temporal_compression_ratio


def _framewise(vae: Any) -> None:
    vae.use_framewise_decoding = True


def _hunyuan() -> Any:
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    vae.use_framewise_decoding = False
    return vae


def _allegro() -> Any:
    vae = diffusers.AutoencoderKLAllegro(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=32,
    )
    # The only way it decodes at all.
    vae.enable_tiling()
    vae.kernel, vae.stride = (24, 32, 32), (16, 16, 16)
    return vae


_TILES = {
    "tile_sample_min_height": 32,
    "tile_sample_min_width": 32,
    "tile_sample_stride_height": 16,
    "tile_sample_stride_width": 16,
}
_FACTORS = {"tile_sample_min_height": 32, "tile_sample_min_width": 32}
#: Families whose VAEs decode pictures.
IMAGES = ("SD, SDXL, SD3, Flux",)

FAMILIES = [
    Family("Wan 2.1", lambda: diffusers.AutoencoderKLWan(**_WAN), 4, _TILES),
    Family(
        "Wan 2.2",
        lambda: diffusers.AutoencoderKLWan(
            **_WAN,
            decoder_base_dim=8,
            is_residual=True,
            patch_size=2,
            in_channels=12,
            out_channels=12,
            scale_factor_spatial=16,
        ),
        4,
        {name: 2 * value for name, value in _TILES.items()},
    ),
    Family(
        "Qwen-Image",
        lambda: diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=4, latents_mean=[0.1] * 4, latents_std=[1.5] * 4),
        4,
        _TILES,
    ),
    Family(
        "LTX-Video",
        lambda: diffusers.AutoencoderKLLTXVideo(**_LTX),
        8,
        {name: 4 * value for name, value in _TILES.items()},
        framewise=_small_windows,
    ),
    Family(
        "LTX-2",
        lambda: diffusers.AutoencoderKLLTX2Video(
            latent_channels=8,
            block_out_channels=(8, 16, 16, 16),
            decoder_block_out_channels=(8, 16, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        ),
        8,
        {name: 4 * value for name, value in _TILES.items()},
        framewise=_small_windows,
    ),
    Family("HunyuanVideo, Kandinsky 5", _hunyuan, 4, _TILES, framewise=_small_windows),
    Family(
        "HunyuanVideo 1.5",
        lambda: diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(16, 16, 16, 16, 16), layers_per_block=1
        ),
        4,
        {
            "tile_sample_min_height": 64,
            "tile_sample_min_width": 64,
            "tile_latent_min_height": 4,
            "tile_latent_min_width": 4,
        },
        frames=3,
    ),
    Family(
        "CogVideoX",
        lambda: diffusers.AutoencoderKLCogVideoX(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2
        ),
        4,
        _FACTORS,
    ),
    Family(
        "Mochi",
        lambda: diffusers.AutoencoderKLMochi(
            latent_channels=4,
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            latents_mean=(0.1,) * 4,
            latents_std=(1.5,) * 4,
        ),
        4,
        _TILES,
        framewise=_framewise,
    ),
    Family(
        "Cosmos",
        lambda: diffusers.AutoencoderKLCosmos(
            latent_channels=4,
            encoder_block_out_channels=(8, 8, 16, 16),
            decode_block_out_channels=(8, 8, 16, 16),
            attention_resolutions=(8,),
            resolution=64,
            num_layers=1,
            latents_mean=[0.1] * 32,
            latents_std=[1.5] * 32,
        ),
        4,
        None,
    ),
    Family("Allegro", _allegro, 4, {}, frames=6),
    Family(
        "EasyAnimate (Magvit)",
        lambda: diffusers.AutoencoderKLMagvit(
            latent_channels=4, block_out_channels=[8, 8, 8, 8], layers_per_block=1, norm_num_groups=2
        ),
        4,
        _TILES,
    ),
    Family(
        "Stable Video Diffusion",
        lambda: diffusers.AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 32), layers_per_block=1
        ),
        4,
        None,
    ),
    Family(
        "SD, SDXL, SD3, Flux",
        lambda: diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=2,
            sample_size=4,
        ),
        4,
        {},
    ),
]
