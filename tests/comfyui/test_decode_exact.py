"""The IMAGE of Async VAE Decode is stock VAE Decode's, bit for bit, however the frames travel."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.fixtures import Models, random_latent, write_latent
from tests.comfyui.outputs import report_of
from tests.comfyui.server import Server

CHUNK_SIZES = (1, 3, 4, 7, 64)
BUFFER_DEPTHS = (1, 2, 5)
LATENT_FRAMES = (1, 2, 5, 6, 13)


def pairs_for(case: int) -> list[tuple[int, int]]:
    """Every chunk size with one buffer depth; over three cases every pair."""
    return [(size, BUFFER_DEPTHS[(case + at) % 3]) for at, size in enumerate(CHUNK_SIZES)]


def compare(
    client: Client, prompt: Prompt, samples: Output, vae: Output, pairs: list[tuple[int, int]]
) -> tuple[torch.Tensor, list[torch.Tensor], Result, list[Output]]:
    """Decode by stock's node and by ours, in one prompt: stock's IMAGE, ours, and what the nodes showed."""
    decodes = [
        client.add(prompt, "AsyncVAEDecode", samples=samples, vae=vae, chunk_size=size, buffer_depth=depth)
        for size, depth in pairs
    ]
    stock = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))
    saved = [prompt.add("TestSaveTensor", images=decode) for decode in decodes]
    result = client.run(prompt)
    described = [
        {key: result.ui(node)["tensor"][0][key] for key in ("shape", "dtype", "device")} for node in (stock, *saved)
    ]
    assert all(description == described[0] for description in described)
    return client.tensor(result, stock), [client.tensor(result, node) for node in saved], result, decodes


def test_every_pair_of_chunk_size_and_buffer_depth_is_tried() -> None:
    tried = {pair for case in range(len(LATENT_FRAMES)) for pair in pairs_for(case)}
    assert tried == set(product(CHUNK_SIZES, BUFFER_DEPTHS))


@pytest.mark.parametrize("latents", LATENT_FRAMES)
def test_wan21(client: Client, models: Models, latents: int) -> None:
    prompt = Prompt()
    samples = random_latent(prompt, 1, 16, latents, 4, 6, seed=latents)
    pairs = pairs_for(LATENT_FRAMES.index(latents))

    stock, ours, result, decodes = compare(client, prompt, samples, models.load(prompt, "wan21"), pairs)

    assert stock.shape == (4 * latents - 3, 32, 48, 3)
    # Otherwise equality says little.
    assert stock.std() > 0.05
    for pair, frames in zip(pairs, ours, strict=True):
        assert torch.equal(frames, stock), f"chunk_size, buffer_depth = {pair}"
    for pair, decode in zip(pairs, decodes, strict=True):
        report = report_of(result, decode)
        assert (report["chunk_size"], report["buffer_depth"]) == pair
        decoding = report["decoding"]
        assert (decoding["kind"], decoding["exact"], decoding["bounded"]) == ("tapped", True, True)
        assert report["frames"] == report["total_frames"] == 4 * latents - 3


@pytest.mark.parametrize("latents", [1, 3])
def test_wan22(client: Client, models: Models, latents: int) -> None:
    prompt = Prompt()
    samples = random_latent(prompt, 1, 48, latents, 2, 3)

    stock, ours, result, decodes = compare(
        client, prompt, samples, models.load(prompt, "wan22"), [(1, 1), (4, 2), (7, 5)]
    )

    assert stock.shape == (4 * latents - 3, 32, 48, 3)
    assert stock.std() > 0.05
    assert all(torch.equal(frames, stock) for frames in ours)
    assert {report_of(result, decode)["decoding"]["kind"] for decode in decodes} == {"tapped"}


@pytest.mark.parametrize("latents", [1, 3])
def test_wan21_in_full_width_through_stock_loaders(
    client: Client, server: Server, models: Models, latents: int
) -> None:
    prompt = Prompt()
    samples = prompt.add("LoadLatent", latent=write_latent(server.input, (1, 16, latents, 2, 3)))
    vae = models.load(prompt, "wan21-full")
    assert prompt.nodes[vae.node]["class_type"] == "VAELoader"

    stock, ours, _, _ = compare(client, prompt, samples, vae, [(4, 3)])

    assert stock.shape == (4 * latents - 3, 16, 24, 3)
    assert stock.std() > 0.05
    assert torch.equal(ours[0], stock)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_latent_of_a_narrower_type(client: Client, models: Models, dtype: str) -> None:
    prompt = Prompt()
    samples = random_latent(prompt, 1, 16, 3, 4, 4, dtype=dtype)
    stock, ours, _, _ = compare(client, prompt, samples, models.load(prompt, "wan21"), [(4, 3)])
    assert torch.equal(ours[0], stock)


def test_a_latent_without_a_time_axis_is_one_frame(client: Client, models: Models) -> None:
    """Stock's node fails on it; the frame is that of the same latent with a time axis."""
    prompt = Prompt()
    vae = models.load(prompt, "wan21")
    flat = client.add(prompt, "AsyncVAEDecode", samples=random_latent(prompt, 1, 16, 4, 6), vae=vae)
    saved = prompt.add("TestSaveTensor", images=flat)

    stock, ours, result, _ = compare(client, prompt, random_latent(prompt, 1, 16, 1, 4, 6), vae, [(4, 3)])

    assert stock.shape == (1, 32, 48, 3)
    assert torch.equal(ours[0], stock)
    assert torch.equal(client.tensor(result, saved), stock)


def test_of_video_with_sound_the_video_is_decoded(client: Client, models: Models, server: Server) -> None:
    if not (server.core.path / "comfy" / "nested_tensor.py").exists():
        pytest.skip(f"ComfyUI {server.core.version} has no latents of video with sound")
    prompt = Prompt()
    samples = random_latent(prompt, 1, 16, 3, 4, 6, kind="nested")
    stock, ours, _, _ = compare(client, prompt, samples, models.load(prompt, "wan21"), [(4, 3)])
    assert stock.shape == (9, 32, 48, 3)
    assert torch.equal(ours[0], stock)


def test_several_clips_become_one_row_of_frames(client: Client, models: Models) -> None:
    """Stock decodes clips together where they fit, we one by one: another order of summing, with each clip's bits."""
    prompt = Prompt()
    vae = models.load(prompt, "wan21")
    both = random_latent(prompt, 2, 16, 3, 4, 6)
    alone = [prompt.add("LatentFromBatch", samples=both, batch_index=index, length=1) for index in range(2)]
    each = [prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=one, vae=vae)) for one in alone]

    stock, ours, result, _ = compare(client, prompt, both, vae, [(4, 3)])

    assert ours[0].shape == (18, 32, 48, 3)
    assert torch.equal(ours[0], torch.cat([client.tensor(result, one) for one in each]))
    torch.testing.assert_close(ours[0], stock, rtol=0, atol=1e-5)
