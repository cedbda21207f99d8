"""Frames as image files: the widgets, the table of formats and the files of the nodes that save frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api.v0_0_2 import io, ui

from ..async_decode.frames import Clip
from ..async_decode.sinks import (
    Avif10Encoder,
    AvifEncoder,
    ExrEncoder,
    ImageEncoder,
    ImageFilesSink,
    JpegEncoder,
    Png16Encoder,
    PngEncoder,
    TiffEncoder,
    WebpEncoder,
)
from ..async_decode.sinks.image.avif import ffmpeg_writes_avif, pillow_writes_avif
from . import saving
from .earlier_runs import SavedAs


@dataclass(frozen=True)
class Options:
    """What the widgets of ``inputs`` say, by their names."""

    filename_prefix: str
    format: str
    compression: int
    quality: int
    input_color_space: str
    writers: int


#: What makes the encoder of a format, of the widgets and the metadata.
MakeEncoder = Callable[[Options, Mapping[str, str]], ImageEncoder]

#: The formats by their names in the widget, the default first. Which widgets apply to which format, the browser learns
#: from the table in ``web/js/format_widgets.js``.
FORMATS: Mapping[str, MakeEncoder] = {
    "png": lambda given, texts: PngEncoder(compress_level=given.compression, metadata=texts),
    "png 16-bit": lambda given, texts: Png16Encoder(compress_level=given.compression, metadata=texts),
    "jpeg": lambda given, texts: JpegEncoder(quality=given.quality, metadata=texts),
    "webp": lambda given, texts: WebpEncoder(quality=given.quality, metadata=texts),
    "webp lossless": lambda given, texts: WebpEncoder(lossless=True, metadata=texts),
    "avif": lambda given, texts: AvifEncoder(quality=given.quality, metadata=texts),
    "avif 10-bit": lambda given, texts: Avif10Encoder(quality=given.quality, metadata=texts),
    "tiff": lambda given, texts: TiffEncoder(compress_level=given.compression, metadata=texts),
    "exr half": lambda given, texts: _exr(given, texts, half=True),
    "exr float": lambda given, texts: _exr(given, texts, half=False),
}
#: Those that look at ``compression``; the others look at ``quality``.
COMPRESSED = frozenset({"png", "png 16-bit", "tiff", "exr half", "exr float"})
#: What EXR's input can be; the default first.
COLOR_SPACES = ["sRGB", "HDR", "linear"]


#: Those that not every Pillow, or not every ffmpeg, can write.
_PERHAPS = {"avif": pillow_writes_avif, "avif 10-bit": ffmpeg_writes_avif}


def offered() -> list[str]:
    """The names of the formats that can be written here, the default first."""
    return [name for name in FORMATS if name not in _PERHAPS or _PERHAPS[name]()]


def _exr(given: Options, texts: Mapping[str, str], *, half: bool) -> ImageEncoder:
    space: Any = given.input_color_space
    return ExrEncoder(half=half, color_space=space, compress_level=given.compression, metadata=texts)


def inputs() -> list[io.Input]:
    """What is saved and where, in both nodes."""
    return [
        saving.filename_prefix_input("ComfyUI"),
        io.Combo.Input(
            "format",
            options=offered(),
            default=next(iter(FORMATS)),
            tooltip="png: 8 bits a channel, lossless, the bytes of Save Image. png 16-bit, tiff: 16 bits, lossless. "
            "jpeg: small, no alpha. webp: smaller still, with alpha. webp lossless: every one of 8 bits, smaller than "
            "png, slower. avif, avif 10-bit: smallest, slowest, 8 bits with alpha or 10 without. exr half, exr float: "
            "linear light in 16 or 32-bit floats, for Nuke, Blender, Resolve. Prompt and workflow are in all of them; "
            "dropped on the canvas, png, webp and avif bring the workflow back.",
        ),
        io.Int.Input(
            "quality",
            default=95,
            min=1,
            max=100,
            tooltip="Of jpeg, webp and avif: 100 is best and largest. From 90 on, jpeg and avif keep colour at full "
            "resolution.",
        ),
        io.Int.Input(
            "compression",
            default=4,
            min=0,
            max=9,
            tooltip="How hard png, png 16-bit, tiff and exr try to be small, without any loss: 0 is fastest and "
            "largest, 9 slowest and smallest, 4 is what Save Image uses. For png, 1 is about 2.5 times as fast as 4, "
            "with files about a fifth larger.",
        ),
    ]


def further_inputs() -> list[io.Input]:
    """The rest of what both nodes have."""
    return [
        io.Combo.Input(
            "input_color_space",
            options=COLOR_SPACES,
            default=COLOR_SPACES[0],
            tooltip="What the frames are, for exr, which holds linear light: sRGB (what models make) has sRGB's curve "
            "taken off, so that Nuke and Blender show it right without any setting; HDR is HLG in Rec. 2020 and has "
            "that curve taken off; linear is written as it is, value for value. Alpha is not multiplied in.",
        ),
        io.Int.Input(
            "writers",
            default=0,
            min=0,
            max=64,
            tooltip="Threads that compress and write images side by side. 0 is automatic: half of the processor's "
            "cores and at most 4 to begin with, more while they fall behind and cores are idle. The report says how "
            "many there were.",
        ),
    ]


class FrameFiles:
    """The files of one run.

    Args:
        hidden: the node's hidden inputs.
        options: what the widgets say.
        width: of the frames, in pixels; ``height`` likewise.

    Attributes:
        sink: who takes the frames.
        saved_as: how, for what is remembered of earlier runs.

    Raises:
        SinkError: as ``saving.target_of``, or the format holds no frames of this size.
    """

    def __init__(self, hidden: Any, options: Options, width: int, height: int) -> None:
        target = saving.target_of(options.filename_prefix, width, height)
        encoder = FORMATS[options.format](options, saving.metadata_of(hidden))
        # Nothing is to be decoded for files that cannot be. Of their channels the sink learns first.
        encoder.check(Clip(height=height, width=width, channels=3))
        self.sink = ImageFilesSink(target.names, encoder, writers=options.writers or None)
        writers = f"{options.writers or 'automatic'} writers"
        compressed = options.format in COMPRESSED
        self.saved_as = SavedAs(
            options.format if compressed else f"{options.format}, quality {options.quality}",
            f"compression {options.compression}, {writers}" if compressed else writers,
        )
        self._subfolder = target.subfolder

    def ui(self, whole: bool = True) -> dict[str, Any]:
        """The files as a node's ``ui`` shows them: those that are whole, or all that have a name."""
        files = self.sink.files if whole else self.sink.reserved
        saved = [ui.SavedResult(path.name, self._subfolder, io.FolderType.output) for path in files]
        return ui.SavedImages(saved).as_dict()
