"""A VAE with its latents, ready to be decoded: how its frames can be got at, and what it wants for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..device.conversion import DecoderOutput, Finish
from ..errors import DecodeError
from ..taps import Tap, VideoDecoder, choose_tap
from ..taps.compiled import original
from .diffusers import check_num_frames, decoder_of, is_diffusers, tap_of
from .diffusers_finish import ProcessorOutput
from .diffusers_latents import Normalized, check_numbers, latents_for
from .diffusers_timestep import at_timestep


@dataclass(frozen=True)
class Source:
    """A VAE with its latents, ready to be decoded."""

    tap: Tap
    latent: Tensor
    finish: Finish

    @property
    def device(self) -> torch.device:
        """Where it is decoded."""
        return self.tap.decoder.device


def source_of(
    vae: Any,
    latents: Any,
    *,
    normalized: Normalized = "auto",
    size: tuple[int, ...] | None = None,
    num_frames: int | None = None,
    sigma_data: float | None = None,
    decode_timestep: float | None = None,
    decode_noise_scale: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: int = 4,
    finish: Finish | Literal["diffusers"] | None = None,
) -> Source:
    """``vae`` and ``latents`` as the pipeline takes them; the arguments are those of ``async_decode.decode``.

    Raises:
        DecodeError: the VAE is none that is known, or the latents do not fit to it.
    """
    if not (finish is None or finish == "diffusers" or isinstance(finish, Finish)):
        raise DecodeError(f"finish: expected 'diffusers', a Finish or None, got {finish!r}")
    if isinstance(vae, VideoDecoder):
        if normalized is True:
            raise DecodeError("normalized: only VAEs of Diffusers tell how; undo it yourself, and say normalized=False")
        if finish == "diffusers":
            raise DecodeError("finish: 'diffusers' is for VAEs of Diffusers")
        dims = 5 if vae.is_video else 4
        if not isinstance(latents, Tensor) or latents.ndim != dims or latents.numel() == 0:
            got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            form = "(N, C, T, H, W)" if vae.is_video else "(N, C, H, W)"
            raise DecodeError(f"latents: expected a tensor {form} with something in it, got {got}")
        check_numbers(latents)
        tap = choose_tap(vae, images_per_step=chunk_size)
        return Source(tap, latents, finish if finish is not None else DecoderOutput())
    # torch.compile(vae) compiles its forward, which nobody calls here; its decode is the VAE's own.
    vae = original(vae)
    if not is_diffusers(vae):
        raise DecodeError(
            f"vae: expected a VAE of Diffusers (pipe.vae), or a VideoDecoder around any other, got {type(vae).__name__}"
        )
    if not hasattr(vae, "decode"):
        held = ", such as its .vae" if hasattr(vae, "vae") else ""
        raise DecodeError(f"vae: {type(vae).__name__} has no decode; expected a VAE{held}")
    if finish == "diffusers":
        finish = ProcessorOutput(dtype=vae.dtype)
    latent = latents_for(vae, latents, normalized=normalized, size=size, sigma_data=sigma_data)
    if num_frames is not None:
        check_num_frames(vae, latent, num_frames)
    latent = at_timestep(vae, latent, timestep=decode_timestep, noise_scale=decode_noise_scale, generator=generator)
    decoder = decoder_of(vae, num_frames=num_frames, timestep=decode_timestep)
    return Source(tap_of(decoder, latent), latent, finish if finish is not None else DecoderOutput())
