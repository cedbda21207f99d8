"""Async Demo Clip: a small VAE and a clip that it decodes, out of the pack itself, to try the other nodes with."""

from __future__ import annotations

import comfy.sd
from comfy_api.v0_0_2 import io

from ..async_decode import DecodeError
from ..async_decode.demo import WEIGHTS_PATH, load_latent
from ..async_decode.demo.weights import read_safetensors
from . import inputs


class AsyncDemoClip(io.ComfyNode):
    """Takes the place of Load Latent and Load VAE in the first example."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inputs.schema(
            node_id="AsyncDemoClip",
            display_name="Async Demo Clip",
            description="A clip of 49 frames of 384 x 256 pixels as a latent, and the small VAE that it was made for. "
            "Both come with this pack: nothing is downloaded or copied.",
            inputs=[],
            outputs=[
                io.Latent.Output(display_name="samples", tooltip="The clip, encoded."),
                io.Vae.Output(display_name="vae", tooltip="The VAE, of Wan 2.1's kind and a fraction of its width."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput({"samples": load_latent()}, _vae())


def _vae() -> comfy.sd.VAE:
    """The demo's VAE, as Load VAE makes one of its file.

    Raises:
        DecodeError: this core builds VAEs of Wan 2.1's kind in one width only.
    """
    try:
        return comfy.sd.VAE(sd=read_safetensors(WEIGHTS_PATH))
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise DecodeError(
            "this ComfyUI builds VAEs of Wan 2.1's kind in their full width only, and the demo's is narrow; update "
            "ComfyUI to 0.33 or newer, or try the nodes with a latent and a VAE of your own"
        ) from None
