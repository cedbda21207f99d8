"""Async Save Video: frames that are there already become a video, while other nodes go on."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..async_decode.sinks.spool import spool_bytes
from . import execute, inputs, saving, video_files
from .background import WITH_THE_NODE, finish_input


class AsyncSaveVideo(io.ComfyNode):
    """Takes the place of Create Video and Save Video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inputs.schema(
            node_id="AsyncSaveVideo",
            display_name="Async Save Video",
            description="Encodes frames into a video file, as Create Video and Save Video do, while other nodes of the "
            "workflow go on.",
            inputs=[
                *inputs.images_inputs(),
                *video_files.inputs(),
                *inputs.images_ring_inputs(),
                *inputs.advanced([*video_files.further_inputs(), finish_input(), saving.spool_input()]),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The video, backed by the file."),
                io.Image.Output(display_name="images", tooltip="The frames, as they came in."),
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
    ) -> bool:
        saving.check_prefix(**inputs.known(cls, filename_prefix=filename_prefix))
        video_files.check(**inputs.known(cls, format=format, quality=quality, fps=fps))
        video_files.check_trim(audio=audio, **inputs.known(cls, format=format, trim_to_audio=trim_to_audio))
        return True

    @classmethod
    @inputs.checked
    async def execute(
        cls,
        images: Any,
        chunk_size: int,
        buffer_depth: int,
        filename_prefix: str,
        finish: str = WITH_THE_NODE,
        spool_gb: float = 0.0,
        **options: Any,
    ) -> io.NodeOutput:
        inputs.check_images(images)
        _, height, width, channels = images.shape
        file = video_files.VideoFile(cls.hidden, filename_prefix, width, height, channels, images.device, **options)
        result = await execute.save_images(
            images,
            file.sinks,
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            files=file.ui,
            notes=file.notes,
            finish=finish,
            spool=spool_bytes(spool_gb),
            saved_as=file.saved_as,
        )
        return io.NodeOutput(file.video(result.later), images, ui=result.ui)
