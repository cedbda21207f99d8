"""Async VAE Decode & Save Frames: every frame becomes an image file while the next ones are decoded."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..async_decode.sinks.spool import spool_bytes
from . import execute, frame_files, inputs, saving
from .background import WITH_THE_NODE, finish_input
from .image_output import is_connected, output_images_input
from .tiling import check_sizes, tiling_inputs, tiling_of
from .vae import check_vae, frame_size, latent_of

#: The number of the IMAGE output.
IMAGES = 0


class AsyncVAEDecodeSaveFrames(io.ComfyNode):
    """Takes the place of VAE Decode followed by Save Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inputs.schema(
            node_id="AsyncVAEDecodeSaveFrames",
            display_name="Async VAE Decode & Save Frames",
            description="Decodes a latent and saves every frame as an image, as Save Image does, while the next "
            "frames are decoded. Memory does not grow with the clip.",
            inputs=[
                *inputs.decode_inputs(),
                *frame_files.inputs(),
                *inputs.decode_ring_inputs(),
                *inputs.advanced(
                    [
                        *frame_files.further_inputs(),
                        output_images_input(),
                        *tiling_inputs(),
                        inputs.decoder_input(),
                        finish_input(),
                        saving.spool_input(),
                    ]
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The frames, made when connected.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, filename_prefix: str | None = None, tile_size: int | None = None, temporal_size: int | None = None
    ) -> bool:
        saving.check_prefix(**inputs.known(cls, filename_prefix=filename_prefix))
        check_sizes(**inputs.known(cls, tile_size=tile_size, temporal_size=temporal_size))
        return True

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> bool:
        return is_connected(IMAGES)

    @classmethod
    @inputs.checked
    async def execute(
        cls,
        samples: Any,
        vae: Any,
        chunk_size: int,
        buffer_depth: int,
        filename_prefix: str,
        format: str,
        compression: int,
        quality: int,
        input_color_space: str,
        writers: int,
        output_images: bool,
        tile_size: int = 0,
        overlap: int = 64,
        temporal_size: int = 0,
        temporal_overlap: int = 8,
        decoder: str = "auto",
        finish: str = WITH_THE_NODE,
        spool_gb: float = 0.0,
    ) -> io.NodeOutput:
        check_vae(vae)
        tiling = tiling_of(vae, tile_size, overlap, temporal_size, temporal_overlap)
        latent = latent_of(samples, vae)
        options = frame_files.Options(filename_prefix, format, compression, quality, input_color_space, writers)
        files = frame_files.FrameFiles(cls.hidden, options, *frame_size(vae, latent))
        result = await execute.decode(
            vae,
            latent,
            [files.sink],
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            output_images=output_images or is_connected(IMAGES),
            tiling=tiling,
            decoder=decoder,
            files=files.ui,
            finish=finish,
            spool=spool_bytes(spool_gb),
            saved_as=files.saved_as,
        )
        return io.NodeOutput(result.images, ui=result.ui)
