"""Tiles of frames: ComfyUI's pixels for the same numbers, for videos, images, and models that tile themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from async_decode import VideoDecoder
from async_decode.taps import ImageTiles, OwnTiles, Scale, TemporalWindows, Tiling
from tests.engine.test_windows import SCALE, expected
from tests.engine.tiling_reference import tiled
from tests.engine.toy import ToyVAE, toy_latent


class ToyImageVAE(nn.Module):
    """``(N, 4, H, W)`` to ``(N, 3, 8H, 8W)``; a pixel depends on its neighbours, so that tiles have seams."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.mix.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.batches: list[int] = []

    def decode(self, z: Tensor) -> Tensor:
        self.batches.append(z.shape[0])
        return self.mix(z).repeat_interleave(8, 2).repeat_interleave(8, 3)

    def video_decoder(self) -> VideoDecoder:
        return VideoDecoder(
            model=self, decode=self.decode, device=torch.device("cpu"), dtype=torch.float32, is_video=False
        )


IMAGE_SCALE = Scale(size=(8, 8), place=(8, 8))


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 4, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("latents", [1, 2, 7])
@pytest.mark.parametrize("size", [5, 8, 13])
@pytest.mark.parametrize("tile, overlap", [(4, 0), (4, 1), (7, 2)])
def test_video_tiles_are_those_of_the_whole_sum(clips: int, latents: int, size: int, tile: int, overlap: int) -> None:
    tiling = Tiling(tile=tile, overlap=overlap)
    latent = toy_latent(latents, clips=clips, size=size)
    pieces: list[Tensor] = []

    TemporalWindows(ToyVAE().video_decoder(), scale=SCALE, tiling=tiling).run(
        latent, lambda piece: pieces.append(piece.clone())
    )

    assert torch.equal(torch.cat(pieces), expected(tiling, latent))


def test_tiles_of_the_whole_clip_claim_no_bound() -> None:
    tap = TemporalWindows(ToyVAE().video_decoder(), scale=SCALE, tiling=Tiling(tile=4))

    assert (tap.decoding.kind, tap.decoding.exact, tap.decoding.bounded) == ("tiles", False, False)
    assert tap.live_shape(toy_latent(7, clips=2)) == (1, 4, 7, 4, 4)


@pytest.mark.parametrize("height, width", [(5, 9), (16, 8), (17, 23)])
@pytest.mark.parametrize("tile, overlap", [(6, 1), (8, 2), (8, 0)])
def test_image_tiles_are_the_mean_of_three_shapes(height: int, width: int, tile: int, overlap: int) -> None:
    vae, latent = ToyImageVAE(), images(3, height, width)
    pieces: list[Tensor] = []

    ImageTiles(vae.video_decoder(), scale=IMAGE_SCALE, tiling=Tiling(tile=tile, overlap=overlap)).run(
        latent, lambda piece: pieces.append(piece.clone())
    )

    def of_shape(rows: int, columns: int) -> Tensor:
        grow = (lambda latents: 8 * latents,) * 2
        return tiled(latent, vae.decode, (rows, columns), (overlap, overlap), grow, grow)

    with torch.inference_mode():
        mean = (of_shape(2 * tile, tile // 2) + of_shape(tile // 2, 2 * tile) + of_shape(tile, tile)) / 3.0
    assert [piece.shape[0] for piece in pieces] == [1, 1, 1]
    assert torch.equal(torch.cat(pieces), mean)
    assert set(vae.batches) == {1}


def test_image_tiles_refuse_a_size_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        ImageTiles(ToyImageVAE().video_decoder(), scale=IMAGE_SCALE, tiling=Tiling(tile=1))


def test_a_model_that_tiles_by_itself_is_asked_to() -> None:
    vae, latent = ToyVAE(), toy_latent(3, clips=2)
    asked: list[torch.Size] = []

    def decode_tiled(z: Tensor) -> Tensor:
        asked.append(z.shape)
        return vae.decode(z) * 0.5

    pieces: list[Tensor] = []
    tap = OwnTiles(vae.video_decoder(), decode_tiled=decode_tiled, tiling=Tiling(tile=4, overlap=1))
    tap.run(latent, lambda piece: pieces.append(piece.clone()))

    assert asked == [(1, 4, 3, 8, 8)] * 2
    with torch.inference_mode():
        assert torch.equal(torch.cat(pieces)[9:], (vae.decode(latent[1:]) * 0.5)[0].movedim(0, 1))
    assert tap.live_shape(latent) == (1, 4, 3, 4, 4)
