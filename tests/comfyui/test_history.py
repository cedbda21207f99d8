"""What the history holds of a node: its files and nothing else, where API clients and Assets look for them."""

from __future__ import annotations

import urllib.error
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.outputs import files_of, names_in, report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe

FRAMES = 5
#: Formats by name: the codec of the saved file, and whether browsers play it.
FORMATS = {
    "mp4 (H.264)": ("h264", True),
    "mp4 (H.264 4:4:4)": ("h264", False),
    "mp4 (H.265)": ("hevc", False),
    "webm (VP9)": ("vp9", True),
    "mov (ProRes 422 HQ)": ("prores", False),
    "mkv (FFV1)": ("ffv1", False),
}


def saved(client: Client, node_type: str, **options: Any) -> tuple[Result, Output]:
    """Run one of the nodes that save frames."""
    prompt = Prompt()
    images = prompt.add("TestImages", shape=f"{FRAMES},32,48,3", seed=0, dtype="float32", layout="contiguous")
    node = client.add(prompt, node_type, images=images, filename_prefix=f"history/{node_type}", **options)
    return client.run(prompt), node


def job(client: Client, result: Result) -> dict[str, Any]:
    """The prompt as Assets list it; skips where the core has no such list."""
    try:
        return dict(client.get(f"/api/jobs/{result.prompt_id}"))
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        pytest.skip("this ComfyUI has no list of jobs")


@pytest.mark.parametrize("name", FORMATS)
def test_the_saved_video_is_listed_whatever_plays_it(client: Client, server: Server, name: str) -> None:
    codec, plays = FORMATS[name]
    quality = {"mp4 (H.265)": 28, "webm (VP9)": 31}.get(name, 23)
    before = names_in(server.temp)

    result, node = saved(client, "AsyncSaveVideo", format=name, quality=quality, fps=25.0)

    (entry,) = result.ui(node)["images"]
    assert entry["type"] == "output"
    (path,) = files_of(server, result, node)
    assert client.view(entry) == path.read_bytes()
    found = probe(path)
    assert (found.codec, found.frames) == (codec, FRAMES)
    stand_ins = result.ui(node).get("async_vae_decode_stand_in", [])
    made = [name for name in names_in(server.temp) if name not in before]
    assert stand_ins == ([] if plays else made)
    for stand_in in stand_ins:
        found = probe(server.temp / stand_in)
        assert (found.codec, found.frames) == ("h264", FRAMES)


@pytest.mark.parametrize("name", ["mp4 (H.264)", "mkv (FFV1)"])
def test_a_video_counts_once(client: Client, name: str) -> None:
    result, node = saved(client, "AsyncSaveVideo", format=name)

    listed = job(client, result)

    assert listed["outputs_count"] == 1
    assert {key: listed["preview_output"][key] for key in ("type", "filename")} == {
        "type": "output",
        "filename": result.ui(node)["images"][0]["filename"],
    }


def test_frames_count_once_each(client: Client) -> None:
    result, node = saved(client, "AsyncSaveFrames")

    assert job(client, result)["outputs_count"] == FRAMES
    assert report_of(result, node)["frames"] == FRAMES
