"""A file has its final name only when it is whole, and nobody ever shares a name or loses a file."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from async_decode import SinkError
from async_decode.sinks import files
from async_decode.sinks.files import OutputNames, Reservation, file_error, next_number
from tests.engine.sink_tools import PATIENCE


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def finish(name: Reservation, text: str = "whole") -> Path:
    name.part.write_text(text)
    return name.publish()


def test_final_name_appears_only_when_published(tmp_path: Path) -> None:
    name = OutputNames(tmp_path, "clip").reserve(".png")
    name.part.write_text("half")

    assert names_in(tmp_path) == ["clip_00001_.png.part"]

    assert name.publish() == tmp_path / "clip_00001_.png"
    assert names_in(tmp_path) == ["clip_00001_.png"]
    assert name.path.read_text() == "half"


def test_discarded_name_leaves_nothing_and_is_free_again(tmp_path: Path) -> None:
    name = OutputNames(tmp_path, "clip").reserve(".png")
    name.part.write_text("half")

    name.discard()

    assert names_in(tmp_path) == []
    assert OutputNames(tmp_path, "clip").reserve(".png").path == name.path


def test_discard_after_publish_takes_nothing_from_the_next_holder(tmp_path: Path) -> None:
    name = OutputNames(tmp_path, "clip").reserve(".png")
    finish(name)
    name.part.write_text("somebody else is just claiming this name")

    name.discard()

    assert name.part.exists() and name.path.exists()


def test_numbers_continue_where_stock_would(tmp_path: Path) -> None:
    for name in (
        "clip_00004_.png",
        "clip_00006_.mp4",
        "clip_00007_cut-short.mp4",
        "clip_00009_.png.part",
        "clip_x_.png",
        "clips_00050_.png",
        "other_00060_.png",
        "clip",
    ):
        (tmp_path / name).touch()

    assert next_number(tmp_path, "clip") == 10
    assert next_number(tmp_path, "nobody") == 1
    assert OutputNames(tmp_path, "clip").reserve(".png").path.name == "clip_00010_.png"


def test_stem_may_end_like_a_number(tmp_path: Path) -> None:
    (tmp_path / "a_00003_.png").touch()
    (tmp_path / "a_00003_00008_.png").touch()

    assert next_number(tmp_path, "a") == 4
    assert next_number(tmp_path, "a_00003") == 9


@pytest.mark.parametrize("taken", ["clip_00005_.png", "clip_00005_.png.part", "clip_00005_cut-short.png"])
def test_taken_number_is_passed_over(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    names = OutputNames(tmp_path, "clip", first=5)

    assert finish(names.reserve(".png")).name == "clip_00006_.png"
    assert (tmp_path / taken).read_text() == "mine"
    assert names_in(tmp_path) == sorted([taken, "clip_00006_.png"])


def test_name_that_is_published_just_before_our_claim_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = OutputNames(tmp_path, "clip", first=1).reserve(".png")
    touch = Path.touch

    def touch_after_they_published(path: Path, **options: bool) -> None:
        if theirs.part.exists():
            finish(theirs, "theirs")
        touch(path, **options)

    monkeypatch.setattr(Path, "touch", touch_after_they_published)

    assert OutputNames(tmp_path, "clip", first=1).reserve(".png").path.name == "clip_00002_.png"


def test_batch_number_is_filled_in(tmp_path: Path) -> None:
    names = OutputNames(tmp_path, "a%batch_num%b", first=7)

    assert [names.reserve(".png", batch=batch).path.name for batch in (0, 1)] == ["a0b_00007_.png", "a1b_00008_.png"]


def test_cut_short_file_says_so_and_keeps_its_number(tmp_path: Path) -> None:
    name = OutputNames(tmp_path, "clip").reserve(".mp4")
    name.part.write_text("some frames")

    assert name.publish(cut_short=True).name == "clip_00001_cut-short.mp4"
    assert names_in(tmp_path) == ["clip_00001_cut-short.mp4"]


#: What mounts of FUSE, NFS, 9p, Samba and clouds answer to a hard link; 524 is the kernel's own ENOTSUPP.
NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.EIO, errno.EPROTO, errno.ESTALE, 524]


def refuse(number: int) -> Callable[..., None]:
    """What a call is on a file system that answers it with ``number``."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps; the pauses that there would have been."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture(params=["links", *NO_LINKS, "no renames"])
def any_file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, at_once: list[float]) -> None:
    """Every way of giving a final name."""
    if request.param != "links":
        monkeypatch.setattr(os, "link", refuse(errno.EIO if request.param == "no renames" else request.param))
    if request.param == "no renames":
        monkeypatch.setattr(os, "replace", refuse(errno.EINVAL))
        monkeypatch.setattr(os, "rename", refuse(errno.EINVAL))


@pytest.mark.usefixtures("any_file_system")
def test_folder_is_probed_without_a_trace(tmp_path: Path) -> None:
    names = OutputNames(tmp_path / "new", "clip")

    names.probe(".png")

    assert names_in(tmp_path / "new") == []
    assert finish(names.reserve(".png")).read_text() == "whole"
    assert names_in(tmp_path / "new") == ["clip_00001_.png"]


def test_probe_says_before_the_work_what_would_fail_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"file/clip\.png could not be written: .*choose another folder"):
        OutputNames(tmp_path / "file", "clip").probe(".png")
    with pytest.raises(SinkError, match="choose a shorter file name"):
        OutputNames(tmp_path, "x" * 246).probe(".png")
    for call in ("link", "replace"):
        monkeypatch.setattr(os, call, refuse(errno.EIO))
    monkeypatch.setattr(shutil, "copyfileobj", refuse(errno.EROFS))
    with pytest.raises(SinkError, match="choose a folder on a disk that can be written to"):
        OutputNames(tmp_path, "clip").probe(".png")
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no links here")
def test_what_a_folder_refused_once_is_not_tried_for_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def link(*_: object) -> None:
        asked.append(1)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", link)
    names = OutputNames(tmp_path, "clip")
    for _ in range(3):
        finish(names.reserve(".png"))

    assert len(asked) == 1


def test_file_that_somebody_holds_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: list[float]
) -> None:
    # A virus scanner: it lets go at the third try.
    rename, tries = os.rename, []

    def held(source: Path, target: Path) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "somebody uses the file")
        rename(source, target)

    monkeypatch.setattr(files, "_WAYS", (files._rename,))
    monkeypatch.setattr(os, "rename", held)

    assert finish(OutputNames(tmp_path, "clip").reserve(".png")).read_text() == "whole"
    assert len(tries) == 3 and len(at_once) == 2


def test_file_that_gets_no_name_stays_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: list[float]
) -> None:
    monkeypatch.setattr(files, "_WAYS", (files._rename,))
    monkeypatch.setattr(os, "rename", refuse(errno.EACCES))
    name = OutputNames(tmp_path, "clip").reserve(".png")

    with pytest.raises(SinkError, match=r"clip_00001_\.png could not be written.*stays as .*clip_00001_\.png\.part"):
        finish(name)
    name.discard()

    assert names_in(tmp_path) == ["clip_00001_.png.part"] and name.part.read_text() == "whole"
    assert 2 < sum(at_once) < 20


def test_a_file_that_somebody_has_removed_is_not_said_to_stay(tmp_path: Path) -> None:
    name = OutputNames(tmp_path / "made", "clip").reserve(".png")
    shutil.rmtree(tmp_path / "made")

    with pytest.raises(SinkError, match=r"what was made has been removed: .*clip_00001_\.png\.part") as raised:
        name.publish()

    assert "stays" not in str(raised.value)


@pytest.mark.parametrize("length", [100, 139, 143, 255])
@pytest.mark.parametrize("character", ["x", "é"])
def test_no_name_on_the_way_is_longer_than_a_file_system_takes(tmp_path: Path, length: int, character: str) -> None:
    stem = character * ((length - len("_00001_.mp4")) // len(character.encode()))
    limit = max(143, len(f"{stem}_00001_.mp4".encode()))
    for cut_short in (False, True):
        names = OutputNames(tmp_path, stem)
        name = names.reserve(".mp4")
        others = OutputNames(tmp_path, stem, first=1).reserve(".mp4")
        assert others.path != name.path
        others.discard()
        for path in (name.path, name.cut_short, name.part, name.copy):
            assert len(os.fsencode(path.name)) <= limit
        name.part.write_text("bytes")
        assert name.publish(cut_short=cut_short).read_text() == "bytes"
    assert len(names_in(tmp_path)) == 2


@pytest.mark.usefixtures("any_file_system")
def test_a_final_name_taken_by_a_stranger_is_not_overwritten(tmp_path: Path) -> None:
    names = OutputNames(tmp_path, "clip")
    name, following = names.reserve(".png"), names.reserve(".png")
    name.path.write_text("stock wrote this meanwhile")

    assert finish(name, "ours") == tmp_path / "clip_00003_.png"

    assert name.path.read_text() == "ours"
    assert (tmp_path / "clip_00001_.png").read_text() == "stock wrote this meanwhile"
    assert names_in(tmp_path) == ["clip_00001_.png", following.part.name, "clip_00003_.png"]


@pytest.mark.usefixtures("any_file_system")
def test_published_file_is_the_part_itself(tmp_path: Path) -> None:
    assert finish(OutputNames(tmp_path, "clip").reserve(".png"), "bytes").read_text() == "bytes"
    assert names_in(tmp_path) == ["clip_00001_.png"]


def test_missing_folder_is_made_whenever_it_is_missing(tmp_path: Path) -> None:
    names = OutputNames(tmp_path / "a" / "b", "clip")
    first = finish(names.reserve(".png"))
    first.unlink()
    first.parent.rmdir()

    assert finish(names.reserve(".png")).name == "clip_00002_.png"


@pytest.mark.parametrize("stem", ["", ".", "..", "a/b", "../a", "/a"])
def test_stem_cannot_leave_the_folder(tmp_path: Path, stem: str) -> None:
    with pytest.raises(ValueError, match="without folders"):
        OutputNames(tmp_path, stem)


def test_file_in_place_of_the_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SinkError, match=r"file/sub/clip\.png could not be written: .*choose another folder"):
        OutputNames(tmp_path / "file" / "sub", "clip").reserve(".png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    with pytest.raises(SinkError, match="get the right to write there"):
        OutputNames(tmp_path, "clip").reserve(".png")


def test_name_that_is_too_long_asks_for_a_shorter_one(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="choose a shorter file name"):
        OutputNames(tmp_path, "x" * 300).reserve(".png")


def test_full_disk_is_explained(tmp_path: Path) -> None:
    error = file_error(tmp_path / "a.png", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    assert str(error) == f"{tmp_path / 'a.png'} could not be written: No space left on device; " + (
        "free some space, or choose another folder"
    )


def run_at_once(count: int, start: Callable[..., object], target: Callable[..., None], *args: object) -> None:
    """Run ``target(*args, who)`` ``count`` times at once, by threads or processes."""
    workers = [start(target=target, args=(*args, who)) for who in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
        assert getattr(worker, "exitcode", 0) == 0


def save_many(folder: Path, barrier: threading.Barrier, who: int) -> None:
    """What one job does: a file of its own for each of 60 frames, every fifth given up."""
    names = OutputNames(folder, "clip")
    barrier.wait(PATIENCE)
    for index in range(60):
        name = names.reserve(".png")
        with open(name.part, "r+b") as file:
            assert file.read() == b"", "somebody else writes into our claim"
            file.write(f"{who}:{index}".encode())
        if index % 5 == 4:
            name.discard()
        else:
            name.publish()


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_jobs_with_one_prefix_lose_no_file(tmp_path: Path, kind: str) -> None:
    if kind == "processes" and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs fork")
    context = multiprocessing.get_context("fork") if kind == "processes" else threading
    start = context.Process if kind == "processes" else threading.Thread

    run_at_once(3, start, save_many, tmp_path, context.Barrier(3))

    assert sorted(path.read_text() for path in tmp_path.iterdir()) == sorted(
        f"{who}:{index}" for who in range(3) for index in range(60) if index % 5 != 4
    )
    assert all(path.suffix == ".png" for path in tmp_path.iterdir())
