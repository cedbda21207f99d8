"""The journal: a line of JSON for each clip that was begun, done or failed; what is whole is found in it again.

Only the process that was started by the user writes it, a whole line at a time. A clip is whole when its last line says
``done``, with the same inputs (VAE and options, by their bytes) and the same latent (by place, size and time, else by
its bytes), and its file is there, or all of its frames, with something in each. A video whose last line is ``begun``
is whole when another file is there than was when it was begun: files get their names only when they are whole. A
video that holds less than its line says is not, nor is it replaced unasked: nobody can tell a damaged one from one
that was edited.

What is there is ours, and may be replaced, when one of these lines says that it was made. A line that says ``failed``
does not: no file of ours has the name then, unless an earlier one was ``done``.

A file is known by its place as seen from the journal: whoever starts the next run may stand in another folder, write
the same place in another way, or have moved the folder that holds both.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path, PurePosixPath

from ..errors import SinkError
from ..sinks.files import file_error
from ..sinks.given_names import GivenNames, check_folder, is_numbered
from .clips import Clip, Line, facts_of
from .latent_files import read_latent, stamp_of
from .stores import beside, is_store, stamp_now

try:
    import fcntl
except ImportError:  # Windows, where a lock would keep others from reading the report, too.
    fcntl = None  # type: ignore[assignment]


class Journal:
    """The lines of all runs into one file.

    Under ``with``, nobody else writes it meanwhile.

    Args:
        path: the file; it is made when the first line is written.

    Raises:
        SinkError: it is there, but is no journal, or another run is writing it, or there can be none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._last: dict[str, Line] = {}
        #: Lines by file, of what was begun and may have left something there; of what was whole once.
        self._begun: dict[str, Line] = {}
        self._done: dict[str, Line] = {}
        #: Folders as seen from the journal, by how they were written.
        self._folders: dict[str, str] = {}
        #: Marks of what stores had when they were looked at, by place.
        self._in_stores: dict[str, str] = {}
        check_folder(self.path)
        self._held: FileIO | None = None
        # What another run is still writing is not read: it would be decoded again.
        with suppress(OSError):
            if self.path.exists():
                self._hold()
        try:
            texts = self._read().split(b"\n")
        except OSError as error:
            raise SinkError(f"report: {self.path} cannot be read: {error.strerror}; name another place") from error
        strange = 0
        for number, text in enumerate(texts, 1):
            if not text.strip(b" \t\r\0"):
                continue
            try:
                self._take(json.loads(text))
            except (ValueError, KeyError, TypeError, AttributeError):
                # In a report of ours, what was being written when the machine went down.
                strange = strange or number
        if strange and not self._last:
            self.__exit__()
            raise SinkError(f"{self.path}, line {strange}: this is no report of ours; name another")

    def _take(self, line: Line) -> None:
        """Remember what ``line`` tells."""
        file, status = line.get("place") or self._place(line["file"]), line["status"]
        self._last[file] = line
        if status == "begun":
            self._begun[file] = line
        elif status == "done":
            self._done[file] = line
        elif status in ("failed", "cancelled") and not _numbered(file):
            self._begun.pop(file, None)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            # A process that was forked meanwhile would keep it.
            with suppress(OSError):
                if fcntl is not None:
                    fcntl.flock(self._held, fcntl.LOCK_UN)
            self._held.close()
            self._held = None

    def _hold(self) -> None:
        """Have the file for ourselves until we are left, or dead: two runs would decode each clip twice.

        Raises:
            SinkError: another run has it.
            OSError: it cannot be written.
        """
        if self._held is not None and not self.path.exists():
            # Somebody has removed it.
            self.__exit__()
        if self._held is not None:
            return
        file = open(self.path, "ab+", buffering=0)  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise SinkError(
                f"report: another run is writing {self.path}; wait until it has ended, or name another place"
            ) from error
        except OSError:
            # A file system without locks.
            pass
        self._held = file

    def _read(self) -> bytes:
        # Through what holds it: with SMB nothing else may read or write a file that is locked.
        if self._held is not None:
            self._held.seek(0)
            return self._held.read()
        return self.path.read_bytes() if self.path.exists() else b""

    def write(self, line: Line) -> None:
        """Add a line, and see it on the disk.

        Raises:
            SinkError: it cannot be written, or another run does.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = {"schema": 1, "time": now, **line, "place": self._place(line["file"])}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._hold()
            file = self._held
            assert file is not None, "it is held, or an error was raised"
            # A line that was cut off by a crash must not take this one with it.
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            left = (json.dumps(line) + "\n").encode()
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError as error:
            raise file_error(self.path, error) from error
        self._take(line)

    def look(self, clips: list[Clip]) -> None:
        """See what stores have of ``clips``: by one listing a folder, not by a question a clip.

        Raises:
            SinkError: a folder cannot be listed, as there is no such bucket, or nobody may.
        """
        folders: set[str] = set()
        for to in (clip.to for clip in clips if is_store(clip.to)):
            folder = to.rpartition("/")[0]
            if _numbered(to):
                self._in_stores[to] = _mark_of(to)
            elif folder not in folders:
                folders.add(folder)
                self._in_stores.update({f"{folder}/{name}": mark for name, mark in beside(to).items()})

    def begin(self, clip: Clip) -> None:
        """Say that ``clip`` is begun, and what is at its place by now."""
        self.write({**facts_of(clip), "status": "begun", "before": _mark_of(clip.to)})

    def is_whole(self, clip: Clip) -> bool:
        """Whether ``clip`` was decoded already, with the same VAE and options, from the same latent."""
        last = self._last.get(self._place(clip.to))
        if last is None or last.get("inputs") != clip.inputs or not self._is_there(clip.to):
            return False
        # Latents that were written at one moment share their time, and often their size: the place counts as well.
        same = (last.get("latent"), last.get("stamp")) == (clip.latent, clip.stamp)
        if last.get("status") == "begun":
            seen = self._seen(clip.to)
            return not _numbered(clip.to) and same and seen != last.get("before", "") and _size_in(seen) > 0
        if last.get("status") != "done":
            return False
        seen = self._seen(clip.to)
        if _numbered(clip.to):
            if int(seen.partition(" ")[0]) < int(last.get("files", 0)) or _holds_empty(clip.to):
                return False
        elif _size_in(seen) < int(last.get("bytes", 1)):
            return False
        if same:
            return True
        with suppress(Exception):
            return read_latent(clip.latent).content == last.get("content")
        return False

    def is_ours(self, clip: Clip) -> bool:
        """Whether what is at the place of ``clip``'s file was made by a run of this journal."""
        place = self._place(clip.to)
        if place in self._done:
            return True
        begun = self._begun.get(place)
        if begun is None:
            return False
        # Frames get their names one by one; they are ours where nobody had any.
        before = str(begun.get("before", ""))
        return before == "" if _numbered(clip.to) else self._seen(clip.to) != before

    def check(self, clip: Clip) -> None:
        """See whether ``clip`` may be written where it is to be.

        Raises:
            SinkError: a file is there that no run of this journal has made, or that holds less than it did when it was
                made, or a folder.
        """
        if self._is_there(clip.to) and not self.is_ours(clip):
            raise SinkError(f"{clip.to} is there already; choose another name, or say overwrite=True")
        place = self._place(clip.to)
        done = self._done.get(place, {})
        begun = self._last.get(place, {}).get("status") == "begun"
        if done.get("inputs") == clip.inputs and not begun and not _numbered(clip.to):
            made, there = int(done.get("bytes", 0)), _size_in(self._seen(clip.to))
            # An empty one is nobody's work. One that is cut off, and one that somebody has shortened, look alike.
            if 0 < there < made:
                raise SinkError(
                    f"{clip.to} has {there} bytes, of the {made} that it had when it was made: it is damaged, or "
                    "somebody has changed it; remove it, or say overwrite=True"
                )

    def _is_there(self, to: str) -> bool:
        return bool(self._seen(to) if is_store(to) else GivenNames(to, overwrite=True).paths)

    def _place(self, to: str) -> str:
        """What a file is known by: its place as seen from the journal; in a store, its address."""
        if is_store(to):
            return to
        folder, name = os.path.split(to)
        if folder not in self._folders:
            real = os.path.realpath(folder)
            with suppress(ValueError):  # on another drive of Windows
                real = os.path.relpath(real, os.path.realpath(self.path.parent))
            self._folders[folder] = Path(real).as_posix()
        return f"{self._folders[folder]}/{name}"

    def _seen(self, to: str) -> str:
        """The mark of what is at ``to``; of a store, as it was when it was looked at."""
        return self._in_stores.get(to, "") if is_store(to) else _mark_of(to)


def _size_in(mark: str) -> int:
    """Bytes of the video with this mark."""
    return int(mark.partition(" ")[0] or 0)


def _holds_empty(to: str) -> bool:
    """Whether a frame of ``to`` has a name and nothing in it: the disk had no more of it when the power went."""
    return not is_store(to) and any(path.stat().st_size == 0 for path in GivenNames(to, overwrite=True).paths)


def _numbered(to: str) -> bool:
    return is_numbered(PurePosixPath(to).name)


def _mark_of(to: str) -> str:
    """What tells the file that is at ``to`` from another one; of frames, how many there are; empty without."""
    if _numbered(to):
        if is_store(to):
            names = GivenNames(to.rpartition("/")[2], overwrite=True)
            count = sum(names.takes(name) for name in beside(to))
        else:
            count = len(GivenNames(to, overwrite=True).paths)
        return f"{count} frames" if count else ""
    if is_store(to):
        return stamp_now(to)
    try:
        return stamp_of(to)
    except OSError:
        return ""
