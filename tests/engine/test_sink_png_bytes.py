"""PNG files hold the bytes that stock's SaveImage writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from async_decode.sinks import ImageFilesSink, PngEncoder
from async_decode.sinks.files import OutputNames
from tests.engine.sink_tools import nothing_survives, pictures, save

#: Texts as json.dumps makes them, and some that it never makes.
METADATA = {
    "prompt": json.dumps({"1": {"inputs": {"text": 'é "\\ \n'}}}),
    "workflow": json.dumps({"nodes": list(range(5000))}),
    "note": "not latin-1: 𝄞 漢",
    "empty": "",
}


def save_as_stock(frame: np.ndarray, path: Path, metadata: dict[str, str] | None, compress_level: int = 4) -> None:
    """The lines of stock's SaveImage behind its quantising."""
    info = None
    if metadata is not None:
        info = PngInfo()
        for key, text in metadata.items():
            info.add_text(key, text)
    Image.fromarray(frame).save(path, pnginfo=info, compress_level=compress_level)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("metadata", [None, METADATA])
@pytest.mark.parametrize("level", [0, 1, 4, 9])
def test_bytes_are_those_of_stock(tmp_path: Path, level: int, metadata: dict[str, str] | None, channels: int) -> None:
    # Wide enough that the picture takes several chunks of the file.
    frames = pictures(3, 90, 400, channels)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(compress_level=level, metadata=metadata))

    with nothing_survives(tmp_path):
        save(sink, frames, chunk=2)

    for frame, path in zip(frames, sink.files, strict=True):
        save_as_stock(frame, tmp_path / "stock.png", metadata, level)
        assert path.read_bytes() == (tmp_path / "stock.png").read_bytes()


def test_grey_frames_become_grey_files(tmp_path: Path) -> None:
    frames = pictures(2, channels=1)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder())
    save(sink, frames)

    for frame, path in zip(frames, sink.files, strict=True):
        with Image.open(path) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), frame[..., 0])


def test_metadata_is_read_back_in_order(tmp_path: Path) -> None:
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(metadata=METADATA))
    save(sink, pictures(1))

    with Image.open(sink.files[0]) as image:
        image.load()
        assert list(image.text.items()) == list(METADATA.items())


def test_files_are_called_as_stock_calls_them(tmp_path: Path) -> None:
    sink = ImageFilesSink(OutputNames(tmp_path, "x%batch_num%y", first=3), PngEncoder())
    save(sink, pictures(3))

    assert sink.files == [tmp_path / name for name in ("x0y_00003_.png", "x1y_00004_.png", "x2y_00005_.png")]


@pytest.mark.parametrize("level", [-1, 10])
def test_compression_that_zlib_does_not_know_is_refused(level: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 9, got {level}"):
        PngEncoder(compress_level=level)
