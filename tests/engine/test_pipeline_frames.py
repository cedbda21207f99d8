"""The frames that reach a sink are stock's frames, whatever the pieces, the chunks and the ring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from async_decode import DecodeError, DecoderOutput, FinishedFrames, FramePipeline, PixelFormat, choose_tap
from tests.engine.toy import CollectSink, ToyVAE, stock_bytes, stock_frames, toy_latent


@pytest.mark.parametrize("buffer_depth", [1, 2, 5])
@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7, 64])
@pytest.mark.parametrize("latents", [1, 2, 5, 6, 13])
def test_float_frames_are_bit_equal_to_stock(latents: int, chunk_size: int, buffer_depth: int) -> None:
    vae, latent = ToyVAE(), toy_latent(latents)
    sink = CollectSink(threaded=True)

    with FramePipeline([sink], chunk_size=chunk_size, buffer_depth=buffer_depth) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), latent)

    assert torch.equal(torch.from_numpy(sink.frames), stock_frames(vae, latent))
    sizes = [len(chunk) for chunk in sink.chunks]
    assert sizes[:-1] == [min(chunk_size, 4 * latents - 3)] * (len(sizes) - 1)
    assert sink.indices == [sum(sizes[:k]) for k in range(len(sizes))]


def test_bytes_are_those_that_stock_saves_beside_the_floats() -> None:
    vae, latent = ToyVAE(), toy_latent(6)
    floats, quantised = CollectSink(PixelFormat.FLOAT32), CollectSink(PixelFormat.UINT8)

    with FramePipeline([quantised, floats], chunk_size=3) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), latent)

    expected = stock_frames(vae, latent)
    assert torch.equal(torch.from_numpy(floats.frames), expected)
    assert np.array_equal(quantised.frames, stock_bytes(expected))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    chunk_size=st.integers(1, 11),
    buffer_depth=st.integers(1, 4),
    threaded=st.booleans(),
)
def test_pieces_of_any_length_are_cut_and_joined(
    lengths: list[int], chunk_size: int, buffer_depth: int, threaded: bool
) -> None:
    frames = torch.rand(sum(lengths), 2, 3, 3, generator=torch.Generator().manual_seed(len(lengths)))
    sink = CollectSink(threaded=threaded)

    with FramePipeline([sink], chunk_size=chunk_size, buffer_depth=buffer_depth, finish=FinishedFrames()) as pipeline:
        for piece in frames.split(lengths):
            pipeline.submit(piece)

    assert np.array_equal(sink.frames, frames.numpy())


def test_clips_of_a_batch_follow_each_other_each_decoded_alone() -> None:
    vae, latent = ToyVAE(), toy_latent(3, clips=2)
    sink = CollectSink()

    with FramePipeline([sink]) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), latent)

    assert sink.clip is not None and sink.clip.frames == 18
    assert torch.equal(torch.from_numpy(sink.frames), stock_frames(vae, latent))


def test_the_piece_itself_is_left_as_it_was() -> None:
    piece = torch.randn(4, 3, 2, 2)
    before = piece.clone()

    with FramePipeline([CollectSink(PixelFormat.UINT8), CollectSink()]) as pipeline:
        pipeline.submit(piece)

    assert torch.equal(piece, before)


def test_half_precision_pieces_become_float_before_they_are_scaled() -> None:
    piece = torch.randn(5, 3, 4, 4).to(torch.bfloat16)
    sink = CollectSink()

    with FramePipeline([sink]) as pipeline:
        pipeline.submit(piece)

    expected = torch.clamp((piece.float() + 1.0) / 2.0, 0, 1).movedim(1, -1)
    assert torch.equal(torch.from_numpy(sink.frames), expected)


def test_the_vaes_own_scaling_is_used_and_may_return_a_new_tensor() -> None:
    piece = torch.rand(3, 3, 2, 2)
    sink = CollectSink()

    with FramePipeline([sink], finish=DecoderOutput(lambda pixels: 1.0 - pixels)) as pipeline:
        pipeline.submit(piece)

    assert torch.equal(torch.from_numpy(sink.frames), (1.0 - piece).movedim(1, -1))


def test_nan_becomes_stocks_byte_and_the_first_such_frame_is_named() -> None:
    piece = torch.zeros(7, 3, 2, 2)
    piece[5, 1, 0, 1] = float("nan")
    piece[6] = float("nan")
    sink = CollectSink(PixelFormat.UINT8)

    with FramePipeline([sink], chunk_size=2) as pipeline:
        pipeline.submit(piece)

    scaled = torch.clamp((piece + 1.0) / 2.0, 0, 1).movedim(1, -1)
    assert np.array_equal(sink.frames, stock_bytes(scaled))
    assert [warning for warning in pipeline.report.warnings if "frame 5 is the first that holds NaN" in warning]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sixteen_bits_are_the_nearest_beside_the_others(dtype: torch.dtype) -> None:
    steps = torch.linspace(-0.01, 1.01, 7 * 64 * 3).reshape(7, 8, 8, 3).to(dtype)
    eighths = (torch.arange(256, dtype=torch.float32) / 255)[: 8 * 8 * 3].reshape(1, 8, 8, 3).to(dtype)
    frames = torch.cat([steps, eighths])
    sinks = [CollectSink(name) for name in PixelFormat if name in (PixelFormat.UINT16, PixelFormat.UINT8)]

    with FramePipeline(sinks, chunk_size=3, finish=FinishedFrames()) as pipeline:
        pipeline.submit(frames)

    wide, narrow = (sink.frames for sink in sinks)
    assert wide.dtype == np.uint16
    assert np.array_equal(wide, np.rint(np.clip(frames.float().numpy() * np.float32(65535), 0, 65535)))
    assert (wide.min(), wide.max()) == (0, 65535)
    assert np.array_equal(narrow, stock_bytes(frames))
    if dtype == torch.float32:
        assert np.array_equal(wide[-1].ravel(), np.arange(8 * 8 * 3) * 257)


@pytest.mark.parametrize("total, message", [(9, "expected 9 frames from the decoder, got 8"), (7, "at least 8")])
def test_a_wrong_number_of_frames_is_an_error(total: int, message: str) -> None:
    sink = CollectSink()

    with (
        pytest.raises(DecodeError, match=message),
        FramePipeline([sink], total_frames=total) as pipeline,
    ):
        pipeline.submit(torch.zeros(4, 3, 2, 2))
        pipeline.submit(torch.zeros(4, 3, 2, 2))

    assert "abort" in sink.calls and "close" not in sink.calls


def test_no_frames_at_all_is_an_error() -> None:
    with pytest.raises(DecodeError, match="no frames"), FramePipeline([CollectSink()]):
        pass


@pytest.mark.parametrize(
    "piece, message",
    [
        (torch.zeros(2, 2, 4, 4), r"1, 3 or 4 channels.*\(2, 2, 4, 4\)"),
        (torch.zeros(3, 4, 4), r"\(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, device="meta"), "expected pieces on cpu, got one on meta"),
    ],
)
def test_pieces_that_are_no_frames_are_refused(piece: torch.Tensor, message: str) -> None:
    with pytest.raises(DecodeError, match=message), FramePipeline([CollectSink()]) as pipeline:
        pipeline.submit(piece)


def test_pieces_of_another_size_than_the_first_are_refused() -> None:
    with pytest.raises(DecodeError, match="like the first one"), FramePipeline([CollectSink()]) as pipeline:
        pipeline.submit(torch.zeros(1, 3, 4, 4))
        pipeline.submit(torch.zeros(1, 3, 4, 6))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"chunk_size": 0}, "chunk_size must be from 1 to 4096 frames, got 0"),
        ({"buffer_depth": 65}, "buffer_depth must be from 1 to 64 slots, got 65"),
        ({"sinks": []}, "at least one sink"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FramePipeline(**{"sinks": [CollectSink()], **settings})
