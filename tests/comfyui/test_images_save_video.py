"""Async Save Video in a real server: every format, with sound, as VIDEO for stock's nodes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from async_decode.sinks import VIDEO_FORMATS
from tests.comfyui.client import Client, Output, Prompt, PromptFailed, Result
from tests.comfyui.outputs import names_in
from tests.comfyui.server import Server
from tests.engine.sink_tools import decode, psnr, run_ffmpeg
from tests.engine.test_sink_video import rgb_of

OPTIONS: dict[str, Any] = {
    "chunk_size": 2,
    "buffer_depth": 3,
    "fps": 23.976,
    "format": "mp4 (H.264)",
    "quality": 20,
    "preset": "ultrafast",
}
#: What browsers do not play is shown by something else, in the temp folder.
PROXIES = {name for name, video in VIDEO_FORMATS.items() if not video.in_browsers}


def images(prompt: Prompt, shape: str) -> Output:
    return prompt.add("TestImages", shape=shape, seed=3, dtype="float32", layout="contiguous")


def save(prompt: Prompt, source: Output, prefix: str, **options: Any) -> Output:
    return prompt.add("AsyncSaveVideo", images=source, filename_prefix=prefix, **{**OPTIONS, **options})


def shown(server: Server, result: Result, node: Output) -> Path:
    """The file that a node shows."""
    (entry,) = result.ui(node)["images"]
    assert result.ui(node)["animated"] == [True]
    folder = server.output if entry["type"] == "output" else server.temp
    return folder / entry["subfolder"] / entry["filename"]


def test_every_format_is_a_video_for_stocks_nodes(server: Server, client: Client) -> None:
    prompt = Prompt()
    source = images(prompt, "9,65,97,3")
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
        assert file.is_file() and (file.parent.name == "formats") == (name not in PROXIES), name
        got = client.tensor(result, kept[name])
        # What stands in for a file that ComfyUI cannot read is in H.264.
        across, down = (2, 2) if name == "webp (animated)" else video.unit
        even = (-(-65 // down) * down, -(-97 // across) * across)
        assert got.shape == (9, *even, 3), name
        # Noise at its full height: what a codec keeps of it is little, what another frame has of it nothing.
        errors = [float((got[4, :65, :97] - other).square().mean()) for other in frames]
        assert min(errors) == errors[4], name
        if name == "mkv (FFV1)":
            # Core converts through swscale's floats, which are not exact.
            assert float(((got * 255) - (frames * 255).trunc()).abs().max()) < 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 60}, "quality: mp4 (H.264) takes 0 (best) to 51 (smallest), got 60"),
        ({"format": "mp4 (AV1)", "quality": 0}, "quality: mp4 (AV1) takes 1 (best) to 63 (smallest), got 0"),
        ({"format": "gif", "fps": 60.0}, "fps: gif knows at most 50 frames a second, got 60"),
        ({"trim_to_audio": True}, "trim_to_audio: there is no audio to end with; connect audio"),
        ({"format": "mp4 (AV1)"}, "expected frames of at least 64x64 for av1, got 32x16"),
    ],
)
def test_what_a_format_does_not_take_is_refused_by_name(
    server: Server, client: Client, options: dict[str, Any], message: str
) -> None:
    prompt = Prompt()
    save(prompt, images(prompt, "3,16,32,3"), "refused-video/a", **options)

    with pytest.raises(PromptFailed) as caught:
        client.run(prompt)

    assert message in str(caught.value)
    assert names_in(server.output / "refused-video") == []


def test_ping_pong_loops_and_sound_come_through_the_node(server: Server, client: Client) -> None:
    prompt = Prompt()
    sound = prompt.add("EmptyAudio", duration=0.5, sample_rate=44100, channels=1)
    source = images(prompt, "5,64,64,3")
    again = save(prompt, source, "again/a", fps=10.0, ping_pong=True, loop_count=1, audio=sound)
    short = save(prompt, source, "again/b", fps=4.0, audio=sound, trim_to_audio=True, convert_on_gpu=False)

    result = client.run(prompt)

    for node, seconds, frames in ((again, 1.6, 16), (short, 0.5, 2)):
        path = shown(server, result, node)
        text = run_ffmpeg("-i", path, check=False).stderr.decode()
        assert "Audio: aac (LC)" in text and "44100 Hz, mono" in text
        assert len(decode(path, "gray", (64, 64), 1)) == frames
        raw = run_ffmpeg("-v", "error", "-i", path, "-map", "0:a", "-f", "f32le", "-").stdout
        assert abs(len(raw) / 4 / 44100 - seconds) < 1e-3


def test_colours_are_no_worse_than_those_of_save_video(server: Server, client: Client) -> None:
    prompt = Prompt()
    # Large soft shapes in strong colours.
    source = prompt.add(
        "ImageScale", image=images(prompt, "6,9,16,3"), upscale_method="bicubic", width=256, height=144, crop="disabled"
    )
    kept = prompt.add("TestSaveTensor", images=source)
    ours = save(prompt, source, "colours/ours", fps=24.0, quality=23, preset="medium")
    created = prompt.add("CreateVideo", images=source, fps=24.0)
    stock = prompt.add("SaveVideo", video=created, filename_prefix="colours/stock", format="mp4", codec="h264")

    result = client.run(prompt)

    wanted = (client.tensor(result, kept).clamp(0, 1) * 255).numpy().astype(np.uint8)
    # As a reader of the standard's values sees both, whatever the files say of themselves.
    quality = [psnr(rgb_of(shown(server, result, node), (256, 144)), wanted) for node in (ours, stock)]
    assert quality[0] >= quality[1] - 0.05, quality
