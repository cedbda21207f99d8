"""AVIF files hold the frames in as many bits as they say, and the metadata where ComfyUI's front end reads it."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from async_decode import Clip, FramePipeline, Recorder, SinkError
from async_decode.device.conversion import FinishedFrames
from async_decode.errors import Cancelled
from async_decode.frames import PixelFormat
from async_decode.sinks import Avif10Encoder, AvifEncoder, ImageFilesSink
from async_decode.sinks.ffmpeg import run_piped
from async_decode.sinks.files import OutputNames
from async_decode.sinks.image import avif
from tests.engine.sink_tools import PATIENCE, nothing_survives, psnr, run_ffmpeg

METADATA = {
    "prompt": json.dumps({"1": {"inputs": {"text": "é 漢 \\ \n"}}}),
    "workflow": json.dumps({"nodes": list(range(5000))}),
}
ENCODERS = [
    pytest.param(AvifEncoder, marks=pytest.mark.skipif(not avif.pillow_writes_avif(), reason="Pillow without AVIF")),
    pytest.param(
        Avif10Encoder, marks=pytest.mark.skipif(not avif.ffmpeg_writes_avif(), reason="ffmpeg without libaom")
    ),
]
Encoder = type[AvifEncoder] | type[Avif10Encoder]
both = pytest.mark.parametrize("encoder", ENCODERS)
ten_bits = pytest.mark.skipif(not avif.ffmpeg_writes_avif(), reason="ffmpeg without libaom")


def clip(frames: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Smooth frames ``(T, H, W, C)``, all different."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :channels]
    waves = 0.5 + 0.35 * np.sin(x / 23 + t / 3 + c) * np.cos(y / 31 + c / 2)
    return torch.from_numpy(waves.astype(np.float32))


def saved(folder: Path, encoder: AvifEncoder | Avif10Encoder, frames: torch.Tensor) -> list[Path]:
    sink = ImageFilesSink(OutputNames(folder, "a"), encoder, writers=2)
    with nothing_survives(folder), FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(frames)
    assert [path.name for path in sink.files] == [f"a_{number:05}_.avif" for number in range(1, len(frames) + 1)]
    return sink.files


def front_ends_texts(content: bytes) -> dict[str, object]:
    """What ComfyUI's front end finds, box by box as it looks for it."""

    def find(name: bytes, start: int, end: int) -> tuple[int, int]:
        while start + 8 <= end:
            (size,) = struct.unpack_from(">I", content, start)
            assert size and start + size <= end
            if content[start + 4 : start + 8] == name:
                return start + 8, start + size
            start += size
        raise AssertionError(f"no {name!r}")

    assert content[4:12] == b"ftypavif"
    start, end = find(b"meta", 0, len(content))
    at, _ = find(b"iinf", start + 4, end)
    (count,) = struct.unpack_from(">H", content, at + 4)
    at, wanted = at + 6, None
    for _ in range(count):
        size, kind, version, number = struct.unpack_from(">I4sIH", content, at)
        assert (kind, version >> 24) == (b"infe", 2)
        if content[at + 16 : at + 20] == b"Exif":
            wanted = number
        at += size
    if wanted is None:
        return {}
    at, _ = find(b"iloc", start + 4, end)
    version, sizes, base, count = struct.unpack_from(">IBBH", content, at)
    assert (version, sizes, base) == (0, 0x44, 0)
    extents = [struct.unpack_from(">HHHII", content, at + 8 + 14 * number) for number in range(count)]
    (exif,) = [content[offset : offset + size] for number, _, _, offset, size in extents if number == wanted]
    tiff = exif[min(place for mark in (b"MM\0*", b"II*\0") if (place := exif.find(mark)) >= 0) :]
    order = ">" if tiff.startswith(b"MM") else "<"
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    texts: dict[str, object] = {}
    for number in range(struct.unpack_from(f"{order}H", tiff, directory)[0]):
        _, kind, size, place = struct.unpack_from(f"{order}HHII", tiff, directory + 2 + 12 * number)
        if kind == 2:
            key, _, text = tiff[place : place + size - 1].decode().partition(":")
            texts[key] = json.loads(text)
    return texts


@both
def test_frames_come_back(tmp_path: Path, encoder: Encoder) -> None:
    frames = clip(3, 65, 99)

    wanted = (frames * 255).numpy()
    for number, path in enumerate(saved(tmp_path, encoder(quality=95), frames)):
        with Image.open(path, formats=["AVIF"]) as image:
            got = np.asarray(image.convert("RGB")).astype(float)
        quality = [psnr(got, frame) for frame in wanted]
        assert quality[number] == max(quality) > 40


@ten_bits
def test_ten_bits_are_finer_than_eight(tmp_path: Path) -> None:
    # A slope on which 8 bits have 26 steps.
    frames = torch.linspace(0.4, 0.5, 512).reshape(1, 1, 512, 1).expand(1, 64, 512, 3).contiguous()
    (path,) = saved(tmp_path, Avif10Encoder(quality=100), frames)

    told = run_ffmpeg("-i", path, check=False).stderr.decode()
    assert "yuv444p10le(tv, bt709/bt709/iec61966-2-1" in told and "512x64" in told
    raw = run_ffmpeg("-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-").stdout
    luma = np.frombuffer(raw, "<u2").reshape(3, 64, 512)[0]
    assert len(np.unique(luma)) > 60
    assert np.abs(luma.mean(axis=0) - (64 + 876 * frames[0, 0, :, 0].numpy())).max() < 2


@pytest.mark.skipif(not avif.pillow_writes_avif(), reason="Pillow without AVIF")
def test_alpha_is_kept_in_eight_bits(tmp_path: Path) -> None:
    frames = clip(1, 64, 64, 4)
    frames[..., 3] = torch.linspace(0, 1, 64)
    (path,) = saved(tmp_path, AvifEncoder(), frames)

    with Image.open(path) as image:
        assert image.mode == "RGBA"
        assert np.abs(np.asarray(image)[..., 3] - frames[0, ..., 3].numpy() * 255).max() < 8


@ten_bits
def test_alpha_is_left_out_of_ten_bits_and_the_report_says_so(tmp_path: Path) -> None:
    frames = clip(2, 33, 65, 4)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), Avif10Encoder())
    with FramePipeline([sink], finish=FinishedFrames(), total_frames=2) as pipeline:
        pipeline.submit(frames)

    assert [warning for warning in pipeline.report.warnings if "alpha" in warning] == [
        "avif 10-bit has no alpha: it was left out; png and webp files keep it"
    ]
    for path, frame in zip(sink.files, frames, strict=True):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (65, 33))
            assert psnr(np.asarray(image).astype(float), (frame[..., :3] * 255).numpy()) > 40


@both
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 130)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_is_a_picture_of_that_size(
    tmp_path: Path, encoder: Encoder, size: tuple[int, int], channels: int
) -> None:
    frames = clip(1, *size, channels)
    (path,) = saved(tmp_path, encoder(metadata=METADATA), frames)

    with Image.open(path) as image:
        assert image.size == size[::-1]
        got = np.asarray(image.convert("RGB")).astype(float)
    assert np.abs(got - (frames[0] * 255).numpy()).mean() < 8


@both
def test_the_front_end_finds_prompt_and_workflow(tmp_path: Path, encoder: Encoder) -> None:
    (path,) = saved(tmp_path, encoder(metadata=METADATA), clip(1, 16, 16))

    assert front_ends_texts(path.read_bytes()) == {key: json.loads(text) for key, text in METADATA.items()}
    with Image.open(path) as image:
        # As an EXIF reader has it.
        assert image.getexif()[0x0110].encode("latin-1").decode() == "prompt:" + METADATA["prompt"]


@both
def test_no_metadata_is_no_exif(tmp_path: Path, encoder: Encoder) -> None:
    (path,) = saved(tmp_path, encoder(), clip(1, 16, 16))

    assert front_ends_texts(path.read_bytes()) == {}
    assert b"Exif" not in path.read_bytes()


@both
def test_quality_is_quality(tmp_path: Path, encoder: Encoder) -> None:
    frames = clip(1, 96, 128) + torch.randn(1, 96, 128, 3, generator=torch.Generator().manual_seed(0)) / 40
    sizes = [saved(tmp_path / str(q), encoder(quality=q), frames)[0].stat().st_size for q in (100, 80, 20)]

    assert sizes[0] > 1.3 * sizes[1] > 1.3 * 1.3 * sizes[2]


@pytest.mark.parametrize(
    ("encoder", "question", "remedy"),
    [
        (AvifEncoder, "pillow_writes_avif", "pip install --upgrade 'pillow>=11.3'"),
        (Avif10Encoder, "ffmpeg_writes_avif", "pip install --upgrade imageio-ffmpeg"),
    ],
)
def test_where_nothing_writes_it_the_remedy_is_told(
    encoder: Encoder, question: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avif, question, lambda: False)
    with pytest.raises(SinkError, match=remedy):
        encoder()


def test_an_ffmpeg_without_the_encoder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avif, "ask", lambda *_: " V....D libx264  libx264 H.264")
    assert not avif.ffmpeg_writes_avif.__wrapped__()
    monkeypatch.setattr(avif, "ask", lambda *_: " V....D libaom-av1           libaom AV1 (codec av1)")
    assert avif.ffmpeg_writes_avif.__wrapped__()


@ten_bits
def test_an_abort_ends_an_ffmpeg_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working = threading.Event()

    def endless(arguments: list[str], data: memoryview, *, poll: object) -> bytes:
        # In place of a picture that would take long.
        def noticed() -> None:
            working.set()
            poll()  # type: ignore[operator]

        forever = ["-re", "-f", "lavfi", "-i", "testsrc=d=1000", "-f", "null", "-"]
        return run_piped(forever, b"", poll=noticed)

    monkeypatch.setattr(avif, "run_piped", endless)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), Avif10Encoder(), writers=1)
    with nothing_survives(tmp_path):
        sink.open(Clip(8, 8, 3, 1), Recorder())
        frame = np.full((1, *Clip(8, 8, 3).frame_shape(PixelFormat.YUV444_10)), 512, np.uint16)
        taken = sink.write(frame, 0)
        assert working.wait(PATIENCE)

        sink.abort()

    assert isinstance(taken.exception(), Cancelled)
    assert list(tmp_path.iterdir()) == []
