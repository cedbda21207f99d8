"""Who waits for whom: back-pressure, slots, and chunks under way at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from async_decode import Cancelled, FinishedFrames, FramePipeline, Stage
from async_decode.device.ring import Chunk, SyncRing
from async_decode.frames import FrameArray
from async_decode.pipeline.slots import Flow
from tests.engine.toy import CollectSink, GateSink


def _frames(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32).view(count, 1, 1, 1).expand(count, 2, 2, 3).contiguous()


def _submitting(pipeline: FramePipeline, frames: torch.Tensor) -> tuple[threading.Thread, list[int]]:
    """Submit frame by frame in another thread; the list grows as submits return."""
    returned: list[int] = []

    def submit() -> None:
        for index in range(len(frames)):
            pipeline.submit(frames[index : index + 1])
            returned.append(index)

    thread = threading.Thread(target=submit)
    thread.start()
    return thread, returned


def test_the_decoder_runs_ahead_by_the_slots_of_the_ring_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, waiting = GateSink(), threading.Event()
    wait = Flow.wait

    def noted_wait(flow: Flow, until: Callable[[], bool]) -> bool:
        if not until():
            waiting.set()
        return wait(flow, until)

    monkeypatch.setattr(Flow, "wait", noted_wait)
    with FramePipeline([sink], chunk_size=1, buffer_depth=3, finish=FinishedFrames()) as pipeline:
        thread, returned = _submitting(pipeline, _frames(5))
        sink.wait_for(3)
        # The thread that submits now waits for a slot; every chunk that it has begun is with the sink.
        assert waiting.wait(30)
        assert returned == [0, 1, 2] and pipeline.received == 3
        assert not [span for span in pipeline.recorder.spans if span.stage is Stage.WAIT_SLOT]

        for index in range(5):
            sink.wait_for(1)
            sink.release(index)
        thread.join(30)

    waits = [span for span in pipeline.recorder.spans if span.stage is Stage.WAIT_SLOT]
    assert waits and waits[0].index == 3
    assert pipeline.report.frames == pipeline.written == 5


def test_with_a_backlog_the_decoder_waits_for_no_sink_and_the_frames_are_its_own() -> None:
    sink = GateSink()
    frames = _frames(12)
    with FramePipeline(
        [sink], chunk_size=2, buffer_depth=2, total_frames=12, finish=FinishedFrames(), backlog=1 << 20
    ) as pipeline:
        for index in range(0, 12, 2):
            pipeline.submit(frames[index : index + 2])
        closing = pipeline.end()

        pipeline.copied.result(30)

        assert pipeline.written == 0 and not closing.done()
        for index in range(0, 12, 2):
            sink.release(index)

    assert np.array_equal(sink.frames, frames.numpy())
    assert not [span for span in pipeline.recorder.spans if span.stage is Stage.WAIT_SLOT]


def test_whoever_waits_for_copies_is_told_when_they_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(ring: SyncRing, chunk: Chunk) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(SyncRing, "transfer", fail)
    with (
        pytest.raises(RuntimeError, match="the device is gone"),
        FramePipeline([CollectSink()], chunk_size=4, finish=FinishedFrames()) as pipeline,
    ):
        pipeline.submit(_frames(3))
        pipeline.end()

        pipeline.copied.result(30)

        assert pipeline.error is not None


def test_with_one_slot_submit_returns_only_when_its_chunk_has_been_written() -> None:
    sink = GateSink()
    with FramePipeline([sink], chunk_size=1, buffer_depth=1, finish=FinishedFrames()) as pipeline:
        thread, returned = _submitting(pipeline, _frames(2))
        sink.wait_for(1)
        assert returned == []
        sink.release(0)
        sink.wait_for(1)
        assert returned == [0]
        sink.release(1)
        thread.join(30)
        assert returned == [0, 1]


def test_a_slot_is_used_again_only_after_the_sink_is_done_with_its_memory() -> None:
    sink = GateSink()
    with FramePipeline([sink], chunk_size=1, buffer_depth=2, finish=FinishedFrames()) as pipeline:
        thread, _ = _submitting(pipeline, _frames(6))
        for index in range(5):
            sink.wait_for(2)
            # Both views still show the frames that they were handed over with.
            shown = {first: float(view[0, 0, 0, 0]) for first, (_, view) in sink.pending.items()}
            assert shown == {index: float(index), index + 1: float(index + 1)}
            sink.release(index)
        sink.release(5)
        thread.join(30)


def test_chunks_may_be_finished_out_of_order() -> None:
    sink = GateSink()
    with FramePipeline([sink], chunk_size=1, buffer_depth=3, finish=FinishedFrames()) as pipeline:
        thread, _ = _submitting(pipeline, _frames(6))
        sink.wait_for(3)
        for index in (2, 1, 3, 0, 5, 4):
            with sink.arrived:
                assert sink.arrived.wait_for(lambda wanted=index: wanted in sink.pending, timeout=30)
            sink.release(index)
        thread.join(30)
    assert np.array_equal(sink.frames[:, 0, 0, 0], np.arange(6))


def test_every_sink_holds_the_memory_until_it_is_done() -> None:
    fast, slow = CollectSink(), GateSink()
    with FramePipeline([fast, slow], chunk_size=1, buffer_depth=1, finish=FinishedFrames()) as pipeline:
        thread, returned = _submitting(pipeline, _frames(1))
        slow.wait_for(1)
        assert len(fast.chunks) == 1 and pipeline.written == 0 and returned == []
        slow.release(0)
        thread.join(30)
        assert pipeline.written == 1


def test_a_sink_without_a_format_gets_what_travels_anyway() -> None:
    follower = CollectSink(None)
    leader = CollectSink()
    with FramePipeline([follower, leader], finish=FinishedFrames()) as pipeline:
        pipeline.submit(_frames(3) / 3)
    assert follower.frames.dtype == np.float32
    assert np.array_equal(follower.frames, leader.frames)


def test_closing_waits_until_every_sink_has_closed() -> None:
    sink = GateSink()
    pipeline = FramePipeline([sink], chunk_size=1, buffer_depth=2, finish=FinishedFrames())
    left = threading.Event()

    def run() -> None:
        with pipeline:
            pipeline.submit(_frames(1))
        left.set()

    thread = threading.Thread(target=run)
    thread.start()
    sink.wait_for(1)
    assert not left.is_set() and "close" not in sink.calls
    sink.release(0)
    thread.join(30)
    assert left.is_set() and sink.calls == ["open", "close"]


class _SlowSink(CollectSink):
    """Takes a chunk in a thread of its own, when somebody opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self._workers = ThreadPoolExecutor(1)

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        def keep() -> None:
            assert self.gate.wait(30)
            super(_SlowSink, self).write(frames, first_index)

        return self._workers.submit(keep)


@pytest.mark.parametrize("count", [1, 6, 7])
def test_what_was_decoded_before_the_decoder_failed_is_saved(count: int) -> None:
    sink = _SlowSink()

    with (
        pytest.raises(MemoryError, match="the decoder"),
        FramePipeline([sink], chunk_size=2, buffer_depth=4, finish=FinishedFrames(), total_frames=20) as pipeline,
    ):
        pipeline.submit(_frames(count))
        # Nothing is with the sink yet when the decoder fails.
        threading.Timer(0.2, sink.gate.set).start()
        raise MemoryError("the decoder")

    assert np.array_equal(sink.frames, _frames(count).numpy())
    assert sink.calls == ["open", "abort"], "it is not the whole clip"
    assert (pipeline.report.outcome, pipeline.report.frames, pipeline.report.written) == ("failed", count, count)


@pytest.mark.parametrize("error", [Cancelled("enough"), KeyboardInterrupt()])
def test_whoever_cancels_does_not_wait_for_what_was_decoded(error: BaseException) -> None:
    sink = GateSink()

    with (
        pytest.raises(type(error)),
        FramePipeline([sink], chunk_size=2, buffer_depth=4, finish=FinishedFrames()) as pipeline,
    ):
        pipeline.submit(_frames(5))
        raise error

    assert sink.calls[-1] == "abort" and pipeline.report.outcome == "cancelled"


def test_a_cancel_ends_the_wait_for_what_was_decoded() -> None:
    """The decoder has failed, its frames wait for a sink, and somebody has had enough."""
    sink, asked = GateSink(), threading.Event()

    def poll() -> None:
        if asked.is_set():
            raise Cancelled("enough")

    with (
        pytest.raises(MemoryError, match="the decoder"),
        FramePipeline([sink], chunk_size=2, buffer_depth=4, finish=FinishedFrames(), poll=poll) as pipeline,
    ):
        pipeline.submit(_frames(4))
        sink.wait_for(1)
        asked.set()
        raise MemoryError("the decoder")

    assert sink.calls[-1] == "abort"
    assert any("enough" in warning for warning in pipeline.report.warnings)
