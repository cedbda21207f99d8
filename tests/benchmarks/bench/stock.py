"""Stock's way, to compare with: decode the whole clip, bring it to the host, convert it there, save it afterwards.

``EngineStock`` rebuilds ComfyUI 0.33.0 step by step for models that do not come from there (``comfy.sd.VAE.decode``,
``SaveImage.save_images``). With a real ComfyUI its own nodes take this place: see ``tests/benchmarks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from async_decode.device.conversion import stock_process_output
from async_decode.frames import Clip
from async_decode.sinks.ffmpeg import FFmpegProcess, file_url
from async_decode.spans import Recorder
from async_decode.taps import VideoDecoder

from .saving import FPS, Saving


class Stock(Protocol):
    """A way of decoding and saving that knows nothing of this package.

    Attributes:
        name: whose code it is, for the results.
    """

    name: str

    def decode(self, latent: Tensor) -> Tensor:
        """The whole clip on the host, ``(T, H, W, C)``, 0 to 1."""

    def save(self, images: Tensor, saving: Saving, folder: Path) -> list[Path]:
        """Save ``images`` into ``folder``; return the complete files."""


class EngineStock:
    """ComfyUI's way, for any decoder.

    Video is saved with the encoder and the settings of the other arms, so that nothing but the order of the work
    differs.

    Args:
        decoder: what decodes.
    """

    name = "rebuilt after ComfyUI 0.33.0"

    def __init__(self, decoder: VideoDecoder) -> None:
        self._decoder = decoder

    def decode(self, latent: Tensor) -> Tensor:
        with torch.inference_mode():
            pixels = self._decoder.decode(self._decoder.to_device(latent)).to(
                device="cpu", dtype=torch.float32, copy=True
            )
            whole = torch.empty_like(pixels)
            whole.copy_(pixels)
            del pixels
            # A view, not contiguous: that is what stock's saving nodes get.
            return stock_process_output(whole).movedim(1, -1).flatten(0, 1)

    def save(self, images: Tensor, saving: Saving, folder: Path) -> list[Path]:
        if saving.png_level is not None:
            return save_images(images, folder, compress_level=saving.png_level)
        if saving.preset is not None:
            return save_video(images, saving, folder)
        return []


def save_images(images: Tensor, folder: Path, *, compress_level: int) -> list[Path]:
    """One PNG after the other, as ``SaveImage.save_images``."""
    files = []
    for number, image in enumerate(images, 1):
        picture = Image.fromarray(to_bytes(image))
        path = folder / f"stock_{number:05}_.png"
        picture.save(path, pnginfo=None, compress_level=compress_level)
        files.append(path)
    return files


def save_video(images: Tensor, saving: Saving, folder: Path) -> list[Path]:
    """Frame by frame into ffmpeg, once the clip is there."""
    sink = saving.sink(folder, "stock")
    frames, height, width, channels = images.shape
    sink.open(Clip(height=height, width=width, channels=channels, frames=frames), Recorder())
    for number, image in enumerate(images):
        written = sink.write(np.ascontiguousarray(to_bytes(image))[None], number)
        if written is not None:
            written.result()
    sink.close()
    return saving.files(sink)


@dataclass(frozen=True)
class Mp4Settings:
    """What somebody else's node tells x264.

    Attributes:
        whose: the node, for the results.
        crf: the quality; the preset is x264's own, medium.
        options: ffmpeg's options for the conversion and the colours.
    """

    whose: str
    crf: float
    options: Sequence[str]


#: ComfyUI 0.33.0 converts as libswscale does by default; its tags are those of ours.
SAVE_VIDEO = Mp4Settings(
    "Save Video",
    23,
    (
        *("-vf", "scale=out_color_matrix=bt709", "-color_range", "tv", "-colorspace", "bt709"),
        *("-color_primaries", "bt709", "-color_trc", "iec61966-2-1"),
    ),
)
#: Video Combine's H.264 of VideoHelperSuite 1.7.
VIDEO_COMBINE = Mp4Settings(
    "Video Combine",
    19,
    (
        *("-vf", "scale=out_color_matrix=bt709", "-color_range", "tv", "-colorspace", "bt709"),
        *("-color_primaries", "bt709", "-color_trc", "bt709"),
    ),
)


def save_mp4(images: Tensor, settings: Mp4Settings, folder: Path) -> list[Path]:
    """Frame by frame into an ffmpeg with these settings, once the clip is there."""
    path = folder / "stock.mp4"
    _, height, width, _ = images.shape
    source = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(FPS)]
    target = ["-c:v", "libx264", "-crf", f"{settings.crf:g}", "-pix_fmt", "yuv420p", *settings.options]
    process = FFmpegProcess([*source, "-i", "pipe:0", *target, "-movflags", "use_metadata_tags", "-y", file_url(path)])
    try:
        for image in images:
            process.write(np.ascontiguousarray(to_bytes(image)).data)
        process.finish()
    finally:
        process.end(grace=0)
    return [path]


def to_bytes(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Stock's quantising of a frame: on the host, in float32, by truncation."""
    with np.errstate(invalid="ignore"):
        return np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8)
