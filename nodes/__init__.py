"""The ComfyUI side: schemas, the VAE, paths, progress, interrupts. No tensor arithmetic, one thread (background.py)."""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

from .decode import AsyncVAEDecode
from .demo_clip import AsyncDemoClip
from .images_save_frames import AsyncSaveFrames
from .images_save_video import AsyncSaveVideo
from .routes import add_routes
from .save_frames import AsyncVAEDecodeSaveFrames
from .save_video import AsyncVAEDecodeSaveVideo


class AsyncVAEDecodeExtension(ComfyExtension):
    """The pack, as ComfyUI loads it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            AsyncVAEDecode,
            AsyncVAEDecodeSaveFrames,
            AsyncVAEDecodeSaveVideo,
            AsyncSaveFrames,
            AsyncSaveVideo,
            AsyncDemoClip,
        ]


async def comfy_entrypoint() -> AsyncVAEDecodeExtension:
    """What ComfyUI calls to get the nodes."""
    # Not in the extension's on_load, which older cores do not call.
    add_routes()
    return AsyncVAEDecodeExtension()
