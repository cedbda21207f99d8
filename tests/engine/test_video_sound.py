"""Sound and loops: what is heard and seen when a clip plays backwards, again, or ends with its sound."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from async_decode import Cancelled, Clip, Recorder, SinkError
from async_decode.frames import PixelFormat
from async_decode.sinks import VIDEO_FORMATS, Sound, StandIn, VideoSink
from async_decode.sinks.files import OutputNames
from tests.engine.sink_tools import PATIENCE, clip_of, nothing_survives, numbered, pictures, run_ffmpeg, save, tags_of

FFV1 = VIDEO_FORMATS["mkv (FFV1)"]
TAGS = {"PROMPT": "{}", "WORKFLOW": '{"a": "b=c; #é"}'}


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the sound waits for ffmpeg; nothing may stay there."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(folder))
    yield folder
    assert list(folder.iterdir()) == []


def clicks(channels: int, rate: int, seconds: float, at: float = 0.1) -> Sound:
    """Silence with one click, in every channel at once."""
    samples = np.zeros((channels, round(rate * seconds)), np.float32)
    samples[:, round(rate * at)] = 0.9
    return Sound(samples, rate)


def heard(path: Path) -> tuple[np.ndarray, int, str]:
    """The sound of a file ``(samples, channels)``, its rate, and what ffmpeg calls it."""
    text = run_ffmpeg("-i", path, check=False).stderr.decode()
    found = re.search(r"Audio: (\w+).*?, (\d+) Hz, ([^,]+)", text)
    assert found is not None, text
    channels = {"mono": 1, "stereo": 2, "3.0": 3, "4.0": 4, "quad": 4, "5.0": 5, "5.1": 6, "7.1": 8}[found[3]]
    raw = run_ffmpeg("-v", "error", "-i", path, "-map", "0:a", "-f", "f32le", "-").stdout
    return np.frombuffer(raw, np.float32).reshape(-1, channels), int(found[2]), found[1]


def streams(path: Path) -> list[str]:
    """What ffmpeg says of a file's streams, but for how long and how large they are."""
    lines = run_ffmpeg("-v", "verbose", "-i", path, check=False).stderr.decode().splitlines()
    return [re.sub(r"\[0x\w+\]|, \d+ kb/s", "", line) for line in lines if "Stream #" in line]


def shown(path: Path) -> list[str]:
    """Time, duration and hash of the picture of each frame, alpha included."""
    # ffmpeg's own decoder of VP9 leaves alpha out.
    decoder = ["-c:v", "libvpx-vp9"] if path.suffix == ".webm" and "Video: vp9" in streams(path)[0] else []
    arguments = ["-map", "0:v", "-fps_mode", "passthrough", "-f", "framehash", "-"]
    lines = run_ffmpeg("-v", "error", *decoder, "-i", path, *arguments).stdout.decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def order(path: Path) -> list[int]:
    """Which frames of ``numbered`` a lossless video shows."""
    raw = run_ffmpeg("-v", "error", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    return [int(frame[0, 0]) for frame in np.frombuffer(raw.stdout, np.uint8).reshape(-1, 4, 4)]


@pytest.mark.parametrize(
    ("name", "channels", "rate", "codec", "wanted_rate"),
    [
        ("mp4 (H.264)", 1, 44100, "aac", 44100),
        ("mp4 (H.264)", 3, 48000, "aac", 48000),
        ("mp4 (H.264)", 2, 192000, "aac", 96000),
        ("webm (VP9)", 1, 8000, "opus", 48000),
        ("webm (VP9)", 3, 48000, "opus", 48000),
        ("webm (VP9)", 4, 22050, "opus", 48000),
        ("webm (VP9)", 6, 48000, "opus", 48000),
        ("mkv (FFV1)", 6, 96000, "flac", 96000),
        ("mkv (FFV1)", 2, 12345, "flac", 12345),
    ],
)
def test_any_rate_and_number_of_channels(
    tmp_path: Path, name: str, channels: int, rate: int, codec: str, wanted_rate: int
) -> None:
    sink = VideoSink(
        OutputNames(tmp_path, "a"),
        fps=24,
        video=VIDEO_FORMATS[name],
        preset="ultrafast",
        sound=clicks(channels, rate, 3),
    )
    with nothing_survives(tmp_path):
        save(sink, pictures(25))

    got, got_rate, got_codec = heard(sink.path)
    assert (got_codec, got_rate, got.shape[1]) == (codec, wanted_rate, channels)
    assert abs(len(got) / got_rate - 25 / 24) <= 3 / min(rate, got_rate)
    loud = np.abs(got).max(axis=0) > 0.1
    # What is called the subwoofer keeps no click.
    assert loud.sum() >= channels - (channels == 6)
    assert np.abs(np.abs(got[:, loud]).argmax(axis=0) / got_rate - 0.1).max() <= 2 / min(rate, got_rate)


def test_short_sound_is_followed_by_silence(tmp_path: Path) -> None:
    samples = np.full((2, 12_000), 0.5, np.float32)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=FFV1, sound=Sound(samples, 48_000))
    save(sink, pictures(24))

    got, _, _ = heard(sink.path)
    assert len(got) == 48_000
    assert np.abs(got[:12_000] - 0.5).max() < 1e-6 and not got[12_000:].any()


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 12), (0.51, 13), (0.001, 1), (9.0, 24)])
def test_video_can_end_with_the_sound(tmp_path: Path, seconds: float, frames: int) -> None:
    sound = clicks(1, 48_000, seconds, at=0)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=FFV1, sound=sound, trim_to_sound=True)
    with nothing_survives(tmp_path):
        save(sink, numbered(24))

    assert order(sink.path) == list(range(frames)) and sink.frames == frames and not sink.cut_short
    assert len(heard(sink.path)[0]) == frames * 2000


@pytest.mark.parametrize(
    ("ping_pong", "repeats", "wanted"),
    [
        (True, 0, [0, 1, 2, 3, 4, 3, 2, 1]),
        (False, 2, [0, 1, 2, 3, 4] * 3),
        (True, 1, [0, 1, 2, 3, 4, 3, 2, 1] * 2),
    ],
)
def test_frames_that_play_again(tmp_path: Path, ping_pong: bool, repeats: int, wanted: list[int]) -> None:
    sink = VideoSink(
        OutputNames(tmp_path, "a"), fps=24, video=FFV1, ping_pong=ping_pong, repeats=repeats, sound=clicks(1, 48_000, 1)
    )
    with nothing_survives(tmp_path):
        save(sink, numbered(5), chunk=2)

    assert order(sink.path) == wanted and sink.frames == len(wanted)
    assert len(heard(sink.path)[0]) == len(wanted) * 2000
    assert list(tmp_path.iterdir()) == [sink.path]


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_have_nothing_to_play_backwards(tmp_path: Path, frames: int) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=FFV1, ping_pong=True)
    save(sink, numbered(frames))

    assert order(sink.path) == list(range(frames))


def test_trimming_to_the_sound_counts_what_plays_again(tmp_path: Path) -> None:
    sink = VideoSink(
        OutputNames(tmp_path, "a"), fps=24, video=FFV1, repeats=3, sound=clicks(1, 48_000, 0.5), trim_to_sound=True
    )
    save(sink, numbered(5))

    assert order(sink.path) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(("repeats", "gif", "webp"), [(0, 0, 0), (1, 1, 2), (4, 4, 5)])
def test_gif_and_webp_tell_the_player(tmp_path: Path, repeats: int, gif: int, webp: int) -> None:
    files = {}
    for name in ("gif", "webp (animated)"):
        sink = VideoSink(OutputNames(tmp_path, "a"), fps=20, video=VIDEO_FORMATS[name], repeats=repeats)
        save(sink, pictures(4))
        assert sink.frames == 4
        files[name] = sink.path.read_bytes()

    # GIF89a's application extension counts repetitions; WebP's ANIM chunk counts plays behind its background colour.
    place = files["gif"].index(b"NETSCAPE2.0\x03\x01") + 13
    assert int.from_bytes(files["gif"][place : place + 2], "little") == gif
    place = files["webp (animated)"].index(b"ANIM") + 12
    assert int.from_bytes(files["webp (animated)"][place : place + 2], "little") == webp


def test_abort_while_frames_play_again_is_a_cut_short_video(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=FFV1, repeats=1000)
        frames = pictures(30, 360, 640)
        sink.open(clip_of(frames), Recorder())
        sink.write(frames, 0).result(PATIENCE)
        again = sink._play_again

        def aborted() -> None:
            sink._stop.set()
            again()

        sink._play_again = aborted  # type: ignore[method-assign]
        with pytest.raises(Cancelled):
            sink.close()
        sink.abort()

    assert sink.cut_short and sink.path == tmp_path / "a_00001_cut-short.mkv" and sink.frames == 30


def cut_short(folder: Path, name: str, frames: np.ndarray) -> VideoSink:
    """A video of a clip of 20 seconds, with a minute of sound, that was aborted behind ``frames``."""
    sink = VideoSink(
        OutputNames(folder, "a"),
        fps=24,
        video=VIDEO_FORMATS[name],
        preset="ultrafast",
        metadata=TAGS,
        sound=clicks(2, 48_000, 60),
        grace=PATIENCE,
    )
    with nothing_survives(folder):
        sink.open(replace(clip_of(frames), frames=480), Recorder())
        sink.write(frames, 0).result(PATIENCE)
        sink.abort()
    assert sink.cut_short
    return sink


@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "webm (AV1)", "mkv (FFV1)"])
def test_cut_short_video_is_that_of_a_clip_that_ends_there(tmp_path: Path, name: str) -> None:
    frames = pictures(12, 64, 96, 4 if name in ("webm (VP9)", "mkv (FFV1)") else 3)
    short = cut_short(tmp_path, name, frames)
    whole = VideoSink(
        OutputNames(tmp_path, "b"),
        fps=24,
        video=short.video,
        preset="ultrafast",
        metadata=TAGS,
        sound=clicks(2, 48_000, 60),
    )
    save(whole, frames)

    assert abs(len(heard(short.path)[0]) - 24_000) <= 3
    assert streams(short.path) == streams(whole.path)
    assert shown(short.path) == shown(whole.path) and len(shown(short.path)) == 12
    # In Matroska, that is what browsers look at: AlphaMode is 1.
    assert (b"\x53\xc0\x81\x01" in short.path.read_bytes()) == (name == "webm (VP9)")
    tags = [{key.upper(): text for key, text in tags_of(sink.path).items()} for sink in (short, whole)]
    assert tags[0] == tags[1] and tags[0].items() >= TAGS.items()


@pytest.mark.parametrize("channels", [7, 8])
@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)", "mov (ProRes 422 HQ)", "mov (DNxHR HQ)"])
def test_more_channels_than_comfyui_can_read_are_mixed(tmp_path: Path, name: str, channels: int) -> None:
    sink = VideoSink(
        OutputNames(tmp_path, "a"),
        fps=24,
        video=VIDEO_FORMATS[name],
        sound=clicks(channels, 48_000, 1),
    )
    # The least of DNxHR, as the format wants its samples.
    clip = Clip(height=120, width=256, channels=3, frames=24)
    wanted = torch.zeros(24, *clip.frame_shape(sink.pixel_format), dtype=sink.pixel_format.dtype)
    sink.open(clip, Recorder())
    sink.write(wanted.numpy(), 0).result(PATIENCE)
    sink.close()

    got, _, _ = heard(sink.path)
    assert got.shape[1] == 6 and abs(len(got) - 48_000) <= 3
    assert any(note.startswith(f"the {channels} channels of sound were mixed into 6") for note in sink.notes)


@pytest.mark.parametrize("channels", [9, 16, 24, 257])
@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)", "mov (ProRes 422 HQ)"])
def test_channels_of_no_known_layout_are_mixed_in_pairs(tmp_path: Path, name: str, channels: int) -> None:
    samples = np.zeros((channels, 48_000), np.float32)
    samples[0::2] = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000) / 2
    sink = VideoSink(
        OutputNames(tmp_path, "a"),
        fps=24,
        video=replace(VIDEO_FORMATS[name], frames=PixelFormat.UINT8),
        sound=Sound(samples, 48_000),
    )
    with nothing_survives(tmp_path):
        save(sink, pictures(24, 64, 96))

    got, _, _ = heard(sink.path)
    assert got.shape[1] == 2 and abs(len(got) - 48_000) <= 3
    # The last of an odd number is heard on both sides.
    wanted = [0.5, 0.5 / (channels // 2 + 1) if channels % 2 else 0]
    assert np.allclose(np.abs(got[20_000:30_000]).max(axis=0), wanted, atol=0.02)
    (note,) = [note for note in sink.notes if "sound" in note]
    assert note.startswith(f"the {channels} channels of sound were mixed into 2")


@pytest.mark.parametrize("rate", [1000, 768_000])
@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)", "mov (ProRes 422 HQ)"])
def test_the_least_and_the_highest_rate_are_heard(tmp_path: Path, name: str, rate: int) -> None:
    tone = np.sin(2 * np.pi * 100 * np.arange(rate) / rate, dtype=np.float32)[None] / 2
    video = replace(VIDEO_FORMATS[name], frames=PixelFormat.UINT8)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=video, sound=Sound(tone, rate))
    save(sink, pictures(24, 64, 96))

    got, got_rate, _ = heard(sink.path)
    assert abs(len(got) / got_rate - 1) <= 2 / 1000
    assert abs(np.sqrt((got[got_rate // 4 : got_rate // 2] ** 2).mean()) - 0.5 / np.sqrt(2)) < 0.05


@pytest.mark.parametrize("seconds", [0.4, 60.0])
@pytest.mark.parametrize("name", [name for name, video in VIDEO_FORMATS.items() if video.sound is not None])
def test_sound_is_as_long_as_frames_that_nobody_had_counted(tmp_path: Path, name: str, seconds: float) -> None:
    # The least of DNxHR.
    frames = pictures(25, 120, 256)
    sink = VideoSink(
        OutputNames(tmp_path, "a"),
        fps=Fraction(24000, 1001),
        video=VIDEO_FORMATS[name],
        preset="ultrafast",
        stand_in=StandIn(PixelFormat.UINT8),
        sound=clicks(2, 48_000, seconds),
    )
    with nothing_survives(tmp_path):
        sink.open(replace(clip_of(frames), frames=None), Recorder())
        sink.write(frames, 0).result(PATIENCE)
        sink.close()

    got, rate, _ = heard(sink.path)
    assert abs(len(got) / rate - 25 * 1001 / 24000) <= 2 / rate
    assert len(shown(sink.path)) == 25 and sink.notes == []


@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)"])
def test_sound_that_cannot_be_encoded_costs_the_sound_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    video = replace(VIDEO_FORMATS[name], sound=("-c:a", "no_such_codec"))
    frames = pictures(25, 64, 96)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=video, sound=clicks(2, 48_000, 2), metadata=TAGS)
    with nothing_survives(tmp_path):
        save(sink, frames)

    assert list(tmp_path.iterdir()) == [sink.path] and not sink.cut_short
    assert len(shown(sink.path)) == 25 and not any("Audio" in stream for stream in streams(sink.path))
    (note,) = sink.notes
    assert note.startswith("the sound was left out: ffmpeg") and "no_such_codec" in note


@pytest.mark.parametrize("name", ["mp4 (H.264)", "webm (VP9)", "mkv (FFV1)", "mov (ProRes 422 HQ)"])
def test_huge_samples_are_as_loud_as_sound_can_be(tmp_path: Path, name: str) -> None:
    samples = np.full((1, 48_000), 1e20, np.float32)
    samples[0, ::2] = -3e38
    sink = VideoSink(
        OutputNames(tmp_path, "a"),
        fps=24,
        video=VIDEO_FORMATS[name],
        stand_in=StandIn(PixelFormat.UINT8),
        sound=Sound(samples, 48_000),
    )
    save(sink, pictures(24, 64, 96))

    assert sink.notes == [] and abs(len(heard(sink.path)[0]) - 48_000) <= 3


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(5, np.float32), 48_000, r"\(channels, samples\) float32, got \(5,\)"),
        (np.zeros((2, 5)), 48_000, "float64"),
        (np.zeros((0, 5), np.float32), 48_000, "the sound is empty: it has 0 channels of 5 samples"),
        (np.zeros((2, 0), np.float32), 48_000, "the sound is empty: it has 2 channels of 0 samples"),
        (np.zeros((2, 5), np.float32), 0, "sample rate from 1000 to 768000 Hz, got 0"),
        (np.zeros((2, 5), np.float32), 999, "sample rate from 1000 to 768000 Hz, got 999"),
        (np.zeros((2, 5), np.float32), 1_000_000, "sample rate from 1000 to 768000 Hz, got 1000000"),
    ],
)
def test_sound_that_is_none_is_refused(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sound(samples, rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trim_to_sound": True}, "trim_to_sound needs sound"),
        ({"repeats": -1}, "0 or more repeats, got -1"),
        ({"video": VIDEO_FORMATS["gif"], "fps": Fraction(60)}, "at most 50 frames a second for gif.*got 60"),
        ({"video": VIDEO_FORMATS["mp4 (AV1)"], "fps": 300}, "at most 240 frames a second for av1.*got 300"),
        ({"video": VIDEO_FORMATS["mp4 (AV1)"], "crf": 0}, "crf must be from 1 to 63 for av1, got 0"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoSink(OutputNames(tmp_path, "a"), **{"fps": 24, **options})


@pytest.mark.parametrize(
    ("name", "size", "limit"),
    [
        ("mp4 (AV1)", (48, 32), "at least 64x64 for av1"),
        ("mp4 (AV1)", (64, 8706), "at most 16384x8704 for av1"),
        ("mp4 (H.264)", (16512, 64), "at most 16384x16384 for h264"),
        ("mp4 (H.264 4:4:4)", (64, 16512), "at most 16384x16384 for h264-444"),
        ("mp4 (H.265)", (14, 64), "at least 16x16 for h265"),
        ("mkv (FFV1)", (64, 1), "at least 2x2 for ffv1"),
        ("webp (animated)", (16384, 16), "at most 16383x16383 for webp"),
    ],
)
def test_frames_of_a_size_that_the_codec_has_not_are_refused(
    tmp_path: Path, name: str, size: tuple[int, int], limit: str
) -> None:
    width, height = size
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=VIDEO_FORMATS[name])
    message = f"expected frames of {limit}, got {width}x{height}; choose another format"
    with nothing_survives(tmp_path), pytest.raises(SinkError, match=message):
        sink.open(Clip(height=height, width=width, channels=3), Recorder())


def test_nan_in_the_sound_is_silence_and_told(tmp_path: Path) -> None:
    samples = np.full((1, 4800), np.nan, np.float32)
    samples[0, :2400] = np.inf
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=10, video=FFV1, sound=Sound(samples, 48_000))
    save(sink, pictures(1))

    got, _, _ = heard(sink.path)
    assert np.abs(got[:2400] - 1).max() < 1e-6 and not got[2400:].any()
    assert [note for note in sink.notes if note.startswith("the sound holds NaN, which is silent in the file")]


def test_sound_that_is_only_too_loud_has_no_nan_to_be_told(tmp_path: Path) -> None:
    sink = VideoSink(
        OutputNames(tmp_path, "a"), fps=10, video=FFV1, sound=Sound(np.full((2, 480), 3e38, np.float32), 48_000)
    )
    save(sink, pictures(1))

    assert not sink.notes
