"""Image files with 16 bits a channel: PNG and TIFF, written here because Pillow writes neither with colours.

Both cut a frame into bands of lines that are compressed and written one after the other, so that an abort ends in the
middle of a frame. numpy and zlib let go of the GIL meanwhile. tifffile and imagecodecs are faster, but would be a
second way beside this one, which has to stay for those who have not installed them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from ...errors import SinkError
from ...frames import Clip, FrameArray, PixelFormat
from .exif import Field, directory, left_out, text_fields, without_tag
from .formats import ImageEncoder, check_range, png_texts

#: Lines are compressed in bands of about this many bytes.
BAND_BYTES = 1 << 18


def bands(frame: npt.NDArray[np.uint16]) -> Iterator[npt.NDArray[np.uint16]]:
    """Cut ``(H, W, C)`` into ``(H', W, C)``."""
    lines = max(1, BAND_BYTES // max(1, frame[:1].nbytes))
    for first in range(0, len(frame), lines):
        yield frame[first : first + lines]


class Png16Encoder(ImageEncoder):
    """PNG with 16 bits a channel: grey, RGB or RGBA, with the text chunks of ``PngEncoder``.

    Args:
        compress_level: zlib's, 0 (large, fast) to 9. Default: ``4``.
        metadata: as of ``PngEncoder``. Default: ``None``.
    """

    name = "png 16-bit"
    extension = ".png"
    pixel_format = PixelFormat.UINT16

    def __init__(self, *, compress_level: int = 4, metadata: Mapping[str, str] | None = None) -> None:
        check_range("compress_level", compress_level, 0, 9)
        self._level = compress_level
        info, self.notes = png_texts(metadata or {})
        self._texts = b"".join(_png_chunk(kind, data) for kind, data, *_ in info.chunks)

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        pixels = cast("npt.NDArray[np.uint16]", frame)
        height, width, channels = pixels.shape
        colours = {1: 0, 3: 2, 4: 6}[channels]
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)))
        file.write(self._texts)
        deflate = zlib.compressobj(self._level)
        for band in bands(pixels):
            data = deflate.compress(_filtered(band).data)
            if data:
                file.write(_png_chunk(b"IDAT", data))
            else:
                # Nothing to write yet; an abort is noticed all the same.
                file.write(b"")
        file.write(_png_chunk(b"IDAT", deflate.flush()))
        file.write(_png_chunk(b"IEND", b""))


def _filtered(band: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """The lines of ``band`` as PNG has them: a filter's number, then big-endian bytes less those of the pixel before.

    Of PNG's filters *Sub* costs next to nothing here; *Paeth* would take longer than zlib and save about 1 %.
    """
    height, width, channels = band.shape
    step = 2 * channels
    raw = band.astype(">u2").view(np.uint8).reshape(height, width * step)
    lines = np.empty((height, 1 + width * step), np.uint8)
    lines[:, 0] = 1
    lines[:, 1 : 1 + step] = raw[:, :step]
    np.subtract(raw[:, step:], raw[:, :-step], out=lines[:, 1 + step :])
    return lines


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


class TiffEncoder(ImageEncoder):
    """TIFF with 16 bits a channel: grey, RGB or RGBA (alpha not multiplied in), deflated in strips.

    Args:
        compress_level: zlib's, 0 (large, fast) to 9. Default: ``4``.
        metadata: as of ``PngEncoder``, in the tags that ``JpegEncoder`` has in its EXIF. Default: ``None``.
    """

    name = "tiff"
    extension = ".tif"
    pixel_format = PixelFormat.UINT16

    def __init__(self, *, compress_level: int = 4, metadata: Mapping[str, str] | None = None) -> None:
        check_range("compress_level", compress_level, 0, 9)
        self._level = compress_level
        self._texts = text_fields(metadata or {})
        self.notes = left_out("too many texts for a tiff file", without_tag(metadata or {}))

    def check(self, clip: Clip) -> None:
        super().check(clip)
        # Offsets have 32 bits; deflate may add a little to what it cannot compress.
        if clip.frame_bytes(self.pixel_format) > 2**32 - 2**26:
            raise SinkError(f"tiff files hold at most 4 GiB, got {clip.width}x{clip.height}; save as exr instead")

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        pixels = cast("npt.NDArray[np.uint16]", frame)
        file.write(b"II*\0" + bytes(4))
        offset = 8
        offsets, sizes, lines = [], [], 1
        for band in bands(pixels):
            strip = zlib.compress(_predicted(band).data, self._level)
            file.write(strip)
            lines = max(lines, len(band))
            offsets.append(offset)
            sizes.append(len(strip))
            offset += len(strip)
        # A directory begins on an even byte.
        file.write(bytes(offset % 2))
        offset += offset % 2
        file.write(directory(self._fields(pixels.shape, offsets, sizes, lines), offset, order="<"))
        file.seek(4)
        file.write(struct.pack("<I", offset))

    def _fields(self, shape: tuple[int, ...], offsets: list[int], sizes: list[int], lines: int) -> dict[int, Field]:
        """Type, number of values and values of each field, by tag."""
        height, width, channels = shape
        fields = {
            0x0100: _longs(width),
            0x0101: _longs(height),
            0x0102: _shorts(*[16] * channels),
            # Deflate, as Adobe numbered it.
            0x0103: _shorts(8),
            0x0106: _shorts(1 if channels == 1 else 2),
            0x0111: _longs(*offsets),
            0x0115: _shorts(channels),
            0x0116: _longs(lines),
            0x0117: _longs(*sizes),
            # 72 dots an inch: the format wants to be told something.
            0x011A: (5, 1, struct.pack("<II", 72, 1)),
            0x011B: (5, 1, struct.pack("<II", 72, 1)),
            0x011C: _shorts(1),
            0x0128: _shorts(2),
            # Each pixel less the one before.
            0x013D: _shorts(2),
            0x0153: _shorts(*[1] * channels),
            **self._texts,
        }
        if channels == 4:
            fields[0x0152] = _shorts(2)
        return fields


def _predicted(band: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Little-endian, each pixel less the one before it."""
    out = np.empty(band.shape, "<u2")
    out[:, :1] = band[:, :1]
    np.subtract(band[:, 1:], band[:, :-1], out=out[:, 1:])
    return out


def _shorts(*values: int) -> Field:
    return 3, len(values), struct.pack(f"<{len(values)}H", *values)


def _longs(*values: int) -> Field:
    return 4, len(values), struct.pack(f"<{len(values)}I", *values)
