"""VAEs that cut their frames into tiles themselves: no tile leaves as if it were a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from async_decode import FramePipeline, VideoDecoder, choose_tap
from tests.engine.toy import CollectSink, ToyVAE, toy_latent

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")


def wan() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4).eval()
    vae.enable_tiling(
        tile_sample_min_height=64,
        tile_sample_min_width=64,
        tile_sample_stride_height=48,
        tile_sample_stride_width=48,
    )
    return vae


def cogvideox() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2, sample_height=64,
        sample_width=64,
    ).eval()  # fmt: skip
    vae.enable_tiling()
    return vae


def frames_of(vae: Any, latent: Tensor) -> tuple[CollectSink, FramePipeline]:
    sink = CollectSink()
    decoder = VideoDecoder(vae, lambda z: vae.decode(z).sample, torch.device("cpu"), torch.float32)
    with FramePipeline([sink], chunk_size=3) as pipeline:
        pipeline.decode(choose_tap(decoder), latent)
    return sink, pipeline


@pytest.mark.parametrize("make", [wan, cogvideox])
@pytest.mark.parametrize("size", [(4, 6), (12, 10), (16, 16)])
def test_a_vae_that_tiles_is_decoded_as_it_does_exactly(make: Any, size: tuple[int, int]) -> None:
    vae, latent = make(), torch.randn(1, 4, 3, *size, generator=torch.Generator().manual_seed(1))

    sink, pipeline = frames_of(vae, latent)

    with torch.inference_mode():
        wanted = torch.clamp((vae.decode(latent).sample + 1.0) / 2.0, 0, 1)[0].movedim(0, -1)
    assert np.array_equal(sink.frames, wanted.numpy())
    assert pipeline.decoding is not None and pipeline.decoding.exact
    if make is wan and size == (4, 6):
        # One tile is enough.
        assert pipeline.decoding.kind == "tapped"
    else:
        assert pipeline.decoding.kind == "whole" and "tiles of its own" in pipeline.decoding.detail


def test_slices_of_a_batch_are_exact() -> None:
    vae, latent = wan(), torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    vae.disable_tiling()
    vae.enable_slicing()

    sink, pipeline = frames_of(vae, latent)

    with torch.inference_mode():
        wanted = torch.clamp((vae.decode(latent).sample + 1.0) / 2.0, 0, 1).movedim(1, -1).flatten(0, 1)
    assert np.array_equal(sink.frames, wanted.numpy())
    assert pipeline.report.exact


class TilingVAE(ToyVAE):
    """Cuts its frames into four tiles, and tells nobody."""

    def decode(self, z: Tensor) -> Tensor:
        height, width = z.shape[-2] // 2, z.shape[-1] // 2
        rows = [
            torch.cat([super(TilingVAE, self).decode(part) for part in row.split(width, -1)], -1)
            for row in z.split(height, -2)
        ]
        return torch.cat(rows, -2)


def test_a_vae_that_tiles_and_tells_nobody_is_found_out_at_its_first_piece() -> None:
    vae, latent, sink = TilingVAE(), toy_latent(4), CollectSink()

    with FramePipeline([sink]) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), latent)

    with torch.inference_mode():
        wanted = torch.clamp((vae.decode(latent) + 1.0) / 2.0, 0, 1)[0].movedim(0, -1)
    assert np.array_equal(sink.frames, wanted.numpy())
    assert pipeline.decoding is not None and (pipeline.decoding.kind, pipeline.decoding.exact) == ("whole", True)


class LastConvolution(nn.Module):
    """CogVideoX's manner, in tiles: what is tapped has the size of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.conv_out = Echo()

    def decode(self, z: Tensor) -> Tensor:
        tiles = [self.decoder.conv_out(part.repeat_interleave(2, 3).repeat_interleave(2, 4)) for part in z.split(4, -1)]
        return torch.cat([tile[0] for tile in tiles], -1)


class Echo(nn.Module):
    def forward(self, x: Tensor, conv_cache: Any = None) -> tuple[Tensor, Any]:
        return x[:, :3], conv_cache


@pytest.mark.parametrize("width, kind", [(4, "tapped"), (8, "whole")])
def test_where_the_scale_is_known_pieces_are_measured_by_it(width: int, kind: str) -> None:
    vae, latent = LastConvolution(), torch.rand(1, 4, 2, 4, width)
    sink = CollectSink()
    decoder = VideoDecoder(vae, vae.decode, torch.device("cpu"), torch.float32, scale=2)

    with FramePipeline([sink]) as pipeline:
        pipeline.decode(choose_tap(decoder), latent)

    assert pipeline.decoding is not None and pipeline.decoding.kind == kind
    assert sink.frames.shape == (2, 8, 2 * width, 3)


@pytest.mark.parametrize("together, exact", [(None, False), (1, True), (2, False)])
def test_a_batch_is_called_exact_only_where_the_vae_takes_its_clips_one_by_one(
    together: int | None, exact: bool
) -> None:
    vae = ToyVAE()
    decoder = vae.video_decoder()
    if together is not None:
        decoder = VideoDecoder(
            vae, vae.decode, decoder.device, decoder.dtype, decoder.frames_of, images_of=lambda shape: together
        )

    with FramePipeline([CollectSink()]) as pipeline:
        pipeline.decode(choose_tap(decoder), toy_latent(3, clips=2))

    assert pipeline.report.exact is exact
    assert pipeline.decoding is not None and ("2 clips one by one" in pipeline.decoding.detail) is not exact
