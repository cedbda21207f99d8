"""When saving a video fails or is aborted: one error, no hang, and nothing half-written that looks finished."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from async_decode import Cancelled, FFmpegError, FinishedFrames, FramePipeline, Recorder, SinkError
from async_decode.sinks import ImageFilesSink, PngEncoder, VideoSink
from async_decode.sinks.ffmpeg import FFmpegProcess
from async_decode.sinks.files import OutputNames
from async_decode.sinks.video.second_pass import count_frames
from tests.engine.sink_tools import (
    PATIENCE,
    clip_of,
    decode,
    nothing_survives,
    pictures,
    probe,
    psnr,
    save,
    small_disk,
)

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

#: Frames that no pipe takes without a reader: 3 MB each.
LARGE = np.broadcast_to(pictures(1, 1000, 1000), (12, 1000, 1000, 3))


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tags wait for ffmpeg: a private workflow, which must not stay there."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(folder))
    yield folder
    assert list(folder.iterdir()) == []


def opened(folder: Path, frames: np.ndarray, *, grace: float = PATIENCE) -> VideoSink:
    names = OutputNames(folder, "a")
    sink = VideoSink(names, fps=24, preset="ultrafast", crf=10, metadata={"workflow": "private"}, grace=grace)
    sink.open(clip_of(frames), Recorder())
    return sink


def send(sink: VideoSink, number: int) -> None:
    """Send a signal to the sink's ffmpeg."""
    os.kill(encoder(sink).pid, number)


def encoder(sink: VideoSink) -> FFmpegProcess:
    """The ffmpeg that the frames go to."""
    assert sink._encoding is not None and sink._encoding._encoder is not None
    return sink._encoding._encoder


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_abort_keeps_a_playable_file_that_says_it_was_cut_short(tmp_path: Path) -> None:
    frames = pictures(20)
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames)
        for first in (0, 4):
            sink.write(frames[first : first + 4], first).result(PATIENCE)

        sink.abort()
        sink.abort()

        with pytest.raises(Cancelled):
            sink.write(frames[8:12], 8)
        with pytest.raises(Cancelled):
            sink.close()

    assert files_in(tmp_path) == ["a_00001_cut-short.mp4"]
    assert (sink.path, sink.cut_short, sink.frames) == (tmp_path / "a_00001_cut-short.mp4", True, 8)
    assert probe(sink.path).frames == 8
    got = decode(sink.path, "rgb24", (48, 32), 3)
    assert got.shape == frames[:8].shape
    assert all(psnr(got[index], frames[index]) > 25 for index in range(8))


def test_number_of_a_cut_short_file_is_not_given_again(tmp_path: Path) -> None:
    frames = pictures(4)
    sink = opened(tmp_path, frames)
    sink.write(frames, 0).result(PATIENCE)
    sink.abort()
    save(VideoSink(OutputNames(tmp_path, "a"), fps=24), frames)

    assert files_in(tmp_path) == ["a_00001_cut-short.mp4", "a_00002_.mp4"]


def test_abort_before_any_frame_leaves_nothing(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, pictures(4))

        sink.abort()

        with pytest.raises(Cancelled):
            sink.close()
    assert files_in(tmp_path) == []
    assert (sink.path, sink.cut_short) == (None, False)


def test_close_without_a_frame_leaves_nothing(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, pictures(4))
        with pytest.raises(Cancelled):
            sink.close()
    assert files_in(tmp_path) == []


def test_abort_before_open_and_after_close_does_nothing(tmp_path: Path) -> None:
    VideoSink(OutputNames(tmp_path, "a"), fps=24).abort()
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24)
    save(sink, pictures(4))

    sink.abort()

    assert files_in(tmp_path) == ["a_00001_.mp4"]
    assert not sink.cut_short and probe(sink.path).frames == 4


@posix
def test_killed_ffmpeg_is_one_error_that_names_it(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, LARGE)
        sink.write(LARGE[:1], 0).result(PATIENCE)
        send(sink, signal.SIGKILL)

        error = sink.write(LARGE[1:], 1).exception(PATIENCE)

        assert isinstance(error, FFmpegError)
        assert "ffmpeg stopped before it had all frames (killed by SIGKILL)" in str(error)
        with pytest.raises(FFmpegError) as raised:
            sink.write(LARGE[:1], 12)
        assert raised.value is error
        with pytest.raises(FFmpegError) as raised:
            sink.close()
        assert raised.value is error
        sink.abort()
    assert files_in(tmp_path) == []
    assert sink.path is None


@posix
def test_ffmpeg_killed_after_the_last_frame_is_an_error_too(tmp_path: Path) -> None:
    frames = pictures(4)
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames)
        sink.write(frames, 0).result(PATIENCE)
        # Stopped first, so that it cannot finish before it is killed.
        send(sink, signal.SIGSTOP)
        send(sink, signal.SIGKILL)

        with pytest.raises(FFmpegError, match="killed by SIGKILL"):
            sink.close()
        sink.abort()
    assert files_in(tmp_path) == []


@posix
def test_abort_ends_an_ffmpeg_that_does_not_answer(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, LARGE, grace=0.05)
        sink.write(LARGE[:1], 0).result(PATIENCE)
        send(sink, signal.SIGSTOP)
        taken = [sink.write(LARGE[1:], 1), sink.write(LARGE, 12)]

        sink.abort()

        assert [type(future.exception(0)) for future in taken] == [Cancelled, Cancelled]
        with pytest.raises(Cancelled):
            sink.close()
    assert files_in(tmp_path) == []


@posix
def test_abort_ends_a_close_that_waits_for_ffmpeg(tmp_path: Path) -> None:
    frames, raised = pictures(4), []
    with nothing_survives(tmp_path):
        sink = opened(tmp_path, frames, grace=0.05)
        sink.write(frames, 0).result(PATIENCE)
        send(sink, signal.SIGSTOP)
        finishing = threading.Event()
        finish = encoder(sink).finish

        def finish_and_tell() -> None:
            finishing.set()
            finish()

        encoder(sink).finish = finish_and_tell

        def close() -> None:
            try:
                sink.close()
            except Cancelled as error:
                raised.append(error)

        closer = threading.Thread(target=close)
        closer.start()
        assert finishing.wait(PATIENCE)

        sink.abort()

        closer.join(PATIENCE)
        assert not closer.is_alive() and len(raised) == 1
    assert files_in(tmp_path) == []


@posix
def test_pipeline_raises_the_error_of_a_killed_ffmpeg_once(tmp_path: Path) -> None:
    names = OutputNames(tmp_path, "a")
    video = VideoSink(names, fps=24, preset="ultrafast", metadata={"workflow": "private"})
    images = ImageFilesSink(names, PngEncoder(compress_level=0))
    piece = torch.rand(1, 1000, 1000, 3)
    with nothing_survives(tmp_path):
        with (
            pytest.raises(FFmpegError, match="killed by SIGKILL"),
            FramePipeline([video, images], chunk_size=1, buffer_depth=2, finish=FinishedFrames()) as pipeline,
        ):
            for index in range(40):
                pipeline.submit(piece)
                if index == 0:
                    send(video, signal.SIGKILL)
        assert pipeline.report.outcome == "failed"
        assert {path.suffix for path in tmp_path.iterdir()} <= {".png"}
    assert video.path is None and len(images.files) < 40


@pytest.mark.parametrize("kind", ["path that leads nowhere", "no ffmpeg at all", "no program"])
def test_missing_ffmpeg_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "no ffmpeg at all":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
        remedy = "pip install imageio-ffmpeg"
    else:
        remedy = "IMAGEIO_FFMPEG_EXE"
        ffmpeg = tmp_path / "ffmpeg"
        if kind == "no program":
            ffmpeg.write_text("not a program")
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", os.fspath(ffmpeg))
    output = tmp_path / "output"
    output.mkdir()
    with nothing_survives(tmp_path), pytest.raises(FFmpegError, match=remedy) as raised:
        opened(output, pictures(1))
    assert "ffmpeg" in str(raised.value)
    assert files_in(output) == []


def noise(frames: int) -> np.ndarray:
    """What no codec makes small: about 30 KB a frame."""
    return np.random.default_rng(0).integers(0, 256, (frames, 96, 128, 3), np.uint8)


@linux
def test_full_disk_while_frames_come_is_named_with_a_remedy(tmp_path: Path) -> None:
    frames = noise(120)
    with small_disk(tmp_path, "400k") as disk, nothing_survives(disk):
        sink = opened(disk, frames)
        with pytest.raises(FFmpegError, match=r"(?s)ffmpeg.*No space left on device.*Free some space"):
            for first in range(0, 120, 4):
                sink.write(frames[first : first + 4], first).result(PATIENCE)
            sink.close()
        sink.abort()

        assert files_in(disk) == ([] if sink.path is None else ["a_00001_cut-short.mp4"])
        assert len(sink.notes) == len(set(sink.notes))


@linux
def test_disk_that_is_full_only_at_the_end_never_leaves_a_broken_file(tmp_path: Path) -> None:
    # In this range the disk takes every frame but not the copy with the index in front, which is made at the end.
    frames = noise(8)
    save(VideoSink(OutputNames(tmp_path, "whole"), fps=24, crf=10, preset="ultrafast"), frames)
    whole = (tmp_path / "whole_00001_.mp4").stat().st_size
    outcomes = []
    for number, pages in enumerate([*range(-2, 4), whole // 4096 + 8]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with small_disk(folder, str((whole // 4096 + pages) * 4096)) as disk, nothing_survives(disk):
            sink = VideoSink(OutputNames(disk, "a"), fps=24, crf=10, preset="ultrafast")
            try:
                save(sink, frames)
            except FFmpegError as error:
                sink.abort()
                assert "No space left" in str(error)
                assert files_in(disk) == ([] if sink.path is None else ["a_00001_cut-short.mp4"])
                if sink.path is not None:
                    assert f"The first {sink.frames} frames are in {sink.path}" in str(error)
                    assert count_frames(sink.video, sink.path, FFmpegProcess) == sink.frames
            else:
                assert probe(sink.path).frames == 8
                assert bool(sink.notes) == (sink.path.stat().st_size != whole)
                assert all("stays in fragments" in note and "No space left" in note for note in sink.notes)
            outcomes.append(sink.path is not None and not sink.cut_short)

    assert outcomes == sorted(outcomes) and outcomes[0] is False and outcomes[-2] is True
    assert sink.notes == []


@linux
def test_full_disk_for_images_keeps_the_whole_ones(tmp_path: Path) -> None:
    frames = noise(30)
    with small_disk(tmp_path, "400k") as disk, nothing_survives(disk):
        sink = ImageFilesSink(OutputNames(disk, "a"), PngEncoder(), writers=2)
        with pytest.raises(SinkError, match=r"a_000\d\d_\.png could not be written: No space left.*free some space"):
            save(sink, frames)
        sink.abort()

        assert [path.name for path in sink.files] == files_in(disk)
        assert 5 < len(sink.files) < 30


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"file/a\.mp4 could not be written: .*choose another folder"
    with nothing_survives(tmp_path), pytest.raises(SinkError, match=message):
        opened(tmp_path / "file", pictures(1))


def save_both(folder: Path, barrier: threading.Barrier, who: int) -> None:
    """What one job does: videos and images in turn, of a grey that is its own."""
    for turn in range(4):
        frames = np.full((3, 32, 32, 3), 40 * who + 10 * turn + 20, np.uint8)
        barrier.wait(PATIENCE)
        save(VideoSink(OutputNames(folder, "a"), fps=24, preset="ultrafast"), frames)
        save(ImageFilesSink(OutputNames(folder, "a"), PngEncoder(), writers=2), frames)


@linux
def test_two_processes_with_one_prefix_lose_no_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    jobs = [context.Process(target=save_both, args=(tmp_path, barrier, who)) for who in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(PATIENCE)
    assert [job.exitcode for job in jobs] == [0, 0]

    videos, images = sorted(tmp_path.glob("*.mp4")), sorted(tmp_path.glob("*.png"))
    assert len(files_in(tmp_path)) == len(videos) + len(images)
    greys = [20, 30, 40, 50, 60, 70, 80, 90]
    found = [decode(path, "rgb24", (32, 32), 3) for path in videos]
    assert [len(frames) for frames in found] == [3] * 8
    assert sorted(round(frames.mean() / 10) * 10 for frames in found) == greys
    assert len(images) == 24
    assert sorted(int(np.asarray(Image.open(path))[0, 0, 0]) for path in images) == sorted(greys * 3)
