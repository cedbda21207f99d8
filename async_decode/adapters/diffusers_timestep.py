"""VAEs that decode at a timestep (``timestep_conditioning``: LTX-Video since 0.9.1): their noise, as pipelines mix it.

A pipeline draws it right after it has made its latents. With the generator that it was given, which has come as far,
it is the pipeline's noise, and the bits are the pipeline's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import DecodeError
from .diffusers import fact_of


def at_timestep(
    vae: Any,
    latent: Tensor,
    *,
    timestep: float | None,
    noise_scale: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """``latent`` with the noise that belongs to ``timestep``; as it is, for a VAE that takes none.

    Args:
        vae: a VAE of Diffusers.
        latent: what its ``decode`` takes, but for the noise.
        timestep: ``decode_timestep`` of the VAE's pipelines.
        noise_scale: their ``decode_noise_scale``: ``None``, as they do it, the timestep.
        generator: of the noise; ``None``: torch's own.

    Raises:
        DecodeError: the VAE wants a timestep and there is none, or the other way round.
    """
    check_timestep(vae, timestep=timestep, noise_scale=noise_scale, generator=generator)
    if timestep is None:
        return latent
    latent = latent.to(vae.dtype)
    drawn_on = latent.device if generator is None else generator.device
    noise = torch.randn(latent.shape, generator=generator, device=drawn_on, dtype=latent.dtype).to(latent.device)
    scale = torch.tensor(timestep if noise_scale is None else noise_scale, device=latent.device, dtype=latent.dtype)
    return (1 - scale) * latent + scale * noise


def check_timestep(
    vae: Any, *, timestep: float | None, noise_scale: float | None, generator: torch.Generator | None = None
) -> None:
    """See whether ``vae`` decodes at a timestep when there is one, and only then.

    Raises:
        DecodeError: it wants one and there is none, or the other way round; or one of them is no number.
    """
    name = type(vae).__name__
    if generator is not None and not isinstance(generator, torch.Generator):
        raise DecodeError(f"generator: expected one torch.Generator, got {type(generator).__name__}; decode each clip")
    if not fact_of(vae, "timestep_conditioning"):
        given = {"decode_timestep": timestep, "decode_noise_scale": noise_scale, "generator": generator}
        for option, value in given.items():
            if value is not None:
                raise DecodeError(f"{option}: this {name} decodes without a timestep; leave it out, got {value!r}")
        return
    if timestep is None:
        raise DecodeError(
            f"decode_timestep: this {name} decodes at a timestep, with noise in its latents; say decode_timestep and "
            "decode_noise_scale as the pipeline was told (its own default is decode_timestep=0.0)"
        )
    for option, value in (("decode_timestep", timestep), ("decode_noise_scale", noise_scale)):
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise DecodeError(f"{option}: expected a number, got {value!r}")
