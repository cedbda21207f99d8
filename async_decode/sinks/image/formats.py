"""Formats of image files: one encoder each, which the pool of writers calls without knowing what it does.

A further format is a further class here and nothing else.

Metadata is where ComfyUI looks for it: PNG has text chunks, the others have it in their EXIF.
"""

from __future__ import annotations

import abc
import errno
import io
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import IO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...errors import SinkError
from ...frames import Clip, FrameArray, PixelFormat
from .exif import exif_of, left_out, storable, without_tag
from .webp_exif import without_odd_chunks

#: The most that one segment of a JPEG file holds, in bytes.
_JPEG_SEGMENT = 65533
#: The marker that ends a JPEG file.
_JPEG_END = b"\xff\xd9"


class ImageEncoder(abc.ABC):
    """Turns one frame into one file. Called from several threads at once; what is heavy in it releases the GIL."""

    #: For people: the lanes of the report are called after it.
    name: str
    #: Of the files, with its dot.
    extension: str
    #: What ``encode`` expects.
    pixel_format: PixelFormat
    #: How many channels a frame may have.
    channels: Sequence[int] = (1, 3, 4)
    #: Whether the fourth of them is in the files; else it is left out, which ``notes`` says.
    keeps_alpha = True
    #: The largest width and height, in pixels.
    max_side: int = 2**31 - 1
    #: What is different in the files from what was asked for, for people to read.
    notes: Sequence[str] = ()

    def check(self, clip: Clip) -> None:
        """See whether the format can hold frames of this geometry.

        Raises:
            SinkError: it cannot; the message names the value and the remedy.
        """
        if clip.channels not in self.channels:
            known = " or ".join(map(str, self.channels))
            raise SinkError(f"{self.name} files hold {known} channels, got {clip.channels}; save as png instead")
        if max(clip.width, clip.height) > self.max_side:
            raise SinkError(
                f"{self.name} files hold at most {self.max_side} pixels a side, got {clip.width}x{clip.height}; save "
                "as png instead"
            )
        note = f"{self.name} has no alpha: it was left out; png and webp files keep it"
        if clip.channels == 4 and not self.keeps_alpha and note not in self.notes:
            self.notes = [*self.notes, note]

    @abc.abstractmethod
    def encode(self, frame: FrameArray, file: IO[bytes]) -> Collection[str] | None:
        """Write ``frame``, ``(H, W, C)`` with 1, 3 or 4 channels, to ``file``.

        Returns:
            What the file holds that readers may not expect, each to be told once, behind "frame 5 is the first that
            holds"; formats of whole numbers have nothing to tell.

        Whatever ``file.write`` raises must come out: that is how an abort ends it in the middle.
        """


class PngEncoder(ImageEncoder):
    """PNG with 8 bits a channel: the bytes that stock's SaveImage writes for the same frame and metadata.

    Grey frames, which stock cannot save, become grey files.

    Args:
        compress_level: zlib's, 0 (large, fast) to 9; stock's is 4. Default: ``4``.
        metadata: text by key (``prompt``, ``workflow``, … already dumped as JSON), in the order in which it is to stand
            in the file. Default: ``None``.
    """

    name = "png"
    extension = ".png"
    pixel_format = PixelFormat.UINT8

    def __init__(self, *, compress_level: int = 4, metadata: Mapping[str, str] | None = None) -> None:
        check_range("compress_level", compress_level, 0, 9)
        self._compress_level = compress_level
        # Made once: saving only reads it.
        self._info, self.notes = png_texts(metadata or {})

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        image_of(frame).save(file, format="PNG", pnginfo=self._info, compress_level=self._compress_level)


def png_texts(metadata: Mapping[str, str]) -> tuple[PngInfo, list[str]]:
    """``metadata`` as PNG has it, whose keys are Latin-1, and a note on what it cannot hold."""
    info = PngInfo()
    kept = storable(metadata, keys="latin-1")
    for key, text in kept.items():
        info.add_text(key, text)
    return info, left_out("no text that a png file can hold", [key for key in metadata if key not in kept])


class JpegEncoder(ImageEncoder):
    """JPEG, with chroma at full resolution from quality 90 on. Alpha is left out, which ``notes`` says.

    Args:
        quality: Pillow's, 1 (small) to 100. Default: ``95``.
        metadata: as of ``PngEncoder``. A JPEG file holds at most 64 KiB of it: texts that do not fit are left out and
            named in ``notes``. Default: ``None``.
    """

    name = "jpeg"
    extension = ".jpg"
    pixel_format = PixelFormat.UINT8
    keeps_alpha = False
    max_side = 65500

    def __init__(self, *, quality: int = 95, metadata: Mapping[str, str] | None = None) -> None:
        check_range("quality", quality, 1, 100)
        self._quality = quality
        self._subsampling = "4:4:4" if quality >= 90 else "4:2:0"
        kept: dict[str, str] = {}
        for key, text in (metadata or {}).items():
            more = {**kept, key: text}
            if len(exif_of(more)) <= _JPEG_SEGMENT and not without_tag(more):
                kept = more
        self._exif = exif_of(kept)
        dropped = [key for key in metadata or {} if key not in kept]
        self.notes = [
            f"{note}; webp and png files have no limit" for note in left_out("too long for a jpeg file", dropped)
        ]

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        image = image_of(frame)
        if image.mode == "RGBA":
            image = image.convert("RGB")
        with _scratch_file() as scratch:
            image.save(scratch, format="JPEG", quality=self._quality, subsampling=self._subsampling, exif=self._exif)
            scratch.seek(0)
            content = scratch.read()
        # Pillow does not look how much of its last write a full disk has taken.
        if not content.endswith(_JPEG_END):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.write(content)


def _scratch_file() -> IO[bytes]:
    """A file for one picture, in memory where that can be had.

    With a descriptor, Pillow lets go of the GIL while it makes a JPEG, else it never does (measured: 2 threads are
    1.8 times as fast as one, against 1.0). The file that is saved must not be given to it, because then no abort would
    end it and no short write be seen.
    """
    create = getattr(os, "memfd_create", None)
    # Not every system has it, nor every Python: conda-forge's have none.
    if create is not None:
        with suppress(OSError):
            return open(create("jpeg"), "w+b")
    return tempfile.TemporaryFile()


class WebpEncoder(ImageEncoder):
    """WebP, lossy or lossless. Grey frames become RGB files: the format has no grey.

    Args:
        lossless: keep every bit, also the colours of transparent pixels. Default: ``False``.
        quality: 0 to 100. Lossy: of the picture. Lossless: how hard to look for a smaller file. Default: ``90``.
        effort: 0 (fast) to 6 (small). Default: ``2``.
        metadata: as of ``PngEncoder``. Default: ``None``.
    """

    name = "webp"
    extension = ".webp"
    pixel_format = PixelFormat.UINT8
    max_side = 16383

    def __init__(
        self,
        *,
        lossless: bool = False,
        quality: int = 90,
        effort: int = 2,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        check_range("quality", quality, 0, 100)
        check_range("effort", effort, 0, 6)
        self._options = {"lossless": lossless, "exact": lossless, "quality": quality, "method": effort}
        self._exif = exif_of(metadata or {})
        self.notes = left_out("too many texts for a webp file", without_tag(metadata or {}))

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        content = io.BytesIO()
        image_of(frame).save(content, format="WEBP", exif=self._exif, **self._options)
        file.write(without_odd_chunks(content.getbuffer()) if self._exif else content.getbuffer())


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raise ``ValueError``, naming the option, if ``value`` is not within ``least`` and ``most``."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value}")


def image_of(frame: FrameArray) -> Image.Image:
    """``(H, W, C)`` uint8 with 1, 3 or 4 channels as Pillow takes it."""
    pixels = cast("npt.NDArray[np.uint8]", frame)
    # Pillow knows grey pictures only without a channel axis.
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
