"""Encoders in the hardware: which there may be (``working.py`` finds out which of them work here).

None is ever the default: at the same size their files are worse than x264's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...frames import PixelFormat
from .catalogue import H264_MP4
from .format import PRESETS, VideoFormat, speeds


@dataclass(frozen=True)
class _Maker:
    """The encoders of one maker's hardware.

    Attributes:
        name: as people know it; suffix: as ffmpeg's encoders end.
        codecs: which it has.
        pixels: what it takes in 8 and in 10 bits.
        speeds: ffmpeg's options for each of the presets.
        options: further options.
        device: options that open the hardware; upload: filters that bring a frame there, ``{}`` being the pixels.
    """

    name: str
    suffix: str
    codecs: tuple[str, ...]
    speeds: Mapping[str, Sequence[str]]
    pixels: tuple[str, str] = ("nv12", "p010le")
    options: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    upload: tuple[str, ...] = ()


def _cq(value: float) -> list[str]:
    return ["-rc", "vbr", "-cq", f"{value:g}", "-b:v", "0"]


def _global_quality(value: float) -> list[str]:
    return ["-global_quality", str(round(value))]


def _qp(value: float) -> list[str]:
    return ["-rc", "cqp", "-qp_i", str(round(value)), "-qp_p", str(round(value))]


def _vaapi_qp(value: float) -> list[str]:
    return ["-rc_mode", "CQP", "-global_quality", str(round(value))]


def _share(value: float) -> list[str]:
    """VideoToolbox counts up to 100, its best."""
    return ["-q:v", str(max(1, round(100 - value * 100 / 51)))]


_QUALITIES = {"nvenc": _cq, "qsv": _global_quality, "amf": _qp, "vaapi": _vaapi_qp, "videotoolbox": _share}
_ONE_SPEED: Mapping[str, Sequence[str]] = {preset: () for preset in PRESETS}
_QSV_PRESETS = ("veryfast", "veryfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_AMF_PRESETS = ("speed", "speed", "speed", "speed", "balanced", "balanced", "quality", "quality", "quality")
_ALL_CODECS = ("h264", "hevc", "av1")
_MAKERS = (
    _Maker(
        "NVENC",
        "nvenc",
        _ALL_CODECS,
        speeds("-preset", "p1", "p1", "p2", "p3", "p4", "p4", "p5", "p6", "p7"),
        pixels=("yuv420p", "p010le"),
        options=("-tune", "hq"),
    ),
    _Maker("QSV", "qsv", _ALL_CODECS, speeds("-preset", *_QSV_PRESETS)),
    # Their AV1 counts quality to 255.
    _Maker("AMF", "amf", ("h264", "hevc"), speeds("-quality", *_AMF_PRESETS)),
    _Maker(
        "VAAPI",
        "vaapi",
        ("h264", "hevc"),
        _ONE_SPEED,
        device=("-vaapi_device", "/dev/dri/renderD128"),
        upload=("format={}", "hwupload"),
    ),
    _Maker("VideoToolbox", "videotoolbox", ("h264", "hevc"), _ONE_SPEED),
)
_CODEC_NAMES = {"h264": "H.264", "hevc": "H.265", "av1": "AV1"}


def hardware_formats() -> Mapping[str, VideoFormat]:
    """Every format that hardware of some maker could write, as people read them."""
    return dict(_candidates())


def _candidates() -> Iterator[tuple[str, VideoFormat]]:
    for maker in _MAKERS:
        for codec in maker.codecs:
            for bits in (8,) if codec == "h264" else (8, 10):
                pixels = maker.pixels[bits > 8]
                deep = " 10-bit" if bits > 8 else ""
                planes = PixelFormat.YUV420_10 if bits > 8 else PixelFormat.YUV420
                yield (
                    f"mp4 ({_CODEC_NAMES[codec]}{deep} {maker.name})",
                    replace(
                        H264_MP4,
                        name=f"{codec}{deep.replace(' ', '-')}-{maker.suffix}",
                        encoder=f"{codec}_{maker.suffix}",
                        pixel_format=pixels,
                        frames=planes if bits > 8 else PixelFormat.UINT8,
                        planar=planes,
                        crf_range=(1, 51),
                        quality=_QUALITIES[maker.suffix],
                        speeds=maker.speeds,
                        options=(*maker.options, *(("-tag:v", "hvc1") if codec == "hevc" else ())),
                        in_browsers=codec != "hevc",
                        device=maker.device,
                        upload=tuple(filter.format(pixels) for filter in maker.upload),
                    ),
                )
