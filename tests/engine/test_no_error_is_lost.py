"""The first error of a run is what its caller gets, whoever else raises, waits or gives up meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
import torch

from async_decode import FinishedFrames, FramePipeline, SinkError
from async_decode.pipeline.feeder import Feeder
from tests.engine.toy import CollectSink, FailingSink, GateSink

FRAMES = torch.zeros(9, 2, 2, 3)


class DiskGone(Exception):
    pass


def test_a_feeder_tells_the_error_before_it_says_that_it_is_done() -> None:
    """Else whoever waits finds a run without frames, and calls the latent empty."""
    order: list[str] = []

    def submit(piece: torch.Tensor) -> None:
        raise DiskGone

    feeder = Feeder(
        [FRAMES], submit=submit, end=Future, fail=lambda error: order.append("error"), device=torch.device("cpu")
    )
    feeder.done.add_done_callback(lambda _: order.append("done"))
    feeder.start()
    feeder.join()

    assert order == ["error", "done"]


def test_what_is_fed_and_fails_at_once_is_raised_as_it_is() -> None:
    for _ in range(50):
        error = DiskGone("no space left")
        pipeline = FramePipeline([FailingSink("open", error)], finish=FinishedFrames())
        with pytest.raises(DiskGone) as caught, pipeline:
            pipeline.feed(FRAMES)
        assert caught.value is error


@pytest.mark.parametrize("start", [lambda pipeline: pipeline.feed(FRAMES), None])
def test_futures_refuse_to_be_cancelled(start: Callable[[FramePipeline], Future[None]] | None) -> None:
    sink = GateSink()
    with pytest.raises(DiskGone), FramePipeline([sink], chunk_size=9, finish=FinishedFrames()) as pipeline:
        if start is None:
            pipeline.submit(FRAMES)
        ending = pipeline.end() if start is None else start(pipeline)
        sink.wait_for(1)
        assert not ending.cancel() and not ending.cancelled()
        sink.release(0, DiskGone("no space left"))


def test_an_error_that_comes_after_somebody_gave_up_waiting_is_raised() -> None:
    error = DiskGone("no space left")
    closing = threading.Event()

    class ClosesLate(CollectSink):
        def close(self) -> None:
            closing.wait(30)
            raise error

    async def wait_a_moment(pipeline: FramePipeline) -> None:
        ending = asyncio.wrap_future(pipeline.end())
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending

    with pytest.raises(DiskGone) as caught, FramePipeline([ClosesLate()], finish=FinishedFrames()) as pipeline:
        pipeline.submit(FRAMES)
        asyncio.run(wait_a_moment(pipeline))
        closing.set()

    assert caught.value is error and pipeline.report.outcome == "failed"


def test_the_first_error_is_raised_though_the_block_ends_with_another() -> None:
    first = DiskGone("no space left")
    sink = GateSink()

    with pytest.raises(DiskGone) as caught, FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(FRAMES)
        sink.wait_for(1)
        sink.release(0, first)
        raise TimeoutError("no time left")

    assert caught.value is first
    assert isinstance(first.__context__, TimeoutError)


def test_what_stops_the_program_stops_it_and_the_error_is_in_the_report() -> None:
    sink = GateSink()

    with pytest.raises(KeyboardInterrupt), FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(FRAMES)
        sink.wait_for(1)
        sink.release(0, DiskGone("no space left"))
        raise KeyboardInterrupt

    assert pipeline.report.outcome == "failed"
    assert "no space left" in pipeline.report.warnings[-1]


def test_an_error_while_a_run_is_ended_replaces_nothing() -> None:
    class AbortFails(CollectSink):
        def abort(self) -> None:
            super().abort()
            raise OSError("the folder is gone")

    sinks = [AbortFails(), CollectSink()]
    with pytest.raises(DiskGone), FramePipeline(sinks, finish=FinishedFrames()) as pipeline:
        pipeline.submit(FRAMES)
        raise DiskGone

    assert sinks[1].calls[-1] == "abort"
    assert any("the folder is gone" in warning for warning in pipeline.report.warnings)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("async-decode")]


def test_memory_that_cannot_be_let_go_is_an_error_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ring: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("async_decode.device.ring.SyncRing.close", broken)

    with (
        pytest.raises(RuntimeError, match="illegal memory"),
        FramePipeline([CollectSink()], finish=FinishedFrames()) as pipeline,
    ):
        pipeline.submit(FRAMES)

    assert pipeline.report.outcome == "failed"


def test_frames_that_a_sink_gives_up_are_an_error() -> None:
    sink = GateSink()

    with (
        pytest.raises(SinkError, match="frames from 0 on were given up by a sink"),
        FramePipeline([sink], finish=FinishedFrames()) as pipeline,
    ):
        pipeline.submit(FRAMES)
        sink.wait_for(1)
        sink.pending.pop(0)[0].cancel()

    assert sink.calls[-1] == "abort"
