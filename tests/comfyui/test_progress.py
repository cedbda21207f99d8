"""Progress counts frames that are written; a preview comes at most every half second."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent

NODES = ("AsyncVAEDecode", "AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo")


@pytest.mark.parametrize("node_type", NODES)
def test_progress_counts_frames_and_previews_are_few(client: Client, models: Models, node_type: str) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 9, 2, 3), models.load(prompt, "wan21")
    options = {} if node_type == "AsyncVAEDecode" else {"filename_prefix": "progress/a"}
    node = client.add(prompt, node_type, samples=samples, vae=vae, chunk_size=1, **options)
    prompt.add("TestSaveTensor", images=node) if node_type == "AsyncVAEDecode" else None

    prompt_id = client.queue(prompt)
    client.wait(prompt_id)

    progress = client.events_of("progress", prompt_id=prompt_id, node=node.node)
    values = [event.data["value"] for event in progress]
    assert values == sorted(values)
    assert {event.data["max"] for event in progress} == {33}
    assert values[-1] == 33
    previews = client.events_of("preview", node_id=node.node)
    assert previews
    began = client.events.wait("execution_start", prompt_id=prompt_id).at
    ended = client.events.wait("executing", prompt_id=prompt_id, node=None).at
    # One at once, then one every half second; without the limit it would be one a frame.
    assert len(previews) <= 1 + (ended - began) / 0.5
    for event in previews:
        with Image.open(io.BytesIO(event.image)) as image:
            image.load()
            # Of the frames' size, where that is no larger than a preview may be.
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (24, 16))
