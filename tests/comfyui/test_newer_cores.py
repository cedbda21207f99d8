"""What newer cores ask of a decode, tried with stand-ins that follow their protocols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.cores import Core
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe

#: Wider than the tile that the stand-in prefers.
WIDE = (1, 16, 2, 3, 48)


def decoded(client: Client, models: Models, kind: str, *shape: int) -> tuple[Result, Output, Output]:
    """Decode a random latent with a stand-in: our node, and what keeps its IMAGE."""
    prompt = Prompt()
    vae = prompt.add("TestStandInVAE", vae_name=models.file("wan21"), kind=kind)
    node = client.add(prompt, "AsyncVAEDecode", samples=random_latent(prompt, *shape), vae=vae)
    kept = prompt.add("TestSaveTensor", images=node)
    return client.run(prompt, check=False), node, kept


def test_an_estimate_above_what_is_free_goes_straight_to_the_tiles_that_the_vae_prefers(
    client: Client, models: Models
) -> None:
    result, node, kept = decoded(client, models, "estimate above free", *WIDE)

    assert result.ok, result.error
    # Tiles of 40 x 40 latents, a quarter of it shared, as the stand-in's own tiling was asked for.
    told = (40 + 40 / 100 + 10 / 10_000) / 100
    assert torch.allclose(client.tensor(result, kept), torch.tensor(told / 2 + 0.5))
    report = report_of(result, node)
    assert report["decoding"]["kind"] == "tiles"
    assert any("as VAE Decode does" in warning for warning in report["warnings"])


def test_an_estimate_below_what_is_free_changes_nothing(client: Client, models: Models) -> None:
    result, node, _ = decoded(client, models, "estimate below free", *WIDE)

    report = report_of(result, node)
    assert report["decoding"]["kind"] == "tapped"
    assert not any("as VAE Decode does" in warning for warning in report["warnings"])


def test_a_vae_that_its_own_node_decodes_is_refused_with_the_nodes_name(client: Client, models: Models) -> None:
    result, node, _ = decoded(client, models, "relayvsr", 1, 16, 2, 2, 3)

    assert (result.error or {})["node_id"] == node.node
    assert "RelayVSRDecoder" in (result.error or {})["exception_message"]
    assert "use its own node, VSR Decode" in (result.error or {})["exception_message"]


def test_loading_is_left_out_of_the_memory_plan(client: Client, models: Models, core: Core) -> None:
    if not (core.path / "comfy" / "model_prefetch.py").exists():
        pytest.skip("this ComfyUI plans no memory")

    result, _, _ = decoded(client, models, "memory plan", 1, 16, 2, 2, 3)

    assert result.ok, result.error


@pytest.mark.parametrize(("format", "mode"), [("png", "RGBA"), ("webp lossless", "RGBA"), ("jpeg", "RGB")])
def test_alpha_is_kept_where_the_format_has_one(
    client: Client, server: Server, models: Models, format: str, mode: str
) -> None:
    prompt = Prompt()
    vae = prompt.add("TestStandInVAE", vae_name=models.file("sd"), kind="rgba")
    samples = random_latent(prompt, 3, 4, 4, 6)
    node = client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix=f"rgba/{mode}", format=format
    )
    kept = prompt.add("TestSaveTensor", images=node)

    result = client.run(prompt)

    frames = client.tensor(result, kept)
    assert frames.shape == (3, 32, 48, 4)
    for path, frame in zip(files_of(server, result, node), frames, strict=True):
        with Image.open(path) as image:
            assert image.mode == mode
            if mode == "RGBA":
                alpha = np.asarray(image.getchannel("A"))
                assert np.array_equal(alpha, (255 * frame[..., 3]).numpy().clip(0, 255).astype(np.uint8))
    if mode == "RGB":
        assert any("alpha" in warning for warning in report_of(result, node)["warnings"])


@pytest.mark.parametrize(("format", "pixels"), [("webm (VP9)", "yuva"), ("mp4 (H.264)", "yuv4")])
def test_a_video_keeps_alpha_or_says_that_it_does_not(
    client: Client, server: Server, models: Models, format: str, pixels: str
) -> None:
    prompt = Prompt()
    vae = prompt.add("TestStandInVAE", vae_name=models.file("sd"), kind="rgba")
    samples = random_latent(prompt, 3, 4, 4, 6)
    node = client.add(
        prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix="rgba/v", format=format, fps=25.0
    )

    result = client.run(prompt)

    (path,) = files_of(server, result, node)
    assert probe(path).frames == 3
    warnings = report_of(result, node)["warnings"]
    assert any("alpha" in warning for warning in warnings) is (pixels != "yuva"), warnings


@pytest.mark.parametrize("device", ["default", "gpu:0", "gpu:1"])
def test_a_vae_that_was_moved_to_a_device_decodes_there(client: Client, models: Models, device: str) -> None:
    node = client.object_info("SelectVAEDevice").get("SelectVAEDevice")
    if not node:
        pytest.skip("this ComfyUI has no Select VAE Device")
    if device not in str(node["input"]["required"]["device"]):
        pytest.skip(f"this ComfyUI's Select VAE Device does not offer {device}: the machine has fewer GPUs")
    prompt = Prompt()
    samples, vae = random_latent(prompt, *WIDE), models.load(prompt, "wan21")
    moved = client.add(prompt, "SelectVAEDevice", vae=vae, device=device)
    ours, stock = (
        prompt.add("TestSaveTensor", images=client.add(prompt, decode, samples=samples, vae=of))
        for decode, of in (("AsyncVAEDecode", moved), ("VAEDecode", vae))
    )

    result = client.run(prompt)

    assert torch.equal(client.tensor(result, ours), client.tensor(result, stock))
