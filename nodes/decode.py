"""Async VAE Decode: stock's IMAGE, copied to the host while the next frames are decoded."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from . import execute, inputs
from .tiling import check_sizes, tiling_inputs, tiling_of
from .vae import check_vae, latent_of


class AsyncVAEDecode(io.ComfyNode):
    """Takes the place of VAE Decode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inputs.schema(
            node_id="AsyncVAEDecode",
            display_name="Async VAE Decode",
            description="Decodes a latent as VAE Decode does, frame for frame the same, while finished frames are "
            "already on their way to system memory: no second copy of the clip on the GPU.",
            inputs=[
                *inputs.decode_inputs(),
                *inputs.decode_ring_inputs(),
                *inputs.advanced([*tiling_inputs(), inputs.decoder_input()]),
            ],
            outputs=[io.Image.Output(tooltip="The decoded frames, those of VAE Decode bit for bit.")],
        )

    @classmethod
    def validate_inputs(cls, tile_size: int | None = None, temporal_size: int | None = None) -> bool:
        check_sizes(**inputs.known(cls, tile_size=tile_size, temporal_size=temporal_size))
        return True

    @classmethod
    @inputs.checked
    async def execute(
        cls,
        samples: Any,
        vae: Any,
        chunk_size: int,
        buffer_depth: int,
        tile_size: int = 0,
        overlap: int = 64,
        temporal_size: int = 0,
        temporal_overlap: int = 8,
        decoder: str = "auto",
    ) -> io.NodeOutput:
        check_vae(vae)
        result = await execute.decode(
            vae,
            latent_of(samples, vae),
            [],
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            output_images=True,
            tiling=tiling_of(vae, tile_size, overlap, temporal_size, temporal_overlap),
            decoder=decoder,
        )
        return io.NodeOutput(result.images, ui=result.ui)
