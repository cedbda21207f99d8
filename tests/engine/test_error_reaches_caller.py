"""The first error wins, reaches the caller with its own traceback, and every sink is aborted."""

from __future__ import annotations

import threading
import traceback

import pytest
import torch

from async_decode import Cancelled, FinishedFrames, FramePipeline, choose_tap
from tests.engine.toy import CollectSink, FailingSink, GateSink, ToyVAE, toy_latent


class DiskGone(Exception):
    pass


def _pipeline_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("async-decode")]


@pytest.mark.parametrize("where", ["open", "write:0", "write:2", "future:0", "future:2", "close"])
@pytest.mark.parametrize("buffer_depth", [1, 3])
def test_an_error_of_a_sink_is_raised_in_the_callers_thread(where: str, buffer_depth: int) -> None:
    error = DiskGone("no space left")
    failing, other = FailingSink(where, error), CollectSink()

    with (
        pytest.raises(DiskGone) as caught,
        FramePipeline([other, failing], chunk_size=1, buffer_depth=buffer_depth) as pipeline,
    ):
        pipeline.decode(choose_tap(ToyVAE().video_decoder()), toy_latent(4))

    assert caught.value is error
    if not where.startswith("future"):
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert where.split(":")[0] in names
    assert failing.calls[-1] == "abort" and other.calls[-1] == "abort"
    assert pipeline.report.outcome == "failed"
    assert _pipeline_threads() == []


def test_a_failed_write_stops_the_decode_within_one_chunk() -> None:
    vae = ToyVAE()
    sink = GateSink()
    error = DiskGone("no space left")

    def fail_first() -> None:
        sink.wait_for(2)
        sink.release(0, error)

    thread = threading.Thread(target=fail_first)
    thread.start()
    with pytest.raises(DiskGone), FramePipeline([sink], chunk_size=4, buffer_depth=2) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), toy_latent(50))
    thread.join(30)

    # Two chunks were under way; the third found no slot until the error came.
    assert vae.steps <= 4


def test_the_first_error_wins() -> None:
    first, second = DiskGone("first"), DiskGone("second")
    sink = GateSink()
    with pytest.raises(DiskGone, match="first"), FramePipeline([sink], chunk_size=1, buffer_depth=2) as pipeline:
        pipeline.submit(torch.zeros(2, 3, 2, 2))
        sink.wait_for(2)
        sink.release(1, first)
        sink.release(0, second)


def test_an_error_of_the_decoder_aborts_the_sinks_and_is_raised() -> None:
    sink = CollectSink()
    with pytest.raises(ZeroDivisionError), FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.zeros(5, 2, 2, 3))
        raise ZeroDivisionError
    assert sink.calls == ["open", "abort"]
    assert _pipeline_threads() == []


def test_what_poll_raises_ends_a_wait_for_a_slot() -> None:
    class Interrupted(BaseException):
        pass

    sink = GateSink()
    asked = 0

    def poll() -> None:
        nonlocal asked
        asked += 1
        if sink.pending.keys() == {0, 1}:
            raise Interrupted

    with (
        pytest.raises(Interrupted),
        FramePipeline(
            [sink], chunk_size=1, buffer_depth=2, finish=FinishedFrames(), poll=poll, cancels=(Interrupted,)
        ) as pipeline,
    ):
        pipeline.submit(torch.zeros(3, 2, 2, 3))

    assert asked >= 1 and sink.calls[-1] == "abort"
    assert pipeline.report.outcome == "cancelled"
    assert _pipeline_threads() == []


def test_cancel_from_another_thread_ends_a_wait_for_a_slot() -> None:
    sink = GateSink()
    pipeline = FramePipeline([sink], chunk_size=1, buffer_depth=2, finish=FinishedFrames())

    def cancel() -> None:
        sink.wait_for(2)
        pipeline.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled), pipeline:
        pipeline.submit(torch.zeros(9, 2, 2, 3))
    thread.join(30)
    assert pipeline.report.outcome == "cancelled"


def test_the_model_is_left_without_hooks_after_an_error() -> None:
    vae = ToyVAE()
    with pytest.raises(DiskGone), FramePipeline([FailingSink("write:0", DiskGone())], chunk_size=1) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), toy_latent(9))
    assert not vae.decoder._forward_hooks
    assert vae.decode(toy_latent(2)).shape[2] == 5
