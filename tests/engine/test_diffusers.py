"""A Diffusers user's VAE goes through the same taps: AutoencoderKLWan, both of its shapes, at small widths."""

from __future__ import annotations

import pytest
import torch

from async_decode import FramePipeline, VideoDecoder, choose_tap
from tests.engine.toy import CollectSink

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

# Wan 2.1 and Wan 2.2: the latter decodes 2x2 pixels as channels and un-patchifies at the end.
SHAPES = {
    "wan2.1": {"base_dim": 8, "z_dim": 4},
    "wan2.2": {
        "base_dim": 8,
        "decoder_base_dim": 8,
        "z_dim": 4,
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "scale_factor_spatial": 16,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("latents", [1, 2, 6])
def test_frames_are_bit_equal_to_the_vaes_own_decode(shape: str, latents: int) -> None:
    torch.manual_seed(0)
    options = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, **SHAPES[shape]}
    vae = diffusers.AutoencoderKLWan(**options).eval()
    latent = torch.randn(1, 4, latents, 4, 6)
    decoder = VideoDecoder(
        model=vae,
        decode=lambda z: vae.decode(z).sample,
        device=torch.device("cpu"),
        dtype=torch.float32,
        frames_of=lambda count: 4 * count - 3,
    )
    sink = CollectSink()

    with FramePipeline([sink], chunk_size=3) as pipeline:
        pipeline.decode(choose_tap(decoder), latent)

    with torch.inference_mode():
        expected = torch.clamp((vae.decode(latent).sample + 1.0) / 2.0, 0, 1)[0].movedim(0, -1)
    assert torch.equal(torch.from_numpy(sink.frames), expected)
    assert len(sink.chunks) == -(-(4 * latents - 3) // 3)
    assert pipeline.decoding is not None and pipeline.decoding.kind == "tapped"
