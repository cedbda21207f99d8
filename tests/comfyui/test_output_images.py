"""The saving nodes give an IMAGE only when asked for it, and say so when somebody is connected all the same."""

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
def test_off_the_next_node_is_blocked_and_told_which_widget(
    client: Client, server: Server, models: Models, node_type: str, index: int
) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3), models.load(prompt, "wan21")
    node = client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix="off/a")
    connected = prompt.add("TestSaveTensor", images=Output(node.node, index))

    prompt_id = client.queue(prompt)
    result = client.wait(prompt_id)

    # As for any blocker that speaks: the front end shows an error at the node that was connected, the rest succeeds.
    assert result.ok
    (event,) = client.events_of("execution_error", prompt_id=prompt_id)
    assert event.data["node_id"] == connected.node
    assert "output_images" in event.data["exception_message"]
    assert result.ui(connected) == {}
    assert files_of(server, result, node)
    assert report_of(result, node)["frames"] == 5


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
