"""Frames that will be wanted once more, on disk: what playing a clip backwards or again needs without the memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..files import file_error


class FrameSpool:
    """A temporary file with the raw frames of a clip, gone with its process however that ends.

    It is next to where the video goes, because the system's folder for temporary files may be memory.

    Args:
        folder: where the file is.

    Raises:
        SinkError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._frame_bytes = 0
        self._count = 0
        try:
            # Without a name on Linux, removed at once elsewhere on POSIX, deleted on close by Windows.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise file_error(folder, error) from error

    def append(self, frame: memoryview) -> None:
        """Keep ``frame``, C-contiguous; all have one size.

        Raises:
            SinkError: the disk is full.
        """
        rest = frame.cast("B")
        self._frame_bytes = len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise file_error(self._folder / "(the frames that are kept to be played again)", error) from error
        self._count += 1

    def read(self, indices: Iterable[int]) -> Iterator[memoryview]:
        """These frames, by number; each is only good until the next one.

        Raises:
            SinkError: the disk failed.
        """
        frame = memoryview(bytearray(self._frame_bytes))
        for index in indices:
            try:
                self._file.seek(index * self._frame_bytes, os.SEEK_SET)
                rest = frame
                while rest:
                    count = self._file.readinto(rest)
                    if not count:
                        raise OSError("the temporary file with the frames ends too early")
                    rest = rest[count:]
            except OSError as error:
                raise file_error(self._folder, error) from error
            yield frame

    def close(self) -> None:
        """Remove the file; any number of times."""
        self._file.close()
