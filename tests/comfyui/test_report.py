"""The report is in the history and in the event that ends a node; a cached node shows its old one."""

from __future__ import annotations

import pytest

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import names_in, report_of
from tests.comfyui.server import Server

NODES = ("AsyncVAEDecode", "AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo")


@pytest.mark.parametrize("node_type", NODES)
def test_report_in_history_and_event(client: Client, models: Models, node_type: str) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 2, 3), models.load(prompt, "wan21")
    options = {} if node_type == "AsyncVAEDecode" else {"filename_prefix": "report/a"}
    node = client.add(prompt, node_type, samples=samples, vae=vae, chunk_size=2, buffer_depth=2, **options)
    prompt.add("TestSaveTensor", images=node) if node_type == "AsyncVAEDecode" else None

    prompt_id = client.queue(prompt)
    result = client.wait(prompt_id)

    report = report_of(result, node)
    (event,) = client.events_of("executed", prompt_id=prompt_id, node=node.node)
    assert event.data["output"] == result.ui(node)
    assert (report["schema"], report["outcome"]) == (1, "completed")
    assert (report["frames"], report["total_frames"], report["chunks"]) == (9, 9, 5)
    assert (report["chunk_size"], report["chunk_frames"], report["buffer_depth"]) == (2, 2, 2)
    assert (report["width"], report["height"], report["channels"]) == (24, 16, 3)
    decoding = report["decoding"]
    assert (decoding["kind"], decoding["exact"], decoding["bounded"]) == ("tapped", True, True)
    stages = report["stages"]
    assert stages["decode"]["frames"] == stages["finish"]["frames"] == stages["save"]["frames"] == 9
    assert 0 < stages["decode"]["busy_seconds"] <= report["wall_seconds"]
    assert report["summary"]


def test_a_cached_node_shows_what_it_showed_and_writes_nothing_as_stock(
    client: Client, server: Server, models: Models
) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3, seed=77), models.load(prompt, "wan21")
    frames = client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="cached/frame", output_images=True
    )
    video = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix="cached/video")
    stock = prompt.add("SaveImage", images=frames, filename_prefix="cached/stock")
    first = client.run(prompt)
    before = {name: (server.output / "cached" / name).stat().st_mtime_ns for name in names_in(server.output / "cached")}

    prompt_id = client.queue(prompt)
    again = client.wait(prompt_id)

    assert len(before) == 11
    assert {frames.node, video.node, stock.node} <= again.cached
    assert before == {
        name: (server.output / "cached" / name).stat().st_mtime_ns for name in names_in(server.output / "cached")
    }
    for node in (frames, video, stock):
        assert again.ui(node) == first.ui(node) != {}
        (event,) = client.events_of("executed", prompt_id=prompt_id, node=node.node)
        assert event.data["output"] == first.ui(node)
