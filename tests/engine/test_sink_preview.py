"""The preview shows the newest frame, small and seldom; the null sink only counts."""

from __future__ import annotations

import numpy as np
import pytest

from async_decode import Clip, PixelFormat, Recorder
from async_decode.sinks import NullSink, PreviewSink
from tests.engine.sink_tools import pictures, save


def at(times: list[float]) -> PreviewSink:
    """A preview whose clock shows ``times``, one after the other."""
    return PreviewSink(interval=0.5, clock=iter(times).__next__)


def test_newest_frame_is_shown_at_most_every_interval() -> None:
    frames = pictures(5)
    sink = at([0.0, 0.4, 0.5, 0.9, 1.1])
    shown = []
    for index in range(5):
        sink.write(frames[index : index + 1], index)
        image = sink.take()
        shown.append(None if image is None else np.asarray(image))

    assert [image is not None for image in shown] == [True, False, True, False, True]
    assert all(np.array_equal(shown[index], frames[index]) for index in (0, 2, 4))


def test_last_frame_of_a_chunk_is_taken_once() -> None:
    frames, sink = pictures(4), at([0.0])
    sink.write(frames, 0)

    assert np.array_equal(np.asarray(sink.take()), frames[3])
    assert sink.take() is None


def test_only_the_newest_is_kept() -> None:
    frames, sink = pictures(2), at([0.0, 1.0])
    sink.write(frames[:1], 0)
    sink.write(frames[1:], 1)

    assert np.array_equal(np.asarray(sink.take()), frames[1])
    assert sink.take() is None


@pytest.mark.parametrize(
    ("size", "small"),
    [((512, 512), (512, 512)), ((513, 100), (257, 50)), ((720, 1280), (240, 427)), ((2, 2000), (1, 500))],
)
def test_longest_side_is_at_most_512(size: tuple[int, int], small: tuple[int, int]) -> None:
    sink = at([0.0])
    sink.write(pictures(1, *size), 0)

    assert sink.take().size == small[::-1]


def test_sixteen_bits_are_shown_in_eight() -> None:
    frames, sink = pictures(1), at([0.0])
    sink.write(frames.astype(np.uint16) * 257, 0)

    assert np.array_equal(np.asarray(sink.take()), frames[0])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_float_frames_look_like_the_saved_ones(channels: int, mode: str) -> None:
    floats = np.random.default_rng(0).random((1, 8, 8, channels), np.float32) * 1.2 - 0.1
    sink = at([0.0])
    sink.write(floats, 0)

    image = sink.take()
    assert image.mode == mode
    assert np.array_equal(np.asarray(image).reshape(floats.shape), np.clip(255 * floats, 0, 255).astype(np.uint8))


def test_frame_with_nan_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    sink = at([0.0])
    sink.write(np.full((1, 4, 4, 3), np.nan, np.float32), 0)

    assert sink.take() is not None
    assert not recwarn.list


def test_preview_outlives_the_memory_that_it_was_made_from() -> None:
    for slot in (np.full((1, 4, 4, 3), 9, np.uint8), np.full((1, 4, 4, 3), 9 / 255, np.float32)):
        sink = at([0.0])
        sink.write(slot, 0)
        slot.fill(0)

        assert np.unique(sink.take()).tolist() == [9]


def test_null_sink_counts_frames() -> None:
    sink = NullSink(PixelFormat.UINT8)
    save(sink, pictures(7))

    assert (sink.frames, sink.pixel_format) == (7, PixelFormat.UINT8)
    assert NullSink().pixel_format is None


def test_preview_takes_any_format_and_keeps_it_across_the_run() -> None:
    sink = at([0.0])
    sink.open(Clip(height=32, width=48, channels=3), Recorder())
    sink.write(pictures(1), 0)
    sink.close()
    sink.abort()

    assert sink.pixel_format is None
    assert sink.take() is not None
