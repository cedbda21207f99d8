"""Tiles that are streamed in time: ComfyUI's tiled frames, one decoder cache for each tile, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from async_decode import VideoDecoder
from async_decode.taps import StreamedTiles, Tiling, streamed_tiles
from async_decode.taps.tiles.tile_cache import TileCaches
from tests.engine.test_windows import SCALE, expected
from tests.engine.toy import ToyVAE, toy_latent

#: Of 8x8 latents: tiles at 0 and 4, the second 4 wide.
TILING = Tiling(tile=5, overlap=1)


def tap_of(vae: ToyVAE, tiling: Tiling = TILING, **options: Any) -> StreamedTiles:
    tap = streamed_tiles(vae.video_decoder(), scale=SCALE, tiling=tiling, **options)
    assert tap is not None
    return tap


def pieces_of(tap: StreamedTiles, latent: Tensor) -> list[Tensor]:
    pieces: list[Tensor] = []
    tap.run(latent, lambda piece: pieces.append(piece.clone()))
    return pieces


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("latents", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("tile, overlap", [(5, 1), (4, 0), (3, 0), (6, 2)])
@pytest.mark.parametrize("room", [None, 0, 700])
def test_frames_are_those_of_tiles_that_span_the_clip(
    clips: int, latents: int, tile: int, overlap: int, room: int | None
) -> None:
    tiling, latent = Tiling(tile=tile, overlap=overlap), toy_latent(latents, clips=clips)

    pieces = pieces_of(tap_of(ToyVAE(), tiling, cache_room=None if room is None else lambda: room), latent)

    torch.testing.assert_close(torch.cat(pieces), expected(tiling, latent), rtol=0, atol=1e-6)


def test_frames_leave_step_by_step_while_the_models_decode_runs_once() -> None:
    vae = ToyVAE()
    steps: list[int] = []

    tap_of(vae).run(toy_latent(4), lambda piece: steps.append(vae.steps))

    assert [piece.shape[0] for piece in pieces_of(tap_of(vae), toy_latent(4))] == [1, 4, 4, 4]
    assert steps == [1, 2, 3, 4]


def test_report_says_that_memory_is_bounded_and_frames_are_not_those_of_the_whole() -> None:
    tap = tap_of(ToyVAE())
    latent = toy_latent(40)
    assert (tap.decoding.kind, tap.decoding.exact, tap.decoding.bounded) == ("tiles", False, True)
    assert tap.live_shape(latent)[-2:] == (5, 5)
    assert tap.frames(latent) == 157


def replaced(vae: ToyVAE, calls: list[int]) -> Callable[..., Tensor]:
    """A forward that another pack put in the place of the decoder's own."""
    own = vae.decoder.forward

    def forward(x: Tensor, feat_cache: list[Tensor | None], feat_idx: list[int]) -> Tensor:
        calls.append(x.shape[-1])
        return own(x, feat_cache, feat_idx)

    vae.decoder.forward = forward  # type: ignore[method-assign]
    return forward


@pytest.mark.parametrize("fails", [False, True])
def test_decoder_is_itself_again_afterwards(fails: bool) -> None:
    vae = ToyVAE()

    def submit(_piece: Tensor) -> None:
        if fails:
            raise RuntimeError("the sink is full")

    if fails:
        with pytest.raises(RuntimeError, match="the sink is full"):
            tap_of(vae).run(toy_latent(3), submit)
    else:
        tap_of(vae).run(toy_latent(3), submit)

    assert "forward" not in vars(vae.decoder)
    assert not vae.decoder._forward_hooks


def test_forward_of_another_pack_decodes_the_tiles_and_stays() -> None:
    vae, calls = ToyVAE(), []
    forward = replaced(vae, calls)

    pieces = pieces_of(tap_of(vae), toy_latent(2))

    assert vae.decoder.forward is forward
    assert calls == [5, 4, 5, 4] * 2
    torch.testing.assert_close(torch.cat(pieces), expected(TILING, toy_latent(2)), rtol=0, atol=1e-6)


def test_decode_can_be_ended_between_two_tiles() -> None:
    class Cancelled(Exception):
        pass

    vae, tiles = ToyVAE(), []
    vae.decoder.register_forward_pre_hook(lambda *_: tiles.append(1))

    def poll() -> None:
        polls.append(1)
        if len(polls) == 3:
            raise Cancelled

    polls: list[int] = []
    decoder = vae.video_decoder()
    decoder = VideoDecoder(
        model=vae, decode=vae.decode, device=decoder.device, dtype=decoder.dtype, frames_of=decoder.frames_of, poll=poll
    )
    tap = streamed_tiles(decoder, scale=SCALE, tiling=TILING)
    assert tap is not None
    pieces: list[Tensor] = []
    with pytest.raises(Cancelled):
        tap.run(toy_latent(3), pieces.append)

    assert (len(polls), len(tiles), pieces) == (3, 1, [])


def test_models_of_other_kinds_are_declined() -> None:
    class Whole(torch.nn.Module):
        def decode(self, z: Tensor) -> Tensor:
            return z

    decoder = ToyVAE().video_decoder()
    other = VideoDecoder(model=Whole(), decode=Whole().decode, device=decoder.device, dtype=decoder.dtype)
    assert streamed_tiles(other, scale=SCALE, tiling=TILING) is None
    with pytest.raises(ValueError, match="without windows"):
        streamed_tiles(decoder, scale=SCALE, tiling=Tiling(tile=4, window=4, window_overlap=1))


def test_cache_that_does_not_fit_waits_in_one_place_in_host_memory() -> None:
    caches = TileCaches(torch.device("cpu"), room=40)
    given: list[Any] = [None, None]
    places = set()

    for step in range(3):
        for tile in range(2):
            cache = caches.take(tile, given)
            assert cache == given if step == 0 else cache[0].eq(10 * step + tile).all() and cache[1] == "marker"
            cache[:] = [torch.full((10,), 10.0 * (step + 1) + tile), "marker"]
            caches.keep(tile, cache)
            assert cache == []
        # The first tile's 40 bytes are all that fits.
        assert caches.held == 40
        places.add(caches._caches[1][0].data_ptr())

    assert len(places) == 1
    assert given == [None, None]


def test_cache_does_not_keep_the_tensor_alive_that_it_was_cut_from() -> None:
    caches = TileCaches(torch.device("cpu"))
    step = torch.arange(64.0).reshape(8, 8)
    cache = caches.take(0, [None])
    cache[0] = step[-2:]

    caches.keep(0, cache)

    (kept,) = caches.take(0, [None])
    assert torch.equal(kept, step[-2:])
    assert kept.untyped_storage().nbytes() == 64


def test_model_without_a_cache_gets_none() -> None:
    caches = TileCaches(torch.device("cpu"))
    assert caches.take(0, None) is None
    caches.keep(0, None)
    assert caches.held == 0
