"""Frames with NaN are saved as stock saves them, with one warning that names the first."""

from __future__ import annotations

import torch

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe


def test_stocks_bytes_and_one_warning(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 4, 6, kind="nan"), models.load(prompt, "wan21")
    frames = client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="nan/ours")
    video = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix="nan/video")
    images = prompt.add("VAEDecode", samples=samples, vae=vae)
    stock = prompt.add("SaveImage", images=images, filename_prefix="nan/stock")
    kept = prompt.add("TestSaveTensor", images=images)
    start = server.log_size()

    result = client.run(prompt)

    tensor = client.tensor(result, kept)
    broken = tensor.isnan().flatten(1).any(1).nonzero().flatten().tolist()
    # Otherwise this tests nothing.
    assert broken == [5, 6, 7, 8]
    got, wanted = files_of(server, result, frames), files_of(server, result, stock)
    assert [path.read_bytes() for path in got] == [path.read_bytes() for path in wanted]
    for node in (frames, video):
        (warning,) = report_of(result, node)["warnings"]
        assert warning.startswith("frame 5 is the first that holds NaN")
    assert server.log(start).count("frame 5 is the first that holds NaN") == 2
    assert probe(files_of(server, result, video)[0]).frames == 9


def test_the_image_keeps_its_nan(client: Client, models: Models) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 4, 6, kind="nan"), models.load(prompt, "wan21")
    ours = prompt.add("TestSaveTensor", images=client.add(prompt, "AsyncVAEDecode", samples=samples, vae=vae))
    stock = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))

    result = client.run(prompt)

    got, wanted = client.tensor(result, ours), client.tensor(result, stock)
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.nan_to_num(), wanted.nan_to_num())
    assert got.isnan().any()
