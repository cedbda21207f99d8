"""AVIF: with 8 bits a channel by Pillow, with 10 by ffmpeg's libaom, in a container that is written here.

ffmpeg's own container has no place for EXIF, Pillow none for 10 bits. The layout is that of ISO/IEC 23008-12 (HEIF) and
of the AV1 Image File Format, for one picture and its EXIF.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import IO

from PIL import features

from ...errors import FFmpegError, SinkError
from ...frames import Clip, FrameArray, PixelFormat
from ..ffmpeg import ask, find_ffmpeg, run_piped
from .exif import exif_of, left_out, without_tag
from .formats import ImageEncoder, check_range, image_of

#: From 0 (slow) to 10: a core takes 0.2 s for a 720p frame, and 1 s with 6, for 2 % smaller files.
_SPEED = 8
#: AV1 Bitstream Specification, section 5.3.2: types of OBUs.
_SEQUENCE_HEADER, _TEMPORAL_DELIMITER = 1, 2
#: CICP: Rec. 709's primaries and matrix, sRGB's curve; video's range.
_COLOURS = struct.pack(">HHHB", 1, 13, 1, 0)


@lru_cache(maxsize=1)
def pillow_writes_avif() -> bool:
    """Whether the installed Pillow was built with AVIF."""
    return "avif" in features.modules and bool(features.check("avif"))


@lru_cache(maxsize=1)
def ffmpeg_writes_avif() -> bool:
    """Whether the installed ffmpeg has the encoder for AVIF of 10 bits."""
    try:
        return " libaom-av1 " in ask(find_ffmpeg(), "-encoders")
    except FFmpegError:
        return False


class AvifEncoder(ImageEncoder):
    """AVIF with 8 bits a channel, with alpha. Chroma has full resolution from quality 90 on.

    Args:
        quality: 1 (small) to 100. Default: ``95``.
        metadata: text by key, as of ``JpegEncoder``. Default: ``None``.

    Raises:
        SinkError: the installed Pillow writes no AVIF.
    """

    name = "avif"
    extension = ".avif"
    pixel_format = PixelFormat.UINT8
    max_side = 65536

    def __init__(self, *, quality: int = 95, metadata: Mapping[str, str] | None = None) -> None:
        check_range("quality", quality, 1, 100)
        if not pillow_writes_avif():
            raise SinkError("the installed Pillow writes no avif: pip install --upgrade 'pillow>=11.3'")
        # One thread: writers work side by side.
        self._options = {
            "quality": quality,
            "subsampling": "4:4:4" if quality >= 90 else "4:2:0",
            "speed": _SPEED,
            "max_threads": 1,
            "exif": exif_of(metadata or {}),
        }
        self.notes = left_out("too many texts for an avif file", without_tag(metadata or {}))

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        content = io.BytesIO()
        image_of(frame).save(content, format="AVIF", **self._options)
        file.write(content.getbuffer())


class Avif10Encoder(ImageEncoder):
    """AVIF with 10 bits a channel and chroma at full resolution. Alpha is left out, which ``notes`` says.

    Args:
        quality: 1 (small) to 100, on libavif's scale. Default: ``95``.
        metadata: as of ``AvifEncoder``. Default: ``None``.

    Raises:
        SinkError: the installed ffmpeg has no libaom.
    """

    name = "avif 10-bit"
    extension = ".avif"
    pixel_format = PixelFormat.YUV444_10
    keeps_alpha = False
    max_side = 65536

    def __init__(self, *, quality: int = 95, metadata: Mapping[str, str] | None = None) -> None:
        check_range("quality", quality, 1, 100)
        if not ffmpeg_writes_avif():
            raise SinkError("the installed ffmpeg has no libaom-av1: pip install --upgrade imageio-ffmpeg")
        self._planes = 3
        self._quantizer = ((100 - quality) * 63 + 50) // 100
        self._exif = exif_of(metadata or {})
        self.notes = left_out("too many texts for an avif file", without_tag(metadata or {}))

    def check(self, clip: Clip) -> None:
        super().check(clip)
        # The pixel format has alpha for those who want it.
        self._planes = 4 if clip.channels == 4 else 3

    def encode(self, frame: FrameArray, file: IO[bytes]) -> None:
        lines, width, _ = frame.shape
        height = lines // self._planes
        colours = "-color_range tv -colorspace bt709 -color_primaries bt709 -color_trc iec61966-2-1"
        arguments = (
            f"-f rawvideo -pix_fmt yuv444p10le -video_size {width}x{height} {colours} -i pipe:0 "
            f"{colours} -c:v libaom-av1 -usage allintra -still-picture 1 -threads 1 -cpu-used {_SPEED} "
            f"-crf {self._quantizer} -b:v 0 -f obu pipe:1"
        ).split()
        # What an abort makes it raise ends ffmpeg.
        colours_only = frame[: 3 * height].astype("<u2", copy=False)
        picture = run_piped(arguments, colours_only.data, poll=lambda: file.write(b""))
        file.write(_container(_units(picture), width, height, self._exif))


def _units(stream: bytes) -> dict[int, bytes]:
    """The OBUs of a stream by their type, each with its header, as they stand in an AVIF file."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(stream):
        start, kind = at, stream[at] >> 3 & 15
        # Behind the header, and its extension, stands the size, in groups of 7 bits.
        at += 2 if stream[at] & 4 else 1
        size = shift = 0
        while True:
            size |= (stream[at] & 0x7F) << shift
            shift += 7
            at += 1
            if stream[at - 1] < 0x80:
                break
        at += size
        found[kind] = found.get(kind, b"") + stream[start:at]
    if _SEQUENCE_HEADER not in found or at != len(stream):
        raise SinkError(f"expected one AV1 picture from ffmpeg, got {len(stream)} bytes that are none")
    return found


def _container(units: Mapping[int, bytes], width: int, height: int, exif: bytes) -> bytes:
    """An AVIF file with one picture of 10 bits in 4:4:4."""
    picture = b"".join(unit for kind, unit in sorted(units.items()) if kind != _TEMPORAL_DELIMITER)
    # In front of TIFF's header stands how far away it is.
    texts = bytes(4) + exif.removeprefix(b"Exif\0\0") if exif else b""
    # Section 5.5.1 of a still picture's sequence header: 3 bits of profile, 2 flags, 5 bits of level.
    header = units[_SEQUENCE_HEADER][2:]
    profile, level = header[0] >> 5, (header[0] & 7) << 2 | header[1] >> 6
    properties = [
        _full("ispe", struct.pack(">II", width, height)),
        _full("pixi", bytes([3, 10, 10, 10])),
        # Version 1, then "more than 8 bits".
        _box("av1C", bytes([0x81, profile << 5 | level, 0x40, 0])),
        _box("colr", b"nclx" + _COLOURS),
    ]
    # Without av1C (0x80) a reader may not go on.
    ipma = struct.pack(">IHB", 1, 1, 4) + bytes([1, 2, 0x83, 4])
    items = [(1, b"av01", picture), (2, b"Exif", texts)][: 2 if texts else 1]
    infos = b"".join(_full("infe", struct.pack(">HH", number, 0) + kind + b"\0", 2) for number, kind, _ in items)
    start = _box("ftyp", b"avif" + bytes(4) + b"avifmif1miafMA1A")

    def meta(first: int) -> bytes:
        """What stands in front of the picture, which begins at ``first``."""
        places = [(1, first, len(picture)), (2, first + len(picture), len(texts))][: len(items)]
        extents = b"".join(struct.pack(">HHHII", number, 0, 1, offset, size) for number, offset, size in places)
        return _full(
            "meta",
            _full("hdlr", bytes(4) + b"pict" + bytes(12) + b"\0")
            + _full("pitm", struct.pack(">H", 1))
            + _full("iloc", struct.pack(">BBH", 0x44, 0, len(items)) + extents)
            + _full("iinf", struct.pack(">H", len(items)) + infos)
            + (_full("iref", _box("cdsc", struct.pack(">HHH", 2, 1, 1))) if texts else b"")
            + _box("iprp", _box("ipco", b"".join(properties)) + _full("ipma", ipma)),
        )

    return start + meta(len(start) + len(meta(0)) + 8) + _box("mdat", picture + texts)


def _box(name: str, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name.encode() + content


def _full(name: str, content: bytes, version: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24) + content)
