"""PNG and TIFF with 16 bits, and EXR: other programs read the very values that went in, and the metadata."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from async_decode import Clip, FramePipeline, SinkError
from async_decode.device.conversion import FinishedFrames
from async_decode.sinks import ExrEncoder, ImageEncoder, ImageFilesSink, Png16Encoder, TiffEncoder
from async_decode.sinks.files import OutputNames
from tests.engine.sink_tools import nothing_survives, run_ffmpeg, save

METADATA = {
    "prompt": json.dumps({"1": {"inputs": {"text": "é 漢 \\ \n"}}}),
    "workflow": json.dumps({"nodes": list(range(50_000))}),
    "note": "é 漢 𝄞",
    "a name of more than thirty-one bytes": "x",
}
#: Around the sizes of bands (256 KiB) and of EXR's blocks (16 lines).
SIZES = [(1, 1), (33, 47), (16, 16), (17, 5), (130, 701)]


def saved(folder: Path, encoder: ImageEncoder, frames: np.ndarray) -> list[Path]:
    sink = ImageFilesSink(OutputNames(folder, "a"), encoder, writers=2)
    with nothing_survives(folder):
        save(sink, frames)
    assert sink.files == [folder / f"a_{number:05}_{encoder.extension}" for number in range(1, len(frames) + 1)]
    return sink.files


def decoded(path: Path, pixels: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """What ffmpeg reads, ``(H, W, C)``; planar formats are in the order of their name, g b r a."""
    raw = run_ffmpeg("-v", "error", "-i", path, "-pix_fmt", pixels, "-f", "rawvideo", "-").stdout
    height, width, channels = shape
    if not pixels.startswith("gbr"):
        return np.frombuffer(raw, dtype).reshape(height, width, channels)
    planes = np.frombuffer(raw, dtype).reshape(channels, height, width)
    return planes[[2, 0, 1, 3][:channels]].transpose(1, 2, 0)


def decoded_exr(path: Path, shape: tuple[int, ...], *, half: bool) -> np.ndarray:
    """What ffmpeg reads, in the file's own type: its conversions cut off what is below 0 and above 1."""
    planes = {1: "gray", 3: "gbrp", 4: "gbrap"}[shape[2]]
    return decoded(path, planes + ("f16le" if half else "f32le"), "<f2" if half else "<f4", shape)


def noise(frames: int, size: tuple[int, int], channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 65536, (frames, *size, channels), np.uint16)


def slopes(frames: int, size: tuple[int, int], channels: int) -> np.ndarray:
    """Frames that compress well, with every kind of step up and down, from 0 to 65535."""
    t, y, x, c = np.ogrid[:frames, : size[0], : size[1], :channels]
    return ((t * 900 + y * 3001 + x * 257 * (c + 1)) % 65536).astype(np.uint16)


@pytest.mark.parametrize("encoder", [Png16Encoder, TiffEncoder])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "pixels"), [(1, "gray16le"), (3, "rgb48le"), (4, "rgba64le")])
def test_every_one_of_16_bits_comes_back(
    tmp_path: Path,
    encoder: type[Png16Encoder] | type[TiffEncoder],
    size: tuple[int, int],
    channels: int,
    pixels: str,
) -> None:
    frames = np.concatenate([noise(1, size, channels), slopes(1, size, channels)])

    for frame, path in zip(frames, saved(tmp_path, encoder(metadata=METADATA), frames), strict=True):
        text = run_ffmpeg("-i", path, check=False).stderr.decode()
        assert pixels[:-2] in text, text
        assert np.array_equal(decoded(path, pixels, "<u2", frame.shape), frame)
        with Image.open(path) as image:
            image.load()
            assert image.size == size[::-1]


@pytest.mark.parametrize("encoder", [Png16Encoder, TiffEncoder])
@pytest.mark.parametrize("level", [0, 9])
def test_compression_is_compression(
    tmp_path: Path, encoder: type[Png16Encoder] | type[TiffEncoder], level: int
) -> None:
    frames = slopes(1, (64, 64), 3)
    (path,) = saved(tmp_path / str(level), encoder(compress_level=level), frames)

    assert np.array_equal(decoded(path, "rgb48le", "<u2", frames[0].shape), frames[0])
    assert (path.stat().st_size > frames.nbytes) == (level == 0)


def test_png16_has_the_text_chunks_of_png(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, Png16Encoder(metadata=METADATA), noise(1, (9, 9), 3))

    with Image.open(path) as image:
        assert image.text == METADATA
    assert path.read_bytes()[24] == 16


def test_png16_chunks_are_sound(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, Png16Encoder(), slopes(1, (500, 300), 4))

    content, kinds, at = path.read_bytes(), [], 8
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        (check,) = struct.unpack_from(">I", content, at + 8 + size)
        assert check == zlib.crc32(content[at + 4 : at + 8 + size])
        kinds.append(kind)
        at += 12 + size
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND" and set(kinds[1:-1]) == {b"IDAT"}


def test_tiff_has_the_texts_in_the_tags_of_exif(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, TiffEncoder(metadata=METADATA), noise(1, (9, 9), 3))

    with Image.open(path) as image:
        exif = {tag: str(value) for tag, value in image.getexif().items()}
    texts = {tag: value.encode("latin-1").decode() for tag, value in exif.items() if ":" in value}
    assert texts == {
        0x0110: "prompt:" + METADATA["prompt"],
        0x010F: "workflow:" + METADATA["workflow"],
        0x010E: "note:" + METADATA["note"],
        0x010D: "a name of more than thirty-one bytes:x",
    }


def test_tiff_of_more_than_4_gib_is_refused() -> None:
    with pytest.raises(SinkError, match="tiff files hold at most 4 GiB, got 30000x30000; save as exr instead"):
        TiffEncoder().check(Clip(height=30_000, width=30_000, channels=3))


def floats(size: tuple[int, int], channels: int) -> np.ndarray:
    """Frames from below 0 to above 1, ``(2, H, W, C)``."""
    return np.random.default_rng(channels).uniform(-0.2, 1.3, (2, *size, channels)).astype(np.float32)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_exr_holds_the_values_as_they_are(tmp_path: Path, half: bool, size: tuple[int, int], channels: int) -> None:
    frames = floats(size, channels)

    for frame, path in zip(frames, saved(tmp_path, ExrEncoder(half=half, color_space="linear"), frames), strict=True):
        assert np.array_equal(decoded_exr(path, frame.shape, half=half), frame.astype("<f2" if half else "<f4"))


@pytest.mark.parametrize("half", [True, False])
def test_exr_that_compresses_comes_back(tmp_path: Path, half: bool) -> None:
    frames = (slopes(2, (50, 64), 3) / 65535).astype(np.float32)
    frames[:, :, 20:] = 0.5

    for frame, path in zip(frames, saved(tmp_path, ExrEncoder(half=half, color_space="linear"), frames), strict=True):
        wanted = frame.astype("<f2" if half else "<f4")
        assert np.array_equal(decoded_exr(path, frame.shape, half=half), wanted)
        assert path.stat().st_size < wanted.nbytes * 0.7


@pytest.mark.parametrize("level", [0, 9])
def test_exr_at_every_level_comes_back(tmp_path: Path, level: int) -> None:
    frames = floats((20, 20), 3)
    encoder = ExrEncoder(half=False, color_space="linear", compress_level=level)
    assert np.array_equal(decoded_exr(saved(tmp_path, encoder, frames)[0], (20, 20, 3), half=False), frames[0])


def test_exr_of_srgb_frames_is_linear_light_and_alpha_stays(tmp_path: Path) -> None:
    frames = floats((33, 47), 4)
    (path, _) = saved(tmp_path, ExrEncoder(half=False), frames)

    exact = frames[0].astype(np.float64)
    wanted = np.where(exact <= 0.04045, exact / 12.92, ((exact.clip(0) + 0.055) / 1.055) ** 2.4)
    got = decoded_exr(path, (33, 47, 4), half=False)
    assert np.allclose(got[..., :3], wanted[..., :3], rtol=2e-6, atol=1e-9)
    assert np.array_equal(got[..., 3], frames[0, ..., 3])


def test_exr_of_hlg_frames_is_light_of_the_scene(tmp_path: Path) -> None:
    # BT.2100: a signal of 0.5 is 1/12 of the light at 1; 0.75 is 0.26496.
    frames = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32).repeat(3).reshape(1, 1, 5, 3)
    (path,) = saved(tmp_path, ExrEncoder(half=False, color_space="HDR"), frames)

    got = decoded_exr(path, (1, 5, 3), half=False)[0, :, 0]
    assert np.allclose(got, [0, 0.25**2 / 3, 1 / 12, 0.26496256, 1], rtol=1e-5, atol=1e-9)
    assert attributes(path)["chromaticities"][1] == struct.pack(
        "<8f", 0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290
    )


def test_exr_keeps_what_is_not_finite(tmp_path: Path) -> None:
    frames = np.array([np.nan, np.inf, -np.inf, 70_000], np.float32).reshape(1, 1, 4, 1)
    (path,) = saved(tmp_path, ExrEncoder(half=True, color_space="linear"), frames)

    got = decoded_exr(path, (1, 4, 1), half=True).ravel()
    assert np.isnan(got[0]) and list(got[1:]) == [np.inf, -np.inf, np.inf]


@pytest.mark.parametrize("color_space", ["sRGB", "HDR", "linear"])
def test_exr_with_nan_is_named_in_the_report(tmp_path: Path, color_space: Any) -> None:
    frames = torch.full((7, 2, 2, 3), 0.5)
    frames[5, 1, 0, 1] = float("nan")
    frames[6] = float("nan")
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), ExrEncoder(half=False, color_space=color_space), writers=2)

    with FramePipeline([sink], chunk_size=2, finish=FinishedFrames()) as pipeline:
        pipeline.submit(frames)

    (warning,) = pipeline.report.warnings
    assert "frame 5 is the first that holds NaN" in warning and "exr files keep" in warning
    holds_nan = [bool(np.isnan(decoded_exr(path, (2, 2, 3), half=False)).any()) for path in sink.files]
    assert holds_nan == [False] * 5 + [True] * 2


@pytest.mark.parametrize(
    ("value", "half", "color_space", "said"),
    [
        (float("inf"), True, "linear", "infinite values, which exr files keep"),
        (float("-inf"), False, "sRGB", "infinite values, which exr files keep"),
        (70_000.0, True, "linear", "values beyond 65504, the most of exr half"),
        (-65_520.0, True, "linear", "values beyond 65504, the most of exr half"),
        # Only the curve takes it there.
        (200.0, True, "sRGB", "values beyond 65504, the most of exr half"),
        (50.0, False, "HDR", "infinite values, which exr files keep"),
        (65_519.0, True, "linear", None),
        (70_000.0, False, "linear", None),
        (1.0, True, "sRGB", None),
    ],
)
def test_exr_with_infinity_is_named_in_the_report(
    tmp_path: Path, value: float, half: bool, color_space: Any, said: str | None
) -> None:
    frames = torch.full((7, 18, 2, 3), 0.5)
    frames[4, 17, 0, 1] = value
    frames[6] = value
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), ExrEncoder(half=half, color_space=color_space), writers=2)

    with FramePipeline([sink], chunk_size=2, finish=FinishedFrames()) as pipeline:
        pipeline.submit(frames)

    got = [bool(np.isinf(decoded_exr(path, (18, 2, 3), half=half)).any()) for path in sink.files]
    assert got == [said is not None and index in (4, 6) for index in range(7)]
    if said is None:
        assert not pipeline.report.warnings
    else:
        (warning,) = pipeline.report.warnings
        assert warning.startswith(f"frame 4 is the first that holds {said}")


def test_exr_with_nan_and_infinity_is_told_of_both(tmp_path: Path) -> None:
    frames = torch.tensor([0.5, float("inf"), float("nan"), 70_000]).reshape(4, 1, 1, 1)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), ExrEncoder(color_space="linear"), writers=2)
    with FramePipeline([sink], finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.cat([frames, frames.flip(0)], 1))

    warnings = pipeline.report.warnings
    assert [warning[:8] for warning in warnings] == ["frame 0 ", "frame 1 ", "frame 1 "]
    assert {warning.split("holds ")[1][:8] for warning in warnings} == {"values b", "infinite", "NaN (not"}


def attributes(path: Path) -> dict[str, tuple[str, bytes]]:
    """The header of an EXR file: type and value by name."""
    content = path.read_bytes()
    magic, version = struct.unpack_from("<II", content)
    assert magic == 20000630 and version & 0xFF == 2
    found, at = {}, 8
    while content[at]:
        name, kind, _ = content[at : at + 600].split(b"\0", 2)
        assert len(name) <= (255 if version & 0x400 else 31)
        at += len(name) + len(kind) + 2
        (size,) = struct.unpack_from("<i", content, at)
        found[name.decode()] = (kind.decode(), content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def test_exr_has_the_texts_as_attributes(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, ExrEncoder(metadata=METADATA), floats((9, 9), 3)[:1])

    found = attributes(path)
    for key, text in METADATA.items():
        assert found[key] == ("string", text.encode())
    assert found["chromaticities"][1] == struct.pack("<8f", 0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
    assert run_ffmpeg("-v", "error", "-i", path, "-f", "null", "-").stderr == b""


def test_exr_names_that_would_break_the_header_are_left_out_and_named(tmp_path: Path) -> None:
    encoder = ExrEncoder(metadata={"": "a", "dataWindow": "b", "n" * 256: "c", "x\0y": "d", "prompt": "e"})
    (path,) = saved(tmp_path, encoder, floats((9, 9), 3)[:1])

    assert attributes(path)["prompt"] == ("string", b"e")
    assert attributes(path)["dataWindow"][0] == "box2i"
    assert len(encoder.notes) == 1 and "'dataWindow'" in encoder.notes[0] and "'prompt'" not in encoder.notes[0]
    assert ExrEncoder(metadata={"prompt": "e"}).notes == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Png16Encoder(compress_level=10), "compress_level must be from 0 to 9, got 10"),
        (lambda: TiffEncoder(compress_level=-1), "compress_level must be from 0 to 9, got -1"),
        (lambda: ExrEncoder(color_space="P3"), "expected a color_space of sRGB, HDR, linear, got 'P3'"),
    ],
)
def test_options_that_the_format_does_not_know_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
