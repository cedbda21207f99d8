"""Formats of image files: one encoder each, which the pool of writers calls without knowing what it does.

A further format is a further class here and nothing else.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import IO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..frames import FrameArray, PixelFormat


class ImageEncoder(abc.ABC):
    """Turns one frame into one file. Called from several threads at once; what is heavy in it releases the GIL."""

    #: For people: the lanes of the report are called after it.
    name: str
    #: Of the files, with its dot.
    extension: str
    #: What ``encode`` expects.
    pixel_format: PixelFormat

    @abc.abstractmethod
    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        """Write ``frame``, ``(H, W, C)`` with 1, 3 or 4 channels, to ``file``.

        Whatever ``file.write`` raises must come out: that is how an abort ends it in the middle.
        """


class PngEncoder(ImageEncoder):
    """PNG with 8 bits a channel: the bytes that stock's SaveImage writes for the same frame and metadata.

    Grey frames, which stock cannot save, become grey files.

    Args:
        compress_level: zlib's, 0 (large, fast) to 9; stock's is 4.
        metadata: text by key (``prompt``, ``workflow``, … already dumped as JSON), in the order in which it is to
            stand in the file.
    """

    name = "png"
    extension = ".png"
    pixel_format = PixelFormat.UINT8

    def __init__(self, *, compress_level: int = 4, metadata: Mapping[str, str] | None = None) -> None:
        if not 0 <= compress_level <= 9:
            raise ValueError(f"compress_level must be from 0 to 9, got {compress_level}")
        self._compress_level = compress_level
        # Made once: saving only reads it.
        self._info = PngInfo()
        for key, text in (metadata or {}).items():
            self._info.add_text(key, text)

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        image_of(frame).save(file, format="PNG", pnginfo=self._info, compress_level=self._compress_level)


def image_of(frame: FrameArray) -> Image.Image:
    """``(H, W, C)`` uint8 with 1, 3 or 4 channels as Pillow takes it."""
    pixels = cast("npt.NDArray[np.uint8]", frame)
    # Pillow knows grey pictures only without a channel axis.
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
