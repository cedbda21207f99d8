"""The second pass of a video: a copy of what was written that is an ordinary file.

Its ffmpeg is started before the first one has ended, so that it is up when there is something to copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..ffmpeg import FFmpegProcess

#: What is read at once, in bytes.
_BLOCK = 1 << 20


class WholeFile:
    """Copies one file.

    Args:
        arguments: ffmpeg's, as of ``whole_arguments``.
        output: the file that those name.
        executable: the ffmpeg to run.

    Raises:
        FFmpegError: ffmpeg could not be started.
    """

    def __init__(self, arguments: Sequence[str], *, output: str, executable: str | None) -> None:
        self._output = output
        self._process = FFmpegProcess(arguments, executable=executable)

    def replace(self, written: Path) -> None:
        """Put the copy of ``written`` in its place.

        Raises:
            FFmpegError: ffmpeg failed, or was ended; ``written`` is as it was.
            OSError: the file could not be read or replaced.
        """
        block = memoryview(bytearray(_BLOCK))
        with open(written, "rb", buffering=0) as file:
            while count := file.readinto(block):
                self._process.write(block[:count])
        self._process.finish()
        os.replace(self._output, written)

    def end(self) -> None:
        """Make sure that the process is gone, from any thread. Never raises."""
        self._process.end(grace=0)
