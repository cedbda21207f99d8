"""A clip of 10,000 frames takes no more memory in its last three quarters than in its first."""

from __future__ import annotations

import sys

import pytest

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, report_of, wait_until
from tests.comfyui.server import Server
from tests.soak.held import MIB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LATENTS, SIZE = 2501, 12
FRAMES = 4 * LATENTS - 3
#: By which the peak may rise, in bytes; all frames at 8 bits a channel would take ten times as much.
MEMORY = 26 * MIB
NODES = {
    "AsyncVAEDecodeSaveVideo": {"preset": "ultrafast"},
    "AsyncVAEDecodeSaveFrames": {"compression": 0, "writers": 2},
}


@pytest.mark.parametrize("node_type", NODES)
def test_memory_is_flat(client: Client, server: Server, models: Models, node_type: str, figures: list[str]) -> None:
    prompt = Prompt()
    samples = random_latent(prompt, 1, 16, LATENTS, SIZE, SIZE)
    vae = prompt.add("TestCheapVAE", vae_name=models.file("wan21"))
    node = client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix=f"{node_type}/a", **NODES[node_type])

    def done() -> int:
        seen = [event.data["value"] for event in client.events_of("progress", node=node.node)]
        return max(seen, default=0)

    prompt_id = client.queue(prompt)
    wait_until(lambda: done() > FRAMES // 4, "a quarter of the clip")
    first = server.memory()["VmHWM"]
    server.forget_peak()
    wait_until(lambda: done() > FRAMES * 9 // 10, "nearly all of the clip")
    rest = server.memory()["VmHWM"]
    result = client.wait(prompt_id)

    assert result.ok
    report = report_of(result, node)
    assert report["frames"] == FRAMES
    assert report["decoding"]["bounded"]
    assert len(files_of(server, result, node)) == (FRAMES if "Frames" in node_type else 1)
    figures.append(
        f"ComfyUI {server.core.version}: {node_type}, {FRAMES} frames of {8 * SIZE}x{8 * SIZE}: the peak of resident "
        f"memory was {first / MIB:.0f} MiB in the first quarter, {(rest - first) / MIB:+.1f} MiB from there to nine "
        "tenths"
    )
    assert rest - first < MEMORY
