"""The second pass of a video: a copy of what was written that is an ordinary file, with its sound, and is counted.

Where there is no sound, its ffmpeg is started before the first one has ended, so that it is up when there is something
to copy.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from ...errors import FFmpegError
from ..ffmpeg import FFmpegProcess
from .arguments import count_arguments, whole_arguments
from .format import VideoFormat
from .sound import Sound

#: What is read at once, in bytes.
_BLOCK = 1 << 20

#: Starts an ffmpeg with arguments.
Start = Callable[[Sequence[str]], FFmpegProcess]


class IncompleteCopy(FFmpegError):
    """The copy lacks frames of what was copied."""


class SecondPass:
    """Copies one file.

    Args:
        video: its format.
        rate: its frames a second.
        source: the file, which is written to until ``run``.
        output: the file to write.
        tags: where ffmpeg reads the tags.
        sound: what is heard; ``None``: nothing is.
        most: how many frames to copy at most; ``None``: all.
        is_timed: tell ffmpeg how long a frame is, which ffmpeg 4 does not find in fragments.
        is_decoded: count the frames of the copy by decoding them: what ffmpeg 4 copies is not always shown.
        start: starts ffmpeg.

    Attributes:
        has_sound: it puts sound in.
        is_timed: as above.

    Raises:
        FFmpegError: ffmpeg could not be started.
    """

    def __init__(
        self,
        video: VideoFormat,
        rate: Fraction,
        source: Path,
        output: Path,
        *,
        tags: str | None,
        sound: Sound | None,
        most: int | None = None,
        is_timed: bool = False,
        is_decoded: bool = False,
        start: Start,
    ) -> None:
        self._video = video
        self._rate = rate
        self._source = source
        self._output = output
        self._tags = tags
        self.has_sound = sound is not None
        self._sound = sound
        self.is_timed = is_timed
        self._most = most
        self._is_decoded = is_decoded
        self._start = start
        # Standard input carries the sound, or the video where there is none: then nothing is looked at too early.
        self._process = self._started() if sound is None else None

    def run(self, frames: int) -> None:
        """Copy the file, which is closed.

        Args:
            frames: how many it holds.

        Raises:
            IncompleteCopy: ffmpeg has not copied every frame.
            FFmpegError: ffmpeg failed or was ended.
            OSError: the file could not be read.
        """
        process = self._process = self._process or self._started()
        for block in self._file_blocks() if self._sound is None else self._sound.blocks(self._samples(frames)):
            process.write(block)
        process.finish()
        copied = count_frames(self._video, self._output, self._start, by_decoding=self._is_decoded)
        if copied != frames:
            raise IncompleteCopy(f"ffmpeg has copied {copied} of {frames} frames; install a newer imageio-ffmpeg")

    def end(self) -> None:
        """Make sure that the process is gone, from any thread. Never raises."""
        if self._process is not None:
            self._process.end(grace=0)

    def _started(self) -> FFmpegProcess:
        source = None if self._sound is None else os.fspath(self._source)
        arguments = whole_arguments(
            self._video,
            source=source,
            tags=self._tags,
            sound=self._sound,
            most=self._most,
            rate=self._rate if self.is_timed else None,
            output=os.fspath(self._output),
        )
        return self._start(arguments)

    def _file_blocks(self) -> Iterator[memoryview]:
        block = memoryview(bytearray(_BLOCK))
        with open(self._source, "rb", buffering=0) as file:
            while count := file.readinto(block):
                yield block[:count]

    def _samples(self, frames: int) -> int:
        assert self._sound is not None
        # Never shorter than the video by a part of a sample: ffmpeg would leave out the last frame.
        return math.ceil(frames / self._rate * self._sound.rate)


def count_frames(video: VideoFormat, source: Path, start: Start, *, by_decoding: bool = False) -> int:
    """How many whole frames a file holds, also one whose writing was ended; by decoding: how many it shows.

    Raises:
        FFmpegError: ffmpeg could not be started, or was ended.
    """
    process = start(count_arguments(video, os.fspath(source), by_decoding=by_decoding))
    try:
        process.finish()
    except FFmpegError:
        # That the file ends too early is no news.
        if process.was_ended:
            raise
    told = re.findall(r"(\d+) packets muxed", process.tail)
    return int(told[-1]) if told else 0
