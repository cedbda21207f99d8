"""The formats of video files that every ffmpeg can write which was built with their encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from ...frames import PixelFormat
from .format import PRESETS, Colour, Tags, VideoFormat, speeds


def _whole_crf(value: float) -> list[str]:
    return ["-crf", str(round(value))]


def _vp9_quality(value: float) -> list[str]:
    # Without a rate of 0 the quality would only be a limit to ffmpeg's default rate.
    return ["-crf", str(round(value)), "-b:v", "0", *(["-lossless", "1"] if value == 0 else [])]


def _webp_quality(value: float) -> list[str]:
    """libwebp's own scale goes up: 100 is its best."""
    return ["-lossless", "1"] if value == 0 else ["-quality", f"{100 * (1 - value / 63):.1f}"]


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
    # Beyond that x264 refuses.
    max_size=(16384, 16384),
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
    max_size=(16384, 16384),
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
        min_size=(16, 16),
        in_browsers=False,
    )


H265_MP4 = _h265("h265", "yuv420p", PixelFormat.UINT8, PixelFormat.YUV420)
H265_10_MP4 = _h265("h265-10", "yuv420p10le", PixelFormat.YUV420_10, PixelFormat.YUV420_10)


def _hdr(video: VideoFormat, name: str, transfer: str) -> VideoFormat:
    """``video`` for frames that are HLG or PQ with BT.2020's primaries already, as stock's *Create Video* has it."""
    # 16 bits, since the device converts by BT.709 only.
    wide = PixelFormat.UINT16
    return replace(video, name=name, transfer=transfer, is_wide=True, frames=wide, planar=wide)


H265_HLG_MP4 = _hdr(H265_10_MP4, "h265-hlg", "arib-std-b67")
H265_PQ_MP4 = _hdr(H265_10_MP4, "h265-pq", "smpte2084")


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
        # Beyond that SVT-AV1 refuses.
        max_rate=Fraction(240),
        min_size=(64, 64),
        max_size=(16384, 8704),
    )


AV1_MP4 = _av1("av1", "mp4", "yuv420p", PixelFormat.UINT8, PixelFormat.YUV420)
AV1_10_MP4 = _av1("av1-10", "mp4", "yuv420p10le", PixelFormat.YUV420_10, PixelFormat.YUV420_10)
AV1_HLG_MP4 = _hdr(AV1_10_MP4, "av1-hlg", "arib-std-b67")
AV1_PQ_MP4 = _hdr(AV1_10_MP4, "av1-pq", "smpte2084")
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
    # Each slice takes a pixel at least.
    min_size=(2, 2),
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

PRORES_4444_XQ_MOV = _prores("prores-4444-xq", "4444xq", PixelFormat.YUV444_10, "yuva444p10le", (1, 1))


def _dnxhr(name: str, pixel_format: str, frames: PixelFormat, unit: tuple[int, int]) -> VideoFormat:
    """Avid's, for editing as well."""
    return VideoFormat(
        name=name,
        extension=".mov",
        muxer="mov",
        encoder="dnxhd",
        pixel_format=pixel_format,
        frames=frames,
        planar=frames,
        transfer="bt709",
        options=("-profile:v", name.replace("-", "_")),
        muxer_options=_MP4_TAGS,
        fragments=True,
        sound=_PCM,
        unit=unit,
        # Below that it is not defined.
        min_size=(256, 120),
        in_browsers=False,
    )


DNXHR_HQ_MOV = _dnxhr("dnxhr-hq", "yuv422p", PixelFormat.YUV422_10, (2, 1))
DNXHR_HQX_MOV = _dnxhr("dnxhr-hqx", "yuv422p10le", PixelFormat.YUV422_10, (2, 1))
DNXHR_444_MOV = _dnxhr("dnxhr-444", "yuv444p10le", PixelFormat.YUV444_10, (1, 1))

GIF = VideoFormat(
    name="gif",
    extension=".gif",
    muxer="gif",
    encoder="gif",
    pixel_format="pal8",
    # One colour of the palette is no colour.
    alpha_format="pal8",
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
    max_size=(16383, 16383),
)

#: Formats that every ffmpeg can write which was built with their encoders, as people read them.
VIDEO_FORMATS: Mapping[str, VideoFormat] = {
    "mp4 (H.264)": H264_MP4,
    "mp4 (H.264 4:4:4)": H264_444_MP4,
    "mp4 (H.265)": H265_MP4,
    "mp4 (H.265 10-bit)": H265_10_MP4,
    "mp4 (H.265 HDR)": H265_HLG_MP4,
    "mp4 (H.265 HDR PQ)": H265_PQ_MP4,
    "mp4 (AV1)": AV1_MP4,
    "mp4 (AV1 10-bit)": AV1_10_MP4,
    "mp4 (AV1 HDR)": AV1_HLG_MP4,
    "mp4 (AV1 HDR PQ)": AV1_PQ_MP4,
    "webm (VP9)": VP9_WEBM,
    "webm (AV1)": AV1_WEBM,
    "webm (AV1 10-bit)": AV1_10_WEBM,
    "mkv (FFV1)": FFV1_MKV,
    "mov (ProRes 422 HQ)": PRORES_422_MOV,
    "mov (ProRes 4444)": PRORES_4444_MOV,
    "mov (ProRes 4444 XQ)": PRORES_4444_XQ_MOV,
    "mov (DNxHR HQ)": DNXHR_HQ_MOV,
    "mov (DNxHR HQX)": DNXHR_HQX_MOV,
    "mov (DNxHR 444)": DNXHR_444_MOV,
    "gif": GIF,
    "webp (animated)": WEBP,
}
