"""Async VAE Decode & Save Video: every frame is in the MP4, at the right size and rate, with its tags."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import WORKFLOW, check_nothing_left, files_of, names_in, prompt_in, report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import decode, probe, psnr, tags_of

#: Limited range, BT.709's matrix and primaries, sRGB's transfer, chroma at the centre; as ffmpeg prints it.
COLOURS = "yuv420p(tv, bt709/bt709/iec61966-2-1, progressive, center)"


def save_video(
    client: Client, models: Models, prompt: Prompt, prefix: str, *, latents: int = 3, width: int = 6, **options: object
) -> Output:
    """Add a node to ``prompt`` that saves a clip of smooth frames."""
    samples = random_latent(prompt, 1, 16, latents, 4, width, seed=3)
    vae = models.load(prompt, "wan21")
    return client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix=prefix, **options)


def video_of(server: Server, result: Result, node: Output) -> Path:
    """The one video that a node names."""
    (path,) = files_of(server, result, node)
    assert result.ui(node)["animated"] == [True]
    return path


@pytest.mark.parametrize("options", [{"chunk_size": 1, "buffer_depth": 1}, {"chunk_size": 4}, {"chunk_size": 64}])
def test_every_frame_is_in_the_file(client: Client, server: Server, models: Models, options: dict[str, int]) -> None:
    prompt = Prompt()
    # Lossless, but for the conversion to 4:2:0.
    node = save_video(client, models, prompt, "mp4/clip", quality=0, fps=23.976, output_images=True, **options)
    kept = prompt.add("TestSaveTensor", images=Output(node.node, 1))

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    path = video_of(server, result, node)
    assert path.parent == server.output / "mp4"
    found = probe(path)
    assert (found.codec, found.pixels) == ("h264", COLOURS)
    assert (found.size, found.frames, found.rate) == ((48, 32), 9, Fraction(24000, 1001))
    # Luma is not subsampled: what each frame's is by BT.709, it must be in the file.
    frames = (client.tensor(result, kept) * 255).numpy().astype(np.uint8)
    wanted = 16 + (frames @ np.array([0.2126, 0.7152, 0.0722])) * 219 / 255
    # The planes of a frame, one below the other; the upper two thirds are luma.
    got = decode(path, "yuv420p", (48, 48), 1)[:, :32, :, 0]
    assert len(got) == 9
    for index, luma in enumerate(got):
        quality = [psnr(luma, other) for other in wanted]
        assert quality[index] == max(quality) > 40, (index, quality)
    tags = tags_of(path)
    assert json.loads(tags["workflow"]) == WORKFLOW
    assert prompt_in(tags["prompt"]) == prompt.as_sent()
    report = report_of(result, node)
    assert (report["outcome"], report["frames"], report["decoding"]["kind"]) == ("completed", 9, "tapped")
    check_nothing_left(server)


def test_the_tags_are_stocks(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    node = save_video(client, models, prompt, "tags/ours", latents=1)
    images = prompt.add("VAEDecode", **{name: prompt.nodes[node.node]["inputs"][name] for name in ("samples", "vae")})
    created = prompt.add("CreateVideo", images=images, fps=24.0)
    stock = prompt.add("SaveVideo", video=created, filename_prefix="tags/stock", format="mp4", codec="h264")

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    ours, wanted = (tags_of(video_of(server, result, one)) for one in (node, stock))
    # What the container itself says is not ours to choose.
    own = {"major_brand", "minor_version", "compatible_brands", "encoder"}
    assert {key: value for key, value in ours.items() if key not in own} == {
        key: value for key, value in wanted.items() if key not in own
    }
    assert {"prompt", "workflow"} <= set(ours)


def test_the_output_is_a_video_for_other_nodes(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    node = save_video(client, models, prompt, "passed/on", fps=10.0)
    parts = prompt.add("GetVideoComponents", video=node)
    kept = prompt.add("TestSaveTensor", images=parts)
    saved = prompt.add("SaveVideo", video=node, filename_prefix="passed/again", format="auto", codec="auto")

    result = client.run(prompt)

    assert client.tensor(result, kept).shape == (9, 32, 48, 3)
    again = video_of(server, result, saved)
    assert probe(again).frames == 9
    assert probe(again).rate == 10
    assert names_in(server.output / "passed") == ["again_00001_.mp4", "on_00001_.mp4"]


def test_a_large_workflow_fits_into_the_tags(client: Client, server: Server, models: Models) -> None:
    """Longer than a command line may be."""
    workflow = {"nodes": [{"id": number, "text": "long; " * 50} for number in range(2000)]}
    prompt = Prompt()
    node = save_video(client, models, prompt, "large/workflow", latents=1)

    result = client.run(prompt, extra_pnginfo={"workflow": workflow})

    assert json.loads(tags_of(video_of(server, result, node))["workflow"]) == workflow
