"""What cannot be decoded gets one error that names the value and the remedy, and the next prompt runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt, PromptRejected
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable, names_in
from tests.comfyui.server import Server

NODES = ["AsyncVAEDecode", "AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo"]

GOOD = (1, 16, 2, 2, 3)
#: By name: the latent's shape and kind, the VAE (a file's, or one that decodes no pictures), and what the error says.
CASES: dict[str, tuple[tuple[int, ...], str, str, list[str]]] = {
    "channels": (
        (1, 4, 2, 2, 3),
        "random",
        "wan21",
        ["this latent has 4 channels", "WanVAE", "decodes 16", "load the VAE that belongs to the model"],
    ),
    "channels of an image VAE": (
        (2, 16, 2, 3),
        "random",
        "sd",
        ["this latent has 16 channels", "AutoencoderKL", "decodes 4", "load the VAE that belongs to the model"],
    ),
    "no frames": ((1, 16, 0, 2, 3), "random", "wan21", ["latent is empty", "(1, 16, 0, 2, 3)", "give it frames"]),
    "no clips": ((0, 16, 2, 2, 3), "random", "wan21", ["latent is empty", "(0, 16, 2, 2, 3)"]),
    "no size": ((1, 4, 0, 3), "random", "sd", ["latent is empty", "(1, 4, 0, 3)", "a size"]),
    "text": (GOOD, "text", "wan21", ["expected a LATENT with a tensor in it, got str", "connect a sampler"]),
    "nothing": (GOOD, "missing", "wan21", ["expected a LATENT with a tensor in it, got NoneType"]),
    "sound": ((1, 64, 100), "random", "wan21", ["(1, 64, 100)", "decode nodes of their own"]),
    "audio VAE": ((1, 64, 16), "random", "audio", ["AudioOobleckVAE", "VAE Decode Audio"]),
    "shape VAE": ((1, 64, 16), "random", "shape", ["ShapeVAE", "not pictures"]),
    "foreign VAE": (GOOD, "random", "foreign", ["ForeignVAE", "is not one of ComfyUI's VAEs", "Load VAE"]),
}


def add_node(client: Client, prompt: Prompt, node_type: str, samples: Output, vae: Output, **options: Any) -> Output:
    """Add one of our nodes, with something behind it where it is no output node itself."""
    if node_type == "AsyncVAEDecode":
        node = client.add(prompt, node_type, samples=samples, vae=vae, **options)
        prompt.add("TestSaveTensor", images=node)
        return node
    return client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix="bad/a", **options)


@pytest.mark.parametrize("node_type", NODES)
@pytest.mark.parametrize("case", CASES)
def test_one_error_that_helps(client: Client, server: Server, models: Models, node_type: str, case: str) -> None:
    shape, kind, vae_name, said = CASES[case]
    prompt = Prompt()
    samples = random_latent(prompt, *shape, kind=kind)
    if vae_name in ("audio", "shape", "foreign"):
        vae = prompt.add("TestOtherVAE", kind=vae_name)
    else:
        vae = models.load(prompt, vae_name)
    node = add_node(client, prompt, node_type, samples, vae)

    prompt_id = client.queue(prompt)
    result = client.wait(prompt_id)

    assert result.error is not None
    assert result.error["node_id"] == node.node
    message = result.error["exception_message"]
    for part in said:
        assert part in message
    # In the node's box, too, and only once.
    (event,) = client.events_of("execution_error", prompt_id=prompt_id)
    assert event.data["exception_message"] == message
    assert names_in(server.output / "bad") == []
    check_usable(client, server, models)


@pytest.mark.parametrize("node_type", NODES)
@pytest.mark.parametrize(("name", "value"), [("chunk_size", 0), ("chunk_size", 4097), ("buffer_depth", 0)])
def test_numbers_out_of_range_are_refused_by_comfyui(
    client: Client, models: Models, node_type: str, name: str, value: int
) -> None:
    prompt = Prompt()
    vae = models.load(prompt, "wan21")
    node = add_node(client, prompt, node_type, random_latent(prompt, *GOOD), vae, **{name: value})
    with pytest.raises(PromptRejected) as refused:
        client.queue(prompt)
    (error,) = refused.value.node_errors[node.node]["errors"]
    assert error["extra_info"]["input_name"] == name
    assert error["extra_info"]["received_value"] == value


@pytest.mark.parametrize("node_type", NODES)
@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("tile_size", 32, "0, which is off, or 64 to 4096"),
        ("temporal_size", 4, "0, which is off, or 8 to 4096"),
        ("tile_size", 5000, "a whole number from 0 to 4096"),
    ],
)
def test_tiles_that_are_too_small_are_refused_when_queued(
    client: Client, models: Models, node_type: str, name: str, value: int, wanted: str
) -> None:
    prompt = Prompt()
    vae = models.load(prompt, "wan21")
    node = add_node(client, prompt, node_type, random_latent(prompt, *GOOD), vae, **{name: value})

    with pytest.raises(PromptRejected) as refused:
        client.queue(prompt)

    (error,) = refused.value.node_errors[node.node]["errors"]
    assert error["details"].startswith(f"{name}: expected {wanted}, got {value}")
