"""Frames that will be wanted once more, on disk: what playing a clip backwards or again needs without the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..files import file_error
from ..nameless import NamelessFile


class Replay:
    """A temporary file with the raw frames of a clip, gone with its process however that ends.

    Args:
        folder: where the file is, next to where the video goes.

    Raises:
        SinkError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._frame_bytes = 0
        self._count = 0
        try:
            self._file = NamelessFile(folder)
        except OSError as error:
            raise file_error(folder, error) from error

    def append(self, frame: memoryview) -> None:
        """Keep ``frame``, C-contiguous; all have one size.

        Raises:
            SinkError: the disk is full.
        """
        data = frame.cast("B")
        self._frame_bytes = len(data)
        try:
            self._file.write(data, self._count * self._frame_bytes)
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
                self._file.read(frame, index * self._frame_bytes)
            except OSError as error:
                raise file_error(self._folder, error) from error
            yield frame

    def close(self) -> None:
        """Remove the file; any number of times."""
        self._file.close()
