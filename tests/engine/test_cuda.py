"""The same frames through streams, events and pinned memory, under delays that would show a missing wait."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from async_decode import FinishedFrames, FramePipeline, PixelFormat, Stage, VideoDecoder, choose_tap
from async_decode.taps import Tiling, streamed_tiles
from tests.engine.test_windows import SCALE, expected
from tests.engine.toy import CollectSink, GateSink, ToyVAE, stock_bytes, stock_frames, toy_latent

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")


def _decoder(vae: ToyVAE) -> VideoDecoder:
    return VideoDecoder(
        model=vae,
        decode=vae.decode,
        device=torch.device("cuda"),
        dtype=torch.float32,
        frames_of=lambda latents: 4 * latents - 3,
    )


@pytest.fixture(autouse=True)
def _exact_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms run on the device, by the same algorithms."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.parametrize("buffer_depth", [1, 2, 3, 5])
@pytest.mark.parametrize("chunk_size", [1, 3, 4, 64])
def test_frames_are_bit_equal(chunk_size: int, buffer_depth: int) -> None:
    vae, latent = ToyVAE().cuda(), toy_latent(13, size=32).cuda()
    floats, quantised = CollectSink(threaded=True), CollectSink(PixelFormat.UINT8, threaded=True)

    with FramePipeline(
        [floats, quantised], chunk_size=chunk_size, buffer_depth=buffer_depth, device="cuda"
    ) as pipeline:
        pipeline.decode(choose_tap(_decoder(vae)), latent)

    expected = stock_frames(vae, latent).cpu()
    assert torch.equal(torch.from_numpy(floats.frames), expected)
    assert np.array_equal(quantised.frames, stock_bytes(expected))
    assert pipeline.report.pinned is True


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", [name for name in PixelFormat if name not in (PixelFormat.FLOAT32, PixelFormat.UINT8)])
def test_every_pixel_format_is_that_of_the_host(name: PixelFormat, channels: int) -> None:
    frames = torch.rand(7, 65, 97, channels, generator=torch.Generator().manual_seed(0)) * 1.1 - 0.05
    sinks = {"cpu": CollectSink(name), "cuda": CollectSink(name)}

    for device, sink in sinks.items():
        with FramePipeline([sink], chunk_size=3, device=device, finish=FinishedFrames()) as pipeline:
            pipeline.submit(frames.to(device))

    host, device = (sink.frames.astype(int) for sink in sinks.values())
    # Multiplying and adding at once rounds once less, which shows next to the middle between two steps.
    assert np.abs(host - device).max() <= 1
    assert np.mean(host != device) < 1e-3


@pytest.mark.parametrize("slow_sink", [False, True])
def test_no_race_shows_under_delays(slow_sink: bool) -> None:
    """The compute stream sleeps before it fills, and overwrites the piece at once, as an allocator would."""
    sink = CollectSink(threaded=slow_sink)
    piece = torch.empty(2, 256, 256, 3, device="cuda")

    with FramePipeline([sink], chunk_size=3, buffer_depth=2, device="cuda", finish=FinishedFrames()) as pipeline:
        for index in range(40):
            torch.cuda._sleep(3_000_000)
            piece.fill_(index)
            pipeline.submit(piece)
            piece.fill_(-1.0)

    values = np.unique(sink.frames.reshape(80, -1), axis=1)
    assert values.shape == (80, 1)
    assert np.array_equal(values[:, 0], np.repeat(np.arange(40), 2))


def test_staging_is_free_again_before_the_sinks_are_done() -> None:
    sink = GateSink()
    frames = torch.rand(6, 64, 64, 3, device="cuda")
    with FramePipeline([sink], chunk_size=1, buffer_depth=3, device="cuda", finish=FinishedFrames()) as pipeline:
        # Three chunks fill the host side, three more the staging: submit waits for neither disk nor sink.
        for index in range(6):
            pipeline.submit(frames[index : index + 1])
        sink.wait_for(3)
        assert pipeline.written == 0
        for index in range(6):
            sink.wait_for(1)
            sink.release(index)
    assert np.array_equal(sink.frames, frames.cpu().numpy())


def test_spans_of_the_device_lie_on_the_hosts_clock() -> None:
    piece = torch.rand(4, 256, 256, 3, device="cuda")
    with FramePipeline([CollectSink()], device="cuda", finish=FinishedFrames()) as pipeline:
        for _ in range(5):
            torch.cuda._sleep(20_000_000)
            pipeline.submit(piece)
    began, ended = pipeline.recorder.started_ns, pipeline.recorder.now()
    spans = pipeline.recorder.spans
    assert all(began <= span.start_ns <= span.end_ns <= ended for span in spans)
    decode = [span for span in spans if span.stage is Stage.DECODE]
    copies = [span for span in spans if span.stage is Stage.COPY]
    assert len(decode) == len(copies) == 5
    # A chunk is copied after it was decoded; the sleep is in the decode spans.
    assert all(copy.start_ns >= made.end_ns for made, copy in zip(decode, copies, strict=True))
    assert min(span.seconds for span in decode) > max(span.seconds for span in copies)


def test_an_error_in_the_middle_leaves_no_memory_behind() -> None:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with (
        pytest.raises(ZeroDivisionError),
        FramePipeline([CollectSink()], device="cuda", finish=FinishedFrames()) as pipeline,
    ):
        pipeline.submit(torch.rand(9, 256, 256, 3, device="cuda"))
        raise ZeroDivisionError
    del pipeline
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("room", [None, 0])
def test_tiles_that_are_streamed_keep_their_pasts_apart(room: int | None) -> None:
    """With no room for them, caches wait in pinned host memory from step to step."""
    vae, latent = ToyVAE().cuda(), toy_latent(9, size=32).cuda()
    vae.decoder.register_forward_pre_hook(lambda *_: torch.cuda._sleep(500_000))
    tiling = Tiling(tile=12, overlap=2)
    tap = streamed_tiles(_decoder(vae), scale=SCALE, tiling=tiling, cache_room=None if room is None else lambda: room)
    assert tap is not None
    pieces: list[torch.Tensor] = []

    tap.run(latent, lambda piece: pieces.append(piece.cpu()))

    torch.testing.assert_close(torch.cat(pieces), expected(tiling, latent.cpu()), rtol=0, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA or ROCm devices")
@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("current", [0, 1])
def test_a_run_on_a_device_that_is_not_the_current_one(current: int, fed: bool) -> None:
    device = torch.device("cuda", 1 - current)
    vae, latent = ToyVAE().to(device), toy_latent(9, size=32).to(device)
    expected = stock_frames(vae, latent)
    sink = CollectSink(threaded=True)
    finish = FinishedFrames() if fed else None

    with torch.cuda.device(current):
        torch.cuda.synchronize()
        idle = torch.cuda.memory_allocated(current)
        with FramePipeline([sink], chunk_size=3, device=device, finish=finish) as pipeline:
            if fed:
                pipeline.feed(expected)
            else:
                decoder = dataclasses.replace(_decoder(vae), device=device)
                pipeline.decode(choose_tap(decoder), latent)
        assert torch.cuda.current_device() == current
        assert torch.cuda.memory_allocated(current) == idle

    assert torch.equal(torch.from_numpy(sink.frames), expected.cpu())
    assert pipeline.report.outcome == "completed" and pipeline.report.pinned is True
    assert pipeline.report.stages[Stage.COPY].busy_seconds > 0


@pytest.mark.skipif(not hasattr(torch.cuda, "host_memory_stats"), reason="this torch does not count pinned memory")
def test_pinned_memory_is_given_back_when_a_run_ends() -> None:
    piece = torch.rand(8, 512, 512, 3, device="cuda")

    def pinned() -> int:
        return int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0))

    class Looks(CollectSink):
        during = 0

        def write(self, frames: np.ndarray, first_index: int) -> Future[None] | None:
            self.during = pinned()
            return super().write(frames, first_index)

    before, sink = pinned(), Looks()
    with FramePipeline([sink], chunk_size=8, device="cuda", finish=FinishedFrames()) as pipeline:
        pipeline.submit(piece)

    assert sink.during - before >= piece.nbytes
    assert pinned() <= before
