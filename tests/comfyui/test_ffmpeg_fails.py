"""An ffmpeg that is missing, fails or hangs; and what a node that waits for one lets others do meanwhile."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from async_decode.sinks.ffmpeg import find_ffmpeg
from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_usable, files_of, names_in, report_of, wait_until
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe


@pytest.fixture
def own_client(own_ffmpeg: Server, connect: Callable[[Server], Client]) -> Iterator[Client]:
    """A front end of the server whose ffmpeg the test chooses."""
    client = connect(own_ffmpeg)
    yield client
    client.settle()


def set_ffmpeg(server: Server, script: str | None) -> Path:
    """Make ``script``, without its first line, the server's ffmpeg; ``None``: there is none. Where it is."""
    place = server.base / "ffmpeg"
    place.unlink(missing_ok=True)
    if script is not None:
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)
    return place


def video_prompt(client: Client, models: Models, prefix: str) -> tuple[Prompt, Output]:
    """A prompt that saves 17 frames as a video."""
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 5, 2, 3), models.load(prompt, "wan21")
    return prompt, client.add(
        prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix=prefix, buffer_depth=1
    )


def gate_beside(prompt: Prompt, node: Output, gate: str) -> Output:
    """Add an IMAGE that waits at ``gate``, and is not begun before ``node`` is, which saves the same clip."""
    inputs = prompt.nodes[node.node]["inputs"]
    # Ready when the saving node is, which comes first, because it is an output node.
    images = prompt.add("VAEDecode", samples=inputs["samples"], vae=inputs["vae"])
    return prompt.add("TestGate", anything=images, gate=gate)


def test_a_missing_ffmpeg(own_client: Client, own_ffmpeg: Server, models: Models) -> None:
    place = set_ffmpeg(own_ffmpeg, None)
    prompt, node = video_prompt(own_client, models, "missing/a")

    result = own_client.run(prompt, check=False)

    assert result.error is not None
    assert result.error["node_id"] == node.node
    message = result.error["exception_message"]
    assert f"ffmpeg could not be started: {place}: No such file or directory" in message
    assert "reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE" in message
    assert names_in(own_ffmpeg.output / "missing") == []
    check_usable(own_client, own_ffmpeg, models)


def test_an_ffmpeg_that_fails(own_client: Client, own_ffmpeg: Server, models: Models) -> None:
    set_ffmpeg(own_ffmpeg, "echo 'Unknown encoder libx264' >&2; exit 3")
    prompt, node = video_prompt(own_client, models, "failing/a")

    result = own_client.run(prompt, check=False)

    assert result.error is not None
    assert result.error["node_id"] == node.node
    message = result.error["exception_message"]
    assert "exit status 3" in message
    assert "Unknown encoder libx264" in message
    assert names_in(own_ffmpeg.output / "failing") == []
    check_usable(own_client, own_ffmpeg, models)


@pytest.fixture
def impatient(own_client: Client) -> Iterator[None]:
    """Ten seconds without progress are enough in place of sixty."""
    own_client.post("/probe/patience/10", {})
    yield
    own_client.post("/probe/patience/60", {})


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("name", "fault"),
    [("mkv (FFV1)", "encoder"), ("webp (animated)", "encoder"), ("mkv (FFV1)", "folder"), ("mkv (FFV1)", "hang")],
)
def test_a_stand_in_that_fails_does_not_cost_the_file(
    own_client: Client, own_ffmpeg: Server, models: Models, name: str, fault: str
) -> None:
    temp = own_ffmpeg.temp
    does = {"encoder": 'echo "no stand-in today" >&2; exit 3', "hang": "cat > /dev/null; while :; do sleep 0.1; done"}
    failing = f'case "$*" in *"{temp}"*) {does[fault]};; esac; ' if fault in does else ""
    set_ffmpeg(own_ffmpeg, f'{failing}exec "{find_ffmpeg()}" "$@"')
    if fault == "folder":
        shutil.rmtree(temp, ignore_errors=True)
        temp.write_text("a file where the folder should be")
    prompt = Prompt()
    images = prompt.add("TestImages", shape="17,32,48,3", seed=0, dtype="float32", layout="contiguous")
    node = own_client.add(
        prompt, "AsyncSaveVideo", images=images, filename_prefix=f"spare/{fault}", format=name, quality=0, fps=25.0
    )
    copy = prompt.add("SaveVideo", video=node, filename_prefix="spare/copy", format="auto", codec="auto")
    shutil.rmtree(own_ffmpeg.output / "spare", ignore_errors=True)
    try:
        result = own_client.run(prompt)
    finally:
        if fault == "folder":
            temp.unlink()
            # ComfyUI makes it once, when it starts: stock nodes rely on it.
            temp.mkdir()

    (path,) = files_of(own_ffmpeg, result, node)
    assert path.parent == own_ffmpeg.output / "spare" and "cut-short" not in path.name
    if name.startswith("mkv"):
        assert probe(path).frames == 17
    assert "async_vae_decode_stand_in" not in result.ui(node)
    (warning,) = [text for text in report_of(result, node)["warnings"] if text.startswith("the file is saved, but")]
    # Who takes the VIDEO gets the file; of a format that ComfyUI cannot read, the reason why there is none.
    copied = [name for name in names_in(own_ffmpeg.output / "spare") if name.startswith("copy")]
    blocked = own_client.events_of("execution_error", prompt_id=result.prompt_id)
    if name.startswith("webp"):
        assert not copied
        assert [(event.data["node_id"], warning in event.data["exception_message"]) for event in blocked] == [
            (copy.node, True)
        ]
    else:
        assert copied and not blocked
    said = {
        "encoder": "no stand-in today",
        "folder": "a file is where a folder should be",
        "hang": "it got no further for 10 s, and was ended",
    }
    assert said[fault] in warning
    check_usable(own_client, own_ffmpeg, models)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("by", ["cancel", "failure of another node"])
def test_an_ffmpeg_that_hangs_ends_with_its_prompt(
    own_client: Client, own_ffmpeg: Server, models: Models, by: str
) -> None:
    # Waited for several times, one after the other.
    own_client.post("/probe/patience/4", {})
    # It takes all frames, but never closes its file.
    set_ffmpeg(own_ffmpeg, "cat > /dev/null; while :; do sleep 0.1; done")
    prompt, node = video_prompt(own_client, models, "hanging/a")
    gate = uuid.uuid4().hex
    if by != "cancel":
        prompt.add("TestExplode", message="another node fails", anything=gate_beside(prompt, node, gate))

    prompt_id = own_client.queue(prompt)
    if by == "cancel":
        # All frames are written: the node waits for ffmpeg alone.
        own_client.events.wait("progress", prompt_id=prompt_id, node=node.node, value=17)
        own_client.interrupt(prompt_id)
    else:
        own_client.events.wait("probe.held", gate=gate)
        wait_until(lambda: [name for name in own_ffmpeg.children().values() if "ffmpeg" in name], "ffmpeg was started")
        own_client.open_gate(gate)
    result = own_client.wait(prompt_id)

    if by == "cancel":
        assert result.interrupted
    else:
        assert (result.error or {})["exception_message"].strip() == "another node fails"
    assert names_in(own_ffmpeg.output / "hanging") == []
    check_usable(own_client, own_ffmpeg, models)


def test_other_nodes_run_while_a_video_is_finished(own_client: Client, own_ffmpeg: Server, models: Models) -> None:
    go = own_ffmpeg.base / f"go-{uuid.uuid4().hex}"
    set_ffmpeg(own_ffmpeg, f'while [ ! -e "{go}" ]; do sleep 0.05; done; exec "{find_ffmpeg()}" "$@"')
    prompt, node = video_prompt(own_client, models, "beside/a")
    gate = uuid.uuid4().hex
    kept = prompt.add("TestSaveTensor", images=gate_beside(prompt, node, gate))

    prompt_id = own_client.queue(prompt)
    own_client.events.wait("probe.held", gate=gate)
    wait_until(lambda: [name for name in own_ffmpeg.children().values() if "ffmpeg" in name], "ffmpeg was started")
    own_client.open_gate(gate)
    own_client.events.wait("executed", prompt_id=prompt_id, node=kept.node)
    assert own_client.events_of("executed", prompt_id=prompt_id, node=node.node) == []
    go.touch()
    result = own_client.wait(prompt_id)

    assert result.ok
    (path,) = files_of(own_ffmpeg, result, node)
    assert probe(path).frames == 17
    check_usable(own_client, own_ffmpeg, models)
