"""Animated WebP carries prompt and workflow in its EXIF; its frames stay as they were, and no error costs the file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from async_decode import Recorder
from async_decode.sinks import VIDEO_FORMATS, VideoSink
from async_decode.sinks.files import OutputNames
from async_decode.sinks.image import webp_exif
from async_decode.sinks.image.webp_exif import add_exif
from tests.engine.sink_tools import PATIENCE, clip_of, exif_texts, nothing_survives, pictures, save

WEBP = VIDEO_FORMATS["webp (animated)"]
METADATA = {"prompt": '{"1": "é 漢 \\" : ="}', "workflow": '{"nodes": ["' + "w" * 200_001 + '"]}', "other": "[1]"}
#: Where stock's Save Animated WEBP keeps them.
TEXTS = {0x0110: "prompt:" + METADATA["prompt"], 0x010F: "workflow:" + METADATA["workflow"], 0x010E: "other:[1]"}
#: Frames, channels and quality, and what of the picture is in the file. A clip that does not move is one picture.
KINDS = [
    (7, 3, 23, [b"ANIM", *[b"ANMF"] * 7]),
    (7, 4, 0, [b"ANIM", *[b"ANMF"] * 7]),
    (1, 3, 23, [b"VP8 "]),
    (1, 4, 23, [b"ALPH", b"VP8 "]),
    (1, 3, 0, [b"VP8L"]),
    (1, 4, 0, [b"VP8L"]),
]


def saved(folder: Path, frames: np.ndarray, quality: int = 23, metadata: dict[str, str] | None = None) -> Path:
    sink = VideoSink(OutputNames(folder, "a"), fps=24, video=WEBP, crf=quality, metadata=metadata)
    save(sink, frames)
    assert sink.notes == []
    return sink.path


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """Names and contents, as a reader walks who knows nothing of padding: ComfyUI's older front ends are such."""
    content = path.read_bytes()
    riff, size, name = struct.unpack_from("<4sI4s", content)
    assert (riff, size, name) == (b"RIFF", len(content) - 8, b"WEBP")
    found, offset = [], 12
    while offset < len(content):
        name, size = struct.unpack_from("<4sI", content, offset)
        found.append((name, content[offset + 8 : offset + 8 + size]))
        offset += 8 + size
    return found


def decoded(path: Path) -> list[tuple[int, bytes]]:
    """Duration and pixels of each frame."""
    with Image.open(path) as image:
        frames = ImageSequence.Iterator(image)
        return [(frame.info.get("duration", 0), frame.convert("RGBA").tobytes()) for frame in frames]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Whatever this process writes fails beyond ``size`` bytes, in the middle of a write, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [(31, 37), (64, 48)], ids=str)
@pytest.mark.parametrize(("count", "channels", "quality", "pictured"), KINDS)
def test_texts_are_where_stock_has_them_and_frames_stay(
    tmp_path: Path, count: int, channels: int, quality: int, pictured: list[bytes], size: tuple[int, int]
) -> None:
    frames = pictures(count, *size, channels)
    without = saved(tmp_path, frames, quality)
    with nothing_survives(tmp_path):
        path = saved(tmp_path, frames, quality, METADATA)

    assert exif_texts(without) == {} and exif_texts(path) == TEXTS
    assert decoded(path) == decoded(without) and len(decoded(path)) == count
    found = chunks(path)
    assert [name for name, _ in found] == [b"VP8X", *pictured, b"EXIF"]
    # Flags, and width and height less one; the compressed frames are the very bytes.
    flags = 0x08 | (0x10 if channels == 4 else 0) | (0x02 if count > 1 else 0)
    sides = (size[1] - 1).to_bytes(3, "little") + (size[0] - 1).to_bytes(3, "little")
    assert found[0][1] == bytes([flags, 0, 0, 0]) + sides
    content = without.read_bytes()
    assert all(data.removesuffix(b"\0") in content for _, data in found[1:-1])


def test_clip_that_does_not_move_has_them_too(tmp_path: Path) -> None:
    # The encoder makes one picture of it.
    path = saved(tmp_path, np.repeat(pictures(1), 5, axis=0), metadata=METADATA)

    assert exif_texts(path) == TEXTS and len(decoded(path)) == 1


def test_cut_short_file_has_them(tmp_path: Path) -> None:
    frames = pictures(20)
    with nothing_survives(tmp_path):
        sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=WEBP, metadata=METADATA, grace=PATIENCE)
        sink.open(clip_of(frames), Recorder())
        sink.write(frames[:8], 0).result(PATIENCE)
        sink.abort()

    assert sink.path == tmp_path / "a_00001_cut-short.webp"
    assert exif_texts(sink.path) == TEXTS and len(decoded(sink.path)) == 8


@pytest.mark.parametrize("count", [1, 7])
def test_texts_that_do_not_fit_are_left_out_and_the_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    frames = pictures(count)
    without = saved(tmp_path, frames)
    monkeypatch.setattr(webp_exif, "_MAX_SIZE", 100_000)
    sink = VideoSink(OutputNames(tmp_path, "a"), fps=24, video=WEBP, metadata=METADATA)
    save(sink, frames)

    (note,) = sink.notes
    assert note.startswith("prompt and workflow were left out: a WebP file holds at most 4 GiB, got")
    assert sink.path is not None and sink.path.read_bytes() == without.read_bytes()


@pytest.mark.parametrize("count", [1, 7])
def test_full_disk_leaves_the_file_as_it_was(tmp_path: Path, count: int) -> None:
    path = saved(tmp_path, pictures(count))
    before = path.read_bytes()

    with largest_file(len(before) + 10), pytest.raises(OSError):
        add_exif(path, bytes(1000))

    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda webp: b"", "begins with"),
        (lambda webp: webp[:-1], "expected a whole WebP file"),
        (lambda webp: b"RIFX" + webp[4:], "expected a whole WebP file, got one that begins with b'RIFX"),
        (lambda webp: webp[:12] + b"VP9 " + webp[16:], "expected a picture in VP8 or VP8L, got b'VP9 "),
        (lambda webp: webp[:12] + b"VP8L" + webp[16:], "expected a picture in VP8 or VP8L, got b'VP8L"),
    ],
)
def test_what_is_no_such_file_is_refused_and_left_alone(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = saved(tmp_path, pictures(1))
    path.write_bytes(change(path.read_bytes()))
    before = path.read_bytes()

    with pytest.raises(ValueError, match=message):
        add_exif(path, b"II*\0")

    assert path.read_bytes() == before


def test_animation_is_not_read(tmp_path: Path) -> None:
    # A file that claims 2 GiB of frames, in a file system that keeps holes.
    path = saved(tmp_path, pictures(2))
    start = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(2 * 2**30)
        file.seek(4)
        file.write(struct.pack("<I", 2 * 2**30 - 8))
    if path.stat().st_blocks * 512 > 2**20:
        pytest.skip("this file system keeps no holes")

    add_exif(path, b"II*\0")

    assert path.stat().st_blocks * 512 <= 2**20
    with path.open("rb") as file:
        got = bytearray(file.read(len(start)))
        file.seek(2 * 2**30)
        assert file.read() == b"EXIF\x04\0\0\0II*\0"
    assert struct.unpack_from("<I", got, 4) == (2 * 2**30 - 8 + 12,) and got[20] == start[20] | 0x08
    os.unlink(path)
