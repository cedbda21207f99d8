"""AUDIO of all kinds: what can be heard is in the file and comes back into ComfyUI; what cannot leaves silence."""

from __future__ import annotations

import pytest
import torch

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, names_in, report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import probe, run_ffmpeg

NODES = ["AsyncSaveVideo", "AsyncVAEDecodeSaveVideo"]


def add_node(client: Client, prompt: Prompt, models: Models, node_type: str, **given: object) -> Output:
    """Add one of our nodes that saves five frames at 5 Hz."""
    if node_type == "AsyncSaveVideo":
        frames = {"images": prompt.add("TestImages", shape="5,32,48,3", seed=0, dtype="float32", layout="contiguous")}
    else:
        frames = {"samples": random_latent(prompt, 1, 16, 2, 4, 6), "vae": models.load(prompt, "wan21")}
    return client.add(prompt, node_type, **frames, fps=5.0, **given)


def has_sound(path: object) -> bool:
    """Whether there is a stream of it in a file."""
    return b"Audio:" in run_ffmpeg("-i", path, check=False).stderr


@pytest.mark.parametrize("node_type", NODES)
@pytest.mark.parametrize(
    ("shape", "rate", "said"),
    [
        ("1,2,0", 48_000, "audio: its waveform is empty, (1, 2, 0), so the video is silent; trim or load it again"),
        ("1,0,48000", 48_000, "audio: its waveform is empty, (1, 0, 48000)"),
        ("0,2,48000", 48_000, "audio: its waveform is empty, (0, 2, 48000)"),
        ("2,0", 48_000, "audio: its waveform is empty, (2, 0)"),
        ("1,1,48000", 1_000_000, "audio: expected a sample rate from 1000 to 768000 Hz, got 1000000, so the video is"),
        ("1,1,5", 1, "audio: expected a sample rate from 1000 to 768000 Hz, got 1, so the video is silent; resample"),
        ("1,1,5", 0, "audio: expected a sample rate from 1000 to 768000 Hz, got 0"),
        ("1,1,5", -1, "audio: expected a sample rate from 1000 to 768000 Hz, got -1"),
    ],
)
def test_sound_that_nobody_could_hear_leaves_a_silent_video(
    client: Client, server: Server, models: Models, node_type: str, shape: str, rate: int, said: str
) -> None:
    prompt = Prompt()
    sound = prompt.add("TestSound", shape=shape, rate=rate, kind="tone")
    node = add_node(client, prompt, models, node_type, audio=sound, trim_to_audio=True, filename_prefix="inaudible/a")

    result = client.run(prompt)

    (path,) = files_of(server, result, node)
    assert probe(path).frames == 5 and not has_sound(path)
    first, second = report_of(result, node)["warnings"]
    assert first.startswith(said)
    assert second.startswith("trim_to_audio: there is no audio")


def test_of_several_clips_of_sound_the_first_is_saved_and_that_is_said(
    client: Client, server: Server, models: Models
) -> None:
    prompt = Prompt()
    sound = prompt.add("TestSound", shape="2,1,48000", rate=48_000, kind="tone")
    node = add_node(client, prompt, models, "AsyncSaveVideo", audio=sound, filename_prefix="two-sounds/a")

    result = client.run(prompt)

    (path,) = files_of(server, result, node)
    assert has_sound(path)
    assert report_of(result, node)["warnings"] == ["audio: it holds 2 clips of sound, and the first one is saved"]


@pytest.mark.parametrize("node_type", NODES)
@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        ("48000", "tone", "audio: expected a waveform (batch, channels, samples), got (48000,); trim or load it again"),
        ("1,1,2,48000", "tone", "audio: expected a waveform (batch, channels, samples), got (1, 1, 2, 48000)"),
        ("1,2,0", "text", "audio: expected a waveform (batch, channels, samples), got str"),
        ("1,2,10", "no rate", "audio: expected a sample_rate as a number, got None; load it again"),
        ("1,2,10", "nothing", "audio: expected an AUDIO with a waveform and a sample_rate, got dict; connect"),
        ("1,2,10", "list", "audio: expected an AUDIO with a waveform and a sample_rate, got list; connect"),
    ],
)
def test_what_is_no_audio_is_refused(
    client: Client, server: Server, models: Models, node_type: str, shape: str, kind: str, said: str
) -> None:
    prompt = Prompt()
    sound = prompt.add("TestSound", shape=shape, rate=48_000, kind=kind)
    node = add_node(client, prompt, models, node_type, audio=sound, filename_prefix="no-audio/a")

    result = client.run(prompt, check=False)

    assert result.error is not None and result.error["node_id"] == node.node
    assert result.error["exception_message"].strip().startswith(said)
    assert names_in(server.output / "no-audio") == []


@pytest.mark.parametrize("format", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)"])
@pytest.mark.parametrize(("channels", "mixed"), [(6, 6), (7, 6), (8, 6), (9, 2), (16, 2)])
def test_mixed_sound_comes_back_into_comfyui(
    client: Client, server: Server, models: Models, format: str, channels: int, mixed: int
) -> None:
    prompt = Prompt()
    sound = prompt.add("TestSound", shape=f"1,{channels},48000", rate=48_000, kind="tone")
    node = add_node(client, prompt, models, "AsyncSaveVideo", audio=sound, format=format, filename_prefix="mixed/a")
    # Once as the VIDEO of the node, …
    kept = prompt.add("TestSaveSound", audio=Output(prompt.add("GetVideoComponents", video=node).node, 1))

    result = client.run(prompt)

    (path,) = files_of(server, result, node)
    warnings = report_of(result, node)["warnings"]
    told = any(text.startswith(f"the {channels} channels of sound were mixed into {mixed}") for text in warnings)
    assert told == (channels > mixed)
    # … and once from the file, as Load Video reads it.
    again = Prompt()
    loaded = again.add("LoadVideo", file=f"mixed/{path.name} [output]")
    parts = again.add("GetVideoComponents", video=loaded)
    kept_again = again.add("TestSaveSound", audio=Output(parts.node, 1))
    frames = again.add("TestSaveTensor", images=parts)
    result_again = client.run(again)

    assert len(client.tensor(result_again, frames)) == 5
    for found, saved in ((result, kept), (result_again, kept_again)):
        waveform, (rate,) = client.tensor(found, saved), found.ui(saved)["rate"]
        if format == "mkv (FFV1)" and waveform.shape[1] == 1:
            # Older cores take FLAC's samples, of all channels one after the other, for one channel.
            waveform = waveform.reshape(1, -1, mixed).movedim(1, 2)
        assert (waveform.shape[:2], rate) == ((1, mixed), 48_000)
        assert abs(waveform.shape[2] / rate - 1) < 0.05
        # A tone in all channels: in every one of the file's (the subwoofer keeps the bass only, if it gets any).
        loud = waveform[0, :, 10_000:30_000].abs().amax(dim=1) > 0.1
        assert loud.sum() >= mixed - (mixed == 6), waveform.abs().amax(dim=2)
        assert torch.isfinite(waveform).all()
