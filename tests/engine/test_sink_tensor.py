"""The tensor sink gives every frame its place, bit for bit, in memory that the clip owns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from async_decode import Cancelled, Clip, Recorder, SinkError, Stage
from async_decode.sinks import TensorSink
from tests.engine.sink_tools import PATIENCE, clip_of, nothing_survives, save


def floats(frames: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(frames).random((frames, 6, 10, channels), np.float32)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_frames_arrive_bit_for_bit(tmp_path: Path, chunk: int, channels: int) -> None:
    frames, sink = floats(9, channels), TensorSink()
    frames[3, 2, 1] = np.nan

    with nothing_survives(tmp_path):
        save(sink, frames, chunk=chunk)

    assert sink.frames.tobytes() == frames.tobytes()
    assert sink.tensor.dtype == torch.float32 and sink.tensor.shape == frames.shape
    assert sink.tensor.data_ptr() == sink.frames.ctypes.data


def test_clip_of_unknown_length_is_joined_at_the_end() -> None:
    frames, sink = floats(9), TensorSink()
    sink.open(Clip(height=6, width=10, channels=3, frames=None), Recorder())
    # One buffer that is used again, as a slot of the ring is.
    slot = np.empty((4, 6, 10, 3), np.float32)
    for first in range(0, 9, 4):
        part = slot[: len(frames[first : first + 4])]
        part[:] = frames[first : first + 4]
        sink.write(part, first).result(PATIENCE)
    slot.fill(0)
    sink.close()

    assert np.array_equal(sink.frames, frames)


def test_each_chunk_is_a_span(tmp_path: Path) -> None:
    spans = save(TensorSink(), floats(9)).spans

    assert [(span.stage, span.lane, span.index, span.frames, span.bytes) for span in spans] == [
        (Stage.SAVE, "tensor writer", first, count, count * 6 * 10 * 3 * 4) for first, count in ((0, 4), (4, 4), (8, 1))
    ]


def test_frames_are_there_only_after_close() -> None:
    sink = TensorSink()
    sink.open(clip_of(floats(4)), Recorder())
    sink.write(floats(4), 0).result(PATIENCE)

    with pytest.raises(SinkError, match="only after close"):
        _ = sink.frames
    sink.close()
    assert np.array_equal(sink.frames, floats(4))


def test_abort_lets_the_memory_go(tmp_path: Path) -> None:
    sink = TensorSink()
    with nothing_survives(tmp_path):
        sink.open(clip_of(floats(8)), Recorder())
        sink.write(floats(8)[:4], 0)
        sink.abort()
        sink.abort()

    with pytest.raises(SinkError):
        _ = sink.frames
    with pytest.raises(Cancelled):
        sink.write(floats(8)[4:], 4)
    with pytest.raises(Cancelled):
        sink.close()


def test_abort_before_open_and_after_close_does_nothing() -> None:
    TensorSink().abort()
    sink = TensorSink()
    save(sink, floats(4))

    sink.abort()

    assert np.array_equal(sink.frames, floats(4))


def test_fewer_frames_than_announced_are_an_error() -> None:
    sink = TensorSink()
    sink.open(clip_of(floats(4)), Recorder())
    sink.write(floats(3), 0)

    with pytest.raises(SinkError, match="expected 4 frames, got 3"):
        sink.close()


@pytest.mark.parametrize("lengths", [(4, 1), (3, 3), (2, 2, 5, 1)])
def test_frames_of_further_segments_are_joined(lengths: tuple[int, ...]) -> None:
    sink, frames = TensorSink(), floats(sum(lengths))
    sink.open(clip_of(floats(4)), Recorder())

    at = 0
    for length in lengths:
        sink.write(frames[at : at + length], at)
        at += length
    sink.close()

    assert np.array_equal(sink.frames, frames)


def test_clip_that_no_memory_holds_is_named_with_a_remedy() -> None:
    with pytest.raises(SinkError, match=r"no memory for 100000000 frames 4096x4096.*save to files instead"):
        TensorSink().open(Clip(height=4096, width=4096, channels=3, frames=100_000_000), Recorder())
