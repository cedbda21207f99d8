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
   rename, which never replaces there. File systems without links get a last look and a rename. If a program that
   knows nothing of this protocol took the final name meanwhile, the file moves on to the next free number.

So at every moment a name that is taken shows as ``.part`` or as final, a final name means a whole file, and nothing is
ever overwritten. Two jobs with one prefix get interleaved numbers. Whoever gives up unlinks the ``.part``; after a
process was killed it stays, under a name that says what it is, and its number stays unused. (Whole means what a reader
sees: surviving a power cut would take an fsync for each frame.)

A video that was cut short is published as ``clip_00001_cut-short.mp4``: the same number, which is free for it because
a name counts as taken when either of the two exists.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from ..errors import SinkError

#: A file that is not whole carries this behind its final name.
PART_SUFFIX = ".part"

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
                raise file_error(self.folder / (self.stem + extension), error) from error


class Reservation:
    """A name that one job holds, and the ``.part`` file that it writes into; made by ``OutputNames.reserve``.

    Attributes:
        path: the name of the whole file.
        cut_short: the name of a file that holds less than was asked for.
        part: the file to write into; it exists from the start, empty.
    """

    def __init__(self, names: OutputNames, number: int, extension: str, batch: int) -> None:
        stem = f"{names.stem.replace('%batch_num%', str(batch))}_{number:05}_"
        self._names = names
        self._extension = extension
        self._batch = batch
        self._held = False
        self.path = names.folder / f"{stem}{extension}"
        self.cut_short = names.folder / f"{stem}cut-short{extension}"
        self.part = names.folder / f"{stem}{extension}{PART_SUFFIX}"

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

    def publish(self, *, cut_short: bool = False) -> Path:
        """Give the file, which must be closed, its final name.

        Args:
            cut_short: the file holds less than was asked for.

        Returns:
            The final name; it has another number than the reserved one if a program took that in spite of the claim.

        Raises:
            SinkError: the file could not be renamed; the ``.part`` is still there.
        """
        try:
            while True:
                target = self.cut_short if cut_short else self.path
                try:
                    _rename_without_replacing(self.part, target)
                except FileExistsError:
                    self._move_on()
                else:
                    self._held = False
                    return target
        except OSError as error:
            raise file_error(self.path, error) from error

    def discard(self) -> None:
        """Give the name back and remove what was written. Never raises; does nothing once published."""
        if self._held:
            self._held = False
            with suppress(OSError):
                self.part.unlink()

    def _move_on(self) -> None:
        """Carry the file over to the next free number, whose empty claim it replaces."""
        following = self._names.reserve(self._extension, self._batch)
        os.replace(self.part, following.part)
        self.path, self.cut_short, self.part = following.path, following.cut_short, following.part


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


def _rename_without_replacing(source: Path, target: Path) -> None:
    """Atomic: ``target`` is there whole or not at all.

    Raises:
        FileExistsError: ``target`` exists; ``source`` is still there.
    """
    if os.name == "nt":
        os.rename(source, target)
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The claim keeps every job that follows the protocol away from the target; this look is for the others.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target)) from None
        os.rename(source, target)
    else:
        os.unlink(source)


#: What file systems without hard links answer (exFAT, FAT, some network and FUSE mounts).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV}
