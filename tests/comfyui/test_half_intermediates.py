"""Where ComfyUI passes images on in half precision, ours are its bits, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.comfyui.client import Client, Prompt
from tests.comfyui.cores import Core
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import WORKFLOW, files_of
from tests.comfyui.server import Server

OPTION = "--fp16-intermediates"


def test_images_and_files(
    core: Core, start_server: Callable[..., Server], connect: Callable[[Server], Client], models: Models
) -> None:
    if OPTION not in (core.path / "comfy" / "cli_args.py").read_text(encoding="utf-8"):
        pytest.skip(f"ComfyUI {core.version} has no {OPTION}")
    server = start_server(options=[OPTION])
    client = connect(server)
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 4, 6), models.load(prompt, "wan21")
    ours = client.add(prompt, "AsyncVAEDecode", samples=samples, vae=vae, chunk_size=2)
    frames = client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="half/ours")
    images = prompt.add("VAEDecode", samples=samples, vae=vae)
    stock = prompt.add("SaveImage", images=images, filename_prefix="half/stock")
    tensors = [prompt.add("TestSaveTensor", images=node) for node in (ours, images)]

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    got, wanted = (client.tensor(result, node) for node in tensors)
    assert wanted.dtype == torch.float16
    assert got.dtype == torch.float16
    assert torch.equal(got, wanted)
    assert [path.read_bytes() for path in files_of(server, result, frames)] == [
        path.read_bytes() for path in files_of(server, result, stock)
    ]
