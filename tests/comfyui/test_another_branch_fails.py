"""A node's saving and what ends its prompt elsewhere: an error of another branch loses nothing, a cancel cuts short."""

from __future__ import annotations

import uuid

import pytest

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable, names_in, wait_until
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe

#: Of noise: a writer compresses about six of them in a second.
FRAMES, SIDE = 24, 512


def slow_frames(client: Client, prompt: Prompt, prefix: str, node_type: str = "AsyncSaveFrames") -> Output:
    """Add a node that takes seconds to save ``FRAMES`` frames that are there at once."""
    images = prompt.add("TestImages", shape=f"{FRAMES},{SIDE},{SIDE},3", seed=0, dtype="float32", layout="contiguous")
    given = {"filename_prefix": prefix, "compression": 9, "writers": 1}
    if node_type == "AsyncSaveVideo":
        given = {"filename_prefix": prefix, "quality": 0, "preset": "veryslow"}
    return client.add(prompt, node_type, images=images, **given)


def late_error(prompt: Prompt, kind: str = "error") -> str:
    """Add a branch that waits beside the others, then fails; the gate that lets it."""
    gate = uuid.uuid4().hex
    prompt.add("TestLateError", gate=gate, kind=kind)
    return gate


def begin(client: Client, server: Server, prompt: Prompt, prefix: str) -> str:
    """Queue ``prompt`` and return its id when a first frame has been saved, and by far not the last one."""
    prompt_id = client.queue(prompt)
    wait_until(lambda: png_in(server, prefix), "the first files")
    assert len(png_in(server, prefix)) < FRAMES // 2
    return prompt_id


def png_in(server: Server, prefix: str) -> list[str]:
    return [name for name in names_in((server.output / prefix).parent) if name.endswith(".png")]


def test_every_frame_is_saved(client: Client, server: Server, models: Models) -> None:
    prompt, prefix = Prompt(), f"{uuid.uuid4().hex}/a"
    node = slow_frames(client, prompt, prefix)
    gate = late_error(prompt)

    prompt_id = begin(client, server, prompt, prefix)
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert "another branch fails" in (result.error or {})["exception_message"]
    assert len(png_in(server, prefix)) == FRAMES
    # The history is the failed prompt's, which knows no more nodes; who watches sees the files.
    (event,) = client.events_of("executed", prompt_id=prompt_id, node=node.node)
    assert len(event.data["output"]["images"]) == FRAMES
    (ended,) = client.events_of("async_vae_decode.ended", prompt=prompt_id)
    assert ended.data["report"]["outcome"] == "completed"
    check_usable(client, server, models)


def test_a_decoded_clip_is_saved_as_well(client: Client, server: Server, models: Models) -> None:
    prompt, prefix = Prompt(), f"{uuid.uuid4().hex}/a"
    samples, vae = random_latent(prompt, 1, 16, 6, 64, 64), models.load(prompt, "wan21")
    vae = prompt.add("TestCheapVAE", vae_name=prompt.nodes[vae.node]["inputs"]["vae_name"])
    client.add(
        prompt,
        "AsyncVAEDecodeSaveFrames",
        samples=samples,
        vae=vae,
        filename_prefix=prefix,
        compression=9,
        writers=1,
        buffer_depth=64,
    )
    gate = late_error(prompt)

    prompt_id = begin(client, server, prompt, prefix)
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert "another branch fails" in (result.error or {})["exception_message"]
    assert len(png_in(server, prefix)) == 21
    check_usable(client, server, models)


def test_a_video_is_whole(client: Client, server: Server, models: Models) -> None:
    prompt, prefix = Prompt(), f"{uuid.uuid4().hex}/a"
    slow_frames(client, prompt, prefix, "AsyncSaveVideo")
    gate = late_error(prompt)

    prompt_id = client.queue(prompt)
    wait_until(lambda: [name for name in server.children().values() if "ffmpeg" in name], "the encoder")
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert "another branch fails" in (result.error or {})["exception_message"]
    assert names_in((server.output / prefix).parent) == ["a_00001_.mp4"]
    assert probe(server.output / f"{prefix}_00001_.mp4").frames == FRAMES
    check_usable(client, server, models)


def test_two_nodes_save_all_of_theirs(client: Client, server: Server, models: Models) -> None:
    prompt, prefixes = Prompt(), [f"{uuid.uuid4().hex}/a" for _ in range(2)]
    for prefix in prefixes:
        slow_frames(client, prompt, prefix)
    gate = late_error(prompt)

    prompt_id = client.queue(prompt)
    wait_until(lambda: all(png_in(server, prefix) for prefix in prefixes), "the first files of both")
    client.open_gate(gate)
    client.wait(prompt_id)

    assert [len(png_in(server, prefix)) for prefix in prefixes] == [FRAMES, FRAMES]
    check_usable(client, server, models)


def test_a_cancel_that_another_node_has_noticed_cuts_short(client: Client, server: Server, models: Models) -> None:
    prompt, prefix = Prompt(), f"{uuid.uuid4().hex}/a"
    slow_frames(client, prompt, prefix)
    late_error(prompt, "interrupt")

    prompt_id = begin(client, server, prompt, prefix)
    client.interrupt(prompt_id)
    result = client.wait(prompt_id)

    assert result.interrupted
    assert 0 < len(png_in(server, prefix)) < FRAMES
    (ended,) = client.events_of("async_vae_decode.ended", prompt=prompt_id)
    assert ended.data["report"]["outcome"] == "cancelled"
    check_usable(client, server, models)


@pytest.mark.parametrize("by_id", [False, True], ids=["whatever runs", "by id"])
def test_a_cancel_after_the_error_cuts_all_short(client: Client, server: Server, models: Models, by_id: bool) -> None:
    prompt, prefixes = Prompt(), [f"{uuid.uuid4().hex}/a" for _ in range(2)]
    for prefix in prefixes:
        slow_frames(client, prompt, prefix)
    gate, start = late_error(prompt), server.log_size()

    prompt_id = client.queue(prompt)
    wait_until(lambda: all(png_in(server, prefix) for prefix in prefixes), "the first files of both")
    client.open_gate(gate)
    client.events.wait("execution_error", prompt_id=prompt_id)
    client.interrupt(prompt_id if by_id else None)
    result = client.wait(prompt_id)

    assert result.error is not None
    assert all(0 < len(png_in(server, prefix)) < FRAMES for prefix in prefixes)
    # It is no error that anybody has to read.
    assert "unhandled exception" not in server.log(start)
    check_usable(client, server, models)
