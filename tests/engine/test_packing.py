"""Packing: the very bits come back, whatever the samples are, and soft frames take less room."""

from __future__ import annotations

import numpy as np
import pytest

from async_decode.sinks.packing import pack, unpack
from tests.engine.sink_tools import pictures

ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 0.5], np.float32)


def there_and_back(lines: np.ndarray) -> np.ndarray:
    again = np.full_like(lines, 7)
    unpack(memoryview(bytes(pack(lines))), again)
    return again


def lines_of(kind: str, dtype: type, columns: int, channels: int) -> np.ndarray:
    if kind == "noise":
        data = np.random.default_rng(0).bytes(9 * columns * channels * np.dtype(dtype).itemsize)
        return np.frombuffer(data, dtype).reshape(9, columns, channels)
    soft = pictures(1, 9, columns, channels)[0]
    if dtype is np.float32:
        floats = (soft / 255).astype(np.float32)
        floats.reshape(-1)[: len(ODD)] = ODD[: floats.size]
        return floats
    return soft.astype(dtype) * (257 if dtype is np.uint16 else 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("columns", [1, 2, 37])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kind", ["soft", "noise"])
def test_the_very_bits_come_back(kind: str, dtype: type, columns: int, channels: int) -> None:
    lines = lines_of(kind, dtype, columns, channels)

    assert there_and_back(lines).tobytes() == lines.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_soft_frames_take_less_and_noise_takes_no_more(dtype: type) -> None:
    soft, noise = lines_of("soft", dtype, 640, 3), lines_of("noise", dtype, 640, 3)

    assert len(pack(soft)) < 0.9 * soft.nbytes
    assert len(pack(noise)) <= noise.nbytes


def test_lines_of_a_clip_are_packed_where_they_lie() -> None:
    frames = pictures(4, 8, 16)
    lines = frames.reshape(-1, 16, 3)[5:21]

    assert (there_and_back(lines) == lines).all()
