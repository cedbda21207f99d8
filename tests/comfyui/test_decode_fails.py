"""A decoder that fails in the middle of a clip: one error at the node, whole files stay, the next prompt runs."""

from __future__ import annotations

import uuid

import pytest
from PIL import Image

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable, names_in
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe


@pytest.mark.parametrize("node_type", ["AsyncVAEDecode", "AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo"])
def test_the_decoders_own_error_is_shown(client: Client, server: Server, models: Models, node_type: str) -> None:
    folder = server.output / f"decoder-{node_type}"
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 13, 2, 3), models.load(prompt, "wan21")
    vae = prompt.add("TestDecoderStep", vae=vae, step=4, action="raise", gate=uuid.uuid4().hex)
    options = {} if node_type == "AsyncVAEDecode" else {"filename_prefix": f"{folder.name}/a", "buffer_depth": 1}
    node = client.add(prompt, node_type, samples=samples, vae=vae, **options)
    if node_type == "AsyncVAEDecode":
        prompt.add("TestSaveTensor", images=node)

    result = client.run(prompt, check=False)

    error = result.error
    assert error is not None
    assert error["node_id"] == node.node
    assert "the decoder fails at step 4, as the test wants it" in error["exception_message"]
    # The traceback leads to where it was raised.
    assert any("before_step" in line for line in error["traceback"])
    left = names_in(folder)
    # All that was made: 1 frame, and twice 8 or, on older cores, 4.
    made = (17, 9)
    if node_type == "AsyncVAEDecodeSaveFrames":
        assert left in ([f"a_{number:05}_.png" for number in range(1, count + 1)] for count in made)
        for name in left:
            with Image.open(folder / name) as image:
                image.load()
    if node_type == "AsyncVAEDecodeSaveVideo":
        assert left == ["a_00001_cut-short.mp4"]
        assert probe(folder / left[0]).frames in made
    check_usable(client, server, models)
