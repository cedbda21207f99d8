"""Frames that wait on disk for a slow sink: the same frames in the same order, and nothing is lost or left for it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from async_decode import Cancelled, FramePipeline, PixelFormat, Recorder, SinkError
from async_decode.device.conversion import FinishedFrames
from async_decode.frames import FrameArray
from async_decode.sinks import ImageFilesSink, PngEncoder, VideoSink
from async_decode.sinks import spool as spool_module
from async_decode.sinks import spooled as spooled_module
from async_decode.sinks.files import OutputNames
from async_decode.sinks.nameless import NamelessFile
from async_decode.sinks.spool import Spool
from async_decode.sinks.video.catalogue import VIDEO_FORMATS
from tests.engine.sink_tools import PATIENCE, decode, nothing_survives, sink_threads, small_disk
from tests.engine.toy import CollectSink, GateSink

GB = 10**9
FRAMES = 60


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied, and from disk comes one chunk at a time: what does not fit into the ring is on disk."""
    monkeypatch.setattr(spooled_module, "AT_HAND", 0)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    with nothing_survives(tmp_path):
        yield
    assert not spooled_files(tmp_path)


def spooled_files(folder: Path) -> list[str]:
    """What this process has open in ``folder``."""
    found = []
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith(os.fspath(folder)):
            found.append(target)
    return found


def clip(frames: int = FRAMES, size: tuple[int, int] = (8, 12), channels: int = 3) -> torch.Tensor:
    """Noise, of which no two frames are alike, with what only floats hold."""
    made = torch.rand(frames, *size, channels, generator=torch.Generator().manual_seed(frames))
    made.view(-1)[:4] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    return made


def run_through(sink: CollectSink, frames: torch.Tensor, **settings: object) -> FramePipeline:
    pipeline = FramePipeline([sink], finish=FinishedFrames(), total_frames=len(frames), **settings)  # type: ignore[arg-type]
    with pipeline:
        for frame in frames:
            pipeline.submit(frame[None])
    return pipeline


def gate(folder: Path, pixel_format: PixelFormat = PixelFormat.FLOAT32) -> GateSink:
    sink = GateSink(pixel_format)
    sink.folder = folder
    return sink


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the spool says why it takes no more."""
    said, note = threading.Event(), spool_module.Spool._note

    def noted(spool: spool_module.Spool, sentence: str) -> None:
        note(spool, sentence)
        said.set()

    monkeypatch.setattr(spool_module.Spool, "_note", noted)
    return said


def run_until_full(sink: GateSink, frames: torch.Tensor, full: threading.Event, spool: int = GB) -> FramePipeline:
    """Let ``sink`` have no chunk before the spool is full, then all of them."""
    pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=len(frames), spool=spool)
    with pipeline:
        thread = threading.Thread(target=lambda: [pipeline.submit(frame[None]) for frame in frames])
        thread.start()
        assert full.wait(PATIENCE)
        let_go(sink, len(frames) // 2, 2)
        thread.join(PATIENCE)
    assert sink.frames.tobytes() == frames.numpy().tobytes()
    return pipeline


def about_the_spool(pipeline: FramePipeline) -> str:
    """The one note about it."""
    (note,) = [warning for warning in pipeline.report.warnings if "the spool" in warning]
    return note


class KeepingGate(GateSink):
    """Takes each chunk as it is when it is let go, not as it was when it came."""

    def release(self, first_index: int, error: BaseException | None = None) -> None:
        self.chunks[self.indices.index(first_index)] = self.pending[first_index][1].copy()
        super().release(first_index, error)


def let_go(sink: GateSink, chunks: int, chunk_size: int) -> None:
    """Let ``sink`` be done with so many chunks, one after the other."""
    for first in range(0, chunks * chunk_size, chunk_size):
        sink.wait_for(1)
        with sink.arrived:
            assert sink.arrived.wait_for(lambda first=first: first in sink.pending, timeout=PATIENCE)  # type: ignore[misc]
        sink.release(first)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("buffer_depth", [2, 3, 9])
@pytest.mark.parametrize(
    ("pixel_format", "channels", "chunk_size"),
    [
        (PixelFormat.FLOAT32, 3, 1),
        (PixelFormat.FLOAT32, 4, 5),
        (PixelFormat.UINT16, 3, 4),
        (PixelFormat.UINT8, 4, 3),
        (PixelFormat.YUV420, 3, 4),
    ],
)
def test_the_decoder_is_done_before_the_sink_and_not_a_bit_is_lost(
    tmp_path: Path, pixel_format: PixelFormat, channels: int, chunk_size: int, buffer_depth: int
) -> None:
    frames = clip(channels=channels)
    settings = {"chunk_size": chunk_size, "buffer_depth": buffer_depth}
    wanted = CollectSink(pixel_format)
    run_through(wanted, frames, **settings)
    sink = KeepingGate(pixel_format)
    sink.folder = tmp_path
    pipeline = FramePipeline([sink], finish=FinishedFrames(), total_frames=FRAMES, spool=GB, **settings)  # type: ignore[arg-type]

    with pipeline:
        for frame in frames:
            pipeline.submit(frame[None])
        pipeline.end()
        # With the sink still at its first chunk, the last one has left the device.
        pipeline.copied.result(PATIENCE)
        assert pipeline.received == FRAMES and pipeline.written == 0
        assert spooled_files(tmp_path)
        assert os.listdir(tmp_path) == []
        let_go(sink, -(-FRAMES // chunk_size), chunk_size)

    assert sink.frames.tobytes() == wanted.frames.tobytes()
    assert sink.indices == wanted.indices
    report = pipeline.report
    assert (report.outcome, report.written) == ("completed", FRAMES)
    assert not [warning for warning in report.warnings if "spool" in warning]
    assert report.spooled is not None
    assert 0 < report.spooled.frames < FRAMES
    assert report.spooled.bytes == report.spooled.frames * pipeline._stages.clip.frame_bytes(pixel_format)  # type: ignore[union-attr]
    assert report.spooled.most_bytes <= report.spooled.bytes
    assert f"{report.spooled.frames} frames" in str(report)
    assert report.to_json()["spooled"]["frames"] == report.spooled.frames


@pytest.mark.usefixtures("little_memory")
def test_a_frame_that_waits_for_two_sinks_is_one_frame(tmp_path: Path) -> None:
    sinks, frames = [gate(tmp_path), gate(tmp_path)], clip()
    pipeline = FramePipeline(sinks, chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES, spool=GB)

    with pipeline:
        for frame in frames:
            pipeline.submit(frame[None])
        pipeline.end()
        pipeline.copied.result(PATIENCE)
        for sink in sinks:
            let_go(sink, FRAMES // 2, 2)

    assert pipeline.report.spooled is not None
    assert FRAMES // 2 < pipeline.report.spooled.frames < FRAMES
    assert pipeline.report.spooled.bytes > FRAMES * frames[0].nbytes


def test_a_sink_that_keeps_up_never_has_the_disk_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(_: Path) -> None:
        raise AssertionError("a file was made")

    monkeypatch.setattr(spool_module, "NamelessFile", no_file)
    sink = CollectSink(threaded=True)
    sink.folder = tmp_path
    frames = clip()

    pipeline = run_through(sink, frames, chunk_size=2, spool=GB)

    assert sink.frames.tobytes() == frames.numpy().tobytes()
    assert pipeline.report.spooled is None and not pipeline.report.warnings


def test_a_sink_without_files_has_no_spool(tmp_path: Path) -> None:
    sink, frames = CollectSink(), clip()

    pipeline = run_through(sink, frames, spool=GB)

    assert pipeline.report.spooled is None
    assert sink.frames.tobytes() == frames.numpy().tobytes()


@pytest.mark.usefixtures("little_memory")
def test_the_spool_takes_no_more_than_it_was_given(tmp_path: Path, full: threading.Event) -> None:
    frames = clip(size=(16, 16))
    chunk = 2 * frames[0].nbytes

    pipeline = run_until_full(gate(tmp_path), frames, full, 3 * chunk)

    spooled = pipeline.report.spooled
    assert spooled is not None and 0 < spooled.most_bytes <= 3 * chunk
    assert "the spool was full" in about_the_spool(pipeline)


@pytest.mark.usefixtures("little_memory")
def test_a_full_disk_is_only_a_full_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: threading.Event
) -> None:
    # As where a quota ends: the disk has room, and yet takes no more.
    monkeypatch.setattr(spool_module.Spool, "_free", lambda _: 1 << 62)
    with small_disk(tmp_path, "256k") as disk:
        pipeline = run_until_full(gate(disk), clip(size=(48, 48)), full)

        assert "took no more (No space left on device)" in about_the_spool(pipeline)
        assert pipeline.report.spooled is not None
        # What it had is free again.
        assert os.statvfs(disk).f_bfree == os.statvfs(disk).f_blocks


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EMFILE])
def test_a_folder_that_takes_no_file_is_only_a_full_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: threading.Event, number: int
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(spool_module, "NamelessFile", refuse)

    pipeline = run_until_full(gate(tmp_path), clip(), full)

    assert os.strerror(number) in about_the_spool(pipeline)
    assert pipeline.report.spooled is None


@pytest.mark.usefixtures("little_memory")
def test_the_disk_keeps_room_for_the_file_itself(tmp_path: Path, full: threading.Event) -> None:
    with small_disk(tmp_path, "64m") as disk:
        pipeline = run_until_full(gate(disk), clip(), full)

    assert "to leave 1.1 GB of the disk free" in about_the_spool(pipeline)
    assert pipeline.report.spooled is None


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("place", [0, 6])
def test_a_sinks_error_is_the_runs_wherever_the_frames_came_from(tmp_path: Path, place: int) -> None:
    sink, error = gate(tmp_path), SinkError("the encoder died")
    pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES, spool=GB)

    with pytest.raises(SinkError) as raised, pipeline:
        for frame in clip():
            pipeline.submit(frame[None])
        pipeline.end()
        pipeline.copied.result(PATIENCE)
        let_go(sink, place // 2, 2)
        with sink.arrived:
            assert sink.arrived.wait_for(lambda: place in sink.pending, timeout=PATIENCE)
        sink.release(place, error)

    assert raised.value is error
    assert sink.calls == ["open", "abort"]
    assert pipeline.report.outcome == "failed"


class RaisingGate(GateSink):
    """Refuses its fourth chunk at once."""

    def write(self, frames: FrameArray, first_index: int) -> object:  # type: ignore[override]
        if len(self.chunks) == 3:
            raise SinkError("no more")
        return super().write(frames, first_index)


@pytest.mark.usefixtures("little_memory")
def test_a_sink_that_refuses_a_chunk_ends_the_run(tmp_path: Path) -> None:
    sink = RaisingGate()
    sink.folder = tmp_path
    pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES, spool=GB)

    with pytest.raises(SinkError, match="no more"), pipeline:
        for frame in clip():
            pipeline.submit(frame[None])
        let_go(sink, 3, 2)


@pytest.mark.usefixtures("little_memory")
def test_a_cancel_drops_what_waits(tmp_path: Path) -> None:
    sink = gate(tmp_path)
    pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES, spool=GB)

    with pytest.raises(Cancelled), pipeline:
        for frame in clip():
            pipeline.submit(frame[None])
        pipeline.end()
        pipeline.copied.result(PATIENCE)
        let_go(sink, 2, 2)
        pipeline.cancel()

    assert sink.calls == ["open", "abort"]
    # From the ring, and from disk, what the sink had been given; not what waited.
    assert len(sink.indices) <= 4
    assert (pipeline.report.outcome, pipeline.report.written) == ("cancelled", 4)


@pytest.mark.usefixtures("little_memory")
def test_what_was_decoded_before_an_error_is_saved_from_the_spool_too(tmp_path: Path) -> None:
    sink, frames = gate(tmp_path), clip()
    pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=2 * FRAMES, spool=GB)
    helper = threading.Thread(target=let_go, args=(sink, FRAMES // 2, 2))

    with pytest.raises(RuntimeError, match="the decoder died"), pipeline:
        for frame in frames:
            pipeline.submit(frame[None])
        helper.start()
        raise RuntimeError("the decoder died")

    helper.join(PATIENCE)
    assert sink.frames.tobytes() == frames.numpy().tobytes()
    assert sink.calls == ["open", "abort"]
    assert pipeline.report.written == FRAMES


class HeldPng(PngEncoder):
    """Makes no file before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def encode(self, frame: FrameArray, file: object) -> object:  # type: ignore[override]
        assert self.may.wait(PATIENCE)
        return super().encode(frame, file)  # type: ignore[arg-type]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("ending", ["all of it", "cancelled"])
def test_images_have_their_names_while_they_wait(tmp_path: Path, ending: str) -> None:
    encoder, frames = HeldPng(), clip()
    sink = ImageFilesSink(OutputNames(tmp_path, "a"), encoder, writers=1)
    names = [f"a_{number:05}_.png" for number in range(1, FRAMES + 1)]
    pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES, spool=GB)

    try:
        with pipeline:
            for frame in frames:
                pipeline.submit(frame[None])
            pipeline.end()
            pipeline.copied.result(PATIENCE)
            assert [path.name for path in sink.reserved] == names
            assert sorted(os.listdir(tmp_path)) == [f"{name}.part" for name in names]
            if ending == "cancelled":
                pipeline.cancel()
            encoder.may.set()
    except Cancelled:
        assert ending == "cancelled"
        assert len(sink.files) < FRAMES
    else:
        assert ending == "all of it"
        assert [path.name for path in sink.files] == names
    assert sorted(os.listdir(tmp_path)) == [path.name for path in sink.files]


@pytest.mark.usefixtures("little_memory")
def test_a_video_from_the_spool_holds_the_same_frames(tmp_path: Path) -> None:
    def save(name: str, **settings: int) -> tuple[np.ndarray, FramePipeline]:
        sink = VideoSink(OutputNames(tmp_path, name), fps=24, video=VIDEO_FORMATS["mkv (FFV1)"])
        frames = clip(size=(32, 48))
        pipeline = FramePipeline([sink], chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES, **settings)
        with pipeline:
            # In one piece, which comes faster than ffmpeg starts.
            pipeline.submit(frames)
        assert sink.path is not None
        return decode(sink.path, "rgb24", (48, 32), 3), pipeline

    (spooled, pipeline), (wanted, _) = save("spooled", spool=GB), save("plain")

    assert len(wanted) == FRAMES and (spooled == wanted).all()
    assert pipeline.report.spooled is not None
    assert sorted(os.listdir(tmp_path)) == ["plain_00001_.mkv", "spooled_00001_.mkv"]


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="spool must be 0 or more bytes, got -1"):
        FramePipeline([CollectSink()], spool=-1)


def test_its_threads_are_gone_with_the_run(tmp_path: Path) -> None:
    before = sink_threads()
    sink = CollectSink(threaded=True)
    sink.folder = tmp_path

    run_through(sink, clip(), spool=GB)

    assert sink_threads() == before


def test_a_disk_that_tells_only_when_a_file_is_closed_that_it_was_full_is_a_full_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(NamelessFile, "write", full)
    monkeypatch.setattr(NamelessFile, "close", full)
    spool, told = Spool(tmp_path, 1 << 30), threading.Event()
    spool.open(Recorder())
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    assert spool.admits(frames.nbytes)

    spool.store(frames, 0, lambda stored: told.set() if stored is None else None)

    assert told.wait(PATIENCE), "the chunk is still on its way"
    spool.close()
    assert "took no more" in spool.notes[0]
