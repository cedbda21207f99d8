"""Every video format, from the same 25 frames: what the file says of itself, and what comes back out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from async_decode import FinishedFrames, FramePipeline
from async_decode.sinks import VIDEO_FORMATS, Sound, VideoSink
from async_decode.sinks.ffmpeg import find_ffmpeg, major_version
from async_decode.sinks.files import OutputNames
from async_decode.sinks.video.format import Tags
from tests.engine.sink_tools import (
    exif_texts,
    needs_encoder,
    nothing_survives,
    old_ffmpeg,
    pictures,
    psnr,
    run_ffmpeg,
)
from tests.engine.test_sink_video import tags_of

FRAMES = 25
RATE = Fraction(24000, 1001)
SIZES = [(96, 72), (97, 67)]
#: Where the sound has its one click, in seconds.
CLICK = 0.25
TAGS = {"PROMPT": '{"a": "b=c; #é"}', "WORKFLOW": "w" * 5000}
BT709 = "bt709/bt709/iec61966-2-1"
BT2020 = "bt2020nc/bt2020"


@dataclass(frozen=True)
class Wanted:
    """What a format's files are.

    Attributes:
        codec: ffmpeg's name of it; pixels: the pixel format with its colours.
        psnr: what frames that are read back have at least, in dB, at the format's default quality.
        sound: codec of the sound.
        alpha: alpha comes back.
    """

    codec: str
    pixels: str
    psnr: float
    sound: str | None = None
    alpha: bool = False


WANTED = {
    "mp4 (H.264)": Wanted("h264", f"yuv420p(tv, {BT709}, progressive, center)", 33, "aac"),
    "mp4 (H.264 4:4:4)": Wanted("h264", f"yuvj444p(pc, {BT709}, progressive, left)", 34, "aac"),
    "mp4 (H.265)": Wanted("hevc", f"yuv420p(tv, {BT709}, progressive, center)", 31, "aac"),
    "mp4 (H.265 10-bit)": Wanted("hevc", f"yuv420p10le(tv, {BT709}, progressive, center)", 31, "aac"),
    "mp4 (H.265 HDR)": Wanted("hevc", f"yuv420p10le(tv, {BT2020}/arib-std-b67, progressive, center)", 31, "aac"),
    "mp4 (H.265 HDR PQ)": Wanted("hevc", f"yuv420p10le(tv, {BT2020}/smpte2084, progressive, center)", 31, "aac"),
    "mp4 (AV1)": Wanted("av1", f"yuv420p(tv, {BT709}, progressive)", 35, "aac"),
    "mp4 (AV1 10-bit)": Wanted("av1", f"yuv420p10le(tv, {BT709}, progressive)", 35, "aac"),
    "mp4 (AV1 HDR)": Wanted("av1", f"yuv420p10le(tv, {BT2020}/arib-std-b67, progressive)", 35, "aac"),
    "mp4 (AV1 HDR PQ)": Wanted("av1", f"yuv420p10le(tv, {BT2020}/smpte2084, progressive)", 35, "aac"),
    "webm (VP9)": Wanted("vp9", f"yuv420p(tv, {BT709}, progressive)", 34, "opus", alpha=True),
    "webm (AV1)": Wanted("av1", f"yuv420p(tv, {BT709}, progressive)", 35, "opus"),
    "webm (AV1 10-bit)": Wanted("av1", f"yuv420p10le(tv, {BT709}, progressive)", 35, "opus"),
    "mkv (FFV1)": Wanted("ffv1", f"bgr0(pc, gbr/{BT709[6:]}, progressive)", np.inf, "flac", alpha=True),
    "mov (ProRes 422 HQ)": Wanted("prores", "yuv422p10le(tv, bt709, progressive)", 36, "pcm_s24le"),
    "mov (ProRes 4444)": Wanted("prores", "yuv444p12le(tv, bt709, progressive)", 49, "pcm_s24le", alpha=True),
    "mov (ProRes 4444 XQ)": Wanted("prores", "yuv444p12le(tv, bt709, progressive)", 49, "pcm_s24le", alpha=True),
    "mov (DNxHR HQ)": Wanted("dnxhd", "yuv422p(tv, bt709)", 36, "pcm_s24le"),
    "mov (DNxHR HQX)": Wanted("dnxhd", "yuv422p10le(tv, bt709)", 36, "pcm_s24le"),
    "mov (DNxHR 444)": Wanted("dnxhd", "yuv444p10le(tv, bt709)", 40, "pcm_s24le"),
    "gif": Wanted("gif", "bgra", 31),
    "webp (animated)": Wanted("webp_anim", "argb", 31, alpha=True),
}


def clip(size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """The frames, ``(T, H, W, C)`` in 8 bits."""
    width, height = size
    return pictures(FRAMES, height, width, channels, noise=3)


def save(sink: VideoSink, frames: np.ndarray) -> None:
    """Let ``sink`` take 8-bit frames as it wants them; the pipeline makes that of floats."""
    with FramePipeline([sink], finish=FinishedFrames(), total_frames=len(frames)) as pipeline:
        # A little more than the fraction, which might be cut down to the byte below.
        pipeline.submit((torch.from_numpy(frames.astype(np.float32)) + 1e-3) / 255)


def click() -> Sound:
    """Six seconds of silence with a click, which is more than the clip is long."""
    samples = np.zeros((2, 6 * 44100), np.float32)
    samples[:, round(CLICK * 44100)] = 0.9
    return Sound(samples, 44100)


def read(path: Path, pixel_format: str, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Every frame that is in the file, none doubled and none left out to keep a rate."""
    arguments = ["-map", "0:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", pixel_format, "-"]
    raw = run_ffmpeg("-v", "error", "-i", path, *arguments).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], channels)


def times(path: Path) -> tuple[list[int], Fraction]:
    """When each frame is shown, in ticks, in order, and how long a tick is, in seconds."""
    text = run_ffmpeg("-v", "error", "-i", path, "-map", "0:v", "-c", "copy", "-f", "framehash", "-").stdout.decode()
    base = re.search(r"#tb 0: (\d+/\d+)", text)
    assert base is not None, text
    return sorted(int(line.split(",")[2]) for line in text.splitlines() if line[0] != "#"), Fraction(base[1])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", VIDEO_FORMATS)
def test_file_is_what_its_format_says(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    video, wanted = VIDEO_FORMATS[name], WANTED[name]
    needs_encoder(video.encoder)
    if video.muxer == "webm" and old_ffmpeg():
        pytest.skip("ffmpeg 4 begins a WebM with sound 7 ms late")
    # Large enough for every codec, and as odd.
    size = tuple(side + (200 if video.encoder == "dnxhd" else 0) for side in size)
    frames = clip(size)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, video=video, preset="veryfast", metadata=TAGS, sound=click())

    with nothing_survives(tmp_path):
        save(sink, frames)

    assert sink.path == tmp_path / f"a_00001_{video.extension}" and list(tmp_path.iterdir()) == [sink.path]
    text = run_ffmpeg("-v", "verbose", "-i", sink.path, check=False).stderr.decode()
    stream = re.search(r"Stream #0:0.*?: Video: (\w+).*?, (\w+(?:\([^()]*\))?), (\d+)x(\d+)", text)
    assert stream is not None, text
    width, height = (-(-side // unit) * unit for side, unit in zip(size, video.unit, strict=True))
    # An old ffmpeg states less about colours.
    got_pixels, wanted_pixels = (
        text.partition("(")[0] if old_ffmpeg() else text for text in (stream[2], wanted.pixels)
    )
    assert (stream[1], got_pixels, int(stream[3]), int(stream[4])) == (wanted.codec, wanted_pixels, width, height)

    shown, tick = times(sink.path)
    assert len(shown) == FRAMES and shown[0] == 0
    # A container whose ticks are too coarse for the rate is right to half a tick; ffmpeg cuts WebP's delays down.
    limit = tick if video.muxer == "webp" else tick / 2
    assert all(abs(when * tick - number / RATE) <= limit for number, when in enumerate(shown))
    if video.muxer in ("mp4", "mov"):
        assert all(when * tick == number / RATE for number, when in enumerate(shown))

    got = read(sink.path, "rgb24", 3, (width, height))
    assert got.shape == (FRAMES, height, width, 3)
    padded = np.pad(frames, ((0, 0), (0, height - size[1]), (0, width - size[0]), (0, 0)), mode="edge")
    for index in range(FRAMES):
        near = range(max(0, index - 3), min(FRAMES, index + 4))
        quality = {other: psnr(got[index], padded[other]) for other in near}
        assert quality[index] == max(quality.values()) >= wanted.psnr, (index, quality)

    if wanted.sound is None:
        assert "Audio:" not in text and any("sound was left out" in note for note in sink.notes)
    else:
        assert f"Audio: {wanted.sound}" in text
        # An old one's AAC ends some samples late, of 7.0 as well.
        if (major_version(find_ffmpeg()) or 8) > 7:
            check_sound(sink.path, text, wanted.sound)
    if video.tags is Tags.EXIF:
        assert set(exif_texts(sink.path).values()) == {f"{key}:{text}" for key, text in TAGS.items()}
    elif video.tags is Tags.CONTAINER:
        found = {key.upper(): value for key, value in tags_of(sink.path).items()}
        assert {key: found.get(key) for key in TAGS} == TAGS
    else:
        assert any("workflow were left out" in note for note in sink.notes)


# What ffmpeg 4 copied from fragments lacked its last frame at some of these.
@pytest.mark.parametrize(("frames", "fps"), [(1, 24), (2, 24), (4, 24), (7, 30), (5, 16), (97, 24)])
@pytest.mark.parametrize("name", ["mp4 (H.264)", "mp4 (H.264 4:4:4)", "mov (ProRes 422 HQ)", "mov (DNxHR HQ)"])
def test_any_number_of_frames(tmp_path: Path, name: str, frames: int, fps: int) -> None:
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=fps, video=VIDEO_FORMATS[name], preset="ultrafast")
    save(sink, pictures(frames, 120, 256))

    told = run_ffmpeg("-v", "error", "-i", sink.path, "-fps_mode", "passthrough", "-f", "framehash", "-").stdout
    assert len([line for line in told.splitlines() if not line.startswith(b"#")]) == frames == sink.frames
    assert sink.notes == []
    assert b"moof" not in sink.path.read_bytes()


def test_sound_stays_with_each_ffmpeg(tmp_path: Path) -> None:
    # Of 7.0, the statistics do not tell how many frames were copied.
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, sound=Sound(np.zeros((1, 24_000), np.float32), 24_000))
    save(sink, pictures(24, 64, 96))

    assert sink.notes == []
    assert "Audio: aac" in run_ffmpeg("-i", sink.path, check=False).stderr.decode()


def check_sound(path: Path, text: str, codec: str) -> None:
    """The sound is as long as the video and begins with it."""
    rate = int(re.findall(r"Audio: .*?(\d+) Hz, stereo", text)[0])
    raw = run_ffmpeg("-v", "error", "-i", path, "-map", "0:a", "-f", "f32le", "-").stdout
    heard = np.frombuffer(raw, np.float32).reshape(-1, 2)
    assert abs(len(heard) / rate - FRAMES / RATE) <= 2 / rate
    assert np.abs(np.abs(heard).argmax(axis=0) / rate - CLICK).max() <= 2 / rate
    if codec in ("flac", "pcm_s24le"):
        assert np.abs(np.abs(heard).max(axis=0) - 0.9).max() < 1e-6
    begins = re.search(r"Duration: .*?, start: ([\d.]+)", text)
    assert begins is not None and abs(float(begins[1])) < 0.01


@pytest.mark.parametrize("name", [name for name, wanted in WANTED.items() if wanted.alpha])
def test_alpha_is_kept(tmp_path: Path, name: str) -> None:
    video = VIDEO_FORMATS[name]
    if video.encoder == "libvpx-vp9" and old_ffmpeg():
        pytest.skip("ffmpeg 4 states no length for a WebM's last frame")
    frames = clip((96, 72), channels=4)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, video=video, preset="veryfast", crf=4)
    save(sink, frames)

    assert sink.notes == []
    decoder = ["-c:v", "libvpx-vp9"] if video.encoder == "libvpx-vp9" else []
    raw = run_ffmpeg("-v", "error", *decoder, "-i", sink.path, "-f", "rawvideo", "-pix_fmt", "rgba", "-").stdout
    got = np.frombuffer(raw, np.uint8).reshape(FRAMES, 72, 96, 4)
    assert all(psnr(got[index, ..., 3], frames[index, ..., 3]) > 38 for index in range(FRAMES))
    if name == "mkv (FFV1)":
        assert np.array_equal(got, frames)


def test_gif_shows_what_is_at_least_half_opaque(tmp_path: Path) -> None:
    frames = clip((96, 72), channels=4)
    frames[..., 3] = 127
    frames[:, :40, :30, 3] = 129
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, video=VIDEO_FORMATS["gif"])
    save(sink, frames)

    assert sink.notes == ["what is at least half opaque is shown, the rest is not: gif knows no shades of alpha"]
    got = read(sink.path, "rgba", 4, (96, 72))
    opaque = np.zeros((72, 96), bool)
    opaque[:40, :30] = True
    assert got.shape[0] == FRAMES
    assert all(np.array_equal(frame[..., 3], np.where(opaque, 255, 0)) for frame in got)
    assert all(psnr(got[index][opaque][:, :3], frames[index][opaque][:, :3]) > 28 for index in range(FRAMES))


def transparent(case: str) -> np.ndarray:
    """A clip whose left half, or another part, is transparent in some frames."""
    frames = clip((96, 72), channels=4)
    if "still" in case:
        frames[:] = frames[0]
    if "noise" in case:
        frames[:] = np.random.default_rng(0).integers(0, 256, frames.shape)
    frames[..., 3] = 255
    if "moving" in case:
        for index, frame in enumerate(frames):
            frame[:, index % 6 * 10 :][:, :30, 3] = 0
    elif "never" not in case:
        which = {"late": slice(3, None), "first": slice(3), "between": slice(2, 4)}[case.split(",")[0]]
        frames[which, :, :48, 3] = 0
    return frames


@pytest.mark.parametrize("name", ["gif", "webp (animated)"])
@pytest.mark.parametrize(
    "case",
    ["late", "late, still", "late, noise", "first", "between", "between, still", "moving", "never", "never, still"],
)
def test_what_is_transparent_in_some_frames_only(tmp_path: Path, name: str, case: str) -> None:
    frames = transparent(case)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, video=VIDEO_FORMATS[name])
    save(sink, frames)

    with Image.open(sink.path) as file:
        got = np.stack([np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(file)])
    # Still frames are one that is shown for longer.
    wanted = frames if len(got) == FRAMES else frames[np.flatnonzero(np.diff(frames[..., 3].sum((1, 2)), prepend=-1))]
    assert len(got) == len(wanted)
    wrong = [index for index, frame in enumerate(got) if not np.array_equal(frame[..., 3], wanted[index, ..., 3])]
    assert wrong == []
    seen = wanted[..., 3] > 0
    assert psnr(got[seen][:, :3], wanted[seen][:, :3]) > (12 if "noise" in case else 26)


@pytest.mark.parametrize(
    "name",
    ["mp4 (H.265 10-bit)", "mp4 (H.265 HDR)", "mp4 (AV1 10-bit)", "mp4 (AV1 HDR PQ)", "mov (ProRes 4444)"],
)
def test_more_than_8_bits_keep_what_8_bits_lose(tmp_path: Path, name: str) -> None:
    needs_encoder(VIDEO_FORMATS[name].encoder)
    # A dark gradient of 12 steps of 8 bits, which holds 48 of 10.
    ramp = np.linspace(0.10, 0.147, 128)[None, None, :, None]
    frames = np.broadcast_to(ramp, (5, 72, 128, 3))
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=RATE, video=VIDEO_FORMATS[name], crf=5)
    with FramePipeline([sink], finish=FinishedFrames(), total_frames=5) as pipeline:
        pipeline.submit(torch.from_numpy(frames.astype(np.float32)))

    raw = run_ffmpeg("-v", "error", "-i", sink.path, "-f", "rawvideo", "-pix_fmt", "rgb48le", "-").stdout
    got = np.frombuffer(raw, np.uint16).reshape(frames.shape) / 65535
    assert len(np.unique(got[2, 36, :, 1])) > 30
    # Half a step of 8 bits.
    assert np.abs(got[2, 36] - frames[2, 36]).max() < 0.002


@pytest.mark.parametrize("channels", [1, 3])
def test_ffv1_is_exact(tmp_path: Path, channels: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 33, 47, channels), np.uint8)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=VIDEO_FORMATS["mkv (FFV1)"])
    save(sink, frames)

    assert np.array_equal(read(sink.path, "gray" if channels == 1 else "rgb24", channels, (47, 33)), frames)


def test_h264_444_at_crf_0_is_within_a_step(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 64, 96, 3), np.uint8)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=VIDEO_FORMATS["mp4 (H.264 4:4:4)"], crf=0)
    save(sink, frames)

    raw = run_ffmpeg("-v", "error", "-i", sink.path, "-f", "rawvideo", "-pix_fmt", "yuv444p", "-").stdout
    luma, blue, red = np.moveaxis(np.frombuffer(raw, np.uint8).reshape(7, 3, 64, 96).astype(float), 1, 0)
    r, b = luma + 1.5748 * (red - 128), luma + 1.8556 * (blue - 128)
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    got = np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, 255))
    assert np.abs(got - frames).max() <= 1


def test_webp_at_0_is_lossless(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), np.uint8)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=VIDEO_FORMATS["webp (animated)"], crf=0)
    save(sink, frames)

    assert np.array_equal(read(sink.path, "rgb24", 3, (96, 64)), frames)


def test_every_format_has_a_line_here() -> None:
    assert list(WANTED) == list(VIDEO_FORMATS)
