"""A VAE of ComfyUI for ``python -m async_decode decode --comfyui``: core's own class and loader, without a server.

``async_decode/cluster/comfyui.py`` loads this file by its path. By then nothing of ComfyUI has been imported, and its
folder is not on Python's path; both are done here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..async_decode import DecodeError, choose_tap
from ..async_decode.adapters.source import Source


def load_vae(root: Path, file: Path, device: torch.device, *, chunk_size: int) -> LoadedVAE:
    """The VAE in ``file``.

    Args:
        root: ComfyUI's folder.
        file: the VAE's weights.
        device: where it decodes.
        chunk_size: images that an image VAE decodes at a time.

    Raises:
        DecodeError: this Python cannot run ComfyUI, or the VAE does not decode to pictures.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        import comfy.options

        comfy.options.enable_args_parsing(False)
        import comfy.cli_args

        comfy.cli_args.args.cpu = device.type == "cpu"
        import comfy.sd
        import comfy.utils
    except ImportError as error:
        raise DecodeError(
            f"comfyui: {error}; run this with the Python that ComfyUI runs with ({root} has to be its folder)"
        ) from error
    from . import vae as vae_side

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(file)))
    vae_side.check_vae(vae)
    if device.type == "cuda":
        vae.device = device
        vae.patcher.load_device = device
    return LoadedVAE(vae, vae_side, chunk_size)


class LoadedVAE:
    """As ``async_decode.cluster`` takes a VAE: it decodes one latent after the other.

    Args:
        vae: ComfyUI's.
        vae_side: ``vae.py``, which could be imported only when ComfyUI could.
        chunk_size: images that an image VAE decodes at a time.
    """

    def __init__(self, vae: Any, vae_side: ModuleType, chunk_size: int) -> None:
        self.device: torch.device = vae.device
        self._vae = vae
        self._vae_side = vae_side
        self._chunk_size = chunk_size

    def source(self, file: Any) -> Source:
        """The VAE with the latent of ``file``, a ``LatentFile``, ready to be decoded."""
        side = self._vae_side
        latent = side.latent_of({"samples": file.latent}, self._vae)
        tap = choose_tap(side.decoder_of(self._vae), images_per_step=self._chunk_size)
        side.load(self._vae, tap, latent, ring_bytes=0)
        return Source(tap, latent, side.output_of(self._vae))
