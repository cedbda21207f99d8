"""Texts of a container on their way into ffmpeg: they may hold a private workflow, and nothing may stay of them."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..files import file_error

_PREFIX, _SUFFIX = "async-decode-", ".ffmetadata"


class TagsFile:
    """A file in ffmpeg's metadata format for one run of ffmpeg.

    Where a process inherits files (everywhere but on Windows) it has no name, and is gone with those who hold it,
    however they end. On Windows it has one in the system's folder for temporary files, and those of processes that
    were killed go when the next one is made.

    Args:
        text: as of ``ffmetadata``.
        folder: where the file without a name is: next to the video, since the system's folder may be full or memory.

    Attributes:
        source: where ffmpeg reads it.
        pass_fds: the files that ffmpeg has to inherit for that.

    Raises:
        SinkError: it cannot be written.
    """

    def __init__(self, text: str, folder: Path) -> None:
        self.source = ""
        self.pass_fds: tuple[int, ...] = ()
        self._path: str | None = None
        self._file: IO[bytes] | None = None
        try:
            if os.name == "nt":
                self._write_named(text.encode())
            else:
                self._write_nameless(text.encode(), folder)
        except OSError as error:
            self.close()
            raise file_error(folder / "(prompt and workflow)", error) from error

    def close(self) -> None:
        """Let go of it; any number of times."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)

    def _write_nameless(self, text: bytes, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._file.write(text)
        self._file.seek(0)
        self.source, self.pass_fds = f"pipe:{self._file.fileno()}", (self._file.fileno(),)

    def _write_named(self, text: bytes) -> None:
        remove_leftovers(Path(tempfile.gettempdir()))
        handle, self._path = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-", suffix=_SUFFIX)
        self.source = f"file:{self._path}"
        with open(handle, "wb") as file:
            file.write(text)


def remove_leftovers(folder: Path) -> None:
    """Remove the files of processes that live no more; where nobody can tell (without ``psutil``), nothing."""
    try:
        import psutil
    except ImportError:
        return
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        owner = re.match(rf"{_PREFIX}(\d+)-", path.name)
        if owner is not None and not psutil.pid_exists(int(owner[1])):
            with suppress(OSError):
                path.unlink()
