"""The widgets: what people need first, and values that would fail after the sampling are refused before it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.comfyui.client import Client, Output, Prompt, PromptRejected
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, names_in, report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe

FIRST = {
    "AsyncVAEDecode": ["chunk_size", "buffer_depth"],
    "AsyncVAEDecodeSaveFrames": ["filename_prefix", "format", "quality", "compression", "chunk_size", "buffer_depth"],
    "AsyncSaveFrames": ["filename_prefix", "format", "quality", "compression", "chunk_size", "buffer_depth"],
    "AsyncVAEDecodeSaveVideo": ["filename_prefix", "format", "quality", "fps", "chunk_size", "buffer_depth"],
    "AsyncSaveVideo": ["filename_prefix", "format", "quality", "fps", "chunk_size", "buffer_depth"],
}
VIDEO = "AsyncSaveVideo"


def widgets_of(client: Client, node_type: str) -> dict[str, dict[str, Any]]:
    """The options of a node's widgets, in the order in which it shows them."""
    inputs = client.object_info(node_type)[node_type]["input"]
    specs = {**inputs["required"], **inputs.get("optional", {})}
    return {name: spec[1] for name, spec in specs.items() if "default" in spec[1] or "options" in spec[1]}


@pytest.mark.parametrize("node_type", FIRST)
def test_what_people_need_comes_first(client: Client, node_type: str) -> None:
    widgets = widgets_of(client, node_type)

    first = FIRST[node_type]
    assert list(widgets)[: len(first)] == first
    # Where the core's own nodes have such widgets.
    if "advanced" in client.object_info("VAEDecodeTiled")["VAEDecodeTiled"]["input"]["required"]["overlap"][1]:
        assert [name for name, options in widgets.items() if not options.get("advanced")] == first


def images(prompt: Prompt, shape: str = "5,32,48,3") -> Output:
    return prompt.add("TestImages", shape=shape, seed=0, dtype="float32", layout="contiguous")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quality": 63}, "quality: mp4 (H.264) takes 0 (best) to 51 (smallest), got 63"),
        ({"format": "webm (VP9)", "quality": 64}, "quality: expected a whole number from 0 to 63, got 64"),
        ({"format": "gif", "fps": 60.0}, "fps: gif knows at most 50 frames a second, got 60; choose fewer"),
        (
            {"format": "mp4 (AV1)", "fps": 300},
            "fps: mp4 (AV1) knows at most 240 frames a second, got 300; choose fewer",
        ),
        ({"fps": 0}, "fps: expected 0.01 to 1000 frames a second, got 0"),
        ({"fps": 1001.5}, "fps: expected a number from 0 to 1000, got 1001.5; set the widget"),
        ({"fps": "many"}, "fps: expected a number from 0 to 1000, got 'many'; set the widget"),
        ({"fps": float("nan")}, "fps: expected a number from 0 to 1000, got nan"),
        ({"fps": 10**400}, "fps: expected a number from 0 to 1000, got 1000"),
        ({"format": "mp4 (H.266)"}, "got 'mp4 (H.266)'; choose one of those, which work here"),
        ({"format": 4}, "format: expected one of mp4 (H.264), "),
        ({"filename_prefix": "../a"}, "filename_prefix '../a' leads out of the output folder"),
        ({"filename_prefix": ".."}, "filename_prefix '..' leads out of the output folder"),
        ({"filename_prefix": "a/\0"}, "filename_prefix 'a/\\x00' holds what no file name can hold; use another name"),
        ({"filename_prefix": "\ud800"}, "filename_prefix '\\ud800' holds what no file name can hold"),
        (
            {"trim_to_audio": True},
            "trim_to_audio: True, but nothing is connected to audio; connect a sound, or switch it off",
        ),
    ],
)
def test_refused_when_queued(client: Client, given: dict[str, Any], said: str) -> None:
    prompt = Prompt()
    node = client.add(prompt, VIDEO, images=images(prompt), **given)

    with pytest.raises(PromptRejected) as refused:
        client.queue(prompt)

    (error,) = refused.value.node_errors[node.node]["errors"]
    assert said in error["details"]


@pytest.mark.parametrize("node_type", [VIDEO, "AsyncSaveFrames"])
@pytest.mark.parametrize("prefix", ["", " ", "."])
def test_without_a_prefix_it_has_stocks(client: Client, server: Server, node_type: str, prefix: str) -> None:
    prompt = Prompt()
    node = client.add(prompt, node_type, images=images(prompt, "1,32,48,3"), filename_prefix=prefix)

    (path,) = files_of(server, client.run(prompt), node)

    assert path.parent == server.output
    assert path.name.startswith("ComfyUI_0")


def test_connected_values_are_not_refused_before_they_are_known(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    number = {value: prompt.add("PrimitiveInt", value=value) for value in (28, 64, 8)}
    node = client.add(
        prompt,
        "AsyncVAEDecodeSaveVideo",
        samples=random_latent(prompt, 1, 16, 2, 2, 3),
        vae=models.load(prompt, "wan21"),
        filename_prefix=prompt.add("PrimitiveString", value="connected/a"),
        quality=number[28],
        tile_size=number[64],
        temporal_size=number[8],
    )

    (path,) = files_of(server, client.run(prompt), node)

    assert path.parent == server.output / "connected"


@pytest.mark.parametrize("rate", ["PrimitiveInt", "PrimitiveFloat"])
def test_a_rate_from_a_node_of_either_type(client: Client, server: Server, rate: str) -> None:
    prompt = Prompt()
    fps = prompt.add(rate, value=12)
    node = client.add(prompt, VIDEO, images=images(prompt), filename_prefix="rates/a", fps=fps)

    (path,) = files_of(server, client.run(prompt), node)

    assert probe(path).rate == 12


@pytest.mark.parametrize(("value", "rate"), [(23.976, Fraction(24000, 1001)), (25, Fraction(25)), ("30", Fraction(30))])
def test_a_rate_as_clients_write_it(client: Client, server: Server, value: Any, rate: Fraction) -> None:
    prompt = Prompt()
    node = client.add(prompt, VIDEO, images=images(prompt), filename_prefix="rates/b", fps=value)

    (path,) = files_of(server, client.run(prompt), node)

    assert probe(path).rate == rate


def test_trim_to_audio_of_a_format_without_sound_is_not_looked_at(client: Client, server: Server) -> None:
    prompt = Prompt()
    given = {"trim_to_audio": True, "format": "gif", "fps": 10.0}
    node = client.add(prompt, VIDEO, images=images(prompt), filename_prefix="trimmed/a", **given)

    (path,) = files_of(server, client.run(prompt), node)

    assert probe(path).frames == 5


def test_sound_that_turns_out_to_be_none_leaves_a_silent_video(client: Client, server: Server) -> None:
    prompt = Prompt()
    loader = prompt.add("TestLazyAudio")
    given = {"filename_prefix": "silent/a", "trim_to_audio": True}
    node = client.add(prompt, VIDEO, images=images(prompt), audio=loader, **given)

    result = client.run(prompt, check=False)

    if result.error is not None and result.error["node_id"] == loader.node:
        pytest.skip("this core looks into such sound itself, in the loader")
    (path,) = files_of(server, result, node)
    assert probe(path).frames == 5
    warnings = report_of(result, node)["warnings"]
    assert any("failed to extract audio from silent.mp4" in text for text in warnings)
    assert any("trim_to_audio" in text for text in warnings)


def test_several_clips_in_one_video_are_noted(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 2, 16, 2, 2, 3), models.load(prompt, "wan21")
    node = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix="clips/a")
    alone = random_latent(prompt, 1, 16, 2, 2, 3)
    one = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=alone, vae=vae, filename_prefix="clips/b")

    result = client.run(prompt)

    assert probe(files_of(server, result, node)[0]).frames == 10
    assert any("2 clips" in warning for warning in report_of(result, node)["warnings"])
    assert not any("clips" in warning for warning in report_of(result, one)["warnings"])
    assert names_in(server.output / "clips") == ["a_00001_.mp4", "b_00001_.mp4"]
