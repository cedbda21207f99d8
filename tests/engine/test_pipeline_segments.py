"""Several decodes in one pipeline are segments of one clip: one row of frames, one video, one report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from async_decode import DecodeError, Decoding, FinishedFrames, FramePipeline, Stage, choose_tap
from async_decode.sinks import ImageFilesSink, PngEncoder, TensorSink
from async_decode.sinks.files import OutputNames
from async_decode.taps import Whole
from tests.engine.toy import CollectSink, GateSink, ToyVAE, stock_frames, toy_latent

LATENTS = [toy_latent(3, seed=1), toy_latent(1, seed=2), toy_latent(5, seed=3)]


def expected(vae: ToyVAE) -> np.ndarray:
    return torch.cat([stock_frames(vae, latent) for latent in LATENTS]).numpy()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 4, 64])
def test_frames_of_all_segments_follow_each_other(chunk_size: int, told: bool) -> None:
    vae, tensor, sink = ToyVAE(), TensorSink(), CollectSink()

    with FramePipeline([tensor, sink], chunk_size=chunk_size) as pipeline:
        for number, latent in enumerate(LATENTS):
            pipeline.decode(choose_tap(vae.video_decoder()), latent, more=told and number < 2)

    assert np.array_equal(tensor.frames, expected(vae)) and np.array_equal(sink.frames, expected(vae))
    assert sink.calls == ["open", "close"] and sink.clip is not None
    assert sink.clip.frames == (None if told else 9)
    # Sinks that make room or sound for so many cannot be told later, whoever reads the report can.
    assert [warning for warning in pipeline.report.warnings if "told of 9 frames" in warning] == (
        [] if told else list(pipeline.report.warnings)
    )
    assert len(pipeline.report.warnings) == (not told)
    assert (pipeline.report.frames, pipeline.total_frames, pipeline.report.outcome) == (27, 27, "completed")


def test_a_total_that_was_given_is_that_of_all_segments() -> None:
    vae, tensor = ToyVAE(), TensorSink()

    with FramePipeline([tensor], total_frames=27) as pipeline:
        for latent in LATENTS:
            pipeline.decode(choose_tap(vae.video_decoder()), latent)
            assert pipeline.total_frames == 27

    assert np.array_equal(tensor.frames, expected(vae))


def test_files_are_numbered_on(tmp_path: Path) -> None:
    files = ImageFilesSink(OutputNames(tmp_path, "clip", first=1), PngEncoder())

    with FramePipeline([files]) as pipeline:
        for latent in LATENTS[:2]:
            pipeline.decode(choose_tap(ToyVAE().video_decoder()), latent)

    assert [path.name for path in files.files] == [f"clip_{number:05}_.png" for number in range(1, 11)]


@pytest.mark.parametrize("made, message", [(5, "expected 9 frames from the decoder, got at least 13"), (2, "got 5")])
def test_a_segment_with_a_wrong_number_of_frames_is_an_error(made: int, message: str) -> None:
    vae = ToyVAE()
    tap = choose_tap(vae.video_decoder())
    tap.frames = lambda latent: 9  # type: ignore[method-assign]

    with pytest.raises(DecodeError, match=message), FramePipeline([CollectSink()], chunk_size=1) as pipeline:
        pipeline.decode(tap, toy_latent(made))
        pytest.fail("the segment ends with an error")


def test_the_report_calls_the_clip_exact_only_if_each_segment_was() -> None:
    vae = ToyVAE()
    inexact = Whole(vae.video_decoder())
    inexact.decoding = Decoding("windows", exact=False, bounded=True)

    with FramePipeline([CollectSink()]) as pipeline:
        pipeline.decode(inexact, LATENTS[0])
        pipeline.decode(choose_tap(vae.video_decoder()), LATENTS[1])

    assert (pipeline.report.exact, pipeline.report.bounded) == (False, True)
    assert pipeline.report.decoding is not None and "earlier parts" in pipeline.report.decoding.detail


def test_what_the_caller_does_between_two_segments_is_no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    monkeypatch.setattr("async_decode.spans.time.perf_counter_ns", lambda: now)
    vae = ToyVAE()

    with FramePipeline([CollectSink()]) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), LATENTS[0])
        now = 10**12
        pipeline.decode(choose_tap(vae.video_decoder()), LATENTS[1])

    assert pipeline.report.stages[Stage.DECODE].busy_seconds == 0


def test_the_first_segment_is_written_before_the_second_is_there() -> None:
    sink = GateSink()

    with FramePipeline([sink], chunk_size=1, buffer_depth=2, finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.zeros(1, 2, 2, 3))
        sink.wait_for(1)
        sink.release(0)
        pipeline.submit(torch.ones(1, 2, 2, 3))
        sink.wait_for(1)
        sink.release(1)
