"""When saving frames fails or is aborted: the first error wins, whole files stay, nothing else does."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from async_decode import Cancelled, Recorder, SinkError
from async_decode.sinks import ImageFilesSink, PngEncoder
from async_decode.sinks.files import OutputNames, Reservation
from tests.engine.sink_tools import PATIENCE, GateEncoder, clip_of, nothing_survives, numbered, pictures


def opened(folder: Path, frames: np.ndarray, gate: GateEncoder, *, writers: int) -> ImageFilesSink:
    sink = ImageFilesSink(OutputNames(folder, "a"), gate, writers=writers)
    sink.open(clip_of(frames), Recorder())
    return sink


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_that_cannot_be_made_fails_the_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = ImageFilesSink(OutputNames(tmp_path / "file", "a"), PngEncoder())
    with nothing_survives(tmp_path):
        sink.open(clip_of(pictures(1)), Recorder())
        with pytest.raises(SinkError, match=r"file/a\.png could not be written: .*choose another folder"):
            sink.write(pictures(1), 0)
        sink.abort()


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: the operating system's own error, without a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_that_takes_no_more_is_named_with_the_file(tmp_path: Path) -> None:
    small, large = np.zeros((1, 400, 400, 3), np.uint8), pictures(1, 400, 400)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(), writers=1)
    with nothing_survives(tmp_path), files_limited_to(20_000):
        sink.open(clip_of(small), Recorder())
        sink.write(small, 0).result(PATIENCE)

        error = sink.write(large, 1).exception(PATIENCE)

        sink.abort()
    assert isinstance(error, SinkError) and isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.EFBIG
    assert str(error).startswith(f"{tmp_path / 'a_00002_.png'} could not be written: File too large; ")
    assert files_in(tmp_path) == ["a_00001_.png"]


def test_full_disk_at_the_very_end_of_a_file_is_an_error_too(tmp_path: Path) -> None:
    # The last bytes leave Python's buffer only when the file is closed.
    frame = pictures(1, 16, 16)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(), writers=1)
    with nothing_survives(tmp_path), files_limited_to(100):
        sink.open(clip_of(frame), Recorder())
        error = sink.write(frame, 0).exception(PATIENCE)
        sink.abort()

    assert isinstance(error, SinkError)
    assert files_in(tmp_path) == []


def test_first_error_wins_and_stops_the_frames_behind_it(tmp_path: Path) -> None:
    frames, gate = numbered(8), GateEncoder()
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames, gate, writers=2)
        first, second = sink.write(frames[:4], 0), sink.write(frames[4:], 4)
        gate.wait_for(0, 1)
        gate.release(1, ValueError("no such colour"))
        # The chunk is still being read by the other writer, hence not done.
        error = second.exception(PATIENCE)
        assert not first.done()
        gate.release(0)

        assert first.exception(PATIENCE) is error
        assert str(error) == f"{tmp_path / 'a_00002_.gate'} could not be written: ValueError('no such colour')"
        assert isinstance(error.__cause__, ValueError)
        with pytest.raises(SinkError) as raised:
            sink.write(frames, 8)
        assert raised.value is error
        with pytest.raises(SinkError) as raised:
            sink.close()
        assert raised.value is error
        sink.abort()

    assert sorted(gate.begun) == [0, 1]
    assert files_in(tmp_path) == ["a_00001_.gate"]
    assert sink.files == [tmp_path / "a_00001_.gate"]


def test_abort_in_the_middle_keeps_whole_files_only(tmp_path: Path) -> None:
    frames, gate = numbered(9), GateEncoder()
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames, gate, writers=3)
        taken = [sink.write(frames[first : first + 3], first) for first in (0, 3, 6)]
        gate.wait_for(0, 1, 2)
        gate.release(1)
        gate.wait_for(3)

        sink.abort()

        assert all(future.done() for future in taken)
        assert [type(future.exception()) for future in taken] == [Cancelled] * 3
        with pytest.raises(Cancelled):
            sink.write(frames[:1], 9)
        with pytest.raises(Cancelled):
            sink.close()
        sink.abort()

    assert sorted(gate.begun) == [0, 1, 2, 3]
    assert files_in(tmp_path) == ["a_00002_.gate"]


def test_abort_ends_a_frame_in_the_middle_of_its_encoding(tmp_path: Path) -> None:
    frames = numbered(1)
    gate = GateEncoder()
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames, gate, writers=1)
        taken = sink.write(frames, 0)
        gate.wait_for(0)

        # The gate stays shut: abort returns only because the encoder's next write raises.
        sink.abort()

    assert isinstance(taken.exception(), Cancelled)
    assert files_in(tmp_path) == []


def test_abort_ends_a_close_that_waits(tmp_path: Path) -> None:
    frames, gate = numbered(2), GateEncoder()
    raised: list[BaseException] = []
    waiting = threading.Event()

    def close() -> None:
        waiting.set()
        try:
            sink.close()
        except Cancelled as error:
            raised.append(error)

    closer = threading.Thread(target=close)
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames, gate, writers=2)
        sink.write(frames, 0)
        gate.wait_for(0, 1)
        closer.start()
        assert waiting.wait(PATIENCE)

        sink.abort()

        closer.join(PATIENCE)
    assert not closer.is_alive() and len(raised) == 1


def test_abort_waits_for_a_write_that_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, gate = numbered(2), GateEncoder()
    reserving, go_on = threading.Event(), threading.Event()
    reserve = OutputNames.reserve

    def slow_reserve(names: OutputNames, extension: str, batch: int = 0) -> object:
        reserving.set()
        assert go_on.wait(PATIENCE)
        return reserve(names, extension, batch)

    monkeypatch.setattr(OutputNames, "reserve", slow_reserve)
    raised: list[BaseException] = []

    def write() -> None:
        try:
            sink.write(frames, 0)
        except Cancelled as error:
            raised.append(error)

    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames, gate, writers=1)
        writer, aborter = threading.Thread(target=write), threading.Thread(target=sink.abort)
        writer.start()
        assert reserving.wait(PATIENCE)
        aborter.start()
        # Set by abort before it waits for the write.
        assert sink._stop.wait(PATIENCE)
        assert aborter.is_alive()
        go_on.set()
        for thread in (writer, aborter):
            thread.join(PATIENCE)
    assert len(raised) == 1
    assert files_in(tmp_path) == []


def test_abort_before_open_and_after_close_does_nothing(tmp_path: Path) -> None:
    frames, gate = numbered(1), GateEncoder()
    ImageFilesSink(OutputNames(tmp_path, "a"), gate).abort()
    sink = opened(tmp_path, frames, gate, writers=1)
    gate.release(0)
    sink.write(frames, 0)
    sink.close()

    sink.abort()

    assert sink.files == [tmp_path / "a_00001_.gate"]


def test_folder_that_goes_away_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "b"
    reserve = OutputNames.reserve

    def reserve_and_lose(names: OutputNames, extension: str, batch: int = 0) -> Reservation:
        name = reserve(names, extension, batch)
        shutil.rmtree(folder)
        return name

    monkeypatch.setattr(OutputNames, "reserve", reserve_and_lose)
    sink = ImageFilesSink(OutputNames(folder, "a"), PngEncoder(), writers=1)
    with nothing_survives(tmp_path):
        sink.open(clip_of(pictures(1)), Recorder())

        error = sink.write(pictures(1), 0).exception(PATIENCE)

        sink.abort()
    assert isinstance(error, SinkError) and isinstance(error.__cause__, FileNotFoundError)
    assert str(folder / "a_00001_.png") in str(error)
