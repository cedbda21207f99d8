"""Names that somebody has chosen, in place of numbered ones: one file, or frames by a pattern.

The same protocol as in ``files.py`` but for two things. A name that is taken is an error, or is replaced where that is
asked for: at once, by a whole file. And the ``.part`` has the process in its name, so that a second try at a file whose
first try was killed need not wait for anybody: both write, each its own, and who is done first has the name. What dead
processes of this machine have left of a file goes when it is tried again.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from ..errors import SinkError
from .files import PART_SUFFIX, OutputNames, Reservation, file_error, what_stays
from .owners import owned, remove_of_the_dead

#: Where the number of a frame goes: ``*`` (five digits), or as in C, ``%04d``.
_NUMBER = re.compile(r"\*|%0?(\d*)d")


def check_folder(path: Path) -> None:
    """See, without making anything, whether a file ``path`` can be made: its folder, or what is there of it, takes one.

    Raises:
        SinkError: it cannot; the message names the reason and the remedy.
    """
    there = path.parent
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise file_error(path, NotADirectoryError(errno.ENOTDIR, f"{there} is no folder"))
    if not os.access(there, os.W_OK | os.X_OK):
        raise file_error(path, PermissionError(errno.EACCES, f"{there} may not be written to"))


def is_numbered(name: str) -> bool:
    """Whether the file name ``name`` has a place for the number of a frame."""
    return _NUMBER.search(name) is not None


def without_number(text: str) -> str:
    """``text`` as a part of a file name that is no place for a number: ``_`` in place of ``*`` and ``%05d``."""
    return _NUMBER.sub("_", text)


class GivenNames(OutputNames):
    """The name ``path``, or, where it holds ``*`` or ``%05d`` for their number, the names of frames, counted from 1.

    Args:
        path: as somebody has written it, with ``~`` for the home folder; its folder is made when the first name is
            reserved.
        overwrite: replace what is there: a file at the moment at which the new one is whole, frames of the pattern
            when the first new one begins.

    Raises:
        SinkError: ``path`` has no file name, or more than one place for a number.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        # Where folders are made, a "~" taken literally would become one.
        given = Path(os.path.expanduser(path))
        numbers = _NUMBER.findall(given.name)
        if not given.name or given.is_dir():
            raise SinkError(f"{os.fspath(path)!r}: expected a file name, such as clip.mp4 or frames/*.png")
        if len(numbers) > 1:
            raise SinkError(f"{os.fspath(path)!r}: expected one place for the number of a frame, got {len(numbers)}")
        super().__init__(given.parent, given.name)
        self.numbered = bool(numbers)
        self.overwrite = overwrite
        self._started = False

    @property
    def paths(self) -> list[Path]:
        """The files of these names that are there, whole."""
        if not self.numbered:
            path = self.folder / self.stem
            return [path] if os.path.lexists(path) else []
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if self.takes(path.name))

    def takes(self, name: str) -> bool:
        """Whether ``name`` is that of the file, or of one of the frames."""
        return re.fullmatch(self._pattern(), name) is not None

    def check(self) -> None:
        """See whether the names may be used.

        Raises:
            SinkError: a file is there that was not to be overwritten, or none can be made there.
        """
        check_folder(self.folder / self.stem)
        there = self.paths
        if there and not self.overwrite:
            raise SinkError(f"{there[0]} is there already; choose another name, or say overwrite=True")

    def reserve(self, extension: str, batch: int = 0) -> Reservation:
        """Begin the file, or that of frame ``batch``, counted from 0."""
        try:
            with self._lock:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not self._started:
                    self._started = True
                    self.check()
                    remove_of_the_dead(self.folder, self._pattern(), PART_SUFFIX, f".2{PART_SUFFIX}")
                    if self.numbered:
                        for path in self.paths:
                            path.unlink()
            reservation = GivenName(self, self.folder / self._name(batch), extension)
            reservation.claim()
        except OSError as error:
            raise file_error(self.folder / self.stem, error) from error
        return reservation

    def _told(self, extension: str) -> Path:
        # The ending is in the name already.
        return self.folder / self.stem

    def _name(self, batch: int) -> str:
        if not self.numbered:
            return self.stem
        number = _NUMBER.search(self.stem)
        assert number is not None
        before, after = self._around()
        return f"{before}{batch + 1:0{int(number.group(1) or 5)}}{after}"

    def _pattern(self) -> str:
        """A regular expression for the names."""
        if not self.numbered:
            return re.escape(self.stem)
        before, after = (re.escape(part) for part in self._around())
        return f"{before}\\d+{after}"

    def _around(self) -> tuple[str, str]:
        number = _NUMBER.search(self.stem)
        assert number is not None
        return self.stem[: number.start()], self.stem[number.end() :]


class GivenName(Reservation):
    """A name that somebody has chosen, and the ``.part`` of this process; made by ``GivenNames.reserve``."""

    def __init__(self, names: GivenNames, path: Path, extension: str) -> None:
        super().__init__(names, 0, extension, 0)
        self._overwrite = names.overwrite
        self.path = path
        self.cut_short = path.with_name(f"{path.name.removesuffix(extension)}_cut-short{extension}")
        own = owned(path.name)
        self.part, self.copy = (path.with_name(f"{own}{number}{PART_SUFFIX}") for number in ("", ".2"))

    def claim(self) -> bool:
        self.part.touch(exist_ok=False)
        self._held = True
        return True

    def publish(self, *, cut_short: bool = False, made: Path | None = None) -> Path:
        target = self.cut_short if cut_short else self.path
        made = self.part if made is None else made
        # Whatever happens from here on: what was made is not removed.
        self._held = False
        try:
            if cut_short or self._overwrite:
                os.replace(made, target)
            else:
                self._names.give(made, target)
        except FileExistsError as error:
            raise SinkError(f"{target} is there since this run began; {what_stays(made)}") from error
        except OSError as error:
            raise SinkError(f"{file_error(target, error)}; {what_stays(made)}") from error
        finally:
            for other in {self.part, self.copy} - {made}:
                with suppress(OSError):
                    other.unlink()
        return target
