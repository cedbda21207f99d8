"""Formats of video files: what each is called, and what its codec has to be told.

A further format is a further ``VideoFormat``; nothing here starts a process or touches a file. How the frames' colours
become the file's is in ``video_arguments.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ...frames import Clip, PixelFormat

#: What ffmpeg keeps of a rate that is given as a fraction: neither part may be larger.
_MAX_RATE_PART = 1_001_000
#: Rates of television, which people and widgets write as 23.976, 29.97, …
_NTSC_RATES = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 120))
#: Speeds of an encoder, fastest first: x264's names, which every other codec's own scale is mapped to.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


class Colour(enum.Enum):
    """What the frames' RGB becomes in the file."""

    #: BT.709's Y'CbCr in limited range, which every player knows.
    LIMITED = "limited"
    #: The same in full range, whose steps are no wider than RGB's: 8 bits come back within one step.
    FULL = "full"
    #: RGB stays RGB.
    RGB = "rgb"


class Tags(enum.Enum):
    """How a file carries text of any length."""

    #: As tags of the container, which ffmpeg writes.
    CONTAINER = "container"
    #: In its EXIF, which we add to what ffmpeg wrote.
    EXIF = "exif"


def _crf(value: float) -> list[str]:
    return ["-crf", f"{value:g}"]


def _whole_crf(value: float) -> list[str]:
    return ["-crf", str(round(value))]


def _vp9_quality(value: float) -> list[str]:
    # Without a rate of 0 the quality would only be a limit to ffmpeg's default rate.
    return ["-crf", str(round(value)), "-b:v", "0", *(["-lossless", "1"] if value == 0 else [])]


def _webp_quality(value: float) -> list[str]:
    """libwebp's own scale goes up: 100 is its best."""
    return ["-lossless", "1"] if value == 0 else ["-quality", f"{100 * (1 - value / 63):.1f}"]


def speeds(option: str, *values: object) -> dict[str, Sequence[str]]:
    """The value of ``option`` for each of the presets."""
    return {preset: (option, str(value)) for preset, value in zip(PRESETS, values, strict=True)}


#: For codecs that know one speed.
_ANY_SPEED: Mapping[str, Sequence[str]] = {preset: () for preset in PRESETS}


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """One way of writing video.

    Attributes:
        name: short and stable, for messages and scripts.
        extension: of the file, with its dot.
        muxer: ffmpeg's name of the container.
        encoder: ffmpeg's name of the codec.
        pixel_format: ffmpeg's name of what is encoded.
        alpha_format: the same for frames with alpha; ``None``: alpha is left out.
        grey_format: the same for grey frames; ``None``: as the others.
        frames: what the pipe carries: bytes of RGB, unless ffmpeg's conversion would lose what the codec could keep.
        planar: what it carries when colours are converted on the device.
        colour: what becomes of RGB.
        transfer: ffmpeg's name of the transfer function in the tags.
        crf: the default quality; lower is better.
        crf_range: the best and the worst that the codec takes; ``None``: it has no such choice.
        quality: ffmpeg's options for a quality.
        preset: the default speed.
        speeds: ffmpeg's options for each of the presets.
        options: further options of the encoder.
        muxer_options: further options of the container.
        fragments: the container can be written so that it plays wherever writing it ended.
        tags: how the file carries text of any length; ``None``: it cannot.
        sound: ffmpeg's options for the sound; ``None``: the container has none.
        loops: the container says how often it is to be played.
        max_rate: the most frames a second that players show as such.
        unit: what the width and the height have to be divisible by.
        min_side: neither the width nor the height may be less.
        in_browsers: browsers play it.
        device: options that stand before the input, for encoders of the hardware.
        upload: filters that bring frames to the hardware.
    """

    name: str
    extension: str
    muxer: str
    encoder: str
    pixel_format: str
    alpha_format: str | None = None
    grey_format: str | None = None
    frames: PixelFormat = PixelFormat.UINT8
    planar: PixelFormat = PixelFormat.UINT8
    colour: Colour = Colour.LIMITED
    transfer: str = "iec61966-2-1"
    crf: float = 0
    crf_range: tuple[float, float] | None = None
    quality: Callable[[float], Sequence[str]] = _crf
    preset: str = "medium"
    speeds: Mapping[str, Sequence[str]] = field(default_factory=lambda: _ANY_SPEED)
    options: Sequence[str] = ()
    muxer_options: Sequence[str] = ()
    fragments: bool = False
    tags: Tags | None = Tags.CONTAINER
    sound: Sequence[str] | None = None
    loops: bool = False
    max_rate: Fraction | None = None
    unit: tuple[int, int] = (2, 2)
    min_side: int = 1
    in_browsers: bool = True
    device: Sequence[str] = ()
    upload: Sequence[str] = ()

    @property
    def presets(self) -> tuple[str, ...]:
        """The speeds that the codec knows, fastest first."""
        return tuple(self.speeds)

    @property
    def survives(self) -> bool:
        """What is written of a file plays wherever writing it ended; an animated WebP says in front how long it is."""
        return self.muxer != "webp"

    def size(self, clip: Clip) -> tuple[int, int]:
        """Width and height of the video in pixels: those of the frames, made larger where they have to be."""
        across, down = self.unit
        return -(-clip.width // across) * across, -(-clip.height // down) * down

    def encoded(self, channels: int) -> str:
        """ffmpeg's name of what frames with so many channels are encoded as."""
        special = {1: self.grey_format, 4: self.alpha_format}.get(channels)
        return special if special is not None else self.pixel_format


#: use_metadata_tags keeps keys that MP4 does not know (prompt, workflow).
_MP4_TAGS = ("-movflags", "use_metadata_tags")
#: Players on Apple's systems take H.265 under this name only.
_HVC1 = ("-tag:v", "hvc1")
_AAC = ("-c:a", "aac", "-b:a", "192k")
#: At lower rates, which it knows as well, ffmpeg's files begin a little late.
_OPUS = ("-c:a", "libopus", "-b:a", "160k", "-ar", "48000")
_FLAC = ("-c:a", "flac")
_PCM = ("-c:a", "pcm_s24le")

_X264_SPEEDS = speeds("-preset", *PRESETS)
#: SVT-AV1 counts from 13 down to 0; stock's Save WEBM takes 6.
_SVT_SPEEDS = speeds("-preset", 12, 11, 10, 9, 8, 6, 5, 4, 3)
#: libvpx: a way of searching and how much of it is left out.
_VP9_SPEEDS: Mapping[str, Sequence[str]] = {
    preset: ("-deadline", deadline, "-cpu-used", str(skipped))
    for preset, (deadline, skipped) in zip(
        PRESETS,
        [("realtime", 8), ("realtime", 7), ("realtime", 6), *(("good", n) for n in (5, 4, 3, 2, 1, 0))],
        strict=True,
    )
}
_WEBP_SPEEDS = speeds("-compression_level", 0, 1, 2, 3, 3, 4, 5, 6, 6)

#: What plays everywhere. The defaults are those of stock's Save Video.
H264_MP4 = VideoFormat(
    name="h264",
    extension=".mp4",
    muxer="mp4",
    encoder="libx264",
    pixel_format="yuv420p",
    planar=PixelFormat.YUV420,
    crf=23,
    crf_range=(0, 51),
    speeds=_X264_SPEEDS,
    # Centre, in the order of H.264's table E-1; ffmpeg's own option for it is overruled by the frames.
    options=("-x264-params", "chromaloc=1"),
    muxer_options=_MP4_TAGS,
    fragments=True,
    sound=_AAC,
)

#: A colour for each pixel. Chromium plays it, Firefox and most television sets do not.
H264_444_MP4 = VideoFormat(
    name="h264-444",
    extension=".mp4",
    muxer="mp4",
    encoder="libx264",
    pixel_format="yuv444p",
    frames=PixelFormat.YUV444,
    planar=PixelFormat.YUV444,
    colour=Colour.FULL,
    crf=23,
    crf_range=(0, 51),
    speeds=_X264_SPEEDS,
    muxer_options=_MP4_TAGS,
    fragments=True,
    sound=_AAC,
    unit=(1, 1),
    in_browsers=False,
)


def _h265(name: str, pixel_format: str, frames: PixelFormat, planar: PixelFormat) -> VideoFormat:
    return VideoFormat(
        name=name,
        extension=".mp4",
        muxer="mp4",
        encoder="libx265",
        pixel_format=pixel_format,
        frames=frames,
        planar=planar,
        crf=28,
        crf_range=(0, 51),
        speeds=_X264_SPEEDS,
        options=("-x265-params", "chromaloc=1:log-level=error", *_HVC1),
        muxer_options=_MP4_TAGS,
        fragments=True,
        sound=_AAC,
        # Below that x265 refuses.
        min_side=16,
        in_browsers=False,
    )


H265_MP4 = _h265("h265", "yuv420p", PixelFormat.UINT8, PixelFormat.YUV420)
H265_10_MP4 = _h265("h265-10", "yuv420p10le", PixelFormat.YUV420_10, PixelFormat.YUV420_10)


def _av1(name: str, container: str, pixel_format: str, frames: PixelFormat, planar: PixelFormat) -> VideoFormat:
    return VideoFormat(
        name=name,
        extension="." + container,
        muxer=container,
        encoder="libsvtav1",
        pixel_format=pixel_format,
        frames=frames,
        planar=planar,
        crf=30,
        crf_range=(1, 63),
        quality=_whole_crf,
        speeds=_SVT_SPEEDS,
        muxer_options=_MP4_TAGS if container == "mp4" else (),
        fragments=container == "mp4",
        sound=_AAC if container == "mp4" else _OPUS,
        # Below that SVT-AV1 refuses.
        min_side=64,
    )


AV1_MP4 = _av1("av1", "mp4", "yuv420p", PixelFormat.UINT8, PixelFormat.YUV420)
AV1_10_MP4 = _av1("av1-10", "mp4", "yuv420p10le", PixelFormat.YUV420_10, PixelFormat.YUV420_10)
AV1_WEBM = _av1("av1-webm", "webm", "yuv420p", PixelFormat.UINT8, PixelFormat.YUV420)
AV1_10_WEBM = _av1("av1-10-webm", "webm", "yuv420p10le", PixelFormat.YUV420_10, PixelFormat.YUV420_10)

#: Keeps alpha, as stock's Save WEBM does.
VP9_WEBM = VideoFormat(
    name="vp9",
    extension=".webm",
    muxer="webm",
    encoder="libvpx-vp9",
    pixel_format="yuv420p",
    alpha_format="yuva420p",
    planar=PixelFormat.YUV420,
    crf=31,
    crf_range=(0, 63),
    quality=_vp9_quality,
    speeds=_VP9_SPEEDS,
    options=("-row-mt", "1"),
    sound=_OPUS,
)

#: Lossless: the frames' own bytes come back, alpha too.
FFV1_MKV = VideoFormat(
    name="ffv1",
    extension=".mkv",
    muxer="matroska",
    encoder="ffv1",
    pixel_format="bgr0",
    alpha_format="bgra",
    grey_format="gray",
    colour=Colour.RGB,
    # Version 3 with checksums; every frame stands alone, and four slices are coded side by side.
    options=("-level", "3", "-g", "1", "-slices", "4", "-slicecrc", "1"),
    sound=_FLAC,
    unit=(1, 1),
    in_browsers=False,
)


def _prores(
    name: str, profile: str, frames: PixelFormat, alpha_format: str | None, unit: tuple[int, int]
) -> VideoFormat:
    return VideoFormat(
        name=name,
        extension=".mov",
        muxer="mov",
        encoder="prores_ks",
        pixel_format=f"{frames.value}le",
        alpha_format=alpha_format,
        frames=frames,
        planar=frames,
        # ProRes has no number for sRGB's transfer function, and editors expect BT.709 throughout.
        transfer="bt709",
        options=("-profile:v", profile, "-vendor", "apl0", "-alpha_bits", "16"),
        muxer_options=_MP4_TAGS,
        fragments=True,
        sound=_PCM,
        unit=unit,
        in_browsers=False,
    )


PRORES_422_MOV = _prores("prores-422-hq", "hq", PixelFormat.YUV422_10, None, (2, 1))
PRORES_4444_MOV = _prores("prores-4444", "4444", PixelFormat.YUV444_10, "yuva444p10le", (1, 1))

GIF = VideoFormat(
    name="gif",
    extension=".gif",
    muxer="gif",
    encoder="gif",
    pixel_format="pal8",
    colour=Colour.RGB,
    tags=None,
    loops=True,
    # Delays are hundredths of a second, and browsers play 1/100 s as 1/10 s.
    max_rate=Fraction(50),
    unit=(1, 1),
)

WEBP = VideoFormat(
    name="webp",
    extension=".webp",
    muxer="webp",
    encoder="libwebp_anim",
    # libwebp converts by itself.
    pixel_format="bgra",
    colour=Colour.RGB,
    alpha_format="bgra",
    crf=23,
    crf_range=(0, 63),
    quality=_webp_quality,
    speeds=_WEBP_SPEEDS,
    tags=Tags.EXIF,
    loops=True,
    # Delays are thousandths of a second.
    max_rate=Fraction(100),
    unit=(1, 1),
)

#: Formats that every ffmpeg can write which was built with their encoders, as people read them.
VIDEO_FORMATS: Mapping[str, VideoFormat] = {
    "mp4 (H.264)": H264_MP4,
    "mp4 (H.264 4:4:4)": H264_444_MP4,
    "mp4 (H.265)": H265_MP4,
    "mp4 (H.265 10-bit)": H265_10_MP4,
    "mp4 (AV1)": AV1_MP4,
    "mp4 (AV1 10-bit)": AV1_10_MP4,
    "webm (VP9)": VP9_WEBM,
    "webm (AV1)": AV1_WEBM,
    "webm (AV1 10-bit)": AV1_10_WEBM,
    "mkv (FFV1)": FFV1_MKV,
    "mov (ProRes 422 HQ)": PRORES_422_MOV,
    "mov (ProRes 4444)": PRORES_4444_MOV,
    "gif": GIF,
    "webp (animated)": WEBP,
}


def exact_rate(fps: float | Fraction) -> Fraction:
    """The frame rate that is meant by ``fps``: 23.976 means 24000/1001; a fraction means itself.

    Raises:
        ValueError: it is not positive, or not a rate that a file can state exactly.
    """
    if isinstance(fps, float):
        if not 0 < fps < _MAX_RATE_PART:
            raise ValueError(f"expected a positive frame rate, got {fps}")
        # Within rounding to two places, and well away from the whole number beside it.
        for rate in _NTSC_RATES:
            if abs(fps - rate) < 0.005:
                return rate
        return Fraction(fps).limit_denominator(1000)
    rate = Fraction(fps)
    if rate <= 0 or max(rate.numerator, rate.denominator) > _MAX_RATE_PART:
        raise ValueError(f"expected a positive frame rate with parts up to {_MAX_RATE_PART}, got {rate}")
    return rate
