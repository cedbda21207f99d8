"""What the arms save: names such as ``png4`` or ``h264-veryfast``, the sinks behind them, and what is in the files."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from async_decode.errors import FFmpegError
from async_decode.frames import PixelFormat
from async_decode.sinks import H264_MP4, ImageFilesSink, PngEncoder, Sink, TensorSink, VideoSink
from async_decode.sinks.ffmpeg import ask, file_url, find_ffmpeg
from async_decode.sinks.files import OutputNames

#: Wan's frame rate.
FPS = 16

_PATTERN = re.compile(
    r"(?:png(?P<level>\d)|h264-(?P<preset>\w+)|(?P<image>image))(?:@(?P<writers>\d+))?(?:/(?P<depth>\d+))?"
)


@dataclass(frozen=True)
class Saving:
    """One way of saving, as every arm does it.

    Attributes:
        name: as on the command line: ``png4``, ``png1@14/6`` (14 writers, 6 slots), ``h264-veryfast``, ``image``.
        png_level: zlib's level; ``None``: no PNG files.
        preset: x264's; ``None``: no video.
        writers: threads that write PNG files; ``None``: the sink's own choice.
        buffer_depth: slots of the asynchronous arm's ring; ``None``: the benchmark's.
    """

    name: str
    png_level: int | None = None
    preset: str | None = None
    writers: int | None = None
    buffer_depth: int | None = None

    @classmethod
    def parse(cls, name: str) -> Saving:
        """What ``name`` means.

        Raises:
            ValueError: nothing.
        """
        found = _PATTERN.fullmatch(name)
        preset = found["preset"] if found else None
        if found is None or (preset is not None and preset not in H264_MP4.presets):
            raise ValueError(
                "expected png0 to png9, h264-<preset> or image, optionally followed by @<writers> and /<slots>, "
                f"got {name!r}"
            )
        return cls(
            name=name,
            png_level=_number(found["level"]),
            preset=preset,
            writers=_number(found["writers"]),
            buffer_depth=_number(found["depth"]),
        )

    @property
    def pixel_format(self) -> PixelFormat:
        """What its sink takes."""
        return PixelFormat.FLOAT32 if self.png_level is None and self.preset is None else PixelFormat.UINT8

    @property
    def group(self) -> str:
        """Savings of one group make the same files; only how they get there differs."""
        return re.split("[@/]", self.name)[0]

    def sink(self, folder: Path, stem: str) -> Sink:
        """A fresh sink that saves into ``folder``."""
        names = OutputNames(folder, stem)
        if self.png_level is not None:
            return ImageFilesSink(names, PngEncoder(compress_level=self.png_level), writers=self.writers)
        if self.preset is not None:
            return VideoSink(names, fps=FPS, preset=self.preset)
        return TensorSink()

    @staticmethod
    def files(sink: Sink) -> list[Path]:
        """The complete files of a sink that ``sink`` made."""
        if isinstance(sink, ImageFilesSink):
            return sink.files
        if isinstance(sink, VideoSink) and sink.path is not None:
            return [sink.path]
        return []


def content_digest(files: Sequence[Path]) -> str | None:
    """A hash of what is in ``files``: of the bytes of images, of the decoded frames of a video; ``None`` without files.

    Containers of video may differ where frames do not.
    """
    if not files:
        return None
    if files[0].suffix == ".png":
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.read_bytes())
        return digest.hexdigest()
    return _decoded_digest(files[0])


def frames_in(video: Path) -> int:
    """How many frames a video holds."""
    text = ask(find_ffmpeg(), "-v", "error", "-i", file_url(video), "-map", "0:v", "-c", "copy", "-f", "framehash", "-")
    return sum(1 for line in text.splitlines() if not line.startswith("#"))


def _decoded_digest(video: Path) -> str:
    command = [find_ffmpeg(), "-v", "error", "-i", file_url(video), "-map", "0:v", "-f", "md5", "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise FFmpegError(f"{video.name} could not be read back: {done.stderr.strip()}")
    return done.stdout.strip().removeprefix("MD5=")


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
