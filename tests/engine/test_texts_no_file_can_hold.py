"""A text that a file cannot hold is left out with a note; the run and the other texts are not lost for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from async_decode import FinishedFrames, FramePipeline
from async_decode.sinks import (
    VIDEO_FORMATS,
    AvifEncoder,
    ExrEncoder,
    ImageEncoder,
    ImageFilesSink,
    JpegEncoder,
    Png16Encoder,
    PngEncoder,
    TiffEncoder,
    VideoSink,
    WebpEncoder,
)
from async_decode.sinks.files import OutputNames
from async_decode.sinks.image.avif import pillow_writes_avif

#: JSON can carry half of a surrogate pair.
HALF = {"prompt": "the prompt", "half": "\ud800", "\udc00": "half", "workflow": "the workflow"}


@pytest.mark.parametrize(
    "encoder", [PngEncoder, Png16Encoder, JpegEncoder, WebpEncoder, AvifEncoder, TiffEncoder, ExrEncoder]
)
def test_a_text_that_no_file_can_hold_costs_that_text_only(tmp_path: Path, encoder: type[ImageEncoder]) -> None:
    if encoder is AvifEncoder and not pillow_writes_avif():
        pytest.skip("Pillow without AVIF")
    made = encoder(metadata=HALF)  # type: ignore[call-arg]
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), made)

    with FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.rand(1, 16, 16, 3))

    content = sink.files[0].read_bytes()
    assert b"the prompt" in content and b"the workflow" in content
    (note,) = [warning for warning in pipeline.report.warnings if "left out" in warning]
    assert "half" in note and "prompt" not in note


@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "webp (animated)"])
def test_a_text_that_no_video_can_hold_costs_that_text_only(tmp_path: Path, name: str) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=10, video=VIDEO_FORMATS[name], metadata=HALF)

    with FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.rand(3, 16, 16, 3))

    assert sink.path is not None
    content = sink.path.read_bytes()
    assert b"the prompt" in content and b"the workflow" in content
    assert "no text that a file can hold, left out: half, ?" in pipeline.report.warnings


@pytest.mark.parametrize("encoder", [PngEncoder, Png16Encoder])
def test_a_png_leaves_out_keys_that_it_has_no_letters_for(encoder: type[ImageEncoder]) -> None:
    made = encoder(metadata={"prompt": "漢", "漢": "text"})  # type: ignore[call-arg]

    assert list(made.notes) == ["no text that a png file can hold, left out: 漢"]
