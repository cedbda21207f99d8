"""What would fail after the work is said before it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

from async_decode import FFmpegError, FinishedFrames, FramePipeline, SinkError
from async_decode.sinks import ImageFilesSink, NullSink, PngEncoder, Sink, TensorSink, VideoSink
from async_decode.sinks.files import OutputNames

SINKS = {
    "video": lambda folder: VideoSink(OutputNames(folder, "a"), fps=24),
    "images": lambda folder: ImageFilesSink(OutputNames(folder, "a"), PngEncoder()),
    "tensor": lambda folder: TensorSink(),
    "null": lambda folder: NullSink(),
}


def run(sink: Sink) -> None:
    with FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.zeros(2, 16, 16, 3))


@pytest.mark.parametrize("kind", ["video", "images"])
def test_folder_is_tried_before_the_first_frame(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SinkError, match=r"file/a\.\w+ could not be written"),
        FramePipeline([SINKS[kind](tmp_path / "file")], finish=FinishedFrames()),
    ):
        pytest.fail("the decode has begun")


def test_ffmpeg_is_looked_for_before_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", nothing_found)
    with (
        pytest.raises(FFmpegError, match="pip install imageio-ffmpeg"),
        FramePipeline([SINKS["video"](tmp_path)], finish=FinishedFrames()),
    ):
        pytest.fail("the decode has begun")


@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_is_used_once(tmp_path: Path, kind: str) -> None:
    sink = SINKS[kind](tmp_path)
    run(sink)
    with pytest.raises(SinkError, match=f"this {type(sink).__name__} has had its run; make another one"):
        run(sink)


@pytest.mark.parametrize("kind", ["video", "images"])
def test_mounts_with_neither_links_nor_renames_take_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))

    for call in ("link", "replace", "rename"):
        monkeypatch.setattr(os, call, refuse)
    run(SINKS[kind](tmp_path))

    assert [path.suffix for path in tmp_path.iterdir()] == ([".mp4"] if kind == "video" else [".png"] * 2)


def test_full_folder_is_said_before_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("link", "replace"):
        monkeypatch.setattr(os, call, full)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with (
        pytest.raises(SinkError, match="free some space"),
        FramePipeline([SINKS["images"](tmp_path)], finish=FinishedFrames()),
    ):
        pytest.fail("the decode has begun")
