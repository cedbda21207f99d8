"""A whole run on a CUDA device that is not the current one, with streams and events that write down what is done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from async_decode import FinishedFrames, FramePipeline, Stage
from async_decode.device.ring import Chunk, CudaRing
from async_decode.pipeline.slots import Flow
from tests.engine.fake_cuda import FakeCuda, on_device
from tests.engine.toy import CollectSink

DEVICE = torch.device("cuda", 1)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda().install(monkeypatch)


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("buffer_depth", [1, 3])
def test_everything_is_recorded_on_the_pipelines_device(cuda: FakeCuda, buffer_depth: int, fed: bool) -> None:
    frames = torch.rand(10, 4, 6, 3)
    sink = CollectSink(threaded=True)

    with FramePipeline(
        [sink], chunk_size=3, buffer_depth=buffer_depth, device=DEVICE, finish=FinishedFrames()
    ) as pipeline:
        if fed:
            pipeline.feed(on_device(frames))
        else:
            for piece in frames.split(2):
                pipeline.submit(on_device(piece))

    assert np.array_equal(sink.frames, frames.numpy())
    assert {stream.index for kind, _, stream in (call for call in cuda.calls if call[0] == "record")} == {1}
    assert cuda.pinned_on == [1] and cuda.current_device() == 0
    assert pipeline.report.outcome == "completed" and pipeline.report.device == "cuda:1"
    assert pipeline.report.stages[Stage.COPY].spans == pipeline.report.chunks == 4


def test_staging_is_given_back_after_its_copy_has_been_waited_for(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back sooner, the next piece would overwrite what is still being copied."""
    order: list[tuple[str, int]] = []
    transfer, give_staging = CudaRing.transfer, Flow.give_staging

    def noted_transfer(ring: CudaRing, chunk: Chunk) -> object:
        marks = transfer(ring, chunk)
        assert cuda.calls[-1] == ("synchronize", marks[1])
        order.append(("copied", chunk.index))
        return marks

    def noted_give(flow: Flow, chunk: Chunk) -> None:
        order.append(("given", chunk.index))
        give_staging(flow, chunk)

    monkeypatch.setattr(CudaRing, "transfer", noted_transfer)
    monkeypatch.setattr(Flow, "give_staging", noted_give)

    with FramePipeline([CollectSink()], chunk_size=1, device=DEVICE, finish=FinishedFrames()) as pipeline:
        for _ in range(5):
            pipeline.submit(on_device(torch.rand(1, 4, 6, 3)))

    assert order == [(what, index) for index in range(5) for what in ("copied", "given")]
