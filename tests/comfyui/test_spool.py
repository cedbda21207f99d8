"""Frames that wait on disk for a slow encoder: the node is done before it, and the file is the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt
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
from tests.comfyui.server import Server
from tests.engine.sink_tools import decode, probe

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the encoder that waits is a shell script"),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at the server's open files"),
]

SAVED, FAILED = "async_vae_decode.saved", "async_vae_decode.failed"
#: More than the pipe to an encoder holds.
FRAMES, WIDTH, HEIGHT = 33, 192, 128
FRAME_BYTES = WIDTH * HEIGHT * 3
SPOOL = {"finish": "in the background", "spool_gb": 1.5, "chunk_size": 2, "buffer_depth": 2}


@pytest.fixture
def little(start_server: Callable[..., Server], tmp_path: Path, connect: Callable[[Server], Client]) -> Iterator[Any]:
    """A server with little memory for frames that wait, its client, and its encoders, which stand still."""
    server = start_server(env={"IMAGEIO_FFMPEG_EXE": str(tmp_path / "ffmpeg")})
    (tmp_path / "ffmpeg").symlink_to(server.base / "ffmpeg")
    encoders = Encoders(server)
    encoders.stop()
    client = connect(server)
    client.post("/probe/memory/0", {})
    yield server, client, encoders
    encoders.go()
    if server.running:
        client.settle()


def video_prompt(client: Client, prefix: str, **options: object) -> tuple[Prompt, Output]:
    """A prompt that saves frames in the background, with a spool, and its node."""
    prompt = Prompt()
    shape = f"{FRAMES},{HEIGHT},{WIDTH},3"
    images = prompt.add("TestImages", shape=shape, seed=1, dtype="float32", layout="contiguous")
    return prompt, client.add(prompt, "AsyncSaveVideo", images=images, filename_prefix=prefix, **{**SPOOL, **options})


def on_disk(server: Server) -> list[str]:
    """Files without a name that the server has in its output folder."""
    found = []
    for number in os.listdir(f"/proc/{server.pid}/fd"):
        try:
            target = os.readlink(f"/proc/{server.pid}/fd/{number}")
        except OSError:
            continue
        if target.startswith(str(server.output)) and "deleted" in target:
            found.append(target)
    return found


@pytest.mark.parametrize("decodes", [True, False], ids=["decodes", "saves"])
def test_the_node_is_done_before_a_slow_encoder_and_the_file_is_the_same(
    little: Any, models: Models, decodes: bool
) -> None:
    server, client, encoders = little

    def prompt_for(prefix: str, **options: object) -> tuple[Prompt, Output]:
        if not decodes:
            return video_prompt(client, prefix, **options)
        prompt = Prompt()
        samples, vae = random_latent(prompt, 1, 16, 9, HEIGHT // 8, WIDTH // 8), models.load(prompt, "wan21")
        given = {"samples": samples, "vae": vae, "filename_prefix": prefix, **SPOOL, **options}
        return prompt, client.add(prompt, "AsyncVAEDecodeSaveVideo", **given)

    prompt, node = prompt_for("spool/a")

    result = client.run(prompt)

    # The encoder has not begun.
    report = report_of(result, node)
    assert report["finishing"] is True
    assert report["frames"] == FRAMES and report["written"] < FRAMES // 2
    assert names_in(server.output / "spool") == ["a_00001_.mp4.part"]
    assert on_disk(server)
    state = client.get(f"/async_vae_decode/runs/{report['run']}")
    assert state["state"] == "saving" and state["written"] < FRAMES // 2

    encoders.go()
    told = client.events.wait(SAVED, run=report["run"]).data

    (final,) = reports_of(told["output"])
    assert (final["outcome"], final["written"]) == ("completed", FRAMES)
    assert FRAMES // 2 < final["spooled"]["frames"] < FRAMES
    assert final["spooled"]["bytes"] == final["spooled"]["frames"] * FRAME_BYTES
    assert final["stall_seconds"] < final["spooled"]["ahead_seconds"]
    assert not [warning for warning in final["warnings"] if "spool" in warning]
    (path,) = files_of(server, result, node)
    beside, other = prompt_for("spool/b", finish="with the node", spool_gb=0)
    (wanted,) = files_of(server, client.run(beside), other)
    assert probe(path).frames == FRAMES
    assert (decode(path, "rgb24", (WIDTH, HEIGHT), 3) == decode(wanted, "rgb24", (WIDTH, HEIGHT), 3)).all()
    assert on_disk(server) == []
    check_nothing_left(server)


def test_a_spool_that_is_too_small_lets_the_decoder_wait(little: Any, models: Models) -> None:
    server, client, encoders = little
    prompt, node = video_prompt(client, "small/a", spool_gb=8 * FRAME_BYTES / 1e9)
    prompt_id = client.queue(prompt)
    # The decoder stands still, and the prompt with it.
    run = client.events.wait("async_vae_decode.started").data["run"]
    received = f"/async_vae_decode/runs/{run}"
    wait_until(lambda: client.get(received)["received"] >= 12, "the frames that have room")
    assert client.get("/queue")["queue_running"]

    encoders.go()
    result = client.wait(prompt_id)

    (final,) = reports_of(client.events.wait(SAVED, run=run).data["output"])
    assert final["spooled"]["most_bytes"] <= 8 * FRAME_BYTES
    (note,) = [warning for warning in final["warnings"] if "spool" in warning]
    assert note.startswith("the spool was full")
    assert probe(files_of(server, result, node)[0]).frames == FRAMES


def test_an_encoder_that_is_killed_ends_the_run_as_without_a_spool(little: Any, models: Models) -> None:
    server, client, encoders = little
    prompt, node = video_prompt(client, "killed/a")
    result = client.run(prompt)
    assert on_disk(server)

    encoders.kill()

    told = client.events.wait(FAILED, run=report_of(result, node)["run"]).data
    assert told["state"] == "failed" and "ffmpeg" in told["message"]
    assert names_in(server.output / "killed") == []
    wait_until(lambda: not on_disk(server), "the end of the spool")
    encoders.go()
    check_usable(client, server, models)


def test_an_encoder_that_hangs_is_cut_short_and_the_spool_goes(little: Any, models: Models) -> None:
    server, client, encoders = little
    encoders.go()
    encoders.hang(taken=9 * FRAME_BYTES)
    encoders.stop()
    client.post("/probe/patience/3", {})
    prompt, node = video_prompt(client, "hung/a")
    result = client.run(prompt)

    told = client.events.wait(FAILED, run=report_of(result, node)["run"]).data

    # It takes the rest, so that it is the end that it never comes to.
    assert told["message"].startswith("it got no further for 3 s, and was ended")
    left = server.output / "hung" / "a_00001_cut-short.mp4"
    assert names_in(server.output / "hung") == [left.name]
    assert probe(left).frames == 9
    wait_until(lambda: not on_disk(server), "the end of the spool")


@pytest.mark.parametrize("finish", ["with the node", "in the background"])
def test_a_cancel_drops_what_waits(little: Any, models: Models, finish: str) -> None:
    server, client, _ = little
    prompt, _ = video_prompt(client, "cancelled/a", finish=finish)
    prompt_id = client.queue(prompt)
    run = client.events.wait("async_vae_decode.started").data["run"]
    wait_until(lambda: client.get(f"/async_vae_decode/runs/{run}")["received"] == FRAMES, "the end of decoding")
    wait_until(lambda: bool(on_disk(server)), "the spool")

    if finish == "with the node":
        client.interrupt(prompt_id)
        assert client.wait(prompt_id).interrupted
    else:
        assert client.wait(prompt_id).ok
        assert client.post("/async_vae_decode/runs/cancel", {"run": run}) == {"cancelled": 1}
        assert client.events.wait(FAILED, run=run).data["state"] == "cancelled"

    assert names_in(server.output / "cancelled") == []
    wait_until(lambda: not on_disk(server), "the end of the spool")
    check_nothing_left(server)


def test_the_servers_end_lets_frames_on_disk_be_saved(little: Any, models: Models) -> None:
    server, client, encoders = little
    prompt, _ = video_prompt(client, "end/a")
    client.run(prompt)
    start = server.log_size()

    os.kill(server.pid, signal.SIGINT)
    wait_until(lambda: "in the background have" in server.log(start), "the server's end")
    encoders.go()

    wait_until(lambda: not server.running, "the end of the process")
    assert names_in(server.output / "end") == ["a_00001_.mp4"]
    assert probe(server.output / "end" / "a_00001_.mp4").frames == FRAMES


def test_the_servers_end_cuts_short_what_takes_too_long(little: Any, models: Models) -> None:
    server, client, encoders = little
    encoders.go()
    encoders.hang(taken=9 * FRAME_BYTES)
    client.post("/probe/grace/1", {})
    prompt, _ = video_prompt(client, "end/a")
    client.run(prompt)

    os.kill(server.pid, signal.SIGINT)

    wait_until(lambda: not server.running, "the end of the process")
    assert names_in(server.output / "end") == ["a_00001_cut-short.mp4"]
    assert probe(server.output / "end" / "a_00001_cut-short.mp4").frames == 9


def test_a_server_that_is_killed_leaves_no_frames_on_disk(little: Any, models: Models) -> None:
    server, client, encoders = little
    prompt, _ = video_prompt(client, "killed/a")
    client.run(prompt)
    assert on_disk(server)

    os.kill(server.pid, signal.SIGKILL)

    wait_until(lambda: not server.running, "the end of the process")
    encoders.go()
    assert names_in(server.output / "killed") == ["a_00001_.mp4.part"]


def test_images_have_their_names_before_they_are_made(little: Any, models: Models) -> None:
    server, client, encoders = little
    encoders.go()
    prompt = Prompt()
    shape = f"{FRAMES},{HEIGHT},{WIDTH},3"
    images = prompt.add("TestImages", shape=shape, seed=1, dtype="float32", layout="contiguous")
    given = {"images": images, "filename_prefix": "frames/a", "compression": 9, "writers": 1, **SPOOL}
    node = client.add(prompt, "AsyncSaveFrames", **given)

    result = client.run(prompt)

    names = [file["filename"] for file in result.ui(node)["images"]]
    assert names == [f"a_{number:05}_.png" for number in range(1, FRAMES + 1)]
    told = client.events.wait(SAVED, run=report_of(result, node)["run"]).data
    assert [file["filename"] for file in told["output"]["images"]] == names
    assert names_in(server.output / "frames") == names
