"""Frames as image files: the widgets, the table of formats and the files of the nodes that save frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from comfy_api.v0_0_2 import io, ui

from ..async_decode.sinks import ImageEncoder, ImageFilesSink, JpegEncoder, PngEncoder, WebpEncoder
from . import saving

#: What makes an encoder of the widgets ``compression`` and ``quality`` and of the metadata.
MakeEncoder = Callable[[int, int, Mapping[str, str]], ImageEncoder]

#: The formats by their names in the widget, the default first. Which widgets a format shows is in
#: ``web/js/format_widgets.js``.
FORMATS: Mapping[str, MakeEncoder] = {
    "png": lambda compression, _, metadata: PngEncoder(compress_level=compression, metadata=metadata),
    "jpeg": lambda _, quality, metadata: JpegEncoder(quality=quality, metadata=metadata),
    "webp": lambda _, quality, metadata: WebpEncoder(quality=quality, metadata=metadata),
    "webp lossless": lambda _, __, metadata: WebpEncoder(lossless=True, metadata=metadata),
}


def inputs() -> list[io.Input]:
    """The inputs that both nodes have."""
    return [
        saving.filename_prefix_input("ComfyUI"),
        io.Combo.Input(
            "format",
            options=list(FORMATS),
            default=next(iter(FORMATS)),
            tooltip="png: 8 bits a channel, lossless, the bytes of Save Image. jpeg: small, no alpha. webp: smaller "
            "still, with alpha. webp lossless: every bit, smaller than png, slower.",
        ),
        io.Int.Input(
            "compression",
            default=4,
            min=0,
            max=9,
            tooltip="PNG compression level: 0 is fastest and largest, 9 slowest and smallest, 4 is what Save Image "
            "uses. 1 is about 2.5 times as fast as 4, with files about a fifth larger.",
        ),
        io.Int.Input(
            "quality",
            default=95,
            min=1,
            max=100,
            tooltip="Of jpeg and webp: 100 is best and largest. From 90 on, jpeg keeps colour at full resolution.",
        ),
        io.Int.Input(
            "writers",
            default=0,
            min=0,
            max=64,
            tooltip="Threads that compress and write images side by side. 0: half of the processor's cores, at most 4.",
        ),
    ]


class FrameFiles:
    """The files of one run.

    Args:
        hidden: the node's hidden inputs.
        filename_prefix: as of ``saving.target_of``.
        width: of the frames, in pixels; ``height`` likewise.
        format: one of ``FORMATS``.
        compression: PNG's level.
        quality: of JPEG and WebP.
        writers: threads, 0 for as many as are good.

    Attributes:
        sink: who takes the frames.

    Raises:
        SinkError: as ``saving.target_of``.
    """

    def __init__(
        self,
        hidden: Any,
        filename_prefix: str,
        width: int,
        height: int,
        *,
        format: str,
        compression: int,
        quality: int,
        writers: int,
    ) -> None:
        target = saving.target_of(filename_prefix, width, height)
        encoder = FORMATS[format](compression, quality, saving.metadata_of(hidden))
        self.sink = ImageFilesSink(target.names, encoder, writers=writers or None)
        self._subfolder = target.subfolder

    def ui(self) -> dict[str, Any]:
        """The whole files, as a node's ``ui`` shows them."""
        saved = [ui.SavedResult(path.name, self._subfolder, io.FolderType.output) for path in self.sink.files]
        return ui.SavedImages(saved).as_dict()
