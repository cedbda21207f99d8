"""A whole run on a CUDA device that is not the current one, with streams and events that write down what is done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from async_decode import Decoding, FinishedFrames, FramePipeline, Stage, Tap, VideoDecoder
from async_decode.device.ring import Chunk, CudaRing
from async_decode.pipeline.slots import Flow
from async_decode.taps import Submit
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
    assert set(cuda.pinned_on) == {1} and len(cuda.pinned_on) <= buffer_depth and cuda.current_device() == 0
    assert pipeline.report.outcome == "completed" and pipeline.report.device == "cuda:1"
    assert pipeline.report.stages[Stage.COPY].spans == pipeline.report.chunks == 4


def test_host_memory_that_cannot_be_pinned_is_told(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: False)
    frames = torch.rand(5, 4, 6, 3)
    sink = CollectSink()
    with FramePipeline([sink], chunk_size=2, device=DEVICE, finish=FinishedFrames()) as pipeline:
        pipeline.submit(on_device(frames))

    assert np.array_equal(sink.frames, frames.numpy())
    assert pipeline.report.pinned is False
    assert [warning for warning in pipeline.report.warnings if "could not be pinned" in warning]


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


class Pieces(Tap):
    """Hands on pieces that are there, and notes which device was the current one."""

    decoding = Decoding("tapped", exact=True, bounded=True)
    current: int | None = None

    def run(self, latent: torch.Tensor, submit: Submit) -> None:
        self.current = torch.cuda.current_device()
        for piece in latent[0].movedim(1, 0).split(2):
            submit(on_device(piece))


def test_a_tap_runs_with_the_pipelines_device_as_the_current_one(cuda: FakeCuda) -> None:
    """A model's own kernels (Triton's, for one) are launched on the current device, wherever its tensors are."""
    latent, sink = torch.rand(1, 3, 6, 4, 6), CollectSink()
    tap = Pieces(VideoDecoder(torch.nn.Module(), lambda z: z, DEVICE, torch.float32))

    with FramePipeline([sink], device=DEVICE) as pipeline:
        pipeline.decode(tap, latent, decoder="stock")

    assert (tap.current, cuda.current_device()) == (1, 0)
    assert sink.frames.shape == (6, 4, 6, 3)
