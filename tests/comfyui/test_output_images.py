"""The saving nodes give an IMAGE where somebody is connected, and when asked for it; else none is made."""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, report_of
from tests.comfyui.server import Server

#: The nodes, and which of their outputs is the IMAGE.
NODES = {"AsyncVAEDecodeSaveFrames": 0, "AsyncVAEDecodeSaveVideo": 1}


@pytest.mark.parametrize(("node_type", "index"), NODES.items())
def test_a_link_alone_is_enough(client: Client, server: Server, models: Models, node_type: str, index: int) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3), models.load(prompt, "wan21")
    node = client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix="off/a")
    ours = prompt.add("TestSaveTensor", images=Output(node.node, index))
    stock = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))

    result = client.run(prompt)

    assert client.events_of("execution_error") == []
    assert torch.equal(client.tensor(result, ours), client.tensor(result, stock))
    assert files_of(server, result, node)


@pytest.mark.parametrize(("node_type", "index"), NODES.items())
def test_a_link_that_is_added_later_gets_it_too(
    client: Client, server: Server, models: Models, node_type: str, index: int
) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3, seed=index), models.load(prompt, "wan21")
    node = client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix="later/a")
    client.run(prompt)
    connected = prompt.add("TestSaveTensor", images=Output(node.node, index))

    first, again = client.run(prompt), client.run(prompt)

    assert node.node not in first.cached
    assert first.ui(connected)["tensor"][0]["shape"] == [5, 16, 24, 3]
    # What it depends on has not changed.
    assert node.node in again.cached


def test_without_a_link_none_is_made(client: Client, models: Models) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3), models.load(prompt, "wan21")
    given = {"samples": samples, "vae": vae, "filename_prefix": "none/a"}
    node = client.add(prompt, "AsyncVAEDecodeSaveVideo", **given)
    # The VIDEO is another output.
    prompt.add("SaveVideo", video=node, filename_prefix="none/b", format="auto", codec="auto")
    asked = client.add(prompt, "AsyncVAEDecodeSaveVideo", **given, output_images=True)

    result = client.run(prompt)

    without, with_images = (report_of(result, one)["ring_bytes_host"] for one in (node, asked))
    assert with_images > 3 * without


@pytest.mark.parametrize(("node_type", "index"), NODES.items())
def test_on_it_is_stocks_image(client: Client, server: Server, models: Models, node_type: str, index: int) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 2, 3), models.load(prompt, "wan21")
    node = client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix="on/a", output_images=True)
    ours = prompt.add("TestSaveTensor", images=Output(node.node, index))
    stock = prompt.add("TestSaveTensor", images=prompt.add("VAEDecode", samples=samples, vae=vae))

    result = client.run(prompt)

    assert torch.equal(client.tensor(result, ours), client.tensor(result, stock))
    assert client.events_of("execution_error") == []
    assert files_of(server, result, node)


def test_switching_it_on_runs_the_node_again(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3), models.load(prompt, "wan21")
    node = client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="switched/a")
    prompt.add("TestSaveTensor", images=node)
    client.run(prompt)
    prompt.nodes[node.node]["inputs"]["output_images"] = True

    result = client.run(prompt)

    assert node.node not in result.cached
    assert result.outputs["4"]["tensor"][0]["shape"] == [5, 16, 24, 3]
