"""Batches of images: chunk_size images at a time, each batch decoded as stock decodes a batch of that size."""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_nothing_left, files_of, report_of, reports_of
from tests.comfyui.server import Server


@pytest.mark.parametrize("chunk_size", [1, 4, 9])
def test_a_batch_is_bit_equal_to_stocks_decode_of_the_same_batches(
    client: Client, models: Models, chunk_size: int
) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 9, 4, 4, 6), models.load(prompt, "sd")
    ours = client.add(prompt, "AsyncVAEDecode", samples=samples, vae=vae, chunk_size=chunk_size)
    saved = prompt.add("TestSaveTensor", images=ours)
    whole = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))
    batches = []
    for first in range(0, 9, chunk_size):
        batch = prompt.add("LatentFromBatch", samples=samples, batch_index=first, length=min(chunk_size, 9 - first))
        batches.append(prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=batch, vae=vae)))

    result = client.run(prompt)

    got, stock = client.tensor(result, saved), client.tensor(result, whole)
    assert got.shape == (9, 32, 48, 3)
    assert got.std() > 0.05
    assert torch.equal(got, torch.cat([client.tensor(result, batch) for batch in batches]))
    torch.testing.assert_close(got, stock, rtol=0, atol=1e-5)
    report = report_of(result, ours)
    assert (report["decoding"]["kind"], report["frames"]) == ("batches", 9)
    assert report["decoding"]["bounded"]


def test_an_image_vae_decodes_the_first_frame_of_a_clip_as_stock_does(
    client: Client, server: Server, models: Models
) -> None:
    if server.core.version == "0.3.64":
        pytest.skip("ComfyUI 0.3.64's own node fails on such a latent")
    prompt = Prompt()
    samples, vae = random_latent(prompt, 2, 4, 3, 4, 6), models.load(prompt, "sd")
    ours = prompt.add("TestSaveTensor", images=client.add(prompt, "AsyncVAEDecode", samples=samples, vae=vae))
    stock = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))

    result = client.run(prompt)

    assert client.tensor(result, ours).shape == (2, 32, 48, 3)
    assert torch.equal(client.tensor(result, ours), client.tensor(result, stock))


def test_a_list_of_latents_is_saved_batch_by_batch(client: Client, server: Server, models: Models) -> None:
    """ComfyUI calls a node once for each latent of a list, and does not wait for one call before the next."""
    prompt = Prompt()
    samples, vae = random_latent(prompt, 7, 4, 4, 6), models.load(prompt, "sd")
    batches = prompt.add("RebatchLatents", latents=samples, batch_size=3)
    ours = client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=batches, vae=vae, filename_prefix="list/ours", output_images=True
    )
    video = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=batches, vae=vae, filename_prefix="list/video")
    stock = prompt.add("SaveImage", images=ours, filename_prefix="list/stock")

    result = client.run(prompt)

    got, wanted = files_of(server, result, ours), files_of(server, result, stock)
    assert len({path.name for path in got}) == len(got) == 7
    assert [path.read_bytes() for path in got] == [path.read_bytes() for path in wanted]
    assert [report["frames"] for report in reports_of(result.ui(ours))] == [3, 3, 1]
    assert len({path.name for path in files_of(server, result, video)}) == 3
    check_nothing_left(server)
