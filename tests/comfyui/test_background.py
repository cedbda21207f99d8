"""Files that are finished in the background: while the next prompt runs, after a failure, a cancel, a server's end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.encoders import Encoders
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import (
    check_nothing_left,
    check_usable,
    files_of,
    names_in,
    report_of,
    reports_of,
    wait_until,
)
from tests.comfyui.server import REPOSITORY, Server
from tests.engine.sink_tools import decode, probe

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the encoder that waits is a shell script")

BACKGROUND = {"finish": "in the background"}
SAVED, FAILED = "async_vae_decode.saved", "async_vae_decode.failed"


@pytest.fixture
def encoders(own_ffmpeg: Server) -> Iterator[Encoders]:
    held = Encoders(own_ffmpeg)
    held.stop()
    yield held
    held.go()


@pytest.fixture
def own_client(own_ffmpeg: Server, connect: Callable[[Server], Client]) -> Iterator[Client]:
    client = connect(own_ffmpeg)
    yield client
    client.settle()


def video_prompt(client: Client, models: Models, prefix: str, *, seed: int = 0, **options: object) -> Any:
    """A prompt that saves 17 frames as a video in the background, and its node."""
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 5, 2, 3, seed=seed), models.load(prompt, "wan21")
    options = {"finish": "in the background", "chunk_size": 4, **options}
    node = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix=prefix, **options)
    return prompt, node


def frames_prompt(client: Client, models: Models, prefix: str, *, latents: int = 2, **options: object) -> Any:
    """A prompt that saves a clip as images, and its node."""
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, latents, 2, 3), models.load(prompt, "wan21")
    return prompt, client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix=prefix, **options
    )


def run_of(result: Result, node: Output) -> str:
    """The id of a node's run."""
    return str(report_of(result, node)["run"])


def wait_for_end(server: Server) -> None:
    """Wait until nothing of a run in the background is left, of which an event has told that it is over."""
    wait_until(lambda: not [name for name in server.threads() if "background" in name], "the end of the run's thread")


def state_of(client: Client, run: str) -> str:
    """What the server says of a run."""
    return str(client.get(f"/async_vae_decode/runs/{run}")["state"])


def test_the_next_prompt_runs_while_a_file_is_finished(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    prompt, node = video_prompt(own_client, models, "background/a")
    result = own_client.run(prompt)

    # The prompt is over, and its file is not.
    report = report_of(result, node)
    run = run_of(result, node)
    assert report["finishing"] is True
    assert [file["filename"] for file in result.ui(node)["images"]] == ["a_00001_.mp4"]
    assert names_in(own_ffmpeg.output / "background") == ["a_00001_.mp4.part"]
    assert state_of(own_client, run) == "saving"
    following, frames = frames_prompt(own_client, models, "background/next")
    assert len(files_of(own_ffmpeg, own_client.run(following), frames)) == 5
    assert state_of(own_client, run) == "saving"

    encoders.go()
    told = own_client.events.wait(SAVED, run=run).data

    assert told["prompt"] == result.prompt_id and told["node"] == node.node
    assert told["output"]["images"] == result.ui(node)["images"]
    (final,) = reports_of(told["output"])
    assert (final["outcome"], final["finishing"], final["run"]) == ("completed", False, run)
    assert state_of(own_client, run) == "completed"
    (path,) = files_of(own_ffmpeg, result, node)
    # Frame for frame what the node would have saved otherwise.
    beside, other = video_prompt(own_client, models, "background/b", finish="with the node")
    (wanted,) = files_of(own_ffmpeg, own_client.run(beside), other)
    assert probe(path).frames == 17
    assert (decode(path, "rgb24", (24, 16), 3) == decode(wanted, "rgb24", (24, 16), 3)).all()
    wait_for_end(own_ffmpeg)
    check_nothing_left(own_ffmpeg)


def test_images_are_named_from_the_start(client: Client, server: Server, models: Models) -> None:
    prompt, node = frames_prompt(client, models, "background/frames", latents=5, finish="in the background")

    result = client.run(prompt)

    names = [file["filename"] for file in result.ui(node)["images"]]
    assert names == [f"frames_{number:05}_.png" for number in range(1, 18)]
    told = client.events.wait(SAVED, run=run_of(result, node)).data
    assert told["output"]["images"] == result.ui(node)["images"]
    assert all(path.is_file() for path in files_of(server, result, node))


def test_frames_that_are_there_already(client: Client, server: Server) -> None:
    prompt = Prompt()
    images = prompt.add("TestImages", shape="9,16,24,3", seed=1, dtype="float32", layout="contiguous")
    node = client.add(
        prompt, "AsyncSaveVideo", images=images, filename_prefix="background/given", finish="in the background"
    )

    result = client.run(prompt)

    client.events.wait(SAVED, run=run_of(result, node))
    (path,) = files_of(server, result, node)
    assert probe(path).frames == 9


def test_a_run_whose_files_are_whole_before_the_node_returns_is_told_too(client: Client, server: Server) -> None:
    prompt, gate = Prompt(), uuid.uuid4().hex
    images = prompt.add("TestImages", shape="9,16,24,3", seed=2, dtype="float32", layout="contiguous")
    node = client.add(prompt, "AsyncSaveFrames", images=images, filename_prefix="background/early/a", **BACKGROUND)
    # It begins when the saving node waits, and holds up what would let that return.
    prompt.add("PreviewAny", source=prompt.add("TestGate", anything=images, gate=gate))
    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    wait_until(lambda: len(names_in(server.output / "background/early")) == 9, "the files")
    wait_until(lambda: not [name for name in server.threads() if name.startswith("async-decode")], "the run's end")

    client.open_gate(gate)
    result = client.wait(prompt_id)

    client.events.wait(SAVED, run=run_of(result, node))
    assert len(files_of(server, result, node)) == 9


def test_a_third_run_waits_for_the_first(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    prompts = [video_prompt(own_client, models, f"third/{seed}", seed=seed) for seed in range(3)]
    first, second = (own_client.run(prompt) for prompt, _ in prompts[:2])
    third_id = own_client.queue(prompts[2][0])
    own_client.events.wait("executing", node=prompts[2][1].node, prompt_id=third_id)
    assert names_in(own_ffmpeg.output / "third") == ["0_00001_.mp4.part", "1_00001_.mp4.part"]

    encoders.go()
    third = own_client.wait(third_id)

    assert third.ok
    for result, (_, node) in zip((first, second, third), prompts, strict=True):
        own_client.events.wait(SAVED, run=run_of(result, node))
        assert probe(files_of(own_ffmpeg, result, node)[0]).frames == 17
    (note,) = [text for text in report_of(third, prompts[2][1])["warnings"] if "in the background" in text]
    assert note.startswith("waited ")


def test_a_failure_after_the_prompts_success_is_told(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    prompt, node = video_prompt(own_client, models, "failed/a")
    result = own_client.run(prompt)
    start = own_ffmpeg.log_size()

    encoders.kill()
    told = own_client.events.wait(FAILED, run=run_of(result, node)).data

    assert told["state"] == "failed" and "ffmpeg" in told["message"]
    assert state_of(own_client, run_of(result, node)) == "failed"
    assert "saving in the background has failed" in own_ffmpeg.log(start)
    # There was not one frame in the file.
    assert names_in(own_ffmpeg.output / "failed") == []
    encoders.go()
    wait_for_end(own_ffmpeg)
    check_usable(own_client, own_ffmpeg, models)


def test_a_disk_that_is_full_after_the_prompts_success(
    client: Client, server: Server, models: Models, small_disk: Path
) -> None:
    # Less room than the video takes, which is lossless.
    (small_disk / "filler").write_bytes(bytes(2**20 - 40 * 2**13))
    prompt = Prompt()
    images = prompt.add("TestImages", shape="97,64,64,3", seed=3, dtype="float32", layout="contiguous")
    prefix = f"{small_disk.name}/a"
    node = client.add(prompt, "AsyncSaveVideo", images=images, filename_prefix=prefix, quality=0, **BACKGROUND)
    result = client.run(prompt, check=False)

    if result.ok:
        run = run_of(result, node)
        told = client.events.wait(FAILED, run=run).data
        message = told["message"]
        assert state_of(client, run) == "failed"
    else:
        # The encoder was as fast as the decoder.
        message = (result.error or {})["exception_message"]
    assert "No space left on device" in message, message
    left = [name for name in names_in(small_disk) if name != "filler"]
    assert left == [] or left == ["a_00001_cut-short.mp4"]
    if left:
        said = re.search(r"The first (\d+) frames are in", message)
        # A packet that is there in part may give one more.
        assert said and probe(small_disk / left[0]).frames - int(said[1]) in (0, 1)
    check_usable(client, server, models)


def test_encoders_that_hang_are_cut_short_and_make_room(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    encoders.go()
    encoders.hang(taken=9 * 24 * 16 * 3)
    own_client.post("/probe/patience/3", {})
    hanging = [video_prompt(own_client, models, f"hung/{seed}", seed=seed) for seed in range(2)]
    results = [own_client.run(prompt) for prompt, _ in hanging]
    own_client.post("/probe/patience/60", {})
    encoders.go()
    prompt, node = video_prompt(own_client, models, "hung/2", seed=2)

    third = own_client.run(prompt)

    own_client.events.wait(SAVED, run=run_of(third, node))
    assert probe(files_of(own_ffmpeg, third, node)[0]).frames == 17
    for seed, (result, (_, hung)) in enumerate(zip(results, hanging, strict=True)):
        told = own_client.events.wait(FAILED, run=run_of(result, hung)).data
        assert told["state"] == "failed" and state_of(own_client, run_of(result, hung)) == "failed"
        left = own_ffmpeg.output / "hung" / f"{seed}_00001_cut-short.mp4"
        assert told["message"].startswith("it got no further for 3 s, and was ended")
        assert str(left) in told["message"]
        assert probe(left).frames == 9
    assert names_in(own_ffmpeg.output / "hung") == [
        "0_00001_cut-short.mp4",
        "1_00001_cut-short.mp4",
        "2_00001_.mp4",
    ]
    wait_for_end(own_ffmpeg)
    check_usable(own_client, own_ffmpeg, models)


def test_frames_that_are_there_already_are_cut_short_too(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders
) -> None:
    encoders.go()
    encoders.hang(taken=5 * 24 * 16 * 3)
    own_client.post("/probe/patience/3", {})
    prompt = Prompt()
    images = prompt.add("TestImages", shape="9,16,24,3", seed=4, dtype="float32", layout="contiguous")
    node = own_client.add(prompt, "AsyncSaveVideo", images=images, filename_prefix="hung/given", **BACKGROUND)
    result = own_client.run(prompt)
    own_client.post("/probe/patience/60", {})

    told = own_client.events.wait(FAILED, run=run_of(result, node)).data

    assert told["message"].startswith("it got no further for 3 s, and was ended")
    assert probe(own_ffmpeg.output / "hung" / "given_00001_cut-short.mp4").frames == 5
    wait_for_end(own_ffmpeg)


def test_an_interrupt_ends_the_prompt_that_runs_and_not_the_file_of_another(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    prompt, node = video_prompt(own_client, models, "interrupted/a")
    result = own_client.run(prompt)
    blocked = Prompt()
    gate = blocked.add("TestGate", anything=random_latent(blocked, 1, 16, 1, 2, 3), gate="never")
    blocked.add("PreviewAny", source=gate)
    blocked_id = own_client.queue(blocked)
    own_client.events.wait("probe.held", gate="never")

    own_client.interrupt(blocked_id)
    assert own_client.wait(blocked_id).interrupted
    encoders.go()

    own_client.events.wait(SAVED, run=run_of(result, node))
    assert probe(files_of(own_ffmpeg, result, node)[0]).frames == 17


def test_a_run_in_the_background_can_be_cut_short(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    prompt, node = video_prompt(own_client, models, "cut/a")
    result = own_client.run(prompt)
    run = run_of(result, node)

    answer = own_client.post("/async_vae_decode/runs/cancel", {"run": run})

    assert answer == {"cancelled": 1}
    told = own_client.events.wait(FAILED, run=run).data
    assert (told["state"], told["message"]) == ("cancelled", "the user cancelled it")
    assert state_of(own_client, run) == "cancelled"
    assert own_client.post("/async_vae_decode/runs/cancel", {"run": None}) == {"cancelled": 0}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "killed"])
def test_the_example_client_waits_for_the_file(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models, tmp_path: Path, whole: bool
) -> None:
    prompt, _ = video_prompt(own_client, models, "fetched/a", seed=int(whole))
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(prompt.as_sent()), "utf-8")
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "example_workflows" / "api" / "client.py"), str(workflow)]
    with subprocess.Popen(
        [*command, "--server", own_ffmpeg.url, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as ran:
        # The prompt is over, and the client has been told so.
        run = own_client.events.wait("async_vae_decode.started").data["run"]
        wait_until(lambda: state_of(own_client, run) == "saving", "the end of decoding")
        wait_until(lambda: not own_client.get("/queue")["queue_running"], "the end of the prompt")
        if whole:
            encoders.go()
        else:
            encoders.kill()
        told, error = ran.communicate(timeout=120)

    if whole:
        assert ran.returncode == 0, error
        (path,) = (tmp_path / "out").iterdir()
        assert probe(path).frames == 17
        assert "17 frames" in told and str(path) in told
    else:
        assert ran.returncode == 1
        assert "saving in the background has failed: ffmpeg" in error and "Traceback" not in error
        assert not (tmp_path / "out").exists()


def test_a_node_that_reads_the_video_waits_for_it(
    own_client: Client, own_ffmpeg: Server, encoders: Encoders, models: Models
) -> None:
    prompt, node = video_prompt(own_client, models, "read/a")
    again = prompt.add("SaveVideo", video=node, filename_prefix="read/again", format="auto", codec="auto")
    prompt_id = own_client.queue(prompt)
    own_client.events.wait("executing", node=again.node, prompt_id=prompt_id)

    encoders.go()
    result = own_client.wait(prompt_id)

    assert result.ok
    assert probe(files_of(own_ffmpeg, result, again)[0]).frames == 17


@pytest.fixture
def doomed(start_server: Callable[..., Server], tmp_path: Path) -> Iterator[tuple[Server, Encoders]]:
    """A server that the test ends, and its encoders."""
    server = start_server(env={"IMAGEIO_FFMPEG_EXE": str(tmp_path / "ffmpeg")})
    (tmp_path / "ffmpeg").symlink_to(server.base / "ffmpeg")
    encoders = Encoders(server)
    yield server, encoders
    encoders.go()


ENDS: dict[str, Callable[[Server, Client], object]] = {
    "Ctrl-C": lambda server, _: os.kill(server.pid, signal.SIGINT),
    "SIGTERM": lambda server, _: os.kill(server.pid, signal.SIGTERM),
    "restart": lambda _, client: client.post("/probe/exec", {}),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_servers_end_lets_a_file_be_finished(
    doomed: tuple[Server, Encoders], connect: Callable[[Server], Client], models: Models, end: str
) -> None:
    server, encoders = doomed
    encoders.stop()
    client = connect(server)
    prompt, _ = video_prompt(client, models, "end/a")
    client.run(prompt)
    start = server.log_size()

    ENDS[end](server, client)
    wait_until(lambda: "in the background have" in server.log(start), "the server's end")
    encoders.go()

    wait_until(lambda: not server.running, "the end of the process")
    assert names_in(server.output / "end") == ["a_00001_.mp4"]
    assert probe(server.output / "end" / "a_00001_.mp4").frames == 17


@pytest.mark.parametrize("end", ENDS)
def test_the_servers_end_cuts_short_what_takes_too_long(
    doomed: tuple[Server, Encoders], connect: Callable[[Server], Client], models: Models, end: str
) -> None:
    server, encoders = doomed
    encoders.hang(taken=9 * 24 * 16 * 3)
    client = connect(server)
    client.post("/probe/grace/1", {})
    prompt, _ = video_prompt(client, models, "end/a")
    client.run(prompt)

    ENDS[end](server, client)

    wait_until(lambda: not server.running, "the end of the process")
    assert names_in(server.output / "end") == ["a_00001_cut-short.mp4"]
    assert probe(server.output / "end" / "a_00001_cut-short.mp4").frames == 9
