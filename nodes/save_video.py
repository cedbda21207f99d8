"""Async VAE Decode & Save Video: frames are encoded while the next ones are decoded."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import InputImpl, io, ui

from ..async_decode.sinks import H264_MP4, VideoSink
from . import running, saving
from .tiling import tiling_inputs, tiling_of
from .vae import check_vae, frame_size, latent_of


class AsyncVAEDecodeSaveVideo(io.ComfyNode):
    """Takes the place of VAE Decode followed by Create Video and Save Video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return running.schema(
            node_id="AsyncVAEDecodeSaveVideo",
            display_name="Async VAE Decode & Save Video",
            description="Decodes a latent and encodes the frames into a video file while the next ones are decoded. "
            "Memory does not grow with the clip.",
            inputs=[
                *running.decode_inputs(),
                saving.filename_prefix_input("video/ComfyUI"),
                io.Float.Input(
                    "fps",
                    default=24.0,
                    min=0.01,
                    max=1000.0,
                    step=0.001,
                    tooltip="Frames per second. 23.976, 29.97 and 59.94 are taken as 24000/1001, 30000/1001 and "
                    "60000/1001.",
                ),
                io.Combo.Input(
                    "format", options=["mp4 (H.264)"], default="mp4 (H.264)", tooltip="H.264, 8 bits, 4:2:0, BT.709."
                ),
                io.Int.Input(
                    "quality",
                    default=int(H264_MP4.crf),
                    min=int(H264_MP4.crf_range[0]),
                    max=int(H264_MP4.crf_range[1]),
                    tooltip="H.264's CRF: lower is better and larger. 23 is what Save Video uses, 17 is hard to tell "
                    "from the frames, 0 is lossless; each 6 more about halve the file.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(H264_MP4.presets),
                    default=H264_MP4.preset,
                    tooltip="How long the encoder may think: faster presets keep up with faster decoders, slower ones "
                    "make smaller files of the same quality.",
                ),
                running.output_images_input(),
                *tiling_inputs(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The video, backed by the file."),
                io.Image.Output(display_name="images", tooltip="The frames, only with output_images on."),
            ],
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
        fps: float,
        format: str,
        quality: int,
        preset: str,
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
        video = VideoSink(
            target.names,
            fps=fps,
            crf=quality,
            preset=preset,
            metadata=saving.metadata_of(cls.hidden),
        )
        result = await running.run(
            vae,
            latent,
            [video],
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            output_images=output_images,
            tiling=tiling,
        )
        saved = ui.SavedResult(video.path.name, target.subfolder, io.FolderType.output)
        return io.NodeOutput(
            InputImpl.VideoFromFile(str(video.path)),
            result.images,
            ui={**ui.PreviewVideo([saved]).as_dict(), **result.ui},
        )
