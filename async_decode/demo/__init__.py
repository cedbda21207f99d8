"""The demo's own video VAE, and the clip that it was trained to show, encoded."""

from __future__ import annotations

from pathlib import Path

import torch

from .model import DemoVAE
from .weights import read_safetensors

#: The VAE's state dict, under the names that Wan 2.1's has: ComfyUI's VAELoader takes the file, too.
WEIGHTS_PATH = Path(__file__).parent / "weights.safetensors"
#: The clip, encoded; ComfyUI's LoadLatent takes the file, too.
LATENT_PATH = Path(__file__).parent / "demo.latent"


def load_vae(device: torch.device | str = "cpu") -> DemoVAE:
    """The trained VAE, in float32 and ready to decode.

    Raises:
        FileNotFoundError: the weights are not there.
        DecodeError: the file is damaged.
    """
    model = DemoVAE()
    model.load_state_dict({name: value.float() for name, value in read_safetensors(WEIGHTS_PATH).items()})
    return model.eval().requires_grad_(False).to(device)


def load_latent() -> torch.Tensor:
    """The demo's clip as the VAE has encoded it: ``(1, 16, 13, 32, 48)`` float32, 49 frames of 256 x 384 pixels.

    Raises:
        FileNotFoundError: the latent is not there.
        DecodeError: the file is damaged.
    """
    return read_safetensors(LATENT_PATH)["latent_tensor"].float()


__all__ = ["LATENT_PATH", "WEIGHTS_PATH", "DemoVAE", "load_latent", "load_vae"]
