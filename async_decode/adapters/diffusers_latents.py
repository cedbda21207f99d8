"""From what a Diffusers pipeline calls latents to what ``vae.decode`` takes.

With ``output_type="latent"`` most pipelines stop before they undo the VAE's mean, standard deviation, scaling and
shift, and some hand on rows of tokens in place of pictures. What is done here is what each pipeline does next, in its
order and in its types, so that the bits are those of the pipeline. LTX-2's pipelines have done it already;
Sana's, which may have the same VAE, have not (and round otherwise).

Whether it still has to be done cannot be seen: both kinds of latents are numbers of about the same size, and the wrong
guess gives pale or garish pictures without a word. So nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import DecodeError
from .diffusers import fact_of, is_family, takes_video

#: Whether latents are a pipeline's, or what ``vae.decode`` takes; ``auto``: as far as it can be told.
Normalized = bool | Literal["auto"]

_LTX = ("AutoencoderKLLTXVideo", "AutoencoderKLLTX2Video")
_BOTH = (
    'normalized=True for what a pipeline returns with output_type="latent", normalized=False for what vae.decode takes'
)


def latents_for(
    vae: Any,
    latents: Any,
    *,
    normalized: Normalized = "auto",
    size: tuple[int, ...] | None = None,
    sigma_data: float | None = None,
) -> Tensor:
    """What ``vae.decode`` takes, made of ``latents``.

    Args:
        vae: a VAE of Diffusers.
        latents: a tensor, or what a pipeline returned with ``output_type="latent"``.
        normalized: mean, standard deviation, scaling and shift are still to be undone. ``"auto"``: they are for a
            pipeline's output, and for any latents where the VAE has none of them (or where they change nothing).
        size: frames, height and width of the video (height and width of an image) in pixels, for latents that a
            pipeline has packed into a row of tokens.
        sigma_data: of Cosmos' pipelines, ``pipe.scheduler.config.sigma_data``.

    Returns:
        ``(N, C, T, H, W)``, ``(N, C, H, W)`` for an image VAE, and ``(N * T, C, H, W)`` for SVD's.

    Raises:
        DecodeError: it cannot be told what the latents are, or they do not fit to the VAE.
    """
    from_pipeline = not isinstance(latents, Tensor)
    latent = check_numbers(_tensor(latents))
    if latent.ndim == 3 and _are_tokens(vae, latent):
        latent = _unpacked(vae, latent, size)
        from_pipeline = True
    if normalized == "auto":
        normalized = _is_normalized(vae, latents, from_pipeline=from_pipeline)
    if not isinstance(normalized, bool):
        raise DecodeError(f"normalized: expected True, False or 'auto', got {normalized!r}")
    if sigma_data is not None and not (isinstance(sigma_data, int | float) and 0 < sigma_data < math.inf):
        raise DecodeError(
            f"sigma_data: expected pipe.scheduler.config.sigma_data, a positive number, got {sigma_data!r}"
        )
    # Before anything is computed: a mean would spread over channels that are not there.
    latent = _checked(vae, _laid_out(vae, latent) if normalized else latent)
    return _denormalized(vae, latent, sigma_data) if normalized else latent


def check_numbers(latent: Tensor) -> Tensor:
    """``latent``, if it holds numbers that a VAE can compute with.

    Raises:
        DecodeError: it holds none, or other ones; the message names the remedy.
    """
    if latent.device.type == "meta":
        raise DecodeError(
            "latents: they are on the device meta, which holds no numbers; load them onto the CPU or a GPU"
        )
    if latent.layout != torch.strided:
        raise DecodeError(f"latents: expected a dense tensor, got {latent.layout}; say latents.to_dense()")
    if latent.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise DecodeError(
            f"latents: expected float32, bfloat16, float16 or float64, got {latent.dtype}; if they are latents all the "
            "same, say latents.float()"
        )
    return latent


def _tensor(latents: Any) -> Tensor:
    """The tensor in a pipeline's output."""
    for name in ("frames", "images"):
        found = getattr(latents, name, None)
        if isinstance(found, Tensor):
            return found
    # With return_dict=False; behind the video, LTX-2's has the sound.
    if isinstance(latents, tuple) and latents and isinstance(latents[0], Tensor):
        return latents[0]
    if isinstance(latents, list) and latents and all(isinstance(latent, Tensor) for latent in latents):
        raise DecodeError(
            f"latents: expected one tensor, got a list of {len(latents)}; decode each, or torch.cat() them into a batch"
        )
    if not isinstance(latents, Tensor):
        raise DecodeError(
            f"latents: expected a tensor, or what a pipeline returns with output_type='latent', got "
            f"{type(latents).__name__}"
        )
    return latents


def _is_normalized(vae: Any, latents: Any, *, from_pipeline: bool) -> bool:
    if from_pipeline and not is_family(vae, "AutoencoderKLLTX2Video"):
        return True
    if type(latents).__name__.startswith("Sana"):
        return True
    # With the sound behind it, or with that and keyframes: LTX-2's. A tuple of one, or of three, may be Sana's.
    if type(latents).__name__.startswith("LTX") or (isinstance(latents, tuple) and len(latents) in (2, 4)):
        return False
    # LTX has its mean and standard deviation beside its weights.
    moved = [vae.config.get("latents_mean"), vae.config.get("shift_factor"), vae._buffers.get("latents_mean")]
    scaled = [vae.config.get("latents_std"), vae.config.get("scaling_factor"), vae._buffers.get("latents_std")]
    if "bn" in vae._modules or any(map(_is_not(0.0), moved)) or any(map(_is_not(1.0), scaled)):
        raise DecodeError(
            f"normalized: {type(vae).__name__} has a mean, a standard deviation or a scaling factor, and latents do "
            f"not show whether it was undone; say {_BOTH}"
        )
    return False


def _is_not(value: float) -> Callable[[Any], bool]:
    """Whether a factor of a config is there and differs from ``value`` somewhere."""
    return lambda found: found is not None and bool((torch.as_tensor(found) != value).any())


def _laid_out(vae: Any, latent: Tensor) -> Tensor:
    """A pipeline's ``latent`` with its axes where ``vae.decode`` has them."""
    if not is_family(vae, "AutoencoderKLCogVideoX", "AutoencoderKLTemporalDecoder"):
        return latent
    if latent.ndim != 5:
        raise DecodeError(
            f"latents: this VAE's pipelines return (N, T, C, H, W), got {tuple(latent.shape)}; say {_BOTH}"
        )
    return latent.movedim(1, 2) if is_family(vae, "AutoencoderKLCogVideoX") else latent.flatten(0, 1)


def _denormalized(vae: Any, latent: Tensor, sigma_data: float | None) -> Tensor:
    """``latent`` after the last lines of the VAE's own pipeline."""
    config = vae.config
    scale = float(config.get("scaling_factor") or 1.0)
    if is_family(vae, "AutoencoderKLAllegro"):
        return 1 / scale * latent.to(vae.dtype)
    if is_family(vae, "AutoencoderKLCogVideoX", "AutoencoderKLTemporalDecoder", "AutoencoderKLMagvit"):
        return 1 / scale * latent
    if is_family(vae, "AutoencoderKLHunyuanVideo", "AutoencoderKLHunyuanVideo15"):
        return latent.to(vae.dtype) / scale
    if is_family(vae, *_LTX):
        mean, std = (_by_channel(values, latent) for values in (vae.latents_mean, vae.latents_std))
        return latent * std / scale + mean
    if is_family(vae, "AutoencoderKLCosmos"):
        return _cosmos(config, latent, sigma_data)
    if is_family(vae, "AutoencoderKLWan", "AutoencoderKLQwenImage"):
        latent = latent.to(vae.dtype)
        mean, std = _by_channel(config.latents_mean, latent), 1.0 / _by_channel(config.latents_std, latent)
        return (latent / std if sigma_data is None else latent / std / sigma_data) + mean
    if "bn" in vae._modules or config.get("scaling_factor") is None:
        raise DecodeError(
            f"normalized: what the pipelines of {type(vae).__name__} do to latents is not known here; do it as they "
            "do, and say normalized=False"
        )
    if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
        mean, std = (_by_channel(values, latent) for values in (config.latents_mean, config.latents_std))
        return latent * std / scale + mean
    latent = latent / scale
    shift = config.get("shift_factor")
    return latent if shift is None else latent + shift


def _cosmos(config: Any, latent: Tensor, sigma_data: float | None) -> Tensor:
    """Cosmos' mean and standard deviation are by channel and time."""
    if sigma_data is None:
        raise DecodeError(
            "sigma_data: Cosmos' pipelines divide latents by it, and the VAE does not tell it; say "
            "sigma_data=pipe.scheduler.config.sigma_data"
        )
    if config.latents_mean is None:
        return latent / sigma_data
    mean, std = (
        torch.tensor(values).view(1, config.latent_channels, -1, 1, 1)[:, :, : latent.shape[2]].to(latent)
        for values in (config.latents_mean, config.latents_std)
    )
    if mean.shape[2] < latent.shape[2]:
        raise DecodeError(
            f"latents: this VAE has a mean for {mean.shape[2]} latent frames, as many as its pipelines make, got "
            f"{latent.shape[2]}"
        )
    return latent * std / sigma_data + mean


def _by_channel(values: Any, latent: Tensor) -> Tensor:
    """``values`` in the shape, the type and the place in which they meet ``latent``."""
    return torch.as_tensor(values).view(1, -1, *[1] * (latent.ndim - 2)).to(latent.device, latent.dtype)


def _channels(vae: Any) -> int | None:
    """Channels of a latent, where the VAE tells."""
    channels: int | None = vae.config.get("latent_channels") or vae.config.get("z_dim")
    return channels


def _are_tokens(vae: Any, latent: Tensor) -> bool:
    """Whether three axes may be a row of tokens, by what a token holds."""
    channels, packed = _channels(vae), 1 if is_family(vae, *_LTX) else 4
    return channels is None or latent.shape[2] == packed * channels


def _unpacked(vae: Any, tokens: Tensor, size: tuple[int, ...] | None) -> Tensor:
    """Pictures of a row of tokens, ``(N, T * H * W, C)`` (LTX), or ``(N, H / 2 * W / 2, 4 * C)`` (Flux, Qwen-Image)."""
    if size is None:
        raise DecodeError(
            f"size: these latents are a row of {tokens.shape[1]} tokens; say size=(frames, height, width) in pixels, "
            "as the pipeline was told"
        )
    if not isinstance(size, Sequence) or len(size) not in (2, 3) or not all(isinstance(n, int) and n > 0 for n in size):
        raise DecodeError(f"size: expected (frames, height, width) or (height, width) in pixels, got {size!r}")
    *frames, height, width = size
    video = takes_video(vae)
    space = int(fact_of(vae, "spatial_compression_ratio") or 2 ** (len(vae.config.block_out_channels) - 1))
    if is_family(vae, *_LTX):
        time = int(vae.temporal_compression_ratio)
        shape = (((frames[0] if frames else 1) - 1) // time + 1, height // space, width // space)
        _fits(tokens, shape[0] * shape[1] * shape[2], size)
        pictures: Tensor = tokens.unflatten(1, shape)
        return pictures.movedim(-1, 1)
    rows, columns = height // (space * 2), width // (space * 2)
    _fits(tokens, rows * columns, size)
    patches: Tensor = tokens.view(tokens.shape[0], rows, columns, tokens.shape[2] // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    latent: Tensor = patches.reshape(tokens.shape[0], tokens.shape[2] // 4, 2 * rows, 2 * columns)
    return latent.unsqueeze(2) if video else latent


def _fits(tokens: Tensor, expected: int, size: tuple[int, ...]) -> None:
    if tokens.shape[1] != expected:
        raise DecodeError(f"size: {size} makes {expected} tokens of this VAE, but the latents are {tokens.shape[1]}")


def _checked(vae: Any, latent: Tensor) -> Tensor:
    """``latent``, if the VAE may take it."""
    video = takes_video(vae)
    form = "(N, C, T, H, W)" if video else "(N, C, H, W)"
    if latent.ndim != (5 if video else 4):
        raise DecodeError(f"latents: expected {form} for {type(vae).__name__}, got {tuple(latent.shape)}")
    if latent.numel() == 0:
        raise DecodeError(f"latents: they are empty, their shape is {tuple(latent.shape)}")
    channels = _channels(vae)
    if channels is not None and latent.shape[1] != channels:
        raise DecodeError(
            f"latents: expected {channels} channels for {type(vae).__name__}, got {latent.shape[1]} in "
            f"{tuple(latent.shape)}; take the VAE that belongs to the model that made them, and what its pipeline "
            'returns with output_type="latent"'
        )
    return latent
