"""A temporary file that nobody else sees, and that is gone with its process however that ends."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path


class NamelessFile:
    """Bytes on disk, written and read by any number of threads, each at a place of its own.

    It is where the caller says, because the system's folder for temporary files may be memory.

    Args:
        folder: where the file is.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        # Without a name on Linux, removed at once elsewhere on POSIX, deleted on close by Windows.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        # Windows has no reading and writing at a place.
        self._lock = None if hasattr(os, "pread") else threading.Lock()

    def write(self, data: memoryview, offset: int) -> None:
        """Put ``data``, bytes, at ``offset``.

        Raises:
            OSError: the disk is full, or failed.
        """
        rest = data
        while rest:
            count = self._write(rest, offset)
            rest, offset = rest[count:], offset + count

    def read(self, into: memoryview, offset: int) -> None:
        """Fill ``into`` with the bytes from ``offset`` on.

        Raises:
            OSError: the disk failed, or there are not so many.
        """
        rest = into
        while rest:
            count = self._read(rest, offset)
            if not count:
                raise OSError("the temporary file with the frames ends too early")
            rest, offset = rest[count:], offset + count

    def close(self) -> None:
        """Remove the file; any number of times, once nobody is at it."""
        self._file.close()

    def _write(self, data: memoryview, offset: int) -> int:
        if self._lock is None:
            return os.pwrite(self._file.fileno(), data, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.write(data)

    def _read(self, into: memoryview, offset: int) -> int:
        if self._lock is None:
            return (
                os.preadv(self._file.fileno(), [into], offset) if hasattr(os, "preadv") else self._pread(into, offset)
            )
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(into) or 0

    def _pread(self, into: memoryview, offset: int) -> int:
        data = os.pread(self._file.fileno(), len(into), offset)
        into[: len(data)] = data
        return len(data)
