"""Places in stores, ``s3://…`` and whatever else ``fsspec`` knows: listed, read, and written whole or not at all.

Each kind of store has a package of its own, with errors of its own: here they become ours, and name the place.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import AsyncDecodeError, DecodeError, SinkError


def is_store(place: str) -> bool:
    """Whether ``place`` is in a store, not a path of this machine."""
    return "://" in place


def store(place: str) -> tuple[Any, str]:
    """The file system of ``fsspec`` for ``place``, and the path there.

    Raises:
        DecodeError: fsspec, or what it needs for this kind of place, is not installed.
    """
    try:
        import fsspec  # type: ignore[import-untyped]

        filesystem, path = fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise DecodeError(f'{place}: {error}; pip install "async-vae-decode[ray]", and what fsspec asks for') from error
    except ValueError as error:
        raise DecodeError(f"{place}: {error}") from error
    return filesystem, path


@contextmanager
def reaching(place: str, done: str, kind: type[AsyncDecodeError]) -> Iterator[None]:
    """Whatever a store raises becomes ``kind``; ``done`` is what was being done: ``read``, ``listed``, ``written``."""
    try:
        yield
    except AsyncDecodeError:
        raise
    except Exception as error:
        # Those of botocore are no OSErrors; s3fs has made some into ones, with a number that means nothing.
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise kind(f"{place} cannot be {done}: {reason}") from error


def forget(places: Iterable[str]) -> None:
    """Forget what was listed before: of an earlier run of this process, stores are listed and asked anew."""
    for place in {place.partition("://")[0]: place for place in places if is_store(place)}.values():
        store(place)[0].invalidate_cache()


def stamp_in(facts: Mapping[str, Any]) -> str:
    """What tells a file from another one at its place, as a store tells it: its size, and its tag or time."""
    told = [facts.get(name) for name in ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified")]
    return f"{facts['size']} {next((tag for tag in told if tag), '')}"


def beside(place: str) -> dict[str, str]:
    """Names and stamps of all files in the folder of ``place``, by one listing.

    Raises:
        SinkError: it cannot be listed, as there is no such bucket, or nobody may.
    """
    filesystem, path = store(place)
    folder = path.rpartition("/")[0]
    # What is kept of an earlier listing may be older than what others, or an actor, have written since.
    filesystem.invalidate_cache(folder)
    with reaching(place.rpartition("/")[0] + "/", "listed", SinkError):
        try:
            found = filesystem.ls(folder, detail=True)
        except FileNotFoundError as error:
            if error.__cause__ is not None:
                # Not that nothing has such a name: there is no bucket.
                raise
            return {}
    return {facts["name"].rpartition("/")[2]: stamp_in(facts) for facts in found if facts["type"] == "file"}


def stamp_now(place: str) -> str:
    """The stamp of what is at ``place``; empty where nothing is.

    Raises:
        SinkError: that cannot be told.
    """
    filesystem, path = store(place)
    filesystem.invalidate_cache(path)
    with reaching(place, "read", SinkError):
        try:
            return stamp_in(filesystem.info(path))
        except FileNotFoundError:
            return ""


def upload(file: Path, place: str) -> None:
    """Bring ``file``, which is whole, to ``place``: it is seen there whole, or not at all.

    Raises:
        SinkError: it cannot be written; what was at the place is there still.
    """
    filesystem, path = store(place)
    with reaching(place, "written", SinkError):
        if _is_object_store(filesystem):
            filesystem.put_file(str(file), path)
            return
        folder = path.rpartition("/")[0]
        if folder:
            filesystem.makedirs(folder, exist_ok=True)
        part = f"{folder}/{uuid.uuid4().hex}.part"
        try:
            filesystem.put_file(str(file), part)
            filesystem.mv(part, path)
        except BaseException:
            with suppress(Exception):
                filesystem.rm_file(part)
            raise


def remove(place: str) -> None:
    """Remove the file at ``place``.

    Raises:
        SinkError: it cannot be removed.
    """
    filesystem, path = store(place)
    with reaching(place, "removed", SinkError):
        filesystem.rm_file(path)


def _is_object_store(filesystem: Any) -> bool:
    """Whether there is no renaming, only copies, and no need of it: an object is there when its upload is whole.

    To such a store a second name is a further copy over the network, a right to delete that one may not have, and an
    object that nobody removes when the process is killed. Nor are there folders to be made, only buckets, and a bucket
    whose name was mistyped is not to be made.
    """
    from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

    return bool(filesystem.async_impl) and type(filesystem).mv is AbstractFileSystem.mv
