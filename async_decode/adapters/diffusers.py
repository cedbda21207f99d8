"""VAEs of Diffusers as the engine sees them: what each one tells of itself, and which tap gives its ``decode``'s bits.

The reference is always ``vae.decode(z).sample`` for the whole ``z``, with whatever the caller has switched on:
tiling, slicing, framewise decoding, offloading. Diffusers itself is not imported here. What a pipeline has done to its
latents is undone next door, in ``diffusers_latents.py``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import DecodeError
from ..taps import ImageBatches, Tap, VideoDecoder, choose_tap
from .diffusers_taps import HookedPieces, Joined, Together, WindowsInTime


def is_diffusers(vae: object) -> bool:
    """Whether ``vae`` is a model of Diffusers, or of a class derived from one."""
    return any(base.__module__.partition(".")[0] == "diffusers" for base in type(vae).__mro__)


def is_family(vae: object, *names: str) -> bool:
    """Whether ``vae`` is of one of Diffusers' classes with these names, or of a class derived from one."""
    return any(base.__name__ in names for base in type(vae).__mro__)


def fact_of(vae: Any, name: str) -> Any:
    """What ``vae`` says of itself under ``name``, as an attribute or in its config; ``None`` where it says nothing."""
    return vars(vae).get(name, vae.config.get(name))


def takes_video(vae: Any) -> bool:
    """Whether ``vae.decode`` takes latents with a time axis, ``(N, C, T, H, W)``; SVD's takes time as its batch."""
    if _wants_num_frames(vae):
        return False
    # MiniMax H3's decoder has no convolutions.
    parts = (vae,) if is_family(vae, "AutoencoderKLMiniMaxH3") else (_decoder(vae),)
    return any(isinstance(module, torch.nn.Conv3d) for part in parts for module in part.modules())


def device_of(vae: Any) -> torch.device:
    """Where ``vae`` decodes: the hook's device where it is offloaded, which its weights are not on meanwhile."""
    group = getattr(sys.modules.get("diffusers.hooks.group_offloading"), "_get_group_onload_device", None)
    if group is not None:
        try:
            return torch.device(group(vae))
        except ValueError:
            # It is not offloaded in groups.
            pass
    for module in vae.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device(vae.device)


def frames_of(vae: Any) -> Callable[[int], int] | None:
    """How many frames ``vae`` makes of so many latent frames; ``None`` where it does not tell."""
    ratio = _time_ratio(vae)
    if ratio is None:
        return None
    if is_family(vae, "AutoencoderKLAllegro") or not getattr(vae, "drop_last_temporal_frames", True):
        return lambda latents: ratio * latents
    if is_family(vae, "AutoencoderKLCogVideoX"):
        # Its first frame stands alone only where the first step has an odd number of latents.
        return lambda latents: ratio * latents if latents % 2 == 0 else ratio * (latents - 1) + 1
    return lambda latents: ratio * (latents - 1) + 1


def check_num_frames(vae: Any, latent: Tensor, num_frames: int) -> None:
    """See whether ``num_frames`` makes sense for this VAE and this latent.

    Raises:
        DecodeError: it does not.
    """
    if not _wants_num_frames(vae):
        raise DecodeError(
            f"num_frames: {type(vae).__name__} decodes all frames of its latents; leave it out (it is for the VAE of "
            "Stable Video Diffusion, whose clips follow each other in one batch)"
        )
    if not isinstance(num_frames, int) or num_frames < 1 or latent.shape[0] % num_frames:
        raise DecodeError(f"num_frames: expected a divisor of {latent.shape[0]} latents, got {num_frames!r}")


def decoder_of(vae: Any, *, num_frames: int | None = None, timestep: float | None = None) -> VideoDecoder:
    """``vae`` as the taps take it.

    Args:
        vae: the VAE.
        num_frames: frames of one clip in the batch, of SVD's; ``None``: all of it is one clip.
        timestep: at which it decodes; ``None``: it takes none.
    """
    video = takes_video(vae)

    def decode(latent: Tensor) -> Tensor:
        more: dict[str, Any] = {"num_frames": num_frames or latent.shape[0]} if _wants_num_frames(vae) else {}
        if timestep is not None:
            more["temb"] = torch.full(latent.shape[:1], timestep, device=latent.device, dtype=latent.dtype)
        with _without_past(vae):
            output = vae.decode(latent, **more)
        # VidTok's returns them as they are.
        pixels: Tensor = output if isinstance(output, Tensor) else output.sample
        # Allegro's gives (N, T, C, H, W), and its pipeline turns that round.
        return pixels.movedim(2, 1) if is_family(vae, "AutoencoderKLAllegro") else pixels

    return VideoDecoder(
        model=vae,
        decode=decode,
        device=device_of(vae),
        dtype=vae.dtype,
        frames_of=frames_of(vae) if video else None,
        is_video=video,
    )


@contextmanager
def _without_past(vae: Any) -> Iterator[None]:
    """Nothing of another clip is in ``vae``'s convolutions, however a decode ends.

    Magvit's keep the last frames that they saw until its ``decode`` returns. After one that was ended half-way the next
    clip would go on where that one stopped.
    """
    forget: Callable[[], None] = getattr(vae, "_clear_conv_cache", lambda: None)
    forget()
    try:
        yield
    finally:
        forget()


def tap_of(decoder: VideoDecoder, latent: Tensor) -> Tap:
    """The tap that gives ``vae.decode``'s bits for this latent: in pieces where it can be, else whole.

    Args:
        decoder: as ``decoder_of`` returns it.
        latent: what is going to be decoded.
    """
    vae: Any = decoder.model
    sliced = bool(getattr(vae, "use_slicing", False)) or latent.shape[0] == 1
    if not decoder.is_video:
        if _wants_num_frames(vae):
            return Together(decoder, detail="this VAE decodes the frames of a clip together")
        if sliced:
            return ImageBatches(decoder, images_per_step=1)
        return Together(decoder, detail="a batch of images in one call, as vae.decode; vae.enable_slicing() bounds it")
    if not sliced:
        return Together(
            decoder, detail=f"{latent.shape[0]} clips in one call, as vae.decode; vae.enable_slicing() bounds it"
        )
    if is_family(vae, "AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video", "AutoencoderKLHunyuanVideo"):
        ratio = int(vae.temporal_compression_ratio)
        if vae.use_framewise_decoding and latent.shape[2] > vae.tile_sample_min_num_frames // ratio:
            drops = "first" if is_family(vae, "AutoencoderKLHunyuanVideo") else "last"
            return HookedPieces(
                decoder,
                module=vae.decoder,
                method="tiled_decode",
                recipe=lambda clip, submit: WindowsInTime(vae, clip, submit, drops=drops),
                detail="the VAE's own windows of framewise decoding",
            )
        return Together(decoder, detail=_in_one_go(vae))
    if _in_tiles(vae, latent):
        return Together(decoder, detail="the VAE's own tiles, each of which spans the clip")
    skipped = _steps(vae)
    if skipped is not None:
        return HookedPieces(
            decoder,
            module=vae.decoder,
            recipe=lambda clip, submit: Joined(submit, skip=skipped),
            detail="steps of the VAE's own loop",
        )
    if is_family(vae, "AutoencoderKLMochi"):
        return Together(decoder, detail=_in_one_go(vae))
    return choose_tap(decoder)


def _in_one_go(vae: Any) -> str:
    name = type(vae).__name__
    if hasattr(vae, "use_framewise_decoding"):
        return f"{name} makes its frames in one go; use_framewise_decoding decodes a clip in parts"
    return f"{name} makes its frames in one go"


def _steps(vae: Any) -> int | None:
    """Frames that are left out at the front where ``vae.decode`` calls its decoder step by step, else ``None``."""
    if is_family(vae, "AutoencoderKLCogVideoX", "AutoencoderKLMagvit"):
        return 0
    if is_family(vae, "AutoencoderKLMochi") and vae.use_framewise_decoding:
        return int(vae.temporal_compression_ratio) - 1 if vae.drop_last_temporal_frames else 0
    return None


def _in_tiles(vae: Any, latent: Tensor) -> bool:
    """Whether ``vae.decode`` will cut the frames of this latent into tiles."""
    if not getattr(vae, "use_tiling", False):
        return False
    height, width = (_least_tile(vae, side) for side in ("height", "width"))
    return height is None or width is None or latent.shape[-2] > height or latent.shape[-1] > width


def _least_tile(vae: Any, side: str) -> int | None:
    """Latents along ``side`` that are still decoded without tiles; ``None`` where the VAE does not tell."""
    latents = fact_of(vae, f"tile_latent_min_{side}")
    if latents is not None:
        return int(latents)
    pixels, ratio = fact_of(vae, f"tile_sample_min_{side}"), fact_of(vae, "spatial_compression_ratio")
    return None if pixels is None or not ratio else int(pixels) // int(ratio)


def _time_ratio(vae: Any) -> int | None:
    """Frames of a latent frame, behind the first."""
    for name in ("temporal_compression_ratio", "scale_factor_temporal"):
        ratio = fact_of(vae, name)
        if ratio is not None:
            return int(ratio)
    halved = fact_of(vae, "temperal_downsample")
    return None if halved is None else 2 ** sum(map(bool, halved))


def _wants_num_frames(vae: Any) -> bool:
    return "num_frames" in inspect.signature(vae.decode).parameters


def _decoder(vae: Any) -> torch.nn.Module:
    part = getattr(vae, "decoder", vae)
    return part if isinstance(part, torch.nn.Module) else vae
