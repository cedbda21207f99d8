"""A pipeline that is used wrongly says so at once, in one clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from async_decode import Clip, FinishedFrames, FramePipeline, SinkError, choose_tap
from async_decode.frames import FrameArray
from async_decode.spans import Recorder
from tests.engine.toy import CollectSink, ToyVAE, toy_latent

FRAMES = torch.zeros(2, 2, 2, 3)
CALLS = {
    "submit": lambda pipeline: pipeline.submit(FRAMES),
    "feed": lambda pipeline: pipeline.feed(FRAMES),
    "end": lambda pipeline: pipeline.end(),
    "decode": lambda pipeline: pipeline.decode(choose_tap(ToyVAE().video_decoder()), toy_latent(2)),
}


@pytest.mark.parametrize("what", CALLS)
def test_without_its_block_it_says_how_to_use_it(what: str) -> None:
    pipeline = FramePipeline([CollectSink()], finish=FinishedFrames())

    with pytest.raises(RuntimeError, match=f"{what} was called outside of the pipeline's block; write: with "):
        CALLS[what](pipeline)


@pytest.mark.parametrize("what", CALLS)
def test_after_its_block_too(what: str) -> None:
    with FramePipeline([CollectSink()], finish=FinishedFrames()) as pipeline:
        pipeline.submit(FRAMES)

    with pytest.raises(RuntimeError, match=f"{what} was called outside"):
        CALLS[what](pipeline)
    assert pipeline.report.outcome == "completed"


def test_entered_twice_it_is_refused() -> None:
    pipeline = FramePipeline([CollectSink()], finish=FinishedFrames())
    with pipeline:
        pipeline.submit(FRAMES)
        with pytest.raises(RuntimeError, match="make a new FramePipeline"), pipeline:
            pass

    with pytest.raises(RuntimeError, match="make a new FramePipeline"), pipeline:
        pass


def test_a_sink_is_used_once() -> None:
    sink = CollectSink()
    with FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(FRAMES)

    again = FramePipeline([sink], finish=FinishedFrames())
    with pytest.raises(SinkError, match="CollectSink has had its run"), again:
        pytest.fail("it cannot be entered")

    assert len(sink.frames) == 2
    assert again.report.outcome == "failed"


def test_a_sink_is_there_once() -> None:
    sink = CollectSink()

    with pytest.raises(ValueError, match="one of them is there twice"):
        FramePipeline([sink, sink])


@pytest.mark.parametrize("value", [0, 2.5, "4", None, 5000])
def test_sizes_are_whole_numbers_in_range(value: Any) -> None:
    with pytest.raises(ValueError, match="chunk_size must be from 1 to 4096 frames, got "):
        FramePipeline([CollectSink()], chunk_size=value)


def test_whole_numbers_of_numpy_are_numbers() -> None:
    pipeline = FramePipeline([CollectSink()], chunk_size=np.int64(3), buffer_depth=np.int32(2))

    assert (pipeline.chunk_size, pipeline.buffer_depth) == (3, 2)


def test_a_run_that_could_not_be_entered_has_failed() -> None:
    class Refusing(CollectSink):
        def prepare(self) -> None:
            raise SinkError("the folder is not there")

        def open(self, clip: Clip, recorder: Recorder) -> None:
            pytest.fail("nothing is opened")

        def write(self, frames: FrameArray, first_index: int) -> None:
            pytest.fail("nothing is written")

    pipeline = FramePipeline([Refusing()])

    with pytest.raises(SinkError, match="not there"), pipeline:
        pytest.fail("it cannot be entered")

    assert pipeline.report.outcome == "failed" and isinstance(pipeline.error, SinkError)
