"""What the sinks' tests share: frames, feeding a sink, looking into files with ffmpeg, and what must not survive."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from async_decode import Clip, PixelFormat, Recorder
from async_decode.sinks import ImageEncoder, Sink
from async_decode.sinks.ffmpeg import ask, find_ffmpeg, major_version

#: The longest that a test waits for what should happen at once, in seconds.
PATIENCE = 60
#: Names the ffmpeg that files are looked into with, where it is not the one that made them: an old one's words differ.
READER_VARIABLE = "TEST_FFMPEG_READER"


def pictures(frames: int, height: int = 32, width: int = 48, channels: int = 3, *, noise: int = 24) -> np.ndarray:
    """Smooth, moving, slightly noisy frames ``(T, H, W, C)`` uint8, all different from each other."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :channels]
    waves = 110 + 90 * np.sin(x / 9 + t / 3 + c) * np.cos(y / 11 + c / 2)
    return (waves + np.random.default_rng(frames).integers(0, noise, waves.shape)).astype(np.uint8)


def clip_of(frames: np.ndarray) -> Clip:
    """The geometry of ``frames``, ``(T, H, W, C)``."""
    count, height, width, channels = frames.shape
    return Clip(height=height, width=width, channels=channels, frames=count)


def save(sink: Sink, frames: np.ndarray, *, chunk: int = 4) -> Recorder:
    """Let ``sink`` take all of ``frames``, as a pipeline does; return what it recorded."""
    recorder = Recorder()
    sink.open(clip_of(frames), recorder)
    taken = [sink.write(frames[first : first + chunk], first) for first in range(0, len(frames), chunk)]
    for future in taken:
        if future is not None:
            future.result(PATIENCE)
    sink.close()
    return recorder


def sink_threads() -> set[threading.Thread]:
    """The living threads that sinks have started."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(("async-decode", "ffmpeg"))}


def ffmpeg_children() -> set[int]:
    """Numbers of this process's ffmpegs, zombies too; none where there is no /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name.startswith("ffmpeg") and int(rest.split()[1]) == os.getpid():
            found.add(int(entry.parent.name))
    return found


@contextmanager
def nothing_survives(folder: Path) -> Iterator[None]:
    """What began in here leaves no thread of a sink, no ffmpeg, and no ``.part`` in ``folder``."""
    # What an earlier test that failed has left is its own failure, not that of every test behind it.
    threads, processes = sink_threads(), ffmpeg_children()
    yield
    left = sink_threads() - threads
    assert not left, f"threads live on: {left}"
    children = ffmpeg_children() - processes
    assert not children, f"ffmpeg lives on: {children}"
    parts = list(folder.rglob("*.part"))
    assert not parts, f"half-written files stay: {parts}"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system that holds ``size``."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", os.fspath(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a tmpfs: {error}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", os.fspath(disk)], check=True)


@cache
def old_ffmpeg() -> bool:
    """Whether the ffmpeg that makes the files is one of version 4, the oldest that imageio-ffmpeg brings."""
    return major_version(find_ffmpeg()) == 4


def newer_ffmpeg(reason: str) -> pytest.MarkDecorator:
    """For a test that such an old ffmpeg cannot pass; ``reason`` goes on from "ffmpeg 4"."""
    return pytest.mark.skipif(old_ffmpeg(), reason=f"ffmpeg 4 {reason}")


#: For tests that look at how long a file says it is.
LENGTH = newer_ffmpeg("states no length for a file's last frame")


def needs_encoder(encoder: str) -> None:
    """Skip the test where this ffmpeg has no such encoder."""
    if f" {encoder} " not in ask(find_ffmpeg(), "-encoders"):
        pytest.skip(f"this ffmpeg has no {encoder}")


def run_ffmpeg(
    *arguments: str | Path, check: bool = True, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg, feeding it ``data``, and return what it printed and wrote."""
    command = [os.environ.get(READER_VARIABLE) or find_ffmpeg(), "-hide_banner", "-nostdin", *map(os.fspath, arguments)]
    return subprocess.run(command, capture_output=True, check=check, timeout=PATIENCE, input=data)


def decode(path: Path, pixel_format: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """The frames of a video, ``(T, H, W, channels)`` uint8; ``size`` is width and height."""
    raw = run_ffmpeg("-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", pixel_format, "-").stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], channels)


@dataclass(frozen=True)
class Probe:
    """What ffmpeg says about the one video stream of a file.

    Attributes:
        codec: such as ``h264``.
        pixels: the pixel format with everything in its brackets.
        size: width and height in pixels.
        frames: how many there are.
        rate: frames a second, exactly, from the times of the frames.
        duration: in seconds, as the container says.
    """

    codec: str
    pixels: str
    size: tuple[int, int]
    frames: int
    rate: Fraction
    duration: float


def probe(path: Path) -> Probe:
    """Ask ffmpeg about ``path``."""
    # verbose, because the siting of chroma is not printed otherwise.
    text = run_ffmpeg("-v", "verbose", "-i", path, check=False).stderr.decode()
    stream = re.search(r"Stream #0:0.*?: Video: (\w+).*?, (\w+(?:\(.*?\))?), (\d+)x(\d+)", text)
    assert stream is not None, text
    length = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    assert length is not None, text
    # One line a frame, in the order of decoding: stream, dts, pts, …; the time base of the file stands above.
    hashes = run_ffmpeg("-v", "error", "-i", path, "-c", "copy", "-f", "framehash", "-").stdout.decode()
    base = re.search(r"#tb 0: (\d+/\d+)", hashes)
    assert base is not None, hashes
    times = sorted(int(line.split(",")[2]) for line in hashes.splitlines() if not line.startswith("#"))
    steps = {later - earlier for earlier, later in itertools.pairwise(times)}
    assert len(steps) == 1, f"expected at least two frames, evenly spaced, got times {times}"
    return Probe(
        codec=stream[1],
        pixels=stream[2],
        size=(int(stream[3]), int(stream[4])),
        frames=len(times),
        rate=1 / (Fraction(base[1]) * steps.pop()),
        duration=int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3]),
    )


def tags_of(path: Path) -> dict[str, str]:
    """The tags of a file as ffmpeg reads them."""
    text = run_ffmpeg("-v", "error", "-i", path, "-f", "ffmetadata", "-").stdout.decode()
    lines = re.finditer(r"((?:[^\\=\n]|\\.)+)=((?:[^\\\n]|\\.)*)\n", text.partition("\n")[2], re.DOTALL)
    return {_unescaped(line[1]): _unescaped(line[2]) for line in lines}


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def exif_texts(path: Path) -> dict[int, str]:
    """The texts in a picture's EXIF, by tag."""
    with Image.open(path) as image:
        # Pillow gives ASCII tags back as Latin-1, whatever they hold.
        return {
            tag: value.encode("latin-1").decode() for tag, value in image.getexif().items() if isinstance(value, str)
        }


def psnr(got: np.ndarray, wanted: np.ndarray) -> float:
    """Peak signal to noise ratio of uint8 pixels, in dB."""
    error = np.mean((got.astype(float) - wanted.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


class GateEncoder(ImageEncoder):
    """Encodes a frame only when the test says so; a frame is told by its first byte.

    Attributes:
        begun: the frames that writers have begun with, in that order.
    """

    name = "gate"
    extension = ".gate"
    pixel_format = PixelFormat.UINT8

    def __init__(self) -> None:
        self.begun: list[int] = []
        self._changed = threading.Condition()
        self._released: dict[int, BaseException | None] = {}

    def encode(self, frame: np.ndarray, file: IO[bytes]) -> None:
        number = int(frame.flat[0])
        with self._changed:
            self.begun.append(number)
            self._changed.notify_all()
            while number not in self._released:
                self._changed.wait(0.01)
                # What every encoder does sooner or later, and where an abort ends it.
                file.write(b"")
            error = self._released[number]
        file.write(frame.tobytes())
        if error is not None:
            raise error

    def wait_for(self, *numbers: int) -> None:
        """Wait until writers have begun with all of these frames."""
        with self._changed:
            assert self._changed.wait_for(lambda: set(numbers) <= set(self.begun), PATIENCE), self.begun

    def release(self, number: int, error: BaseException | None = None) -> None:
        """Let the frame be written, or fail."""
        with self._changed:
            self._released[number] = error
            self._changed.notify_all()


def numbered(frames: int) -> np.ndarray:
    """Small frames that a ``GateEncoder`` can tell apart: frame n is filled with n."""
    return np.arange(frames, dtype=np.uint8).repeat(4 * 4 * 3).reshape(frames, 4, 4, 3)
