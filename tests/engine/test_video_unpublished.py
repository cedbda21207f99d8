"""A video that gets no name in the end: it stays, and the error says where it is and what it lacks."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from async_decode import Recorder, SinkError
from async_decode.frames import PixelFormat
from async_decode.sinks import VIDEO_FORMATS, StandIn, VideoSink, files
from async_decode.sinks.ffmpeg import FFmpegProcess
from async_decode.sinks.files import OutputNames
from async_decode.sinks.video.second_pass import count_frames
from tests.engine.sink_tools import PATIENCE, clip_of, pictures, save
from tests.engine.test_video_sound import clicks

#: Frames a second.
RATE = 10


def test_file_that_is_done_stays_when_it_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(OutputNames, "give", refuse)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE)
    with pytest.raises(SinkError, match="what was made stays as ") as raised:
        save(sink, pictures(5))
    sink.abort()

    (left,) = tmp_path.iterdir()
    assert re.search(r"stays as (.*)", str(raised.value))[1] == str(left)
    assert count_frames(sink.video, left, FFmpegProcess) == 5


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """While this lasts, nothing gets a name in ``folder``, nor loses one; root is kept from it by an attribute."""
    if os.geteuid():
        folder.chmod(0o555)
    elif subprocess.run(["chattr", "+i", folder], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable folders")
    try:
        yield
    finally:
        folder.chmod(0o755) if os.geteuid() else subprocess.run(["chattr", "-i", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("metadata", [None, {"prompt": "{}"}])
@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)", "webp (animated)"])
def test_folder_that_becomes_unwritable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, metadata: dict[str, str] | None
) -> None:
    # Nobody holds the file, as virus scanners do for a while.
    monkeypatch.setattr(files, "_PAUSES", ())
    folder = tmp_path / "folder"
    folder.mkdir()
    video = VIDEO_FORMATS[name]
    options = {"video": video, "metadata": metadata, "stand_in": StandIn(PixelFormat.UINT8)}
    sink = VideoSink(OutputNames(folder, "a"), fps=RATE, sound=clicks(2, 48_000, 3), **options)
    frames = pictures(25)
    sink.open(clip_of(frames), Recorder())
    sink.write(frames, 0).result(PATIENCE)
    with unwritable(folder):
        with pytest.raises(SinkError, match="could not be written") as raised:
            sink.close()
        sink.abort()

    (left,) = folder.iterdir()
    where, _, lacks = str(raised.value).partition("\nOf that file: ")
    assert where.endswith(f"what was made stays as {left}")
    assert ("the sound was left out" in lacks) == (video.sound is not None)
    assert ("the video stays in fragments" in lacks) == video.fragments
    assert video.muxer == "webp" or count_frames(video, left, FFmpegProcess) == 25
