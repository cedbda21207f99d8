"""The journal: a line of JSON for each clip that was begun, done or failed; what is whole is found in it again.

Only the process that was started by the user writes it, a whole line at a time. A clip is whole when its last line says
``done``, with the same inputs (VAE and options, by their bytes) and the same latent (by size and time, else by its
bytes), and its file is there. A video whose last line is ``begun`` is whole when it is there: files get their names
only when they are whole, and nobody had the name when it was begun.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from ..errors import SinkError
from ..sinks.given_names import GivenNames
from .clips import Clip, Line, facts_of
from .latent_files import read_latent, store


class Journal:
    """The lines of all runs into one file.

    Args:
        path: the file; it is made when the first line is written.

    Raises:
        SinkError: it is there, but is no journal.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._last: dict[str, Line] = {}
        if not self.path.exists():
            return
        for number, text in enumerate(self.path.read_bytes().split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                self._last[line["file"]] = line
            except (ValueError, KeyError, TypeError) as error:
                if not text.startswith(b"{"):
                    raise SinkError(f"{self.path}, line {number}: this is no report of ours; name another") from error
                # The line that was being written when the machine went down.

    def write(self, line: Line) -> None:
        """Add a line, and see it on the disk.

        Raises:
            OSError: it cannot be written.
        """
        line = {"schema": 1, "time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **line}
        self._last[line["file"]] = line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            # A line that was cut off by a crash must not take this one with it.
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def begin(self, clip: Clip) -> None:
        """Say that ``clip`` is begun."""
        self.write({**facts_of(clip), "status": "begun"})

    def is_whole(self, clip: Clip) -> bool:
        """Whether ``clip`` was decoded already, with the same VAE and options, from the same latent."""
        last = self._last.get(clip.to)
        if last is None or last.get("inputs") != clip.inputs or not _there(clip.to):
            return False
        if last.get("status") == "begun":
            return "*" not in clip.to and "%" not in clip.to and last.get("stamp") == clip.stamp
        if last.get("status") != "done":
            return False
        if last.get("stamp") == clip.stamp:
            return True
        with suppress(Exception):
            return read_latent(clip.latent).content == last.get("content")
        return False

    def is_ours(self, clip: Clip) -> bool:
        """Whether what is at the place of ``clip``'s file was made by a run of this journal."""
        return clip.to in self._last


def _there(to: str) -> bool:
    if "://" in to:
        filesystem, path = store(to)
        return bool(filesystem.glob(path)) if "*" in path else bool(filesystem.exists(path))
    return bool(GivenNames(to, overwrite=True).paths)
