"""A cancelled prompt stops within one chunk and leaves whole files only; the next prompt runs."""

from __future__ import annotations

import uuid

import pytest
from PIL import Image

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable, names_in, wait_until
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe


def held(client: Client, models: Models, node_type: str, **options: object) -> tuple[Prompt, Output, str]:
    """A prompt whose decoder waits at a gate before its fourth step, and fails if a fifth one comes; node and gate."""
    prompt, gate = Prompt(), uuid.uuid4().hex
    samples, vae = random_latent(prompt, 1, 16, 13, 2, 3), models.load(prompt, "wan21")
    vae = prompt.add("TestDecoderStep", vae=vae, step=4, action="hold", gate=gate)
    vae = prompt.add("TestDecoderStep", vae=vae, step=5, action="raise", gate=gate)
    node = client.add(prompt, node_type, samples=samples, vae=vae, **options)
    if node_type == "AsyncVAEDecode":
        prompt.add("TestSaveTensor", images=node)
    return prompt, node, gate


@pytest.mark.parametrize("by_id", [False, True], ids=["whatever runs", "by id"])
@pytest.mark.parametrize("buffer_depth", [1, 3])
def test_images(client: Client, server: Server, models: Models, by_id: bool, buffer_depth: int) -> None:
    # Three steps make one frame and then 4 or 8 each, as the core's VAE takes one or two latent frames at a time.
    folder = server.output / f"interrupted-{by_id}-{buffer_depth}"
    prompt, node, gate = held(
        client,
        models,
        "AsyncVAEDecodeSaveFrames",
        filename_prefix=f"{folder.name}/a",
        chunk_size=4,
        buffer_depth=buffer_depth,
    )

    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    # With one slot, whole chunks are written before the decoder goes on; with more, writers finish on their own.
    wait_until(lambda: len([name for name in names_in(folder) if name.endswith(".png")]) >= 8, "files of whole chunks")
    before = names_in(folder)
    client.interrupt(prompt_id if by_id else None)
    client.open_gate(gate)
    result = client.wait(prompt_id)

    # Had the decoder made a fifth step, it would have failed.
    assert result.interrupted
    assert result.error is None
    assert (result.message("execution_interrupted") or {})["node_id"] == node.node
    left = names_in(folder)
    if buffer_depth == 1:
        assert left == before
    assert left == [f"a_{number:05}_.png" for number in range(1, len(left) + 1)]
    assert 8 <= len(left) <= 17
    for name in left:
        with Image.open(folder / name) as image:
            image.load()
    check_usable(client, server, models)


def test_a_video_is_closed_and_named_cut_short(client: Client, server: Server, models: Models) -> None:
    folder = server.output / "interrupted-video"
    prompt, _, gate = held(
        client, models, "AsyncVAEDecodeSaveVideo", filename_prefix=f"{folder.name}/a", chunk_size=4, buffer_depth=1
    )

    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    assert [name for name in server.children().values() if "ffmpeg" in name]
    client.interrupt()
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert result.interrupted
    assert names_in(folder) == ["a_00001_cut-short.mp4"]
    # Whole chunks of the 9 or 17 frames that three steps made, since with one slot they were written at once.
    assert probe(folder / "a_00001_cut-short.mp4").frames in (8, 16)
    check_usable(client, server, models)


def test_the_image_node(client: Client, server: Server, models: Models) -> None:
    prompt, node, gate = held(client, models, "AsyncVAEDecode")

    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    client.interrupt(prompt_id)
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert result.interrupted
    assert (result.message("execution_interrupted") or {})["node_id"] == node.node
    check_usable(client, server, models)


def test_cancelling_another_prompt_changes_nothing(client: Client, server: Server, models: Models) -> None:
    prompt, gate = Prompt(), uuid.uuid4().hex
    samples, vae = random_latent(prompt, 1, 16, 5, 2, 3), models.load(prompt, "wan21")
    vae = prompt.add("TestDecoderStep", vae=vae, step=2, action="hold", gate=gate)
    node = client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="other prompt/a")

    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    client.interrupt(uuid.uuid4().hex)
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert result.ok
    assert len(result.ui(node)["images"]) == 17
    check_usable(client, server, models)
