"""Async Save Frames: frames that are there already become image files, several at once."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..async_decode.sinks.spool import spool_bytes
from . import execute, frame_files, inputs, saving
from .background import WITH_THE_NODE, finish_input


class AsyncSaveFrames(io.ComfyNode):
    """Takes the place of Save Image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inputs.schema(
            node_id="AsyncSaveFrames",
            display_name="Async Save Frames",
            description="Saves every frame as an image, as Save Image does, several at once, while other nodes of the "
            "workflow go on.",
            inputs=[
                *inputs.images_inputs(),
                *frame_files.inputs(),
                *inputs.images_ring_inputs(),
                *inputs.advanced([*frame_files.further_inputs(), finish_input(), saving.spool_input()]),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The frames, as they came in.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool:
        saving.check_prefix(**inputs.known(cls, filename_prefix=filename_prefix))
        return True

    @classmethod
    @inputs.checked
    async def execute(
        cls,
        images: Any,
        chunk_size: int,
        buffer_depth: int,
        filename_prefix: str,
        format: str,
        compression: int,
        quality: int,
        input_color_space: str,
        writers: int,
        finish: str = WITH_THE_NODE,
        spool_gb: float = 0.0,
    ) -> io.NodeOutput:
        inputs.check_images(images)
        _, height, width, _ = images.shape
        options = frame_files.Options(filename_prefix, format, compression, quality, input_color_space, writers)
        files = frame_files.FrameFiles(cls.hidden, options, width, height)
        result = await execute.save_images(
            images,
            [files.sink],
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            files=files.ui,
            finish=finish,
            spool=spool_bytes(spool_gb),
            saved_as=files.saved_as,
        )
        return io.NodeOutput(images, ui=result.ui)
