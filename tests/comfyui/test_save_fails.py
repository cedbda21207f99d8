"""Files that cannot be written: one error that names the file and the remedy, and the next prompt runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.comfyui.client import Client, Output, Prompt, PromptRejected
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable, names_in
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe
from tests.engine.test_video_unpublished import unwritable

SAVING = ["AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo"]


def error_of(client: Client, prompt: Prompt, node: Output) -> str:
    """Run ``prompt``, which must fail at ``node``; what the node's error box and the history say."""
    prompt_id = client.queue(prompt)
    result = client.wait(prompt_id)
    assert result.error is not None
    assert result.error["node_id"] == node.node
    (event,) = client.events_of("execution_error", prompt_id=prompt_id)
    assert event.data["exception_message"] == result.error["exception_message"]
    return str(result.error["exception_message"])


def saving(client: Client, models: Models, node_type: str, prefix: str, **options: object) -> tuple[Prompt, Output]:
    """A prompt that saves 49 frames."""
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 13, 4, 6), models.load(prompt, "wan21")
    return prompt, client.add(prompt, node_type, samples=samples, vae=vae, filename_prefix=prefix, **options)


def held(client: Client, prompt: Prompt, node: Output) -> tuple[str, str]:
    """Queue a prompt that decodes, and wait until it has begun to; its id, and the gate that it waits at."""
    gate = uuid.uuid4().hex
    armed = prompt.add(
        "TestDecoderStep", vae=prompt.nodes[node.node]["inputs"]["vae"], step=4, action="hold", gate=gate
    )
    prompt.nodes[node.node]["inputs"]["vae"] = armed
    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    return prompt_id, gate


def test_a_killed_ffmpeg(client: Client, server: Server, models: Models) -> None:
    prompt, node = saving(client, models, "AsyncVAEDecodeSaveVideo", "killed/a")

    prompt_id, gate = held(client, prompt, node)
    (ffmpeg,) = [pid for pid, name in server.children().items() if "ffmpeg" in name]
    os.kill(ffmpeg, signal.SIGKILL)
    client.open_gate(gate)
    result = client.wait(prompt_id)

    assert result.error is not None
    assert result.error["node_id"] == node.node
    assert re.search(r"ffmpeg .*killed by SIGKILL.*try again", result.error["exception_message"], re.DOTALL)
    assert names_in(server.output / "killed") == []
    check_usable(client, server, models)


@pytest.mark.parametrize("node_type", SAVING)
def test_a_full_disk(client: Client, server: Server, models: Models, small_disk: Path, node_type: str) -> None:
    # Frames of 4 or 5 KiB: some fit in beside this file, not all; nor does the video, which is lossless.
    (small_disk / "filler").write_bytes(bytes(2**20 - 6 * 2**13))
    options = {"quality": 0} if node_type == "AsyncVAEDecodeSaveVideo" else {}
    prompt, node = saving(client, models, node_type, f"{small_disk.name}/a", **options)

    message = error_of(client, prompt, node)

    assert "No space left on device" in message
    assert re.search(r"[Ff]ree some space, or choose another folder", message)
    left = [name for name in names_in(small_disk) if name != "filler"]
    if node_type == "AsyncVAEDecodeSaveFrames":
        assert str(small_disk) in message
        assert 1 <= len(left) < 49
        for name in left:
            with Image.open(small_disk / name) as image:
                image.load()
    else:
        assert left == [] or (left == ["a_00001_cut-short.mp4"] and "frames are in" in message)
    check_usable(client, server, models)


@pytest.mark.parametrize("node_type", SAVING)
@pytest.mark.parametrize("prefix", ["../outside/a", "/nowhere/a", "sub/../../a"])
def test_a_prefix_that_leads_out_of_the_output_folder(
    client: Client, server: Server, models: Models, node_type: str, prefix: str
) -> None:
    prompt, node = saving(client, models, node_type, prefix)

    with pytest.raises(PromptRejected) as refused:
        client.queue(prompt)

    (error,) = refused.value.node_errors[node.node]["errors"]
    assert f"filename_prefix {prefix!r} leads out of the output folder" in error["details"]
    assert "use a name, or a subfolder inside it" in error["details"]
    assert not (server.base / "outside").exists()
    check_usable(client, server, models)


@pytest.mark.parametrize("node_type", SAVING)
def test_a_file_where_a_folder_should_be(client: Client, server: Server, models: Models, node_type: str) -> None:
    (server.output / "a file").write_bytes(b"")
    prompt, node = saving(client, models, node_type, "a file/a")

    message = error_of(client, prompt, node)

    assert "filename_prefix 'a file/a'" in message
    assert "choose another prefix" in message
    check_usable(client, server, models)


def test_a_folder_that_becomes_unwritable_while_it_decodes(client: Client, server: Server, models: Models) -> None:
    prompt, node = saving(client, models, "AsyncVAEDecodeSaveVideo", "locked/a", fps=24.0)
    prompt.nodes[node.node]["inputs"]["audio"] = prompt.add("TestSound", shape="1,2,48000", rate=48_000, kind="tone")
    folder = server.output / "locked"

    prompt_id, gate = held(client, prompt, node)
    with unwritable(folder):
        client.open_gate(gate)
        result = client.wait(prompt_id)

    (left,) = folder.iterdir()
    assert result.error is not None and result.error["node_id"] == node.node
    message = result.error["exception_message"]
    assert f"choose another folder, or get the right to write there; what was made stays as {left}" in message
    assert "Of that file: the sound was left out; the video stays in fragments" in message
    assert probe(left).frames == 49
    left.unlink()
    check_usable(client, server, models)


@pytest.fixture
def read_only(server: Server) -> Iterator[Path]:
    """A folder in the output folder that cannot be written to, not even by root; skips where none may be made."""
    folder = server.output / "read only"
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no read-only folder without the right to mount one: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@pytest.mark.parametrize("node_type", SAVING)
def test_a_folder_that_cannot_be_written_to(
    client: Client, server: Server, models: Models, read_only: Path, node_type: str
) -> None:
    prompt, node = saving(client, models, node_type, f"{read_only.name}/a")

    message = error_of(client, prompt, node)

    assert "filename_prefix 'read only/a'" in message
    assert str(read_only) in message
    assert "cannot be written to; choose another prefix" in message
    # A run that could not begin is over, too.
    assert not [run for run in client.get("/async_vae_decode/runs") if run["running"]]
    check_usable(client, server, models)
