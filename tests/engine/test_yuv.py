"""Y'CbCr that is made on the device: the standard's values, rounded once, and what ffmpeg would make of the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from async_decode import Clip, DecoderOutput, FinishedFrames, FramePipeline, PixelFormat
from async_decode.sinks import VIDEO_FORMATS, PreviewSink, VideoSink
from async_decode.sinks.files import OutputNames
from async_decode.sinks.video.arguments import _conversion
from tests.engine.sink_tools import pictures, psnr, run_ffmpeg
from tests.engine.test_sink_video import rgb_of
from tests.engine.toy import CollectSink, stock_bytes

PLANAR = [name for name in PixelFormat if name.planes is not None]


def planes_of(frames: torch.Tensor, name: PixelFormat) -> list[np.ndarray]:
    """The planes ``(T, lines, columns)`` that the pipeline makes of ``frames``: Y, Cb, Cr and perhaps alpha."""
    sink = CollectSink(name)
    with FramePipeline([sink], chunk_size=3, finish=FinishedFrames()) as pipeline:
        pipeline.submit(frames)
    planes, samples = name.planes, sink.frames.reshape(len(frames), -1)
    assert planes is not None
    height = -(-frames.shape[1] // planes.down) * planes.down
    width = -(-frames.shape[2] // planes.across) * planes.across
    chroma = (height // planes.down, width // planes.across)
    found = []
    for size in [(height, width), chroma, chroma, (height, width)]:
        if samples.shape[1]:
            found.append(samples[:, : size[0] * size[1]].reshape(-1, *size))
            samples = samples[:, size[0] * size[1] :]
    assert samples.shape[1] == 0
    return found


def exact(frames: torch.Tensor, name: PixelFormat) -> list[np.ndarray]:
    """Rec. ITU-R BT.709-6, in double precision and without any rounding."""
    planes = name.planes
    assert planes is not None
    rgb = frames.double().numpy()
    rgb = stock_bytes(frames).astype(float) / 255 if planes.bits == 8 else np.clip(rgb, 0, 1)
    pad = (-rgb.shape[1] % planes.down, -rgb.shape[2] % planes.across)
    rgb = np.pad(rgb, ((0, 0), (0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
    red, green, blue = np.moveaxis(rgb[..., :3], -1, 0) if rgb.shape[-1] > 1 else [rgb[..., 0]] * 3
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    unit, top = 2 ** (planes.bits - 8), 2**planes.bits - 1
    low, high, span = (0, top, top) if planes.full_range else (16 * unit, 219 * unit, 224 * unit)
    found = [luma * high + low]
    for difference in ((blue - luma) / 1.8556, (red - luma) / 1.5748):
        found.append(np.minimum(_shared(difference, planes.across, planes.down) * span + 128 * unit, top))
    if planes.alpha and rgb.shape[-1] == 4:
        found.append(rgb[..., 3] * top)
    return found


def _shared(plane: np.ndarray, across: int, down: int) -> np.ndarray:
    if across == down:
        count, height, width = plane.shape
        return plane.reshape(count, height // down, down, width // across, across).mean(axis=(2, 4))
    wide = np.pad(plane, ((0, 0), (0, 0), (1, 0)), mode="edge")
    return (wide[..., :-1:2] + 2 * wide[..., 1::2] + wide[..., 2::2]) / 4


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", PLANAR)
@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_sample_is_the_standards_rounded_once(
    name: PixelFormat, channels: int, height: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(4, height, width, channels, generator=generator) * 1.1 - 0.05
    frames[0] = torch.randint(0, 2, frames.shape[1:], generator=generator).float()

    got, wanted = planes_of(frames, name), exact(frames, name)

    assert len(got) == len(wanted) == (4 if name is PixelFormat.YUV444_10 and channels == 4 else 3)
    for plane, ideal in zip(got, wanted, strict=True):
        # float32 adds next to nothing to the half step of rounding.
        assert np.abs(plane - ideal).max() <= 0.5 + 1e-3


def test_decoder_output_is_scaled_first() -> None:
    piece = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sinks = CollectSink(PixelFormat.YUV420), CollectSink(PixelFormat.UINT8), CollectSink()
    with FramePipeline(sinks, finish=DecoderOutput()) as pipeline:
        pipeline.submit(piece)

    frames = torch.from_numpy(sinks[2].frames)
    assert np.array_equal(sinks[1].frames, stock_bytes(frames))
    for plane, ideal in zip(planes_of(frames, PixelFormat.YUV420), exact(frames, PixelFormat.YUV420), strict=True):
        assert np.abs(plane - ideal).max() <= 0.501
    assert sinks[0].frames.tobytes() == b"".join(
        plane[index].tobytes() for index in range(5) for plane in planes_of(frames, PixelFormat.YUV420)
    )


@pytest.mark.parametrize("size", [(64, 96), (63, 97)])
def test_within_one_step_of_ffmpeg(size: tuple[int, int]) -> None:
    narrow = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    frames = (torch.from_numpy(narrow.astype(np.float32)) + 1e-3) / 255
    ours = planes_of(frames, PixelFormat.YUV420)

    height, width = ours[0].shape[1:]
    padded = np.pad(narrow, ((0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0)), mode="edge")
    source = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}", "-i", "pipe:0"]
    conversion = _conversion(VIDEO_FORMATS["mp4 (H.264)"], PixelFormat.UINT8)
    target = ["-vf", conversion, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    raw = run_ffmpeg("-v", "error", *source, *target, data=padded.tobytes()).stdout
    theirs = np.frombuffer(raw, np.uint8).reshape(3, -1)

    mine = np.concatenate([plane.reshape(3, -1) for plane in ours], axis=1)
    assert np.abs(mine.astype(int) - theirs).max() <= 1
    # They differ where a value is next to the middle between two steps.
    assert np.mean(mine != theirs) < 0.05


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_file_is_as_good_as_from_rgb(tmp_path: Path, channels: int) -> None:
    narrow = pictures(9, 65, 97, channels, noise=3)
    frames = (torch.from_numpy(narrow.astype(np.float32)) + 1e-3) / 255
    quality, sizes = [], []
    for converted in (False, True):
        sink = VideoSink(OutputNames(tmp_path, str(converted)), fps=24, crf=4, convert_on_device=converted)
        with FramePipeline([sink], finish=FinishedFrames(), total_frames=9) as pipeline:
            pipeline.submit(frames)
        wanted = narrow[..., :3] if channels > 1 else narrow.repeat(3, axis=-1)
        quality.append(psnr(rgb_of(sink.path, (98, 66))[:, :65, :97], wanted))
        sizes.append(sink.path.stat().st_size)
        assert any("alpha" in note for note in sink.notes) == (channels == 4)

    assert abs(quality[0] - quality[1]) < 0.3 and quality[0] > 37
    assert abs(sizes[0] - sizes[1]) < 0.1 * sizes[0]


@pytest.mark.parametrize("name", PLANAR)
def test_preview_shows_the_pixels(name: PixelFormat) -> None:
    narrow = pictures(2, 45, 67, noise=1)
    preview = PreviewSink(interval=0)
    with FramePipeline([CollectSink(name), preview], finish=FinishedFrames()) as pipeline:
        pipeline.submit((torch.from_numpy(narrow.astype(np.float32)) + 1e-3) / 255)

    shown = preview.take()
    assert shown is not None and shown.size == (67, 45)
    assert psnr(np.asarray(shown), narrow[-1]) > 35


def test_half_as_many_bytes() -> None:
    clip = Clip(height=720, width=1280, channels=3)
    assert clip.frame_bytes(PixelFormat.YUV420) * 2 == clip.frame_bytes(PixelFormat.UINT8)
    assert clip.frame_bytes(PixelFormat.YUV420_10) * 2 == clip.frame_bytes(PixelFormat.UINT16)
