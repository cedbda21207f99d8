"""Async Save Frames in a real server: the files of Save Image, from an IMAGE of any type and layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.comfyui.client import Client, Output, Prompt, PromptFailed, Result
from tests.comfyui.outputs import report_of
from tests.comfyui.server import Server

WORKFLOW = {"nodes": [{"id": 1, "title": "é 漢"}], "version": 0.4}
OPTIONS: dict[str, Any] = {
    "chunk_size": 2,
    "buffer_depth": 3,
    "format": "png",
    "compression": 4,
    "quality": 95,
    "input_color_space": "sRGB",
    "writers": 2,
}


def images(prompt: Prompt, shape: str, *, dtype: str = "float32", layout: str = "contiguous") -> Output:
    return prompt.add("TestImages", shape=shape, seed=3, dtype=dtype, layout=layout)


def save(prompt: Prompt, source: Output, prefix: str, **options: Any) -> Output:
    return prompt.add("AsyncSaveFrames", images=source, filename_prefix=prefix, **{**OPTIONS, **options})


def files(server: Server, result: Result, node: Output) -> list[Path]:
    """The files that a node names in its ``ui``, in that order; they must all be there."""
    named = [server.output / entry["subfolder"] / entry["filename"] for entry in result.ui(node)["images"]]
    assert all(path.is_file() for path in named)
    return named


@pytest.mark.parametrize(
    ("shape", "dtype", "layout"),
    [
        ("7,33,47,3", "float32", "contiguous"),
        ("5,32,48,4", "float32", "every_other"),
        ("5,33,47,3", "float16", "channels_first"),
        ("3,33,47,3", "float64", "contiguous"),
    ],
)
def test_files_are_those_of_save_image(server: Server, client: Client, shape: str, dtype: str, layout: str) -> None:
    prompt = Prompt()
    source = images(prompt, shape, dtype=dtype, layout=layout)
    prefix = f"same/{dtype}-{layout}"
    ours = save(prompt, source, f"{prefix}/ours")
    stock = prompt.add("SaveImage", images=source, filename_prefix=f"{prefix}/stock")

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    frames = int(shape.split(",")[0])
    saved, wanted = files(server, result, ours), files(server, result, stock)
    assert [path.name for path in saved] == [f"ours_{number:05}_.png" for number in range(1, frames + 1)]
    assert [path.read_bytes() for path in saved] == [path.read_bytes() for path in wanted]
    assert sorted(path.name for path in saved[0].parent.iterdir()) == sorted(p.name for p in [*saved, *wanted])


def test_images_that_save_image_cannot_save(server: Server, client: Client) -> None:
    prompt = Prompt()
    grey = images(prompt, "3,17,19,1")
    coarse = images(prompt, "3,17,19,3", dtype="bfloat16")
    nodes = save(prompt, grey, "more/grey"), save(prompt, coarse, "more/bfloat16")
    tensors = prompt.add("TestSaveTensor", images=grey), prompt.add("TestSaveTensor", images=coarse)

    result = client.run(prompt)

    for node, kept, mode in zip(nodes, tensors, ("L", "RGB"), strict=True):
        wanted = (client.tensor(result, kept).float() * 255).clamp(0, 255).to(torch.uint8)
        for path, frame in zip(files(server, result, node), wanted, strict=True):
            with Image.open(path) as image:
                assert image.mode == mode
                assert image.tobytes() == frame.numpy().tobytes()


def test_images_are_passed_on_as_they_came(server: Server, client: Client) -> None:
    prompt = Prompt()
    source = images(prompt, "3,17,19,3", dtype="float16")
    out = save(prompt, source, "through/a")
    kept, wanted = prompt.add("TestSaveTensor", images=out), prompt.add("TestSaveTensor", images=source)

    result = client.run(prompt)

    assert torch.equal(client.tensor(result, kept), client.tensor(result, wanted))


def test_report_progress_and_metadata(server: Server, client: Client) -> None:
    prompt = Prompt()
    node = save(prompt, images(prompt, "9,64,64,3"), "told/a")

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    report = report_of(result, node)
    assert report["decoding"]["kind"] == "images" and report["decoding"]["exact"] and report["outcome"] == "completed"
    assert (report["frames"], report["total_frames"], report["chunks"]) == (9, 9, 5)
    assert report["hidden_share"] is None
    progress = client.events_of("progress", node=node.node)
    assert progress[-1].data["value"] == progress[-1].data["max"] == 9
    with Image.open(files(server, result, node)[0]) as image:
        assert json.loads(image.info["workflow"]) == WORKFLOW
        assert json.loads(image.info["prompt"]) == json.loads(json.dumps(prompt.nodes))


def test_other_nodes_go_on_while_frames_are_saved(server: Server, client: Client) -> None:
    prompt = Prompt()
    # Some seconds of work for one writer; the gate opens as soon as the other node is reached.
    saving = save(prompt, images(prompt, "40,512,768,3"), "beside/a", writers=1, compression=9)
    other = prompt.add("TestGate", anything=images(prompt, "1,8,8,3"), gate="beside")
    kept = prompt.add("TestSaveTensor", images=other)

    prompt_id = client.queue(prompt)
    client.events.wait("probe.held", gate="beside")
    client.open_gate("beside")
    result = client.wait(prompt_id)

    assert result.ok
    order = [event.data["node"] for event in client.events_of("executed", prompt_id=prompt_id)]
    assert order.index(kept.node) < order.index(saving.node)
    assert len(files(server, result, saving)) == 40


def test_cancel_leaves_whole_files_only(server: Server, client: Client) -> None:
    prompt = Prompt()
    save(prompt, images(prompt, "60,512,768,3"), "cancelled/a", writers=1, compression=9)

    prompt_id = client.queue(prompt)
    client.events.wait("progress", prompt_id=prompt_id, max=60)
    client.interrupt(prompt_id)
    result = client.wait(prompt_id)

    assert result.interrupted
    left = sorted((server.output / "cancelled").iterdir())
    assert [path.name for path in left] == [f"a_{number:05}_.png" for number in range(1, len(left) + 1)]
    assert len(left) < 60
    for path in left:
        with Image.open(path) as image:
            image.load()


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ("3,16,16,2", "float32", "images: expected (frames, height, width, channels) with 1, 3 or 4 channels"),
        ("0,16,16,3", "float32", "got (0, 16, 16, 3)"),
        ("16,16,3", "float32", "got (16, 16, 3)"),
        ("3,16,16,3", "uint8", "images: expected floating-point values from 0 to 1, got torch.uint8"),
    ],
)
def test_what_is_no_image_is_refused(server: Server, client: Client, shape: str, dtype: str, message: str) -> None:
    prompt = Prompt()
    save(prompt, images(prompt, shape, dtype=dtype), "refused/a")

    with pytest.raises(PromptFailed) as caught:
        client.run(prompt)

    assert message in str(caught.value)
    assert not (server.output / "refused").exists()
