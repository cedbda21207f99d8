"""Async VAE Decode & Save Frames: every frame becomes an image file while the next ones are decoded."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io, ui

from ..async_decode.sinks import ImageFilesSink, PngEncoder
from . import running, saving
from .tiling import tiling_inputs, tiling_of
from .vae import check_vae, frame_size, latent_of


class AsyncVAEDecodeSaveFrames(io.ComfyNode):
    """Takes the place of VAE Decode followed by Save Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return running.schema(
            node_id="AsyncVAEDecodeSaveFrames",
            display_name="Async VAE Decode & Save Frames",
            description="Decodes a latent and saves every frame as an image, as Save Image does, while the next "
            "frames are decoded. Memory does not grow with the clip.",
            inputs=[
                *running.decode_inputs(),
                saving.filename_prefix_input("ComfyUI"),
                io.Combo.Input("format", options=["png"], default="png", tooltip="PNG: 8 bits a channel, lossless."),
                io.Int.Input(
                    "compression",
                    default=4,
                    min=0,
                    max=9,
                    tooltip="PNG compression level: 0 is fastest and largest, 9 slowest and smallest, 4 is what Save "
                    "Image uses. 1 is about 2.5 times as fast as 4, with files about a fifth larger.",
                ),
                io.Int.Input(
                    "writers",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Threads that compress and write images side by side. 0: half of the processor's cores, "
                    "at most 4.",
                ),
                running.output_images_input(),
                *tiling_inputs(),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The frames, only with output_images on.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    async def execute(
        cls,
        samples: Any,
        vae: Any,
        chunk_size: int,
        buffer_depth: int,
        filename_prefix: str,
        format: str,
        compression: int,
        writers: int,
        output_images: bool,
        tile_size: int = 0,
        overlap: int = 64,
        temporal_size: int = 0,
        temporal_overlap: int = 8,
    ) -> io.NodeOutput:
        check_vae(vae)
        tiling = tiling_of(vae, tile_size, overlap, temporal_size, temporal_overlap)
        latent = latent_of(samples, vae)
        target = saving.target_of(filename_prefix, *frame_size(vae, latent))
        encoder = PngEncoder(compress_level=compression, metadata=saving.metadata_of(cls.hidden))
        files = ImageFilesSink(target.names, encoder, writers=writers or None)
        result = await running.run(
            vae,
            latent,
            [files],
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            output_images=output_images,
            tiling=tiling,
        )
        saved = [ui.SavedResult(path.name, target.subfolder, io.FolderType.output) for path in files.files]
        return io.NodeOutput(result.images, ui={**ui.SavedImages(saved).as_dict(), **result.ui})
