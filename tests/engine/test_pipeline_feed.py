"""Frames that are there already: fed from a thread of its own, in their own type, to every end that a run can have."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from async_decode import Cancelled, DecodeError, Decoding, FinishedFrames, FramePipeline, PixelFormat
from tests.engine.sink_tools import PATIENCE
from tests.engine.toy import CollectSink, FailingSink, GateSink

GIVEN = Decoding("images", exact=True, bounded=True)


def images(frames: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(frames, 5, 7, 3, generator=torch.Generator().manual_seed(frames)) * 1.2 - 0.1).to(dtype)


def feeding(sinks: list, frames: torch.Tensor, **settings: int) -> FramePipeline:
    return FramePipeline(sinks, finish=FinishedFrames(), total_frames=len(frames), decoding=GIVEN, **settings)


def no_threads() -> bool:
    return not any(thread.name.startswith("async-decode") for thread in threading.enumerate())


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_frames_arrive_in_order_and_whole(chunk_size: int) -> None:
    frames = images(11)
    floats, quantised = CollectSink(), CollectSink(PixelFormat.UINT8)

    with feeding([floats, quantised], frames, chunk_size=chunk_size) as pipeline:
        pipeline.feed(frames).result(PATIENCE)
        assert floats.calls == ["open", "close"]

    assert np.array_equal(np.concatenate(floats.chunks), frames.numpy())
    assert np.array_equal(np.concatenate(quantised.chunks), np.clip(255.0 * frames.numpy(), 0, 255).astype(np.uint8))
    report = pipeline.report
    assert (report.outcome, report.frames, report.hidden_share) == ("completed", 11, None)
    assert no_threads()


def test_leaving_the_block_waits_for_what_is_fed() -> None:
    frames = images(9)
    sink = CollectSink(threaded=True)

    with feeding([sink], frames, chunk_size=2) as pipeline:
        pipeline.feed(frames)

    assert sink.calls == ["open", "close"] and np.array_equal(np.concatenate(sink.chunks), frames.numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_bytes_are_those_of_stock_for_the_type(dtype: torch.dtype) -> None:
    frames = images(5, dtype)
    sink = CollectSink(PixelFormat.UINT8)

    with feeding([sink], frames, chunk_size=2) as pipeline:
        pipeline.feed(frames)

    assert np.array_equal(np.concatenate(sink.chunks), np.clip(255.0 * frames.numpy(), 0, 255).astype(np.uint8))


def test_bfloat16_is_scaled_in_float32() -> None:
    frames = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    sink = CollectSink(PixelFormat.UINT8)

    with feeding([sink], frames) as pipeline:
        pipeline.feed(frames)

    assert np.array_equal(sink.chunks[0], (frames.float() * 255).to(torch.uint8).numpy())


@pytest.mark.parametrize("where", ["open", "write:1", "future:1", "close"])
def test_an_error_of_a_sink_ends_the_feeding_and_is_raised(where: str) -> None:
    error = OSError("no space left")
    frames = images(40)

    sinks = [FailingSink(where, error)]
    with pytest.raises(OSError, match="no space left") as caught, feeding(sinks, frames, chunk_size=1) as pipeline:
        pipeline.feed(frames).result(PATIENCE)

    assert caught.value is error and no_threads()
    assert pipeline.report.outcome == "failed"


def test_an_error_in_the_block_ends_the_feeding_within_one_chunk() -> None:
    frames = images(40)
    sink = GateSink()

    with pytest.raises(Cancelled), feeding([sink], frames, chunk_size=1, buffer_depth=2) as pipeline:
        pipeline.feed(frames)
        sink.wait_for(2)
        raise Cancelled("enough")

    assert pipeline.received == 2 and pipeline.report.outcome == "cancelled" and no_threads()


def test_cancel_ends_the_feeding() -> None:
    frames = images(40)
    sink = GateSink()

    with pytest.raises(Cancelled), feeding([sink], frames, chunk_size=1, buffer_depth=2) as pipeline:
        fed = pipeline.feed(frames)
        sink.wait_for(2)
        pipeline.cancel()
        fed.result(PATIENCE)

    assert no_threads()


def test_feeding_twice_or_after_submit_is_refused() -> None:
    frames = images(4)
    with feeding([CollectSink()], frames) as pipeline:
        pipeline.feed(frames)
        with pytest.raises(RuntimeError, match="feed was called after submit or feed"):
            pipeline.feed(frames)

    with FramePipeline([CollectSink()], finish=FinishedFrames()) as pipeline:
        pipeline.submit(frames)
        with pytest.raises(RuntimeError, match="feed was called after submit or feed"):
            pipeline.feed(frames)


def test_integer_frames_are_refused() -> None:
    frames = (images(4) * 255).to(torch.uint8)
    message = r"expected frames of a floating type, scaled to 0 to 1, got torch\.uint8"
    with pytest.raises(DecodeError, match=message), feeding([CollectSink()], frames) as pipeline:
        pipeline.feed(frames)


def test_notes_of_a_sink_are_warnings_in_the_report() -> None:
    frames = images(2)
    sink = CollectSink()
    sink.notes = ["the workflow did not fit"]

    with feeding([sink], frames) as pipeline:
        pipeline.feed(frames)

    assert pipeline.report.warnings == ("the workflow did not fit",)
