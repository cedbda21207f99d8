"""Encoders in the hardware: which there may be, and which of them work here.

That ffmpeg knows an encoder says nothing about the machine: only one that has encoded a frame is offered. Trying costs
up to a second for each, so it is done in the background, side by side, and what came out is kept in a file. None is
ever the default: at the same size their files are worse than x264's.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from ...errors import FFmpegError
from ...frames import Clip, PixelFormat
from ..ffmpeg import FFmpegProcess, ask, find_ffmpeg
from .arguments import encode_arguments
from .catalogue import H264_MP4
from .format import PRESETS, VideoFormat, speeds

#: How long one encoder may take for its frame, in seconds.
PROBE_SECONDS = 20.0
#: The frame that is tried: some encoders refuse small ones.
_CLIP = Clip(height=256, width=512, channels=3, frames=1)


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


def works(video: VideoFormat, executable: str) -> bool:
    """Whether ``video`` encodes a frame on this machine."""
    bare = replace(video, muxer="null", muxer_options=(), fragments=False)
    arguments = encode_arguments(
        bare, _CLIP, rate=Fraction(24), crf=video.crf, preset=video.preset, output=os.devnull, frames=video.planar
    )
    try:
        process = FFmpegProcess(arguments, executable=executable)
    except FFmpegError:
        return False
    # A driver that hangs must not hang us.
    timer = threading.Timer(PROBE_SECONDS, process.end, kwargs={"grace": 0})
    timer.daemon = True
    timer.start()
    try:
        process.write(memoryview(bytes(_CLIP.frame_bytes(video.planar))))
        process.finish()
    except FFmpegError:
        return False
    finally:
        timer.cancel()
        process.end(grace=0)
    return True


class HardwareFormats:
    """The formats whose encoders work here, found out once.

    Args:
        cache: the file that keeps what was found; ``None``: nothing does.
        machine: what else the answer depends on, such as the names of the GPUs.
        candidates: the formats that are tried.
    """

    def __init__(
        self,
        cache: Path | None = None,
        *,
        machine: str = "",
        candidates: Mapping[str, VideoFormat] | None = None,
    ) -> None:
        self._cache = cache
        self._machine = machine
        self._candidates = hardware_formats() if candidates is None else candidates
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._known: tuple[str, ...] | None = None

    def known(self) -> Mapping[str, VideoFormat]:
        """What is known to work by now, at once: what a file says, else nothing until trying has ended.

        Trying begins with the first call, in the background.
        """
        with self._lock:
            if self._thread is None and self._known is None:
                self._thread = threading.Thread(target=self._find, name="async-decode hardware", daemon=True)
                self._known = self._read()
                if self._known is None:
                    self._thread.start()
            names = self._known or ()
        return {name: self._candidates[name] for name in names}

    def wait(self, timeout: float | None = None) -> Mapping[str, VideoFormat]:
        """What works, when that is known, or what is known after ``timeout`` seconds."""
        self.known()
        thread = self._thread
        if thread is not None and thread.ident is not None:
            thread.join(timeout)
        return self.known()

    def _find(self) -> None:
        try:
            executable = find_ffmpeg()
            listed = ask(executable, "-encoders")
            tried = {name: video for name, video in self._candidates.items() if f" {video.encoder} " in listed}
            with ThreadPoolExecutor(4, thread_name_prefix="async-decode hardware") as pool:
                found = tuple(
                    name
                    for name, good in zip(tried, pool.map(lambda v: works(v, executable), tried.values()), strict=True)
                    if good
                )
        except FFmpegError:
            # Saving will say what is wrong with ffmpeg.
            found = ()
        else:
            self._write(found)
        with self._lock:
            self._known = found

    def _key(self) -> str:
        executable = find_ffmpeg()
        stat = os.stat(executable)
        return f"{executable} {stat.st_size} {stat.st_mtime_ns} {self._machine}"

    def _read(self) -> tuple[str, ...] | None:
        if self._cache is None:
            return None
        with suppress(OSError, ValueError, FFmpegError, TypeError, KeyError):
            kept = json.loads(self._cache.read_text(encoding="utf-8"))
            if kept["key"] == self._key():
                return tuple(name for name in kept["formats"] if name in self._candidates)
        return None

    def _write(self, found: tuple[str, ...]) -> None:
        if self._cache is None:
            return
        # Only that the next start has to try again.
        with suppress(OSError):
            part = self._cache.with_name(f"{self._cache.name}.{os.getpid()}")
            part.write_text(json.dumps({"key": self._key(), "formats": found}, indent=1), encoding="utf-8")
            os.replace(part, self._cache)
