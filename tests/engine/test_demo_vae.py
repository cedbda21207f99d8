"""The demo's VAE shows the clip that it was trained to show, and is stepwise what it is as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from async_decode.demo import LATENT_PATH, WEIGHTS_PATH, load_latent, load_vae
from async_decode.demo.model import DemoVAE
from async_decode.demo.weights import read_safetensors
from async_decode.errors import DecodeError
from tests.demo_training.clip import demo_clip, training_clip
from tests.demo_training.encode import encode


@pytest.fixture(scope="module")
def vae() -> DemoVAE:
    return load_vae()


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """The demo's clip as the network sees it: ``(1, 3, 49, 256, 384)`` in [-1, 1]."""
    return demo_clip().permute(3, 0, 1, 2)[None] * 2.0 - 1.0


def _psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    error = (one.clamp(-1.0, 1.0) - other).square().mean() / 4.0
    return float(-10.0 * error.log10())


def test_the_decoded_clip_is_the_one_that_was_encoded(vae: DemoVAE, clip: torch.Tensor) -> None:
    with torch.inference_mode():
        shown = vae.decode(load_latent())
    assert shown.shape == clip.shape
    assert _psnr(shown, clip) > 27.0
    # No frame falls apart: errors that add up over a clip would show at its end.
    assert min(_psnr(shown[:, :, [frame]], clip[:, :, [frame]]) for frame in range(clip.shape[2])) > 26.0


def test_the_latent_is_the_encoded_clip(vae: DemoVAE, clip: torch.Tensor) -> None:
    with torch.inference_mode():
        encoded = encode(vae, clip[:, :, :17])
    # As near as half precision stores it.
    torch.testing.assert_close(load_latent()[:, :, :5], encoded, rtol=0.0, atol=0.01)


def test_steps_give_what_the_whole_clip_gives(vae: DemoVAE) -> None:
    clip = training_clip(7, frames=13, height=40, width=56).permute(3, 0, 1, 2)[None] * 2.0 - 1.0
    with torch.inference_mode():
        latent = encode(vae, clip)
        whole = vae.conv1(vae.encoder(clip)).chunk(2, 1)[0]
        torch.testing.assert_close(latent, whole, rtol=0.0, atol=1e-4)
        torch.testing.assert_close(vae.decode(latent), vae.decoder(vae.conv2(latent)), rtol=0.0, atol=1e-4)


def test_files_are_small_and_hold_what_comfyui_reads() -> None:
    assert WEIGHTS_PATH.stat().st_size < 2_000_000
    weights = read_safetensors(WEIGHTS_PATH)
    # The key by which ComfyUI knows Wan 2.1's VAE, and from whose size it reads the width.
    assert weights["decoder.middle.0.residual.0.gamma"].shape == (32, 1, 1, 1)
    assert weights["decoder.head.0.gamma"].shape == (8, 1, 1, 1)
    assert read_safetensors(LATENT_PATH)["latent_format_version_0"].numel() == 0


@pytest.mark.parametrize("shape", [(1, 16, 0, 4, 4), (1, 4, 2, 4, 4), (16, 2, 4, 4)])
def test_other_latents_are_refused(vae: DemoVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a latent"):
        vae.decode(torch.zeros(shape))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10\x00\x00\x00\x00\x00\x00\x00{}",
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
        (header := json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode())
        and len(header).to_bytes(8, "little") + header + b"1234",
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=r"weights\.safetensors is no whole safetensors file"):
        read_safetensors(path)
