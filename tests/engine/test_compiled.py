"""``torch.compile``: taps look through the wrapper, and where they cannot, the report gives the true reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from async_decode import FramePipeline, VideoDecoder, choose_tap
from async_decode.taps import StepHook, Tiling, Whole, streamed_tiles
from tests.engine.test_windows import SCALE, expected
from tests.engine.toy import CollectSink, ToyVAE, stock_frames, toy_latent


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def compiled(module: nn.Module) -> Any:
    # Without the compiler's arithmetic: the frames are those of the module as it is.
    return torch.compile(module, backend="eager")


def wrap(vae: ToyVAE) -> None:
    vae.decoder = compiled(vae.decoder)


def in_place(vae: ToyVAE) -> None:
    # As one graph: what a hook does cannot become part of it.
    vae.decoder.compile(backend="eager", fullgraph=True)


@pytest.mark.parametrize("compile_it", [wrap, in_place])
@pytest.mark.parametrize("clips", [1, 2])
def test_a_compiled_decoder_is_tapped(compile_it: Callable[[ToyVAE], None], clips: int) -> None:
    vae, latent, sink = ToyVAE(), toy_latent(6, clips=clips), CollectSink()
    wanted = stock_frames(ToyVAE(), latent)
    compile_it(vae)
    # Compiled before anybody taps it: a hook that comes later would be overlooked.
    assert torch.equal(stock_frames(vae, latent), wanted)

    with FramePipeline([sink], chunk_size=4) as pipeline:
        tap = choose_tap(vae.video_decoder())
        pipeline.decode(tap, latent)

    assert isinstance(tap, StepHook) and tap.decoding.kind == "tapped"
    assert np.array_equal(sink.frames, wanted.numpy())
    # The model is as it was.
    assert torch.equal(stock_frames(vae, latent), wanted)


@pytest.mark.parametrize("compile_it", [wrap, in_place])
def test_a_compiled_decoder_is_the_callers_again_after_an_error(compile_it: Callable[[ToyVAE], None]) -> None:
    vae, latent = ToyVAE(), toy_latent(3)
    compile_it(vae)

    def refuse(piece: Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        choose_tap(vae.video_decoder()).run(latent, refuse)

    assert vae.decode(latent).shape[2] == 9


def test_a_model_that_was_compiled_as_a_module_is_tapped() -> None:
    """Its ``decode`` is no ``forward``, so that nothing of it is compiled."""
    vae, sink = ToyVAE(), CollectSink()
    wrapped = compiled(vae)
    decoder = VideoDecoder(wrapped, wrapped.decode, torch.device("cpu"), torch.float32, lambda count: 4 * count - 3)

    with FramePipeline([sink]) as pipeline:
        pipeline.decode(choose_tap(decoder), toy_latent(5))

    assert pipeline.report.exact and pipeline.report.bounded
    assert np.array_equal(sink.frames, stock_frames(vae, toy_latent(5)).numpy())


def test_a_compiled_decode_is_whole_and_says_so() -> None:
    vae, sink = ToyVAE(), CollectSink()
    vae.decode = torch.compile(vae.decode, backend="eager")  # type: ignore[method-assign]

    with FramePipeline([sink]) as pipeline:
        tap = choose_tap(vae.video_decoder())
        pipeline.decode(tap, toy_latent(5))

    assert isinstance(tap, Whole)
    assert "its decode is compiled as one" in tap.decoding.detail
    assert np.array_equal(sink.frames, stock_frames(ToyVAE(), toy_latent(5)).numpy())


class Rolling(nn.Module):
    """CogVideoX's manner: the last convolution is handed its cache."""

    class Last(nn.Module):
        def forward(self, x: Tensor, conv_cache: Any = None) -> tuple[Tensor, Any]:
            return x, conv_cache

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_out = Rolling.Last()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv_out(x)[0]

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Rolling.Decoder()

    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([self.decoder(part) for part in z.split(1, 2)], 2)


def rolling_tap(vae: Rolling) -> Any:
    return choose_tap(VideoDecoder(vae, vae.decode, torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_decoder_that_is_compiled_around_the_tapped_part_is_whole_and_says_so(in_place: bool) -> None:
    vae = Rolling()
    assert rolling_tap(vae).decoding.kind == "tapped"
    if in_place:
        vae.decoder.compile(backend="eager")
    else:
        vae.decoder = compiled(vae.decoder)

    tap = rolling_tap(vae)

    assert tap.decoding.kind == "whole" and "its decoder is compiled as one" in tap.decoding.detail


def test_tiles_of_a_compiled_decoder_are_streamed() -> None:
    vae, latent = ToyVAE(), toy_latent(5, size=12)
    tiling = Tiling(tile=8, overlap=2)
    vae.decoder = compiled(vae.decoder)
    pieces: list[Tensor] = []

    tap = streamed_tiles(vae.video_decoder(), scale=SCALE, tiling=tiling)
    assert tap is not None
    tap.run(latent, lambda piece: pieces.append(piece.clone()))

    torch.testing.assert_close(torch.cat(pieces), expected(tiling, latent), rtol=0, atol=1e-5)


def test_tiles_of_a_decoder_that_was_compiled_in_place_are_not() -> None:
    vae = ToyVAE()
    in_place(vae)

    assert streamed_tiles(vae.video_decoder(), scale=SCALE, tiling=Tiling(tile=8, overlap=2)) is None
