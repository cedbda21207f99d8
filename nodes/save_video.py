"""Async VAE Decode & Save Video: frames are encoded while the next ones are decoded."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..async_decode.sinks.spool import spool_bytes
from . import execute, inputs, saving, video_files
from .background import WITH_THE_NODE, finish_input
from .image_output import is_connected, output_images_input
from .tiling import check_sizes, tiling_inputs, tiling_of
from .vae import check_vae, clips_note, frame_size, latent_of

#: The number of the IMAGE output.
IMAGES = 1


class AsyncVAEDecodeSaveVideo(io.ComfyNode):
    """Takes the place of VAE Decode followed by Create Video and Save Video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inputs.schema(
            node_id="AsyncVAEDecodeSaveVideo",
            display_name="Async VAE Decode & Save Video",
            description="Decodes a latent and encodes the frames into a video file while the next ones are decoded. "
            "Memory does not grow with the clip.",
            inputs=[
                *inputs.decode_inputs(),
                *video_files.inputs(),
                *inputs.decode_ring_inputs(),
                *inputs.advanced(
                    [
                        *video_files.further_inputs(),
                        output_images_input(),
                        *tiling_inputs(),
                        inputs.decoder_input(),
                        finish_input(),
                        saving.spool_input(),
                    ]
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The video, backed by the file."),
                io.Image.Output(display_name="images", tooltip="The frames, made when connected."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        filename_prefix: str | None = None,
        format: str | None = None,
        quality: int | None = None,
        fps: Any = None,
        trim_to_audio: bool | None = None,
        audio: Any = video_files.NOT_CONNECTED,
        tile_size: int | None = None,
        temporal_size: int | None = None,
    ) -> bool:
        saving.check_prefix(**inputs.known(cls, filename_prefix=filename_prefix))
        video_files.check(**inputs.known(cls, format=format, quality=quality, fps=fps))
        video_files.check_trim(audio=audio, **inputs.known(cls, format=format, trim_to_audio=trim_to_audio))
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
        output_images: bool,
        tile_size: int = 0,
        overlap: int = 64,
        temporal_size: int = 0,
        temporal_overlap: int = 8,
        decoder: str = "auto",
        finish: str = WITH_THE_NODE,
        spool_gb: float = 0.0,
        **options: Any,
    ) -> io.NodeOutput:
        check_vae(vae)
        tiling = tiling_of(vae, tile_size, overlap, temporal_size, temporal_overlap)
        latent = latent_of(samples, vae)
        width, height = frame_size(vae, latent)
        channels = getattr(vae, "output_channels", 3)
        file = video_files.VideoFile(cls.hidden, filename_prefix, width, height, channels, vae.device, **options)
        result = await execute.decode(
            vae,
            latent,
            file.sinks,  # a VideoSink, and one more where browsers do not play the format
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            output_images=output_images or is_connected(IMAGES),
            tiling=tiling,
            decoder=decoder,
            files=file.ui,
            notes=[*file.notes, *clips_note(vae, latent)],
            finish=finish,
            spool=spool_bytes(spool_gb),
            saved_as=file.saved_as,
        )
        return io.NodeOutput(file.video(result.later), result.images, ui=result.ui)
