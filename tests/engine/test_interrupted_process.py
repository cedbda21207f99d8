"""A program that is killed in the middle of saving leaves whole images, and a video that plays."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from async_decode import Recorder
from async_decode.sinks import VIDEO_FORMATS, ImageFilesSink, PngEncoder, VideoSink
from async_decode.sinks.files import OutputNames
from tests.engine.sink_tools import PATIENCE, clip_of, decode, pictures, psnr, run_ffmpeg, save

#: Large enough that some file is half-written for much of the time.
FRAMES = pictures(4, 256, 384)


def save_for_ever(folder: Path, told: multiprocessing.connection.Connection) -> None:
    sink = ImageFilesSink(OutputNames(folder, "a"), PngEncoder(compress_level=1), writers=3)
    sink.open(clip_of(FRAMES), Recorder())
    for chunk in itertools.count():
        sink.write(FRAMES, 4 * chunk).result(PATIENCE)
        told.send(chunk)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and kill -9")
def test_every_png_of_a_killed_program_opens(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(6):
        folder = tmp_path / str(number)
        receiver, sender = context.Pipe(duplex=False)
        program = context.Process(target=save_for_ever, args=(folder, sender))
        program.start()
        for _ in range(number + 1):
            assert receiver.poll(PATIENCE)
            receiver.recv()
        stop_in_the_midst_of_a_file(program, folder)

        program.kill()

        program.join(PATIENCE)
        assert program.exitcode == -signal.SIGKILL
        whole, parts = sorted(folder.glob("*.png")), sorted(folder.glob("*.png.part"))
        assert len(whole) >= 4 * (number + 1) and parts
        assert len(whole) + len(parts) == len(list(folder.iterdir()))
        # Each of the four frames has its own bytes: a file that holds less, or another's, is none of them.
        for path in whole:
            with Image.open(path) as image:
                image.load()
                assert any(np.array_equal(np.asarray(image), frame) for frame in FRAMES), path
        # A name that was claimed then is not given again, nor is a file of then replaced.
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        later = ImageFilesSink(OutputNames(folder, "a"), PngEncoder(compress_level=1), writers=1)
        save(later, FRAMES[:2])
        assert not set(later.files) & set(before)
        assert {path: path.stat().st_mtime_ns for path in before} == before


def stop_in_the_midst_of_a_file(program: multiprocessing.process.BaseProcess, folder: Path) -> None:
    """Stop a program that goes on saving, when there is a file that it has begun and not ended."""
    assert program.pid is not None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        os.kill(program.pid, signal.SIGSTOP)
        while Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline, "it does not stop"
        if any(folder.glob("*.png.part")):
            return
        os.kill(program.pid, signal.SIGCONT)
        time.sleep(0.002)
    raise TimeoutError("every stop fell between two files")


def save_video(folder: Path, name: str, frames: np.ndarray, told: multiprocessing.connection.Connection) -> None:
    video = VIDEO_FORMATS[name]
    sink = VideoSink(OutputNames(folder, "a"), fps=10, video=video, preset="ultrafast", crf=10)
    sink.open(replace(clip_of(frames), frames=None), Recorder())
    for first in range(0, len(frames), 10):
        sink.write(frames[first : first + 10], first).result(PATIENCE)
    assert sink._encoding is not None and sink._encoding._encoder is not None
    told.send(sink._encoding._encoder.pid)
    time.sleep(PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork, kill -9 and /proc")
@pytest.mark.parametrize(
    ("name", "with_ffmpeg"), [("mp4 (H.264)", False), ("mp4 (H.264)", True), ("webm (VP9)", False)]
)
def test_video_of_a_killed_program_plays(tmp_path: Path, name: str, with_ffmpeg: bool) -> None:
    frames = pictures(100)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    program = context.Process(target=save_video, args=(tmp_path, name, frames, sender))
    program.start()
    assert receiver.poll(PATIENCE)
    encoder = receiver.recv()
    (part,) = tmp_path.iterdir()
    if with_ffmpeg:
        # What is not in the file yet is lost; then ffmpeg may not see the end of its input.
        while part.stat().st_size < 20_000:
            time.sleep(0.01)
        os.kill(encoder, signal.SIGSTOP)

    program.kill()

    program.join(PATIENCE)
    if with_ffmpeg:
        os.kill(encoder, signal.SIGKILL)
    wait_for_end(encoder)
    assert part.name == f"a_00001_{VIDEO_FORMATS[name].extension}.part"
    assert list(tmp_path.iterdir()) == [part]
    assert run_ffmpeg("-v", "error", "-i", part, "-f", "null", "-").stderr == b""
    got = decode(part, "rgb24", (48, 32), 3)
    assert len(got) == 100 if not with_ffmpeg else 10 <= len(got) < 100 and len(got) % 10 == 0
    assert all(psnr(got[index], frames[index]) > 25 for index in range(len(got)))


def wait_for_end(pid: int) -> None:
    """Wait until nothing of a process is left but perhaps a status that nobody has asked for."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} lives on")
