"""Whatever ends an encoder: the frames that it has written play, under a name that says that it was cut short."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from async_decode import Cancelled, Clip, FFmpegError, Recorder
from async_decode.frames import PixelFormat
from async_decode.sinks import VIDEO_FORMATS, Sound, StandIn, VideoSink, WorkingFormats
from async_decode.sinks.ffmpeg import FFmpegProcess
from async_decode.sinks.files import OutputNames
from async_decode.sinks.video import encoding, second_pass
from async_decode.sinks.video import sink as video_sink
from async_decode.sinks.video.second_pass import SecondPass, count_frames
from tests.engine.sink_tools import (
    PATIENCE,
    clip_of,
    newer_ffmpeg,
    nothing_survives,
    pictures,
    psnr,
    run_ffmpeg,
    save,
    small_disk,
)
from tests.engine.test_video_sound import clicks, heard

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

#: One of each container.
CONTAINERS = [
    "mp4 (H.264)",
    "mov (ProRes 422 HQ)",
    "mkv (FFV1)",
    "webm (VP9)",
    pytest.param("gif", marks=newer_ffmpeg("leaves half a frame at the end of a GIF")),
]
#: The other formats.
OTHERS = sorted(set(VIDEO_FORMATS) - {one if isinstance(one, str) else one.values[0] for one in CONTAINERS})
#: Frames a second, which is a fragment.
RATE = 10
WIDTH, HEIGHT = 96, 64


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def encoder(sink: VideoSink) -> FFmpegProcess:
    """The ffmpeg that the frames go to."""
    assert sink._encoding is not None and sink._encoding._encoder is not None
    return sink._encoding._encoder


def fed(
    folder: Path, name: str, *, sound: Sound | None = None, grace: float = PATIENCE
) -> tuple[VideoSink, np.ndarray]:
    """A sink that has taken 60 of 600 frames, whose encoder has written some seconds of them; and the frames."""
    sink = VideoSink(
        OutputNames(folder, "a"),
        fps=RATE,
        video=VIDEO_FORMATS[name],
        preset="ultrafast",
        metadata={"WORKFLOW": "w"},
        stand_in=StandIn(PixelFormat.UINT8),
        sound=sound,
        grace=grace,
    )
    frames = pictures(60, HEIGHT, WIDTH, noise=3)
    sink.open(replace(clip_of(frames), frames=600), Recorder())
    sink.write(frames, 0).result(PATIENCE)
    assert sink._encoding is not None and sink._encoding._name is not None
    part = sink._encoding._name.part
    wait_until(lambda: count_frames(sink.video, part, FFmpegProcess) >= 2 * RATE)
    return sink, frames


def check(sink: VideoSink, frames: np.ndarray, error: BaseException | None) -> int:
    """The file of ``sink`` is alone in its folder and plays its first frames, as many as the error says; how many."""
    assert sink.path is not None and sink.cut_short
    assert sink.path.name == f"a_00001_cut-short{sink.video.extension}"
    assert list(sink.path.parent.iterdir()) == [sink.path]
    arguments = ["-map", "0:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    played = run_ffmpeg("-v", "error", "-xerror", "-i", sink.path, *arguments)
    got = np.frombuffer(played.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    assert played.stderr == b""
    assert all(psnr(got[index], frames[index]) > 25 for index in range(len(got)))
    assert sink.frames == len(got)
    assert f"The first {len(got)} frames are in {sink.path}" in str(error)
    assert f"The first {len(got)} frames are in {sink.path}" in sink.notes
    return len(got)


@posix
@pytest.mark.parametrize("name", CONTAINERS)
def test_killed_encoder(tmp_path: Path, name: str) -> None:
    with nothing_survives(tmp_path):
        sink, frames = fed(tmp_path, name)
        os.kill(encoder(sink).pid, signal.SIGSTOP)
        os.kill(encoder(sink).pid, signal.SIGKILL)
        large = np.broadcast_to(frames[:1], (2000, *frames.shape[1:]))

        error = sink.write(large, 60).exception(PATIENCE)

        assert isinstance(error, FFmpegError) and "killed by SIGKILL" in str(error)
        with pytest.raises(FFmpegError) as raised:
            sink.close()
        assert raised.value is error
        sink.abort()
    assert 2 * RATE <= check(sink, frames, error) <= 60


@posix
@pytest.mark.parametrize("name", OTHERS)
def test_an_encoder_that_is_killed_at_once_ends_the_run_in_every_format(tmp_path: Path, name: str) -> None:
    if name not in WorkingFormats().wait(PATIENCE):
        pytest.skip(f"{name} does not work here")
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, video=VIDEO_FORMATS[name], metadata={"WORKFLOW": "w"})
    with nothing_survives(tmp_path):
        frame = np.zeros(
            (1, *Clip(256, 256, 3).frame_shape(sink.pixel_format)), str(sink.pixel_format.dtype).removeprefix("torch.")
        )
        sink.open(Clip(256, 256, 3), Recorder())
        os.kill(encoder(sink).pid, signal.SIGSTOP)
        sink.write(np.broadcast_to(frame, (1, *frame.shape[1:])), 0)
        os.kill(encoder(sink).pid, signal.SIGKILL)

        error = sink.write(np.broadcast_to(frame, (40, *frame.shape[1:])), 1).exception(PATIENCE)

        assert isinstance(error, FFmpegError) and "killed by SIGKILL" in str(error)
        sink.abort()
    assert sink.path is None and list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("name", ["mp4 (H.264)", "gif"])
def test_a_folder_that_is_removed_meanwhile_ends_the_run(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "made"
    sink, frames = fed(folder, name)
    shutil.rmtree(folder)
    os.kill(encoder(sink).pid, signal.SIGKILL)

    large = np.broadcast_to(frames[:1], (2000, *frames.shape[1:]))
    error = sink.write(large, 60).exception(PATIENCE)

    assert isinstance(error, FFmpegError) and "killed by SIGKILL" in str(error)
    assert sink.path is None
    sink.abort()


@posix
def test_an_encoder_is_never_waited_for_because_closing_it_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, frames = fed(tmp_path, "mp4 (H.264)")
    assert sink._encoding is not None
    whole = sink._encoding.close

    def close(*, cut_short: bool) -> None:
        with suppress(FFmpegError):
            whole(cut_short=cut_short)
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(sink._encoding, "close", close)
    os.kill(encoder(sink).pid, signal.SIGKILL)
    error = sink.write(np.broadcast_to(frames[:1], (2000, *frames.shape[1:])), 60).exception(PATIENCE)

    assert isinstance(error, FFmpegError)
    assert "killed by SIGKILL" in str(error) and "nobody thought of this" in str(error)
    sink.abort()


@posix
def test_encoder_killed_while_the_file_is_closed(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        sink, frames = fed(tmp_path, "mp4 (H.264)")
        os.kill(encoder(sink).pid, signal.SIGSTOP)
        os.kill(encoder(sink).pid, signal.SIGKILL)
        with pytest.raises(FFmpegError, match="killed by SIGKILL") as raised:
            sink.close()
        sink.abort()
    assert 2 * RATE <= check(sink, frames, raised.value) <= 60


@posix
@pytest.mark.parametrize("name", CONTAINERS)
def test_grace_that_is_over(tmp_path: Path, name: str) -> None:
    with nothing_survives(tmp_path):
        sink, frames = fed(tmp_path, name, grace=0.05)
        os.kill(encoder(sink).pid, signal.SIGSTOP)

        sink.abort()

        with pytest.raises(Cancelled) as raised:
            sink.close()
    assert 2 * RATE <= check(sink, frames, raised.value) <= 60


@posix
@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)"])
def test_sound_ends_with_the_frames_that_are_left(tmp_path: Path, name: str) -> None:
    with nothing_survives(tmp_path):
        sink, _ = fed(tmp_path, name, sound=clicks(2, 48_000, 60), grace=0.05)
        os.kill(encoder(sink).pid, signal.SIGSTOP)
        sink.abort()

    assert sink.path is not None
    assert len(heard(sink.path)[0]) == pytest.approx(sink.frames * 48_000 / RATE, abs=3)


@posix
@pytest.mark.parametrize("step", ["count", "copy"])
def test_no_time_to_make_it_an_ordinary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with nothing_survives(tmp_path):
        sink, _ = fed(tmp_path, "mp4 (H.264)", grace=0.05)

        def run_out_of_time(*_: object) -> None:
            assert sink._encoding is not None
            sink._encoding.end()
            raise FFmpegError("ended")

        if step == "count":
            monkeypatch.setattr(encoding, "count_frames", run_out_of_time)
        else:
            monkeypatch.setattr(SecondPass, "run", run_out_of_time)
        os.kill(encoder(sink).pid, signal.SIGSTOP)

        sink.abort()

        with pytest.raises(Cancelled) as raised:
            sink.close()
    # It stays in fragments, the last of which may be a half one.
    assert sink.path is not None and sink.cut_short and list(tmp_path.iterdir()) == [sink.path]
    count = count_frames(sink.video, sink.path, FFmpegProcess)
    assert 2 * RATE <= count <= sink.frames
    said = f"The first {count} frames are in" if step == "copy" else "What ffmpeg has written of the frames is in"
    assert f"{said} {sink.path}" in str(raised.value)


@posix
def test_second_grace_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The disk hangs: neither the encoder nor what follows it ever ends.
    monkeypatch.setattr(video_sink, "_SALVAGE_SECONDS", 0.05)
    ended = threading.Event()
    with nothing_survives(tmp_path):
        sink, _ = fed(tmp_path, "mp4 (H.264)", grace=0.05)
        end = sink._encoding.end

        def end_and_tell() -> None:
            end()
            ended.set()

        def hang(*_: object) -> int:
            assert ended.wait(PATIENCE)
            raise FFmpegError("ended")

        monkeypatch.setattr(sink._encoding, "end", end_and_tell)
        monkeypatch.setattr(encoding, "count_frames", hang)
        os.kill(encoder(sink).pid, signal.SIGSTOP)

        sink.abort()

    assert sink.path is not None and list(tmp_path.iterdir()) == [sink.path]


@linux
@pytest.mark.parametrize("name", CONTAINERS)
def test_full_disk(tmp_path: Path, name: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (300, HEIGHT, WIDTH, 3), np.uint8)
    with small_disk(tmp_path, "600k") as disk, nothing_survives(disk):
        options = {"video": VIDEO_FORMATS[name], "stand_in": StandIn(PixelFormat.UINT8)}
        sink = VideoSink(OutputNames(disk, "a"), fps=RATE, preset="ultrafast", **options)
        with pytest.raises(FFmpegError, match=r"(?s)No space left on device.*Free some space") as raised:
            save(sink, frames)
        sink.abort()

        assert sink.path is not None and list(disk.iterdir()) == [sink.path] and sink.cut_short
        assert f"The first {sink.frames} frames are in {sink.path}" in str(raised.value)
        # A GIF may end with half a frame.
        assert count_frames(sink.video, sink.path, FFmpegProcess) - (name == "gif") == sink.frames > 0


@pytest.mark.parametrize("name", ["mp4 (H.264)", "mov (ProRes 422 HQ)"])
def test_copy_that_lacks_a_frame_does_not_take_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # As ffmpeg 4 does with a last frame that is alone in its fragment.
    whole = second_pass.whole_arguments

    def loses_one(*arguments: object, **options: object) -> list[str]:
        told = whole(*arguments, **options)
        place = told.index("-c:v")
        return [*told[:place], "-frames:v", "4", *told[place:]]

    monkeypatch.setattr(second_pass, "whole_arguments", loses_one)
    options = {"video": VIDEO_FORMATS[name], "stand_in": StandIn(PixelFormat.UINT8)}
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, **options)
    with nothing_survives(tmp_path):
        save(sink, pictures(5))

    assert list(tmp_path.iterdir()) == [sink.path]
    assert count_frames(sink.video, sink.path, FFmpegProcess) == 5
    # An ffmpeg 4 counts what is shown, which without the last packet may be less.
    told = r"copied [1-4] of 5 frames; install a newer imageio-ffmpeg"
    assert any(re.search(told, note) for note in sink.notes)


def test_copy_is_made_again_with_the_rate_where_ffmpeg_finds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ffmpeg 4 finds no durations in fragments: the last frame of a copy lies behind its end.
    whole = second_pass.whole_arguments

    def loses_one(*arguments: object, rate: Fraction | None, **options: object) -> list[str]:
        told = whole(*arguments, rate=rate, **options)
        place = told.index("-c:v")
        return told if rate is not None else [*told[:place], "-frames:v", "4", *told[place:]]

    monkeypatch.setattr(second_pass, "whole_arguments", loses_one)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, sound=clicks(2, 48_000, 3))
    with nothing_survives(tmp_path):
        save(sink, pictures(5))

    assert list(tmp_path.iterdir()) == [sink.path] and sink.notes == []
    assert b"moof" not in sink.path.read_bytes()
    assert count_frames(sink.video, sink.path, FFmpegProcess) == 5
    assert abs(len(heard(sink.path)[0]) - 24_000) <= 3
