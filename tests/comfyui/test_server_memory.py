"""The server's memory does not grow with the clip, as long as only files are asked for."""

from __future__ import annotations

import sys

import pytest

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import report_of
from tests.comfyui.server import Server

MIB = 2**20


def grown(client: Client, server: Server, models: Models, latents: int, *, output_images: bool = False) -> float:
    """MiB by which a run that saves images and a video raises the server's resident memory at its peak."""
    prompt = Prompt()
    samples = random_latent(prompt, 1, 16, latents, 22, 22)
    vae = prompt.add("TestCheapVAE", vae_name=models.file("wan21"))
    options = {"samples": samples, "vae": vae, "output_images": output_images}
    nodes = [
        client.add(prompt, "AsyncVAEDecodeSaveFrames", filename_prefix="long/a", compression=1, writers=2, **options),
        client.add(prompt, "AsyncVAEDecodeSaveVideo", filename_prefix="long/a", preset="ultrafast", **options),
    ]
    server.forget_peak()
    before = server.memory()["VmRSS"]
    result = client.run(prompt)
    for node in nodes:
        report = report_of(result, node)
        assert report["frames"] == 4 * latents - 3
        assert report["decoding"]["bounded"]
    return (server.memory()["VmHWM"] - before) / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_times_the_frames_take_less_than_50_mb_more(client: Client, server: Server, models: Models) -> None:
    # What the first run loads and sets up once is no growth.
    grown(client, server, models, 11)
    short = grown(client, server, models, 11)
    long = grown(client, server, models, 101)
    # Of 401 frames the IMAGE takes 142 MiB, and two nodes make one each: the measurement would see it.
    with_images = grown(client, server, models, 101, output_images=True)
    assert with_images - short > 120
    assert long - short < 50
