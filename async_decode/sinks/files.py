"""Names and files: how a file comes to its name, so that no two jobs share one and none looks finished too early.

The protocol of one file ``clip_00001_.png``:

1. **Claim.** ``clip_00001_.png.part`` is created exclusively (``O_CREAT | O_EXCL``). Where it exists already, somebody
   else holds the name: the next number is tried.
2. **Look.** Only then the final name is looked for. Where it exists, the claim is given back and the next number is
   tried. In this order nobody falls into the gap: whoever published the final name did so before its ``.part`` went
   away, so a claim that succeeds after that sees the final name.
3. **Write** into the ``.part``. It sits in the same folder, so the final step never crosses file systems. It also
   counts as taken for ComfyUI's own search for the next number, which reads the digits behind the prefix.
4. **Publish** without replacing: on POSIX a hard link under the final name, then the ``.part`` name goes; on Windows a
   rename, which never replaces there. Where links fail, for whatever reason (each network and FUSE mount has its own),
   the final name is created exclusively and renamed over; where renames fail as well, it is copied into. A file that
   somebody holds (virus scanners and sync clients do so with fresh files) is tried again for some seconds. If a program
   that knows nothing of this protocol took the final name meanwhile, the file moves on to the next free number.

So at every moment a name that is taken shows as ``.part`` or as final, a final name means a whole file, and nothing is
ever overwritten. Two jobs with one prefix get interleaved numbers. Whoever gives up unlinks the ``.part``; after a
process was killed it stays, under a name that says what it is, and its number stays unused. So does a whole file that
no final name could be given to. (Whole means what a reader sees: surviving a power cut would take an fsync for each
frame.)

Where ``.part`` behind a long final name could be more than a file system takes, the file is called ``clip_00001_.tmp``
instead, which no final name is shorter than, and a video that was cut short loses the end of its stem.

A video that was cut short is published as ``clip_00001_cut-short.mp4``: the same number, which is free for it because
a name counts as taken when either of the two exists.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import SinkError
from .owners import owned, remove_of_the_dead

#: A file that is not whole carries this behind its final name.
PART_SUFFIX = ".part"
#: The file that tries a folder out.
_PROBE = ".async-decode"
#: Any file system takes names of so many bytes: eCryptfs, whose limit is the lowest, no more.
_ANY_LENGTH = 143
#: Pauses before a file that somebody holds is tried again, in seconds.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
#: What is answered for a file that somebody holds, which mostly passes.
_HELD = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY}

#: What to do about errors that people can do something about.
_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some space, or choose another folder",
    errno.EFBIG: "the file is larger than this place allows; choose another folder",
    errno.EACCES: "choose another folder, or get the right to write there",
    errno.EPERM: "choose another folder, or get the right to write there",
    errno.EROFS: "choose a folder on a disk that can be written to",
    errno.ENAMETOOLONG: "choose a shorter file name",
    errno.EEXIST: "a file is where a folder should be; choose another folder",
    errno.ENOTDIR: "a file is where a folder should be; choose another folder",
    errno.EINVAL: "choose a file name that this file system accepts",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}


class OutputNames:
    """Numbered names ``{stem}_{number:05}_{extension}`` in one folder, handed out one after the other.

    Args:
        folder: where the files go; it is made when the first name is reserved.
        stem: the name without number and extension. ``%batch_num%`` in it becomes the number of the frame, as with
            stock's SaveImage.
        first: the number to try first; ``None``: one more than the highest there, as stock counts.

    Raises:
        ValueError: ``stem`` is empty or names another folder.
    """

    def __init__(self, folder: str | os.PathLike[str], stem: str, *, first: int | None = None) -> None:
        if not stem or stem in (".", "..") or os.path.basename(stem) != stem:
            raise ValueError(f"expected a file name without folders, got {stem!r}")
        self.folder = Path(folder)
        self.stem = stem
        self._next = first
        self._lock = threading.Lock()
        self._ways = _WAYS

    def probe(self, extension: str) -> None:
        """Make a small file in the folder, give it its final name and remove it: all that will be done later works.

        Args:
            extension: of the files to come, with its dot.

        Raises:
            SinkError: the folder cannot be made or written to, or the names are too long for it.
        """
        name = owned(_PROBE)
        part, target = self.folder / f"{name}{PART_SUFFIX}", self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_of_the_dead(self.folder, re.escape(_PROBE), "", PART_SUFFIX)
            with suppress(FileNotFoundError):
                os.lstat(self.folder / f"{self.stem}_00001_{extension}")
            try:
                with open(part, "xb") as file:
                    file.write(b"async")
                self.give(part, target)
            finally:
                _remove(part)
                _remove(target)
        except OSError as error:
            raise file_error(self._told(extension), error) from error

    def _told(self, extension: str) -> Path:
        """What errors call the files."""
        return self.folder / (self.stem + extension)

    def give(self, part: Path, target: Path) -> None:
        """Give ``part`` the name ``target``: at once, and never in place of another file.

        What the folder's file system refused once is not tried again.

        Raises:
            FileExistsError: ``target`` exists; ``part`` is still there.
            OSError: nothing worked; ``part`` is still there.
        """
        ways = self._ways
        for index, way in enumerate(ways):
            try:
                _while_held(way, part, target)
            except FileExistsError:
                raise
            except OSError:
                if index == len(ways) - 1 or not part.exists():
                    raise
            else:
                self._ways = ways[index:]
                return

    def reserve(self, extension: str, batch: int = 0) -> Reservation:
        """Take the next free name; it is ours, in every process, until it is published or discarded.

        Args:
            extension: with its dot, ``".png"``.
            batch: what ``%batch_num%`` becomes.

        Raises:
            SinkError: the folder cannot be made or written to.
        """
        with self._lock:
            try:
                # Made here, because a folder may also be removed between two files.
                self.folder.mkdir(parents=True, exist_ok=True)
                if self._next is None:
                    self._next = next_number(self.folder, self.stem)
                while True:
                    reservation = Reservation(self, self._next, extension, batch)
                    self._next += 1
                    if reservation.claim():
                        return reservation
            except OSError as error:
                raise file_error(self._told(extension), error) from error


class Reservation:
    """A name that one job holds, and the ``.part`` file that it writes into; made by ``OutputNames.reserve``.

    Attributes:
        path: the name of the whole file.
        cut_short: the name of a file that holds less than was asked for.
        part: the file to write into; it exists from the start, empty.
        copy: another one that nobody else writes into, for a second pass.
    """

    def __init__(self, names: OutputNames, number: int, extension: str, batch: int) -> None:
        stem = names.stem.replace("%batch_num%", str(batch))
        final = f"{stem}_{number:05}_{extension}"
        self._names = names
        self._extension = extension
        self._batch = batch
        self._held = False
        short = len(os.fsencode(final)) + len(f".2{PART_SUFFIX}") <= _ANY_LENGTH
        self.path = names.folder / final
        self.cut_short = names.folder / _fitting(stem, f"_{number:05}_cut-short{extension}", len(os.fsencode(final)))
        # Behind digits and an underscore: there ComfyUI's own search for the next number sees it, also that of 0.3.64.
        self.part = names.folder / (f"{final}{PART_SUFFIX}" if short else f"{stem}_{number:05}_.tmp")
        self.copy = names.folder / (f"{final}.2{PART_SUFFIX}" if short else f"{stem}_{number:05}_.tm2")

    def claim(self) -> bool:
        """Take the name if nobody has it; return whether it is ours now."""
        try:
            self.part.touch(exist_ok=False)
        except FileExistsError:
            return False
        if os.path.lexists(self.path) or os.path.lexists(self.cut_short):
            self.part.unlink()
            return False
        self._held = True
        return True

    def publish(self, *, cut_short: bool = False, made: Path | None = None) -> Path:
        """Give the file, which must be closed, its final name.

        Args:
            cut_short: the file holds less than was asked for.
            made: the file: ``part`` (the default) or ``copy``; the other one is removed.

        Returns:
            The final name; it has another number than the reserved one if a program took that in spite of the claim.

        Raises:
            SinkError: no final name could be given to it; it stays under the name that the message gives.
        """
        made = self.part if made is None else made
        # Whatever happens from here on: what was made is not removed.
        self._held = False
        claims = {self.part, self.copy}
        name = self
        try:
            while True:
                target = name.cut_short if cut_short else name.path
                try:
                    self._names.give(made, target)
                except FileExistsError:
                    name = self._names.reserve(self._extension, self._batch)
                    name._held = False
                    claims.add(name.part)
                else:
                    self.path, self.cut_short = name.path, name.cut_short
                    return target
        except (OSError, SinkError) as error:
            raise SinkError(f"{file_error(self.path, error)}; {what_stays(made)}") from error
        finally:
            for claim in claims - {made}:
                _remove(claim)

    def discard(self) -> None:
        """Give the name back and remove what was written. Never raises; does nothing once published."""
        if self._held:
            self._held = False
            _remove(self.part)
            _remove(self.copy)


def next_number(folder: Path, stem: str) -> int:
    """One more than the highest number behind ``stem`` in ``folder``, counted as ComfyUI counts (1 if there is none).

    Files that are still being written count as well.
    """
    highest = 0
    prefix = os.path.normcase(stem + "_")
    for name in os.listdir(folder):
        if os.path.normcase(name[: len(prefix)]) == prefix:
            with suppress(ValueError):
                highest = max(highest, int(name[len(prefix) :].split(".")[0].split("_")[0]))
    return highest + 1


def file_error(path: str | os.PathLike[str], error: BaseException) -> SinkError:
    """What to raise when ``path`` could not be written: names the file, the reason and the remedy."""
    if isinstance(error, SinkError):
        return error
    if not isinstance(error, OSError):
        return SinkError(f"{os.fspath(path)} could not be written: {error!r}")
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the folder")
    return SinkError(f"{os.fspath(path)} could not be written: {error.strerror or error}; {remedy}")


def what_stays(made: Path) -> str:
    """What to say of a whole file that got no name."""
    return f"what was made stays as {made}" if made.exists() else f"what was made has been removed: {made}"


def _fitting(stem: str, rest: str, length: int) -> str:
    """``stem`` and ``rest``; of a name that not every file system takes, ``length`` bytes without the stem's end."""
    name = stem + rest
    while len(os.fsencode(name)) > max(length, _ANY_LENGTH) and stem:
        stem = stem[:-1]
        name = stem + rest
    return name


def _while_held(way: Callable[[Path, Path], None], part: Path, target: Path) -> None:
    """Go one way, again and again for some seconds while somebody holds the file."""
    # No pause cures links that there are none of.
    for pause in () if way is _link else _PAUSES:
        try:
            way(part, target)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _HELD:
                raise
            time.sleep(pause)
        else:
            return
    way(part, target)


def _link(part: Path, target: Path) -> None:
    """Atomic: the file has both names for a moment."""
    os.link(part, target)
    _remove(part)


def _rename(part: Path, target: Path) -> None:
    """Atomic, and on Windows never in place of another file."""
    os.rename(part, target)


def _replace(part: Path, target: Path) -> None:
    """The name is taken first, by an empty file that is ours."""
    with open(target, "xb"):
        pass
    try:
        os.replace(part, target)
    except OSError as error:
        _remove(target)
        # The one that exists is ours: nobody is asked to move on.
        if isinstance(error, FileExistsError):
            raise OSError(errno.ENOTSUP, error.strerror) from error
        raise


def _copy(part: Path, target: Path) -> None:
    """What remains: stock writes under the final name, too."""
    with open(part, "rb") as source, open(target, "xb") as copied:
        try:
            shutil.copyfileobj(source, copied, 1 << 20)
        except OSError:
            copied.close()
            _remove(target)
            raise
    _remove(part)


def _remove(path: Path) -> None:
    """Remove ``path``; where that fails it stays, which is no reason to lose what was made."""
    with suppress(OSError):
        path.unlink()


#: How a file gets its final name, the best first.
_WAYS: tuple[Callable[[Path, Path], None], ...] = (_rename, _copy) if os.name == "nt" else (_link, _replace, _copy)
