"""Several writers finish frames in any order; names, spans and futures stay in order."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_decode import Recorder, Stage
from async_decode.sinks import ImageFilesSink, PngEncoder
from async_decode.sinks.files import OutputNames
from tests.engine.sink_tools import PATIENCE, GateEncoder, clip_of, nothing_survives, numbered, pictures, save


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)))
def test_files_keep_the_order_of_frames_whatever_the_writers_do(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("frames")
    frames, gate = numbered(6), GateEncoder()
    sink = ImageFilesSink(OutputNames(folder, "a"), gate, writers=6)
    with nothing_survives(folder):
        sink.open(clip_of(frames), Recorder())
        taken = [sink.write(frames[:4], 0), sink.write(frames[4:], 4)]
        gate.wait_for(*range(6))
        for number in order:
            gate.release(number)
        for future in taken:
            future.result(PATIENCE)
        sink.close()

    assert sink.files == [folder / f"a_{number:05}_.gate" for number in range(1, 7)]
    assert [path.read_bytes() for path in sink.files] == [frame.tobytes() for frame in frames]


def test_chunk_is_done_when_the_last_of_its_frames_is(tmp_path: Path) -> None:
    frames, gate = numbered(4), GateEncoder()
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), gate, writers=2)
    recorder = Recorder()
    sink.open(clip_of(frames), recorder)
    first, second = sink.write(frames[:2], 0), sink.write(frames[2:], 2)

    gate.wait_for(0, 1)
    gate.release(1)
    gate.wait_for(2)
    gate.release(2)
    gate.wait_for(3)
    # A writer that has begun with frame 3 has done all that it does for 1 and 2.
    assert not first.done() and not second.done()
    # Whoever waits sees meanwhile that it gets on.
    assert sink.progress == 2

    gate.release(3)
    second.result(PATIENCE)
    assert not first.done()

    gate.release(0)
    first.result(PATIENCE)
    sink.close()
    assert [span.index for span in recorder.spans] == [1, 2, 3, 0]


def test_each_file_is_a_span_of_the_writer_that_made_it(tmp_path: Path) -> None:
    frames = pictures(12)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(), writers=2)

    spans = save(sink, frames).spans

    assert sorted((span.index, span.bytes) for span in spans) == [
        (index, path.stat().st_size) for index, path in enumerate(sink.files)
    ]
    assert {(span.stage, span.frames) for span in spans} == {(Stage.SAVE, 1)}
    assert {span.lane for span in spans} <= {"png writer 1", "png writer 2"}
    for lane in {span.lane for span in spans}:
        ours = sorted((span for span in spans if span.lane == lane), key=lambda span: span.start_ns)
        assert all(before.end_ns <= after.start_ns for before, after in itertools.pairwise(ours))


def test_memory_may_be_used_again_once_a_chunk_is_done(tmp_path: Path) -> None:
    frames = pictures(8)
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(compress_level=0), writers=3)
    sink.open(clip_of(frames), Recorder())
    slot = np.empty_like(frames[:4])
    for first in (0, 4):
        slot[:] = frames[first : first + 4]
        sink.write(slot, first).result(PATIENCE)
        slot.fill(0)
    sink.close()

    reference = ImageFilesSink(OutputNames(tmp_path, "b"), PngEncoder(compress_level=0))
    save(reference, frames)
    assert [path.read_bytes() for path in sink.files] == [path.read_bytes() for path in reference.files]


def test_no_writer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 writer, got 0"):
        ImageFilesSink(OutputNames(tmp_path, "a"), PngEncoder(), writers=0)
