"""JPEG and WebP files hold the frames that came, and the metadata where ComfyUI looks for it."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from async_decode import Clip, Recorder, SinkError
from async_decode.sinks import ImageEncoder, ImageFilesSink, JpegEncoder, PngEncoder, TiffEncoder, WebpEncoder
from async_decode.sinks.files import OutputNames
from tests.engine.sink_tools import exif_texts, nothing_survives, pictures, psnr, run_ffmpeg, save

#: As json.dumps makes it (ASCII), and what somebody's own program may hand over.
METADATA = {
    "prompt": json.dumps({"1": {"inputs": {"text": "é 漢 \\ \n"}}}),
    "workflow": json.dumps({"nodes": list(range(5000))}),
    "note": "é 漢 𝄞",
}


def saved(folder: Path, encoder: ImageEncoder, frames: np.ndarray) -> list[Path]:
    sink = ImageFilesSink(OutputNames(folder, "a"), encoder, writers=2)
    with nothing_survives(folder):
        save(sink, frames)
    assert sink.files == [folder / f"a_{number:05}_{encoder.extension}" for number in range(1, len(frames) + 1)]
    return sink.files


def opened(path: Path, form: str) -> np.ndarray:
    """The pixels of a file that must be of this format, ``(H, W, C)``."""
    with Image.open(path, formats=[form]) as image:
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_jpeg_is_close_to_the_frames(tmp_path: Path, channels: int, mode: str) -> None:
    frames = pictures(3, 65, 99, channels, noise=2)

    for frame, path in zip(frames, saved(tmp_path, JpegEncoder(quality=95), frames), strict=True):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", mode)
        quality = [psnr(opened(path, "JPEG"), other) for other in frames]
        assert psnr(opened(path, "JPEG"), frame) == max(quality) > 40


def test_jpeg_is_the_same_without_memory_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pictures(2, 64, 64)
    usual = saved(tmp_path / "usual", JpegEncoder(metadata=METADATA), frames)
    # As in conda-forge's Pythons, and those of macOS and Windows.
    monkeypatch.delattr(os, "memfd_create", raising=False)
    others = saved(tmp_path / "others", JpegEncoder(metadata=METADATA), frames)

    assert [path.read_bytes() for path in usual] == [path.read_bytes() for path in others]


def test_jpeg_does_without_memory_files_that_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    frames = pictures(1, 64, 64)

    (path,) = saved(tmp_path, JpegEncoder(), frames)

    assert psnr(opened(path, "JPEG"), frames[0]) > 30


def test_jpeg_that_the_disk_for_scratch_files_cannot_hold_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pictures(1, 64, 64)

    class CutShort(io.BytesIO):
        """Holds a little less than it is given, and does not say so."""

        def read(self, size: int | None = -1) -> bytes:
            return super().read(size)[:-5]

    monkeypatch.setattr("async_decode.sinks.image.formats._scratch_file", CutShort)
    sink = ImageFilesSink(OutputNames(tmp_path, "b"), JpegEncoder())
    with nothing_survives(tmp_path):
        with pytest.raises(SinkError, match=r"b_00001_\.jpg could not be written: No space left"):
            save(sink, frames)
        sink.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [3, 4])
def test_lossy_webp_is_close_to_the_frames(tmp_path: Path, channels: int) -> None:
    frames = pictures(3, 65, 99, channels, noise=2)
    if channels == 4:
        # Colours under transparency are nobody's to see.
        frames[..., 3] = 255
        frames[:, :32, :48, 3] = 100

    for frame, path in zip(frames, saved(tmp_path, WebpEncoder(quality=95), frames), strict=True):
        quality = [psnr(opened(path, "WEBP"), other) for other in frames]
        assert psnr(opened(path, "WEBP"), frame) == max(quality) > 32


@pytest.mark.parametrize("effort", [0, 6])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lossless_webp_holds_every_bit(tmp_path: Path, channels: int, effort: int) -> None:
    frames = np.random.default_rng(channels).integers(0, 256, (3, 33, 47, channels), np.uint8)
    if channels == 4:
        frames[:, :10, :, 3] = 0

    encoder = WebpEncoder(lossless=True, effort=effort, metadata=METADATA)
    for frame, path in zip(frames, saved(tmp_path, encoder, frames), strict=True):
        wanted = frame.repeat(3, axis=-1) if channels == 1 else frame
        assert np.array_equal(opened(path, "WEBP"), wanted)


@pytest.mark.parametrize("encoder", [JpegEncoder, WebpEncoder])
def test_quality_is_quality(tmp_path: Path, encoder: type[JpegEncoder] | type[WebpEncoder]) -> None:
    frames = pictures(1, 64, 96)
    files = [saved(tmp_path / str(quality), encoder(quality=quality), frames)[0] for quality in (100, 80, 20)]

    sizes, distances = zip(
        *((path.stat().st_size, psnr(opened(path, encoder.__name__[:4].upper()), frames[0])) for path in files),
        strict=True,
    )
    assert sizes[0] > sizes[1] > sizes[2]
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.parametrize("encoder", [JpegEncoder, WebpEncoder])
def test_metadata_is_where_comfyui_looks_for_it(tmp_path: Path, encoder: type[JpegEncoder] | type[WebpEncoder]) -> None:
    (path,) = saved(tmp_path, encoder(metadata=METADATA), pictures(1))

    assert exif_texts(path) == {
        0x0110: "prompt:" + METADATA["prompt"],
        0x010F: "workflow:" + METADATA["workflow"],
        0x010E: "note:" + METADATA["note"],
    }
    assert json.loads(exif_texts(path)[0x010F].partition(":")[2]) == {"nodes": list(range(5000))}


@pytest.mark.parametrize(("lossless", "channels"), [(False, 3), (False, 4), (True, 3), (True, 4)])
def test_webp_has_the_bytes_of_pillow_but_for_odd_lengths(tmp_path: Path, lossless: bool, channels: int) -> None:
    frames = np.random.default_rng(5).integers(0, 256, (12, 21, 17, channels), np.uint8)
    metadata = {key: METADATA[key] for key in ("prompt", "workflow")}
    encoder = WebpEncoder(lossless=lossless, quality=80, effort=4, metadata=metadata)

    odd = 0
    for frame, path in zip(frames, saved(tmp_path, encoder, frames), strict=True):
        # The lines of stock's Save Animated WEBP, for a single frame.
        image = Image.fromarray(frame)
        exif = image.getexif()
        exif[0x0110] = "prompt:" + metadata["prompt"]
        exif[0x010F] = "workflow:" + metadata["workflow"]
        image.save(tmp_path / "stock.webp", exif=exif, lossless=lossless, exact=lossless, quality=80, method=4)
        stock, content = bytearray((tmp_path / "stock.webp").read_bytes()), path.read_bytes()
        # Chunk after chunk, as a reader does that knows nothing of padding.
        offset = 12
        while content[offset : offset + 4] != b"EXIF":
            (size,) = struct.unpack_from("<I", content, offset + 4)
            assert size % 2 == 0
            odd += stock[offset + 4] % 2
            stock[offset + 4 : offset + 8] = content[offset + 4 : offset + 8]
            offset += 8 + size
        assert content == stock
        decoded = run_ffmpeg("-v", "error", "-i", path, "-pix_fmt", "rgba", "-f", "rawvideo", "-").stdout
        stock_decoded = run_ffmpeg(
            "-v", "error", "-i", tmp_path / "stock.webp", "-pix_fmt", "rgba", "-f", "rawvideo", "-"
        ).stdout
        assert decoded == stock_decoded
        with Image.open(path) as ours, Image.open(tmp_path / "stock.webp") as theirs:
            assert ours.tobytes() == theirs.tobytes()
    assert odd > 0 or not lossless


@pytest.mark.parametrize("encoder", [JpegEncoder, WebpEncoder])
def test_no_metadata_is_no_exif(tmp_path: Path, encoder: type[JpegEncoder] | type[WebpEncoder]) -> None:
    (path,) = saved(tmp_path, encoder(), pictures(1))

    assert exif_texts(path) == {} and b"Exif" not in path.read_bytes() and b"EXIF" not in path.read_bytes()


def test_text_that_no_jpeg_holds_is_left_out_and_named(tmp_path: Path) -> None:
    metadata = {"prompt": "p" * 40_000, "workflow": "w" * 40_000, "note": "short"}
    encoder = JpegEncoder(metadata=metadata)
    (path,) = saved(tmp_path, encoder, pictures(1))

    assert set(exif_texts(path).values()) == {"prompt:" + "p" * 40_000, "note:short"}
    assert encoder.notes == ["too long for a jpeg file, left out: workflow; webp and png files have no limit"]
    assert not JpegEncoder(metadata={"prompt": "short"}).notes


#: More than the tags that count down from stock's first one.
MANY = {"prompt": "the prompt", **{f"key {number}": f"text {number}" for number in range(300)}}


@pytest.mark.parametrize("count", [9, 301])
@pytest.mark.parametrize("encoder", [JpegEncoder, WebpEncoder, TiffEncoder])
def test_any_number_of_texts_is_in_the_file(
    tmp_path: Path, encoder: type[JpegEncoder] | type[WebpEncoder] | type[TiffEncoder], count: int
) -> None:
    metadata = dict(list(MANY.items())[:count])
    made = encoder(metadata=metadata)
    (path,) = saved(tmp_path, made, pictures(1).astype(np.uint16 if encoder is TiffEncoder else np.uint8))

    found = exif_texts(path)
    assert set(found.values()) >= {f"{key}:{text}" for key, text in metadata.items()}
    assert found[0x0110] == "prompt:the prompt"
    assert not made.notes


@pytest.mark.parametrize("encoder", [JpegEncoder, WebpEncoder, TiffEncoder])
def test_texts_beyond_the_tags_that_there_are_are_left_out_and_named(
    tmp_path: Path, encoder: type[JpegEncoder] | type[WebpEncoder] | type[TiffEncoder]
) -> None:
    made = encoder(metadata={**{f"key {number}": "text" for number in range(541)}, "prompt": "the prompt"})
    (path,) = saved(tmp_path, made, pictures(1).astype(np.uint16 if encoder is TiffEncoder else np.uint8))

    assert exif_texts(path)[0x0110] == "prompt:the prompt"
    assert sum(text.endswith(":text") for text in exif_texts(path).values()) == 539
    (note,) = made.notes
    assert "left out: key 539, key 540" in note


@pytest.mark.parametrize("excess", range(-40, 4, 4))
def test_text_at_the_limit_of_jpeg_is_kept_or_left_out_but_never_an_error(tmp_path: Path, excess: int) -> None:
    encoder = JpegEncoder(metadata={"prompt": "p" * (65533 + excess)})
    (path,) = saved(tmp_path, encoder, pictures(1))

    assert bool(exif_texts(path)) != bool(encoder.notes)


def test_jpeg_leaves_alpha_out_and_says_so(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 4), dtype=np.uint8)
    with_alpha, without = JpegEncoder(quality=100), JpegEncoder(quality=100)

    (path,) = saved(tmp_path / "alpha", with_alpha, frames)
    (same,) = saved(tmp_path / "none", without, np.ascontiguousarray(frames[..., :3]))

    assert path.read_bytes() == same.read_bytes()
    assert [note for note in with_alpha.notes if "alpha" in note]
    assert not without.notes


@pytest.mark.parametrize(
    ("encoder", "size", "message"),
    [
        (JpegEncoder(), (8, 65501, 3), "jpeg files hold at most 65500 pixels a side, got 65501x8; save as png instead"),
        (WebpEncoder(), (16384, 8, 3), "webp files hold at most 16383 pixels a side, got 8x16384; save as png instead"),
        (PngEncoder(), (8, 8, 2), "png files hold 1 or 3 or 4 channels, got 2"),
    ],
)
def test_frames_that_a_format_cannot_hold_are_refused_at_the_start(
    tmp_path: Path, encoder: ImageEncoder, size: tuple[int, int, int], message: str
) -> None:
    height, width, channels = size
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), encoder)

    with nothing_survives(tmp_path), pytest.raises(SinkError, match=message):
        sink.open(Clip(height=height, width=width, channels=channels), Recorder())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("encoder", "most"), [(JpegEncoder(), 65500), (WebpEncoder(), 16383)])
def test_largest_side_is_really_possible(tmp_path: Path, encoder: ImageEncoder, most: int) -> None:
    (path,) = saved(tmp_path, encoder, np.zeros((1, 2, most, 3), np.uint8))

    with Image.open(path) as image:
        assert image.size == (most, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JpegEncoder(quality=0), "quality must be from 1 to 100, got 0"),
        (lambda: JpegEncoder(quality=101), "quality must be from 1 to 100, got 101"),
        (lambda: WebpEncoder(quality=-1), "quality must be from 0 to 100, got -1"),
        (lambda: WebpEncoder(effort=7), "effort must be from 0 to 6, got 7"),
    ],
)
def test_options_that_the_format_does_not_know_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
