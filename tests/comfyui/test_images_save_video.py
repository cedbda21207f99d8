"""Async Save Video in a real server: every format, with sound, as VIDEO for stock's nodes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from async_decode.sinks import VIDEO_FORMATS
from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.server import Server

OPTIONS: dict[str, Any] = {
    "chunk_size": 2,
    "buffer_depth": 3,
    "fps": 23.976,
    "format": "mp4 (H.264)",
    "quality": 20,
    "preset": "ultrafast",
}


def images(prompt: Prompt, shape: str) -> Output:
    return prompt.add("TestImages", shape=shape, seed=3, dtype="float32", layout="contiguous")


def save(prompt: Prompt, source: Output, prefix: str, **options: Any) -> Output:
    return prompt.add("AsyncSaveVideo", images=source, filename_prefix=prefix, **{**OPTIONS, **options})


def shown(server: Server, result: Result, node: Output) -> Path:
    """The file that a node shows."""
    (entry,) = result.ui(node)["images"]
    # A GIF would be taken for a video, which no player of videos plays.
    assert result.ui(node)["animated"] == [not entry["filename"].endswith(".gif")]
    folder = server.output if entry["type"] == "output" else server.temp
    return folder / entry["subfolder"] / entry["filename"]


def test_every_format_is_a_video_for_stocks_nodes(server: Server, client: Client) -> None:
    prompt = Prompt()
    source = images(prompt, "9,121,257,3")
    wanted = prompt.add("TestSaveTensor", images=source)
    sound = prompt.add("EmptyAudio", duration=5.0, sample_rate=44100, channels=2)
    nodes, kept = {}, {}
    for number, name in enumerate(VIDEO_FORMATS):
        nodes[name] = save(prompt, source, f"formats/{number}", format=name, audio=sound)
        parts = prompt.add("GetVideoComponents", video=nodes[name])
        kept[name] = prompt.add("TestSaveTensor", images=parts)

    result = client.run(prompt)

    frames = client.tensor(result, wanted).clamp(0, 1)
    for name, video in VIDEO_FORMATS.items():
        file = shown(server, result, nodes[name])
        assert file.is_file() and file.parent.name == "formats", name
        got = client.tensor(result, kept[name])
        # What stands in for a file that ComfyUI cannot read is in H.264.
        across, down = (2, 2) if name == "webp (animated)" else video.unit
        even = (-(-121 // down) * down, -(-257 // across) * across)
        assert got.shape == (9, *even, 3), name
        # Noise at its full height: what a codec keeps of it is little, what another frame has of it nothing.
        errors = [float((got[4, :121, :257] - other).square().mean()) for other in frames]
        assert min(errors) == errors[4], name
        if name == "mkv (FFV1)":
            # Core converts through swscale's floats, which are not exact.
            assert float(((got * 255) - (frames * 255).trunc()).abs().max()) < 1.5
