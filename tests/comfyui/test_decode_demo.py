"""The demo's VAE and latent are files that ComfyUI's own loaders take."""

from __future__ import annotations

import shutil

import pytest
import torch

from async_decode.demo import LATENT_PATH, WEIGHTS_PATH, load_latent, load_vae
from tests.comfyui.client import Client, Prompt
from tests.comfyui.outputs import report_of
from tests.comfyui.server import Server


def test_stock_loads_and_decodes_the_demo(client: Client, server: Server) -> None:
    # Core 0.3.64 expects Wan's full width; later ones read it from the file.
    if server.core.version == "0.3.64":
        pytest.skip("ComfyUI 0.3.64 loads Wan's VAE in its full width only")
    shutil.copyfile(WEIGHTS_PATH, server.base / "models" / "vae" / "demo.safetensors")
    shutil.copyfile(LATENT_PATH, server.input / "demo.latent")
    prompt = Prompt()
    vae = prompt.add("VAELoader", vae_name="demo.safetensors")
    samples = prompt.add("LoadLatent", latent="demo.latent")
    # A part of it, from the middle of the picture: the whole takes long on a CPU.
    for dim, index, amount in (("t", 0, 3), ("x", 16, 12), ("y", 10, 10)):
        samples = prompt.add("LatentCut", samples=samples, dim=dim, index=index, amount=amount)
    ours = client.add(prompt, "AsyncVAEDecode", samples=samples, vae=vae)
    saved = prompt.add("TestSaveTensor", images=ours)
    stock = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))

    result = client.run(prompt)

    frames = client.tensor(result, stock)
    with torch.inference_mode():
        shown = load_vae().decode(load_latent()[:, :, :3, 10:20, 16:28])[0].movedim(0, -1) / 2 + 0.5
    torch.testing.assert_close(frames, shown.clamp(0, 1), rtol=0, atol=1e-4)
    assert frames.shape == (9, 80, 96, 3)
    assert torch.equal(client.tensor(result, saved), frames)
    decoding = report_of(result, ours)["decoding"]
    assert (decoding["kind"], decoding["exact"], decoding["bounded"]) == ("tapped", True, True)
