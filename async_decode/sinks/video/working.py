"""Which formats work here: only those whose encoders have encoded a frame are offered.

That ffmpeg knows an encoder says nothing about the machine, and not every ffmpeg knows every one (imageio-ffmpeg's
4.2.2 has no SVT-AV1). Trying costs up to a second for each, so it is done in the background, side by side, and what
came out is kept in a file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from ...errors import FFmpegError
from ...frames import Clip
from ..ffmpeg import FFmpegProcess, ask, find_ffmpeg
from .arguments import encode_arguments
from .catalogue import VIDEO_FORMATS
from .format import VideoFormat
from .hardware import hardware_formats

#: How long one encoder may take for its frame, in seconds.
PROBE_SECONDS = 20.0
#: The frame that is tried: some encoders refuse small ones.
_CLIP = Clip(height=256, width=512, channels=3, frames=1)


def works(video: VideoFormat, executable: str) -> bool | None:
    """Whether ``video`` encodes a frame on this machine; ``None``: there was no answer in time."""
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
        return None if process.was_ended else False
    finally:
        timer.cancel()
        process.end(grace=0)
    return True


class WorkingFormats:
    """The formats whose encoders work here, found out once.

    Args:
        cache: the file that keeps what was found. Default: ``None``, nothing does.
        machine: what else the answer depends on, such as the names of the GPUs. Default: ``""``.
        software: formats that are there until it is known that they do not work. Default: ``None``, ``VIDEO_FORMATS``.
        hardware: formats that are not until it is known that they do. Default: ``None``, those of ``hardware_formats``.
    """

    def __init__(
        self,
        cache: Path | None = None,
        *,
        machine: str = "",
        software: Mapping[str, VideoFormat] | None = None,
        hardware: Mapping[str, VideoFormat] | None = None,
    ) -> None:
        self._cache = cache
        self._machine = machine
        self._software = VIDEO_FORMATS if software is None else software
        self._candidates = {**self._software, **(hardware_formats() if hardware is None else hardware)}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._known: tuple[str, ...] | None = None

    def known(self) -> Mapping[str, VideoFormat]:
        """What works as far as that is known by now, at once: what a file says, else the software, until it was tried.

        Trying begins with the first call, in the background.
        """
        with self._lock:
            if self._thread is None and self._known is None:
                self._thread = threading.Thread(target=self._find, name="async-decode encoders", daemon=True)
                self._known = self._read()
                if self._known is None:
                    self._thread.start()
            names = tuple(self._software) if self._known is None else self._known
        return {name: self._candidates[name] for name in names}

    def wait(self, timeout: float | None = None) -> Mapping[str, VideoFormat]:
        """What works, when that is known.

        Args:
            timeout: seconds after which it is what is known by then. Default: ``None``, however long it takes.
        """
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
            with ThreadPoolExecutor(4, thread_name_prefix="async-decode encoders") as pool:
                answers = pool.map(lambda video: works(video, executable), tried.values())
                # A driver may hang for ever; what has no driver was only slow.
                found = tuple(
                    name
                    for name, answer in zip(tried, answers, strict=True)
                    if answer or (answer is None and name in self._software)
                )
        except FFmpegError:
            found = ()
        if not set(found) & set(self._software):
            # Saving will say what is wrong with ffmpeg.
            found = tuple(self._software)
        else:
            self._write(found)
        with self._lock:
            self._known = found

    def _key(self) -> str:
        executable = find_ffmpeg()
        stat = os.stat(executable)
        return f"{executable} {stat.st_size} {stat.st_mtime_ns} {self._machine} {','.join(self._candidates)}"

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
